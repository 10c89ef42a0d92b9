// The byte-level pre-tokenizer: where a text is cut into words before its bytes are merged.
//
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#pragma once

#include "text/unicode.h"

namespace refimpl {

// The end of the word that begins at p < end, of text that is UTF-8. A text is its words, one after another.
const unsigned char* word_end(const Kinds& kinds, const unsigned char* p, const unsigned char* end);

}  // namespace refimpl
