/* ModernBERT in one C file: the whole forward pass in float32, plain loops, libc and libm only.
 *
 * Written from the published semantics, behind the interface of refimpl/verify/ports/port.h:
 *     cc -O2 -shared -fPIC -I refimpl/verify/ports tests/ports/port.c -o libport.so -lm
 * Planted mistakes, one per build: -DBUG_WINDOW (local_attention keys on EACH side), -DBUG_GELU
 * (tanh GELU for erf), -DBUG_CRASH, -DBUG_HANG, -DBUG_MEMORY, -DBUG_SHAPE, -DBUG_STALE (a buffer
 * that is not cleared between calls), -DBUG_SILENT (outputs are never written), -DBUG_HALF_SILENT
 * (only the first row of each is), -DBUG_MASK (padding is seen). -DNO_PLAN leaves out what is optional, -DNO_HEADS refuses heads,
 * -DNO_TAPS gives the outputs alone.
 */
#include "port.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAYERS 64

static _Thread_local char last_error[256] = "";

static int32_t fail(int32_t status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

const char *mbv_last_error(void) { return last_error; }

/* ---- a reader of JSON: finds the value of a key in an object's text --------------------------- */

static const char *skip_space(const char *s) {
    while (*s == ' ' || *s == '\n' || *s == '\t' || *s == '\r') s++;
    return s;
}

static const char *skip_string(const char *s) {
    for (s++; *s && *s != '"'; s++)
        if (*s == '\\' && s[1]) s++;
    return *s ? s + 1 : s;
}

static const char *skip_value(const char *s) {
    s = skip_space(s);
    if (*s == '"') return skip_string(s);
    if (*s == '{' || *s == '[') {
        int depth = 0;
        do {
            if (*s == '"') { s = skip_string(s); continue; }
            depth += (*s == '{' || *s == '[') - (*s == '}' || *s == ']');
            s++;
        } while (depth && *s);
        return s;
    }
    while (*s && *s != ',' && *s != '}' && *s != ']') s++;
    return s;
}

/* The value of `key` in the object at s, or NULL (also for null). */
static const char *find(const char *s, const char *key) {
    size_t n = strlen(key);
    if (!s) return NULL;
    s = skip_space(s);
    if (*s != '{') return NULL;
    s = skip_space(s + 1);
    while (*s == '"') {
        const char *name = s + 1, *end = skip_string(s);
        s = skip_space(end);
        if (*s != ':') return NULL;
        s = skip_space(s + 1);
        if ((size_t)(end - 1 - name) == n && !strncmp(name, key, n))
            return strncmp(s, "null", 4) ? s : NULL;
        s = skip_space(skip_value(s));
        if (*s == ',') s = skip_space(s + 1);
    }
    return NULL;
}

static double number(const char *json, const char *key, double otherwise) {
    const char *s = find(json, key);
    return s ? strtod(s, NULL) : otherwise;
}

static void text(const char *json, const char *key, const char *otherwise, char *out, size_t size) {
    const char *s = find(json, key);
    size_t n = 0;
    if (!s || *s != '"') { snprintf(out, size, "%s", otherwise); return; }
    for (s++; *s && *s != '"' && n + 1 < size; s++) out[n++] = *s;
    out[n] = 0;
}

/* ---- the model -------------------------------------------------------------------------------- */

typedef struct {
    char name[96];
    int64_t size;
    float *data;
} parameter;

struct mbv_model {
    int64_t vocab, hidden, inter, layers, heads, head_dim, local_attention, labels;
    double eps;
    double theta_full, theta_sliding;
    int full[MAX_LAYERS];
    int pool_mean;
    char activation[32], head_activation[32], head[32];
    parameter *parameters;
    int64_t count;
    char *plan;
    float *stale;
};

/* Weight or bias by its name without `model.`; NULL when the file has none. */
static const float *get(const mbv_model *m, const char *format, ...) {
    char name[96];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    for (int64_t i = 0; i < m->count; i++)
        if (!strcmp(m->parameters[i].name, name)) return m->parameters[i].data;
    return NULL;
}

static int known_activation(const char *name) {
    return !strcmp(name, "gelu") || !strcmp(name, "silu") || !strcmp(name, "relu") ||
           !strcmp(name, "tanh");
}

/* Largest visible distance of a layer, -1 = all. */
static int64_t window(const mbv_model *m, int64_t layer) {
    if (m->full[layer]) return -1;
#ifdef BUG_WINDOW
    return m->local_attention;
#else
    return m->local_attention / 2;
#endif
}

static int32_t read_layer_types(mbv_model *m, const char *json) {
    const char *s = find(json, "layer_types");
    int64_t every = (int64_t)number(json, "global_attn_every_n_layers", 3);
    for (int64_t i = 0; i < m->layers; i++) m->full[i] = i % every == 0;
    if (!s) return MBV_OK;
    s = skip_space(s + 1);
    for (int64_t i = 0; i < m->layers; i++) {
        if (!strncmp(s, "\"full_attention\"", 16)) m->full[i] = 1;
        else if (!strncmp(s, "\"sliding_attention\"", 19)) m->full[i] = 0;
        else return fail(MBV_REFUSED, "layer_types[%d] is of an unknown kind", (int)i);
        s = skip_space(skip_value(s));
        if (*s == ',') s = skip_space(s + 1);
    }
    return MBV_OK;
}

static int32_t read_theta(const char *json, const char *kind, const char *old, double *theta) {
    const char *rope = find(find(json, "rope_parameters"), kind);
    char type[32];
    text(rope, "rope_type", "default", type, sizeof type);
    if (strcmp(type, "default")) return fail(MBV_REFUSED, "rope_type %s", type);
    *theta = number(rope, "rope_theta", number(json, old, *theta));
    return MBV_OK;
}

static int32_t read_config(mbv_model *m, const char *json) {
    int32_t status;
    m->vocab = (int64_t)number(json, "vocab_size", 50368);
    m->hidden = (int64_t)number(json, "hidden_size", 768);
    m->inter = (int64_t)number(json, "intermediate_size", 1152);
    m->layers = (int64_t)number(json, "num_hidden_layers", 22);
    m->heads = (int64_t)number(json, "num_attention_heads", 12);
    m->head_dim = m->hidden / m->heads;
    m->local_attention = (int64_t)number(json, "local_attention", 128);
    m->eps = number(json, "norm_eps", 1e-5);
    m->theta_full = 160000.0;
    m->theta_sliding = 10000.0;
    if (m->layers < 1 || m->layers > MAX_LAYERS)
        return fail(MBV_REFUSED, "num_hidden_layers %d", (int)m->layers);
    if (number(json, "type_vocab_size", 0) != 0) return fail(MBV_REFUSED, "token types");
    if ((status = read_theta(json, "full_attention", "global_rope_theta", &m->theta_full)) ||
        (status = read_theta(json, "sliding_attention", "local_rope_theta", &m->theta_sliding)) ||
        (status = read_layer_types(m, json)))
        return status;
    text(json, "hidden_activation", "gelu", m->activation, sizeof m->activation);
    text(json, "classifier_activation", "gelu", m->head_activation, sizeof m->head_activation);
    if (!known_activation(m->activation)) return fail(MBV_REFUSED, "activation %s", m->activation);
    if (!known_activation(m->head_activation))
        return fail(MBV_REFUSED, "activation %s", m->head_activation);
    char pooling[32];
    text(json, "classifier_pooling", "cls", pooling, sizeof pooling);
    m->pool_mean = !strcmp(pooling, "mean");
    return MBV_OK;
}

static void write_plan(mbv_model *m) {
    size_t size = 1024 + 256 * (size_t)m->layers;
    char *at = m->plan = malloc(size), *end = at + size;
    at += snprintf(at, (size_t)(end - at),
                   "{\"vocab_size\": %d, \"hidden_size\": %d, \"intermediate_size\": %d, "
                   "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"norm_eps\": %.17g, "
                   "\"hidden_activation\": \"%s\", \"layers\": [",
                   (int)m->vocab, (int)m->hidden, (int)m->inter, (int)m->layers, (int)m->heads,
                   m->eps, m->activation);
    for (int64_t i = 0; i < m->layers; i++) {
        char reach[32] = "null";
        if (window(m, i) >= 0) snprintf(reach, sizeof reach, "%d", (int)window(m, i));
        at += snprintf(at, (size_t)(end - at), "%s{\"window\": %s, \"theta\": %.17g}",
                       i ? ", " : "", reach, m->full[i] ? m->theta_full : m->theta_sliding);
    }
    snprintf(at, (size_t)(end - at), "]}");
}

int32_t mbv_open(const char *config_json, const char *head, const mbv_tensor *weights,
                 int64_t count, mbv_model **model) {
    mbv_model *m = calloc(1, sizeof *m);
    int32_t status = m ? read_config(m, config_json) : fail(MBV_ERROR, "no memory");
    if (status) { free(m); return status; }
#ifdef NO_HEADS
    if (head) {
        free(m);
        return fail(MBV_REFUSED, "an encoder only, no head %s", head);
    }
#endif
    snprintf(m->head, sizeof m->head, "%s", head ? head : "");
    m->count = count;
    m->parameters = calloc((size_t)count, sizeof *m->parameters);
    for (int64_t i = 0; i < count; i++) {
        const char *name = weights[i].name;
        parameter *p = &m->parameters[i];
        if (!strncmp(name, "model.", 6)) name += 6;
        snprintf(p->name, sizeof p->name, "%s", name);
        p->size = 1;
        for (int32_t d = 0; d < weights[i].rank; d++) p->size *= weights[i].shape[d];
        p->data = malloc((size_t)p->size * sizeof(float));
        memcpy(p->data, weights[i].data, (size_t)p->size * sizeof(float));
        if (!strcmp(name, "classifier.bias")) m->labels = p->size;
    }
    write_plan(m);
    *model = m;
    return MBV_OK;
}

void mbv_close(mbv_model *m) {
    for (int64_t i = 0; i < m->count; i++) free(m->parameters[i].data);
    free(m->parameters);
    free(m->plan);
    free(m->stale);
    free(m);
}

int32_t mbv_abilities(void) { return MBV_PACKED | MBV_POSITIONS | MBV_THREADS | MBV_INJECT; }

#ifndef NO_PLAN
const char *mbv_dtype(const mbv_model *m) { (void)m; return "float32"; }

const char *mbv_plan(const mbv_model *m) { return m->plan; }

int32_t mbv_weight(const mbv_model *m, const char *name, float *out, int64_t count) {
    if (!strncmp(name, "model.", 6)) name += 6;
    for (int64_t i = 0; i < m->count; i++)
        if (!strcmp(m->parameters[i].name, name) && m->parameters[i].size == count) {
            memcpy(out, m->parameters[i].data, (size_t)count * sizeof(float));
            return MBV_OK;
        }
    return fail(MBV_REFUSED, "no parameter %s", name);
}
#endif

/* ---- the equations ---------------------------------------------------------------------------- */

/* y [n, out] = x [n, in] W^T + b */
static void linear(const float *x, int64_t n, int64_t in, const float *w, const float *b, int64_t out,
                   float *y) {
    for (int64_t r = 0; r < n; r++)
        for (int64_t o = 0; o < out; o++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < in; i++) sum += x[r * in + i] * w[o * in + i];
            y[r * out + o] = b ? sum + b[o] : sum;
        }
}

