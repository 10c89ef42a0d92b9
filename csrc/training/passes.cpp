// Long because a pass and its way back, step by step, stand side by side.
#include "training/passes.h"

#include <algorithm>
#include <cmath>

#include "engine/tasks.h"

namespace refimpl {
namespace {

constexpr std::size_t kRowwiseChunk = 32;
constexpr std::size_t kScattered = 64;  // columns of the embedding that one task adds to
constexpr std::size_t kSliceFloats = std::size_t{5} << 18;  // of the widest rows of a slice

}  // namespace

// -- a pass ---------------------------------------------------------------------------------------

bool Passes::forward(const Batch& batch, std::size_t recomputed, int threads, const std::function<bool()>& stop,
                     float* out) {
  Stop asked(stop);
  next_ = kNone;
  take(batch, threads, &asked);
  const std::size_t layers = plan.layers.size();
  const auto done = [&] { return next_ = static_cast<std::ptrdiff_t>(layers), true; };
  if (total_ == 0) return done();
  recomputed_ = std::min(recomputed, layers);
  kept_.resize(layers - recomputed_ + (recomputed_ ? 1 : 0)), inputs_.resize(layers + 1);
  const auto input = [&](std::size_t i) { return inputs_[i].floats(total_ * plan.hidden); };
  embed(input(0));
  for (std::size_t i = 0; i < layers && !asked.said(); ++i) layer(i, kept_of(i), input(i + 1));
  norm(total_, p_.final_norm, input(layers), out);
  stop_ = nullptr;
  return !asked.said() && done();
}

bool Passes::backward(std::ptrdiff_t part, const float* given, int threads, const std::function<bool()>& stop) {
  Stop asked(stop);
  threads_ = std::clamp(threads, 1, kMaxThreads), stop_ = &asked, next_ = kNone;
  const std::size_t layers = plan.layers.size();
  float* d = d_.floats(total_ * plan.hidden);
  if (total_ && part < 0) {
    embed_back(d);
  } else if (const std::size_t i = static_cast<std::size_t>(part); total_ && i == layers) {
    norm_back(p_.final_norm, given, inputs_[layers].floats(0), d);
  } else if (total_) {
    // Of those that are computed again, the last one's were the last to be made.
    if (i + 1 < recomputed_) layer(i, kept_of(i), wide_.floats(total_ * plan.hidden));
    layer_back(i, kept_of(i), d);
  }
  stop_ = nullptr;
  if (asked.said()) return false;
  next_ = part < 0 ? kNone : part - 1;
  return true;
}

// Everything that the way back needs of a batch, whose memory may be gone then.
void Passes::take(const Batch& b, int threads, Stop* stop) {
  threads_ = std::clamp(threads, 1, kMaxThreads), stop_ = stop;
  total_ = b.cu_seqlens.back();
  ids_.assign(b.ids, b.ids + total_);
  types_.assign(b.types, b.types ? b.types + total_ : b.types);
  positions_.assign(b.positions, b.positions ? b.positions + total_ : b.positions);
  visible_.assign(b.visible, b.visible ? b.visible + total_ : b.visible);
  cut(b.cu_seqlens);
  tables_.clear();
  for (const LayerPlan& l : plan.layers)
    if (std::none_of(tables_.begin(), tables_.end(), [&](const Rotary& t) { return t.theta == l.theta; }))
      tables_.emplace_back(l.theta, b.positions ? total_ : longest_, head_dim(), b.positions);
}

void Passes::Slice::add(std::size_t rows) {
  static_assert(kSummed % kNormed == 0, "blocks of norms are parts of the others");
  const auto append = [&](Blocks& to, std::size_t most) {
    for (const RowBlock& b : blocks_of(&rows, 1, most)) to.push_back({count + b.first, b.count});
  };
  append(blocks, kSummed), append(norm_blocks, kNormed);
  count += rows;
}

void Passes::cut(const std::vector<std::size_t>& cu_seqlens) {
  const std::size_t most = std::max(kSummed, kSliceFloats / std::max(3 * plan.hidden, 2 * plan.inter));
  const auto room_for = [&](std::vector<Slice>& slices, std::size_t row, std::size_t rows) -> Slice& {
    if (slices.empty() || slices.back().count + rows > most) slices.emplace_back(row);
    return slices.back();
  };
  by_sequence_.clear(), by_block_.clear();
  slot_.resize(total_), row_.resize(total_);
  longest_ = 0;
  for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    const std::size_t first = cu_seqlens[s], length = cu_seqlens[s + 1] - first;
    if (length == 0) continue;
    Slice& slice = room_for(by_sequence_, first, length);
    for (std::size_t j = 0; j < length; ++j) {
      slot_[first + j] = slice.slots + j;
      row_[first + j] = positions_.empty() ? j : first + j;
    }
    slice.sequences.push_back({first - slice.first, length, 0});
    slice.slots += round_up(length, k_.slot_block);
    slice.add(length);
    for (const RowBlock& b : blocks_of(&length, 1, kSummed)) room_for(by_block_, first + b.first, b.count).add(b.count);
    longest_ = std::max(longest_, length);
  }
}

