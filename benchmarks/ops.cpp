// The kernels of one tier and dtype by themselves, at the shapes of one encoder layer. Prints JSON:
// [{"op": .., "shape": .., "seconds": .., "spread": .., "flops": .., "bytes": ..}, ..], per call.
//
//   ./ops TIER DTYPE THREADS SECONDS HIDDEN INTER HEADS
//
// Products walk through more copies of their weights than the caches hold, as a model's layers do.
// Work is split as the engine splits it: rows where there are many, columns where there are few.
// bytes: what has to come from memory, weights; for row-wise operations what is read and written.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/pool.h"
#include "engine/tasks.h"
#include "kernels/kernels.h"

namespace {

using namespace refimpl;

struct Setting {
  const Kernels& k;
  std::size_t weight_bytes;  // of a number
  int threads;
  double seconds;  // for each op and shape
  std::size_t hidden, inter, heads;
  std::size_t head_dim() const { return hidden / heads; }
};

constexpr std::size_t kBeyondCaches = std::size_t{128} << 20;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void fill(float* x, std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < n; ++i) x[i] = normal(random);
}

Memory random_floats(std::size_t n, unsigned seed) {
  Memory x(n * sizeof(float));
  fill(x.floats(), n, seed);
  return x;
}

// The median of the runs of f(turn) that fit in the time, after one that warms up.
void row(const Setting& s, const char* op, const std::string& shape, double flops, double bytes,
         const std::function<void(std::size_t)>& f) {
  std::vector<double> took;
  f(0);
  const double end = now() + s.seconds;
  for (std::size_t turn = 1; took.size() < 5 || now() < end; ++turn) {
    const double start = now();
    f(turn);
    took.push_back(now() - start);
  }
  std::sort(took.begin(), took.end());
  const std::size_t n = took.size();
  const double median = took[n / 2], spread = (took[3 * n / 4] - took[n / 4]) / median;
  static bool any = false;
  std::printf("%s{\"op\": \"%s\", \"shape\": \"%s\", \"seconds\": %.4g, \"spread\": %.3f, \"flops\": %.6g, \"bytes\": %.6g}",
              any ? ",\n" : "[", op, shape.c_str(), median, spread, flops, bytes);
  any = true;
}

template <class F>
void tiles(const Setting& s, const Packing& p, std::size_t rows, Memory& scratch, std::size_t scratch_bytes, F f) {
  const Tasks tasks(s.k, p, rows, s.threads);
  std::vector<std::size_t> last_row(static_cast<std::size_t>(s.threads), Range::kNone);
  parallel_for(s.threads, tasks.count(), [&](std::size_t task, int thread) {
    const std::size_t i = static_cast<std::size_t>(thread);
    f(tasks.next_of(last_row[i], task), scratch.data() + i * scratch_bytes);
  });
}

// Some tokens of one sequence, and room for what a layer makes of them.
struct Layer {
  Layer(const Setting& s, std::size_t rows)
      : rows(rows), spare(rows + s.k.row_block - 1), ld(s.k.operand_bytes(s.hidden)), ld_gated(s.k.operand_bytes(s.inter)),
        slots(round_up(rows, s.k.slot_block)), x(random_floats(rows * s.hidden, 1)), y(rows * s.hidden * sizeof(float)),
        operands(spare * ld), gated(spare * ld_gated), q(spare * ld), keys(s.heads * s.k.kv_bytes(slots, s.head_dim())),
        values(s.heads * s.k.kv_bytes(slots, s.head_dim())), angles(random_floats(rows * s.head_dim(), 2)),
        scratch_bytes(round_up(s.k.scratch_bytes(std::max(s.hidden, s.inter), s.head_dim()), 64)),
        scratch(static_cast<std::size_t>(s.threads) * scratch_bytes) {
    for (std::size_t i = 0; i < rows; ++i) index.push_back(i);
    for (std::size_t i = 0; i < rows * s.head_dim(); ++i) angles.floats()[i] = std::cos(angles.floats()[i]);
    s.k.to_operand(rows, s.hidden, x.floats(), s.hidden, operands.data(), ld);
    const Memory wide = random_floats(rows * s.inter, 3);
    s.k.to_operand(rows, s.inter, wide.floats(), s.inter, gated.data(), ld_gated);
    const Memory k = random_floats(rows * s.hidden, 4), v = random_floats(rows * s.hidden, 5);
    for (std::size_t i = 0; i < rows; ++i)
      s.k.place_qkv(view(s), i, x.floats() + i * s.hidden, k.floats() + i * s.hidden, v.floats() + i * s.hidden);
  }
  Heads view(const Setting& s) {
    return {s.heads, s.head_dim(), q.data(), ld, keys.data(), values.data(), slots, index.data(), nullptr};
  }

  const std::size_t rows, spare;  // spare: rows that products may read
  const std::size_t ld, ld_gated, slots;
  Memory x, y, operands, gated, q, keys, values, angles;
  const std::size_t scratch_bytes;
  Memory scratch;
  std::vector<std::size_t> index;
};

