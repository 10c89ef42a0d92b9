#include "engine/workspace.h"

#include <algorithm>

#include "engine/rotary.h"

namespace refimpl {

Rotary::Rotary(double theta, std::size_t rows, std::size_t head_dim, const std::int64_t* positions)
    : theta(theta), rows(rows), size_(rows * (head_dim / 2)), tables_(2 * size_ * sizeof(float)) {
  rotary_tables(theta, rows, head_dim, positions, tables_.floats(), tables_.floats() + size_);
}

void Workspace::need(double theta, std::size_t rows, std::size_t head_dim) {
  const auto table = std::find_if(tables.begin(), tables.end(), [&](const Rotary& t) { return t.theta == theta; });
  if (table == tables.end())
    tables.emplace_back(theta, rows, head_dim, nullptr);
  else if (table->rows < rows)
    *table = Rotary(theta, rows, head_dim, nullptr);
}

std::size_t Workspace::held() const {
  std::size_t bytes = 0;
  for (const Room* room : {&q, &keys, &values, &normed, &gated, &integers, &scratch}) bytes += room->held();
  for (const Rotary& table : tables) bytes += table.held();
  return bytes;
}

}  // namespace refimpl
