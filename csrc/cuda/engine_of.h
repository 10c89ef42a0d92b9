// DeviceEngine in one dtype: numbers T in memory, kTerms bfloat16 each in products.
//
// Long because a pass, with the steps that a trace tells of, is one thing. The residual stream stands in
// float32 from the embedding to the final norm; norms, gates and their products take kTokenChunk tokens
// at a time, which changes no bit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "cuda/attention.h"
#include "cuda/engine.h"
#include "cuda/rowwise.h"
#include "engine/rotary.h"

namespace refimpl::cuda {

constexpr std::size_t kNoLayer = static_cast<std::size_t>(-1);

// Rotary tables on a device, cos and sin of every theta of a plan, [rows, head_dim / 2] each.
struct Tables {
  std::vector<double> thetas;
  std::size_t rows = 0, each = 0;
  const std::uint64_t number = [] {  // none other has it
    static std::atomic<std::uint64_t> made{0};
    return ++made;
  }();
  DeviceMemory memory;

  Tables(int device, Stream stream, const Plan& plan, std::size_t rows, const std::int64_t* positions) : rows(rows) {
    const std::size_t head_dim = plan.hidden / plan.heads;
    for (const LayerPlan& l : plan.layers)
      if (std::find(thetas.begin(), thetas.end(), l.theta) == thetas.end()) thetas.push_back(l.theta);
    each = rows * (head_dim / 2);
    std::vector<float> host(2 * each * thetas.size());
    for (std::size_t i = 0; i < thetas.size(); ++i)
      rotary_tables(thetas[i], rows, head_dim, positions, host.data() + 2 * i * each, host.data() + (2 * i + 1) * each);
    memory = DeviceMemory(device, host.size() * sizeof(float));
    to_device(stream, memory.data(), host.data(), host.size() * sizeof(float));
    finish(stream);
  }
  const float* cos(double theta) const {
    const auto found = std::find(thetas.begin(), thetas.end(), theta);
    return reinterpret_cast<const float*>(memory.data()) + 2 * static_cast<std::size_t>(found - thetas.begin()) * each;
  }
  const float* sin(double theta) const { return cos(theta) + each; }
};

template <class T, unsigned kTerms>
class EngineOf final : public DeviceEngine {
 public:
  EngineOf(int device, const Plan& plan, const Weights& w, const OfLayer& reading, const OfLayer& packed);
  bool run(const Pass& pass) const override;
  std::size_t weight_bytes() const override { return memory_.bytes(); }

 private:
  struct Layer {
    DeviceNorm attn_norm, mlp_norm;
    DeviceLinear<T> wqkv, wo, wi, mlp_wo;
  };
  class Run;

  void make_room(Room& room, const Weights& w);
  void bring_embedding(const RowSource& rows);
  std::shared_ptr<const Tables> tables_for(std::size_t rows, Stream stream) const;

  Storage stored_;
  unsigned char* embedding_ = nullptr;
  float* types_ = nullptr;
  DeviceNorm embedding_norm_, final_norm_;
  std::vector<Layer> layers_;
  DeviceMemory memory_;
  mutable std::mutex tables_mutex_;
  mutable std::shared_ptr<const Tables> tables_;  // of positions 0, 1, ..: the longest that were asked for
};

// -- construction -----------------------------------------------------------------------------------

template <class T, unsigned kTerms>
EngineOf<T, kTerms>::EngineOf(int device, const Plan& plan, const Weights& w, const OfLayer& reading, const OfLayer& packed)
    : DeviceEngine(device, plan, sizeof(T)), stored_(w.embedding.storage()) {
  const OnDevice here(device);
  if (!padded_head(sizes.head_dim()))
    throw std::invalid_argument("heads have " + std::to_string(sizes.head_dim()) + " columns; the device computes up to 128");
  Room nothing;
  make_room(nothing, w);
  memory_ = DeviceMemory(device, nothing.bytes());
  Room room(memory_.data());
  make_room(room, w);

  Bringer bringer(device);
  bring_embedding(w.embedding);
  bringer.floats(types_, plan.types * plan.hidden, w.types);
  bringer.norm(embedding_norm_, plan.hidden, w.embedding_norm, w.embedding_norm_bias);
  bringer.norm(final_norm_, plan.hidden, w.final_norm, w.final_norm_bias);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (reading) reading(i);
    const LayerWeights& from = w.layers[i];
    const Layer& to = layers_[i];
    bringer.norm(to.attn_norm, plan.hidden, from.attn_norm, from.attn_norm_bias);
    bringer.norm(to.mlp_norm, plan.hidden, from.mlp_norm, from.mlp_norm_bias);
    bringer.linear(to.wqkv, from.wqkv, from.wqkv_bias), bringer.linear(to.wo, from.wo, from.wo_bias);
    bringer.linear(to.wi, from.wi, from.wi_bias), bringer.linear(to.mlp_wo, from.mlp_wo, from.mlp_wo_bias);
    if (packed) packed(i);
  }
}

