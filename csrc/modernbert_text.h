/* Texts in: vectors, scores and labels of a folder's model, and ids by a tokenizer alone.
 *
 *     modernbert_model *model;
 *     if (modernbert_open_text("folder", NULL, &model)) puts(modernbert_last_error());
 *
 * Statuses and rules are those of modernbert.h. Texts are UTF-8 with their size in bytes, below 2 GiB. What
 * comes out has the bits of the same call in Python (SentenceEncoder, Reranker, TextClassification) on the same
 * machine. Ids and offsets are those of the `tokenizers` package; a tokenizer.json with a step that is not here is
 * MODERNBERT_BAD_FILE with the step's name.
 */
#ifndef MODERNBERT_TEXT_H
#define MODERNBERT_TEXT_H

#include "modernbert.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

/* -- a model with its texts -- */

/* modernbert_open, and what the folder says of texts: its tokenizer with the files beside it, prompts, lengths,
 * activations. MODERNBERT_BAD_FILE for a folder without tokenizer.json, or with one that is not known here. */
MODERNBERT_API int modernbert_open_text(const char *folder, const modernbert_options *options,
                                        modernbert_model **model);

typedef struct {
    size_t struct_size;
    int64_t longest; /* tokens of a text that names no other limit, special ones too; 0: there is none */
    int64_t query_length, document_length; /* the same of a query, of a document; 0: as any text */
    const char *default_prompt; /* its name; NULL: there is none */
} modernbert_text_facts;

/* Of a model that was opened with texts; struct_size is set. */
MODERNBERT_API int modernbert_text_facts_of(const modernbert_model *model, modernbert_text_facts *facts);
/* Prompt i of the folder, by name and text, as long as the model; both NULL past the last. */
MODERNBERT_API int modernbert_prompt(const modernbert_model *model, size_t i, const char **name, const char **text);

typedef struct {
    const char *text;
    size_t bytes;
    const char *pair; /* the second text of a pair; NULL: there is none */
    size_t pair_bytes;
} modernbert_text;

typedef enum {
    MODERNBERT_AS_TEXT = 0,
    MODERNBERT_AS_QUERY = 1,   /* the prompt "query" and the folder's query_length, */
    MODERNBERT_AS_DOCUMENT = 2 /* or those of a document, unless others are named */
} modernbert_role;

typedef enum {
    MODERNBERT_CUT_OR_KEEP = 0, /* texts that are classified are cut only where max_length is given, others are */
    MODERNBERT_CUT = 1,         /* what is over the limit goes, at the end that the folder says, and is told */
    MODERNBERT_REFUSE = 2,      /* MODERNBERT_INVALID_ARGUMENT for a text over the limit */
    MODERNBERT_KEEP = 3         /* every text is whole */
} modernbert_truncation;

typedef struct {
    size_t struct_size;
    /* Put before each text, or before the first of a pair; not for classify. NULL: that of prompt_name, or the
     * folder's default. */
    const char *prompt;
    size_t prompt_bytes;
    const char *prompt_name;
    int role;             /* a modernbert_role; for embed */
    int64_t max_length;   /* most tokens of a text, special ones too; 0: what the folder says */
    int truncation;       /* a modernbert_truncation */
    int64_t width;        /* for embed, as in modernbert_embedding */
    int normalize;        /* for embed, as in modernbert_embedding */
    const char *function; /* for score and classify, as of modernbert_scores; NULL: what the folder says */
} modernbert_text_options;

/* out [count, width], its number of floats in out_count: a vector a text. lost [count] or NULL: tokens that were cut
 * off each. options and run may be NULL. Every text is looked at before any is computed. */
MODERNBERT_API int modernbert_embed_texts(const modernbert_model *model, const modernbert_text *texts, size_t count,
                                          const modernbert_text_options *options, const modernbert_run *run, float *out,
                                          size_t out_count, int64_t *lost);
/* out [count, labels]: a reranker's scores of pairs; the sigmoid of the logit where there is one label and the
 * folder names no function. */
MODERNBERT_API int modernbert_score_pairs(const modernbert_model *model, const modernbert_text *pairs, size_t count,
                                          const modernbert_text_options *options, const modernbert_run *run, float *out,
                                          size_t out_count, int64_t *lost);
