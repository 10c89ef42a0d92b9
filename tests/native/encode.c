/* encode FOLDER ID...: the last hidden state of one sequence, a token per line, through modernbert.h.
 *
 * --tier TIER caps the tier, --dtype and --threads say how; numbers in hexadecimal, so every bit shows.
 * Build: cc encode.c -I<folder of modernbert.h> <folder of libmodernbert.so>/libmodernbert.so
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modernbert.h"

static int failed(const char *what) {
    fprintf(stderr, "encode: %s: %s\n", what, modernbert_last_error());
    return 1;
}

int main(int argc, char **argv) {
    modernbert_options options = {.struct_size = sizeof options, .threads = 1};
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (!strcmp(argv[at], "--tier")) options.tier_cap = argv[at + 1];
        else if (!strcmp(argv[at], "--dtype")) options.dtype = argv[at + 1];
        else if (!strcmp(argv[at], "--threads")) options.threads = atoi(argv[at + 1]);
        else break;
    }
    if (at >= argc) {
        fprintf(stderr, "usage: encode [--tier TIER] [--dtype DTYPE] [--threads N] FOLDER ID...\n");
        return 2;
    }

    modernbert_model *model;
    if (modernbert_open(argv[at], &options, &model)) return failed("open");
    modernbert_facts facts = {.struct_size = sizeof facts};
    if (modernbert_model_facts(model, &facts)) return failed("facts");
    fprintf(stderr, "tier %s, dtype %s, %d thread(s)\n", facts.tier, facts.dtype, facts.threads);

    const int64_t total = argc - at - 1, cu_seqlens[2] = {0, total};
    int64_t *ids = malloc(sizeof *ids * (size_t)(total + 1));
    const size_t count = (size_t)(total * facts.hidden);
    float *out = malloc(sizeof *out * (count + 1));
    if (!ids || !out) return 1;
    for (int64_t t = 0; t < total; ++t) ids[t] = strtoll(argv[at + 1 + t], NULL, 10);

    const modernbert_input input = {
        .struct_size = sizeof input, .sequences = 1, .cu_seqlens = cu_seqlens, .ids = ids};
    const int status = modernbert_forward(model, &input, NULL, out, count);
    if (status) failed("forward");
    for (int64_t t = 0; t < total && !status; ++t)
        for (int64_t i = 0; i < facts.hidden; ++i)
            printf("%a%c", out[t * facts.hidden + i], i + 1 < facts.hidden ? ' ' : '\n');
    free(out);
    free(ids);
    modernbert_close(model);
    return status ? 1 : 0;
}
