/* Training of encoders in libmodernbert.so: for refimpl/train, not for other programs yet.
 *
 * Statuses, names of tiers and dtypes, and rules are those of modernbert.h; all arrays are float32 and
 * row-major. A gradient is added to what its array holds. Sums over rows are taken by sequences: `ends`
 * [sequences] are the rows before which each ends, never falling. So no bit depends on threads, or on how
 * the sequences of a step are shared between calls.
 */
#ifndef MODERNBERT_TRAINING_H
#define MODERNBERT_TRAINING_H

#include "modernbert.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

/* -- passes of an encoder -- */

typedef struct modernbert_training modernbert_training;

/* A tensor of MODEL.md section 7. Its memory is read in every pass, and may change in between. */
typedef struct {
    const char *name;
    const float *weight;
    float *gradient; /* of the same shape; NULL: not wanted */
    int rank;
    const int64_t *shape;
} modernbert_parameter;

/* tier_cap, dtype: as in modernbert_options. Products of the passes are taken in dtype; sums over rows,
 * statistics and gradients are float32. config->modules are not looked at. */
MODERNBERT_API int modernbert_training_create(const modernbert_config *config,
                                              const modernbert_parameter *parameters, size_t count,
                                              const char *tier_cap, const char *dtype,
                                              modernbert_training **training);
MODERNBERT_API void modernbert_training_close(modernbert_training *training); /* NULL is legal */
MODERNBERT_API const char *modernbert_training_tier(const modernbert_training *training);

/* out [total, hidden], its number of floats in out_count: the last hidden state. input has ids. Of the first
 * `recomputed` layers only the input is kept, and the rest computed again on the way back; the bits are the same. */
MODERNBERT_API int modernbert_training_forward(modernbert_training *training, const modernbert_input *input,
                                               size_t recomputed, const modernbert_run *run, float *out,
                                               size_t out_count);
/* The way back in its parts, each once after a forward pass, in this order: config->layers from d [total, hidden]
 * of the last hidden state through the final norm, then each layer from the last on, and -1, the embedding's norm.
 * d is NULL but for the first. A part's gradients are complete when it returns, and its weights are not read
 * again before the next forward pass: both may change. Rows of the embeddings wait for modernbert_training_finish.
 * MODERNBERT_INTERRUPTED and MODERNBERT_OUT_OF_MEMORY leave gradients unfinished, and no way on: to begin the step
 * anew call modernbert_training_finish, for the rows that wait, then set the gradients to zero. */
MODERNBERT_API int modernbert_training_backward(modernbert_training *training, int64_t part, const float *d,
                                                size_t d_count, const modernbert_run *run);
/* The gradients of the embeddings, of all passes since the last call, in their order. */
MODERNBERT_API int modernbert_training_finish(modernbert_training *training, int threads);

/* -- what heads are made of; threads at least 1 -- */

/* y [m, n] = x [m, k] W^T + bias, W [n, k], k >= 1; bias [n] may be NULL. */
MODERNBERT_API int modernbert_rows_linear(const char *tier, const char *dtype, int threads, size_t m, size_t n,
                                          size_t k, const float *x, const float *weight, const float *bias,
                                          float *y);
/* dx [m, k] = dy W; dw [n, k] += dy^T x; db [n] += dy. Each of the three may be NULL. */
MODERNBERT_API int modernbert_rows_linear_adjoint(const char *tier, const char *dtype, int threads,
                                                  const int64_t *ends, size_t sequences, size_t m, size_t n,
                                                  size_t k, const float *dy, const float *x,
                                                  const float *weight, float *dx, float *dw, float *db);
/* Cross-entropy of logits x W^T + bias under labels [m] in 0 .. n - 1, smoothed as MODEL.md (48) has it:
 * losses [m]; dx [m, k], dw and db as above, of share times their sum. Logits exist for some rows at a time. */
MODERNBERT_API int modernbert_rows_cross_entropy(const char *tier, const char *dtype, int threads,
                                                 const int64_t *ends, size_t sequences, size_t m, size_t n,
                                                 size_t k, const float *x, const float *weight,
                                                 const float *bias, const int64_t *labels, float smoothing,
                                                 float share, double *losses, float *dx, float *dw, float *db);
/* dx [rows, n]; dw [n] += sum dy normed, db [n] += sum dy, which may be NULL. */
MODERNBERT_API int modernbert_rows_layer_norm_adjoint(const char *tier, const int64_t *ends, size_t sequences,
                                                      size_t rows, size_t n, const float *dy, const float *x,
                                                      const float *weight, float eps, float *dx, float *dw,
                                                      float *db);
/* du [rows, 2 inter] of y = act(u[:, :inter]) u[:, inter:], inter >= 1. */
MODERNBERT_API int modernbert_rows_glu_adjoint(const char *tier, const char *activation, size_t rows,
                                               size_t inter, const float *dy, const float *u, float *du);
/* One sequence; dy, q, k, v, dq, dk, dv [seq, heads, head_dim]; window, visible as in modernbert_ops.h. */
MODERNBERT_API int modernbert_rows_attention_adjoint(const char *tier, const char *dtype, size_t seq,
                                                     size_t heads, size_t head_dim, int64_t window,
                                                     const float *dy, const float *q, const float *k,
                                                     const float *v, const unsigned char *visible, float *dq,
                                                     float *dk, float *dv);

/* -- updates of one tensor of n numbers, in place -- */

typedef struct {
    size_t struct_size;
    double lr, weight_decay, eps, beta1, beta2;
    double peak;  /* StableAdamW's */
    int64_t step; /* from 1 on */
} modernbert_update;

/* MODEL.md (53); the bits of refimpl.train.AdamW. */
MODERNBERT_API int modernbert_adamw(const char *tier, int threads, const modernbert_update *update, size_t n,
                                    float *p, const float *g, float *m, float *v);
/* MODEL.md (54), (55). */
MODERNBERT_API int modernbert_stable_adamw(const char *tier, int threads, const modernbert_update *update,
                                           size_t n, float *p, const float *g, float *m, float *v);

/* -- a tensor of n numbers, such as a gradient, on threads: memory alone is what they wait for -- */

/* 1 where no number is Inf or NaN, else 0. */
MODERNBERT_API int modernbert_all_finite(int threads, size_t n, const float *x, int *finite);
/* x = 0. */
MODERNBERT_API int modernbert_clear(int threads, size_t n, float *x);

/* end of declarations */

#ifdef __cplusplus
}
#endif
#endif