template <class T, unsigned kTerms>
void EngineOf<T, kTerms>::make_room(Room& room, const Weights& w) {
  const std::size_t hidden = plan.hidden, inter = plan.inter;
  embedding_ = room.take<unsigned char>(plan.vocab * hidden * size_of(stored_));
  types_ = plan.types ? room.take<float>(plan.types * hidden) : nullptr;
  embedding_norm_ = room_for(room, hidden, w.embedding_norm, w.embedding_norm_bias);
  final_norm_ = room_for(room, hidden, w.final_norm, w.final_norm_bias);
  layers_.clear();
  for (const LayerWeights& l : w.layers)
    layers_.push_back({room_for(room, hidden, l.attn_norm, l.attn_norm_bias), room_for(room, hidden, l.mlp_norm, l.mlp_norm_bias),
                       room_for<T>(room, {3 * hidden, hidden, hidden / plan.heads}, l.wqkv_bias.data != nullptr),
                       room_for<T>(room, {hidden, hidden, 0}, l.wo_bias.data != nullptr),
                       room_for<T>(room, {2 * inter, hidden, 2 * inter}, l.wi_bias.data != nullptr),
                       room_for<T>(room, {hidden, inter, 0}, l.mlp_wo_bias.data != nullptr)});
}

// Some megabytes at a time.
template <class T, unsigned kTerms>
void EngineOf<T, kTerms>::bring_embedding(const RowSource& rows) {
  const std::size_t row = plan.hidden * size_of(stored_), at_once = std::max<std::size_t>(1, (std::size_t{4} << 20) / row);
  std::vector<unsigned char> some(std::min(at_once, plan.vocab) * row);
  const OwnStream stream(device);
  for (std::size_t first = 0; first < plan.vocab; first += at_once) {
    const std::size_t count = std::min(at_once, plan.vocab - first);
    if (!rows.is_there() || !rows.read_stored(first, count, some.data()) || !rows.is_there())
      throw Unreadable("the file of the token embedding cannot be read, or was changed since it was opened");
    to_device(stream.get(), embedding_ + first * row, some.data(), count * row);
    finish(stream.get());
  }
}

// Of positions 0 .. rows - 1 at least; never more than twice as many as were ever asked for.
template <class T, unsigned kTerms>
std::shared_ptr<const Tables> EngineOf<T, kTerms>::tables_for(std::size_t rows, Stream stream) const {
  const std::lock_guard<std::mutex> lock(tables_mutex_);
  if (!tables_ || tables_->rows < rows) {
    std::size_t room = 512;
    while (room < rows) room *= 2;
    tables_.reset();  // not both at once, where no pass has it
    tables_ = std::make_shared<const Tables>(device, stream, plan, room, nullptr);
  }
  return tables_;
}

// -- a pass -----------------------------------------------------------------------------------------

