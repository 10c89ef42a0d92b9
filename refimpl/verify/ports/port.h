/* modernbert verify: the C interface of a port.
 *
 * Build your ModernBERT as a shared library with these functions and run
 *     modernbert verify --library ./libport.so
 * The library is loaded in a process of its own: a crash or a hang is a verdict. Whatever the
 * library cannot do exactly it refuses (MBV_REFUSED): an approximation is a wrong answer.
 *
 * Arrays are C-contiguous. [tokens] is [batch, seq], or [total] of packed input. Names of steps and
 * their shapes are those of MODEL.md, for example layers.0.q [tokens, heads, head_dim].
 * Only mbv_open, mbv_close, mbv_forward and mbv_last_error are required.
 */
#ifndef MODERNBERT_VERIFY_PORT_H
#define MODERNBERT_VERIFY_PORT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

/* Status of every int function. MBV_REFUSED: understood, and not supported. */
enum { MBV_OK = 0, MBV_REFUSED = 1, MBV_ERROR = 2 };

/* Bits of mbv_abilities. */
enum {
    MBV_PACKED = 1,    /* takes cu_seqlens */
    MBV_POSITIONS = 2, /* takes position_ids */
    MBV_THREADS = 4,   /* mbv_forward may run in several threads on one model */
    MBV_INJECT = 8     /* calls the inject callback */
};

typedef struct mbv_model mbv_model; /* yours; opaque here */

/* One parameter under its Hugging Face name: float32, linear weights [out, in]. */
typedef struct {
    const char *name;
    const float *data;
    const int64_t *shape;
    int32_t rank;
} mbv_tensor;

/* Input of one forward pass. attention_mask: NULL = all tokens are real; nonzero = real.
 * position_ids: NULL = 0 .. seq - 1 (restarting in each packed sequence). cu_seqlens: NULL = padded
 * [batch, seq]; else [batch + 1] offsets, the first 0 and the last the total, and seq is 0. */
typedef struct {
    uint64_t struct_size; /* sizeof(mbv_input) of the caller */
    int64_t batch;
    int64_t seq;
    const int64_t *input_ids;
    const int64_t *attention_mask;
    const int64_t *position_ids;
    const int64_t *cu_seqlens;
} mbv_input;

/* Called with every step as it is computed, in the thread of mbv_forward; data is read before the
 * callback returns. */
typedef void (*mbv_tap)(void *user, const char *name, const float *data, const int64_t *shape,
                        int32_t rank);

/* Called with every step before it is used (and before the tap): 1 when data was replaced, in place,
 * by what the port is to go on with; 0 when it was left alone. */
typedef int32_t (*mbv_inject)(void *user, const char *name, float *data, const int64_t *shape,
                              int32_t rank);

/* Results and callbacks. hidden: [tokens, hidden], after the final norm. scores: logits, flat (for
 * question_answering start_logits, then end_logits); NULL without a head. tap, inject: may be NULL. */
typedef struct {
    uint64_t struct_size; /* sizeof(mbv_output) of the caller */
    float *hidden;
    float *scores;
    mbv_tap tap;
    mbv_inject inject;
    void *user;
} mbv_output;

/* A model from the text of config.json and its weights; the arrays are the caller's and end with the
 * call. head: NULL, or masked_lm, sequence_classification, token_classification,
 * question_answering. On MBV_OK *model is to be closed. */
int32_t mbv_open(const char *config_json, const char *head, const mbv_tensor *weights,
                 int64_t count, mbv_model **model);
void mbv_close(mbv_model *model);

/* One forward pass. */
int32_t mbv_forward(mbv_model *model, const mbv_input *input, mbv_output *output);

/* Why the last call in this thread did not give MBV_OK; never NULL, valid until the next call. */
const char *mbv_last_error(void);

/* Optional: bits of what the library can do; without it, nothing of that list is asked. */
int32_t mbv_abilities(void);

/* Optional: the effective compute dtype: float32, bfloat16, float16 or float64. */
const char *mbv_dtype(const mbv_model *model);

/* Optional: what is going to be computed, as JSON: {"hidden_size": 768, "norm_eps": 1e-05,
 * "hidden_activation": "gelu", "layers": [{"window": null, "theta": 160000.0}, ...], ...}, any
 * subset; window is the largest visible distance. Valid until mbv_close. */
const char *mbv_plan(const mbv_model *model);

/* Optional: a parameter as it is held, widened to float32 in the file's shape. MBV_REFUSED when
 * there is none of that name. */
int32_t mbv_weight(const mbv_model *model, const char *name, float *out, int64_t count);

/* end of declarations */

#ifdef __cplusplus
}
#endif
#endif
