/* The C interface of libmodernbert_cuda.so: ModernBERT encoders on CUDA devices of compute capability 8.0 and later.
 *
 *     modernbert_cuda_model *model;
 *     if (modernbert_cuda_create(&config, tensors, count, NULL, &model)) puts(modernbert_cuda_last_error());
 *
 * A model is described as modernbert_create has it, and has the same contracts: tokens of sequences that
 * stand one after the other, a sequence's result with the same bits whatever stands beside it, hidden
 * tokens that nothing sees, arguments checked before anything is done. modernbert.h says what the structs
 * are; statuses are a modernbert_status. Nothing here needs libmodernbert.so. A library without a driver
 * loads, and says MODERNBERT_NO_DEVICE when it is asked for a device.
 */
#ifndef MODERNBERT_CUDA_H
#define MODERNBERT_CUDA_H

#include "modernbert.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

typedef struct modernbert_cuda_model modernbert_cuda_model;

/* Why the last call in this thread failed; "" when none did. Valid until this thread's next failure. */
MODERNBERT_API const char *modernbert_cuda_last_error(void);

/* -- what is here -- */

MODERNBERT_API const char *modernbert_cuda_version(void);
/* What this library has code for: "sm_80 sm_90a". */
MODERNBERT_API const char *modernbert_cuda_architectures(void);

typedef struct {
    size_t struct_size;
    char name[256];
    int major, minor;        /* compute capability */
    uint64_t memory;         /* bytes */
    int multiprocessors;
    char missing[512];       /* why a model cannot be there; "" where it can */
} modernbert_cuda_device;

/* Devices that there are; MODERNBERT_NO_DEVICE without a driver that this library can use. */
MODERNBERT_API int modernbert_cuda_count(int *count);
/* Fills in *facts, whose struct_size is set. */
MODERNBERT_API int modernbert_cuda_device_facts(int device, modernbert_cuda_device *facts);

/* -- a model -- */

typedef struct {
    size_t struct_size;
    int device;        /* from 0 */
    const char *dtype; /* of the products: "float32" (NULL), "bf16x3", "bfloat16" */
    /* As in modernbert_options. */
    void (*packed)(void *user, int64_t layer);
    int (*reading)(void *user, int64_t layer);
    void *user;
    int no_graphs; /* 1: kernels are started one by one, always */
} modernbert_cuda_options;

/* An encoder, and what stands behind it, from memory: tensors, and what becomes of them, are as modernbert_create
 * has them, but that the token embedding is copied to the device too. Heads have up to 128 columns.
 * MODERNBERT_OUT_OF_MEMORY where the device has not enough, and nothing is left there. options may be NULL. */
MODERNBERT_API int modernbert_cuda_create(const modernbert_config *config, const modernbert_tensor *tensors,
                                          size_t count, const modernbert_cuda_options *options,
                                          modernbert_cuda_model **model);
MODERNBERT_API void modernbert_cuda_close(modernbert_cuda_model *model); /* NULL is legal */

typedef struct {
    size_t struct_size;
    int64_t vocab, hidden, inter, heads, layers, types;
    int device;
    const char *dtype;
    uint64_t weight_bytes; /* of the device, all weights */
    int64_t modules, width, labels; /* as in modernbert_facts */
} modernbert_cuda_facts;

/* Fills in *facts, whose struct_size is set. */
MODERNBERT_API int modernbert_cuda_model_facts(const modernbert_cuda_model *model, modernbert_cuda_facts *facts);

/* Bytes of the device that a pass takes for so many tokens in so many sequences, before anything is started; rotary
 * tables on top: 8 head_dim bytes a theta and position, of the next power of two of the longest sequence that
 * there was, or of every token where positions are given. A model keeps what up to four passes took, and of each up to
 * 16 CUDA graphs: passes of up to 2,048 tokens in 256 sequences are rounded up to a bucket's size, whose kernels are one
 * launch from the second pass on, with the bits that they have one by one. What a graph takes of the device is the driver's
 * to say. */
MODERNBERT_API int modernbert_cuda_workspace_bytes(const modernbert_cuda_model *model, int64_t total,
                                                   int64_t sequences, uint64_t *bytes);
/* Gives back what no pass uses. */
MODERNBERT_API int modernbert_cuda_trim(const modernbert_cuda_model *model);

/* -- a pass, of arrays of the host -- */

/* As modernbert_forward, modernbert_embed and modernbert_logits; run->threads is not looked at. MODERNBERT_OUT_OF_MEMORY
 * where the device has not enough: nothing was done, and the model stays usable. */
MODERNBERT_API int modernbert_cuda_forward(const modernbert_cuda_model *model, const modernbert_input *input,
                                           const modernbert_run *run, float *out, size_t out_count);
MODERNBERT_API int modernbert_cuda_embed(const modernbert_cuda_model *model, const modernbert_input *input,
                                         const modernbert_embedding *embedding, const modernbert_run *run,
                                         float *out, size_t out_count);
MODERNBERT_API int modernbert_cuda_logits(const modernbert_cuda_model *model, const modernbert_input *input,
                                          const modernbert_run *run, float *out, size_t out_count);
/* As modernbert_trace. */
MODERNBERT_API int modernbert_cuda_trace(const modernbert_cuda_model *model, const modernbert_input *input,
                                         int fused, modernbert_tap tap, void *user, float *out, size_t out_count);

/* -- a pass, of arrays of the device -- */

/* out [total, hidden] of the device: the last hidden state. Of input, ids, embeddings, token_types and visible are of the
 * device, the rest of the host. stream: the caller's, as a number (cudaStream_t; 0 and 1 the default stream, 2 that of the
 * thread); the pass is put into it and not waited for, so that arrays must stay until it is over. An id or a type that there
 * is no row for makes its row NaN, as nobody looks at it before. */
MODERNBERT_API int modernbert_cuda_forward_there(const modernbert_cuda_model *model, const modernbert_input *input,
                                                 uintptr_t stream, float *out, size_t out_count);

/* Memory of a device, to be given back; copies, which are waited for. */
MODERNBERT_API int modernbert_cuda_allocate(int device, size_t bytes, void **memory);
MODERNBERT_API void modernbert_cuda_free(int device, void *memory); /* NULL is legal */
MODERNBERT_API int modernbert_cuda_to_host(int device, void *to, const void *from, size_t bytes);
MODERNBERT_API int modernbert_cuda_to_device(int device, void *to, const void *from, size_t bytes);
/* What a stream of the caller is given from now on begins when all that another was given is done; nobody waits here. */
MODERNBERT_API int modernbert_cuda_wait(int device, uintptr_t stream, uintptr_t other);
/* All that a stream of the caller was given is done. */
MODERNBERT_API int modernbert_cuda_finish(int device, uintptr_t stream);

/* end of declarations */

#ifdef __cplusplus
}
#endif
#endif