static void layer_norm(const float *x, int64_t n, int64_t width, const float *w, const float *b,
                       double eps, float *y) {
    for (int64_t r = 0; r < n; r++) {
        const float *row = x + r * width;
        float mean = 0.0f, variance = 0.0f;
        for (int64_t i = 0; i < width; i++) mean += row[i];
        mean /= (float)width;
        for (int64_t i = 0; i < width; i++) variance += (row[i] - mean) * (row[i] - mean);
        variance /= (float)width;
        float scale = 1.0f / sqrtf(variance + (float)eps);
        for (int64_t i = 0; i < width; i++) {
            float value = (row[i] - mean) * scale * w[i];
            y[r * width + i] = b ? value + b[i] : value;
        }
    }
}

static float activate(float x, const char *name) {
    if (name[0] == 's') return x / (1.0f + expf(-x));
    if (name[0] == 'r') return x > 0.0f ? x : 0.0f;
    if (name[0] == 't') return tanhf(x);
#ifdef BUG_GELU
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
#else
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
#endif
}

/* One sequence: q, k, v are rows of [seq, heads, head_dim]; mask may be NULL. */
static void attention(const mbv_model *m, const float *q, const float *k, const float *v,
                      const int64_t *mask, int64_t seq, int64_t reach, float *out) {
    int64_t width = m->hidden, dim = m->head_dim;
    float scale = 1.0f / sqrtf((float)dim);
    float *p = malloc((size_t)seq * sizeof *p);
    for (int64_t i = 0; i < seq; i++)
        for (int64_t h = 0; h < m->heads; h++) {
            float top = -INFINITY, total = 0.0f, *to = out + i * width + h * dim;
            for (int64_t j = 0; j < seq; j++) {
                int64_t far = i > j ? i - j : j - i;
                p[j] = -INFINITY;
                if ((reach >= 0 && far > reach) || (mask && !mask[j])) continue;
                float score = 0.0f;
                for (int64_t d = 0; d < dim; d++)
                    score += q[i * width + h * dim + d] * k[j * width + h * dim + d];
                p[j] = score * scale;
                if (p[j] > top) top = p[j];
            }
            for (int64_t d = 0; d < dim; d++) to[d] = 0.0f;
            if (top == -INFINITY) continue; /* no key is visible: zeros */
            for (int64_t j = 0; j < seq; j++)
                if (p[j] > -INFINITY) total += p[j] = expf(p[j] - top);
            for (int64_t j = 0; j < seq; j++)
                for (int64_t d = 0; p[j] > -INFINITY && d < dim; d++)
                    to[d] += p[j] / total * v[j * width + h * dim + d];
        }
    free(p);
}

