// The files of a model folder, seen in one state: each json file is opened when it is first asked for, and
// never twice, and whether a file was replaced meanwhile can be asked of all of them.
//
// So that all that is made of a folder is made of one state of it, as refimpl/files/folder.py has it: a save
// into the folder exchanges its files one by one, and would be seen in the middle.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "files/fetched_file.h"
#include "files/json.h"

namespace refimpl {

class FolderFiles {
 public:
  // The content of a json file, an object or a list. Throws FormatError: missing, wrong json, or of another kind.
  const Json& json(const std::string& file, bool object);
  // Another file that was read, which is asked after too.
  void seen(const FetchedFile& file) { seen_.emplace_back(file.path(), file.file()); }
  // A file that does not stand where it was read any more; "" where there is none.
  std::string replaced() const;

 private:
  std::map<std::string, Json> json_;  // whose elements stay where they are
  std::vector<std::pair<std::string, std::shared_ptr<OpenFile>>> seen_;
};

// A file of a folder, or the folder itself for "" and ".".
std::string join(const std::string& folder, const std::string& name);
// The names in a folder that begin and end so, in order.
std::vector<std::string> names_in(const std::string& folder, const std::string& first, const std::string& last);
// The text of a refusal: there are no weights in this folder. It tells of a pickle that is there.
std::string no_weights(const std::string& folder);

}  // namespace refimpl
