// Products x W^T + bias, and what each ends as: an addition, a GLU, or q, k and v where attention reads them.
//
// A block of threads makes 32, 64 or 128 rows by 128 columns, in steps of 32 of k that are copied ahead.
// An element is one chain of additions over k, 16 terms at a time, in the order of k: which block it
// falls into, and how many rows there are, changes no bit. Operands are float or bf16 (terms.h); of
// float each lane splits what it multiplies, and a sum that is not finite is made again in plain
// float32, so that an Inf is Inf and not the NaN that its terms would be.
//
// Weights stand in panels of 16 rows of k_padded(k) numbers (`Packing` in kernels.h, with vectors of
// 8 columns): the two columns that meet in an epilogue are in one lane.
#pragma once

#include "cuda/activations.h"
#include "cuda/rowwise.h"
#include "cuda/terms.h"

namespace refimpl::cuda {

constexpr unsigned kLanes = 8;       // columns of each half of a panel
constexpr unsigned kStepK = 32;      // of k, copied at a time
constexpr unsigned kBlockPanels = 8;
constexpr unsigned kWarpPanels = 4;  // and 32 rows

// Numbers of a packed row: what fills up is zero.
constexpr std::size_t k_padded(std::size_t k) { return (k + kStepK - 1) / kStepK * kStepK; }

// Packed numbers of a matrix.
inline std::size_t packed_numbers(const Packing& p) { return panels_of(p, kLanes) * 2 * kLanes * k_padded(p.k); }

// Columns of a panel, as columns_of in kernels.h.
struct Panel {
  unsigned first, second;  // of each half, its first column
  unsigned n_first, n_second;  // columns that exist, of its 8
};
REFIMPL_DEVICE Panel panel_of(unsigned n, unsigned group, unsigned panel) {
  const auto left = [](unsigned end, unsigned at) { return at >= end ? 0 : end - at < kLanes ? end - at : kLanes; };
  if (!group) {
    const unsigned first = panel * 2 * kLanes;
    return {first, first + kLanes, left(n, first), left(n, first + kLanes)};
  }
  const unsigned half = group / 2, per_group = (half + kLanes - 1) / kLanes, i = panel % per_group * kLanes;
  const unsigned first = panel / per_group * group + i;
  return {first, first + half, left(half, i), left(half, i)};
}

// -- packing ----------------------------------------------------------------------------------------

// W [n, k] as it is stored into panels [first_panel, last_panel).
template <class Stored, class T>
struct Pack {
  unsigned n, k, group, first_panel, last_panel;
  const Stored* w;
  T* packed;
  std::size_t ld;  // k_padded(k)
};

template <class Stored, class T>
REFIMPL_KERNEL pack_kernel(Pack<Stored, T> a) {
  const unsigned panel = a.first_panel + block_x();
  const Panel p = panel_of(a.n, a.group, panel);
  for (unsigned r = warp(); r < 2 * kLanes; r += kElementsPerBlock / kWarp) {
    const bool real = r < kLanes ? r < p.n_first : r - kLanes < p.n_second;
    const std::size_t column = r < kLanes ? p.first + r : p.second + r - kLanes;
    T* to = a.packed + (std::size_t{panel} * 2 * kLanes + r) * a.ld;
    for (unsigned i = lane(); i < a.ld; i += kWarp)
      store_global(to + i, as<T>(real && i < a.k ? as_float(load_global(a.w + column * a.k + i)) : 0.0f));
  }
}

template <class Stored, class T>
auto pack(Stream stream, const Pack<Stored, T>& a) {
  return launch(pack_kernel<Stored, T>, {a.last_panel - a.first_panel, 1, kElementsPerBlock, 0}, stream, a);
}

// -- epilogues --------------------------------------------------------------------------------------

// What a lane has of a row: columns c and c + 1 of both halves of a panel, c even and below 8, without their bias.
struct Four {
  float first[2], second[2];
};

// y [rows, n] = sums + bias + residual; bias and residual may be null, residual may be y.
struct AddTo {
  const float *bias, *residual;
  std::size_t ldr;
  float* y;
  std::size_t ldy;
  REFIMPL_DEVICE void operator()(unsigned row, const Panel& p, unsigned c, const Four& sums) const {
    const auto put = [&](unsigned column, float v) {
      if (bias) v += load_global(bias + column);
      if (residual) v += load_global(residual + row * ldr + column);
      store_global(y + row * ldy + column, v);
    };
    REFIMPL_UNROLL
    for (unsigned e = 0; e < 2; ++e) {
      if (c + e < p.n_first) put(p.first + c + e, sums.first[e]);
      if (c + e < p.n_second) put(p.second + c + e, sums.second[e]);
    }
  }
};

// The activation of a GLU: ModernBERT's, as it is compiled, or any other, to the bits of `glu`.
struct Gelu {
  REFIMPL_DEVICE float operator()(float x) const { return activate<Activation::gelu>(x); }
};
struct Named {
  Activation activation;
  REFIMPL_DEVICE float operator()(float x) const { return activate_by_name(activation, x); }
};

// y [rows, n / 2] = act(gate) * up; packed with group = n.
template <class Act, class T>
struct Gated {
  Act act;
  const float* bias;
  T* y;
  std::size_t ldy;
  REFIMPL_DEVICE void operator()(unsigned row, const Panel& p, unsigned c, const Four& sums) const {
    REFIMPL_UNROLL
    for (unsigned e = 0; e < 2; ++e) {
      if (c + e >= p.n_first) continue;
      const unsigned column = p.first + c + e;
      float gate = sums.first[e], up = sums.second[e];
      if (bias) gate += load_global(bias + column), up += load_global(bias + p.second + c + e);
      store_global(y + row * ldy + column, as<T>(act(gate) * up));
    }
  }
};

// q rotated and scaled, k rotated, and v, to where attention reads them; n = 3 heads * head_dim, packed with
// group = head_dim. cos, sin [.., head_dim / 2]; table_row [rows] tells which row of them. What fills up a key and a
// value is left as it is.
template <class T>
struct ToHeads {
  const float* bias;
  unsigned heads, head_dim, width;  // width: padded_head(head_dim)
  T* q;
  std::size_t ldq;
  T *keys, *values;
  std::size_t first, total;  // the first of the rows is this token of so many
  const float *cos, *sin;
  const std::uint32_t* table_row;
  float scale;
  REFIMPL_DEVICE void operator()(unsigned row, const Panel& p, unsigned c, const Four& sums) const {
    const unsigned half = head_dim / 2, which = p.first / (heads * head_dim), head = p.first / head_dim % heads;
    REFIMPL_UNROLL
    for (unsigned e = 0; e < 2; ++e) {
      if (c + e >= p.n_first) continue;
      const unsigned i = p.first % head_dim + c + e;
      float x1 = sums.first[e], x2 = sums.second[e];
      if (bias) x1 += load_global(bias + p.first + c + e), x2 += load_global(bias + p.second + c + e);
      if (which < 2) {
        const std::size_t angle = std::size_t{load_global(table_row + row)} * half + i;
        const float turned_cos = load_global(cos + angle), turned_sin = load_global(sin + angle), by = which ? 1.0f : scale;
        const float y1 = rotated_first(x1, x2, turned_cos, turned_sin, by), y2 = rotated_second(x1, x2, turned_cos, turned_sin, by);
        x1 = y1, x2 = y2;
      }
      const std::size_t token = first + row;
      T* to = which == 0 ? q + token * ldq + std::size_t{head} * head_dim
                         : (which == 1 ? keys : values) + (head * total + token) * width;
      store_global(to + i, as<T>(x1)), store_global(to + half + i, as<T>(x2));
    }
  }
};

// -- products ---------------------------------------------------------------------------------------

// x [rows, k] operands, rows aligned to 16 bytes; panels [first_panel, last_panel) of packed weights.
template <class T, class Epilogue>
struct Product {
  unsigned rows, n, k, group, first_panel, last_panel;
  const T* x;
  std::size_t ldx;
  const T* packed;
  std::size_t ld;  // k_padded(k)
  Epilogue epilogue;
};

template <class T>
constexpr unsigned kStages = sizeof(T) == sizeof(bf16) ? 3 : 2;
constexpr unsigned kLdK = kStepK + 8;  // in shared memory: rows begin in other banks

template <class T>
constexpr std::size_t product_shared(unsigned row_warps) {
  return kStages<T> * std::size_t{row_warps * 32 + kBlockPanels * 2 * kLanes} * kLdK * sizeof(T);
}

// Two neighbours of an operand in shared memory, in terms.
template <unsigned kTerms, class T>
REFIMPL_DEVICE Pairs<kTerms> shared_pair(const Shared<T>& s, unsigned i) {
  return split<kTerms>(as_float(s.load(i)), as_float(s.load(i + 1)));
}

template <class T, unsigned kTerms>
REFIMPL_DEVICE TermsA<kTerms> rows_fragment(const Shared<T>& x, unsigned row, unsigned column) {
  TermsA<kTerms> f;
  const unsigned l = lane();
  if constexpr (kTerms == 1) {
    const Matrices m = load_matrices(x, (row + l % 16) * kLdK + column + l / 16 * 8);
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 4; ++i) f.term[0].pair[i] = m.pair[i];
  } else {
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 4; ++i)
      f.set(i, shared_pair<kTerms>(x, (row + l / 4 + 8 * (i % 2)) * kLdK + column + 2 * (l % 4) + 8 * (i / 2)));
  }
  return f;
}

