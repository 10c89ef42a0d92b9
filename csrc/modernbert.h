/* The C interface of libmodernbert.so: ModernBERT encoders on CPUs.
 *
 *     modernbert_model *model;
 *     if (modernbert_open("folder", NULL, &model)) puts(modernbert_last_error());
 *
 * Token ids go in; hidden states come out (modernbert_forward), one vector a sequence (modernbert_embed), as
 * sentence-transformers makes it, or a classifier's logits (modernbert_logits). Texts go in by modernbert_text.h.
 *
 * Every function that can fail returns a modernbert_status; modernbert_last_error tells why, per
 * thread. Arguments are checked before anything is done, and nothing is thrown; callbacks must not
 * throw either. Structs start with their size, which the caller sets to sizeof (modernbert_tensor,
 * given in arrays, has none); in options, input and run, fields that are left zero mean the default.
 * A model may be used by several threads at once, and is closed once, when nobody uses it.
 * Arrays are C-contiguous and aligned as their elements; results overlap no argument. Equations and
 * names are those of MODEL.md.
 */
#ifndef MODERNBERT_H
#define MODERNBERT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MODERNBERT_API __attribute__((visibility("default")))
#else
#define MODERNBERT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

typedef enum {
    MODERNBERT_OK = 0,
    MODERNBERT_INVALID_ARGUMENT = 1, /* the caller's; nothing was done */
    MODERNBERT_BAD_FILE = 2,         /* missing, broken or not supported: file, key, byte offset;
                                        of a forward pass: the token embedding cannot be read from
                                        its file any more, which was closed, cut or written to; out
                                        is unfinished */
    MODERNBERT_OUT_OF_MEMORY = 3,
    MODERNBERT_INTERRUPTED = 4, /* by a callback of the caller; out is unfinished */
    MODERNBERT_INTERNAL = 5,    /* a mistake of the library */
    MODERNBERT_NO_DEVICE = 6    /* of modernbert_cuda.h: no driver, no such device, or no code for it */
} modernbert_status;

/* How a tensor is stored. */
typedef enum {
    MODERNBERT_FLOAT32 = 0,
    MODERNBERT_BFLOAT16 = 1,
    MODERNBERT_FLOAT16 = 2
} modernbert_storage;

typedef struct modernbert_model modernbert_model;

/* Why the last call in this thread failed; "" when none did. Valid until this thread's next failure. */
MODERNBERT_API const char *modernbert_last_error(void);

/* -- what is here -- */

MODERNBERT_API const char *modernbert_version(void);
MODERNBERT_API const char *modernbert_compiler(void);

/* Tiers of this build, best first; NULL past the last. */
MODERNBERT_API const char *modernbert_tier_name(size_t i);
/* Why tier i cannot run here; "" when it can, NULL past the last. Valid until this thread's next call. */
MODERNBERT_API const char *modernbert_tier_missing(size_t i);
/* The best tier that runs here, offers the dtype (NULL: float32) and is not above `cap` (NULL or "":
 * no cap). */
MODERNBERT_API int modernbert_best_tier(const char *cap, const char *dtype, const char **tier);
/* REFIMPL_THREADS, else OMP_NUM_THREADS, else the least of affinity, cgroup quota and cores; at most
 * 256. A variable that holds no positive number is passed over. */
MODERNBERT_API int modernbert_default_threads(void);
/* From here on the calling thread is in the background: its passes have helpers of their own, and on Linux it
 * and they run at a lower priority (nice + 10): they take what other threads leave of the cores, and a tenth
 * at least. There is no way back. */
MODERNBERT_API void modernbert_give_way(void);

/* -- a model -- */

/* Packed weights in a file, which is mapped, so that a model opens at once and processes share its pages. */
typedef enum {
    MODERNBERT_PACK_TAKEN = 0, /* one that is fresh is used */
    MODERNBERT_PACK_MADE = 1,  /* and where there is none it is written first; where it cannot be, weights are packed
                                  in memory */
    MODERNBERT_PACK_LEFT = 2,  /* weights are packed in memory */
    MODERNBERT_PACK_NEEDED = 3 /* where there is no fresh one: MODERNBERT_BAD_FILE, and why */
} modernbert_pack_use;

