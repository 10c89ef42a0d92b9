// The tokenizer of a model folder: tokenizer.json, and what the files beside it say of tokens and lengths.
//
// tokenizer_config.json and, where that has no added_tokens_decoder, the older special_tokens_map.json (which
// then wins over it) and added_tokens.json, as transformers reads them; of config.json the size of the vocabulary
// and the longest input. As refimpl/files/tokenizer_files.py and refimpl/text/tokenizer.py have it, in their words.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "files/folder_files.h"
#include "text/tokenizer.h"

namespace refimpl {

struct FolderTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::uint64_t longest;  // tokens of a text, those of the template too; 0: no limit
  bool cut_left;          // the end of a long text that goes
};

// root: where config.json is. Throws FormatError.
FolderTokenizer read_folder_tokenizer(FolderFiles& files, const std::string& root);

// At most `room` tokens of the texts beside those of the template: the ends of the texts go (or, cut_left, their
// beginnings), of the longer of a pair first. Gives the tokens that were lost.
std::size_t cut(Tokenized& tokens, std::size_t limit, bool cut_left);

}  // namespace refimpl
