/* A ModernBERT as its author may have it: the encoder, one text, float32, the old keys of
 * config.json, GELU, no biases. What it does not do it says in encoder_refuses. */
#ifndef ORDINARY_ENCODER_H
#define ORDINARY_ENCODER_H

#include <stddef.h>

typedef struct {
    const float *attn_norm, *wqkv, *wo, *mlp_norm, *wi, *mlp_wo; /* attn_norm: NULL in layer 0 */
} Layer;

typedef struct {
    int vocab, hidden, inter, layers, heads, every, window;
    double theta_full, theta_sliding;
    float eps;
    char *file;
    size_t header, size; /* bytes of the safetensors file's JSON, and of the whole file */
    const float *embed, *embed_norm, *final_norm;
    Layer *layer;
} Encoder;

/* Called with each step [rows, cols] as it is computed; may be NULL. */
typedef void Tap(void *to, const char *step, const float *x, int rows, int cols);

/* Why the model of this config.json cannot be run, or NULL. */
const char *encoder_refuses(const char *config_json);
/* From the folder's model.safetensors; ends the program where that is not as it should be. */
Encoder *encoder_open(const char *folder, const char *config_json);
/* ids [seq] -> out [seq, hidden], behind the final norm. */
void encoder_run(const Encoder *m, const int *ids, int seq, float *out, Tap *tap, void *to);
char *read_file(const char *path, size_t *size); /* with a 0 behind it */
void die(const char *what, const char *which);

#endif
