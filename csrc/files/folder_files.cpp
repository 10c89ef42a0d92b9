#include "files/folder_files.h"

#include <dirent.h>

#include <algorithm>

#include "files/format_error.h"

namespace refimpl {

const Json& FolderFiles::json(const std::string& file, bool object) {
  auto found = json_.find(file);
  if (found == json_.end()) {
    if (!is_file(file) && !is_folder(file)) throw FormatError(file, "this file is missing");
    const FetchedFile opened(file);
    seen(opened);
    found = json_.emplace(file, read_json(opened)).first;
  }
  const Json& value = found->second;
  if (object ? !value.get<Json::Object>() : !value.get<Json::List>())
    throw FormatError(file, std::string("holds ") + value.kind() + "; it must hold " +
                                (object ? "an object" : "a list"));
  return value;
}

std::string FolderFiles::replaced() const {
  for (const auto& [path, file] : seen_)
    if (!file->stands_at(path.c_str())) return path;
  return "";
}

std::string join(const std::string& folder, const std::string& name) {
  const bool bare = name.empty() || name == ".";
  return bare ? folder : folder + (folder.empty() || folder.back() != '/' ? "/" : "") + name;
}

std::vector<std::string> names_in(const std::string& folder, const std::string& first, const std::string& last) {
  std::vector<std::string> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> listed(opendir(folder.c_str()), closedir);
  while (const dirent* entry = listed ? readdir(listed.get()) : nullptr) {
    const std::string name = entry->d_name;
    if (name.size() >= first.size() + last.size() && name.rfind(first, 0) == 0 &&
        name.compare(name.size() - last.size(), last.size(), last) == 0)
      out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::string no_weights(const std::string& folder) {
  const std::vector<std::string> pickles = names_in(folder, "", ".bin");
  return "this file is missing" + (pickles.empty() ? "" : "; " + pickles[0] + " is a pickle, which is never read");
}

}  // namespace refimpl
