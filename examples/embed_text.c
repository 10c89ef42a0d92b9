/* embed_text FOLDER < TEXTS: one vector a text, of length 1, as decimals that give every bit back; one text a line.
 *
 * The vectors are those of SentenceEncoder(FOLDER).encode(texts, normalize_embeddings=True): with the folder's
 * default prompt, cut at its length, which is told on stderr.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modernbert_text.h"

enum { AT_A_TIME = 64 };

static void check(int status) {
    if (status) fprintf(stderr, "embed_text: %s\n", modernbert_last_error()), exit(1);
}

/* The next line without its end; text is NULL after the last. */
static modernbert_text read_line(void) {
    modernbert_text line = {0};
    char *text = NULL;
    size_t room = 0;
    ssize_t bytes = getline(&text, &room, stdin);
    if (bytes < 0) return free(text), line;
    while (bytes && (text[bytes - 1] == '\n' || text[bytes - 1] == '\r')) --bytes;
    line.text = text, line.bytes = (size_t)bytes;
    return line;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: embed_text FOLDER < TEXTS\n"), 2;
    modernbert_model *model;
    modernbert_facts facts = {.struct_size = sizeof facts};
    check(modernbert_open_text(argv[1], NULL, &model));
    check(modernbert_model_facts(model, &facts));

    const modernbert_text_options unit = {.struct_size = sizeof unit, .normalize = 1};
    const size_t width = (size_t)facts.width;
    float *vectors = malloc(AT_A_TIME * width * sizeof *vectors);
    modernbert_text texts[AT_A_TIME];
    int64_t lost[AT_A_TIME];
    if (!vectors) return perror("embed_text"), 1;
    for (size_t count = AT_A_TIME, line = 0; count == AT_A_TIME; line += count) {
        for (count = 0; count < AT_A_TIME; ++count)
            if (!(texts[count] = read_line()).text) break;
        check(modernbert_embed_texts(model, texts, count, &unit, NULL, vectors, count * width, lost));
        for (size_t i = 0; i < count; ++i) {
            if (lost[i]) fprintf(stderr, "line %zu: %lld tokens were cut off\n", line + i + 1, (long long)lost[i]);
            for (size_t j = 0; j < width; ++j) printf("%.9g%c", vectors[i * width + j], j + 1 < width ? ' ' : '\n');
            free((char *)texts[i].text);
        }
    }
    free(vectors);
    modernbert_close(model);
    return 0;
}
