// int8: numbers as integers with one scale per token, and per row of W. Included like gemm.inl, before it, after
// operand.inl.
//
//   x [k] -> round(x / s), s = max |x| / 127;  W [n, k] -> round(w / t), t = max |w of its row| / 63
//   y = (sum of products of integers) s t
// Rounds to the nearest, ties to even; as refimpl/reference/int8.py does, to the bit. Integers of 7 bits
// for weights: AVX2 sums two products in 16 bits. A row that holds Inf or NaN has the scale NaN.
//
// A row is its integers, kZero added, filled up with kZero to kDepth, then its scale. A panel of weights is
// scales, what its sums start from (-kZero times those of its integers), then groups of kGroup numbers of
// k, column after column: [depth / kGroup, kPanel, kGroup].

constexpr float kMostOfRow = 127.0f, kMostOfWeights = 63.0f;
constexpr float kLeastScale = 1e-30f;   // of the largest number: below it rows are as good as zero
constexpr std::size_t kGroup = 4;
constexpr std::size_t kDepth = 64;

inline std::size_t depth_of(std::size_t k) { return round_up(k, kDepth); }

// -- rows -----------------------------------------------------------------------------------------

inline std::size_t integer_bytes(std::size_t columns) { return depth_of(columns) + kDepth; }

REFIMPL_INLINE float scale_of(const std::uint8_t* row, std::size_t k) {
  float scale;
  __builtin_memcpy(&scale, row + depth_of(k), sizeof scale);
  return scale;
}

inline void to_integers(std::size_t rows, std::size_t n, const void* x, std::size_t ldx, void* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r) {
    const float* from = operand(x, ldx, r);
    std::uint8_t* to = static_cast<std::uint8_t*>(y) + r * ldy;
    f32 most = set1(kLeastScale), wrong = set1(0.0f);  // NaN where a number is not finite
    for_lanes(n, [&](std::size_t i, int lanes) {
      const f32 v = load_first(from + i, lanes);
      most = max(abs(v), most);
      wrong = fma(v, set1(0.0f), wrong);
    });
    const float largest = max(most), lost = sum(wrong);
    const bool finite = lost == 0.0f;
    const f32 by = set1(kMostOfRow / largest);
    for_lanes(finite ? n : 0, [&](std::size_t i, int lanes) {
      const f32 whole = round(mul(load_first(from + i, lanes), by));
      if (lanes == f32::lanes) return store_bytes(to + i, whole);
      std::uint8_t bytes[f32::lanes];
      store_bytes(bytes, whole);
      for (int l = 0; l < lanes; ++l) to[i + l] = bytes[l];
    });
    for (std::size_t i = finite ? n : 0; i < depth_of(n); ++i) to[i] = kZero;
    const float scale = finite ? largest / kMostOfRow : lost;
    __builtin_memcpy(to + depth_of(n), &scale, sizeof scale);
  }
}

// -- weights --------------------------------------------------------------------------------------

struct Integers {
  float* scales;
  std::int32_t* starts;
  std::int8_t* weights;
};

inline std::size_t panel_bytes_int8(std::size_t k) {
  return kPanel * (sizeof(float) + sizeof(std::int32_t) + depth_of(k));
}

inline Integers panel_int8(void* packed, std::size_t k, std::size_t panel) {
  char* at = static_cast<char*>(packed) + panel * panel_bytes_int8(k);
  float* scales = reinterpret_cast<float*>(at);
  std::int32_t* starts = reinterpret_cast<std::int32_t*>(scales + kPanel);
  return {scales, starts, reinterpret_cast<std::int8_t*>(starts + kPanel)};
}

inline std::size_t packed_bytes_int8(const Packing& p) { return panels_of(p, kLanes) * panel_bytes_int8(p.k); }

// A row of W as lane `lane` of a panel.
inline void put_column(const Tensor& w, std::size_t column, std::size_t k, std::size_t lane, const Integers& to) {
  constexpr std::size_t kStep = 64;
  float values[kStep], most = kLeastScale, wrong = 0.0f;
  const auto each = [&](auto f) {  // f(value, its place)
    for (std::size_t k0 = 0; k0 < k; k0 += kStep) {
      const std::size_t n = k - k0 < kStep ? k - k0 : kStep;
      widen(w, column * k + k0, n, values);
      for (std::size_t j = 0; j < n; ++j) f(values[j], k0 + j);
    }
  };
  each([&](float x, std::size_t) {
    const float size = __builtin_fabsf(x);
    if (size > most) most = size;
    wrong += x * 0.0f;
  });
  const bool finite = wrong == 0.0f;
  const float by = kMostOfWeights / most;
  std::int32_t all = 0;
  if (finite)
    each([&](float x, std::size_t i) {
      const float product = x * by;
      const std::int8_t whole = static_cast<std::int8_t>((product + 12582912.0f) - 12582912.0f);  // as round()
      to.weights[(i / kGroup * kPanel + lane) * kGroup + i % kGroup] = whole;
      all += whole;
    });
  to.scales[lane] = finite ? most / kMostOfWeights : wrong;
  to.starts[lane] = -all * kZero;
}

inline void pack_int8(const Packing& p, const Tensor& w, std::size_t panel0, std::size_t panel1, void* packed) {
  for (std::size_t panel = panel0; panel < panel1; ++panel) {
    const PanelColumns c = columns_of(p, panel, kLanes);
    const Integers to = panel_int8(packed, p.k, panel);
    __builtin_memset(to.scales, 0, panel_bytes_int8(p.k));
    for (int i = 0; i < c.n_first; ++i) put_column(w, c.first + i, p.k, i, to);
    for (int i = 0; i < c.n_second; ++i) put_column(w, c.second + i, p.k, kLanes + i, to);
  }
}
