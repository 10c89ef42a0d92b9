// A whole encoder of three layers against MODEL.md in plain loops.
//
// Truth is the evaluation in double. What a legitimate one in float32 may be off by is measured: the
// same loops in float, which round operands as the kernels do, with the sums in several orders. The
// engine may show twice the worst of these, as everywhere in tests/ (budget.py says why).
#pragma once

#include <malloc.h>

#include <memory>
#include <thread>

#include "cases.h"
#include "base/pool.h"
#include "engine/engine.h"
#include "engine/tasks.h"

namespace driver {

// Tasks of attention, of one sequence, that have something to do: a part of a block of queries is a register
// tile of rows at least.
inline std::size_t attention_tasks(const Kernels& k, std::size_t length, std::size_t heads, int threads) {
  const std::size_t blocks = ceil_div(length, k.query_block), parts = attention_parts(k, blocks, heads, threads);
  std::size_t tasks = 0;
  for (std::size_t first = 0; first < length; first += k.query_block)
    tasks += std::min(parts, ceil_div(std::min(length - first, k.query_block), k.query_block / k.query_parts));
  return tasks * heads;
}

constexpr double kFactor = 2;
constexpr std::size_t kOrders = 4;

struct Model {
  Plan plan;
  std::vector<std::unique_ptr<Weight>> weights;
  const Weight *embedding, *types;  // types may be null
  const Weight *embedding_norm, *final_norm, *final_bias;
  struct Layer {
    const Weight *attn_norm, *wqkv, *wqkv_bias, *wo, *mlp_norm, *mlp_bias, *wi, *wi_bias, *mlp_wo;
  };
  std::vector<Layer> layers;

  const Weight* draw(Random& random, std::size_t n, std::size_t k, float scale, float centre = 0) {
    const Storage storage = random.once_in(2) ? Storage::float32 : Storage::bfloat16;
    weights.push_back(std::make_unique<Weight>(random, n, k, storage, scale, centre));
    return weights.back().get();
  }
};

inline Model draw_model(Random& random) {
  const std::size_t head_dim = 2 * random.between(4, 20), heads = random.between(1, 3), hidden = heads * head_dim;
  const std::size_t inter = random.between(20, 90);
  Model m;
  m.plan = {29, hidden, inter, heads, 1e-5f, kActivations[random.below(std::size(kActivations))], {{-1, 160000.0}, {5, 10000.0}, {-1, 160000.0}}};
  const float from_hidden = 1.7f / std::sqrt(static_cast<float>(hidden)), from_inter = 1.7f / std::sqrt(static_cast<float>(inter));
  m.embedding = m.draw(random, 29, hidden, 1);
  m.types = random.once_in(2) ? m.draw(random, 3, hidden, 1) : nullptr;
  m.plan.types = m.types ? 3 : 0;
  m.embedding_norm = m.draw(random, 1, hidden, 0.4f, 1), m.final_norm = m.draw(random, 1, hidden, 0.4f, 1);
  m.final_bias = m.draw(random, 1, hidden, 0.3f);
  for (std::size_t i = 0; i < 3; ++i) {
    Model::Layer l{};
    if (i) l.attn_norm = m.draw(random, 1, hidden, 0.4f, 1);
    l.wqkv = m.draw(random, 3 * hidden, hidden, from_hidden), l.wqkv_bias = m.draw(random, 1, 3 * hidden, 0.3f);
    l.wo = m.draw(random, hidden, hidden, from_hidden);
    l.mlp_norm = m.draw(random, 1, hidden, 0.4f, 1), l.mlp_bias = m.draw(random, 1, hidden, 0.3f);
    l.wi = m.draw(random, 2 * inter, hidden, from_hidden), l.wi_bias = m.draw(random, 1, 2 * inter, 0.3f);
    l.mlp_wo = m.draw(random, hidden, inter, from_inter);
    m.layers.push_back(l);
  }
  return m;
}

inline Weights weights_of(const Model& m) {
  const auto tensor = [](const Weight* w) { return w ? w->tensor() : Tensor{}; };
  Weights all{};
  all.embedding = {tensor(m.embedding), m.plan.hidden}, all.types = tensor(m.types), all.embedding_norm = tensor(m.embedding_norm);
  all.final_norm = tensor(m.final_norm), all.final_norm_bias = tensor(m.final_bias);
  for (const Model::Layer& l : m.layers) {
    LayerWeights w{};
    w.attn_norm = tensor(l.attn_norm), w.wqkv = tensor(l.wqkv), w.wqkv_bias = tensor(l.wqkv_bias), w.wo = tensor(l.wo);
    w.mlp_norm = tensor(l.mlp_norm), w.mlp_norm_bias = tensor(l.mlp_bias);
    w.wi = tensor(l.wi), w.wi_bias = tensor(l.wi_bias), w.mlp_wo = tensor(l.mlp_wo);
    all.layers.push_back(w);
  }
  return all;
}

// MODEL.md in T. An `order` other than 0 sums from another end or in several parts. In float, what
// enters a product is rounded as the kernels round it.
template <class T>
class Naive {
 public:
  using Row = std::vector<T>;