template <class T, unsigned kTerms>
class EngineOf<T, kTerms>::Run {
 public:
  Run(const EngineOf& engine, const Pass& pass)
      : e(engine), p(pass), b(pass.batch), hidden(e.plan.hidden), inter(e.plan.inter), total(b.cu_seqlens.back()),
        sequences(b.cu_seqlens.size() - 1), short_(!p.tap && p.fused && !b.embeddings && !b.positions && !(p.on_device && p.head)),
        bucket(short_ ? e.sizes.bucket(total, sequences) : Bucket{total, sequences}), layout(e.sizes, bucket.tokens, bucket.sequences),
        w(e.workspaces.take(layout)), stream(p.has_stream ? p.stream : w->stream.get()), ldq(e.sizes.ld(hidden)), ldgated(e.sizes.ld(inter)) {}
  // Nothing of a pass is under way when its memory goes to the next one.
  ~Run() {
    if (!over_) {
      try {
        finish(stream);
      } catch (const std::exception&) {
        return;  // the device is gone, and so is its memory
      }
    }
    e.workspaces.give(std::move(w));
  }
  Run(const Run&) = delete;

  bool run() {
    bring();
    if (!compute()) return false;
    tell();
    w->done.record(stream);
    if (!p.has_stream) finish(stream);
    over_ = true;
    return true;
  }

 private:
  struct Rows {
    std::size_t first, count;
    unsigned n() const { return static_cast<unsigned>(count); }
  };
  template <class N>
  N* at(std::size_t offset) const {
    return reinterpret_cast<N*>(w->memory.data() + offset);
  }

  // Whether the launches may be a graph's: all that they are told of stands in the workspace.
  bool graphed() const { return short_ && e.sizes.graphs && total && total <= kGraphTokens && sequences <= kGraphSequences; }

  // Everything that is launched. False when it was stopped.
  bool compute() {
    if (!graphed()) return compute_now();
    if (stopped()) return false;
    Graphs::Kept* const kept = w->graphs.find({bucket.tokens, bucket.sequences, p.width, p.prompt_tokens, types != nullptr, visible != nullptr,
                                               p.normalize, p.head, tables ? tables->number : 0});
    if (kept && !std::exchange(kept->tried, true)) {
      try {
        bool whole = true;
        const Stream callers = std::exchange(stream, w->stream.get());
        const Restored restored{stream, callers};
        auto graph = std::make_unique<Graph>(stream, [&] { whole = compute_now(); });
        if (!whole) {
          kept->tried = false;
          return false;
        }
        kept->graph = std::move(graph), kept->result = result;
      } catch (const std::exception&) {  // launched one by one, and a device that is gone says so again
      }
    }
    if (!kept || !kept->graph) return compute_now();
    result = kept->result;
    kept->graph->launch(stream);
    return true;
  }
  bool compute_now() { return !total || encode() ? (head(), true) : false; }
  struct Restored {
    Stream& stream;
    const Stream before;
    ~Restored() { stream = before; }
  };

