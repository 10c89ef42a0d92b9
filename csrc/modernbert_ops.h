/* Single operations of libmodernbert.so, by tier and dtype: for tests and benchmarks, not for models.
 *
 * Names of tiers and dtypes, statuses and rules are those of modernbert.h. All arrays are float32 and
 * row-major but for weights, which have a storage. Results overlap no argument.
 */
#ifndef MODERNBERT_OPS_H
#define MODERNBERT_OPS_H

#include "modernbert.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

/* MODERNBERT_OK when the tier runs here and offers the dtype. */
MODERNBERT_API int modernbert_op_offered(const char *tier, const char *dtype);

/* y [m, n] = x [m, k] W^T + bias + residual, W [n, k], k >= 1; bias [n] and residual [m, n] may be
 * NULL. Done row_split rows and panel_split panels at a time, each at least 1. */
MODERNBERT_API int modernbert_op_linear(const char *tier, const char *dtype, size_t m, size_t n, size_t k,
                                        const float *x, const void *weight, modernbert_storage storage,
                                        const float *bias, const float *residual, size_t row_split,
                                        size_t panel_split, float *y);

/* y [m, n / 2] = act(gate) * up of x W^T + bias, n even, gate rows first: in one product. */
MODERNBERT_API int modernbert_op_linear_glu(const char *tier, const char *dtype, const char *activation,
                                            size_t m, size_t n, size_t k, const float *x,
                                            const void *weight, modernbert_storage storage,
                                            const float *bias, size_t row_split, size_t panel_split,
                                            float *y);

/* LayerNorm of each row of x [rows, n], n >= 1; bias [n] may be NULL. */
MODERNBERT_API int modernbert_op_layer_norm(const char *tier, const char *dtype, size_t rows, size_t n,
                                            const float *x, const float *weight, const float *bias,
                                            float eps, float *y);

/* y [rows, inter] = act(u[:, :inter]) * u[:, inter:], u [rows, 2 inter], inter >= 1. */
MODERNBERT_API int modernbert_op_glu(const char *tier, const char *dtype, const char *activation,
                                     size_t rows, size_t inter, const float *u, float *y);

/* y: x [seq, heads, head_dim] rotated by cos, sin [seq, head_dim / 2], head_dim even. */
MODERNBERT_API int modernbert_op_rope(const char *tier, const char *dtype, size_t seq, size_t heads,
                                      size_t head_dim, const float *x, const float *cos,
                                      const float *sin, float *y);

/* Softmax attention of one sequence; q, k, v, y [seq, heads, head_dim], head_dim even. window < 0:
 * everything is visible; visible [seq], 0: hidden as a key; NULL: all visible. */
MODERNBERT_API int modernbert_op_attention(const char *tier, const char *dtype, size_t seq, size_t heads,
                                           size_t head_dim, int64_t window, const float *q,
                                           const float *k, const float *v,
                                           const unsigned char *visible, float *y);

/* end of declarations */

#ifdef __cplusplus
}
#endif
#endif
