/* See encoder.h. Plain loops, no library. -DBUG_... plants a mistake. */
#include "encoder.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *what, const char *which) {
    fprintf(stderr, "%s: %s\n", what, which);
    exit(1);
}

static float *floats(size_t n) {
    float *x = calloc(n ? n : 1, sizeof *x);
    if (!x) die("no memory", "floats");
    return x;
}

char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) die("cannot open", path);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *x = malloc((size_t)n + 1);
    if (!x || fread(x, 1, (size_t)n, f) != (size_t)n) die("cannot read", path);
    x[n] = 0;
    fclose(f);
    if (size) *size = (size_t)n;
    return x;
}

/* -- config.json: what stands behind "key": -- */

static const char *json(const char *text, const char *key) {
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *p = text ? strstr(text, quoted) : NULL;
    return p ? p + strlen(quoted) + strspn(p + strlen(quoted), " :\n") : NULL;
}

static int json_is(const char *text, const char *key, const char *value) {
    const char *p = json(text, key);
    return p && !strncmp(p, value, strlen(value));
}

static double json_number(const char *text, const char *key, double otherwise) {
    const char *p = json(text, key);
    return !p || !strncmp(p, "null", 4) ? otherwise : strtod(p, NULL);
}

const char *encoder_refuses(const char *t) {
    double every = json_number(t, "global_attn_every_n_layers", -1);
    double full = json_number(t, "global_rope_theta", -1);
    double sliding = json_number(t, "local_rope_theta", -1);
    const char *rope = json(t, "rope_parameters"), *types = json(t, "layer_types");
    if (!json_is(t, "hidden_activation", "\"gelu\"")) return "hidden_activation is not gelu";
    if (json_is(t, "norm_bias", "true") || json_is(t, "mlp_bias", "true") ||
        json_is(t, "attention_bias", "true"))
        return "it has biases";
    if (every < 1 || full < 0 || sliding < 0) return "the old keys are not there";
    if (rope && (json_number(json(rope, "full_attention"), "rope_theta", full) != full ||
                 json_number(json(rope, "sliding_attention"), "rope_theta", sliding) != sliding))
        return "rope_parameters say other things than the old keys";
    for (int i = 0; types && *types && *types != ']'; types++) {
        if (*types != '"') continue;
        int is_full = !strncmp(types, "\"full_attention\"", 16);
        if (is_full != (i++ % (int)every == 0)) return "layer_types are not those of the old keys";
        if (!(types = strchr(types + 1, '"'))) break;
    }
    return NULL;
}

/* -- model.safetensors: a uint64 n, n bytes of JSON, the numbers -- */

static const float *tensor(const Encoder *m, const char *name, size_t count) {
    char full[160];
    snprintf(full, sizeof full, "model.%s", name);
    const char *entry = json(m->file + 8, full);
    if (!entry) entry = json(m->file + 8, name);
    const char *end = entry ? strchr(entry, '}') : NULL;
    const char *at = end ? json(entry, "data_offsets") : NULL;
    if (!at || at > end || !json_is(entry, "dtype", "\"F32\"")) die("no float32 tensor", name);
    char *comma;
    unsigned long long begin = strtoull(at + 1, &comma, 10);
    unsigned long long stop = strtoull(comma + 1, NULL, 10);
    size_t data = 8 + m->header;
    if (stop < begin || stop - begin != 4 * count || stop > m->size - data || begin % 4)
        die("a tensor of another size", name);
    float *x = floats(count);
    memcpy(x, m->file + data + begin, 4 * count);
    return x;
}

static const float *of_layer(const Encoder *m, int i, const char *name, size_t count) {
    char full[96];
    snprintf(full, sizeof full, "layers.%d.%s", i, name);
    return tensor(m, full, count);
}