  // -- what the host knows, to the device in one copy --
  void bring() {
    std::byte* const to = w->staging.data();
    // What fills up a bucket: tokens of id 0, blocks without queries.
    if (graphed()) std::memset(to, 0, layout.staged);
    const auto put = [&](std::size_t offset, const void* from, std::size_t bytes) {
      if (from && bytes) std::memcpy(to + offset, from, bytes);
    };
    if (!p.on_device) {
      put(layout.ids, b.ids, total * sizeof(std::int64_t)), put(layout.types, b.types, total * sizeof(std::int64_t));
      put(layout.visible, b.visible, total);
    }
    auto* const row = reinterpret_cast<std::uint32_t*>(to + layout.row);
    auto* const cu = reinterpret_cast<std::uint32_t*>(to + layout.cu);
    auto* const block = reinterpret_cast<QueryBlock*>(to + layout.blocks);
    for (std::size_t s = 0; s <= bucket.sequences; ++s) cu[s] = static_cast<std::uint32_t>(b.cu_seqlens[std::min(s, sequences)]);
    std::size_t longest = 0;
    for (std::size_t s = 0; s < sequences; ++s) {
      const std::uint32_t first = cu[s], length = cu[s + 1] - first;
      longest = std::max<std::size_t>(longest, length);
      for (std::uint32_t j = 0; j < length; ++j) row[first + j] = b.positions ? first + j : j;
      for (std::uint32_t query = 0; query < length; query += kQueries) block[blocks_++] = {first, length, query};
    }
    if (graphed()) blocks_ = layout.most_blocks;
    to_device(stream, w->memory.data(), to, layout.staged);
    const bool theirs = p.on_device && !graphed();
    ids = theirs ? b.ids : b.ids ? at<std::int64_t>(layout.ids) : nullptr;
    types = theirs ? b.types : b.types ? at<std::int64_t>(layout.types) : nullptr;
    visible = theirs ? b.visible : b.visible ? at<unsigned char>(layout.visible) : nullptr;
    if (p.on_device && graphed()) {
      const auto copy = [&](std::size_t offset, const void* from, std::size_t bytes) {
        if (from) on_device(stream, w->memory.data() + offset, from, bytes);
      };
      copy(layout.ids, b.ids, total * sizeof(std::int64_t)), copy(layout.types, b.types, total * sizeof(std::int64_t));
      copy(layout.visible, b.visible, total);
    }
    // The residual stream stands in what the caller gave, where that is the device's and wanted.
    x = theirs && !p.head ? p.out : at<float>(layout.x);
    q = at<T>(layout.q), keys = at<T>(layout.keys), values = at<T>(layout.values);
    normed = at<T>(layout.normed), gated = at<T>(layout.gated);
    if (!total || e.layers_.empty()) return;
    const Stream own = w->stream.get();
    tables = b.positions ? std::make_shared<const Tables>(e.device, own, e.plan, total, b.positions) : e.tables_for(longest, own);
  }

  bool stopped() const { return p.stop && p.stop(); }

  bool encode() {
    if (b.embeddings) {
      if (p.on_device) on_device(stream, x, b.embeddings, total * hidden * sizeof(float));
      else to_device(stream, x, b.embeddings, total * hidden * sizeof(float));
    }
    if (padded_head(e.sizes.head_dim()) != e.sizes.head_dim()) zero(stream, keys, layout.kv_bytes), zero(stream, values, layout.kv_bytes);
    if (p.tap) tap_tables();
    if (e.layers_.empty()) each_chunk([&](Rows rows) { embedding(rows, nullptr); });
    for (std::size_t i = 0; i < e.layers_.size(); ++i) {
      if (stopped()) return false;
      qkv(i);
      attend(i);
      each_chunk([&](Rows rows) {
        attn_out(i, rows);
        mlp(i, rows);
      });
    }
    started(residual_norm<float>(turn(stream), {static_cast<unsigned>(bucket.tokens), static_cast<unsigned>(hidden), x, hidden, nullptr, 0,
                                                weights_of(e.final_norm_), x, hidden}));
    if (p.tap) tap_rows("final_norm", kNoLayer, {0, total}, hidden, x);
    return true;
  }

  // -- steps --
  void embedding(Rows rows, T* operands) {
    const auto from = [&](auto stored) {
      using Stored = decltype(stored);
      const bool own = !b.embeddings;
      EmbeddingNorm<Stored, T> a{rows.n(), static_cast<unsigned>(hidden), own ? ids + rows.first : nullptr,
                                 types ? types + rows.first : nullptr, reinterpret_cast<const Stored*>(e.embedding_), e.plan.vocab,
                                 e.types_, e.plan.types, weights_of(e.embedding_norm_), x + rows.first * hidden, hidden, operands, ldq};
      if constexpr (sizeof(Stored) == sizeof(float)) {
        if (!own) a.table = x + rows.first * hidden, a.vocab = rows.count;
      }
      started(embedding_norm<Stored, T>(turn(stream), a));
    };
    switch (b.embeddings ? Storage::float32 : e.stored_) {
      case Storage::float32: from(float{}); break;
      case Storage::bfloat16: from(bf16{}); break;
      case Storage::float16: from(f16{}); break;
    }
    if (p.tap) tap_rows("embedding", kNoLayer, rows, hidden, x + rows.first * hidden);
  }

