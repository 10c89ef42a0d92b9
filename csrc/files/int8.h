// int8.json of a model folder: which matrices int8 keeps in bfloat16, as `modernbert quantize` found.
#pragma once

#include <string>

#include "files/config.h"
#include "files/folder_files.h"

namespace refimpl {

// Fills in what each layer of the config keeps, where there is such a file. Throws FormatError for one that names
// what is no matrix of the model; what it says of its measurements is not looked at.
void read_kept(FolderFiles& files, const std::string& root, Config& config);

}  // namespace refimpl