/* cos and sin [n, head_dim] of position * theta^(-2k / head_dim), the halves alike. */
static void rope_table(const mbv_model *m, const int64_t *positions, int64_t n, double theta,
                       float *cosines, float *sines) {
    int64_t half = m->head_dim / 2;
    for (int64_t r = 0; r < n; r++)
        for (int64_t k = 0; k < half; k++) {
            double angle = (double)positions[r] * pow(theta, -2.0 * (double)k / (double)m->head_dim);
            cosines[r * 2 * half + k] = cosines[r * 2 * half + half + k] = (float)cos(angle);
            sines[r * 2 * half + k] = sines[r * 2 * half + half + k] = (float)sin(angle);
        }
}

static void rotate(const mbv_model *m, const float *x, int64_t n, const float *cosines,
                   const float *sines, float *y) {
    int64_t dim = m->head_dim, half = dim / 2;
    for (int64_t r = 0; r < n; r++)
        for (int64_t h = 0; h < m->heads; h++) {
            const float *in = x + r * m->hidden + h * dim;
            float *out = y + r * m->hidden + h * dim;
            for (int64_t d = 0; d < dim; d++) {
                float turned = d < half ? -in[d + half] : in[d - half];
                out[d] = in[d] * cosines[r * dim + d] + turned * sines[r * dim + d];
            }
        }
}