// Both halves of a panel.
template <unsigned kTerms>
struct PanelFragments {
  TermsB<kTerms> half[2];
};
template <class T, unsigned kTerms>
REFIMPL_DEVICE PanelFragments<kTerms> panel_fragments(const Shared<T>& w, unsigned row, unsigned column) {
  PanelFragments<kTerms> f;
  const unsigned l = lane();
  if constexpr (kTerms == 1) {
    const Matrices m = load_matrices(w, (row + l % 8 + l / 16 * 8) * kLdK + column + l / 8 % 2 * 8);
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 4; ++i) f.half[i / 2].term[0].pair[i % 2] = m.pair[i];
  } else {
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 4; ++i)
      f.half[i / 2].set(i % 2, shared_pair<kTerms>(w, (row + l / 4 + i / 2 * 8) * kLdK + column + 2 * (l % 4) + i % 2 * 8));
  }
  return f;
}

// An element in plain float32, one chain: where terms of an Inf have made a NaN.
template <class T>
REFIMPL_DEVICE_CALL float plain_sum(unsigned k, const T* x, const T* w) {
  float sum = 0.0f;
  for (unsigned i = 0; i < k; ++i) sum = fma(as_float(load_global(x + i)), as_float(load_global(w + i)), sum);
  return sum;
}

