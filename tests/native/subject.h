// What is tested, how exact it has to be, and the formats that only its kernels can read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bounded.h"
#include "guarded.h"
#include "kernels/kernels.h"

namespace driver {

using namespace refimpl;

// The kernels of a tier for a dtype, and what its products do to numbers.
struct Subject {
  const char* tier;
  Dtype dtype;
  const Kernels& k;
  bool bf16_operands;  // activations are rounded to bfloat16 before a product
  double products;     // bfloat16 products that stand for one of two float32
  double dropped;      // what those leave out, relative to the magnitudes
  double dropped_in_attention = 0;  // the same of the products of attention, where they are made so, too
};

inline const char* dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return "float32";
    case Dtype::bf16x3: return "bf16x3";
    case Dtype::bfloat16: return "bfloat16";
    case Dtype::int8: return "int8";
  }
  return "";
}
constexpr Dtype kDtypes[] = {Dtype::float32, Dtype::bf16x3, Dtype::bfloat16, Dtype::int8};

// Numbers as integers up to `most` and their scale, in the float steps that all tiers have: then products of
// them have known bits.
struct Integers {
  Integers(const float* x, std::size_t n, float most) : whole(n) {
    float largest = 1e-30f;
    for (std::size_t i = 0; i < n; ++i) {
      largest = std::max(largest, std::fabs(x[i]));
      finite = finite && std::isfinite(x[i]);
    }
    const float by = most / largest;
    scale = finite ? largest / most : NAN;
    if (finite)
      for (std::size_t i = 0; i < n; ++i) whole[i] = static_cast<int>(std::nearbyint(x[i] * by));
  }
  std::vector<int> whole;
  float scale;
  bool finite = true;
};

inline float product_of(const Integers& x, const Integers& w) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < x.whole.size(); ++i) sum += x.whole[i] * w.whole[i];
  return static_cast<float>(sum) * (x.scale * w.scale);
}

// A float is a sum of bfloat16 terms; each is at most 2^-8 of the one before, since a bfloat16 has 8
// bits. Three terms are exact; of their products those of 2^-24 and less are left out. Of two terms
// the rest, 2^-16 of each factor, and their last product are.
inline Subject subject_of(Tier tier, Dtype dtype, const Kernels& k) {
  const bool amx = std::string(tier_name(tier)) == "amx";
  const bool rounds = amx || std::string(tier_name(tier)) == "avx512bf16";
  Subject s{tier_name(tier), dtype, k, rounds && dtype == Dtype::bfloat16, 1, 0};
  if (amx && dtype == Dtype::float32) s.products = 6, s.dropped = 2 * 0x1p-24 + 0x1p-32;
  if (dtype == Dtype::bf16x3) s.products = 3, s.dropped = 3 * 0x1p-16 + 2 * 0x1p-24 + 0x1p-32;
  return s;
}

// Of a rounding to bfloat16.
constexpr double kBf16Unit = 0x1p-8;

inline float as_weight(const Subject& s, float x) { return s.dtype == Dtype::bfloat16 ? to_float(to_bf16(x)) : x; }
inline float as_operand(const Subject& s, float x) { return s.bf16_operands ? to_float(to_bf16(x)) : x; }
// A float32 result that is stored as an operand.
inline Bounded as_operand(const Subject& s, Bounded x) {
  if (s.bf16_operands) x.error += kBf16Unit * (std::fabs(x.value) + x.error);
  return x;
}

// One line of the report: a kernel, over all its cases.
class Op {
 public:
  Op(std::string name) : name(std::move(name)) {}

  void within(double got, Bounded expected, std::size_t row, std::size_t column, const char* what = "y") {
    const double off = std::fabs(got - expected.value);
    if (off <= expected.error) {  // false for NaN
      if (expected.error > 0) worst = std::max(worst, off / expected.error);
      return;
    }
    char text[200];
    std::snprintf(text, sizeof text, "%s[%zu, %zu]: expected %.9g, got %.9g, off %.3g, bound %.3g", what, row, column,
                  expected.value, got, off, expected.error);
    fail(text);
  }
  void must(bool holds, const char* what) {
    if (!holds) fail(what);
  }
  void fail(const char* what) {
    if (!failures++) first = now + ": " + what;
  }
  void begin(std::string sizes) { now = std::move(sizes), ++cases; }

