// One forward pass: buffers, where each sequence stands, and the steps in MODEL.md's order.
#include <algorithm>
#include <cmath>

#include "base/pool.h"
#include "engine/engine.h"

namespace refimpl {
namespace {

// Rows that one task of a matrix product takes: its slice of x stays in the L2 cache. A multiple of
// every tier's tile height (4, 6, 14).
constexpr std::size_t kRowChunk = 168;
constexpr std::size_t kRowwiseChunk = 32;
// Tasks per thread when a product is split over columns too, so that none waits long for the last.
constexpr std::size_t kTasksPerThread = 4;

const float* or_null(const Floats& x) { return x.empty() ? nullptr : x.data(); }

// Rotary tables of one theta, [rows, head_dim / 2] each; computed in double and rounded once.
struct Rotary {
  Rotary(double theta, std::size_t rows, std::size_t head_dim, const std::int64_t* positions)
      : theta(theta), cos(rows * (head_dim / 2)), sin(rows * (head_dim / 2)) {
    const std::size_t half = head_dim / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      for (std::size_t p = 0; p < rows; ++p) {
        const double angle = (positions ? static_cast<double>(positions[p]) : static_cast<double>(p)) * frequency;
        cos[p * half + i] = static_cast<float>(std::cos(angle));
        sin[p * half + i] = static_cast<float>(std::sin(angle));
      }
    }
  }

  double theta;
  Floats cos, sin;
};

// A block of queries that `attention` takes at a time.
struct QueryBlock {
  std::size_t sequence, first;
};

}  // namespace

class Forward {
 public:
  Forward(const Engine& engine, const Batch& batch, int threads)
      : e(engine),
        k(engine.kernels),
        b(batch),
        threads(std::clamp(threads, 1, kMaxThreads)),
        total(batch.cu_seqlens.back()),
        hidden(engine.plan.hidden),
        inter(engine.plan.inter),
        heads(engine.plan.heads),
        head_dim(engine.head_dim()),
        value_width(padded_width(engine.head_dim(), engine.kernels.panel)),
        scratch_floats(engine.kernels.scratch_floats(engine.head_dim())) {
    place_sequences();
    // One table per theta; a row per position, or per token when positions are given.
    for (const LayerPlan& l : e.plan.layers)
      if (std::none_of(tables.begin(), tables.end(), [&](const Rotary& t) { return t.theta == l.theta; }))
        tables.emplace_back(l.theta, b.positions ? total : longest, head_dim, b.positions);
    x.resize(total * hidden), next.resize(total * hidden), normed.resize(total * hidden);
    wide.resize(total * std::max(3 * hidden, 2 * inter));
    narrow.resize(total * std::max(hidden, inter));
    keys.resize(panel_tokens * heads * head_dim), values.resize(panel_tokens * heads * value_width);
    scratch.resize(static_cast<std::size_t>(this->threads) * scratch_floats);
  }

  bool run(float* out, bool (*stop)()) {
    embedding();
    for (std::size_t i = 0; i < e.layers_.size(); ++i) {
      if (stop && stop()) return false;
      attention_layer(e.layers_[i], e.plan.layers[i]);
      mlp(e.layers_[i]);
    }
    norm(e.final_norm_, x.data(), out);
    return true;
  }

 private:
  // Where each sequence's keys and values stand, and which blocks of queries there are.
  void place_sequences() {
    sequence_of.resize(total);
    for (std::size_t s = 0; s + 1 < b.cu_seqlens.size(); ++s) {
      const std::size_t length = b.cu_seqlens[s + 1] - b.cu_seqlens[s];
      panels_at.push_back(panel_tokens);
      panel_tokens += padded_width(length, k.panel);
      longest = std::max(longest, length);
      for (std::size_t first = 0; first < length; first += k.query_block) blocks.push_back({s, first});
      std::fill_n(sequence_of.begin() + static_cast<std::ptrdiff_t>(b.cu_seqlens[s]), length, s);
    }
  }

  // -- steps --------------------------------------------------------------------------------------

  // LN(E[ids])
  void embedding() {
    rowwise([&](std::size_t first, std::size_t count) {
      for (std::size_t t = first; t < first + count; ++t) {
        const float* row =
            b.embeddings ? b.embeddings + t * hidden : e.embedding_ + static_cast<std::size_t>(b.ids[t]) * hidden;
        norm_rows(e.embedding_norm_, 1, row, x.data() + t * hidden);
      }
    });
  }

  // attn_norm (none in layer 0), q k v, rope, attention, attn_out, residual_1
  void attention_layer(const Layer& layer, const LayerPlan& plan) {
    const bool has_norm = !layer.attn_norm.weight.empty();
    if (has_norm) norm(layer.attn_norm, x.data(), normed.data());
    linear(layer.wqkv, has_norm ? normed.data() : x.data(), nullptr, wide.data());
    rotate(*std::find_if(tables.begin(), tables.end(), [&](const Rotary& t) { return t.theta == plan.theta; }));
    attend(plan.window);
    linear(layer.wo, narrow.data(), x.data(), next.data());
    x.swap(next);
  }

