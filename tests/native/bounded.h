// A double and a bound on how far a float32 evaluation of it may stand away.
//
// Kept to first order in kEps by the textbook rules (a sum of n terms: n roundings of the sum of
// magnitudes). A rounding is counted as kEps, twice what it can be, which covers the terms of second
// order and the rounding of the doubles themselves. As tests/support/bounded.py, in C++.
#pragma once

#include <cmath>

#include "kernels/kernels.h"

namespace driver {

using refimpl::Activation;

constexpr double kEps = 0x1p-23;
// Roundings that one call of exp, tanh or erf may cost: what vector maths libraries promise.
constexpr double kCall = 4;
// Results below the normal numbers may be flushed to zero.
constexpr double kTiny = 0x1p-126;

struct Bounded {
  double value, error = 0;
};

inline Bounded rounded(double value, double error) { return {value, error + kEps * std::fabs(value) + kTiny}; }
inline Bounded operator*(Bounded a, Bounded b) {
  return rounded(a.value * b.value, std::fabs(a.value) * b.error + std::fabs(b.value) * a.error);
}
inline Bounded operator+(Bounded a, Bounded b) { return rounded(a.value + b.value, a.error + b.error); }
inline Bounded operator-(Bounded a, Bounded b) { return rounded(a.value - b.value, a.error + b.error); }
inline Bounded operator/(Bounded a, Bounded b) {
  const double value = a.value / b.value;
  return rounded(value, (a.error + std::fabs(value) * b.error) / std::fabs(b.value));
}
inline Bounded root(Bounded x) {
  const double value = std::sqrt(x.value);
  return rounded(value, x.error / (2 * value));
}
// A constant, which is rounded itself.
inline Bounded constant(double c) { return {c, kEps * std::fabs(c)}; }

inline Bounded tanh(Bounded x) {
  const double value = std::tanh(x.value);
  return {value, x.error + kCall * kEps * std::fabs(value) + kTiny};
}
// Slope at most 1 / 4; where exp(-x) is large, the result is as small.
inline Bounded sigmoid(Bounded x) {
  const double value = 1 / (1 + std::exp(-x.value));
  return {value, x.error / 4 + (kCall + 3) * kEps + kTiny};
}
// x Phi(x): its slope is below 1.13 everywhere (largest at x = sqrt 2).
inline Bounded gelu(Bounded x) {
  const double value = x.value * std::erfc(-x.value / std::sqrt(2.0)) / 2;
  return {value, 1.13 * x.error + (kCall + 4) * kEps * std::fabs(x.value) + kTiny};
}

inline Bounded activate(Activation a, Bounded x) {
  switch (a) {
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: {
      const Bounded inner = x + constant(0.044715) * x * x * x;
      return constant(0.5) * x * (Bounded{1.0} + tanh(constant(std::sqrt(2 / std::acos(-1.0))) * inner));
    }
    case Activation::quick_gelu: return x * sigmoid(constant(1.702) * x);
    case Activation::silu: return x * sigmoid(x);
    case Activation::relu: return {x.value > 0 ? x.value : 0, x.error};
    case Activation::tanh: return tanh(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::linear: return x;
  }
  return x;
}

}  // namespace driver