/* out [count, labels]: a sequence classifier's scores of texts or pairs, in the order of modernbert_model_label. */
MODERNBERT_API int modernbert_classify_texts(const modernbert_model *model, const modernbert_text *texts, size_t count,
                                             const modernbert_text_options *options, const modernbert_run *run,
                                             float *out, size_t out_count, int64_t *lost);

/* -- a tokenizer alone: nothing is cut, and the files beside tokenizer.json are not read -- */

/* May be used by several threads at once. */
typedef struct modernbert_tokenizer modernbert_tokenizer;

/* A token that texts are searched for before they are cut into words. content: UTF-8, of `bytes`. */
typedef struct {
    const char *content;
    size_t bytes;
    int32_t id; /* not read by modernbert_tokenizer_add */
    int special, lstrip, rstrip, single_word, normalized;
} modernbert_added_token;

/* A text or a pair, per token; arrays of `count`, of the library until modernbert_encoding_free. */
typedef struct {
    size_t struct_size;
    size_t count;
    const int32_t *ids;
    const int32_t *types;
    const int64_t *starts; /* in characters of the token's own text; */
    const int64_t *ends;   /* 0, 0 where the template added it */
    const int32_t *words;  /* number of its word, -1 where the template added it */
    const int32_t *sequences; /* 0 for the text, 1 for its pair, -1 where the template added it */
    void *memory;
} modernbert_encoding;

MODERNBERT_API int modernbert_tokenizer_open(const char *file, modernbert_tokenizer **out);
/* The same of a tokenizer.json in memory; name stands for it in messages. */
MODERNBERT_API int modernbert_tokenizer_parse(const char *content, size_t bytes, const char *name,
                                              modernbert_tokenizer **out);
/* NULL is allowed. */
MODERNBERT_API void modernbert_tokenizer_close(modernbert_tokenizer *tokenizer);

/* Adds tokens, or gives known ones these flags; not while others use the tokenizer. split_special: special
 * tokens in a text are text. */
MODERNBERT_API int modernbert_tokenizer_add(modernbert_tokenizer *tokenizer, const modernbert_added_token *tokens,
                                            size_t count, int split_special);

/* pair may be NULL. special: whether the template's tokens are added. out is freed by the caller. */
MODERNBERT_API int modernbert_tokenizer_encode(const modernbert_tokenizer *tokenizer, const char *text, size_t bytes,
                                               const char *pair, size_t pair_bytes, int special,
                                               modernbert_encoding *out);
MODERNBERT_API void modernbert_encoding_free(modernbert_encoding *encoding);

/* Tokens that the template adds to a text, or to a pair. */
MODERNBERT_API int modernbert_tokenizer_template(const modernbert_tokenizer *tokenizer, int pair, size_t *tokens);
/* One more than the largest id. */
MODERNBERT_API int modernbert_tokenizer_ids(const modernbert_tokenizer *tokenizer, size_t *ids);
/* The token of an id, NULL where it has none, and its bytes. */
MODERNBERT_API int modernbert_tokenizer_token(const modernbert_tokenizer *tokenizer, int32_t id, const char **token,
                                              size_t *bytes);
/* The id of a token; -1 where there is none. */
MODERNBERT_API int modernbert_tokenizer_id(const modernbert_tokenizer *tokenizer, const char *token, size_t bytes,
                                           int32_t *id);
/* Added token i; content is NULL past the last. */
MODERNBERT_API int modernbert_tokenizer_added(const modernbert_tokenizer *tokenizer, size_t i,
                                              modernbert_added_token *out);
/* How ids become text, "ByteLevel", "ByteFallback" or "" for none; what is done to texts first, "NFC", "blanks"
 * (each space becomes U+2581) or ""; the end of a long text that goes, "right", "left" or "" where the file
 * does not say. Valid as long as the tokenizer. */
MODERNBERT_API int modernbert_tokenizer_facts(const modernbert_tokenizer *tokenizer, const char **decoder,
                                              const char **normalizer, const char **truncation_side);

/* end of declarations */

#ifdef __cplusplus
}
#endif
#endif
