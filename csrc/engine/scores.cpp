#include "engine/scores.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace refimpl {
namespace {

double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x >= 0 ? 1.0 : e) / (1.0 + e);
}

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::gelu: return 0.5 * x * (1.0 + std::erf(x * std::sqrt(0.5)));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu: return x * sigmoid(1.702 * x);
    case Activation::silu: return x * sigmoid(x);
    case Activation::relu: return x > 0 || std::isnan(x) ? x : 0.0;
    case Activation::tanh: return std::tanh(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::linear: break;
  }
  return x;
}

}  // namespace

void activate(Activation activation, std::size_t n, const float* x, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = static_cast<float>(activated(activation, static_cast<double>(x[i])));
}

void softmax(std::size_t rows, std::size_t columns, const float* x, float* y) {
  std::vector<double> e(columns);
  for (std::size_t r = 0; r < rows; ++r, x += columns, y += columns) {
    const double top = static_cast<double>(*std::max_element(x, x + columns));
    double sum = 0.0;
    for (std::size_t i = 0; i < columns; ++i) sum += e[i] = std::exp(static_cast<double>(x[i]) - top);
    for (std::size_t i = 0; i < columns; ++i) y[i] = static_cast<float>(e[i] / sum);
  }
}

}  // namespace refimpl