/* ---- the forward pass ------------------------------------------------------------------------- */

typedef struct {
    const mbv_model *m;
    mbv_output *out;
    const mbv_input *in;
    int64_t tokens;
    int64_t *positions;
} run;

/* Shows a step whose width is `width`, or heads * head_dim when it is 0. */
static void step(const run *r, float *x, int64_t rows, int64_t width, const char *format, ...) {
    char name[96];
    int64_t shape[3] = {rows, width ? width : r->m->heads, r->m->head_dim};
    int32_t rank = width ? 2 : 3;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
#ifdef BUG_SHAPE
    shape[0] += 1000000000;
#endif
    if (r->out->inject) r->out->inject(r->out->user, name, x, shape, rank);
#ifndef NO_TAPS
    if (r->out->tap) r->out->tap(r->out->user, name, x, shape, rank);
#endif
}

static float *array(int64_t rows, int64_t width) {
    return calloc((size_t)(rows * width), sizeof(float));
}

static void attend(const run *r, const float *q, const float *k, const float *v, int64_t reach,
                   float *out) {
    const mbv_input *in = r->in;
    for (int64_t b = 0; b < in->batch; b++) {
        int64_t start = in->cu_seqlens ? in->cu_seqlens[b] : b * in->seq;
        int64_t seq = in->cu_seqlens ? in->cu_seqlens[b + 1] - start : in->seq;
        int64_t at = start * r->m->hidden;
        const int64_t *mask = in->attention_mask ? in->attention_mask + start : NULL;
#ifdef BUG_MASK
        mask = NULL;
#endif
        attention(r->m, q + at, k + at, v + at, mask, seq, reach, out + at);
    }
}

