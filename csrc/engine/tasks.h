// How a product is cut into tasks: rows are split when there are many, columns when there are few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "kernels/kernels.h"

namespace refimpl {

class Tasks {
 public:
  Tasks(const Kernels& k, const Packing& packing, std::size_t rows, int threads)
      : rows_(rows), panels_(panels_of(packing, k.lanes)), chunks_(ceil_div(rows, k.row_chunk)),
        height_(round_up(ceil_div(rows, chunks_), k.row_block)) {
    const std::size_t wanted = static_cast<std::size_t>(threads) * kPerThread;
    splits_ = std::min(panels_, wanted / std::gcd(wanted, chunks_));
  }

  std::size_t count() const { return chunks_ * splits_; }
  Range operator[](std::size_t task) const {
    const std::size_t chunk = task / splits_, split = task % splits_;
    return {std::min(rows_, chunk * height_), std::min(rows_, (chunk + 1) * height_), panels_ * split / splits_,
            panels_ * (split + 1) / splits_};
  }

 private:
  // Equal tasks, a multiple of so many per thread: none waits long for the last.
  static constexpr std::size_t kPerThread = 4;
  std::size_t rows_, panels_, chunks_, height_, splits_;
};

}  // namespace refimpl
