/* pack_start FOLDER DTYPE: opens a model with texts, makes one vector, prints the seconds of CPU that it took, and
 * waits for the end of stdin. */
#include <stdio.h>
#include <time.h>

#include "modernbert_text.h"

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: pack_start FOLDER DTYPE\n"), 2;
    modernbert_model *model;
    modernbert_facts facts = {.struct_size = sizeof facts};
    const modernbert_options options = {.struct_size = sizeof options, .dtype = argv[2]};
    const modernbert_text text = {"for i in range(10):", 19, NULL, 0};
    float vector[8192];
    if (modernbert_open_text(argv[1], &options, &model) || modernbert_model_facts(model, &facts) ||
        modernbert_embed_texts(model, &text, 1, NULL, NULL, vector, (size_t)facts.width, NULL))
        return fprintf(stderr, "%s\n", modernbert_last_error()), 1;
    printf("%s %.4f\n", facts.pack ? "packed" : "in_memory", (double)clock() / CLOCKS_PER_SEC);
    fflush(stdout);
    while (getchar() != EOF) continue;
    modernbert_close(model);
    return 0;
}