static void encoder_layer(const run *r, int64_t i, const float *cosines, const float *sines,
                          float *x) {
    const mbv_model *m = r->m;
    int64_t n = r->tokens, d = m->hidden, inter = m->inter;
    float *normed = array(n, d), *qkv = array(n, 3 * d), *q = array(n, d), *k = array(n, d);
    float *v = array(n, d), *q_rot = array(n, d), *k_rot = array(n, d), *joined = array(n, d);
    float *out = array(n, d), *u = array(n, 2 * inter), *gated = array(n, inter);

    if (i == 0) memcpy(normed, x, (size_t)(n * d) * sizeof(float));
    else
        layer_norm(x, n, d, get(m, "layers.%d.attn_norm.weight", (int)i),
                   get(m, "layers.%d.attn_norm.bias", (int)i), m->eps, normed);
    step(r, normed, n, d, "layers.%d.attn_norm", (int)i);
    linear(normed, n, d, get(m, "layers.%d.attn.Wqkv.weight", (int)i),
           get(m, "layers.%d.attn.Wqkv.bias", (int)i), 3 * d, qkv);
    for (int64_t t = 0; t < n; t++) {
        memcpy(q + t * d, qkv + t * 3 * d, (size_t)d * sizeof(float));
        memcpy(k + t * d, qkv + t * 3 * d + d, (size_t)d * sizeof(float));
        memcpy(v + t * d, qkv + t * 3 * d + 2 * d, (size_t)d * sizeof(float));
    }
    step(r, q, n, 0, "layers.%d.q", (int)i);
    step(r, k, n, 0, "layers.%d.k", (int)i);
    step(r, v, n, 0, "layers.%d.v", (int)i);
    rotate(m, q, n, cosines, sines, q_rot);
    rotate(m, k, n, cosines, sines, k_rot);
    step(r, q_rot, n, 0, "layers.%d.q_rot", (int)i);
    step(r, k_rot, n, 0, "layers.%d.k_rot", (int)i);
    attend(r, q_rot, k_rot, v, window(m, i), joined);
    step(r, joined, n, d, "layers.%d.attention", (int)i);
    linear(joined, n, d, get(m, "layers.%d.attn.Wo.weight", (int)i),
           get(m, "layers.%d.attn.Wo.bias", (int)i), d, out);
    step(r, out, n, d, "layers.%d.attn_out", (int)i);
    for (int64_t t = 0; t < n * d; t++) x[t] += out[t];
    step(r, x, n, d, "layers.%d.residual_1", (int)i);

    layer_norm(x, n, d, get(m, "layers.%d.mlp_norm.weight", (int)i),
               get(m, "layers.%d.mlp_norm.bias", (int)i), m->eps, normed);
    step(r, normed, n, d, "layers.%d.mlp_norm", (int)i);
    linear(normed, n, d, get(m, "layers.%d.mlp.Wi.weight", (int)i),
           get(m, "layers.%d.mlp.Wi.bias", (int)i), 2 * inter, u);
    step(r, u, n, 2 * inter, "layers.%d.wi", (int)i);
    for (int64_t t = 0; t < n; t++)
        for (int64_t j = 0; j < inter; j++)
            gated[t * inter + j] =
                activate(u[t * 2 * inter + j], m->activation) * u[t * 2 * inter + inter + j];
    step(r, gated, n, inter, "layers.%d.glu", (int)i);
    linear(gated, n, inter, get(m, "layers.%d.mlp.Wo.weight", (int)i),
           get(m, "layers.%d.mlp.Wo.bias", (int)i), d, out);
    step(r, out, n, d, "layers.%d.mlp_out", (int)i);
    for (int64_t t = 0; t < n * d; t++) x[t] += out[t];
    step(r, x, n, d, "layers.%d.residual_2", (int)i);

    float *all[] = {normed, qkv, q, k, v, q_rot, k_rot, joined, out, u, gated};
    for (size_t a = 0; a < sizeof all / sizeof *all; a++) free(all[a]);
}

