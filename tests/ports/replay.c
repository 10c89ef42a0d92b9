/* A port behind port.h that computes nothing: it gives what a script says, in the script's order.
 *
 * The script is the file that REPLAY names, a line each: `tap NAME RANK DIM... FILE` shows a step,
 * `hidden FILE` and `scores FILE` write an output (all of it, or as much as the file holds), and
 * `crash`, `hang`, `error`, `refuse` do what they say. Files are raw float32.
 */
#include "port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mbv_model { int unused; };
static mbv_model the_model;
static const char *why = "";

int32_t mbv_open(const char *config_json, const char *head, const mbv_tensor *weights,
                 int64_t count, mbv_model **model) {
    (void)config_json, (void)head, (void)weights, (void)count;
    *model = &the_model;
    return MBV_OK;
}

void mbv_close(mbv_model *model) { (void)model; }

const char *mbv_last_error(void) { return why; }

static float *content(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    if (!file) abort();
    fseek(file, 0, SEEK_END);
    *count = (size_t)ftell(file) / sizeof(float);
    rewind(file);
    float *data = malloc(*count * sizeof(float) + 1);
    if (!data || fread(data, sizeof(float), *count, file) != *count) abort();
    fclose(file);
    return data;
}

int32_t mbv_forward(mbv_model *model, const mbv_input *input, mbv_output *output) {
    (void)model, (void)input;
    FILE *script = fopen(getenv("REPLAY"), "r");
    if (!script) abort();
    char word[16], name[64], path[1024];
    int32_t status = MBV_OK;
    while (status == MBV_OK && fscanf(script, "%15s", word) == 1) {
        size_t count;
        if (!strcmp(word, "tap")) {
            int32_t rank;
            int64_t shape[8];
            if (fscanf(script, "%63s %d", name, &rank) != 2 || rank > 8) abort();
            for (int32_t i = 0; i < rank; i++) {
                long long n;
                if (fscanf(script, "%lld", &n) != 1) abort();
                shape[i] = n;
            }
            if (fscanf(script, "%1023s", path) != 1) abort();
            float *data = content(path, &count);
            output->tap(output->user, name, data, shape, rank);
            free(data);
        } else if (!strcmp(word, "hidden") || !strcmp(word, "scores")) {
            if (fscanf(script, "%1023s", path) != 1) abort();
            float *data = content(path, &count);
            memcpy(*word == 'h' ? output->hidden : output->scores, data, count * sizeof(float));
            free(data);
        } else if (!strcmp(word, "crash")) {
            abort();
        } else if (!strcmp(word, "hang")) {
            for (volatile int forever = 1; forever;) continue;
        } else {
            status = *word == 'r' ? MBV_REFUSED : MBV_ERROR;
            why = "as the script says";
        }
    }
    fclose(script);
    return status;
}
