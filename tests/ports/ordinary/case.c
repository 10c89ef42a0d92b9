/* ./case CASE_DIR OUT_DIR: one case of the kit through a port that takes one text at a time.
 *
 *     cc -O2 -o case case.c encoder.c -lm
 *     modernbert verify --command ./case
 *
 * Each row is run alone, without its padding, and its steps [tokens, width] go to OUT_DIR/ROW/STEP.npy.
 * What the port does not do it refuses: a whole case in OUT_DIR/port.json, a row by leaving it out.
 * The port is behind encoder.h: another one's functions stand in the place of its three.
 */
#define _POSIX_C_SOURCE 200809L /* mkdir */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "encoder.h"

/* inputs/NAME.npy, int64 [batch, seq]; NULL where the case has none, or has it with other axes. */
static int64_t *npy_read(const char *folder, const char *name, int *batch, int *seq) {
    char path[4096];
    struct stat is;
    size_t size;
    snprintf(path, sizeof path, "%s/inputs/%s.npy", folder, name);
    if (stat(path, &is)) return NULL;
    char *file = read_file(path, &size), *shape = strchr(file + 10, '(');
    size_t begin = 10 + ((unsigned char)file[8] | (size_t)(unsigned char)file[9] << 8);
    if (!strstr(file + 10, "'<i8'") || !shape) die("not int64", path);
    if (sscanf(shape, "(%d, %d)", batch, seq) != 2) return NULL;
    size_t bytes = 8 * (size_t)*batch * (size_t)*seq;
    if (begin + bytes != size) die("cut short", path);
    int64_t *x = malloc(bytes + 1);
    if (!x) die("no memory", path);
    memcpy(x, file + begin, bytes);
    free(file);
    return x;
}

/* FOLDER/STEP.npy, float32 [rows, cols]: 10 bytes, a header of 118, the numbers. */
static void npy_write(void *folder, const char *step, const float *x, int rows, int cols) {
    char path[4096], header[119], said[100];
    snprintf(path, sizeof path, "%s/%s.npy", (const char *)folder, step);
    snprintf(said, sizeof said, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }",
             rows, cols);
    snprintf(header, sizeof header, "%-117s\n", said);
    FILE *f = fopen(path, "wb");
    if (!f) die("cannot write", path);
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, f);
    fwrite(header, 1, 118, f);
    fwrite(x, sizeof *x, (size_t)rows * (size_t)cols, f);
    if (fclose(f)) die("cannot write", path);
}

/* The same for a row behind padding: its angles count from the first column, and so q and k once they
 * are turned are others than without it. What follows from them is the same. */
static void npy_write_but_turned(void *folder, const char *step, const float *x, int rows, int cols) {
    if (!strstr(step, "q_rot") && !strstr(step, "k_rot")) npy_write(folder, step, x, rows, cols);
}

static int refused(const char *folder, const char *why) {
    char path[4096];
    snprintf(path, sizeof path, "%s/port.json", folder);
    FILE *f = fopen(path, "w");
    if (!f) die("cannot write", path);
    fprintf(f, "{\"refused\": \"%s\"}\n", why);
    return fclose(f);
}

int main(int argc, char **argv) {
    if (argc != 3) die("usage", "case CASE_DIR OUT_DIR");
    char path[4096], model[1024];
    snprintf(path, sizeof path, "%s/case.json", argv[1]);
    const char *at = strstr(read_file(path, NULL), "\"model\"");
    if (!at || sscanf(at, "\"model\": \"%1000[^\"]", model) != 1) die("no model", path);
    snprintf(path, sizeof path, "%s/%s/config.json", argv[1], model);
    const char *config = read_file(path, NULL), *why = encoder_refuses(config);
    if (why) return refused(argv[2], why);

    int batch, seq;
    if (npy_read(argv[1], "position_ids", &batch, &seq)) return refused(argv[2], "position_ids");
    int64_t *mask = npy_read(argv[1], "attention_mask", &batch, &seq);
    int64_t *ids = npy_read(argv[1], "input_ids", &batch, &seq);
    if (!ids) return refused(argv[2], "packed input");

    snprintf(path, sizeof path, "%s/%s", argv[1], model);
    Encoder *m = encoder_open(path, config);
    int *row = malloc(sizeof *row * ((size_t)seq + 1));
    float *out = malloc(sizeof *out * ((size_t)seq + 1) * (size_t)m->hidden);
    if (!row || !out) die("no memory", argv[1]);
#ifdef BUG_MASK
    mask = NULL;
#endif
    for (int b = 0; b < batch; b++) {
        int n = 0, first = seq, last = -1;
        for (int t = 0; t < seq; t++) {
            if (mask && !mask[b * seq + t]) continue;
            row[n++] = (int)ids[b * seq + t];
            if (t < first) first = t;
            last = t;
        }
        /* Nothing to run; or padding between tokens, which keeps its places: not without it. */
        if (n == 0 || last - first + 1 != n) continue;
        snprintf(path, sizeof path, "%s/%d", argv[2], b);
        mkdir(path, 0777);
        encoder_run(m, row, n, out, first ? npy_write_but_turned : npy_write, path);
    }
    return 0;
}
