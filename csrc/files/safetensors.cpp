#include "files/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "files/json.h"

namespace refimpl {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxRank = 32;
constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 63;

struct Type {
  const char* name;
  std::uint64_t bytes;
};
constexpr Type kTypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2},
                           {"I8", 1},  {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}};

std::string known_types() {
  std::string out;
  for (const Type& type : kTypes) out += (out.empty() ? "" : ", ") + std::string(type.name);
  return out;
}

// A list of integers from 0 to below 2**63.
bool sizes(const Json& value, Shape& out) {
  const Json::List* list = value.get<Json::List>();
  if (!list) return false;
  for (const Json& item : *list) {
    const JsonInteger* n = item.get<JsonInteger>();
    if (!n || n->negative || n->magnitude >= kMaxSize) return false;
    out.push_back(n->magnitude);
  }
  return true;
}

// Elements of a shape times `bytes`; axes of no entries are left out when `whole` is false. False
// when it does not stay below 2**63.
bool product(const Shape& shape, std::uint64_t bytes, bool whole, std::uint64_t& out) {
  out = bytes;
  for (const std::uint64_t n : shape) {
    if (!n && !whole) continue;
    if (__builtin_mul_overflow(out, n, &out) || out >= kMaxSize) return false;
  }
  return true;
}

// A header's length, and that it can be true.
std::uint64_t header_length(const FetchedFile& file) {
  std::uint64_t length = 0;
  const std::size_t given = std::min(file.size(), kLengthBytes);
  file.fetch(0, given);
  for (std::size_t i = 0; i < given; ++i) length |= std::uint64_t{file.data()[i]} << (8 * i);
  if (given < kLengthBytes || length > file.size() - kLengthBytes || length > kMaxJsonBytes)
    throw FormatError(file.path(), "", 0,
                      "the header should have " + std::to_string(length) + " bytes, in a file of " +
                          std::to_string(file.size()) + " bytes (a header has at most " +
                          std::to_string(kMaxJsonBytes) + "): truncated, or no safetensors file");
  file.fetch(kLengthBytes, length);
  if (length == 0 || file.data()[kLengthBytes] != '{')
    throw FormatError(file.path(), "", kLengthBytes, "the header does not begin with a brace");
  return length;
}

// The keys of an object, in order; any other value itself.
Json keys_of(const Json& value) {
  const Json::Object* fields = value.get<Json::Object>();
  if (!fields) return value;
  std::vector<std::string> names;
  for (const JsonMember& field : *fields) names.push_back(field.key);
  std::sort(names.begin(), names.end());
  Json::List list;
  for (std::string& name : names) list.push_back({std::move(name)});
  return {std::move(list)};
}

// An entry of the header, `start` being where the data begin.
FileTensor entry_of(const JsonMember& member, const FetchedFile& file, std::uint64_t start) {
  const auto refuse = [&](const std::string& message) {
    return FormatError(file.path(), member.key, member.offset, message);
  };
  const Json::Object* fields = member.value.get<Json::Object>();
  const Json *dtype = member.value.find("dtype"), *shape = member.value.find("shape"),
             *offsets = member.value.find("data_offsets");
  if (!fields || fields->size() != 3 || !dtype || !shape || !offsets)
    throw refuse("the entry must hold dtype, shape and data_offsets; it holds " + keys_of(member.value).shown());

  FileTensor tensor;
  const std::string* code = dtype->get<std::string>();
  const Type* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const Type& t) { return code && *code == t.name; });
  if (type == std::end(kTypes)) throw refuse("dtype " + dtype->shown() + " is unknown; known: " + known_types());
  if (!sizes(*shape, tensor.shape) || tensor.shape.size() > kMaxRank)
    throw refuse("shape " + shape->shown() + " is not a list of up to " + std::to_string(kMaxRank) + " sizes");
  std::uint64_t needed;
  if (!product(tensor.shape, type->bytes, false, needed))
    throw refuse("shape " + shape_text(tensor.shape) + " is larger than any memory");
  product(tensor.shape, type->bytes, true, needed);

  Shape place;
  if (!sizes(*offsets, place) || place.size() != 2 || place[0] > place[1])
    throw refuse("data_offsets " + offsets->shown() + " are not [begin, end], begin <= end");
  if (place[1] - place[0] != needed)
    throw refuse("data_offsets " + shape_text(place) + " span " + std::to_string(place[1] - place[0]) +
                 " bytes; shape " + shape_text(tensor.shape) + " of " + *code + " takes " + std::to_string(needed));
  tensor.name = member.key, tensor.dtype = *code, tensor.file = &file;
  tensor.offset = start + place[0], tensor.bytes = needed;
  return tensor;
}

