// What a caller asks of a pass, checked.
#include "abi/input.h"

#include <algorithm>
#include <cstdint>

namespace refimpl {
namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;

void check_range(const char* name, const std::int64_t* values, std::size_t count, std::size_t end) {
  for (std::size_t i = 0; i < count; ++i)
    if (values[i] < 0 || static_cast<std::uint64_t>(values[i]) >= end)
      refuse(std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(values[i]) +
             "; it must be in 0 .. " + std::to_string(end - 1));
}

}  // namespace

void check_total(const Plan& plan, std::int64_t total, std::int64_t sequences) {
  const std::size_t widest = std::max(3 * plan.hidden, 2 * plan.inter);
  if (total < 0 || sequences < 0)
    refuse(std::to_string(total) + " tokens in " + std::to_string(sequences) + " sequences: neither may be negative");
  if (total > kMaxTokens || sequences > kMaxTokens || static_cast<std::size_t>(total) > kMaxElements / widest)
    refuse(std::to_string(total) + " tokens in " + std::to_string(sequences) + " sequences are more than any memory");
}

std::size_t total_of(const Plan& plan, const modernbert_input& in) {
  if (in.sequences < 0) refuse("input->sequences is " + std::to_string(in.sequences) + "; it must be at least 0");
  check_total(plan, 0, in.sequences);
  const std::int64_t* cu = &not_null(in.cu_seqlens, "input->cu_seqlens");
  if (cu[0] != 0) refuse("input->cu_seqlens starts with " + std::to_string(cu[0]) + ", not with 0");
  for (std::int64_t s = 0; s < in.sequences; ++s)
    if (cu[s + 1] < cu[s])
      refuse("input->cu_seqlens falls from " + std::to_string(cu[s]) + " to " + std::to_string(cu[s + 1]) + " at " +
             std::to_string(s + 1));
  check_total(plan, cu[in.sequences], in.sequences);
  return static_cast<std::size_t>(cu[in.sequences]);
}

Batch batch_of(const Plan& plan, const modernbert_input& in) {
  const std::size_t total = total_of(plan, in);
  const std::int64_t* cu = in.cu_seqlens;
  if (!in.ids == !in.embeddings) refuse("exactly one of input->ids and input->embeddings is needed");
  if (in.ids) check_range("ids", in.ids, total, plan.vocab);
  const std::size_t types = plan.types;
  if (in.token_types && !types) refuse("input->token_types are given, but the model has no token types");
  if (in.token_types) check_range("token_types", in.token_types, total, types);

  if (in.positions)
    for (std::size_t i = 0; i < total; ++i)
      if (in.positions[i] < 0)
        refuse("positions[" + std::to_string(i) + "] is " + std::to_string(in.positions[i]) +
               "; it must not be negative");

  return {in.ids, in.embeddings, in.token_types, in.positions, in.visible, {cu, cu + in.sequences + 1}};
}

void check_out(const float* out, std::size_t out_count, const char* rows_name, std::size_t rows, std::size_t columns) {
  if (out_count != rows * columns)
    refuse("out_count is " + std::to_string(out_count) + "; " + std::to_string(rows) + " " + rows_name + " of " +
           std::to_string(columns) + " need " + std::to_string(rows * columns));
  if (rows) not_null(out, "out");
}

}  // namespace refimpl