  const std::string name;
  std::string now, first;
  std::size_t cases = 0, failures = 0;
  double worst = 0;
};

// Activations as products read them.
class Operands {
 public:
  Operands(const Subject& s, Random& random, std::size_t rows, std::size_t columns)
      : s_(s), rows(rows), columns(columns), ld(s.k.operand_bytes(columns) + 64 * random.below(2)),
        buffer((rows + s.k.row_block - 1) * ld, 64) {}

  void* data() { return buffer.data(); }
  void set(Matrix& x) { s_.k.to_operand(rows, columns, x.data(), x.ld, data(), ld); }
  void get(Matrix& x) { s_.k.from_operand(rows, columns, data(), ld, x.data(), x.ld); }
  Matrix read() {
    Matrix x(rows, columns);
    get(x);
    return x;
  }
  // As products read them: rows of integers where the kernels have them.
  Gemm product(const Packing& p, const void* packed, const float* bias) {
    if (!s_.k.to_integers) return {p, packed, bias, data(), ld};
    const std::size_t whole = s_.k.integer_bytes(columns);
    integers_.push_back(std::make_unique<Buffer>((rows + s_.k.row_block - 1) * whole, 64));
    s_.k.to_integers(rows, columns, data(), ld, integers_.back()->data(), whole);
    return {p, packed, bias, integers_.back()->data(), whole};
  }
  bool integers_kept() const {
    for (const auto& buffer : integers_)
      if (!buffer->surroundings_untouched()) return false;
    return true;
  }
  bool row_untouched(std::size_t r) const { return buffer.untouched(r * ld, (r + 1) * ld); }
  // Neither the rows after the last one nor what is around was written.
  bool only_rows_written() const { return buffer.untouched(rows * ld, buffer.bytes()) && buffer.surroundings_untouched(); }

 private:
  const Subject& s_;
  std::vector<std::unique_ptr<Buffer>> integers_;

 public:
  const std::size_t rows, columns, ld;
  Buffer buffer;
};

// W [n, k] as a checkpoint has it, in any storage.
class Weight {
 public:
  Weight(Random& random, std::size_t n, std::size_t k, Storage storage, float scale = 1, float centre = 0)
      : n(n), k(k), values(n * k), storage_(storage),
        bytes_(n * k * (storage == Storage::float32 ? 4 : 2), storage == Storage::float32 ? 4 : 2) {
    for (std::size_t i = 0; i < n * k; ++i) {
      const float x = centre + scale * random.unit();
      values[i] = x;
      if (storage == Storage::float32) {
        std::memcpy(bytes_.data() + 4 * i, &x, 4);
        continue;
      }
      std::uint16_t bits = to_bf16(x).bits;
      if (storage == Storage::bfloat16) values[i] = to_float(bf16{bits});
      if (storage == Storage::float16) {  // any sign and fraction, exponents from subnormal to below 1
        bits = static_cast<std::uint16_t>(random.bits() & 0x83ff) | static_cast<std::uint16_t>(random.below(15) << 10);
        const int exponent = bits >> 10 & 31;
        const double size = std::ldexp((bits & 1023) + (exponent ? 1024 : 0), (exponent ? exponent : 1) - 25);
        values[i] = static_cast<float>(bits >> 15 ? -size : size);
      }
      std::memcpy(bytes_.data() + 2 * i, &bits, 2);
    }
  }
  void set(std::size_t i, float x) {  // stored as float32
    values[i] = x;
    std::memcpy(bytes_.data() + 4 * i, &x, 4);
  }
  Tensor tensor() const { return {bytes_.data(), storage_}; }

  const std::size_t n, k;
  std::vector<float> values;

 private:
  const Storage storage_;
  Buffer bytes_;
};

inline Storage any_storage(Random& random) {
  const Storage all[] = {Storage::float32, Storage::bfloat16, Storage::float16};
  return all[random.below(3)];
}

inline std::size_t panels_of(const Subject& s, const Packing& p) { return refimpl::panels_of(p, s.k.lanes); }

// Packed weights.
class Packed {
 public:
  Packed(const Subject& s, const Packing& p, const Tensor& w) : packing(p), buffer(s.k.packed_bytes(p), 64) {
    s.k.pack(p, w, 0, panels_of(s, p), buffer.data());
  }
  const Packing packing;
  Buffer buffer;
};