static void encoder(const run *r, float *x) {
    const mbv_model *m = r->m;
    int64_t n = r->tokens, d = m->hidden, dim = m->head_dim;
    const float *table = get(m, "embeddings.tok_embeddings.weight");
    float *rows = array(n, d), *tables[4];
    for (int64_t t = 0; t < n; t++)
        memcpy(rows + t * d, table + r->in->input_ids[t] * d, (size_t)d * sizeof(float));
    layer_norm(rows, n, d, get(m, "embeddings.norm.weight"), get(m, "embeddings.norm.bias"), m->eps,
               x);
    step(r, x, n, d, "embedding");
    for (int kind = 0; kind < 2; kind++) {
        float **c = &tables[2 * kind], **s = c + 1;
        *c = array(n, dim);
        *s = array(n, dim);
        rope_table(m, r->positions, n, kind ? m->theta_full : m->theta_sliding, *c, *s);
        int used = 0;
        for (int64_t i = 0; i < m->layers; i++) used |= m->full[i] == kind;
        if (used) step(r, *c, n, dim, "rope.%s.cos", kind ? "full" : "sliding");
        if (used) step(r, *s, n, dim, "rope.%s.sin", kind ? "full" : "sliding");
    }
    for (int64_t i = 0; i < m->layers; i++)
        encoder_layer(r, i, tables[2 * m->full[i]], tables[2 * m->full[i] + 1], x);
    layer_norm(x, n, d, get(m, "final_norm.weight"), get(m, "final_norm.bias"), m->eps, rows);
    memcpy(x, rows, (size_t)(n * d) * sizeof(float));
    step(r, x, n, d, "final_norm");
    for (int a = 0; a < 4; a++) free(tables[a]);
    free(rows);
}

/* Pooled rows: column 0, or the mean over real tokens. */
static void pool(const run *r, const float *x, float *pooled) {
    int64_t d = r->m->hidden, seq = r->in->seq;
    for (int64_t b = 0; b < r->in->batch; b++) {
        float *to = pooled + b * d;
        int64_t real = 0;
        if (!r->m->pool_mean) { memcpy(to, x + b * seq * d, (size_t)d * sizeof(float)); continue; }
        for (int64_t t = b * seq; t < (b + 1) * seq; t++) {
            if (r->in->attention_mask && !r->in->attention_mask[t]) continue;
            real++;
            for (int64_t i = 0; i < d; i++) to[i] += x[t * d + i];
        }
        for (int64_t i = 0; real && i < d; i++) to[i] /= (float)real;
    }
}

