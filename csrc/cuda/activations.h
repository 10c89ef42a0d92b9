// The activations of kernels.h, one float32 at a time, by the device's erf, exp and tanh.
//
// NaN stays NaN. Which one it is, is chosen when a kernel is compiled; of those that are rare, inside of a
// product's epilogue, when it runs.
#pragma once

#include "cuda/device.h"
#include "kernels/kernels.h"

namespace refimpl::cuda {

// 1 / (1 + exp(-x)), without overflow on either side.
REFIMPL_DEVICE float sigmoid(float x) {
  const float e = exp(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

template <Activation A>
REFIMPL_DEVICE float activate(float x) {
  const float half = 0.5f * x;
  if constexpr (A == Activation::gelu) return fma(half, erf(x * 0.70710678f), half);
  if constexpr (A == Activation::gelu_tanh)
    return fma(half, tanh(0.79788456f * fma(0.044715f, x * x * x, x)), half);
  if constexpr (A == Activation::quick_gelu) return x * sigmoid(1.702f * x);
  if constexpr (A == Activation::silu) return x * sigmoid(x);
  if constexpr (A == Activation::relu) return x < 0.0f ? 0.0f : x;
  if constexpr (A == Activation::tanh) return tanh(x);
  if constexpr (A == Activation::sigmoid) return sigmoid(x);
  return x;
}

// One function for all of a kernel's elements: with all of them in place the kernel would be as long as every one.
REFIMPL_DEVICE_CALL float activate_by_name(Activation activation, float x) {
  switch (activation) {
#define REFIMPL_CHOICE(name, ...) \
  case Activation::name: return activate<Activation::name>(x);
    REFIMPL_ACTIVATIONS(REFIMPL_CHOICE)
#undef REFIMPL_CHOICE
  }
  return x;
}

// f(constant) for the activation that is asked for; decltype(constant)::value is it.
template <Activation A>
struct activation_constant {
  static constexpr Activation value = A;
};
template <class F>
auto with_activation(Activation activation, F f) {
  switch (activation) {
#define REFIMPL_CHOICE(name, ...) \
  case Activation::name: return f(activation_constant<Activation::name>{});
    REFIMPL_ACTIVATIONS(REFIMPL_CHOICE)
#undef REFIMPL_CHOICE
  }
  return f(activation_constant<Activation::linear>{});
}

}  // namespace refimpl::cuda
