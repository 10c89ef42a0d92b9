// The three products of a linear map on threads: Y = X W^T + b, dX = dY W, dW += dY^T X.
//
// W is the float32 tensor itself, which an update may have changed: it is packed anew in each pass, in the
// engine's dtype, for all rows that it is multiplied with. The first two are the engine's own products, row by
// row; the third sums by `blocks` (adjoints.h), so that no bit depends on threads or on how rows come in.
#pragma once

#include <cstddef>
#include <vector>

#include "base/pool.h"
#include "base/room.h"
#include "training/adjoints.h"

namespace refimpl {

using Blocks = std::vector<RowBlock>;

// Sequences that end at ends[0], ends[1], .. in blocks of up to `most` rows, each sequence's from its first on.
Blocks blocks_of(const std::size_t* ends, std::size_t count, std::size_t most);
constexpr std::size_t kSummed = 256;  // rows of a block of dW
constexpr std::size_t kNormed = 32;   // of the gradients of a norm, whose blocks are tasks

// W as it is multiplied with, in room of whoever had it packed.
struct Packed {
  Packing packing;
  const std::byte* panels;
};

class Products {
 public:
  Products(const Kernels& kernels, const Adjoints& adjoints) : k(kernels), a(adjoints) {}

  // W [n, depth], for Y = X W^T; or turned, for dX = dY W.
  Packed packed(std::size_t n, std::size_t depth, const float* w, Room& room, int threads, Stop* stop);
  Packed turned(std::size_t n, std::size_t depth, const float* w, Room& room, int threads, Stop* stop);
  // y [rows, n] = x W^T + bias + residual; x: operands, with row_block - 1 readable rows after the last. bias and
  // residual may be null, and residual y.
  void forward(const Packed& w, std::size_t rows, const std::byte* x, const float* bias, const float* residual, float* y,
               int threads, Stop* stop);
  // dx [rows, depth] = dy W, dy [rows, n]; w: turned.
  void back(const Packed& w, std::size_t rows, const float* dy, float* dx, int threads, Stop* stop);
  // dw [n, k] += dy^T x over the blocks.
  void outer(const Blocks& blocks, std::size_t n, std::size_t depth, const float* dy, const float* x, float* dw,
             int threads, Stop* stop);

  // x [rows, columns] as operands, in room that the next call takes again.
  const std::byte* operands(std::size_t rows, std::size_t columns, const float* x, int threads, Stop* stop);
  std::size_t operand_room(std::size_t rows, std::size_t columns) const {
    return (rows + k.row_block - 1) * k.operand_bytes(columns);
  }

  const Kernels& k;
  const Adjoints& a;

 private:
  template <class Pack>
  Packed in_panels(const Packing& packing, Room& room, int threads, Stop* stop, Pack pack);
  Room scratch_, operands_, left_, right_;
  std::vector<std::size_t> last_row_;
};

// db [n] += dy, in the order of the blocks' rows.
void add_rows(const Blocks& blocks, std::size_t n, const float* dy, float* db);

}  // namespace refimpl
