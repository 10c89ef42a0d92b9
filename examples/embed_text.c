/* embed_text FOLDER < TEXTS: embed.c for texts, one a line, whose ids FOLDER/tokenizer.json makes.
 *
 * The caller's part: nothing is cut, so a text has to be as short as the model takes it; prompts are to be put
 * before a text; and the files beside tokenizer.json are not read (modernbert_tokenizer_add adds their tokens).
 * One text at a time, which gives the bits that a batch would; embed.c shows a batch.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modernbert_text.h"

static int failed(const char *what) {
    fprintf(stderr, "embed_text: %s: %s\n", what, modernbert_last_error());
    return 1;
}

/* The ids of a text as a forward pass takes them, in *ids, which grows; their number, -1 for an error. */
static int64_t ids_of(const modernbert_tokenizer *tokenizer, const char *text, size_t bytes, int64_t **ids) {
    modernbert_encoding encoding = {.struct_size = sizeof encoding};
    if (modernbert_tokenizer_encode(tokenizer, text, bytes, NULL, 0, 1, &encoding)) return -1;
    const int64_t count = (int64_t)encoding.count;
    *ids = realloc(*ids, (encoding.count + 1) * sizeof **ids);
    if (!*ids) perror("embed_text"), exit(1);
    for (int64_t i = 0; i < count; ++i) (*ids)[i] = encoding.ids[i];
    modernbert_encoding_free(&encoding);
    return count;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: embed_text FOLDER < TEXTS\n");
        return 2;
    }
    modernbert_model *model;
    if (modernbert_open(argv[1], NULL, &model)) return failed("open");
    modernbert_facts facts = {.struct_size = sizeof facts};
    if (modernbert_model_facts(model, &facts)) return failed("facts");

    char *file = malloc(strlen(argv[1]) + sizeof "/tokenizer.json");
    float *vector = malloc((size_t)facts.width * sizeof *vector + 1);
    if (!file || !vector) return perror("embed_text"), 1;
    sprintf(file, "%s/tokenizer.json", argv[1]);
    modernbert_tokenizer *tokenizer;
    if (modernbert_tokenizer_open(file, &tokenizer)) return failed("tokenizer");

    const modernbert_embedding unit = {.struct_size = sizeof unit, .normalize = 1};
    char *line = NULL;
    int64_t *ids = NULL;
    size_t room = 0;
    for (ssize_t bytes; (bytes = getline(&line, &room, stdin)) >= 0;) {
        while (bytes && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r')) --bytes;
        const int64_t count = ids_of(tokenizer, line, (size_t)bytes, &ids);
        if (count < 0) return failed("text");
        const modernbert_input input = {
            .struct_size = sizeof input, .sequences = 1, .cu_seqlens = (int64_t[]){0, count}, .ids = ids};
        if (modernbert_embed(model, &input, &unit, NULL, vector, (size_t)facts.width)) return failed("embed");
        for (int64_t i = 0; i < facts.width; ++i) printf("%.9g%c", vector[i], i + 1 < facts.width ? ' ' : '\n');
    }
    free(line), free(ids), free(vector), free(file);
    modernbert_tokenizer_close(tokenizer);
    modernbert_close(model);
    return 0;
}