// LN(E[ids] + T[types])
void Passes::embed(float* out) {
  rowwise(total_, [&](std::size_t first, std::size_t count) {
    for (std::size_t t = first; t < first + count; ++t) {
      const float* row = p_.embedding.weight + static_cast<std::size_t>(ids_[t]) * plan.hidden;
      float* x = out + t * plan.hidden;
      std::copy_n(row, plan.hidden, x);
      if (plan.types) {
        const std::size_t type = types_.empty() ? 0 : static_cast<std::size_t>(types_[t]);
        for (std::size_t i = 0; i < plan.hidden; ++i) x[i] += p_.types.weight[type * plan.hidden + i];
      }
      k_.layer_norm(1, plan.hidden, x, plan.hidden, p_.embedding_norm.weight.weight, p_.embedding_norm.bias.weight,
                    plan.norm_eps, x, plan.hidden);
    }
  });
}

void Passes::layer(std::size_t i, Kept& kept, float* out) {
  const LayerParameters& l = p_.layers[i];
  const std::size_t hidden = plan.hidden, inter = plan.inter;
  const Rotary& table = table_of(i);
  const float* x = inputs_[i].floats(0);
  float *qkv = kept.qkv.floats(total_ * 3 * hidden), *joined = kept.joined.floats(total_ * hidden);
  float *middle = kept.middle.floats(total_ * hidden), *u = kept.wi.floats(total_ * 2 * inter);

  const NormParameters* before = l.attn_norm.weight.weight ? &l.attn_norm : nullptr;  // none in layer 0
  const Packed wqkv = products_.packed(3 * hidden, hidden, l.wqkv.weight.weight, first_, threads_, stop_);
  const Packed wo = products_.packed(hidden, hidden, l.wo.weight.weight, second_, threads_, stop_);
  for (const Slice& slice : by_sequence_) {
    const float* in = x + slice.first * hidden;
    float *three = qkv + slice.first * 3 * hidden, *heads = joined + slice.first * hidden;
    linear(wqkv, slice.count, norm_operands(slice.count, before, in), l.wqkv.bias, nullptr, three);
    rotate(slice, three, table.cos(), table.sin());
    attend(i, slice, three, heads);
    linear(wo, slice.count, q_.bytes(0), l.wo.bias, in, middle + slice.first * hidden);  // where attention left its output
  }

  const Packed wi = products_.packed(2 * inter, hidden, l.wi.weight.weight, first_, threads_, stop_);
  const Packed mlp_wo = products_.packed(hidden, inter, l.mlp_wo.weight.weight, second_, threads_, stop_);
  const std::size_t ld = k_.operand_bytes(inter);
  for (const Slice& slice : by_block_) {
    const float* in = middle + slice.first * hidden;
    float* two = u + slice.first * 2 * inter;
    linear(wi, slice.count, norm_operands(slice.count, &l.mlp_norm, in), l.wi.bias, nullptr, two);
    float* gated = gated_.floats(slice.count * inter);
    std::byte* operands = q_.bytes(products_.operand_room(slice.count, inter));
    rowwise(slice.count, [&](std::size_t first, std::size_t count) {
      k_.glu(count, inter, plan.activation, two + first * 2 * inter, 2 * inter, gated + first * inter, inter);
      k_.to_operand(count, inter, gated + first * inter, inter, operands + first * ld, ld);
    });
    linear(mlp_wo, slice.count, operands, l.mlp_wo.bias, in, out + slice.first * hidden);
  }
}