// All rows and panels, once each, in pieces and in no order, with any hint of what comes next.
inline std::vector<Range> pieces(Random& random, std::size_t rows, std::size_t panels) {
  std::vector<Range> all;
  for (std::size_t r = 0; r < rows;) {
    const std::size_t r1 = random.between(r + 1, rows);
    for (std::size_t p = 0; p < panels;) {
      const std::size_t p1 = random.between(p + 1, panels);
      all.push_back({r, r1, p, p1, random.once_in(3) ? Range::kNone : random.below(panels)});
      p = p1;
    }
    r = r1;
  }
  for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(i)]);
  return all;
}

// The same in order, panels within rows, as a thread takes neighbours: its scratch holds those rows, and says so.
inline std::vector<Range> pieces_by_rows(Random& random, std::size_t rows, std::size_t panels) {
  std::vector<Range> all;
  for (std::size_t r = 0, r1; r < rows; r = r1) {
    r1 = random.between(r + 1, rows);
    for (std::size_t p = 0, p1; p < panels; p = p1) {
      p1 = random.between(p + 1, panels);
      all.push_back({r, r1, p, p1, p1 < panels ? p1 : Range::kNone, p > 0});
    }
  }
  return all;
}

// Per thread memory, of the size that the kernels ask for.
class Scratch {
 public:
  Scratch(const Subject& s, std::size_t k, std::size_t head_dim) : buffer(s.k.scratch_bytes(k, head_dim), 64) {}
  void* data() { return buffer.data(); }
  Buffer buffer;
};

// Sequences in slots, and which of their tokens can be seen.
struct Tokens {
  std::vector<Sequence> sequences;
  std::vector<std::size_t> slot;
  std::vector<unsigned char> visible;  // empty: all
  std::size_t slots = 0;

  void add(const Subject& s, std::size_t length, std::ptrdiff_t window) {
    sequences.push_back({slot.size(), length, window});
    for (std::size_t j = 0; j < length; ++j) slot.push_back(slots + j);
    slots += round_up(length, s.k.slot_block);
  }
  std::size_t total() const { return slot.size(); }
  bool sees(std::size_t token) const { return visible.empty() || visible[token]; }
};

// q, keys and values of tokens, for some heads.
class Placed {
 public:
  Placed(const Subject& s, Random& random, const Tokens& t, std::size_t heads, std::size_t head_dim)
      : s_(s), t_(t), heads(heads), head_dim(head_dim), q(s, random, t.total(), heads * head_dim),
        keys(heads * s.k.kv_bytes(t.slots, head_dim), 64), values(heads * s.k.kv_bytes(t.slots, head_dim), 64) {}

  Heads view() {
    return {heads, head_dim, q.data(), q.ld, keys.data(), values.data(), t_.slots, t_.slot.data(),
            t_.visible.empty() ? nullptr : t_.visible.data()};
  }
  void place(Matrix& qs, Matrix& ks, Matrix& vs) {
    for (std::size_t i = 0; i < t_.total(); ++i) s_.k.place_qkv(view(), i, qs.row(i), ks.row(i), vs.row(i));
  }
  // Every head of every block of queries in so many parts, in no order.
  void attend(Random& random, std::size_t parts) {
    struct Task {
      std::size_t sequence, head, first, part;
    };
    std::vector<Task> tasks;
    for (std::size_t i = 0; i < t_.sequences.size(); ++i)
      for (std::size_t h = 0; h < heads; ++h)
        for (std::size_t first = 0; first < t_.sequences[i].length; first += s_.k.query_block)
          for (std::size_t part = 0; part < parts; ++part) tasks.push_back({i, h, first, part});
    for (std::size_t i = tasks.size(); i > 1; --i) std::swap(tasks[i - 1], tasks[random.below(i)]);
    Scratch scratch(s_, 1, head_dim);
    for (const Task& task : tasks) s_.k.attention(view(), t_.sequences[task.sequence], task.head, task.first, task.part, parts, scratch.data());
    scratch_kept = scratch_kept && scratch.buffer.surroundings_untouched();
  }
  bool only_own_written() const {
    return q.only_rows_written() && keys.surroundings_untouched() && values.surroundings_untouched() && scratch_kept;
  }

 private:
  const Subject& s_;
  const Tokens& t_;

 public:
  const std::size_t heads, head_dim;
  Operands q;
  Buffer keys, values;
  bool scratch_kept = true;
};

}  // namespace driver
