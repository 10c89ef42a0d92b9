// Text to ids: modernbert_text.h.
#include "modernbert_text.h"

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "abi/status.h"
#include "text/tokenizer.h"

using namespace refimpl;

struct modernbert_tokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
};

namespace {

std::string_view view(const char* text, std::size_t bytes, const char* name) {
  return bytes ? std::string_view(&not_null(text, name), bytes) : std::string_view();
}

const Tokenizer& of(const modernbert_tokenizer* tokenizer) { return *not_null(tokenizer, "tokenizer").tokenizer; }

}  // namespace

extern "C" int modernbert_tokenizer_open(const char* file, modernbert_tokenizer** out) {
  return guarded([&] {
    not_null(out, "out") = nullptr;
    auto made = std::make_unique<modernbert_tokenizer>();
    made->tokenizer = Tokenizer::read(&not_null(file, "file"));
    *out = made.release();
  });
}

extern "C" int modernbert_tokenizer_parse(const char* content, std::size_t bytes, const char* name,
                                          modernbert_tokenizer** out) {
  return guarded([&] {
    not_null(out, "out") = nullptr;
    auto made = std::make_unique<modernbert_tokenizer>();
    made->tokenizer = Tokenizer::parse(view(content, bytes, "content"), &not_null(name, "name"));
    *out = made.release();
  });
}

extern "C" void modernbert_tokenizer_close(modernbert_tokenizer* tokenizer) { delete tokenizer; }

extern "C" int modernbert_tokenizer_add(modernbert_tokenizer* tokenizer, const modernbert_added_token* tokens,
                                        std::size_t count, int split_special) {
  return guarded([&] {
    of(tokenizer);
    std::vector<AddedToken> added;
    for (std::size_t i = 0; i < count; ++i) {
      const modernbert_added_token& t = (&not_null(tokens, "tokens"))[i];
      const std::string_view content = view(t.content, t.bytes, "tokens[].content");
      check_utf8(content, "tokens[].content");
      added.push_back({std::string(content), -1, t.special != 0, t.lstrip != 0, t.rstrip != 0, t.single_word != 0,
                       t.normalized != 0});
    }
    tokenizer->tokenizer->add(added);
    tokenizer->tokenizer->set_split_special(split_special != 0);
  });
}

extern "C" int modernbert_tokenizer_encode(const modernbert_tokenizer* tokenizer, const char* text, std::size_t bytes,
                                           const char* pair, std::size_t pair_bytes, int special,
                                           modernbert_encoding* out) {
  return guarded([&] {
    modernbert_encoding& encoding = sized(out, "out");
    const std::string_view first = view(text, bytes, "text");
    const std::optional<std::string_view> second = pair ? std::optional(std::string_view(pair, pair_bytes)) : std::nullopt;
    auto made = std::make_unique<Tokenized>();
    of(tokenizer).encode(first, second, special != 0, *made);
    const Tokenized& t = *made;
    encoding = {sizeof encoding,  t.ids.size(),   t.ids.data(),       t.types.data(), t.starts.data(),
                t.ends.data(), t.words.data(), t.sequences.data(), made.release()};
  });
}

extern "C" void modernbert_encoding_free(modernbert_encoding* encoding) {
  if (!encoding) return;
  delete static_cast<Tokenized*>(encoding->memory);
  *encoding = {};
}

extern "C" int modernbert_tokenizer_template(const modernbert_tokenizer* tokenizer, int pair, std::size_t* tokens) {
  return guarded([&] { not_null(tokens, "tokens") = of(tokenizer).template_tokens(pair != 0); });
}

extern "C" int modernbert_tokenizer_ids(const modernbert_tokenizer* tokenizer, std::size_t* ids) {
  return guarded([&] { not_null(ids, "ids") = of(tokenizer).ids(); });
}

extern "C" int modernbert_tokenizer_token(const modernbert_tokenizer* tokenizer, std::int32_t id, const char** token,
                                          std::size_t* bytes) {
  return guarded([&] {
    const std::string* found = of(tokenizer).token_of(id);
    not_null(bytes, "bytes") = found ? found->size() : 0;
    not_null(token, "token") = found ? found->data() : nullptr;
  });
}

extern "C" int modernbert_tokenizer_id(const modernbert_tokenizer* tokenizer, const char* token, std::size_t bytes,
                                       std::int32_t* id) {
  return guarded([&] { not_null(id, "id") = of(tokenizer).id_of(std::string(view(token, bytes, "token"))); });
}

extern "C" int modernbert_tokenizer_added(const modernbert_tokenizer* tokenizer, std::size_t i,
                                          modernbert_added_token* out) {
  return guarded([&] {
    const auto& added = of(tokenizer).added();
    modernbert_added_token& token = not_null(out, "out");
    token = {};
    if (i >= added.size()) return;
    const AddedToken& t = added[i];
    token = {t.content.data(), t.content.size(), t.id, t.special, t.lstrip, t.rstrip, t.single_word, t.normalized};
  });
}

extern "C" int modernbert_tokenizer_facts(const modernbert_tokenizer* tokenizer, const char** decoder,
                                          const char** normalizer, const char** truncation_side) {
  return guarded([&] {
    not_null(decoder, "decoder") = of(tokenizer).decoder().c_str();
    not_null(normalizer, "normalizer") = of(tokenizer).normalizer();
    not_null(truncation_side, "truncation_side") = of(tokenizer).truncation_side().c_str();
  });
}
