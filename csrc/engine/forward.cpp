#include "engine/forward.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "engine/tasks.h"

namespace refimpl {
namespace {

constexpr std::size_t kRowwiseChunk = 32;

const float* or_null(const Floats& x) { return x.empty() ? nullptr : x.data(); }

}  // namespace

Forward::Forward(const Engine& engine, const Batch& batch, float* out, int threads,
                 const std::function<bool()>& stop, const Tap* tap, bool fused)
    : e(engine),
      k(engine.kernels),
      b(batch),
      x(out),
      threads(std::clamp(threads, 1, kMaxThreads)),
      total(batch.cu_seqlens.back()),
      hidden(engine.plan.hidden),
      inter(engine.plan.inter),
      head_dim(engine.head_dim()),
      stop_(stop),
      tap_(tap),
      fused_(fused),
      ldq_(k.operand_bytes(hidden)),
      ldgated_(k.operand_bytes(inter)),
      ldintegers_(engine.integer_bytes()),
      scratch_bytes_(round_up(k.scratch_bytes(std::max(hidden, inter), head_dim), 64)),
      w_(engine.workspace_) {
  place_sequences();
  // One table per theta; a row per position, or per token when positions are given.
  for (const LayerPlan& l : e.plan.layers)
    if (!b.positions)
      w_->need(l.theta, longest_, head_dim);
    else if (std::none_of(turned_.begin(), turned_.end(), [&](const Rotary& t) { return t.theta == l.theta; }))
      turned_.emplace_back(l.theta, total, head_dim, b.positions);
  const std::size_t spare = k.row_block - 1, chunk = std::min(total, kTokenChunk) + spare;
  w_->q.bytes((total + spare) * ldq_);
  w_->keys.bytes(e.plan.heads * k.kv_bytes(slots_, head_dim));
  w_->values.bytes(e.plan.heads * k.kv_bytes(slots_, head_dim));
  w_->normed.bytes(chunk * ldq_);
  w_->gated.bytes(chunk * ldgated_);
  if (ldintegers_) w_->integers.bytes(chunk * ldintegers_);
  w_->scratch.bytes(static_cast<std::size_t>(this->threads) * scratch_bytes_);
  last_row_.resize(static_cast<std::size_t>(this->threads));
}

bool Forward::run() {
  if (e.pack_ && !e.pack_->unchanged())
    throw Unreadable("the file of the packed weights, " + e.pack_->path() + ", was changed since it was opened");
  if (tap_) tap_tables();
  embedding();
  for (std::size_t i = 0; i < e.layers_.size() && !stop_.said(); ++i) {
    qkv(i);
    attention(i);
    each_chunk([&](Rows rows) {
      attn_out(i, rows);
      mlp(i, rows);
    });
  }
  final_norm();
  return !stop_.said();
}

// Slots, rotary rows and query blocks of each sequence.
void Forward::place_sequences() {
  slot_.resize(total), row_.resize(total);
  for (std::size_t s = 0; s + 1 < b.cu_seqlens.size(); ++s) {
    const std::size_t first = b.cu_seqlens[s], length = b.cu_seqlens[s + 1] - first;
    if (length == 0) continue;
    for (std::size_t j = 0; j < length; ++j) {
      slot_[first + j] = slots_ + j;
      row_[first + j] = b.positions ? first + j : j;
    }
    for (std::size_t q = 0; q < length; q += k.query_block) blocks_.push_back({sequences_.size(), q});
    sequences_.push_back({first, length, 0});
    slots_ += round_up(length, k.slot_block);
    longest_ = std::max(longest_, length);
  }
}

// -- steps ----------------------------------------------------------------------------------------

// LN(E[ids]), or LN(E[ids] + T[types])
void Forward::embedding() {
  const Norm& norm = e.embedding_norm_;
  std::atomic<bool> unread{b.ids && !e.embedding_.is_there()};
  rowwise({0, total}, [&](Rows tokens) {
    for (std::size_t t = tokens.first; t < tokens.first + tokens.count; ++t) {
      float* row = x + t * hidden;
      if (b.embeddings)
        std::copy_n(b.embeddings + t * hidden, hidden, row);
      else if (unread || !e.embedding_.read(static_cast<std::size_t>(b.ids[t]), row))
        return unread.store(true);
      if (!e.types_.empty()) {
        const float* type = e.types_.data() + (b.types ? static_cast<std::size_t>(b.types[t]) : 0) * hidden;
        for (std::size_t i = 0; i < hidden; ++i) row[i] += type[i];
      }
      k.layer_norm(1, hidden, row, hidden, norm.weight.data(), or_null(norm.bias), e.plan.norm_eps, row, hidden);
    }
  });
  if (b.ids && !stop_.said() && (unread || !e.embedding_.is_there()))
    throw Unreadable("the file of the token embedding cannot be read any more, or was changed since it was opened");
  if (tap_) tap_rows("embedding", kNoLayer, {0, total}, hidden, x);
}

// attn_norm (none in layer 0), q k v, their rotation, and all to where attention reads them
void Forward::qkv(std::size_t layer) {
  const Rotary& table = table_of(layer);
  const Rotation rotation{table.cos(), table.sin(), row_.data(),
                          1.0f / std::sqrt(static_cast<float>(head_dim))};
  each_chunk([&](Rows rows) {
    const Linear& wqkv = e.layers_[layer].wqkv;
    const Gemm g = normed(e.layers_[layer].attn_norm, wqkv, rows);
    if (tap_) tap_operands("attn_norm", layer, rows, hidden, w_->normed.data(), ldq_);
    if (!fused_) return qkv_unfused(layer, rows, g, rotation);
    // The epilogue counts tokens from the start: so does x.
    const Heads here = heads(rows.first);
    const Rotation turn{rotation.cos, rotation.sin, rotation.row + rows.first, rotation.scale};
    tiles(wqkv, rows.count,
          [&](const Range& range, std::byte* scratch) { wqkv.kernels->project_qkv(g, here, turn, range, scratch); });
  });
}

// Every block of queries of every head, in parts, sequence by sequence; heads joined where q stood.
void Forward::attention(std::size_t layer) {
  const Heads all = heads(0);
  const std::ptrdiff_t window = e.plan.layers[layer].window;
  const std::size_t parts = attention_parts(k, blocks_.size(), e.plan.heads, threads), each = e.plan.heads * parts;
  parallel_for(threads, blocks_.size() * each, [&](std::size_t task, int thread) {
    const QueryBlock& some = blocks_[task / each];  // of the task's sequence
    const std::size_t first = task / each - some.first / k.query_block;
    Sequence sequence = sequences_[some.sequence];
    sequence.window = window;
    const AttentionTask t = attention_task(task - first * each, ceil_div(sequence.length, k.query_block), e.plan.heads,
                                           parts, window >= 0);
    k.attention(all, sequence, t.head, t.block * k.query_block, t.part, parts, scratch_of(thread));
  }, &stop_);
  if (tap_) tap_operands("attention", layer, {0, total}, hidden, w_->q.data(), ldq_);
}

// attn_out, residual_1
void Forward::attn_out(std::size_t layer, Rows rows) {
  add_projection(e.layers_[layer].wo, rows, q_of(rows.first), ldq_, "attn_out", layer);
  if (tap_) tap_rows("residual_1", layer, rows, hidden, x + rows.first * hidden);
}

// mlp_norm, wi, glu, mlp_out, residual_2
void Forward::mlp(std::size_t layer, Rows rows) {
  const Linear& wi = e.layers_[layer].wi;
  const Gemm g = normed(e.layers_[layer].mlp_norm, wi, rows);
  if (tap_) tap_operands("mlp_norm", layer, rows, hidden, w_->normed.data(), ldq_);
  if (fused_) {
    tiles(wi, rows.count, [&](const Range& range, std::byte* scratch) {
      wi.kernels->project_glu(g, e.plan.activation, w_->gated.data(), ldgated_, range, scratch);
    });
  } else {
    glu_unfused(layer, rows, g);
  }
  if (tap_) tap_operands("glu", layer, rows, inter, w_->gated.data(), ldgated_);
  add_projection(e.layers_[layer].mlp_wo, rows, w_->gated.data(), ldgated_, "mlp_out", layer);
  if (tap_) tap_rows("residual_2", layer, rows, hidden, x + rows.first * hidden);
}

void Forward::final_norm() {
  const Norm& norm = e.final_norm_;
  rowwise({0, total}, [&](Rows rows) {
    float* at = x + rows.first * hidden;
    k.layer_norm(rows.count, hidden, at, hidden, norm.weight.data(), or_null(norm.bias), e.plan.norm_eps, at, hidden);
  });
  if (tap_) tap_rows("final_norm", kNoLayer, {0, total}, hidden, x);
}

// -- what the steps are made of -------------------------------------------------------------------

template <class F>
void Forward::each_chunk(F f) {
  const std::size_t chunks = ceil_div(total, kTokenChunk);
  for (std::size_t i = 0; i < chunks && !stop_.said(); ++i)
    f(Rows{total * i / chunks, total * (i + 1) / chunks - total * i / chunks});
}

template <class F>
void Forward::rowwise(Rows rows, F f) {
  parallel_for(threads, ceil_div(rows.count, kRowwiseChunk), [&](std::size_t task, int) {
    const std::size_t first = task * kRowwiseChunk;
    f(Rows{rows.first + first, std::min(kRowwiseChunk, rows.count - first)});
  }, &stop_);
}

template <class F>
void Forward::tiles(const Linear& l, std::size_t rows, F f) {
  const Tasks tasks(*l.kernels, l.packing, rows, threads);
  std::fill(last_row_.begin(), last_row_.end(), Range::kNone);
  parallel_for(threads, tasks.count(), [&](std::size_t task, int thread) {
    f(tasks.next_of(last_row_[static_cast<std::size_t>(thread)], task), scratch_of(thread));
  }, &stop_);
}

Gemm Forward::normed(const Norm& norm, const Linear& l, Rows rows) {
  rowwise(rows, [&](Rows part) {
    const float* in = x + part.first * hidden;
    const std::size_t at = part.first - rows.first;
    std::byte* y = w_->normed.data() + at * ldq_;
    if (norm.weight.empty())
      k.to_operand(part.count, hidden, in, hidden, y, ldq_);
    else
      k.norm_operand(part.count, hidden, in, hidden, norm.weight.data(), or_null(norm.bias), e.plan.norm_eps, y, ldq_);
    if (l.kernels->to_integers)
      l.kernels->to_integers(part.count, hidden, y, ldq_, w_->integers.data() + at * ldintegers_, ldintegers_);
  });
  if (l.kernels->to_integers) return {l.packing, l.packed, or_null(l.bias), w_->integers.data(), ldintegers_};
  return {l.packing, l.packed, or_null(l.bias), w_->normed.data(), ldq_};
}

Gemm Forward::gemm_of(const Linear& l, Rows rows, const std::byte* in, std::size_t ldin) {
  if (!l.kernels->to_integers) return {l.packing, l.packed, or_null(l.bias), in, ldin};
  rowwise({0, rows.count}, [&](Rows part) {
    l.kernels->to_integers(part.count, l.packing.k, in + part.first * ldin, ldin,
                           w_->integers.data() + part.first * ldintegers_, ldintegers_);
  });
  return {l.packing, l.packed, or_null(l.bias), w_->integers.data(), ldintegers_};
}

void Forward::add_projection(const Linear& l, Rows rows, const std::byte* in, std::size_t ldin, const char* step,
                             std::size_t layer) {
  float* y = x + rows.first * hidden;
  if (!fused_) {
    const Floats added = product(l, rows, gemm_of(l, rows, in, ldin));
    tap_rows(step, layer, rows, hidden, added.data());
    for (std::size_t i = 0; i < added.size(); ++i) y[i] = added[i] + y[i];
    return;
  }
  const Gemm g = gemm_of(l, rows, in, ldin);
  tiles(l, rows.count,
        [&](const Range& range, std::byte* scratch) { l.kernels->project(g, y, hidden, y, hidden, range, scratch); });
}

Floats Forward::product(const Linear& l, Rows rows, const Gemm& g) {
  const std::size_t n = l.packing.n;
  Floats y(rows.count * n);
  tiles(l, rows.count,
        [&](const Range& range, std::byte* scratch) { l.kernels->project(g, nullptr, 0, y.data(), n, range, scratch); });
  return y;
}

Heads Forward::heads(std::size_t first) {
  return {e.plan.heads, head_dim,       q_of(first), ldq_, w_->keys.data(), w_->values.data(), slots_,
          slot_.data() + first, b.visible ? b.visible + first : nullptr};
}

const Rotary& Forward::table_of(std::size_t layer) const {
  const double theta = e.plan.layers[layer].theta;
  const std::vector<Rotary>& tables = b.positions ? turned_ : w_->tables;
  return *std::find_if(tables.begin(), tables.end(), [&](const Rotary& t) { return t.theta == theta; });
}

}  // namespace refimpl
