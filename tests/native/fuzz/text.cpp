// libFuzzer: bytes as a text for one of two right tokenizers, or as a tokenizer.json. The first byte says
// which, the second what is asked. What comes back must cover the text in order, and be its vocabulary's.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "modernbert_text.h"

namespace {

std::string quoted(const std::string& text) { return '"' + text + '"'; }

std::string utf8(unsigned point) {
  if (point < 0x80) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))};
}

// Every byte, and some joined ones.
std::string bytes_file() {
  std::string vocabulary;
  unsigned other = 0x100, id = 0;
  for (unsigned b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const std::string token = utf8(itself ? b : other++);
    vocabulary += quoted(b == '"' || b == '\\' ? "\\" + token : token) + ":" + std::to_string(id++) + ",";
  }
  for (const char* token : {"th", "the", "ab", "aba"}) vocabulary += quoted(token) + ":" + std::to_string(id++) + ",";
  vocabulary.pop_back();
  return R"({"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
         R"("added_tokens":[{"id":260,"content":"[MASK]","special":true,"lstrip":true},)"
         R"({"id":261,"content":"  ","normalized":true},{"id":262,"content":"ZZ","single_word":true}],)"
         R"("model":{"type":"BPE","merges":["t h","th e","a b","ab a"],"vocab":{)" +
         vocabulary + "}}}";
}

// Every byte as <0x00>, and some characters.
std::string characters_file() {
  std::string vocabulary;
  unsigned id = 0;
  for (unsigned b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    vocabulary += quoted(name) + ":" + std::to_string(id++) + ",";
  }
  for (const char* token : {"a", "b", "t", "h", "e", "\u2581", "ab", "\u2581a", "b\u2581", "\u2581\u2581"})
    vocabulary += quoted(token) + ":" + std::to_string(id++) + ",";
  vocabulary.pop_back();
  return R"({"normalizer":{"type":"Replace","pattern":{"String":" "},"content":"\u2581"},)"
         R"("added_tokens":[{"id":266,"content":"\n\n"}],)"
         R"("model":{"type":"BPE","byte_fallback":true,)"
         R"("merges":["a b","\u2581 a","b \u2581","\u2581 \u2581"],"vocab":{)" +
         vocabulary + "}}}";
}

const std::string& place() {
  static const std::string path = [] {
    std::string name = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    name += "/modernbert-fuzz-XXXXXX";
    const int file = mkstemp(name.data());
    if (file < 0) std::abort();
    close(file);
    return name;
  }();
  return path;
}

modernbert_tokenizer* opened(const std::string& content) {
  std::FILE* file = std::fopen(place().c_str(), "wb");
  if (!file || std::fwrite(content.data(), 1, content.size(), file) != content.size()) std::abort();
  std::fclose(file);
  const timespec old[2] = {{1, 0}, {1, 0}};  // a file that was just written is waited for
  if (utimensat(AT_FDCWD, place().c_str(), old, 0)) std::abort();
  modernbert_tokenizer* out = nullptr;
  const int status = modernbert_tokenizer_open(place().c_str(), &out);
  if (status == MODERNBERT_INTERNAL || (status == MODERNBERT_OK) != (out != nullptr)) std::abort();
  return out;
}

void encode(const modernbert_tokenizer* tokenizer, const std::string& text, bool special) {
  modernbert_encoding e{};
  e.struct_size = sizeof e;
  const int status = modernbert_tokenizer_encode(tokenizer, text.data(), text.size(), nullptr, 0, special, &e);
  if (status == MODERNBERT_INVALID_ARGUMENT) return;  // no UTF-8
  if (status != MODERNBERT_OK) std::abort();
  std::size_t ids = 0;
  modernbert_tokenizer_ids(tokenizer, &ids);
  std::int64_t characters = 0;
  for (const char c : text) characters += (c & 0xc0) != 0x80;
  for (std::size_t i = 0; i < e.count; ++i) {
    if (e.ids[i] < 0 || static_cast<std::size_t>(e.ids[i]) >= ids) std::abort();
    if (e.starts[i] < 0 || e.ends[i] > characters) std::abort();
    if (e.sequences[i] == 0 && i && e.sequences[i - 1] == 0 && e.words[i] != e.words[i - 1] && e.words[i] != e.words[i - 1] + 1)
      std::abort();
  }
  modernbert_encoding_free(&e);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static modernbert_tokenizer* const right[] = {opened(bytes_file()), opened(characters_file())};
  if (!right[0] || !right[1]) std::abort();
  if (size < 2) return 0;
  const std::string content(data + 2, data + size);
  if (data[0] % 3 < 2) {
    encode(right[data[0] % 3], content, data[1] & 1);
    return 0;
  }
  if (modernbert_tokenizer* tokenizer = opened(content)) {
    encode(tokenizer, "the [MASK] a b  ab\n", data[1] & 1);
    modernbert_tokenizer_close(tokenizer);
  }
  return 0;
}
