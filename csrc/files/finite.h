// Single values of a mapped tensor, wherever they stand: misaligned ones too.
#pragma once

#include <cstddef>
#include <string>

#include "files/safetensors.h"

namespace refimpl {

// Element i of data of dtype F32, F16, BF16 or F64, as float32; a float64 beyond it is infinite.
float float_at(const unsigned char* data, const std::string& dtype, std::size_t i);

// The first element that is NaN or infinite as float32; `count` when there is none.
std::size_t first_not_finite(const unsigned char* data, const std::string& dtype, std::size_t count);

// Throws FormatError, with value and place, for a tensor that holds such an element; its bytes were fetched.
void check_finite(const FileTensor& tensor);

}  // namespace refimpl
