// Every allocation of the engine fails once: construction, forward, trace and a training step then throw
// std::bad_alloc and nothing else, free what they took, and the engine goes on to give the same bits. An
// allocation that the engine can do without (a helper's birth) may fail unnoticed. sanitize.sh runs it, with
// leaks reported; by itself:
//
//   c++ -std=c++17 -O1 -Icsrc tests/native/allocations.cpp csrc/{base,tiers,engine,training}/*.cpp -pthread && ./a.out
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "check.h"
#include "engine/engine.h"
#include "training/passes.h"

using namespace refimpl;

namespace {

std::atomic<long> left{-1};  // allocations until the one that fails; negative: none will
std::atomic<long> held{0};   // by operator new

bool fails() { return left.load() >= 0 && left.fetch_sub(1) == 0; }

}  // namespace

void* operator new(std::size_t bytes) {
  void* p = fails() ? nullptr : std::malloc(bytes ? bytes : 1);
  if (!p) throw std::bad_alloc();
  ++held;
  return p;
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  void* p = fails() ? nullptr : memalign(static_cast<std::size_t>(alignment), bytes);
  if (!p) throw std::bad_alloc();
  ++held;
  return p;
}
void operator delete(void* p) noexcept {
  if (p) --held;
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept { operator delete(p); }
void operator delete(void* p, std::align_val_t) noexcept { operator delete(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { operator delete(p); }
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return fails() ? nullptr : memalign(alignment, bytes);
}

namespace {

constexpr std::size_t kVocab = 50, kTypes = 2, kHidden = 64, kInter = 96, kTotal = 75;

// A model of two layers, with every optional tensor, of numbers that are not random enough to matter.
struct Model {
  Model() : numbers(3 * kHidden * kHidden * 2 + kVocab * kHidden) {
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = 0.1f * static_cast<float>((i * 37) % 61) - 3.0f;
    const Tensor t{numbers.data(), Storage::float32};
    const LayerWeights layer{t, t, t, t, t, t, t, t, t, t, t, t};
    weights = {{t, kHidden}, t, t, t, t, t, {layer, layer}};
    for (std::size_t i = 0; i < kTotal; ++i) ids.push_back(static_cast<std::int64_t>(i * 7 % kVocab));
  }
  Plan plan() const { return {kVocab, kHidden, kInter, 4, 1e-5f, Activation::gelu, {{-1, 1e4}, {8, 1e3}}, kTypes}; }
  Batch batch() const { return {ids.data(), nullptr, nullptr, nullptr, nullptr, {0, 30, 30, kTotal}}; }

  std::vector<float> numbers;
  std::vector<std::int64_t> ids;
  Weights weights;
};

// Runs `action` with allocation n failing, for every n that it comes to. Whether one was noticed.
template <class F>
bool each_failing(F action) {
  bool noticed = false;
  for (long n = 0;; ++n) {
    const long before = held;
    left = n;
    try {
      action();
    } catch (const std::bad_alloc&) {
      noticed = true;
      CHECK(held == before);
    }
    const bool failed = left < 0;
    left = -1;
    if (!failed) return noticed;
  }
}

void every_allocation_fails(const Kernels& kernels, int threads) {
  const Model model;
  const Batch batch = model.batch();
  std::vector<float> expected(kTotal * kHidden), out(expected.size());
  const Engine engine(kernels, model.plan(), model.weights, 1, {}, {});
  CHECK(engine.forward(batch, expected.data(), 1, nullptr));
  const auto same = [&] { return std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) == 0; };

  CHECK(each_failing([&] {
    const Engine other(kernels, model.plan(), model.weights, threads, {}, {});
    CHECK(other.forward(batch, out.data(), threads, nullptr) && same());
  }));
  CHECK(each_failing([&] { CHECK(engine.forward(batch, out.data(), threads, nullptr) && same()); }));
  for (bool fused : {true, false})
    CHECK(each_failing([&] { engine.trace(batch, out.data(), threads, fused, [](const Tapped&) {}); }));
  CHECK(engine.forward(batch, out.data(), threads, nullptr) && same());
}

// -- a training step ------------------------------------------------------------------------------

constexpr std::size_t kGradient = kHidden * 6 * kHidden;  // the largest tensor, and more

// The model's tensors, each with a gradient of its own.
Parameters parameters_of(const Model& model, std::vector<std::vector<float>>& gradients) {
  const auto next = [&] {
    gradients.emplace_back(kGradient, 0.0f);
    return Parameter{model.numbers.data(), gradients.back().data()};
  };
  const auto norm = [&] { return NormParameters{next(), next()}; };
  const auto linear = [&] { return LinearParameters{next(), next()}; };
  Parameters out{next(), next(), norm(), norm(), {}};
  for (int i = 0; i < 2; ++i) out.layers.push_back({norm(), norm(), linear(), linear(), linear(), linear()});
  return out;
}

// Two passes, whose rows of the embedding wait for the end.
void step(Passes& passes, const Batch& batch, std::size_t recomputed, int threads, float* out) {
  for (int pass = 0; pass < 2; ++pass) {
    CHECK(passes.forward(batch, recomputed, threads, nullptr, out));
    for (std::ptrdiff_t part = 2; part >= -1; --part) CHECK(passes.backward(part, out, threads, nullptr));
  }
  passes.finish(threads);
}

// One that fails leaves no way back, and no row of the embedding without its gradient.
void every_allocation_of_a_step_fails(const Kernels& kernels, const Adjoints& adjoints, std::size_t recomputed, int threads) {
  const Model model;
  const Batch batch = model.batch();
  std::vector<std::vector<float>> gradients;
  const Parameters parameters = parameters_of(model, gradients);
  const auto zero = [&] {
    for (auto& g : gradients) std::fill(g.begin(), g.end(), 0.0f);
  };
  std::vector<float> out(kTotal * kHidden);
  {
    Passes passes(kernels, adjoints, model.plan(), parameters);
    step(passes, batch, recomputed, 1, out.data());
  }
  const std::vector<std::vector<float>> expected = gradients;
  CHECK(each_failing([&] {
    Passes passes(kernels, adjoints, model.plan(), parameters);
    try {
      zero();
      step(passes, batch, recomputed, threads, out.data());
      CHECK(gradients == expected);
    } catch (const std::bad_alloc&) {
      CHECK(passes.next() == Passes::kNone);
      passes.finish(threads);
      zero();
      step(passes, batch, recomputed, threads, out.data());
      CHECK(gradients == expected);
      throw;
    }
  }));
}

}  // namespace

int main() {
  for (int threads : {1, 3})
    for (Tier tier : built_tiers())
      for (Dtype dtype : {Dtype::float32, Dtype::bf16x3, Dtype::bfloat16, Dtype::int8}) {
        const Kernels* kernels = why_unavailable(tier).empty() ? kernels_of(tier, dtype) : nullptr;
        if (!kernels) continue;
        std::printf("%s, dtype %d, %d threads\n", tier_name(tier), static_cast<int>(dtype), threads);
        every_allocation_fails(*kernels, threads);
      if (dtype == Dtype::int8) continue;
      for (std::size_t recomputed : {0, 1, 2})
        every_allocation_of_a_step_fails(*kernels, adjoints_of(tier, dtype), recomputed, threads);
      }
}
