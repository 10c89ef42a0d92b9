// Keys of config.json that say nothing of the encoder: of heads, of training, ids of special tokens.
//
// Not read here, and checked all the same: what opens here opens in Python (refimpl/reference/config.py,
// refimpl/files/meaning.py), and is refused in the same words. Left out is what `refimpl_head` holds.
#pragma once

#include <string>

#include "files/json.h"

namespace refimpl {

// named: whether config.json names the head, not modules.json. Throws FormatError.
void check_head_keys(const Json& values, const std::string& file, bool named);

}  // namespace refimpl
