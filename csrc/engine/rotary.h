// Rotary tables of one theta, [rows, head_dim / 2] each; computed in double and rounded once.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace refimpl {

// Row p is that of position p, or positions[p].
inline void rotary_tables(double theta, std::size_t rows, std::size_t head_dim, const std::int64_t* positions, float* cos,
                          float* sin) {
  const std::size_t half = head_dim / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    for (std::size_t p = 0; p < rows; ++p) {
      const double angle = (positions ? static_cast<double>(positions[p]) : static_cast<double>(p)) * frequency;
      cos[p * half + i] = static_cast<float>(std::cos(angle));
      sin[p * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace refimpl