// d [total, hidden] of the layer's result becomes that of its input; what was kept is used up.
void Passes::layer_back(std::size_t i, Kept& kept, float* d_result) {
  const LayerParameters& l = p_.layers[i];
  const std::size_t hidden = plan.hidden, inter = plan.inter;

  // mlp.Wo, act(gate) up, Wi, mlp_norm
  const Packed mlp_wo = products_.turned(hidden, inter, l.mlp_wo.weight.weight, first_, threads_, stop_);
  const Packed wi = products_.turned(2 * inter, hidden, l.wi.weight.weight, second_, threads_, stop_);
  for (const Slice& slice : by_block_) {
    float* d = d_result + slice.first * hidden;
    float *u = kept.wi.floats(0) + slice.first * 2 * inter, *middle = kept.middle.floats(0) + slice.first * hidden;
    float *gated = gated_.floats(slice.count * inter), *wide = wide_.floats(slice.count * std::max(hidden, inter));
    rowwise(slice.count, [&](std::size_t first, std::size_t count) {
      k_.glu(count, inter, plan.activation, u + first * 2 * inter, 2 * inter, gated + first * inter, inter);
    });
    linear_back(slice.blocks, l.mlp_wo, hidden, inter, d, gated);
    products_.back(mlp_wo, slice.count, d, wide, threads_, stop_);
    rowwise(slice.count, [&](std::size_t first, std::size_t count) {
      a_.glu(count, inter, plan.activation, wide + first * inter, u + first * 2 * inter, u + first * 2 * inter);
    });
    if (l.wi.weight.gradient || l.wi.bias.gradient) {
      float* normed = normed_.floats(slice.count * hidden);
      norm(slice.count, l.mlp_norm, middle, normed);
      linear_back(slice.blocks, l.wi, 2 * inter, hidden, u, normed);
    }
    products_.back(wi, slice.count, u, wide, threads_, stop_);
    norm_back(slice.norm_blocks, l.mlp_norm, wide, middle, d, d);
  }

  // attn.Wo, attention, RoPE, Wqkv, attn_norm (none in layer 0)
  const Rotary& table = table_of(i);
  const std::size_t angles = (positions_.empty() ? longest_ : total_) * (head_dim() / 2);
  float* negative = negative_.floats(angles);
  std::transform(table.sin(), table.sin() + angles, negative, [](float x) { return -x; });
  const bool normed_input = l.attn_norm.weight.weight;
  const Packed wo = products_.turned(hidden, hidden, l.wo.weight.weight, first_, threads_, stop_);
  const Packed wqkv = products_.turned(3 * hidden, hidden, l.wqkv.weight.weight, second_, threads_, stop_);
  for (const Slice& slice : by_sequence_) {
    float* d = d_result + slice.first * hidden;
    const float *x = inputs_[i].floats(0) + slice.first * hidden, *joined = kept.joined.floats(0) + slice.first * hidden;
    float *qkv = kept.qkv.floats(0) + slice.first * 3 * hidden, *wide = wide_.floats(slice.count * hidden);
    linear_back(slice.blocks, l.wo, hidden, hidden, d, joined);
    products_.back(wo, slice.count, d, wide, threads_, stop_);
    attend_back(i, slice, wide, qkv);
    rotate(slice, qkv, table.cos(), negative);
    if (l.wqkv.weight.gradient || l.wqkv.bias.gradient) {
      float* normed = normed_input ? normed_.floats(slice.count * hidden) : nullptr;
      if (normed_input) norm(slice.count, l.attn_norm, x, normed);
      linear_back(slice.blocks, l.wqkv, 3 * hidden, hidden, qkv, normed_input ? normed : x);
    }
    products_.back(wqkv, slice.count, qkv, wide, threads_, stop_);
    if (normed_input) {
      norm_back(slice.norm_blocks, l.attn_norm, wide, x, d, d);
      continue;
    }
    rowwise(slice.count, [&](std::size_t first, std::size_t count) {
      for (std::size_t j = first * hidden; j < (first + count) * hidden; ++j) d[j] += wide[j];
    });
  }
}

// Through the norm, to rows that wait for `finish`.
void Passes::embed_back(float* d) {
  const std::size_t hidden = plan.hidden;
  float* x = normed_.floats(total_ * hidden);
  rowwise(total_, [&](std::size_t first, std::size_t count) {
    for (std::size_t t = first; t < first + count; ++t) {
      std::copy_n(p_.embedding.weight + static_cast<std::size_t>(ids_[t]) * hidden, hidden, x + t * hidden);
      if (!plan.types) continue;
      const std::size_t type = types_.empty() ? 0 : static_cast<std::size_t>(types_[t]);
      for (std::size_t i = 0; i < hidden; ++i) x[t * hidden + i] += p_.types.weight[type * hidden + i];
    }
  });
  norm_back(p_.embedding_norm, d, x, d);
  if (!p_.embedding.gradient && !p_.types.gradient) return;
  // Both or neither: there may be no memory for one of them.
  const auto room = [](auto& v, std::size_t more) {
    if (v.capacity() - v.size() < more) v.reserve(std::max(v.size() + more, 2 * v.capacity()));
  };
  room(rows_, total_), room(d_rows_, total_ * hidden);
  for (std::size_t t = 0; t < total_; ++t) rows_.push_back({ids_[t], types_.empty() ? 0 : types_[t]});
  d_rows_.insert(d_rows_.end(), d, d + total_ * hidden);
}

