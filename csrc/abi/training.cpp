// Training: every argument checked, then the passes, the rows and the updates.
#include "modernbert_training.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>

#include "abi/model.h"
#include "base/pool.h"
#include "kernels/activations.h"
#include "training/heads.h"
#include "training/passes.h"
#include "training/update.h"

using namespace refimpl;

struct modernbert_training {
  Choice choice;
  std::unique_ptr<Passes> passes;
  std::atomic<bool> busy{false};
};

namespace {

// The caller's parameters by name: each of the model's, of its shape, once.
std::map<std::string, Parameter> parameters_of(const Config& config, const modernbert_parameter* given,
                                               std::size_t count) {
  const auto listed = encoder_shapes(config);
  const std::map<std::string, Shape> shapes(listed.begin(), listed.end());
  std::map<std::string, Parameter> out;
  if (count) not_null(given, "parameters");
  for (std::size_t i = 0; i < count; ++i) {
    const modernbert_parameter& p = given[i];
    const std::string name = &not_null(p.name, "a parameter's name"), shown = "parameter '" + name + "'";
    const auto shape = shapes.find(name);
    if (shape == shapes.end()) refuse(shown + " belongs to no part of the encoder");
    if (p.rank < 0 || static_cast<std::size_t>(p.rank) != shape->second.size() || !p.shape ||
        !std::equal(shape->second.begin(), shape->second.end(), p.shape,
                    [](std::uint64_t n, std::int64_t m) { return m >= 0 && n == static_cast<std::uint64_t>(m); }))
      refuse(shown + " has another shape than " + shape_text(shape->second));
    if (!p.weight) refuse(shown + " has no weight");
    for (const float* data : {p.weight, static_cast<const float*>(p.gradient)})
      if (reinterpret_cast<std::uintptr_t>(data) % sizeof(float)) refuse(shown + " is not aligned as its elements");
    if (!out.emplace(name, Parameter{p.weight, p.gradient}).second) refuse(shown + " is given twice");
  }
  for (const auto& [name, shape] : shapes)
    if (name.compare(name.size() - 5, 5, ".bias") != 0 && !out.count(name)) refuse("parameter '" + name + "' is missing");
  return out;
}

Parameters placed(const std::map<std::string, Parameter>& given, std::size_t layers) {
  const auto get = [&](const std::string& name) {
    const auto found = given.find(name);
    return found == given.end() ? Parameter{} : found->second;
  };
  const auto both = [&](const std::string& name) { return NormParameters{get(name + ".weight"), get(name + ".bias")}; };
  const auto linear = [&](const std::string& name) {
    return LinearParameters{get(name + ".weight"), get(name + ".bias")};
  };
  Parameters out{get("embeddings.tok_embeddings.weight"), get("embeddings.token_type_embeddings.weight"),
                 both("embeddings.norm"), both("final_norm"), {}};
  for (std::size_t i = 0; i < layers; ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    out.layers.push_back({both(at + "attn_norm"), both(at + "mlp_norm"), linear(at + "attn.Wqkv"),
                          linear(at + "attn.Wo"), linear(at + "mlp.Wi"), linear(at + "mlp.Wo")});
  }
  return out;
}

// Products of training are of float32 tensors, which int8 would have to quantize anew each time.
const char* trained_in(const char* dtype) {
  if (dtype && std::string(dtype) == "int8") refuse("dtype is 'int8'; training computes in float32, bf16x3 or bfloat16");
  return dtype;
}

modernbert_run run_given(const modernbert_run* run) {
  modernbert_run how{};
  if (run) how = sized(run, "run");
  how.threads = threads_of(how.threads, default_threads());
  return how;
}

std::function<bool()> stop_of(const modernbert_run& how) {
  if (!how.interrupt) return {};
  return [how] { return how.interrupt(how.user) != 0; };
}

// f(passes) while nothing else uses them: neither another thread, nor the callback of a run that is under way.
template <class F>
void alone(modernbert_training* training, F f) {
  if (not_null(training, "training").busy.exchange(true)) refuse("training is in use by another call");
  const std::unique_ptr<std::atomic<bool>, void (*)(std::atomic<bool>*)> held(
      &training->busy, [](std::atomic<bool>* busy) { busy->store(false); });
  f(*training->passes);
}

// -- rows -----------------------------------------------------------------------------------------

constexpr std::int64_t kMaxWindow = std::int64_t{1} << 40;

void check_sizes(std::initializer_list<std::size_t> sizes, std::initializer_list<std::size_t> least_one) {
  std::size_t product = 1;
  for (const std::size_t n : sizes)
    if (__builtin_mul_overflow(product, std::max<std::size_t>(n, 1), &product) || product > kMaxElements)
      refuse("sizes are larger than any memory");
  for (const std::size_t n : least_one)
    if (n == 0) refuse("a size that must be at least 1 is 0");
}

template <class... T>
void all_there(const T*... pointers) {
  if (!(pointers && ...)) refuse("an array is NULL");
}

Blocks blocks_given(const std::int64_t* ends, std::size_t sequences, std::size_t rows, std::size_t most) {
  if (sequences) not_null(ends, "ends");
  std::vector<std::size_t> checked;
  std::int64_t last = 0;
  for (std::size_t i = 0; i < sequences; ++i) {
    if (ends[i] < last)
      refuse("ends[" + std::to_string(i) + "] is " + std::to_string(ends[i]) + "; it must be at least " +
             std::to_string(last));
    checked.push_back(static_cast<std::size_t>(last = ends[i]));
  }
  if (static_cast<std::size_t>(last) != rows)
    refuse("ends stop at " + std::to_string(last) + "; there are " + std::to_string(rows) + " rows");
  return blocks_of(checked.data(), checked.size(), most);
}

Tier tier_given(const char* tier) { return named_tier(&not_null(tier, "tier")); }

Products products_of(const char* tier, const char* dtype) {
  const Kernels& kernels = kernels_named(tier, trained_in(dtype));
  return Products(kernels, adjoints_of(named_tier(tier), named_dtype(dtype)));
}

int at_least_one(int threads) {
  if (threads < 1) refuse("threads is " + std::to_string(threads) + "; it must be at least 1");
  return std::min(threads, kMaxThreads);
}

Activation activation_given(const char* given) {
  const std::string name = &not_null(given, "activation");
  Activation found;
  if (!named_activation(name, found)) refuse("activation '" + name + "' is unknown; supported: " + activation_names());
  return found;
}

Rule rule_given(const modernbert_update* update, bool stable) {
  const modernbert_update& u = sized(update, "update");
  const auto within = [](const char* name, double x, bool right) {
    if (!right) refuse(std::string("update->") + name + " is " + std::to_string(x) + ", which is out of its range");
  };
  within("lr", u.lr, std::isfinite(u.lr) && u.lr >= 0.0), within("eps", u.eps, std::isfinite(u.eps) && u.eps > 0.0);
  within("weight_decay", u.weight_decay, std::isfinite(u.weight_decay) && u.weight_decay >= 0.0);
  within("beta1", u.beta1, u.beta1 >= 0.0 && u.beta1 < 1.0), within("beta2", u.beta2, u.beta2 >= 0.0 && u.beta2 < 1.0);
  if (stable) within("peak", u.peak, std::isfinite(u.peak) && u.peak > 0.0);
  within("step", static_cast<double>(u.step), u.step >= 1);
  return {u.lr, u.weight_decay, u.eps, u.beta1, u.beta2, u.peak, static_cast<double>(u.step)};
}

}  // namespace