  // Rows of the residual stream as operands, normed.
  void norm(const DeviceNorm& norm, Rows rows) {
    float* const from = x + rows.first * hidden;
    if (!norm.weight)
      return started(narrow<T>(turn(stream), {rows.n(), static_cast<unsigned>(hidden), from, hidden, normed, ldq}));
    started(residual_norm<T>(turn(stream), {rows.n(), static_cast<unsigned>(hidden), from, hidden, nullptr, 0, weights_of(norm), normed, ldq}));
  }

  void qkv(std::size_t layer) {
    const Layer& l = e.layers_[layer];
    const double theta = e.plan.layers[layer].theta;
    const std::size_t d = e.sizes.head_dim();
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    const unsigned heads = static_cast<unsigned>(e.plan.heads), width = padded_head(d);
    each_chunk([&](Rows rows) {
      if (layer == 0) embedding(rows, l.attn_norm.weight ? nullptr : normed);
      if (layer || l.attn_norm.weight) norm(l.attn_norm, rows);
      if (p.tap) tap_operands("attn_norm", layer, rows, hidden, normed, ldq);
      const std::uint32_t* const row = at<std::uint32_t>(layout.row) + rows.first;
      const float *cos = tables->cos(theta), *sin = tables->sin(theta);
      if (p.fused) {
        multiply_rows<kTerms>(stream, l.wqkv, rows.count, static_cast<const T*>(normed), ldq,
                              ToHeads<T>{l.wqkv.bias, heads, static_cast<unsigned>(d), width, q, ldq, keys, values, rows.first, bucket.tokens, cos, sin, row, scale});
        return;
      }
      const DeviceMemory memory(e.device, rows.count * 3 * hidden * sizeof(float));
      float* const y = reinterpret_cast<float*>(memory.data());
      multiply_rows<kTerms>(stream, l.wqkv, rows.count, static_cast<const T*>(normed), ldq, AddTo{l.wqkv.bias, nullptr, 0, y, 3 * hidden});
      const auto tap_part = [&](const char* step, std::size_t which) { tap_rows(step, layer, rows, hidden, y + which * hidden, 3 * hidden); };
      tap_part("q", 0), tap_part("k", 1), tap_part("v", 2);
      for (float* part : {y, y + hidden})
        started(rope(turn(stream), {rows.n(), heads, static_cast<unsigned>(d), part, 3 * hidden, cos, sin, row, 1.0f, part, 3 * hidden}));
      tap_part("q_rot", 0), tap_part("k_rot", 1);
      started(place<T>(turn(stream), {rows.n(), heads, static_cast<unsigned>(d), y, y + hidden, y + 2 * hidden, 3 * hidden, scale, q, ldq,
                                      keys, values, rows.first, bucket.tokens, width}));
      finish(stream);
    });
  }

  void attend(std::size_t layer) {
    started(attention<T, kTerms>(turn(stream), {static_cast<unsigned>(blocks_), static_cast<unsigned>(e.plan.heads),
                                                static_cast<unsigned>(e.sizes.head_dim()), at<QueryBlock>(layout.blocks),
                                                e.plan.layers[layer].window, q, ldq, keys, values, bucket.tokens, visible}));
    if (p.tap) tap_operands("attention", layer, {0, total}, hidden, q, ldq);
  }

  void attn_out(std::size_t layer, Rows rows) {
    add(e.layers_[layer].wo, rows, q + rows.first * ldq, ldq, "attn_out", layer);
    if (p.tap) tap_rows("residual_1", layer, rows, hidden, x + rows.first * hidden);
  }