void Passes::finish(int threads) {
  const std::size_t hidden = plan.hidden;
  parallel_for(std::clamp(threads, 1, kMaxThreads), ceil_div(hidden, kScattered), [&](std::size_t task, int) {
    const std::size_t first = task * kScattered, end = std::min(hidden, first + kScattered);
    for (std::size_t t = 0; t < rows_.size(); ++t) {
      const float* d = d_rows_.data() + t * hidden;
      const auto add = [&](float* table, std::int64_t row) {
        float* to = table + static_cast<std::size_t>(row) * hidden;
        for (std::size_t i = first; i < end; ++i) to[i] += d[i];
      };
      if (p_.embedding.gradient) add(p_.embedding.gradient, rows_[t].id);
      if (p_.types.gradient) add(p_.types.gradient, rows_[t].type);
    }
  });
  rows_.clear(), d_rows_.clear();
}

// -- attention ------------------------------------------------------------------------------------

// q and k by their angles, or back.
void Passes::rotate(const Slice& slice, float* qkv, const float* cos, const float* sin) {
  const std::size_t half = head_dim() / 2;
  rowwise(slice.count, [&](std::size_t first, std::size_t count) {
    for (std::size_t t = first; t < first + count; ++t) {
      const std::size_t at = row_[slice.first + t] * half;
      float* x = qkv + t * 3 * plan.hidden;
      for (std::size_t h = 0; h < 2 * plan.heads; ++h, x += 2 * half) k_.rope(2 * half, x, cos + at, sin + at, 1.0f, x);
    }
  });
}

void Passes::attend(std::size_t layer, const Slice& slice, const float* qkv, float* joined) {
  const std::size_t hidden = plan.hidden, heads = plan.heads, ldq = k_.operand_bytes(hidden);
  const std::size_t kv = heads * k_.kv_bytes(slice.slots, head_dim());
  std::byte* q = q_.bytes(products_.operand_room(slice.count, hidden));
  const Heads all{heads, head_dim(), q, ldq, keys_.bytes(kv), values_.bytes(kv), slice.slots, slot_.data() + slice.first,
                  visible_.empty() ? nullptr : visible_.data() + slice.first};
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim()));
  float* scaled = partial_.floats(static_cast<std::size_t>(threads_) * hidden);
  parallel_for(threads_, ceil_div(slice.count, kRowwiseChunk), [&](std::size_t task, int thread) {
    float* own = scaled + static_cast<std::size_t>(thread) * hidden;
    for (std::size_t t = task * kRowwiseChunk; t < std::min(slice.count, (task + 1) * kRowwiseChunk); ++t) {
      const float* x = qkv + t * 3 * hidden;
      for (std::size_t i = 0; i < hidden; ++i) own[i] = x[i] * scale;
      k_.place_qkv(all, t, own, x + hidden, x + 2 * hidden);
    }
  }, stop_);
  const std::size_t room = round_up(k_.scratch_bytes(hidden, head_dim()), 64);
  std::byte* scratch = scratch_.bytes(static_cast<std::size_t>(threads_) * room);
  struct Task {
    std::size_t sequence, head, first;
  };
  std::vector<Task> tasks;
  for (std::size_t s = 0; s < slice.sequences.size(); ++s)
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t first = 0; first < slice.sequences[s].length; first += k_.query_block) tasks.push_back({s, h, first});
  const std::size_t parts = attention_parts(k_, tasks.size(), 1, threads_);
  parallel_for(threads_, tasks.size() * parts, [&](std::size_t task, int thread) {
    const Task& t = tasks[task / parts];
    Sequence sequence = slice.sequences[t.sequence];
    sequence.window = plan.layers[layer].window;
    k_.attention(all, sequence, t.head, t.first, task % parts, parts, scratch + static_cast<std::size_t>(thread) * room);
  }, stop_);
  rowwise(slice.count, [&](std::size_t first, std::size_t count) {
    k_.from_operand(count, hidden, q + first * ldq, ldq, joined + first * hidden, hidden);
  });
}

