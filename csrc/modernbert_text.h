/* Text to ids in libmodernbert.so: the tokenizer.json files that ModernBERT models have.
 *
 *     modernbert_tokenizer *tokenizer;
 *     if (modernbert_tokenizer_open("folder/tokenizer.json", &tokenizer)) puts(modernbert_last_error());
 *
 * Statuses and rules are those of modernbert.h. Texts are UTF-8 with their size in bytes, below 2 GiB.
 * Ids and offsets are those of the `tokenizers` package; a file with a step that is not here is
 * MODERNBERT_BAD_FILE with the step's name. Nothing is cut, and the files beside tokenizer.json are not
 * read: their tokens can be added. A tokenizer may be used by several threads at once.
 */
#ifndef MODERNBERT_TEXT_H
#define MODERNBERT_TEXT_H

#include "modernbert.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declarations */

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
