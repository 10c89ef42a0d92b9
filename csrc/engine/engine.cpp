#include "engine/engine.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace refimpl {
namespace {

Linear make_linear(const Kernels& kernels, std::size_t n, std::size_t k, const float* w, const float* bias) {
  Linear l{n, k, Floats(kernels.packed_floats(n, k)), {}};
  kernels.pack(n, k, w, l.packed.data());
  if (bias) l.bias.assign(bias, bias + n);
  return l;
}

Norm make_norm(std::size_t n, const float* weight, const float* bias) {
  Norm norm;
  if (weight) norm.weight.assign(weight, weight + n);
  if (bias) norm.bias.assign(bias, bias + n);
  return norm;
}

const Plan& checked(const Plan& plan, const Weights& weights) {
  if (plan.hidden == 0 || plan.heads == 0 || plan.hidden % plan.heads || plan.hidden / plan.heads % 2)
    throw std::invalid_argument("hidden must be a multiple of heads, with an even head size");
  if (plan.inter == 0) throw std::invalid_argument("inter must be at least 1");
  for (const LayerPlan& layer : plan.layers)
    if (!(layer.theta > 0.0)) throw std::invalid_argument("theta must be positive");
  if (weights.layers.size() != plan.layers.size()) throw std::invalid_argument("weights and plan differ in layers");
  return plan;
}

}  // namespace

Engine::Engine(const Kernels& kernels, Plan given, const Weights& w)
    : kernels(kernels),
      plan(checked(given, w)),
      embedding_(w.embedding),
      embedding_norm_(make_norm(plan.hidden, w.embedding_norm, w.embedding_norm_bias)),
      final_norm_(make_norm(plan.hidden, w.final_norm, w.final_norm_bias)) {
  const std::size_t hidden = plan.hidden, inter = plan.inter;
  layers_.reserve(w.layers.size());
  for (const LayerWeights& l : w.layers)
    layers_.push_back({make_norm(hidden, l.attn_norm, l.attn_norm_bias), make_norm(hidden, l.mlp_norm, l.mlp_norm_bias),
                       make_linear(kernels, 3 * hidden, hidden, l.wqkv, l.wqkv_bias),
                       make_linear(kernels, hidden, hidden, l.wo, l.wo_bias),
                       make_linear(kernels, 2 * inter, hidden, l.wi, l.wi_bias),
                       make_linear(kernels, hidden, inter, l.mlp_wo, l.mlp_wo_bias)});
}

std::size_t Engine::packed_bytes() const {
  std::size_t floats = 0;
  for (const Layer& l : layers_)
    for (const Linear* m : {&l.wqkv, &l.wo, &l.wi, &l.mlp_wo}) floats += m->packed.size() + m->bias.size();
  return floats * sizeof(float);
}

std::size_t Engine::workspace_bytes(std::size_t total, std::size_t batch, int threads) const {
  const std::size_t hidden = plan.hidden, inter = plan.inter;
  const std::size_t wide = std::max(3 * hidden, 2 * inter), narrow = std::max(hidden, inter);
  const std::size_t tokens = total + batch * (kernels.panel - 1);  // keys fill up a panel per sequence
  const std::size_t key_value = head_dim() + padded_width(head_dim(), kernels.panel);
  return sizeof(float) * (total * (3 * hidden + wide + narrow) + tokens * plan.heads * key_value +
                          static_cast<std::size_t>(threads) * kernels.scratch_floats(head_dim()));
}

}  // namespace refimpl