typedef struct {
    size_t struct_size;
    const char *dtype; /* of the products: "float32" (NULL), "bf16x3", "bfloat16", "int8" */
    /* No tier above this one; NULL: the best that runs here. REFIMPL_ISA is not read: pass it on. */
    const char *tier_cap;
    int threads; /* of a forward pass that names none, at most 256; 0: modernbert_default_threads() */
    /* Called in the calling thread when the weights of a layer were copied, whose source is not read
     * again. NULL: not called. */
    void (*packed)(void *user, int64_t layer);
    /* The same before they are copied: they were not read yet. Not 0: stop. NULL: not called. */
    int (*reading)(void *user, int64_t layer);
    void *user;
    int pack;                /* a modernbert_pack_use; of modernbert_open */
    const char *pack_folder; /* where packs are; NULL: beside config.json */
} modernbert_options;

/* Writes the pack of a folder for the tier, dtype and pack_folder of options, unless there is a fresh one: under
 * another name beside its place, then moved there, so that no process sees half of one. Several that do so at once wait for
 * the first. A pack belongs to one tier, one dtype, one layout of this library, and to the model's files: it is fresh
 * as long as their names and sizes, bytes out of every tensor, and their times of change or else all their bytes, are
 * those that it was made of. It is not to be cut or written over while a model is open: that is MODERNBERT_BAD_FILE
 * for the next pass, and ends a process that reads a page which is gone. options may be NULL. */
MODERNBERT_API int modernbert_pack(const char *folder, const modernbert_options *options);

/* The encoder of a folder in the Hugging Face or sentence-transformers layout: config.json and
 * model.safetensors (or its shards), and the modules behind it that modules.json names; for int8 also
 * int8.json, which says what is kept and of which weights (facts.certificate). Files are read, not
 * mapped, and one that changes during this call is MODERNBERT_BAD_FILE. The one with the token embedding stays open, and rows are read from it as they are
 * needed: it may be replaced or deleted while the model is open. Where it was written to or cut instead,
 * which its size and its time of change tell, a forward pass with ids is MODERNBERT_BAD_FILE from then on,
 * and no mixture of two models. options may be NULL. On MODERNBERT_OK *model is to be closed. */
MODERNBERT_API int modernbert_open(const char *folder, const modernbert_options *options,
                                   modernbert_model **model);

typedef enum {
    MODERNBERT_POOLING = 0,
    MODERNBERT_DENSE = 1,
    MODERNBERT_LAYER_NORM = 2,
    MODERNBERT_NORMALIZE = 3
} modernbert_module_kind;

/* A module behind an encoder, as sentence-transformers has it; what concerns other kinds is not looked at.
 * Its tensors are named by its place, from 1 on: "2_Dense.linear.weight", "2_Dense.linear.bias",
 * "3_LayerNorm.norm.weight", "3_LayerNorm.norm.bias". */
typedef struct {
    int kind; /* a modernbert_module_kind */
    /* Pooling: "cls" (the first visible token), "max", "mean", "mean_sqrt_len_tokens", "weightedmean",
     * "lasttoken", or several with a space between, whose vectors are joined. */
    const char *modes;
    int prompt_left_out;    /* Pooling: not 0: over the tokens behind modernbert_embedding.prompt_tokens */
    int64_t width;          /* Dense: of what it gives */
    const char *activation; /* Dense: as hidden_activation, or "linear" */
} modernbert_module;

