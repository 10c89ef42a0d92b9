// Operands that are float32 rows, and the width of a panel. Included like gemm.inl, after rowwise.inl.

constexpr std::size_t kLanes = f32::lanes;
constexpr std::size_t kPanel = 2 * kLanes;

inline std::size_t operand_bytes(std::size_t columns) { return columns * sizeof(float); }

// Row r of operands with that stride.
REFIMPL_INLINE const float* operand(const void* x, std::size_t ld, std::size_t r) {
  return reinterpret_cast<const float*>(static_cast<const char*>(x) + r * ld);
}
REFIMPL_INLINE float* operand(void* x, std::size_t ld, std::size_t r) {
  return reinterpret_cast<float*>(static_cast<char*>(x) + r * ld);
}

// Columns [column, column + n) of row r of operands of so many columns.
REFIMPL_INLINE void store_operand(void* y, std::size_t ld, std::size_t r, std::size_t, std::size_t column, f32 v,
                                  int n) {
  store_first(operand(y, ld, r) + column, v, n);
}

inline void norm_operand(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight,
                         const float* bias, float eps, void* y, std::size_t ldy) {
  layer_norm(rows, n, x, ldx, weight, bias, eps, static_cast<float*>(y), ldy / sizeof(float));
}

inline void copy_rows(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r, x += ldx, y += ldy)
    for_lanes(n, [&](std::size_t i, int lanes) { store_first(y + i, load_first(x + i, lanes), lanes); });
}

inline void to_operand(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, void* y, std::size_t ldy) {
  copy_rows(rows, n, x, ldx, static_cast<float*>(y), ldy / sizeof(float));
}

inline void from_operand(std::size_t rows, std::size_t n, const void* x, std::size_t ldx, float* y, std::size_t ldy) {
  copy_rows(rows, n, static_cast<const float*>(x), ldx / sizeof(float), y, ldy);
}
