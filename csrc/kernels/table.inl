// The tables of a tier whose operands are float32. Included last, like gemm.inl.

template <class W>
constexpr Kernels table = {kLanes, 1, kChunk, kPanel, kQueries, kQueryParts, operand_bytes, packed_bytes<W>, kv_bytes,
                           scratch_bytes, pack<W>, pack_turned<W>, project<W>, project_glu<W>, project_qkv<W>,
                           layer_norm, norm_operand, to_operand, from_operand, attention, glu, rope, place_qkv};

// Without int8, whose products need not be the tier's own.
inline const Kernels* table_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return &table<float>;
    case Dtype::bfloat16: return &table<bf16>;
    default: return nullptr;
  }
}