extern "C" {

int modernbert_training_create(const modernbert_config* config, const modernbert_parameter* parameters, size_t count,
                               const char* tier_cap, const char* dtype, modernbert_training** training) {
  return guarded([&] {
    not_null(training, "training");
    const Config c = config_given(sized(config, "config"));
    auto made = std::make_unique<modernbert_training>();
    made->choice = best_choice(tier_cap, trained_in(dtype));
    made->passes = std::make_unique<Passes>(
        *made->choice.kernels, adjoints_of(named_tier(made->choice.tier), named_dtype(dtype)), plan_of(c),
        placed(parameters_of(c, parameters, count), c.layers.size()));
    *training = made.release();
  });
}

void modernbert_training_close(modernbert_training* training) { delete training; }

const char* modernbert_training_tier(const modernbert_training* training) {
  return training ? training->choice.tier : "";
}

int modernbert_training_forward(modernbert_training* training, const modernbert_input* input, size_t recomputed,
                                const modernbert_run* run, float* out, size_t out_count) {
  return guarded([&] {
    alone(training, [&](Passes& passes) {
      const modernbert_run how = run_given(run);
      const Batch batch = batch_of(passes.plan, sized(input, "input"));
      if (!batch.ids) refuse("input->ids is NULL; training reads its embeddings itself");
      check_out(out, out_count, "tokens", batch.cu_seqlens.back(), passes.plan.hidden);
      if (!passes.forward(batch, recomputed, how.threads, stop_of(how), out)) throw Interrupted{};
    });
  });
}

int modernbert_training_backward(modernbert_training* training, int64_t part, const float* d, size_t d_count,
                                 const modernbert_run* run) {
  return guarded([&] {
    alone(training, [&](Passes& passes) {
      const modernbert_run how = run_given(run);
      const std::ptrdiff_t next = passes.next();
      if (next == Passes::kNone) refuse("there was no forward pass since the last way back");
      if (part != next) refuse("part is " + std::to_string(part) + "; the next one is " + std::to_string(next));
      const bool first = part == static_cast<std::int64_t>(passes.plan.layers.size());
      const std::size_t wanted = first ? passes.total() * passes.plan.hidden : 0;
      if (d_count != wanted) refuse("d_count is " + std::to_string(d_count) + "; it must be " + std::to_string(wanted));
      if (wanted) not_null(d, "d");
      if (!passes.backward(next, d, how.threads, stop_of(how))) throw Interrupted{};
    });
  });
}

int modernbert_training_finish(modernbert_training* training, int threads) {
  return guarded([&] {
    alone(training, [&](Passes& passes) { passes.finish(threads_of(threads, default_threads())); });
  });
}

int modernbert_rows_linear(const char* tier, const char* dtype, int threads, size_t m, size_t n, size_t k,
                           const float* x, const float* weight, const float* bias, float* y) {
  return guarded([&] {
    Products products = products_of(tier, dtype);
    threads = at_least_one(threads);
    check_sizes({m, n, k}, {k}), all_there(x, weight, y);
    if (!m) return;
    Room room;
    const Packed w = products.packed(n, k, weight, room, threads, nullptr);
    products.forward(w, m, products.operands(m, k, x, threads, nullptr), bias, nullptr, y, threads, nullptr);
  });
}

int modernbert_rows_linear_adjoint(const char* tier, const char* dtype, int threads, const int64_t* ends,
                                   size_t sequences, size_t m, size_t n, size_t k, const float* dy, const float* x,
                                   const float* weight, float* dx, float* dw, float* db) {
  return guarded([&] {
    Products products = products_of(tier, dtype);
    threads = at_least_one(threads);
    check_sizes({m, n, k}, {n, k}), all_there(dy, x, weight);
    const Blocks blocks = blocks_given(ends, sequences, m, kSummed);
    Room room;
    if (dx && m) products.back(products.turned(n, k, weight, room, threads, nullptr), m, dy, dx, threads, nullptr);
    if (dw) products.outer(blocks, n, k, dy, x, dw, threads, nullptr);
    if (db) add_rows(blocks, n, dy, db);
  });
}

int modernbert_rows_cross_entropy(const char* tier, const char* dtype, int threads, const int64_t* ends,
                                  size_t sequences, size_t m, size_t n, size_t k, const float* x, const float* weight,
                                  const float* bias, const int64_t* labels, float smoothing, float share,
                                  double* losses, float* dx, float* dw, float* db) {
  return guarded([&] {
    Products products = products_of(tier, dtype);
    threads = at_least_one(threads);
    check_sizes({m, n, k}, {n, k}), all_there(x, weight, labels, losses, dx);
    for (std::size_t i = 0; i < m; ++i)
      if (labels[i] < 0 || static_cast<std::uint64_t>(labels[i]) >= n)
        refuse("labels[" + std::to_string(i) + "] is " + std::to_string(labels[i]) + "; it must be in 0 .. " +
               std::to_string(n - 1));
    if (!(smoothing >= 0.0f && smoothing < 1.0f))
      refuse("smoothing is " + std::to_string(smoothing) + "; it must be in [0, 1)");
    cross_entropy(products, blocks_given(ends, sequences, m, kSummed), {n, k, weight, bias}, x, labels, smoothing,
                  share, losses, dx, dw, db, threads);
  });
}

int modernbert_rows_layer_norm_adjoint(const char* tier, const int64_t* ends, size_t sequences, size_t rows, size_t n,
                                       const float* dy, const float* x, const float* weight, float eps, float* dx,
                                       float* dw, float* db) {
  return guarded([&] {
    const Adjoints& a = adjoints_of(tier_given(tier));
    check_sizes({rows, n}, {n}), all_there(dy, x, weight, dx, dw);
    std::vector<float> sums(2 * n);
    for (const RowBlock& block : blocks_given(ends, sequences, rows, kNormed)) {
      const std::size_t at = block.first * n;
      a.layer_norm(block.count, n, dy + at, x + at, weight, eps, nullptr, dx + at, sums.data(), sums.data() + n);
      for (std::size_t i = 0; i < n; ++i) dw[i] += sums[i];
      for (std::size_t i = 0; db && i < n; ++i) db[i] += sums[n + i];
    }
  });
}

int modernbert_rows_glu_adjoint(const char* tier, const char* activation, size_t rows, size_t inter, const float* dy,
                                const float* u, float* du) {
  return guarded([&] {
    const Adjoints& a = adjoints_of(tier_given(tier));
    const Activation act = activation_given(activation);
    check_sizes({rows, 2, inter}, {inter}), all_there(dy, u, du);
    a.glu(rows, inter, act, dy, u, du);
  });
}

int modernbert_rows_attention_adjoint(const char* tier, const char* dtype, size_t seq, size_t heads, size_t head_dim,
                                      int64_t window, const float* dy, const float* q, const float* k, const float* v,
                                      const unsigned char* visible, float* dq, float* dk, float* dv) {
  return guarded([&] {
    const Adjoints& a = adjoints_of(tier_given(tier), named_dtype(trained_in(dtype)));
    check_sizes({seq, heads, head_dim}, {head_dim}), all_there(dy, q, k, v, dq, dk, dv);
    window = window < 0 ? -1 : std::min(window, kMaxWindow);
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    Memory scratch(a.attention_floats(seq, head_dim, window) * sizeof(float));
    for (std::size_t h = 0; h < (seq ? heads : 0); ++h) {
      const std::size_t at = h * head_dim, ld = heads * head_dim;
      a.attention({seq, head_dim, window, scale, q + at, k + at, v + at, ld, visible, dy + at, ld, dq + at, dk + at,
                   dv + at, ld},
                  scratch.floats());
    }
  });
}

int modernbert_adamw(const char* tier, int threads, const modernbert_update* update, size_t n, float* p, const float* g,
                     float* m, float* v) {
  return guarded([&] {
    const Adjoints& a = adjoints_of(tier_given(tier));
    const Rule rule = rule_given(update, false);
    check_sizes({n}, {}), all_there(p, g, m, v);
    adamw(a, at_least_one(threads), rule, n, p, g, m, v);
  });
}

int modernbert_stable_adamw(const char* tier, int threads, const modernbert_update* update, size_t n, float* p,
                            const float* g, float* m, float* v) {
  return guarded([&] {
    const Adjoints& a = adjoints_of(tier_given(tier));
    const Rule rule = rule_given(update, true);
    check_sizes({n}, {}), all_there(p, g, m, v);
    stable_adamw(a, at_least_one(threads), rule, n, p, g, m, v);
  });
}

int modernbert_all_finite(int threads, size_t n, const float* x, int* finite) {
  return guarded([&] {
    threads = at_least_one(threads);
    check_sizes({n}, {}), all_there(x, finite);
    *finite = all_finite(threads, n, x);
  });
}

int modernbert_clear(int threads, size_t n, float* x) {
  return guarded([&] {
    threads = at_least_one(threads);
    check_sizes({n}, {}), all_there(x);
    clear(threads, n, x);
  });
}

}  // extern "C"
