#include "engine/engine.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/pool.h"
#include "engine/forward.h"

namespace refimpl {
namespace {

// Panels that one task packs.
constexpr std::size_t kPanelsAtATime = 8;
constexpr std::size_t kLine = 64;  // where a packed matrix may start

Floats make_floats(std::size_t n, const Tensor& x) {
  Floats floats(x.data ? n : 0);
  if (x.data) widen(x, 0, n, floats.data());
  return floats;
}

// How the matrices of a layer are packed, as Matrix.
constexpr const char* kNames[] = {"attn.Wqkv.weight", "attn.Wo.weight", "mlp.Wi.weight", "mlp.Wo.weight"};
constexpr Matrix kMatrices[] = {Matrix::wqkv, Matrix::wo, Matrix::wi, Matrix::mlp_wo};

Packing packing_of(const Plan& plan, Matrix matrix) {
  const std::size_t hidden = plan.hidden, inter = plan.inter;
  switch (matrix) {
    case Matrix::wqkv: return {3 * hidden, hidden, hidden / plan.heads};
    case Matrix::wo: return {hidden, hidden, 0};
    case Matrix::wi: return {2 * inter, hidden, 2 * inter};
    case Matrix::mlp_wo: break;
  }
  return {hidden, inter, 0};
}

// Those that pack a matrix of a layer and multiply with it.
const Kernels& kernels_of(const Kernels& kernels, const LayerPlan& layer, Matrix matrix) {
  if (!kernels.to_integers) return kernels;
  const unsigned bit = 1u << static_cast<unsigned>(matrix);
  return layer.kept & bit << 4 ? *kernels.in_float32 : layer.kept & bit ? *kernels.in_bfloat16 : kernels;
}

const Plan& checked(const Kernels& kernels, const Plan& plan, const Weights& weights) {
  if (plan.hidden == 0 || plan.heads == 0 || plan.hidden % plan.heads || plan.hidden / plan.heads % 2)
    throw std::invalid_argument("hidden must be a multiple of heads, with an even head size");
  if (plan.inter == 0) throw std::invalid_argument("inter must be at least 1");
  for (const LayerPlan& layer : plan.layers)
    if (!(layer.theta > 0.0)) throw std::invalid_argument("theta must be positive");
  if (kernels.to_integers && std::max(plan.hidden, plan.inter) > kMostIntegers)
    throw std::invalid_argument("int8 takes hidden and inter up to " + std::to_string(kMostIntegers));
  if (weights.layers.size() != plan.layers.size()) throw std::invalid_argument("weights and plan differ in layers");
  return plan;
}

// Bytes of a packed matrix, to where the next one may start.
std::size_t room(const Kernels& kernels, const Packing& packing) { return round_up(kernels.packed_bytes(packing), kLine); }

}  // namespace

Linear make_linear(const Kernels& kernels, int threads, const Packing& packing, const Tensor& w, const Tensor& bias,
                   std::byte* to) {
  const std::size_t panels = panels_of(packing, kernels.lanes);
  parallel_for(threads, ceil_div(panels, kPanelsAtATime), [&](std::size_t task, int) {
    const std::size_t first = task * kPanelsAtATime;
    kernels.pack(packing, w, first, std::min(panels, first + kPanelsAtATime), to);
  });
  return {&kernels, packing, to, make_floats(packing.n, bias)};
}

Norm make_norm(std::size_t n, const Tensor& weight, const Tensor& bias) {
  return {make_floats(n, weight), make_floats(n, bias)};
}

Engine::Engine(const Kernels& kernels, Plan given, const Weights& w, int threads,
               const std::function<void(std::size_t layer)>& reading,
               const std::function<void(std::size_t layer)>& packed, std::shared_ptr<const PackFile> pack)
    : kernels(kernels),
      plan(checked(kernels, given, w)),
      embedding_(w.embedding),
      types_(make_floats(plan.types * plan.hidden, w.types)),
      embedding_norm_(make_norm(plan.hidden, w.embedding_norm, w.embedding_norm_bias)),
      final_norm_(make_norm(plan.hidden, w.final_norm, w.final_norm_bias)),
      pack_(std::move(pack)) {
  const std::size_t hidden = plan.hidden;
  if (!pack_) {
    std::size_t bytes = 0;
    for (const PackedTensor& matrix : matrices(kernels, plan)) bytes += matrix.bytes;
    packed_ = Memory(bytes, Memory::Pages::huge);
  }
  std::byte* at = packed_.data();
  std::size_t number = 0;
  const auto linear = [&](Matrix m, const Tensor& weight, const Tensor& bias) {
    const Kernels& k = kernels_of(kernels, plan.layers[layers_.size()], m);
    const Packing packing = packing_of(plan, m);
    if (pack_) return Linear{&k, packing, pack_->data(number++), make_floats(packing.n, bias)};
    const std::size_t bytes = k.packed_bytes(packing), whole = room(k, packing);
    std::memset(at + bytes, 0, whole - bytes);
    return make_linear(k, threads, packing, weight, bias, std::exchange(at, at + whole));
  };
  layers_.reserve(w.layers.size());
  for (const LayerWeights& l : w.layers) {
    if (reading) reading(layers_.size());
    layers_.push_back(
        {make_norm(hidden, l.attn_norm, l.attn_norm_bias), make_norm(hidden, l.mlp_norm, l.mlp_norm_bias),
         linear(Matrix::wqkv, l.wqkv, l.wqkv_bias), linear(Matrix::wo, l.wo, l.wo_bias),
         linear(Matrix::wi, l.wi, l.wi_bias), linear(Matrix::mlp_wo, l.mlp_wo, l.mlp_wo_bias)});
    if (packed) packed(layers_.size() - 1);
  }
}

std::vector<PackedTensor> Engine::matrices(const Kernels& kernels, const Plan& plan) {
  std::vector<PackedTensor> out;
  for (std::size_t i = 0; i < plan.layers.size(); ++i)
    for (const Matrix m : kMatrices)
      out.push_back({"layers." + std::to_string(i) + "." + kNames[static_cast<int>(m)],
                     room(kernels_of(kernels, plan.layers[i], m), packing_of(plan, m)), nullptr});
  return out;
}

std::vector<PackedTensor> Engine::matrices() const {
  std::vector<PackedTensor> out = matrices(kernels, plan);
  std::size_t number = 0;
  for (const Layer& l : layers_)
    for (const Linear* m : {&l.wqkv, &l.wo, &l.wi, &l.mlp_wo}) out[number++].data = m->packed;
  return out;
}

std::size_t Engine::packed_bytes() const {
  std::size_t bytes = 0;
  for (const PackedTensor& matrix : matrices(kernels, plan)) bytes += matrix.bytes;
  for (const Layer& l : layers_)
    for (const Linear* m : {&l.wqkv, &l.wo, &l.wi, &l.mlp_wo}) bytes += m->bias.size() * sizeof(float);
  return bytes;
}

std::size_t Engine::workspace_bytes(std::size_t total, std::size_t batch, int threads) const {
  const std::size_t filled = std::min(batch, total);  // sequences that have tokens
  const std::size_t slots = round_up(total + filled * (kernels.slot_block - 1), kernels.slot_block);
  const std::size_t chunk = std::min(total, kTokenChunk) + kernels.row_block - 1;
  return (total + kernels.row_block - 1) * kernels.operand_bytes(plan.hidden) +
         2 * plan.heads * kernels.kv_bytes(slots, head_dim()) +
         chunk * (kernels.operand_bytes(plan.hidden) + kernels.operand_bytes(plan.inter) + integer_bytes()) +
         static_cast<std::size_t>(threads) * kernels.scratch_bytes(std::max(plan.hidden, plan.inter), head_dim());
}

bool Engine::forward(const Batch& batch, float* out, int threads, const std::function<bool()>& stop) const {
  if (batch.cu_seqlens.back() == 0) return true;
  return Forward(*this, batch, out, threads, stop).run();
}

}  // namespace refimpl
