// Operands that are bfloat16 rows, as tiles take them: k filled up with zeros to whole tiles, an odd
// number of cache lines apart. Included like amx_gemm.inl, after it.

inline std::size_t operand_bytes(std::size_t columns) { return row_bytes_of(columns); }

REFIMPL_INLINE const bf16* operand(const void* x, std::size_t ld, std::size_t r) {
  return reinterpret_cast<const bf16*>(static_cast<const char*>(x) + r * ld);
}
REFIMPL_INLINE bf16* operand(void* x, std::size_t ld, std::size_t r) {
  return reinterpret_cast<bf16*>(static_cast<char*>(x) + r * ld);
}

// Columns [column, column + n) of row r of operands of so many columns. Who writes the last column
// writes the zeros after it: a weight of zero does not hide a NaN.
REFIMPL_INLINE void store_operand(void* y, std::size_t ld, std::size_t r, std::size_t columns, std::size_t column,
                                  f32 v, int n) {
  bf16* row = operand(y, ld, r);
  store_first(row + column, v, n);
  if (column + n == columns)
    for (std::size_t i = columns; i < steps_of(columns) * kTileDepth; ++i) row[i].bits = 0;
}

// layer_norm (rowwise.inl), whose centred row has no place in y.
inline void norm_operand(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight,
                         const float* bias, float eps, void* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r, x += ldx) {
    f32 total = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) { total = add(total, load_first(x + i, lanes)); });
    const f32 mean = set1(sum(total) / static_cast<float>(n));
    const auto centred = [&](std::size_t i, int lanes) {
      return f32{_mm512_maskz_sub_ps(first_lanes(lanes), load_first(x + i, lanes).v, mean.v)};
    };
    f32 squares = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) { squares = fma(centred(i, lanes), centred(i, lanes), squares); });
    const float variance = sum(squares) / static_cast<float>(n);
    const f32 scale = set1(1.0f / __builtin_sqrtf(variance + eps));
    for_lanes(n, [&](std::size_t i, int lanes) {
      f32 v = mul(mul(centred(i, lanes), scale), load_first(weight + i, lanes));
      if (bias) v = add(v, load_first(bias + i, lanes));
      store_operand(y, ldy, r, n, i, v, lanes);
    });
  }
}

inline void to_operand(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, void* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r, x += ldx)
    for_lanes(n, [&](std::size_t i, int lanes) { store_operand(y, ldy, r, n, i, load_first(x + i, lanes), lanes); });
}

inline void from_operand(std::size_t rows, std::size_t n, const void* x, std::size_t ldx, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r, y += ldy)
    for_lanes(n, [&](std::size_t i, int lanes) { store_first(y + i, load_first(operand(x, ldx, r) + i, lanes), lanes); });
}
