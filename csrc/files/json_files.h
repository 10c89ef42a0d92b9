// The json files of a model folder: each is opened when it is first asked for, and never twice.
//
// So that all that is made of a folder is made of one state of it, as refimpl/files/folder.py has it.
#pragma once

#include <map>
#include <string>

#include "files/json.h"

namespace refimpl {

class JsonFiles {
 public:
  // The content of a file, an object or a list. Throws FormatError: missing, wrong json, or of another kind.
  const Json& read(const std::string& file, bool object);

 private:
  std::map<std::string, Json> files_;  // whose elements stay where they are
};

// A file of a folder, or the folder itself for "" and ".".
std::string join(const std::string& folder, const std::string& name);

}  // namespace refimpl