Encoder *encoder_open(const char *folder, const char *t) {
    char path[4096];
    Encoder *m = calloc(1, sizeof *m);
    if (!m) die("no memory", folder);
    m->vocab = (int)json_number(t, "vocab_size", 50368);
    m->hidden = (int)json_number(t, "hidden_size", 768);
    m->inter = (int)json_number(t, "intermediate_size", 1152);
    m->layers = (int)json_number(t, "num_hidden_layers", 22);
    m->heads = (int)json_number(t, "num_attention_heads", 12);
    m->every = (int)json_number(t, "global_attn_every_n_layers", 3);
    m->window = (int)json_number(t, "local_attention", 128);
    m->theta_full = json_number(t, "global_rope_theta", 160000.0);
    m->theta_sliding = json_number(t, "local_rope_theta", 10000.0);
    m->eps = (float)json_number(t, "norm_eps", json_number(t, "layer_norm_eps", 1e-5));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    m->file = read_file(path, &m->size);
    if (m->size < 8) die("not a safetensors file", path);
    for (int k = 7; k >= 0; k--) m->header = m->header << 8 | (unsigned char)m->file[k];
    if (m->header > m->size - 8) die("not a safetensors file", path);

    size_t h = (size_t)m->hidden, f = (size_t)m->inter;
    m->embed = tensor(m, "embeddings.tok_embeddings.weight", (size_t)m->vocab * h);
    m->embed_norm = tensor(m, "embeddings.norm.weight", h);
    m->final_norm = tensor(m, "final_norm.weight", h);
    m->layer = calloc((size_t)m->layers, sizeof *m->layer);
    if (!m->layer) die("no memory", folder);
    for (int i = 0; i < m->layers; i++) {
        Layer *l = &m->layer[i];
        l->attn_norm = i ? of_layer(m, i, "attn_norm.weight", h) : NULL;
        l->wqkv = of_layer(m, i, "attn.Wqkv.weight", 3 * h * h);
        l->wo = of_layer(m, i, "attn.Wo.weight", h * h);
        l->mlp_norm = of_layer(m, i, "mlp_norm.weight", h);
        l->wi = of_layer(m, i, "mlp.Wi.weight", 2 * f * h);
        l->mlp_wo = of_layer(m, i, "mlp.Wo.weight", h * f);
    }
    return m;
}

/* -- the model -- */

