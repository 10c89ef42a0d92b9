#include "training/heads.h"

#include <vector>

namespace refimpl {
namespace {

constexpr std::size_t kLogits = 256;  // rows whose logits exist at a time, where blocks are no longer

}  // namespace

void cross_entropy(Products& products, const Blocks& blocks, const Decoder& decoder, const float* x,
                   const std::int64_t* labels, float smoothing, float share, double* losses, float* dx, float* dw,
                   float* db, int threads) {
  if (blocks.empty()) return;
  const std::size_t n = decoder.classes, depth = decoder.depth;
  std::vector<float> logits;
  Room room, room_turned;
  const Packed w = products.packed(n, depth, decoder.weight, room, threads, nullptr);
  const Packed turned = products.turned(n, depth, decoder.weight, room_turned, threads, nullptr);
  for (std::size_t from = 0, to; from < blocks.size(); from = to) {
    const std::size_t first = blocks[from].first;
    std::size_t count = blocks[from].count;
    for (to = from + 1; to < blocks.size() && count + blocks[to].count <= kLogits; ++to) count += blocks[to].count;
    Blocks here(blocks.begin() + static_cast<std::ptrdiff_t>(from), blocks.begin() + static_cast<std::ptrdiff_t>(to));
    for (RowBlock& block : here) block.first -= first;
    logits.resize(count * n);
    const float* in = x + first * depth;
    products.forward(w, count, products.operands(count, depth, in, threads, nullptr), decoder.bias, nullptr,
                     logits.data(), threads, nullptr);
    parallel_for(threads, count, [&](std::size_t row, int) {
      losses[first + row] = products.a.cross_entropy(n, static_cast<std::size_t>(labels[first + row]), smoothing, share,
                                                     logits.data() + row * n);
    });
    if (dw) products.outer(here, n, depth, logits.data(), in, dw, threads, nullptr);
    if (db) add_rows(here, n, logits.data(), db);
    products.back(turned, count, logits.data(), dx + first * depth, threads, nullptr);
  }
}

}  // namespace refimpl
