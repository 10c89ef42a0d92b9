// What a pass needs beside weights and result. The engine keeps one from a pass to the next: pages that are new
// cost more than what a small model does with them (a fifth of the time of tiny in float32), and tables of sines as
// much for a long text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/kept.h"
#include "base/room.h"

namespace refimpl {

// Rotary tables of one theta, [rows, head_dim / 2] each.
struct Rotary {
  Rotary(double theta, std::size_t rows, std::size_t head_dim, const std::int64_t* positions);

  const float* cos() const { return tables_.floats(); }
  const float* sin() const { return tables_.floats() + size_; }
  std::size_t held() const { return tables_.bytes(); }

  double theta;
  std::size_t rows;

 private:
  std::size_t size_;  // of each
  Memory tables_;
};

struct Workspace {
  Room q;  // [total] operands of hidden columns: q, then the joined heads
  Room keys, values;
  Room normed, gated;  // [kTokenChunk] operands of hidden, of inter columns
  Room integers;       // [kTokenChunk] rows of integers, of either; none but for int8
  Room scratch;
  std::vector<Rotary> tables;  // of positions 0, 1, ..

  // The table of a theta, of so many rows at least.
  void need(double theta, std::size_t rows, std::size_t head_dim);

  std::size_t held() const;
};

// Of all that wait together: two of 1,000 tokens of base in bfloat16. Longer passes take long enough to fetch theirs anew.
using KeptWorkspace = Kept<Workspace, (std::size_t{16} << 20)>;

}  // namespace refimpl
