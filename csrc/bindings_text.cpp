// The tokenizer of refimpl.backends._native, over modernbert_text.h.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "modernbert_text.h"

namespace py = pybind11;

namespace {

// content, special, lstrip, rstrip, single_word, normalized
using Added = std::tuple<std::string, bool, bool, bool, bool, bool>;

struct Encoding : modernbert_encoding {
  Encoding() : modernbert_encoding{} { struct_size = sizeof(modernbert_encoding); }
  ~Encoding() { modernbert_encoding_free(this); }
  Encoding(const Encoding&) = delete;
};

std::pair<const char*, std::size_t> utf8(const py::str& text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (!bytes) throw py::error_already_set();
  return {bytes, static_cast<std::size_t>(size)};
}

template <class T>
py::array_t<T> column(const T* values, std::size_t count) {
  return py::array_t<T>(static_cast<py::ssize_t>(count), values);
}

class PyTokenizer {
 public:
  PyTokenizer(const std::string& file, const std::optional<py::bytes>& content) {
    const std::string_view json = content ? std::string_view(*content) : std::string_view();
    check(released([&] {
      return content ? modernbert_tokenizer_parse(json.data(), json.size(), file.c_str(), &tokenizer_)
                     : modernbert_tokenizer_open(file.c_str(), &tokenizer_);
    }));
  }
  PyTokenizer(const PyTokenizer&) = delete;
  ~PyTokenizer() { modernbert_tokenizer_close(tokenizer_); }

  void add(const std::vector<Added>& tokens, bool split_special) {
    std::vector<modernbert_added_token> given;
    for (const auto& [content, special, lstrip, rstrip, single_word, normalized] : tokens)
      given.push_back({content.data(), content.size(), -1, special, lstrip, rstrip, single_word, normalized});
    check(modernbert_tokenizer_add(tokenizer_, given.data(), given.size(), split_special));
  }

  py::dict encode(const py::str& text, const std::optional<py::str>& pair, bool special) const {
    const auto [first, first_bytes] = utf8(text);
    const auto [second, second_bytes] = pair ? utf8(*pair) : std::pair<const char*, std::size_t>{nullptr, 0};
    Encoding encoding;
    check(released([&, first = first, first_bytes = first_bytes, second = second, second_bytes = second_bytes] {
      return modernbert_tokenizer_encode(tokenizer_, first, first_bytes, second, second_bytes, special, &encoding);
    }));
    py::dict out;
    out["ids"] = column(encoding.ids, encoding.count);
    out["types"] = column(encoding.types, encoding.count);
    out["starts"] = column(encoding.starts, encoding.count);
    out["ends"] = column(encoding.ends, encoding.count);
    out["words"] = column(encoding.words, encoding.count);
    out["sequences"] = column(encoding.sequences, encoding.count);
    return out;
  }

  std::size_t template_tokens(bool pair) const {
    std::size_t tokens = 0;
    check(modernbert_tokenizer_template(tokenizer_, pair, &tokens));
    return tokens;
  }

  std::size_t ids() const {
    std::size_t ids = 0;
    check(modernbert_tokenizer_ids(tokenizer_, &ids));
    return ids;
  }

  std::optional<std::string> token(std::int32_t id) const {
    const char* token = nullptr;
    std::size_t bytes = 0;
    check(modernbert_tokenizer_token(tokenizer_, id, &token, &bytes));
    return token ? std::optional(std::string(token, bytes)) : std::nullopt;
  }

  std::optional<std::int32_t> id(const std::string& token) const {
    std::int32_t id = -1;
    check(modernbert_tokenizer_id(tokenizer_, token.data(), token.size(), &id));
    return id < 0 ? std::nullopt : std::optional(id);
  }

  py::dict vocabulary() const {
    py::dict out;
    for (std::size_t i = 0, end = ids(); i < end; ++i)
      if (const auto its = token(static_cast<std::int32_t>(i))) out[py::str(*its)] = i;
    return out;
  }

  std::vector<std::pair<std::int32_t, Added>> added() const {
    std::vector<std::pair<std::int32_t, Added>> out;
    for (std::size_t i = 0;; ++i) {
      modernbert_added_token t;
      check(modernbert_tokenizer_added(tokenizer_, i, &t));
      if (!t.content) return out;
      out.push_back({t.id, Added{std::string(t.content, t.bytes), t.special, t.lstrip, t.rstrip, t.single_word, t.normalized}});
    }
  }

  std::tuple<std::string, std::string, std::string> facts() const {
    const char *decoder = nullptr, *normalizer = nullptr, *side = nullptr;
    check(modernbert_tokenizer_facts(tokenizer_, &decoder, &normalizer, &side));
    return {decoder, normalizer, side};
  }

 private:
  modernbert_tokenizer* tokenizer_ = nullptr;
};

}  // namespace

void bind_text(py::module_& m) {
  using py::arg;
  py::class_<PyTokenizer>(m, "Tokenizer", "The text side of a tokenizer.json; csrc/text.")
      .def(py::init<const std::string&, const std::optional<py::bytes>&>(), arg("file"), arg("content") = py::none(),
           "content: that of the file, where it is known.")
      .def("add", &PyTokenizer::add, arg("tokens"), arg("split_special"),
           "Tokens as (content, special, lstrip, rstrip, single_word, normalized); known ones take these flags.")
      .def("encode", &PyTokenizer::encode, arg("text"), arg("pair") = py::none(), arg("special") = true,
           "ids, types, words, sequences [tokens] int32, starts and ends int64 in characters.")
      .def("template_tokens", &PyTokenizer::template_tokens, arg("pair"), "Tokens that the template adds.")
      .def("token", &PyTokenizer::token, arg("id"))
      .def("id", &PyTokenizer::id, arg("token"))
      .def("vocabulary", &PyTokenizer::vocabulary, "Token -> id, added ones too.")
      .def("added", &PyTokenizer::added, "Added tokens with their ids, in their order.")
      .def_property_readonly("ids", &PyTokenizer::ids, "One more than the largest id.")
      .def_property_readonly("facts", &PyTokenizer::facts, "Decoder, normalizer and side of truncation, each \"\" where the file has none.");
}