  // mlp_norm, wi, glu, mlp_out, residual_2
  void mlp(const Layer& layer) {
    norm(layer.mlp_norm, x.data(), normed.data());
    linear(layer.wi, normed.data(), nullptr, wide.data());
    rowwise([&](std::size_t first, std::size_t count) {
      k.glu(count, inter, e.plan.activation, wide.data() + first * 2 * inter, 2 * inter, narrow.data() + first * inter,
            inter);
    });
    linear(layer.mlp_wo, narrow.data(), x.data(), next.data());
    x.swap(next);
  }

  // q_rot in place, times the scale; k_rot and v to where attention reads them
  void rotate(const Rotary& table) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    rowwise([&](std::size_t first, std::size_t count) {
      for (std::size_t t = first; t < first + count; ++t) {
        const std::size_t s = sequence_of[t], j = t - b.cu_seqlens[s], row = b.positions ? t : j;
        const float *cos = table.cos.data() + row * (head_dim / 2), *sin = table.sin.data() + row * (head_dim / 2);
        for (std::size_t h = 0; h < heads; ++h) {
          float* q = wide.data() + t * 3 * hidden + h * head_dim;
          float *key = q + hidden, *value = key + hidden;
          k.rope(head_dim, q, cos, sin, scale, q);
          k.rope(head_dim, key, cos, sin, 1.0f, key);
          place_key_value(k.panel, head_dim, j, key, value, !b.visible || b.visible[t], keys_of(s, h), values_of(s, h));
        }
      }
    });
  }

  // Every head of every block of queries; heads joined in `narrow`.
  void attend(std::ptrdiff_t window) {
    parallel_for(threads, blocks.size() * heads, [&](std::size_t task, int thread) {
      const std::size_t h = task % heads, s = blocks[task / heads].sequence, start = b.cu_seqlens[s];
      const Attention a{head_dim,
                        b.cu_seqlens[s + 1] - start,
                        window,
                        wide.data() + start * 3 * hidden + h * head_dim,
                        3 * hidden,
                        keys_of(s, h),
                        values_of(s, h),
                        b.visible ? b.visible + start : nullptr,
                        narrow.data() + start * hidden + h * head_dim,
                        hidden};
      k.attention(a, blocks[task / heads].first, scratch.data() + static_cast<std::size_t>(thread) * scratch_floats);
    });
  }

  // -- what the steps are made of -----------------------------------------------------------------

  // y = x W^T + bias + residual: rows split when there are many, columns when there are few.
  void linear(const Linear& l, const float* in, const float* residual, float* y) {
    const Gemm g{l.n, l.k, l.packed.data(), or_null(l.bias), in, l.k, residual, l.n, y, l.n};
    const std::size_t panels = ceil_div(l.n, k.panel), chunks = ceil_div(total, kRowChunk);
    const std::size_t splits = std::min(panels, ceil_div(static_cast<std::size_t>(threads) * kTasksPerThread, chunks));
    parallel_for(threads, chunks * splits, [&](std::size_t task, int) {
      const std::size_t row = task / splits * kRowChunk, split = task % splits;
      k.gemm(g, row, std::min(total, row + kRowChunk), panels * split / splits, panels * (split + 1) / splits);
    });
  }

  template <class F>  // f(first row, rows)
  void rowwise(F f) {
    parallel_for(threads, ceil_div(total, kRowwiseChunk), [&](std::size_t task, int) {
      const std::size_t first = task * kRowwiseChunk;
      f(first, std::min(kRowwiseChunk, total - first));
    });
  }

  void norm(const Norm& norm, const float* in, float* y) {
    rowwise([&](std::size_t first, std::size_t count) {
      norm_rows(norm, count, in + first * hidden, y + first * hidden);
    });
  }

  void norm_rows(const Norm& norm, std::size_t rows, const float* in, float* y) {
    k.layer_norm(rows, hidden, in, hidden, norm.weight.data(), or_null(norm.bias), e.plan.norm_eps, y, hidden);
  }

  float* keys_of(std::size_t s, std::size_t h) { return keys.data() + (h * panel_tokens + panels_at[s]) * head_dim; }
  float* values_of(std::size_t s, std::size_t h) {
    return values.data() + (h * panel_tokens + panels_at[s]) * value_width;
  }

  const Engine& e;
  const Kernels& k;
  const Batch& b;
  const int threads;
  const std::size_t total, hidden, inter, heads, head_dim, value_width, scratch_floats;

  std::vector<std::size_t> sequence_of;  // [total]
  std::vector<std::size_t> panels_at;    // [batch]: tokens before it in keys and values
  std::size_t panel_tokens = 0;          // all sequences, each filled up to whole panels
  std::size_t longest = 0;
  std::vector<QueryBlock> blocks;
  std::vector<Rotary> tables;

  Floats x, next, normed;  // [total, hidden]
  Floats wide;             // [total, max(3 hidden, 2 inter)]: q k v, then wi
  Floats narrow;           // [total, max(hidden, inter)]: joined heads, then glu
  Floats keys, values;     // [heads, panel_tokens, ..]
  Floats scratch;          // [threads, scratch_floats]
};

bool Engine::forward(const Batch& batch, float* out, int threads, bool (*stop)()) const {
  if (batch.cu_seqlens.back() == 0) return true;
  return Forward(*this, batch, threads).run(out, stop);
}

}  // namespace refimpl
