// The float32 table of a tier with products of integers by `Dots`. Included after int8_gemm.inl and project.inl,
// in their namespace.

constexpr Kernels int8_table = [] {
  Kernels k = table<float>;
  k.row_chunk = 2 * kChunk;  // rows are a quarter as long
  k.packed_bytes = packed_bytes_int8;
  k.pack = pack_int8;
  k.pack_turned = nullptr;  // nothing is trained in integers
  k.project = project<Dots>;
  k.project_glu = project_glu<Dots>;
  k.project_qkv = project_qkv<Dots>;
  k.integer_bytes = integer_bytes;
  k.to_integers = to_integers;
  k.in_bfloat16 = &table<bf16>;
  k.in_float32 = &table<float>;
  return k;
}();
