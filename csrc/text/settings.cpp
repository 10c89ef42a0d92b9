#include "text/settings.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "files/fetched_file.h"
#include "files/format_error.h"
#include "files/json.h"

namespace refimpl {
namespace {

constexpr double kNoLimit = 2147483648.0;  // files write 1e30 where there is none

// One json object; an empty one where there is no such file.
struct Object {
  std::string file;
  const Json& values;

  const Json* given(const std::string& key) const {
    const Json* value = values.find(key);
    return value && !value->is_null() ? value : nullptr;
  }
  [[noreturn]] void refuse(const std::string& key, const Json& value, const std::string& wanted) const {
    throw FormatError(file, key, kNoOffset, "is " + value.shown() + "; " + wanted);
  }
  template <class T>
  const T* maybe(const std::string& key, const char* kind) const {
    const Json* value = given(key);
    if (!value) return nullptr;
    if (const T* found = value->get<T>()) return found;
    refuse(key, *value, std::string("it must be ") + kind + ", or null");
  }
};

Object object_of(FolderFiles& files, const std::string& file) {
  static const Json nothing{Json::Object{}};
  return {file, is_file(file) ? files.json(file, true) : nothing};
}

bool same(const AddedToken& a, const AddedToken& b) {
  const auto all = [](const AddedToken& t) {
    return std::tie(t.content, t.special, t.lstrip, t.rstrip, t.single_word, t.normalized);
  };
  return all(a) == all(b);
}

// A token as a file spells it: its text, or an object with its flags.
AddedToken token_of(const Object& entry, const std::string& key, const Json& value, std::optional<bool> special) {
  if (const std::string* content = value.get<std::string>()) return {*content, -1, true, false, false, false, false};
  const Json* content = value.get<Json::Object>() ? value.find("content") : nullptr;
  if (!content || !content->get<std::string>())
    entry.refuse(key, value, "it must be a text, or an object with one as content");
  static constexpr std::pair<const char*, bool> kFlags[] = {
      {"lstrip", false}, {"rstrip", false}, {"single_word", false}, {"normalized", true}, {"special", false}};
  bool flags[std::size(kFlags)], right = true;
  Json::Object shown;
  for (std::size_t i = 0; i < std::size(kFlags); ++i) {
    const auto [name, otherwise] = kFlags[i];
    const bool fixed = special && name == std::string("special");
    const Json* flag = fixed ? nullptr : value.find(name);
    flags[i] = fixed ? *special : otherwise;
    if (flag && flag->get<bool>()) flags[i] = *flag->get<bool>();
    right = right && (!flag || flag->get<bool>());
    shown.push_back({name, 0, flag ? *flag : Json{flags[i]}});
  }
  if (!right)
    throw FormatError(entry.file, key, kNoOffset, "has the flags " + Json{shown}.shown() + "; they must be true or false");
  return {*content->get<std::string>(), -1, flags[4], flags[0], flags[1], flags[2], flags[3]};
}

using Named = std::vector<std::pair<std::string, AddedToken>>;

// Every `*_token` of a file; those of a later file take the place of an earlier one's.
void take_named(const Object& entry, Named& named) {
  for (const JsonMember& member : *entry.values.get<Json::Object>()) {
    const std::string& key = member.key;
    const std::string end = "_token";
    if (key.size() < end.size() || key.compare(key.size() - end.size(), end.size(), end) != 0 ||
        key.rfind("add_", 0) == 0 || member.value.is_null())
      continue;
    AddedToken token = token_of(entry, key, member.value, true);
    const auto known = std::find_if(named.begin(), named.end(), [&](const auto& one) { return one.first == key; });
    if (known != named.end())
      known->second = std::move(token);
    else
      named.emplace_back(key, std::move(token));
  }
}

// Special tokens without a role: a list, or an object of names and tokens. Whether there are any.
bool take_extra(const Object& entry, const std::string& key, std::vector<AddedToken>& out) {
  const Json* value = entry.given(key);
  if (!value) return false;
  const std::size_t before = out.size();
  if (const Json::List* list = value->get<Json::List>()) {
    for (const Json& one : *list) out.push_back(token_of(entry, key, one, true));
  } else if (const Json::Object* object = value->get<Json::Object>()) {
    for (const JsonMember& one : *object) out.push_back(token_of(entry, key, one.value, true));
  } else {
    entry.refuse(key, *value, "it must be a list, or an object");
  }
  return out.size() > before;
}

std::optional<double> number(const Json& value) {
  if (const double* x = value.get<double>()) return *x;
  if (const JsonInteger* n = value.get<JsonInteger>()) return (n->negative ? -1.0 : 1.0) * static_cast<double>(n->magnitude);
  return std::nullopt;
}

// A number of tokens; 0 where there is no limit.
std::uint64_t limit_of(const Object& entry, const std::string& key) {
  const Json* value = entry.given(key);
  const std::optional<double> n = value ? number(*value) : std::nullopt;
  if (!n || !(*n < kNoLimit)) return 0;
  if (*n < 1) entry.refuse(key, *value, "it must be at least 1");
  return static_cast<std::uint64_t>(*n);
}

// The places of these numbers, smallest first; of equal ones the first first.
std::vector<std::size_t> in_order(const std::vector<double>& numbers) {
  std::vector<std::size_t> out(numbers.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = i;
  std::sort(out.begin(), out.end(), [&](std::size_t a, std::size_t b) {
    return numbers[a] < numbers[b] || (numbers[a] == numbers[b] && a < b);
  });
  return out;
}

// What stands under added_tokens_decoder, by its ids.
std::vector<AddedToken> decoder_tokens(const Object& entry, const Json::Object& decoder) {
  std::vector<double> ids;
  for (const JsonMember& member : decoder) {
    const std::string& key = member.key;
    const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    ids.push_back(digits ? static_cast<double>(std::stol(key)) : -1.0);
  }
  std::vector<AddedToken> out;
  for (const std::size_t i : in_order(ids))
    out.push_back(token_of(entry, "added_tokens_decoder." + decoder[i].key, decoder[i].value, std::nullopt));
  return out;
}

// What stands in added_tokens.json, by its ids.
std::vector<AddedToken> listed_tokens(const Object& entry, const std::set<std::string>& special) {
  const Json::Object& listed = *entry.values.get<Json::Object>();
  std::vector<double> ids;
  for (const JsonMember& member : listed) {
    const std::optional<double> id = number(member.value);
    if (!id) entry.refuse(member.key, member.value, "it must be a number");
    ids.push_back(*id);
  }
  std::vector<AddedToken> out;
  for (const std::size_t i : in_order(ids)) {
    const bool is_special = special.count(listed[i].key);
    out.push_back({listed[i].key, -1, is_special, false, false, false, !is_special});
  }
  return out;
}

// Tokens that the files beside tokenizer.json list and it has not, or has otherwise, in transformers' order. A
// named one that would get an id without a row in the embedding stays out: no text can mean it.
void add_tokens(Tokenizer& tokenizer, const std::vector<AddedToken>& added, const std::vector<AddedToken>& named,
                std::uint64_t vocab) {
  const std::vector<AddedToken> known = tokenizer.added();
  std::set<std::string> contents, special;
  for (const AddedToken& token : known) contents.insert(token.content);
  for (const AddedToken& token : named) special.insert(token.content);
  const auto holds = [](const std::vector<AddedToken>& tokens, const AddedToken& token) {
    return std::any_of(tokens.begin(), tokens.end(), [&](const AddedToken& other) { return same(token, other); });
  };
  const auto take = [&](const AddedToken& token) {
    const bool by_name = holds(named, token) && !holds(added, token);
    AddedToken wanted = token;
    wanted.special = token.special || special.count(token.content);
    if (holds(known, wanted) || (by_name && contents.count(token.content))) return;
    if (by_name && tokenizer.id_of(token.content) < 0 && vocab && tokenizer.ids() >= vocab) return;
    tokenizer.add({wanted});
    contents.insert(token.content);
  };
  for (const AddedToken& token : added) take(token);
  for (const AddedToken& token : named) take(token);
}

// Every id that the tokenizer can give must be a row of the model's embedding.
void check_vocabulary(const Tokenizer& tokenizer, std::uint64_t vocab, const std::string& file) {
  for (std::uint64_t id = vocab; vocab && id < tokenizer.ids(); ++id)
    if (const std::string* token = tokenizer.token_of(static_cast<std::int32_t>(id)))
      throw FormatError(file, "token " + Json{*token}.shown() + " has id " + std::to_string(id) +
                                  ", but the model's vocab_size is " + std::to_string(vocab) +
                                  " (config.json): this tokenizer belongs to another model");
}

}  // namespace

FolderTokenizer read_folder_tokenizer(FolderFiles& files, const std::string& root) {
  const std::string file = join(root, "tokenizer.json");
  if (!is_file(file))
    throw FormatError(file, "no such file, so text cannot be turned into ids; copy the tokenizer.json that the model was "
                            "trained with into the folder, or call the model with input_ids");
  const Object settings = object_of(files, join(root, "tokenizer_config.json"));
  const Object config = object_of(files, join(root, "config.json"));
  const Json::Object* newer = settings.maybe<Json::Object>("added_tokens_decoder", "an object");
  const Object special = newer ? object_of(files, "") : object_of(files, join(root, "special_tokens_map.json"));

  Named roles;
  take_named(settings, roles), take_named(special, roles);
  std::vector<AddedToken> extra;
  bool listed = take_extra(settings, "additional_special_tokens", extra);
  listed = take_extra(settings, "extra_special_tokens", extra) || listed;
  if (!listed) take_extra(special, "additional_special_tokens", extra);
  take_extra(special, "extra_special_tokens", extra);
  std::vector<AddedToken> named;
  for (const auto& role : roles) named.push_back(role.second);
  named.insert(named.end(), extra.begin(), extra.end());
  std::set<std::string> names;
  for (const AddedToken& token : named) names.insert(token.content);
  const std::vector<AddedToken> added =
      newer ? decoder_tokens(settings, *newer) : listed_tokens(object_of(files, join(root, "added_tokens.json")), names);

  FolderTokenizer out{nullptr, 0, false};
  const std::string own = settings.values.find("model_max_length") ? "model_max_length" : "max_len";
  for (const std::uint64_t limit : {limit_of(settings, own), limit_of(config, "max_position_embeddings")})
    if (limit) out.longest = out.longest ? std::min(out.longest, limit) : limit;
  const std::string* side = settings.maybe<std::string>("truncation_side", "a string");
  if (side && *side != "right" && *side != "left") settings.refuse("truncation_side", *settings.given("truncation_side"), "supported: right, left");
  const bool* split = settings.maybe<bool>("split_special_tokens", "true or false");
  const Json* size = config.given("vocab_size");
  const JsonInteger* rows = size ? size->get<JsonInteger>() : nullptr;
  const std::uint64_t vocab = rows ? rows->magnitude : 0;

  const FetchedFile content(file);
  files.seen(content);
  content.fetch(0, content.size());
  out.tokenizer = Tokenizer::parse({reinterpret_cast<const char*>(content.data()), content.size()}, file);
  content.check_unchanged();
  try {
    add_tokens(*out.tokenizer, added, named, vocab);
  } catch (const std::invalid_argument& error) {
    throw FormatError(file, error.what());
  }
  out.tokenizer->set_split_special(split && *split);
  check_vocabulary(*out.tokenizer, vocab, file);
  out.cut_left = (side ? *side : out.tokenizer->truncation_side()) == "left";
  return out;
}

std::size_t cut(Tokenized& tokens, std::size_t limit, bool cut_left) {
  const std::size_t whole = tokens.ids.size();
  if (whole <= limit) return 0;
  std::size_t first[2], count[2];
  for (int s = 0; s < 2; ++s) {
    const auto begin = std::find(tokens.sequences.begin(), tokens.sequences.end(), s);
    first[s] = static_cast<std::size_t>(begin - tokens.sequences.begin());
    count[s] = static_cast<std::size_t>(std::count(begin, tokens.sequences.end(), s));
  }
  const std::size_t room = limit - (whole - count[0] - count[1]), small = std::min({count[0], count[1], room / 2});
  const std::size_t keep[2] = {count[0] > count[1] ? room - small : small, count[0] > count[1] ? small : room - small};
  std::vector<bool> goes(whole);
  for (int s = 0; s < 2; ++s)
    for (std::size_t i = 0, gone = count[s] - keep[s]; i < gone; ++i) goes[first[s] + (cut_left ? i : keep[s] + i)] = true;
  const auto pack = [&](auto& column) {
    std::size_t to = 0;
    for (std::size_t i = 0; i < whole; ++i)
      if (!goes[i]) column[to++] = column[i];
    column.resize(to);
  };
  pack(tokens.ids), pack(tokens.types), pack(tokens.starts), pack(tokens.ends), pack(tokens.words), pack(tokens.sequences);
  return whole - limit;
}

}  // namespace refimpl