  Naive(const Subject& s, const Model& m, std::size_t order) : s(s), m(m), order(order) {}

  std::vector<Row> encode(const Batch& b) const {
    const std::size_t total = b.cu_seqlens.back(), hidden = m.plan.hidden;
    std::vector<Row> x;
    for (std::size_t t = 0; t < total; ++t) {
      const float* row = m.embedding->values.data() + static_cast<std::size_t>(b.ids[t]) * hidden;
      Row sum(row, row + hidden);
      if (m.types)
        for (std::size_t c = 0; c < hidden; ++c)
          sum[c] += m.types->values[(b.types ? static_cast<std::size_t>(b.types[t]) : 0) * hidden + c];
      x.push_back(norm(sum, m.embedding_norm, nullptr));
    }
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
      const Model::Layer& l = m.layers[i];
      std::vector<Row> qkv;
      const auto linear = [&](const Row& row, refimpl::Matrix which, const Weight* w, const Weight* bias) {
        return this->linear(row, w, bias, m.plan.layers[i].kept >> static_cast<unsigned>(which));
      };
      for (const Row& row : x) qkv.push_back(linear(l.attn_norm ? norm(row, l.attn_norm, nullptr) : row, refimpl::Matrix::wqkv, l.wqkv, l.wqkv_bias));
      const std::vector<Row> joined = attention(b, m.plan.layers[i], qkv);
      for (std::size_t t = 0; t < total; ++t) {
        add(x[t], linear(joined[t], refimpl::Matrix::wo, l.wo, nullptr));
        const Row u = linear(norm(x[t], l.mlp_norm, l.mlp_bias), refimpl::Matrix::wi, l.wi, l.wi_bias);
        Row gated(m.plan.inter);
        for (std::size_t c = 0; c < gated.size(); ++c)
          gated[c] = static_cast<T>(activate(m.plan.activation, {static_cast<double>(u[c])}).value) * u[gated.size() + c];
        add(x[t], linear(gated, refimpl::Matrix::mlp_wo, l.mlp_wo, nullptr));
      }
    }
    for (Row& row : x) row = norm(row, m.final_norm, m.final_bias);
    return x;
  }

 private:
  static constexpr bool kExact = sizeof(T) == sizeof(double);

  // To two bfloat16 terms, as three products take a number.
  static float two_terms(float x) {
    const float high = to_float(to_bf16(x));
    return high + to_float(to_bf16(x - high));
  }
  T operand(T x) const {
    if (kExact) return x;
    if (s.dtype == Dtype::bf16x3) return two_terms(static_cast<float>(x));
    return as_operand(s, static_cast<float>(x));
  }
  // Weights that are rounded for good are so in the truth as well.
  T weight(float w) const { return !kExact && s.dtype == Dtype::bf16x3 ? two_terms(w) : as_weight(s, w); }

  template <class F>
  T sum(std::size_t n, F term) const {
    const std::size_t parts = order / 2 + 1;
    T all = 0;
    for (std::size_t part = 0; part < parts; ++part) {
      T some = 0;
      for (std::size_t i = part; i < n; i += parts) some += term(order % 2 ? n - 1 - i : i);
      all += some;
    }
    return all;
  }

  static void add(Row& x, const Row& y) {
    for (std::size_t c = 0; c < x.size(); ++c) x[c] += y[c];
  }

