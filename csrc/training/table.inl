// The table of a tier. Included last.

constexpr Adjoints adjoints = {kRows, kPanel, 1, sizeof(float), 256, false, std::size_t{1} << 18,
                               gather<kRows>, gather<kPanel>, outer, layer_norm_adjoint, glu_adjoint, attention_adjoint,
                               adjoint_floats, cross_entropy, adamw, stable_moments, stable_step};
