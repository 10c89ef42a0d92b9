#include "training/products.h"

#include <algorithm>

#include "engine/tasks.h"

namespace refimpl {
namespace {

constexpr std::size_t kPanelsAtATime = 8;  // that one task packs
constexpr std::size_t kRowsAtATime = 32;   // that one task copies
constexpr std::size_t kPerThread = 4;      // tasks, at least

}  // namespace

Blocks blocks_of(const std::size_t* ends, std::size_t count, std::size_t most) {
  Blocks blocks;
  std::size_t first = 0;
  for (std::size_t i = 0; i < count; ++i)
    for (; first < ends[i]; first += blocks.back().count) blocks.push_back({first, std::min(most, ends[i] - first)});
  return blocks;
}

template <class Pack>
Packed Products::in_panels(const Packing& packing, Room& room, int threads, Stop* stop, Pack pack) {
  std::byte* to = room.bytes(k.packed_bytes(packing));
  const std::size_t panels = panels_of(packing, k.lanes);
  parallel_for(threads, ceil_div(panels, kPanelsAtATime), [&](std::size_t task, int) {
    const std::size_t first = task * kPanelsAtATime;
    pack(first, std::min(panels, first + kPanelsAtATime), to);
  }, stop);
  return {packing, to};
}

Packed Products::packed(std::size_t n, std::size_t depth, const float* w, Room& room, int threads, Stop* stop) {
  const Packing packing{n, depth, 0};
  return in_panels(packing, room, threads, stop, [&](std::size_t first, std::size_t end, std::byte* to) {
    k.pack(packing, {w, Storage::float32}, first, end, to);
  });
}

Packed Products::turned(std::size_t n, std::size_t depth, const float* w, Room& room, int threads, Stop* stop) {
  const Packing packing{depth, n, 0};
  return in_panels(packing, room, threads, stop, [&](std::size_t first, std::size_t end, std::byte* to) {
    k.pack_turned(packing, w, first, end, to);
  });
}

void Products::forward(const Packed& w, std::size_t rows, const std::byte* x, const float* bias, const float* residual,
                       float* y, int threads, Stop* stop) {
  const Packing& packing = w.packing;
  if (!rows || !packing.n) return;
  const Gemm g{packing, w.panels, bias, x, k.operand_bytes(packing.k)};
  const Tasks tasks(k, packing, rows, threads);
  const std::size_t scratch_bytes = round_up(k.scratch_bytes(packing.k, 2), 64);
  std::byte* scratch = scratch_.bytes(static_cast<std::size_t>(threads) * scratch_bytes);
  last_row_.assign(static_cast<std::size_t>(threads), Range::kNone);
  parallel_for(threads, tasks.count(), [&](std::size_t task, int thread) {
    const std::size_t t = static_cast<std::size_t>(thread);
    k.project(g, residual, packing.n, y, packing.n, tasks.next_of(last_row_[t], task), scratch + t * scratch_bytes);
  }, stop);
}

void Products::back(const Packed& w, std::size_t rows, const float* dy, float* dx, int threads, Stop* stop) {
  forward(w, rows, operands(rows, w.packing.k, dy, threads, stop), nullptr, nullptr, dx, threads, stop);
}

const std::byte* Products::operands(std::size_t rows, std::size_t columns, const float* x, int threads, Stop* stop) {
  const std::size_t ld = k.operand_bytes(columns);
  std::byte* to = operands_.bytes(operand_room(rows, columns));
  parallel_for(threads, ceil_div(rows, kRowsAtATime), [&](std::size_t task, int) {
    const std::size_t first = task * kRowsAtATime;
    k.to_operand(std::min(kRowsAtATime, rows - first), columns, x + first * columns, columns, to + first * ld, ld);
  }, stop);
  return to;
}

void Products::outer(const Blocks& blocks, std::size_t n, std::size_t depth, const float* dy, const float* x, float* dw,
                     int threads, Stop* stop) {
  const std::size_t lefts = ceil_div(n, a.left_width), rights = ceil_div(depth, a.right_width);
  const auto room = [&](std::size_t i) { return round_up(blocks[i].count, a.row_step); };
  for (std::size_t from = 0, to; from < blocks.size(); from = to) {
    std::size_t rows = room(from);
    for (to = from + 1; to < blocks.size() && rows + room(to) <= a.outer_rows; ++to) rows += room(to);
    const RowBlock* some = blocks.data() + from;
    const std::size_t count = to - from;
    const std::size_t left_bytes = rows * a.left_width * a.number_bytes, right_bytes = rows * a.right_width * a.number_bytes;
    std::byte *left = left_.bytes(lefts * left_bytes), *right = right_.bytes(rights * right_bytes);
    parallel_for(threads, ceil_div(lefts + rights, kPanelsAtATime), [&](std::size_t task, int) {
      const std::size_t end = std::min(lefts + rights, (task + 1) * kPanelsAtATime);
      for (std::size_t panel = task * kPanelsAtATime; panel < end; ++panel) {
        if (panel < lefts)
          a.gather_left(some, count, dy, n, panel, left + panel * left_bytes);
        else
          a.gather_right(some, count, x, depth, panel - lefts, right + (panel - lefts) * right_bytes);
      }
    }, stop);
    const std::size_t wanted = static_cast<std::size_t>(threads) * kPerThread;
    const std::size_t stay = a.left_stays ? lefts : rights, pass = a.left_stays ? rights : lefts;
    const std::size_t passing = a.left_stays ? rights * right_bytes : lefts * left_bytes;
    const std::size_t parts = std::max(ceil_div(wanted, stay), ceil_div(passing, a.passing));
    const std::size_t splits = std::clamp<std::size_t>(parts, 1, pass);
    parallel_for(threads, stay * splits, [&](std::size_t task, int) {
      const std::size_t part = task / stay, panel = task % stay;
      const std::size_t first = pass * part / splits, end = pass * (part + 1) / splits;
      if (a.left_stays)
        a.outer(some, count, rows, left, panel, panel + 1, n, right, first, end, depth, dw);
      else
        a.outer(some, count, rows, left, first, end, n, right, panel, panel + 1, depth, dw);
    }, stop);
  }
}

void add_rows(const Blocks& blocks, std::size_t n, const float* dy, float* db) {
  std::vector<float> sums(n);
  for (const RowBlock& block : blocks) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::size_t r = block.first; r < block.first + block.count; ++r)
      for (std::size_t i = 0; i < n; ++i) sums[i] += dy[r * n + i];
    for (std::size_t i = 0; i < n; ++i) db[i] += sums[i];
  }
}

}  // namespace refimpl