  void mlp(std::size_t layer, Rows rows) {
    const Layer& l = e.layers_[layer];
    norm(l.mlp_norm, rows);
    if (p.tap) tap_operands("mlp_norm", layer, rows, hidden, normed, ldq);
    const T* const in = normed;
    if (p.fused && e.plan.activation == Activation::gelu) {
      multiply_rows<kTerms>(stream, l.wi, rows.count, in, ldq, Gated<Gelu, T>{{}, l.wi.bias, gated, ldgated});
    } else if (p.fused) {
      multiply_rows<kTerms>(stream, l.wi, rows.count, in, ldq, Gated<Named, T>{{e.plan.activation}, l.wi.bias, gated, ldgated});
    } else {
      const DeviceMemory memory(e.device, rows.count * 2 * inter * sizeof(float));
      float* const y = reinterpret_cast<float*>(memory.data());
      multiply_rows<kTerms>(stream, l.wi, rows.count, in, ldq, AddTo{l.wi.bias, nullptr, 0, y, 2 * inter});
      tap_rows("wi", layer, rows, 2 * inter, y);
      started(glu<T>(turn(stream), e.plan.activation, {rows.n(), static_cast<unsigned>(inter), y, 2 * inter, gated, ldgated}));
      finish(stream);
    }
    if (p.tap) tap_operands("glu", layer, rows, inter, gated, ldgated);
    add(l.mlp_wo, rows, gated, ldgated, "mlp_out", layer);
    if (p.tap) tap_rows("residual_2", layer, rows, hidden, x + rows.first * hidden);
  }

  // x += in W^T + bias
  void add(const DeviceLinear<T>& l, Rows rows, const T* in, std::size_t ldin, const char* step, std::size_t layer) {
    float* const y = x + rows.first * hidden;
    if (p.fused) return multiply_rows<kTerms>(stream, l, rows.count, in, ldin, AddTo{l.bias, y, hidden, y, hidden});
    const std::size_t n = rows.count * hidden;
    const DeviceMemory memory(e.device, n * sizeof(float));
    float* const added = reinterpret_cast<float*>(memory.data());
    multiply_rows<kTerms>(stream, l, rows.count, in, ldin, AddTo{l.bias, nullptr, 0, added, hidden});
    const Floats one = rows_of(rows, hidden, added, hidden);
    tell_rows(step, layer, rows, hidden, one);
    Floats sum = rows_of(rows, hidden, y, hidden);
    for (std::size_t i = 0; i < n; ++i) sum[i] = one[i] + sum[i];
    to_device(stream, y, sum.data(), n * sizeof(float));
    finish(stream);
  }

  // -- what comes of it --
  void head() {
    if (!p.head) {
      result = x;
      return;
    }
    if (!sequences) return;
    const DeviceHead::Vectors found =
        p.head->run(stream, bucket.sequences, x, at<std::uint32_t>(layout.cu), visible, p.prompt_tokens,
                    {at<float>(layout.vectors[0]), at<float>(layout.vectors[1]), e.sizes.ld_vector()});
    const unsigned rows = static_cast<unsigned>(bucket.sequences), width = static_cast<unsigned>(p.width);
    result = p.on_device ? p.out : found.is_free;
    if (p.normalize) started(unit_rows(turn(stream), {rows, width, found.is_in, found.ld, result, p.width}));
    else started(narrow<float>(turn(stream), {rows, width, found.is_in, found.ld, result, p.width}));
  }
  void tell() {
    if (result == p.out) return;
    const std::size_t bytes = (p.head ? sequences * p.width : total * hidden) * sizeof(float);
    if (p.on_device) on_device(stream, p.out, result, bytes);
    else to_host(stream, p.out, result, bytes);
  }