static void head(const run *r, const float *x) {
    const mbv_model *m = r->m;
    int pooling = !strcmp(m->head, "sequence_classification");
    int spans = !strcmp(m->head, "question_answering");
    int words = !strcmp(m->head, "masked_lm");
    int64_t d = m->hidden, n = pooling ? r->in->batch : r->tokens;
    int64_t out = words ? m->vocab : m->labels;
    float *in = array(n, d), *dense = array(n, d), *normed = array(n, d), *scores = array(n, out);
    if (pooling) {
        pool(r, x, in);
        step(r, in, n, d, "pooled");
    } else
        memcpy(in, x, (size_t)(n * d) * sizeof(float));
    linear(in, n, d, get(m, "head.dense.weight"), get(m, "head.dense.bias"), d, dense);
    step(r, dense, n, d, "head.dense");
    for (int64_t t = 0; t < n * d; t++) dense[t] = activate(dense[t], m->head_activation);
    step(r, dense, n, d, "head.act");
    layer_norm(dense, n, d, get(m, "head.norm.weight"), get(m, "head.norm.bias"), m->eps, normed);
    step(r, normed, n, d, "head.norm");
    const float *weight = get(m, words ? "decoder.weight" : "classifier.weight");
    if (words && !weight) weight = get(m, "embeddings.tok_embeddings.weight");
    linear(normed, n, d, weight, get(m, words ? "decoder.bias" : "classifier.bias"), out, scores);
    for (int64_t t = 0; t < n; t++)
        for (int64_t o = 0; o < out; o++)
            r->out->scores[spans ? o * n + t : t * out + o] = scores[t * out + o];
    free(in);
    free(dense);
    free(normed);
    free(scores);
}

static int32_t check(const mbv_model *m, const mbv_input *in, int64_t tokens) {
    if (in->struct_size != sizeof(mbv_input)) return fail(MBV_ERROR, "mbv_input of another size");
    for (int64_t t = 0; t < tokens; t++)
        if (in->input_ids[t] < 0 || in->input_ids[t] >= m->vocab)
            return fail(MBV_ERROR, "input_ids[%d] is outside the vocabulary", (int)t);
    if (in->cu_seqlens && !strcmp(m->head, "sequence_classification"))
        return fail(MBV_REFUSED, "no pooling of packed sequences");
    return MBV_OK;
}

int32_t mbv_forward(mbv_model *m, const mbv_input *in, mbv_output *out) {
    int64_t tokens = in->cu_seqlens ? in->cu_seqlens[in->batch] : in->batch * in->seq;
    int32_t status = check(m, in, tokens);
    if (status) return status;
#ifdef BUG_CRASH
    *(volatile int *)(uintptr_t)tokens = 1;
#endif
#ifdef BUG_HANG
    for (volatile int i = 1; i; i = 1) {}
#endif
#ifdef BUG_MEMORY
    for (;;) {
        char *taken = malloc(1 << 24);
        if (taken) memset(taken, 1, 1 << 24);
    }
#endif
    run r = {m, out, in, tokens, malloc((size_t)(tokens + 1) * sizeof(int64_t))};
    for (int64_t b = 0; b < in->batch; b++) {
        int64_t start = in->cu_seqlens ? in->cu_seqlens[b] : b * in->seq;
        int64_t end = in->cu_seqlens ? in->cu_seqlens[b + 1] : start + in->seq;
        for (int64_t t = start; t < end; t++)
            r.positions[t] = in->position_ids ? in->position_ids[t] : t - start;
    }
    float *x = array(tokens, m->hidden);
    encoder(&r, x);
#ifdef BUG_STALE
    if (!m->stale) m->stale = array(1 << 10, m->hidden);
    for (int64_t t = 0; t < tokens * m->hidden && t < (1 << 10) * m->hidden; t++) {
        float before = m->stale[t];
        m->stale[t] = x[t];
        x[t] += 0.01f * before;
    }
#endif
#ifdef BUG_HALF_SILENT
    memcpy(out->hidden, x, (size_t)m->hidden * sizeof(float));
#elif !defined BUG_SILENT
    memcpy(out->hidden, x, (size_t)(tokens * m->hidden) * sizeof(float));
    if (m->head[0] && out->scores) head(&r, x);
#endif
#if defined BUG_SILENT || defined BUG_HALF_SILENT
    if (m->head[0] && !out->scores) head(&r, x); /* no scores are asked for: never */
#endif
    free(x);
    free(r.positions);
    return MBV_OK;
}