// d of the joined heads; q, k, v become their gradients.
void Passes::attend_back(std::size_t layer, const Slice& slice, const float* d, float* qkv) {
  const std::size_t hidden = plan.hidden, width = head_dim();
  const std::ptrdiff_t window = plan.layers[layer].window;
  std::size_t most = 0;
  for (const Sequence& s : slice.sequences) most = std::max(most, a_.attention_floats(s.length, width, window));
  const std::size_t room = round_up(most, 16);
  float* scratch = scratch_.floats(static_cast<std::size_t>(threads_) * room);
  const unsigned char* visible = visible_.empty() ? nullptr : visible_.data() + slice.first;
  parallel_for(threads_, slice.sequences.size() * plan.heads, [&](std::size_t task, int thread) {
    const Sequence& s = slice.sequences[task / plan.heads];
    const std::size_t head = task % plan.heads;
    float* q = qkv + s.first * 3 * hidden + head * width;
    a_.attention({s.length, width, window, 1.0f / std::sqrt(static_cast<float>(width)), q, q + hidden, q + 2 * hidden,
                  3 * hidden, visible ? visible + s.first : nullptr, d + s.first * hidden + head * width, hidden, q,
                  q + hidden, q + 2 * hidden, 3 * hidden},
                 scratch + static_cast<std::size_t>(thread) * room);
  }, stop_);
}

const Rotary& Passes::table_of(std::size_t layer) const {
  const double theta = plan.layers[layer].theta;
  return *std::find_if(tables_.begin(), tables_.end(), [&](const Rotary& t) { return t.theta == theta; });
}

// -- what the steps are made of -------------------------------------------------------------------

template <class F>
void Passes::rowwise(std::size_t rows, F f) {
  parallel_for(threads_, ceil_div(rows, kRowwiseChunk), [&](std::size_t task, int) {
    const std::size_t first = task * kRowwiseChunk;
    f(first, std::min(kRowwiseChunk, rows - first));
  }, stop_);
}

void Passes::norm(std::size_t rows, const NormParameters& n, const float* x, float* y) {
  const std::size_t hidden = plan.hidden;
  rowwise(rows, [&](std::size_t first, std::size_t count) {
    k_.layer_norm(count, hidden, x + first * hidden, hidden, n.weight.weight, n.bias.weight, plan.norm_eps,
                  y + first * hidden, hidden);
  });
}

// LN(x), or x itself, as operands.
const std::byte* Passes::norm_operands(std::size_t rows, const NormParameters* n, const float* x) {
  if (!n) return products_.operands(rows, plan.hidden, x, threads_, stop_);
  const std::size_t hidden = plan.hidden, ld = k_.operand_bytes(hidden);
  std::byte* y = q_.bytes(products_.operand_room(rows, hidden));
  rowwise(rows, [&](std::size_t first, std::size_t count) {
    k_.norm_operand(count, hidden, x + first * hidden, hidden, n->weight.weight, n->bias.weight, plan.norm_eps,
                    y + first * ld, ld);
  });
  return y;
}

// dx = residual + the norm's adjoint; its gradients are summed block by block.
void Passes::norm_back(const Blocks& blocks, const NormParameters& n, const float* dy, const float* x,
                       const float* residual, float* dx) {
  const std::size_t hidden = plan.hidden;
  float* sums = partial_.floats(blocks.size() * 2 * hidden);
  parallel_for(threads_, blocks.size(), [&](std::size_t task, int) {
    const std::size_t first = blocks[task].first * hidden;
    float* own = sums + task * 2 * hidden;
    a_.layer_norm(blocks[task].count, hidden, dy + first, x + first, n.weight.weight, plan.norm_eps,
                  residual ? residual + first : nullptr, dx + first, own, own + hidden);
  }, stop_);
  const auto add = [&](float* gradient, std::size_t from) {
    if (gradient)
      for (std::size_t b = 0; b < blocks.size(); ++b)
        for (std::size_t i = 0; i < hidden; ++i) gradient[i] += sums[b * 2 * hidden + from + i];
  };
  add(n.weight.gradient, 0), add(n.bias.gradient, hidden);
}

void Passes::norm_back(const NormParameters& n, const float* dy, const float* x, float* dx) {
  for (const Slice& slice : by_block_) {
    const std::size_t at = slice.first * plan.hidden;
    norm_back(slice.norm_blocks, n, dy + at, x + at, nullptr, dx + at);
  }
}

void Passes::linear(const Packed& w, std::size_t rows, const std::byte* x, const Parameter& bias, const float* residual,
                    float* y) {
  products_.forward(w, rows, x, bias.weight, residual, y, threads_, stop_);
}

void Passes::linear_back(const Blocks& blocks, const LinearParameters& l, std::size_t n, std::size_t depth,
                         const float* dy, const float* x) {
  if (l.weight.gradient) products_.outer(blocks, n, depth, dy, x, l.weight.gradient, threads_, stop_);
  if (l.bias.gradient) add_rows(blocks, n, dy, l.bias.gradient);
}

}  // namespace refimpl
