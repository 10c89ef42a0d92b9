#include "files/json_files.h"

#include "files/fetched_file.h"
#include "files/format_error.h"

namespace refimpl {

const Json& JsonFiles::read(const std::string& file, bool object) {
  auto found = files_.find(file);
  if (found == files_.end()) {
    if (!is_file(file) && !is_folder(file)) throw FormatError(file, "this file is missing");
    found = files_.emplace(file, read_json(file)).first;
  }
  const Json& value = found->second;
  if (object ? !value.get<Json::Object>() : !value.get<Json::List>())
    throw FormatError(file, std::string("holds ") + value.kind() + "; it must hold " +
                                (object ? "an object" : "a list"));
  return value;
}

std::string join(const std::string& folder, const std::string& name) {
  const bool bare = name.empty() || name == ".";
  return bare ? folder : folder + (folder.empty() || folder.back() != '/' ? "/" : "") + name;
}

}  // namespace refimpl