// kRowWarps * 2 warps, each 32 rows by 4 panels.
template <class T, unsigned kTerms, unsigned kRowWarps, class Epilogue>
REFIMPL_KERNEL product_kernel(Product<T, Epilogue> a) {
  constexpr unsigned kRows = 32 * kRowWarps, kColumns = kBlockPanels * 2 * kLanes, kThreads = 2 * kRowWarps * kWarp;
  constexpr unsigned kPerCopy = 16 / sizeof(T), kTileX = kRows * kLdK, kTileW = kColumns * kLdK;
  constexpr std::size_t kStageBytes = std::size_t{kTileX + kTileW} * sizeof(T);
  const unsigned row0 = block_y() * kRows, panel0 = a.first_panel + block_x() * kBlockPanels;
  const auto tile_x = [&](unsigned stage) { return shared<T>(stage * kStageBytes, kTileX); };
  const auto tile_w = [&](unsigned stage) { return shared<T>(stage * kStageBytes + kTileX * sizeof(T), kTileW); };

  // Columns [k0, k0 + kStepK) of rows and panels; zeros for what is not there.
  const auto bring = [&](unsigned step) {
    const unsigned stage = step % kStages<T>, k0 = step * kStepK;
    constexpr unsigned kCopies = kStepK / kPerCopy;
    for (unsigned i = thread(); i < (kRows + kColumns) * kCopies; i += kThreads) {
      const unsigned r = i / kCopies, c = i % kCopies * kPerCopy, at = k0 + c;
      if (r < kRows) {
        const bool real = row0 + r < a.rows && at < a.k;
        const unsigned numbers = !real ? 0 : a.k - at < kPerCopy ? a.k - at : kPerCopy;
        copy_async(tile_x(stage), r * kLdK + c, a.x + (real ? (row0 + r) * a.ldx + at : 0), numbers * sizeof(T));
      } else {
        const bool real = panel0 + (r - kRows) / (2 * kLanes) < a.last_panel;
        const std::size_t row = std::size_t{panel0} * 2 * kLanes + r - kRows;
        copy_async(tile_w(stage), (r - kRows) * kLdK + c, a.packed + (real ? row * a.ld + at : 0), real ? 16 : 0);
      }
    }
  };

  const unsigned warp_row = warp() % kRowWarps * 32, warp_panel = warp() / kRowWarps * kWarpPanels;
  FragmentD sums[2][kWarpPanels][2] = {};  // 16 rows each; panels; halves
  const unsigned steps = static_cast<unsigned>(a.ld / kStepK);
  REFIMPL_UNROLL
  for (unsigned step = 0; step + 1 < kStages<T>; ++step) {
    if (step < steps) bring(step);
    commit_copies();
  }
  for (unsigned step = 0; step < steps; ++step) {
    wait_copies<static_cast<int>(kStages<T>) - 2>();
    barrier();  // this step is here, and nobody reads the one before
    if (step + kStages<T> - 1 < steps) bring(step + kStages<T> - 1);
    commit_copies();
    const Shared<T> x = tile_x(step % kStages<T>), w = tile_w(step % kStages<T>);
    REFIMPL_UNROLL
    for (unsigned k = 0; k < kStepK; k += 16) {
      TermsA<kTerms> rows[2];
      REFIMPL_UNROLL
      for (unsigned m = 0; m < 2; ++m) rows[m] = rows_fragment<T, kTerms>(x, warp_row + 16 * m, k);
      REFIMPL_UNROLL
      for (unsigned p = 0; p < kWarpPanels; ++p) {
        const PanelFragments<kTerms> panel = panel_fragments<T, kTerms>(w, (warp_panel + p) * 2 * kLanes, k);
        REFIMPL_UNROLL
        for (unsigned m = 0; m < 2; ++m)
          REFIMPL_UNROLL
          for (unsigned h = 0; h < 2; ++h) multiply_terms(sums[m][p][h], rows[m], panel.half[h]);
      }
    }
  }
  wait_copies<0>();

  const unsigned c = 2 * (lane() % 4);
  REFIMPL_UNROLL
  for (unsigned p = 0; p < kWarpPanels; ++p) {
    const unsigned panel = panel0 + warp_panel + p;
    if (panel >= a.last_panel) continue;
    const Panel columns = panel_of(a.n, a.group, panel);
    REFIMPL_UNROLL
    for (unsigned m = 0; m < 2; ++m)
      REFIMPL_UNROLL
      for (unsigned r = 0; r < 2; ++r) {
        const unsigned row = row0 + warp_row + 16 * m + lane() / 4 + 8 * r;
        if (row >= a.rows) continue;
        float sum[4];
        REFIMPL_UNROLL
        for (unsigned e = 0; e < 4; ++e) {
          sum[e] = sums[m][p][e / 2].x[2 * r + e % 2];
          if (kTerms > 1 && !is_finite(sum[e]))
            sum[e] = plain_sum(a.k, a.x + row * a.ldx, a.packed + (std::size_t{panel} * 2 * kLanes + e / 2 * kLanes + c + e % 2) * a.ld);
        }
        a.epilogue(row, columns, c, {{sum[0], sum[1]}, {sum[2], sum[3]}});
      }
  }
}

// Blocks of rows as high as there are rows for; the bits are the same.
template <unsigned kTerms, class T, class Epilogue>
auto product(Stream stream, const Product<T, Epilogue>& a) {
  const unsigned across = (a.last_panel - a.first_panel + kBlockPanels - 1) / kBlockPanels;
  const auto run = [&](auto kernel, unsigned row_warps) {
    const unsigned rows = 32 * row_warps;
    return launch(kernel, {across, (a.rows + rows - 1) / rows, 2 * row_warps * kWarp, product_shared<T>(row_warps)}, stream, a);
  };
  if (a.rows <= 32) return run(product_kernel<T, kTerms, 1, Epilogue>, 1);
  if (a.rows <= 1024) return run(product_kernel<T, kTerms, 2, Epilogue>, 2);
  return run(product_kernel<T, kTerms, 4, Epilogue>, 4);
}

}  // namespace refimpl::cuda
