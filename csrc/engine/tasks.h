// How work is cut into tasks. A product: rows are split when there are many, columns when there are few.
// Attention: heads, blocks of queries, and parts of these when there are few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

#include "kernels/kernels.h"

namespace refimpl {

class Tasks {
 public:
  Tasks(const Kernels& k, const Packing& packing, std::size_t rows, int threads)
      : rows_(rows), panels_(panels_of(packing, k.lanes)), chunks_(ceil_div(rows, rows_at_once(k, packing.k))),
        height_(round_up(ceil_div(rows, chunks_), k.row_block)) {
    const std::size_t wanted = static_cast<std::size_t>(threads) * kPerThread;
    splits_ = std::min(panels_, wanted / std::gcd(wanted, chunks_));
  }

  std::size_t count() const { return chunks_ * splits_; }
  Range operator[](std::size_t task) const {
    const std::size_t chunk = task / splits_, next = task + 1;
    return {std::min(rows_, chunk * height_), std::min(rows_, (chunk + 1) * height_), first_panel(task),
            panels_ * (task % splits_ + 1) / splits_, next < count() ? first_panel(next) : Range::kNone};
  }
  // The same for a thread and its scratch: `last_row` is the first row of its last task of this product, at first
  // Range::kNone, and becomes this one's.
  Range next_of(std::size_t& last_row, std::size_t task) const {
    Range range = (*this)[task];
    range.again = std::exchange(last_row, range.row0) == range.row0;
    return range;
  }

 private:
  // Equal tasks, a multiple of so many per thread: none waits long for the last.
  static constexpr std::size_t kPerThread = 4;
  // Rows of more columns than row_chunk is meant for: as many as take its place in the cache.
  static std::size_t rows_at_once(const Kernels& k, std::size_t columns) {
    constexpr std::size_t kUsual = 1152;
    return columns <= kUsual ? k.row_chunk : std::max(k.row_block, k.row_chunk * kUsual / columns);
  }
  std::size_t first_panel(std::size_t task) const { return panels_ * (task % splits_) / splits_; }
  std::size_t rows_, panels_, chunks_, height_, splits_;
};

// Parts that each block of queries is taken in: enough that every thread has several tasks of attention, as the
// last block of a sequence is a short one.
inline std::size_t attention_parts(const Kernels& k, std::size_t blocks, std::size_t heads, int threads) {
  constexpr std::size_t kPerThread = 4;
  if (threads < 2 || !blocks) return 1;
  return std::clamp(ceil_div(static_cast<std::size_t>(threads) * kPerThread, blocks * heads), std::size_t{1}, k.query_parts);
}

// One of the tasks of a sequence of so many blocks of queries. Neighbours, which a thread takes one after the other,
// are all heads of a block under a window, whose rows are few, else all blocks of a head, whose keys and values stay.
struct AttentionTask {
  std::size_t block, head, part;
};
inline AttentionTask attention_task(std::size_t task, std::size_t blocks, std::size_t heads, std::size_t parts,
                                    bool windowed) {
  const std::size_t part = task % parts, rest = task / parts;
  return windowed ? AttentionTask{rest / heads, rest % heads, part} : AttentionTask{rest % blocks, rest / blocks, part};
}

}  // namespace refimpl