void check_metadata(const JsonMember& member, const std::string& file) {
  const Json::Object* pairs = member.value.get<Json::Object>();
  const bool texts = pairs && std::all_of(pairs->begin(), pairs->end(), [](const JsonMember& pair) {
    return pair.value.get<std::string>() != nullptr;
  });
  if (!texts) throw FormatError(file, member.key, member.offset, "metadata must map strings to strings");
}

// Data follow each other without overlap or gap, and end with the file.
void check_layout(const std::vector<FileTensor>& tensors, const std::vector<std::uint64_t>& named_at,
                  const FetchedFile& file, std::uint64_t start) {
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::make_pair(tensors[a].offset, tensors[a].bytes) < std::make_pair(tensors[b].offset, tensors[b].bytes);
  });
  std::uint64_t position = start;
  for (const std::size_t i : order) {
    const FileTensor& tensor = tensors[i];
    const auto refuse = [&](const std::string& message) {
      return FormatError(file.path(), tensor.name, named_at[i], message);
    };
    if (tensor.offset != position)
      throw refuse("its data begin at byte " + std::to_string(tensor.offset - start) + " of the data, where " +
                   std::to_string(position - start) + " was due: they " +
                   (tensor.offset < position ? "overlap those of another tensor" : "leave a gap"));
    position += tensor.bytes;
    if (position > file.size())
      throw refuse("its data end at byte " + std::to_string(position) + " of a file of " + std::to_string(file.size()) +
                   " bytes: truncated, or the header lies");
  }
  if (position != file.size())
    throw FormatError(file.path(), "", position,
                      std::to_string(file.size() - position) + " bytes follow the last tensor; there must be none");
}

}  // namespace

std::string shape_text(const Shape& shape) {
  std::string text;
  for (const std::uint64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

std::uint64_t FileTensor::count() const {
  std::uint64_t n = 1;
  for (const std::uint64_t size : shape) n *= size;
  return n;
}

FormatError FileTensor::error(const std::string& message) const {
  return FormatError(file->path(), name, offset, message);
}

FormatError are_missing(const std::string& file, const std::vector<std::string>& names,
                        const std::vector<FileTensor>& there) {
  const std::string more = names.size() > 1 ? " (" + std::to_string(names.size()) + " are missing)" : "";
  const std::string last = "." + names[0];
  const auto like = std::find_if(there.begin(), there.end(), [&](const FileTensor& t) {
    return t.name.size() >= last.size() && t.name.compare(t.name.size() - last.size(), last.size(), last) == 0;
  });
  const std::string near =
      like == there.end() ? "" : "; there is " + Json{like->name}.shown() + ", under a prefix that is not known";
  return FormatError(file, names[0], kNoOffset, "this tensor is missing" + more + near);
}

Safetensors::Safetensors(const std::string& path) : file_(path) {
  const std::uint64_t length = header_length(file_), start = kLengthBytes + length;
  const Json header = parse_json(file_.data() + kLengthBytes, length, path, kLengthBytes);
  std::vector<std::uint64_t> named_at;  // where the header names each tensor
  for (const JsonMember& member : *header.get<Json::Object>())
    if (member.key == "__metadata__") check_metadata(member, path), metadata_ = member.value;
  for (const JsonMember& member : *header.get<Json::Object>()) {
    if (member.key == "__metadata__") continue;
    tensors_.push_back(entry_of(member, file_, start));
    named_at.push_back(member.offset);
  }
  check_layout(tensors_, named_at, file_, start);
}

}  // namespace refimpl
