#include "files/finite.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/tensor.h"
#include "files/json.h"

namespace refimpl {
namespace {

constexpr std::size_t kBlock = 4096;

template <class T>
T bits_at(const unsigned char* data, std::size_t i) {
  T bits;
  std::memcpy(&bits, data + i * sizeof(T), sizeof(T));
  return bits;
}

// Not finite iff every bit of the exponent is set. In blocks without a branch, then one by one.
template <class T>
std::size_t first_full_exponent(const unsigned char* data, T exponent, std::size_t count) {
  for (std::size_t first = 0; first < count; first += kBlock) {
    const std::size_t end = std::min(count, first + kBlock);
    bool bad = false;
    for (std::size_t i = first; i < end; ++i) bad |= (bits_at<T>(data, i) & exponent) == exponent;
    for (std::size_t i = first; bad; ++i)
      if ((bits_at<T>(data, i) & exponent) == exponent) return i;
  }
  return count;
}

}  // namespace

float float_at(const unsigned char* data, const std::string& dtype, std::size_t i) {
  if (dtype == "F64") return static_cast<float>(bits_at<double>(data, i));
  if (dtype == "F32") return bits_at<float>(data, i);
  const std::uint16_t half = bits_at<std::uint16_t>(data, i);
  float value;
  widen({&half, dtype == "BF16" ? Storage::bfloat16 : Storage::float16}, 0, 1, &value);
  return value;
}

std::size_t first_not_finite(const unsigned char* data, const std::string& dtype, std::size_t count) {
  if (dtype == "F32") return first_full_exponent<std::uint32_t>(data, 0x7f800000, count);
  if (dtype == "BF16") return first_full_exponent<std::uint16_t>(data, 0x7f80, count);
  if (dtype == "F16") return first_full_exponent<std::uint16_t>(data, 0x7c00, count);
  for (std::size_t i = 0; i < count; ++i)
    if (!std::isfinite(float_at(data, dtype, i))) return i;
  return count;
}

void check_finite(const FileTensor& tensor) {
  const std::size_t count = tensor.count(), bad = first_not_finite(tensor.data(), tensor.dtype, count);
  if (bad == count) return;
  std::string at;  // as Python spells it: (7, 5), (3,), ()
  std::uint64_t rest = bad;
  for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); rest /= *size++)
    at = std::to_string(rest % *size) + (at.empty() ? "" : ", ") + at;
  if (tensor.shape.size() == 1) at += ",";
  const Json value{static_cast<double>(float_at(tensor.data(), tensor.dtype, bad))};
  throw tensor.error("it holds " + value.shown() + " at (" + at + "); weights must be finite");
}

}  // namespace refimpl