  Row norm(const Row& x, const Weight* weight, const Weight* bias) const {
    const T n = static_cast<T>(x.size());
    const T mean = sum(x.size(), [&](std::size_t i) { return x[i]; }) / n;
    const T variance = sum(x.size(), [&](std::size_t i) { return (x[i] - mean) * (x[i] - mean); }) / n;
    const T scale = 1 / std::sqrt(variance + static_cast<T>(m.plan.norm_eps));
    Row y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) y[i] = (x[i] - mean) * scale * weight->values[i] + (bias ? bias->values[i] : T(0));
    return y;
  }

  // kept: bit 1: in bfloat16, bit 16: in float32
  Row linear(const Row& x, const Weight* w, const Weight* bias, unsigned kept) const {
    Row y(w->n);
    const bool integers = s.dtype == Dtype::int8 && !(kept & 17u);
    if (integers && !kExact) {
      const std::vector<float> row(x.begin(), x.end());
      const Integers of_row(row.data(), row.size(), 127);
      for (std::size_t c = 0; c < w->n; ++c)
        y[c] = product_of(of_row, Integers(w->values.data() + c * w->k, w->k, 63)) + (bias ? bias->values[c] : 0.0f);
      return y;
    }
    const bool narrow = s.dtype == Dtype::int8 && kept & 1u;  // to bfloat16
    for (std::size_t c = 0; c < w->n; ++c)
      y[c] = sum(w->k, [&](std::size_t i) {
        const float v = w->values[c * w->k + i];
        return operand(x[i]) * (narrow ? T(to_float(to_bf16(v))) : weight(v));
      }) + (bias ? bias->values[c] : T(0));
    return y;
  }

  void rotate(T* x, std::size_t position, double theta, T scale) const {
    const std::size_t half = m.plan.hidden / m.plan.heads / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
      const T cos = static_cast<T>(std::cos(angle)), sin = static_cast<T>(std::sin(angle));
      const T a = x[i], c = x[half + i];
      x[i] = operand((a * cos - c * sin) * scale), x[half + i] = operand((c * cos + a * sin) * scale);
    }
  }

  std::vector<Row> attention(const Batch& b, const LayerPlan& plan, std::vector<Row>& qkv) const {
    const std::size_t hidden = m.plan.hidden, d = hidden / m.plan.heads;
    std::vector<Row> out(qkv.size(), Row(hidden, T(0)));
    for (std::size_t n = 0; n + 1 < b.cu_seqlens.size(); ++n) {
      const std::size_t first = b.cu_seqlens[n], last = b.cu_seqlens[n + 1];
      for (std::size_t t = first; t < last; ++t)
        for (std::size_t h = 0; h < hidden; h += d) {
          rotate(qkv[t].data() + h, t - first, plan.theta, 1 / std::sqrt(static_cast<T>(d)));
          rotate(qkv[t].data() + hidden + h, t - first, plan.theta, 1);
        }
      for (std::size_t i = first; i < last; ++i)
        for (std::size_t h = 0; h < hidden; h += d) {
          std::vector<std::size_t> keys;
          Row p;
          for (std::size_t j = first; j < last; ++j) {
            const std::size_t distance = i > j ? i - j : j - i;
            if ((b.visible && !b.visible[j]) || (plan.window >= 0 && distance > static_cast<std::size_t>(plan.window))) continue;
            keys.push_back(j);
            p.push_back(sum(d, [&](std::size_t c) { return qkv[i][h + c] * qkv[j][hidden + h + c]; }));
          }
          if (keys.empty()) continue;
          const T top = *std::max_element(p.begin(), p.end());
          for (T& x : p) x = operand(std::exp(x - top));
          const T all = sum(p.size(), [&](std::size_t j) { return p[j]; });
          for (std::size_t c = 0; c < d; ++c)
            out[i][h + c] = sum(p.size(), [&](std::size_t j) { return p[j] * operand(qkv[keys[j]][2 * hidden + h + c]); }) / all;
        }
    }
    return out;
  }

  const Subject& s;
  const Model& m;
  const std::size_t order;
};

// Mean over tokens of |x - truth| / |truth|.
template <class Row>
inline double off(const std::vector<Row>& x, const std::vector<std::vector<double>>& truth) {
  double all = 0;
  for (std::size_t t = 0; t < truth.size(); ++t) {
    double error = 0, size = 0;
    for (std::size_t c = 0; c < truth[t].size(); ++c) {
      const double e = static_cast<double>(x[t][c]) - truth[t][c];
      error += e * e, size += truth[t][c] * truth[t][c];
    }
    all += std::sqrt(error / size);
  }
  return all / static_cast<double>(truth.size());
}

inline std::vector<std::vector<float>> rows_of(Matrix& x) {
  std::vector<std::vector<float>> rows;
  for (std::size_t r = 0; r < x.rows; ++r) rows.emplace_back(x.row(r), x.row(r) + x.columns);
  return rows;
}