// One of the model's four products, with what is fused into it, at several numbers of rows.
template <class F>
void product(const Setting& s, const char* op, const Packing& p, F f) {
  const double weights = static_cast<double>(p.n * p.k * s.weight_bytes);
  const std::size_t copies = 2 + kBeyondCaches / s.k.packed_bytes(p);
  const Memory w = random_floats(p.n * p.k, 6);
  std::vector<Memory> packed;
  for (std::size_t i = 0; i < copies; ++i) {
    packed.emplace_back(s.k.packed_bytes(p));
    s.k.pack(p, {w.floats(), Storage::float32}, 0, panels_of(p, s.k.lanes), packed.back().data());
  }
  for (const std::size_t rows : {16, 128, 512, 1024}) {
    Layer layer(s, rows);
    const double flops = 2.0 * static_cast<double>(rows * p.n * p.k);
    row(s, op, std::to_string(rows) + " x " + std::to_string(p.n) + " x " + std::to_string(p.k), flops, weights, [&](std::size_t turn) {
      const Gemm g{p, packed[turn % copies].data(), nullptr, layer.operands.data(), layer.ld};
      tiles(s, p, rows, layer.scratch, layer.scratch_bytes, [&](const Range& range, void* scratch) { f(layer, g, range, scratch); });
    });
  }
}

void products(const Setting& s) {
  product(s, "Wqkv + RoPE", {3 * s.hidden, s.hidden, s.head_dim()}, [&](Layer& l, const Gemm& g, const Range& range, void* scratch) {
    const Rotation turn{l.angles.floats(), l.angles.floats() + l.rows * s.head_dim() / 2, l.index.data(), 0.125f};
    s.k.project_qkv(g, l.view(s), turn, range, scratch);
  });
  product(s, "Wo + residual", {s.hidden, s.hidden, 0}, [&](Layer& l, const Gemm& g, const Range& range, void* scratch) {
    s.k.project(g, l.x.floats(), s.hidden, l.y.floats(), s.hidden, range, scratch);
  });
  product(s, "Wi + GeGLU", {2 * s.inter, s.hidden, 2 * s.inter}, [&](Layer& l, const Gemm& g, const Range& range, void* scratch) {
    s.k.project_glu(g, Activation::gelu, l.gated.data(), l.ld_gated, range, scratch);
  });
  product(s, "MLP Wo + residual", {s.hidden, s.inter, 0}, [&](Layer& l, Gemm g, const Range& range, void* scratch) {
    g.x = l.gated.data(), g.ldx = l.ld_gated;
    s.k.project(g, l.x.floats(), s.hidden, l.y.floats(), s.hidden, range, scratch);
  });
}

// All heads of one sequence; its output replaces q, and is the next run's q.
void attention(const Setting& s, std::size_t length, std::ptrdiff_t window) {
  Layer layer(s, length);
  double pairs = 0;
  const double reach = window < 0 ? static_cast<double>(length) : static_cast<double>(window);
  for (std::size_t i = 0; i < length; ++i)
    pairs += std::min(static_cast<double>(i), reach) + 1 + std::min(static_cast<double>(length - 1 - i), reach);
  const std::size_t blocks = ceil_div(length, s.k.query_block);
  row(s, window < 0 ? "attention" : "attention, window", std::to_string(length), 4.0 * pairs * static_cast<double>(s.hidden), 0, [&](std::size_t) {
    const Heads heads = layer.view(s);
    parallel_for(s.threads, blocks * s.heads, [&](std::size_t task, int thread) {
      s.k.attention(heads, {0, length, window}, task / blocks, task % blocks * s.k.query_block, 0, 1,
                    layer.scratch.data() + static_cast<std::size_t>(thread) * layer.scratch_bytes);
    });
  });
}

void rowwise(const Setting& s, std::size_t rows) {
  constexpr std::size_t kPiece = 32;  // as Forward::rowwise
  Layer layer(s, rows);
  const Memory weight = random_floats(s.hidden, 7);
  const float* x = layer.x.floats();
  const std::size_t hidden = s.hidden;
  const auto pieces = [&](const auto& f) {
    parallel_for(s.threads, ceil_div(rows, kPiece), [&](std::size_t i, int) { f(i * kPiece, std::min(kPiece, rows - i * kPiece)); });
  };
  const std::string shape = std::to_string(rows) + " x " + std::to_string(hidden);
  const double in = 4.0 * static_cast<double>(rows * hidden), operand = static_cast<double>(rows * layer.ld);
  row(s, "LayerNorm", shape, 0, 2 * in, [&](std::size_t) {
    pieces([&](std::size_t r, std::size_t n) {
      s.k.layer_norm(n, hidden, x + r * hidden, hidden, weight.floats(), nullptr, 1e-5f, layer.y.floats() + r * hidden, hidden);
    });
  });
  row(s, "LayerNorm to operands", shape, 0, in + operand, [&](std::size_t) {
    pieces([&](std::size_t r, std::size_t n) {
      s.k.norm_operand(n, hidden, x + r * hidden, hidden, weight.floats(), nullptr, 1e-5f, layer.operands.data() + r * layer.ld, layer.ld);
    });
  });
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 8) return std::fprintf(stderr, "usage: ops TIER DTYPE THREADS SECONDS HIDDEN INTER HEADS\n"), 2;
  const std::string dtype = arguments[2];
  const Dtype which = dtype == "bfloat16" ? Dtype::bfloat16 : dtype == "bf16x3" ? Dtype::bf16x3 : Dtype::float32;
  const Kernels* kernels = kernels_of(named_tier(arguments[1]), which);
  if (!kernels) return std::fprintf(stderr, "%s has no %s\n", arguments[1], arguments[2]), 2;
  const auto size = [&](int i) { return std::strtoul(arguments[i], nullptr, 10); };
  const Setting s{*kernels, which == Dtype::float32 ? 4u : which == Dtype::bfloat16 ? 2u : 4u, static_cast<int>(size(3)), std::strtod(arguments[4], nullptr),
                  size(5), size(6), size(7)};
  products(s);
  for (const std::size_t length : {128, 512, 2048, 8192}) {
    attention(s, length, 64);
    attention(s, length, -1);
  }
  rowwise(s, 128);
  rowwise(s, 4096);
  std::printf("]\n");
}
