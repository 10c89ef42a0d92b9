#include "engine/sentence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/pool.h"
#include "engine/tasks.h"

namespace refimpl {
namespace {

constexpr float kShortest = 1e-12f;  // torch.nn.functional.normalize's default

// Of one sequence.
std::vector<Pooled> pooled_tokens(const Batch& batch, std::size_t sequence, std::size_t left_out) {
  std::vector<Pooled> found;
  std::size_t position = 0;  // 0 until a token is visible
  for (std::size_t t = batch.cu_seqlens[sequence]; t < batch.cu_seqlens[sequence + 1]; ++t) {
    const bool visible = !batch.visible || batch.visible[t];
    if (visible || position) ++position;
    if (visible && position > left_out) found.push_back({t, position});
  }
  return found;
}

void largest(const std::vector<Pooled>& tokens, std::size_t n, const float* hidden, float* out) {
  std::fill(out, out + n, -std::numeric_limits<float>::infinity());
  for (const Pooled& p : tokens)
    for (std::size_t i = 0; i < n; ++i) {
      const float x = hidden[p.token * n + i];
      if (!(x <= out[i])) out[i] = out[i] != out[i] ? out[i] : x;  // NaN stays
    }
}

// sum_j w_j h_j / divisor; products are exact in double.
void weighted(const std::vector<Pooled>& tokens, Pooling how, std::size_t n, const float* hidden, double* sums,
              float* out) {
  std::fill(sums, sums + n, 0.0);
  double weights = 0.0;
  for (const Pooled& p : tokens) {
    const double w = how == Pooling::weightedmean ? static_cast<double>(p.position) : 1.0;
    weights += w;
    for (std::size_t i = 0; i < n; ++i) sums[i] += w * static_cast<double>(hidden[p.token * n + i]);
  }
  const double divisor = how == Pooling::mean_sqrt_len_tokens ? std::sqrt(weights) : weights;
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<float>(sums[i] / divisor);
}

}  // namespace

SentenceHead::SentenceHead(const Kernels& kernels, std::size_t hidden, const std::vector<ModulePlan>& plan, int threads)
    : k_(kernels), hidden_(hidden), width_(hidden) {
  for (const ModulePlan& given : plan) {
    Module module{given, {}, {}, {}};
    if (given.kind == ModulePlan::Kind::pooling) width_ = hidden * given.modes.size();
    if (given.kind == ModulePlan::Kind::layer_norm) module.norm = make_norm(width_, given.weight, given.bias);
    if (given.kind == ModulePlan::Kind::dense) {
      const Packing packing{given.width, width_, 0};
      module.packed = Memory(kernels.packed_bytes(packing));
      module.dense = make_linear(kernels, threads, packing, given.weight, given.bias, module.packed.data());
      width_ = given.width;
    }
    module.plan.weight = module.plan.bias = {};
    modules_.push_back(std::move(module));
  }
}

Floats SentenceHead::pool(const ModulePlan& plan, const Batch& batch, const float* hidden,
                          std::size_t prompt_tokens) const {
  const std::size_t sequences = batch.cu_seqlens.size() - 1;
  Floats out(sequences * plan.modes.size() * hidden_);
  std::vector<double> sums(hidden_);
  float* y = out.data();
  for (std::size_t s = 0; s < sequences; ++s) {
    const std::vector<Pooled> tokens = pooled_tokens(batch, s, plan.include_prompt ? 0 : prompt_tokens);
    for (const Pooling mode : plan.modes) {
      if (tokens.empty()) {
      } else if (mode == Pooling::first) {
        std::copy_n(hidden + batch.cu_seqlens[s] * hidden_, hidden_, y);
      } else if (mode == Pooling::cls || mode == Pooling::lasttoken) {
        const Pooled& one = mode == Pooling::cls ? tokens.front() : tokens.back();
        std::copy_n(hidden + one.token * hidden_, hidden_, y);
      } else if (mode == Pooling::max) {
        largest(tokens, hidden_, hidden, y);
      } else {
        weighted(tokens, mode, hidden_, hidden, sums.data(), y);
      }
      y += hidden_;
    }
  }
  return out;
}

Floats SentenceHead::dense(const Module& module, std::size_t rows, const Floats& x, int threads) const {
  const Linear& l = module.dense;
  const std::size_t n = l.packing.n, k = l.packing.k, ld = k_.operand_bytes(k), scratch_bytes = k_.scratch_bytes(k, 2);
  Memory in((rows + k_.row_block - 1) * ld), scratch(static_cast<std::size_t>(threads) * scratch_bytes);
  k_.to_operand(rows, k, x.data(), k, in.data(), ld);
  const Gemm g{l.packing, l.packed, l.bias.empty() ? nullptr : l.bias.data(), in.data(), ld};
  // act(u) * 1 is the kernels' glu, with ones where it has its second half.
  Floats u(rows * 2 * n, 1.0f), y(rows * n);
  const Tasks tasks(k_, l.packing, rows, threads);
  parallel_for(threads, tasks.count(), [&](std::size_t task, int thread) {
    k_.project(g, nullptr, 0, u.data(), 2 * n, tasks[task],
               scratch.data() + static_cast<std::size_t>(thread) * scratch_bytes);
  });
  k_.glu(rows, n, module.plan.activation, u.data(), 2 * n, y.data(), n);
  return y;
}

void SentenceHead::normalize(std::size_t rows, std::size_t width, float* x) {
  for (std::size_t r = 0; r < rows; ++r, x += width) {
    double squares = 0.0;
    for (std::size_t i = 0; i < width; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const float length = std::max(static_cast<float>(std::sqrt(squares)), kShortest);
    for (std::size_t i = 0; i < width; ++i) x[i] /= length;
  }
}

Floats SentenceHead::run(const Batch& batch, const float* hidden, std::size_t prompt_tokens, int threads) const {
  const std::size_t rows = batch.cu_seqlens.size() - 1;
  Floats x;
  for (const Module& module : modules_) {
    switch (module.plan.kind) {
      case ModulePlan::Kind::pooling: x = pool(module.plan, batch, hidden, prompt_tokens); break;
      case ModulePlan::Kind::dense:
        if (rows) x = dense(module, rows, x, threads);
        break;
      case ModulePlan::Kind::layer_norm: {
        const std::size_t n = module.norm.weight.size();
        k_.layer_norm(rows, n, x.data(), n, module.norm.weight.data(),
                      module.norm.bias.empty() ? nullptr : module.norm.bias.data(), module.plan.eps, x.data(), n);
        break;
      }
      case ModulePlan::Kind::normalize: normalize(rows, rows ? x.size() / rows : 0, x.data()); break;
    }
  }
  return x;
}

}  // namespace refimpl