inline void forward_case(const Subject& s, Random& random, Op& op) {
  Model m = draw_model(random);
  if (s.dtype == Dtype::int8)
    for (LayerPlan& l : m.plan.layers) {
      const unsigned some = random.once_in(2) ? static_cast<unsigned>(random.below(16)) : 0;
      const unsigned in_float32 = some & static_cast<unsigned>(random.below(16));
      l.kept = (some & ~in_float32) | in_float32 << 4;
    }
  const std::size_t hidden = m.plan.hidden;
  op.begin(text("hidden %zu, heads %zu, inter %zu, activation %zu", hidden, m.plan.heads, m.plan.inter, static_cast<std::size_t>(m.plan.activation)));
  Batch b{};
  b.cu_seqlens = {0};
  for (const std::size_t length : {random.between(30, 70), std::size_t{1}, std::size_t{0}, random.between(2, 40)})
    b.cu_seqlens.push_back(b.cu_seqlens.back() + length);
  const std::size_t total = b.cu_seqlens.back();
  std::vector<std::int64_t> ids(total), types(total);
  std::vector<unsigned char> visible(total);
  for (std::size_t t = 0; t < total; ++t) {
    ids[t] = static_cast<std::int64_t>(random.below(m.plan.vocab)), types[t] = static_cast<std::int64_t>(random.below(3));
    visible[t] = !random.once_in(4);
  }
  b.ids = ids.data(), b.types = m.types && random.once_in(2) ? types.data() : nullptr, b.visible = random.once_in(2) ? visible.data() : nullptr;

  std::size_t told = 0;
  const auto tell = [&](std::size_t which) { return [&told, which](std::size_t layer) { told += told == 2 * layer + which; }; };
  const Engine engine(s.k, m.plan, weights_of(m), 2, tell(0), tell(1));
  op.must(told == 2 * m.layers.size(), "layers were not told of in order");
  Matrix got(total, hidden), other(total, hidden);
  // From another thread, which has to set up tiles of its own, and on three where there are processors
  // for them: the emulated one does not keep a thread's tiles when another gets its turn.
  const int threads = default_threads() > 1 ? 3 : 1;
  bool ended = false;
  std::thread([&] { ended = engine.forward(b, other.data(), threads, nullptr); }).join();
  op.must(engine.forward(b, got.data(), 1, nullptr) && ended, "stopped by itself");
  op.must(got.same_bits(other), "other bits in another thread, or on several");
  op.must(got.only_entries_written() && other.only_entries_written(), "wrote beyond its rows");

  const std::vector<std::vector<double>> truth = Naive<double>(s, m, 0).encode(b);
  double legitimate = 0;
  for (std::size_t order = 0; order < kOrders; ++order) legitimate = std::max(legitimate, off(Naive<float>(s, m, order).encode(b), truth));
  op.within(off(rows_of(got), truth), {0, kFactor * legitimate}, total, hidden, "mean error of a token");

  // One sequence of 128 tokens has work for 64 threads.
  op.must(attention_tasks(s.k, 128, 12, 64) >= 64, "too few tasks of attention");
  op.must(attention_parts(s.k, 1, 12, 1) == 1 && attention_parts(s.k, 100, 12, 64) == 1, "needless parts");

  // Each of a sequence's tasks is one block, head and part; neighbours share a block or a head.
  const std::size_t n = random.between(2, 9), heads = random.between(2, 12), of = random.between(1, s.k.query_parts);
  for (const bool windowed : {false, true}) {
    std::vector<bool> done(n * heads * of);
    for (std::size_t task = 0; task < done.size(); ++task) {
      const AttentionTask t = attention_task(task, n, heads, of, windowed);
      op.must(t.block < n && t.head < heads && t.part < of, "a task of attention that is none");
      done[(t.block * heads + t.head) * of + t.part] = true;
      op.must((windowed ? t.block : t.head) == task / (windowed ? heads * of : n * of), "neighbours share nothing");
    }
    op.must(std::count(done.begin(), done.end(), true) == static_cast<std::ptrdiff_t>(done.size()), "a task of attention is left out");
  }

  // The first sequence alone, in memory that is full of large numbers where the system's malloc can do that.
#if defined(M_PERTURB)
  mallopt(M_PERTURB, 0x80);
#endif
  Batch one = b;
  one.cu_seqlens = {0, b.cu_seqlens[1]};
  Matrix alone(b.cu_seqlens[1], hidden);
  op.must(engine.forward(one, alone.data(), 1, nullptr) && alone.same_bits(got), "other bits for a sequence alone");
#if defined(M_PERTURB)
  mallopt(M_PERTURB, 0);
#endif
}

}  // namespace driver