typedef struct {
    size_t struct_size;
    int64_t vocab, hidden, inter, heads, layers;
    int64_t types;          /* rows of the token type table; 0: there is none */
    const int64_t *windows; /* [layers] largest visible |i - j|; negative: everything is visible */
    const double *thetas;   /* [layers] of RoPE */
    double norm_eps; /* that a normal float32 can hold, as norms are computed in it */
    const char *activation; /* as hidden_activation; NULL: "gelu" */
    /* Behind the encoder, for modernbert_embed: the first is the only Pooling. None: the mean. */
    const modernbert_module *modules;
    size_t module_count;
    /* int8 alone: [layers] matrices that are kept in bfloat16, a sum of 1 (attn.Wqkv), 2 (attn.Wo),
     * 4 (mlp.Wi), 8 (mlp.Wo), and in float32: of 16, 32, 64, 128. NULL: none. */
    const uint32_t *kept;
    /* Of a sequence classifier, for modernbert_logits; 0: there is none. Its tensors: head.dense.weight,
     * head.norm.weight, classifier.weight [labels, hidden], and their biases. */
    int64_t labels;
    const char *classifier_pooling;    /* "cls" (NULL): the first token, visible or not; "mean" */
    const char *classifier_activation; /* as hidden_activation; NULL: "gelu" */
} modernbert_config;

/* Numbers in an open file, from byte `offset` on, in the machine's byte order. */
typedef struct {
    int descriptor; /* of a regular file; is duplicated: the caller may close it */
    int64_t offset;
} modernbert_file;

/* A parameter under its name in MODEL.md section 7, linear weights [out, in]. */
typedef struct {
    const char *name;
    const void *data;
    modernbert_storage storage;
    int rank;
    const int64_t *shape;
    const modernbert_file *file; /* instead of data, of the token embedding alone; else NULL */
} modernbert_tensor;

/* An encoder from memory. Every tensor of MODEL.md section 7 must be there; a bias may be left out,
 * nothing else may be given. The token embedding's data, or its file, are read as long as the model is
 * open and must not change (a file that did is told, as for modernbert_open), the rest during this call only. A file's rows are read as they are needed,
 * and take no memory.
 * Values are not looked at: what is not finite makes results so. */
MODERNBERT_API int modernbert_create(const modernbert_config *config, const modernbert_tensor *tensors,
                                     size_t count, const modernbert_options *options,
                                     modernbert_model **model);

MODERNBERT_API void modernbert_close(modernbert_model *model); /* NULL is legal */

/* What int8 costs a model was measured, by `modernbert quantize`, where its folder has an int8.json. */
typedef enum {
    MODERNBERT_NOT_MEASURED = 0,
    MODERNBERT_MEASURED = 1,
    MODERNBERT_OTHERS_MEASURED = 2 /* of other weights: what it keeps is kept, and nobody knows what that costs */
} modernbert_certificate;

typedef struct {
    size_t struct_size;
    int64_t vocab, hidden, inter, heads, layers, types;
    const char *tier, *dtype;
    int threads;
    uint64_t packed_bytes; /* of the matrices, which the model holds beside the embedding */
    int64_t modules;       /* behind the encoder */
    int64_t width;         /* of a vector of modernbert_embed that is asked for no other; 0: it gives none */
    int scores;            /* not 0: its vectors are a reranker's scores, before their activation */
    int64_t labels;        /* of modernbert_logits; 0: there are none */
    const char *pack;      /* the path of the pack that is mapped; NULL: weights are in memory of this process */
    int certificate;       /* of int8: a modernbert_certificate */
} modernbert_facts;

/* Fills in *facts, whose struct_size is set; texts live as long as the model. */
MODERNBERT_API int modernbert_model_facts(const modernbert_model *model, modernbert_facts *facts);

/* The name of label i of a sequence classifier's folder, as long as the model lives; NULL past the last. */
MODERNBERT_API const char *modernbert_model_label(const modernbert_model *model, size_t i);

/* Bytes that a forward pass needs for so many tokens in so many sequences, and keeps for the next one or, of
 * more than 16 MiB, frees; index arrays and rotary tables come on top. threads 0: the model's. */
MODERNBERT_API int modernbert_workspace_bytes(const modernbert_model *model, int64_t total,
                                              int64_t sequences, int threads, uint64_t *bytes);

/* -- a forward pass -- */

