// What a caller asks of a pass, checked before anything is done. Throws std::invalid_argument.
#pragma once

#include "abi/given.h"

namespace refimpl {

// What an engine may allocate for so many tokens stays countable.
void check_total(const Plan& plan, std::int64_t total, std::int64_t sequences);
// Tokens; no array but cu_seqlens is looked at.
std::size_t total_of(const Plan& plan, const modernbert_input& in);
Batch batch_of(const Plan& plan, const modernbert_input& in);
// That out has room for rows of `columns` floats.
void check_out(const float* out, std::size_t out_count, const char* rows_name, std::size_t rows, std::size_t columns);

}  // namespace refimpl