  // -- what is told of it --
  Floats rows_of(Rows rows, std::size_t columns, const float* from, std::size_t ld) {
    Floats all(rows.count * columns);
    if (ld == columns) {
      to_host(stream, all.data(), from, all.size() * sizeof(float));
    } else {
      for (std::size_t r = 0; r < rows.count; ++r) to_host(stream, all.data() + r * columns, from + r * ld, columns * sizeof(float));
    }
    finish(stream);
    return all;
  }
  void tell_rows(const char* step, std::size_t layer, Rows rows, std::size_t columns, const Floats& data) {
    (*p.tap)({step, static_cast<std::ptrdiff_t>(layer), rows.first, rows.count, columns, data.data()});
  }
  void tap_rows(const char* step, std::size_t layer, Rows rows, std::size_t columns, const float* from, std::size_t ld = 0) {
    tell_rows(step, layer, rows, columns, rows_of(rows, columns, from, ld ? ld : columns));
  }
  void tap_operands(const char* step, std::size_t layer, Rows rows, std::size_t columns, const T* from, std::size_t ld) {
    std::vector<T> all(rows.count * ld);
    to_host(stream, all.data(), from, ((rows.count - 1) * ld + columns) * sizeof(T));
    finish(stream);
    Floats wide(rows.count * columns);
    for (std::size_t r = 0; r < rows.count; ++r)
      for (std::size_t c = 0; c < columns; ++c) {
        if constexpr (sizeof(T) == sizeof(float)) wide[r * columns + c] = all[r * ld + c];
        else wide[r * columns + c] = to_float(all[r * ld + c]);
      }
    tell_rows(step, layer, rows, columns, wide);
  }
  // rope.full.* and rope.sliding.*, [total, head_dim]: both halves of a row are alike.
  void tap_tables() {
    const std::size_t d = e.sizes.head_dim(), half = d / 2;
    for (const bool full : {true, false}) {
      const auto layer = std::find_if(e.plan.layers.begin(), e.plan.layers.end(), [&](const LayerPlan& l) { return (l.window < 0) == full; });
      if (layer == e.plan.layers.end()) continue;
      for (const bool cosine : {true, false}) {
        const float* const from = cosine ? tables->cos(layer->theta) : tables->sin(layer->theta);
        const Floats table = rows_of({0, tables->rows}, half, from, half);
        Floats rows(total * d);
        for (std::size_t s = 0, t = 0; s < sequences; ++s)
          for (std::size_t j = 0; t < b.cu_seqlens[s + 1]; ++j, ++t)
            for (std::size_t i = 0; i < d; ++i) rows[t * d + i] = table[(b.positions ? t : j) * half + i % half];
        tell_rows(full ? (cosine ? "rope.full.cos" : "rope.full.sin") : (cosine ? "rope.sliding.cos" : "rope.sliding.sin"),
                  kNoLayer, {0, total}, d, rows);
      }
    }
  }

  NormWeights weights_of(const DeviceNorm& norm) const { return {norm.weight, norm.bias, e.plan.norm_eps}; }

  template <class F>
  void each_chunk(F f) {
    for (std::size_t first = 0; first < bucket.tokens; first += kTokenChunk) f(Rows{first, std::min(kTokenChunk, bucket.tokens - first)});
  }

  const EngineOf& e;
  const Pass& p;
  const Batch& b;
  const std::size_t hidden, inter, total, sequences;
  const bool short_;  // fused, of ids, at the usual positions
  const Bucket bucket;
  const Layout layout;
  std::unique_ptr<Workspace> w;
  Stream stream;
  const std::size_t ldq, ldgated;
  bool over_ = false;
  std::size_t blocks_ = 0;
  std::shared_ptr<const Tables> tables;
  const std::int64_t *ids = nullptr, *types = nullptr;
  const unsigned char* visible = nullptr;
  float *x = nullptr, *result = nullptr;
  T *q = nullptr, *keys = nullptr, *values = nullptr, *normed = nullptr, *gated = nullptr;
};

template <class T, unsigned kTerms>
bool EngineOf<T, kTerms>::run(const Pass& pass) const {
  if (pass.batch.cu_seqlens.back() == 0 && !pass.head) return true;
  const OnDevice here(device);
  return Run(*this, pass).run();
}

}  // namespace refimpl::cuda