/* Sequences one after the other; total = cu_seqlens[sequences]. Exactly one of ids and embeddings. */
typedef struct {
    size_t struct_size;
    int64_t sequences;
    const int64_t *cu_seqlens;    /* [sequences + 1] from 0, never falling */
    const int64_t *ids;           /* [total] in 0 .. vocab - 1 */
    const float *embeddings;      /* [total, hidden], before their norm */
    const int64_t *token_types;   /* [total]; NULL: type 0, where the model has types */
    const int64_t *positions;     /* [total], at least 0; NULL: 0, 1, .. in each sequence */
    const unsigned char *visible; /* [total], 0: hidden as a key; NULL: all visible */
} modernbert_input;

typedef struct {
    size_t struct_size;
    int threads; /* 0: the model's */
    /* Asked now and then in the calling thread; not 0: stop. NULL: never asked. */
    int (*interrupt)(void *user);
    void *user;
} modernbert_run;

/* out [total, hidden], its number of floats in out_count: the last hidden state. run may be NULL. */
MODERNBERT_API int modernbert_forward(const modernbert_model *model, const modernbert_input *input,
                                      const modernbert_run *run, float *out, size_t out_count);

/* -- one vector a sequence -- */

typedef struct {
    size_t struct_size;
    int64_t width; /* values kept of each vector; 0: facts.width, which is the folder's truncate_dim where
                      it has one, else all that the modules give */
    int normalize; /* not 0: then to length 1, by dividing by max(|x|, 1e-12) */
    int64_t prompt_tokens; /* so many tokens of each sequence, from its first visible one on, are a prompt's:
                              a Pooling that says so leaves them out */
} modernbert_embedding;

/* out [sequences, width], its number of floats in out_count: the modules behind the encoder, after a forward
 * pass whose hidden states take 4 total * hidden bytes on top of modernbert_workspace_bytes. A model without
 * modules gives the mean over visible tokens. Hidden tokens are not pooled; a sequence without a visible one
 * is pooled to zeros. Modules compute in float32 whatever the model's dtype. A sequence's vector has the
 * same bits whatever stands beside it. embedding and run may be NULL. */
MODERNBERT_API int modernbert_embed(const modernbert_model *model, const modernbert_input *input,
                                    const modernbert_embedding *embedding, const modernbert_run *run,
                                    float *out, size_t out_count);

/* out [sequences, labels], its number of floats in out_count: what a sequence classifier gives for each, or a
 * reranker's modules that end in a Dense; before sigmoid, softmax or whatever makes scores of them
 * (modernbert_scores). In float32 whatever the model's dtype, with the same bits whatever stands beside it. run may
 * be NULL. */
MODERNBERT_API int modernbert_logits(const modernbert_model *model, const modernbert_input *input,
                                     const modernbert_run *run, float *out, size_t out_count);

/* out [rows, columns] = function(logits): "none", "sigmoid", "softmax" over each row, or as hidden_activation; in
 * double, rounded once. out may be logits. */
MODERNBERT_API int modernbert_scores(const char *function, size_t rows, size_t columns, const float *logits,
                                     float *out);

/* Rows [first_row, first_row + rows) of a step of MODEL.md section 2, [rows, columns]. */
typedef struct {
    size_t struct_size;
    const char *step; /* "layers.0.q" */
    int64_t layer;    /* -1 outside the layers */
    int64_t first_row, rows, columns;
    const float *data; /* valid until the callback returns, as step is */
} modernbert_piece;

/* Called in the calling thread; not 0: stop. */
typedef int (*modernbert_tap)(void *user, const modernbert_piece *piece);

/* The same pass, every step told to tap, some in several pieces. fused 0: all steps of MODEL.md, each
 * computed by itself; else those that modernbert_forward brings into being, with the same bits. */
MODERNBERT_API int modernbert_trace(const modernbert_model *model, const modernbert_input *input,
                                    int threads, int fused, modernbert_tap tap, void *user, float *out,
                                    size_t out_count);

/* end of declarations */

#ifdef __cplusplus
}
#endif
#endif