static void norm(float *out, const float *x, const float *w, int seq, int n, float eps) {
    for (int t = 0; t < seq; t++, out += n, x += n) {
        double mean = 0, var = 0;
        for (int i = 0; i < n; i++) mean += x[i];
        mean /= n;
        for (int i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
        double scale = 1 / sqrt(var / n + eps);
        for (int i = 0; i < n; i++) out[i] = (float)((x[i] - mean) * scale) * w[i];
    }
}

/* out [seq, n_out] = x [seq, n_in] w [n_out, n_in]^T */
static void product(float *out, const float *x, const float *w, int seq, int n_in, int n_out) {
    for (int t = 0; t < seq; t++)
        for (int o = 0; o < n_out; o++) {
            const float *a = x + (size_t)t * n_in, *b = w + (size_t)o * n_in;
            float sum = 0;
            for (int k = 0; k < n_in; k++) sum += a[k] * b[k];
            out[(size_t)t * n_out + o] = sum;
        }
}

static float gelu(float x) {
#ifdef BUG_TANH
    return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
#else
    return 0.5f * x * (1 + erff(x * 0.70710678118654752f));
#endif
}

/* One head of one token: entries k and k + head_dim / 2 turn together. */
static void rotate(float *v, int position, int head_dim, double theta) {
    for (int k = 0, half = head_dim / 2; k < half; k++) {
        double angle = position * pow(theta, -2.0 * k / head_dim);
        float c = (float)cos(angle), s = (float)sin(angle), a = v[k], b = v[k + half];
        v[k] = a * c - b * s;
        v[k + half] = b * c + a * s;
    }
}

/* qkv [seq, 3, heads, head_dim] -> out [seq, hidden]; side: tokens seen to each side, -1 for all */
static void attention(float *out, const float *qkv, int seq, const Encoder *m, int side) {
    int h = m->hidden, d = h / m->heads;
    float *p = floats((size_t)seq);
    for (int head = 0; head < m->heads; head++)
        for (int i = 0; i < seq; i++) {
            int from = side < 0 || i < side ? 0 : i - side;
            int to = side < 0 || i + side > seq - 1 ? seq - 1 : i + side;
            const float *q = qkv + (size_t)i * 3 * h + head * d;
            float top = -INFINITY, sum = 0, *o = out + (size_t)i * h + head * d;
            for (int j = from; j <= to; j++) {
                const float *k = qkv + (size_t)j * 3 * h + h + head * d;
                float dot = 0;
                for (int e = 0; e < d; e++) dot += q[e] * k[e];
                p[j] = dot / sqrtf((float)d);
                if (p[j] > top) top = p[j];
            }
            for (int j = from; j <= to; j++) sum += p[j] = expf(p[j] - top);
            for (int e = 0; e < d; e++) o[e] = 0;
            for (int j = from; j <= to; j++) {
                const float *v = qkv + (size_t)j * 3 * h + 2 * h + head * d;
                for (int e = 0; e < d; e++) o[e] += p[j] / sum * v[e];
            }
        }
    free(p);
}

static void told(Tap *tap, void *to, int i, const char *step, const float *x, int rows, int cols) {
    char name[64];
    snprintf(name, sizeof name, "layers.%d.%s", i, step);
    if (tap) tap(to, name, x, rows, cols);
}

void encoder_run(const Encoder *m, const int *ids, int seq, float *out, Tap *tap, void *to) {
    int h = m->hidden, f = m->inter, d = h / m->heads;
    size_t n = (size_t)seq;
    float *x = floats(n * h), *y = floats(n * h), *mixed = floats(n * h);
    float *qkv = floats(n * 3 * h), *wide = floats(n * 2 * f), *glu = floats(n * f);

    for (int t = 0; t < seq; t++) {
        if (ids[t] < 0 || ids[t] >= m->vocab) die("no such token", "ids");
        memcpy(y + (size_t)t * h, m->embed + (size_t)ids[t] * h, (size_t)h * sizeof *y);
    }
    norm(x, y, m->embed_norm, seq, h, m->eps);
    if (tap) tap(to, "embedding", x, seq, h);
    for (int i = 0; i < m->layers; i++) {
        const Layer *l = &m->layer[i];
        int full = i % m->every == 0;
#ifdef BUG_WINDOW
        int side = full ? -1 : m->window / 2 - 1;
#else
        int side = full ? -1 : m->window / 2;
#endif
        if (l->attn_norm)
            norm(y, x, l->attn_norm, seq, h, m->eps);
        else
            memcpy(y, x, n * h * sizeof *y);
        product(qkv, y, l->wqkv, seq, h, 3 * h);
        for (int t = 0; t < seq; t++) /* the heads of q, then those of k */
            for (int head = 0; head < 2 * m->heads; head++)
                rotate(qkv + (size_t)t * 3 * h + head * d, t, d,
                       full ? m->theta_full : m->theta_sliding);
        attention(mixed, qkv, seq, m, side);
        told(tap, to, i, "attention", mixed, seq, h);
        product(y, mixed, l->wo, seq, h, h);
        for (size_t k = 0; k < n * h; k++) x[k] += y[k];
        told(tap, to, i, "residual_1", x, seq, h);

        norm(y, x, l->mlp_norm, seq, h, m->eps);
        product(wide, y, l->wi, seq, h, 2 * f);
        for (int t = 0; t < seq; t++)
            for (int k = 0; k < f; k++) {
                const float *row = wide + (size_t)t * 2 * f;
                glu[(size_t)t * f + k] = gelu(row[k]) * row[f + k];
            }
        told(tap, to, i, "glu", glu, seq, f);
        product(y, glu, l->mlp_wo, seq, f, h);
        for (size_t k = 0; k < n * h; k++) x[k] += y[k];
        told(tap, to, i, "residual_2", x, seq, h);
    }
    norm(out, x, m->final_norm, seq, h, m->eps);
    if (tap) tap(to, "final_norm", out, seq, h);
    free(x), free(y), free(mixed), free(qkv), free(wide), free(glu);
}
