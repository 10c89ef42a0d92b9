// int8.json of a model folder, as `modernbert quantize` writes it: which matrices int8 keeps in floats, and of
// which weights it was measured (refimpl/files/certificate.py).
#pragma once

#include <map>
#include <string>

#include "files/config.h"
#include "files/folder.h"
#include "files/folder_files.h"

namespace refimpl {

enum class Certificate { none, of_these_weights, of_other_weights };

// Fills in what each layer of the config keeps, where there is such a file. Throws FormatError for one that names
// what is no matrix of the model, or no dtype.
void read_kept(FolderFiles& files, const std::string& root, Config& config);

// Whether it is of these weights, by some rows of every matrix, which are read from their files; what it says of its
// measurements is not looked at. Throws FormatError.
Certificate certificate_of(FolderFiles& files, const std::string& root, const ModelFolder& model);

}  // namespace refimpl
