// The table of a tier in bfloat16: avx512's, with sums over rows and attention in tiles. Included last, in the tier's
// namespace and outside its target region: it may be asked for where none of this runs.

inline Adjoints half_table() {
  Adjoints a = adjoints_avx512(Dtype::bfloat16);
  a.left_width = a.right_width = kPanel;
  a.row_step = kTileDepth, a.number_bytes = sizeof(bf16);
  a.outer_rows = 512, a.left_stays = true, a.passing = std::size_t{1} << 20;
  a.gather_left = gather<true>, a.gather_right = gather<false>;
  a.outer = outer;
  a.attention = attention_adjoint, a.attention_floats = adjoint_floats;
  return a;
}
