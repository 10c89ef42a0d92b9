/* embed FOLDER < IDS: one vector a text, of length 1, as decimals that give every bit back.
 *
 * IDS has a line a text, token ids with spaces between, as a tokenizer makes them. The vectors are those of
 * SentenceEncoder(FOLDER).encode(texts, normalize_embeddings=True); the Makefile here builds it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "modernbert.h"

/* Ids of all texts one after the other, and where each text begins. */
typedef struct {
    int64_t *ids, *cu_seqlens;
    int64_t total, sequences;
} texts;

static void *room(void *memory, int64_t count) {
    memory = realloc(memory, (size_t)count * sizeof(int64_t));
    if (!memory) perror("embed"), exit(1);
    return memory;
}

/* A number, the end of a line (1) or of the file (0); anything else ends the program. */
static int read_id(int64_t *id) {
    int c = getchar();
    while (c == ' ' || c == '\t' || c == '\r') c = getchar();
    if (c == '\n') return 1;
    if (c == EOF) return 0;
    *id = 0;
    for (; c >= '0' && c <= '9' && *id < INT32_MAX; c = getchar()) *id = 10 * *id + (c - '0');
    if (c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != EOF)
        fprintf(stderr, "embed: an id is no number\n"), exit(2);
    ungetc(c, stdin);
    return 2;
}

static texts read_texts(void) {
    texts t = {room(NULL, 1), room(NULL, 1), 0, 0};
    int64_t id;
    t.cu_seqlens[0] = 0;
    for (int what, open = 0; (what = read_id(&id)) || open;) {
        if (what == 2) {
            t.ids = room(t.ids, t.total + 2);
            t.ids[t.total++] = id;
        } else {
            t.cu_seqlens = room(t.cu_seqlens, ++t.sequences + 1);
            t.cu_seqlens[t.sequences] = t.total;
        }
        open = what == 2;
        if (!what) break;
    }
    return t;
}

static int failed(const char *what) {
    fprintf(stderr, "embed: %s: %s\n", what, modernbert_last_error());
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: embed FOLDER < IDS\n");
        return 2;
    }
    modernbert_model *model;
    if (modernbert_open(argv[1], NULL, &model)) return failed("open");
    modernbert_facts facts = {.struct_size = sizeof facts};
    if (modernbert_model_facts(model, &facts)) return failed("facts");

    const texts t = read_texts();
    const modernbert_input input = {
        .struct_size = sizeof input, .sequences = t.sequences, .cu_seqlens = t.cu_seqlens, .ids = t.ids};
    const modernbert_embedding unit = {.struct_size = sizeof unit, .normalize = 1};
    const size_t count = (size_t)(t.sequences * facts.width);
    float *vectors = malloc(count * sizeof *vectors + 1);
    if (!vectors) return perror("embed"), 1;
    if (modernbert_embed(model, &input, &unit, NULL, vectors, count)) return failed("embed");

    for (size_t i = 0; i < count; ++i)
        printf("%.9g%c", vectors[i], (i + 1) % (size_t)facts.width ? ' ' : '\n');
    free(vectors), free(t.ids), free(t.cu_seqlens);
    modernbert_close(model);
    return 0;
}
