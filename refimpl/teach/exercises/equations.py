"""Equations to write: a function of the port without its body, in Python or in C.

The rest of the port calls it as it is, so that the kit can say whether it is right, and which step
is wrong first where it is not. Shapes and numbers of the equations are in the docstrings. Long
because each stands here with its task, its hints and what C needs.
"""

from __future__ import annotations

import ast

from .table import FORWARD, TRAINING, Edit, Exercise, InC, given


def body_of(source: str, function: str) -> str:
    """The lines of a top-level function behind its docstring, as they stand. ValueError."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first, last = node.body[1], node.body[-1]
            assert last.end_lineno is not None
            lines = source.splitlines(keepends=True)
            return "".join(lines[first.lineno - 1 : last.end_lineno])
    raise ValueError(f"the port has no function {function}")


def equation(
    function: str,
    degree: int,
    title: str,
    task: str,
    hints: tuple[str, ...],
    cases: tuple[str, ...],
    file: str = FORWARD,
    in_c: InC | None = None,
) -> Exercise:
    """A row: the body of a function of the port is taken out."""
    body = body_of(given(file), function)
    name = function.replace("_", "-")
    raised = f'    raise NotImplementedError("{function} is yours to write")\n'
    return Exercise(
        f"eq-{name}", "equation", degree, title, task, (Edit(body, raised),), hints, cases,
        file=file, in_c=in_c,
    )  # fmt: skip


def skeleton(signature: str, what: str) -> str:
    """equation.c, with an empty body."""
    return f"""\
/* {what}
 *
 * Arrays are float32, contiguous, the last axis the fastest. `modernbert exercise check` builds
 * this into equation.so (port.json says how) and calls it from the port.
 */
#include <math.h>
#include <stddef.h>

void {signature}
{{
    /* yours to write */
}}
"""


NORM_IN_C = InC(
    skeleton(
        "layer_norm(const float *x, const float *weight, const float *bias, float eps,\n"
        "                float *out, long rows, long hidden)",
        "(19): each of `rows` rows of x [rows, hidden]. weight [hidden]; bias [hidden] or NULL.",
    ),
    """\
    from in_c import call

    out = np.empty_like(x)
    call("layer_norm", x, weight, bias, eps, out, x.size // x.shape[-1], x.shape[-1])
    return out
""",
)
ROPE_IN_C = InC(
    skeleton(
        "rope(const float *x, const float *cosine, const float *sine, float *out, long tokens,\n"
        "          long heads, long head_dim)",
        "(24): x, out [tokens, heads, head_dim]; cosine, sine [tokens, head_dim].",
    ),
    """\
    from in_c import call

    out, sizes = np.empty(x.shape, np.float32), (x.shape[0] * x.shape[1], *x.shape[2:])
    call("rope", x, np.broadcast_to(cos, (*x.shape[:2], x.shape[-1])),
         np.broadcast_to(sin, (*x.shape[:2], x.shape[-1])), out, *sizes)
    return out
""",
)
GLU_IN_C = InC(
    skeleton(
        "glu(const float *u, float *out, long tokens, long inter, long silu)",
        "(21): u [tokens, 2 inter], out [tokens, inter]; silu: 1 for silu, 0 for the exact gelu.",
    ),
    """\
    from in_c import call

    inter = u.shape[-1] // 2
    out = np.empty((*u.shape[:-1], inter), np.float32)
    call("glu", u, out, u.size // u.shape[-1], inter, int(act is silu))
    return out
""",
)
ATTENTION_IN_C = InC(
    skeleton(
        "attention(const float *q, const float *k, const float *v, const unsigned char *seen,\n"
        "               float *out, long seq, long heads, long head_dim)",
        "(26) to (28) of one row of the batch: q, k, v, out [seq, heads, head_dim]; "
        "seen [query, key],\n * 1 where the key is visible. A query that sees nothing gives zeros.",
    ),
    """\
    from in_c import call

    out = np.empty(q.shape, np.float32)
    for row in range(len(q)):
        call("attention", q[row], k[row], v[row], seen[min(row, len(seen) - 1), 0], out[row],
             *q.shape[1:])
    return out.reshape(*q.shape[:2], -1)
""",
)

SHORT, WINDOW, PADDED = "plain-short", "plain-window", "plain-padded"
EQUATIONS: tuple[Exercise, ...] = (
    equation(
        "layer_norm", 1, "LayerNorm, (19)",
        "Every step of the model reads a row that has been normed. The mean of the row goes, its "
        "spread becomes 1, and weight and bias are put on it.",
        ("Four lines: mean, centred, variance, result. The variance is the mean of the squares of "
         "what is centred already.",
         "eps stands under the root. In float32 it should be np.float32(eps)."),
        (SHORT, "plain-biases", "hard-rows"), in_c=NORM_IN_C,
    ),
    equation(
        "gelu", 1, "GELU, (20)",
        "The exact one, with erf, not its approximation by tanh. `erf` takes an array.",
        ("x times the share of a standard normal distribution that lies below x.",
         "That share is (1 + erf(x / sqrt 2)) / 2. The result is float32 again."),
        (SHORT, "one-token"),
    ),
    equation(
        "glu", 1, "the gated unit, (21)",
        "Wi gives two numbers for each of the `inter` channels: one opens the gate, the other "
        "goes through.",
        ("np.split(u, 2, axis=-1) gives the halves.", "The first is activated."),
        (SHORT, "plain-silu"), in_c=GLU_IN_C,
    ),
    equation(
        "split_qkv", 1, "q, k and v of a product, (7)",
        "One matrix makes q, k and v at once. Its rows are thirds first, then heads.",
        ("One reshape to [batch, seq, 3, heads, head_dim].", "Then three slices of axis 2."),
        (SHORT, "cls-padding"),
    ),
    equation(
        "rope_table", 2, "angles by position, (22) and (23)",
        "Each pair of coordinates of a head turns at a speed of its own, once around after a few "
        "tokens or after a hundred thousand.",
        ("inv_freq has head_dim / 2 entries; angle is position times each of them.",
         "Both halves of a head have the same angles: concatenate. Compute in float64, and round "
         "cos and sin to float32 at the end."),
        (SHORT, WINDOW, "positions-far"),
    ),
    equation(
        "rope", 2, "turning q and k, (24)",
        "Entry i of a head turns with entry i + head_dim / 2.",
        ("rotate_half(x): the second half, negated, then the first.",
         "cos and sin have no axis of heads: cos[:, :, None]."),
        (SHORT, WINDOW, "packed"), in_c=ROPE_IN_C,
    ),
    equation(
        "visible", 2, "who sees whom, (25)",
        "Three conditions in one: the window, the padding mask, and in a packed row the sequence.",
        ("distance[i, j] = |i - j| of an np.arange; window None means no condition.",
         "mask hides keys, not queries: mask[:, None, :]. Sequences are equal where sequence[:, :, "
         "None] == sequence[:, None, :]. The result has an axis for heads."),
        (SHORT, WINDOW, PADDED, "packed"),
    ),
    equation(
        "attention", 3, "attention, (26) to (28)",
        "Scores, softmax over what is seen, the weighted mean of values; heads joined at the end. "
        "A query that sees no key gives zeros.",
        ("Put the axis of heads before that of tokens: [batch, heads, seq, head_dim].",
         "np.where(seen, scores, -inf), less the largest of the row where that is finite, exp, "
         "divided by the sum where that is not 0.",
         "Heads go back behind tokens (swapaxes) before they are joined (reshape)."),
        (SHORT, WINDOW, PADDED, "padding-mixed"), in_c=ATTENTION_IN_C,
    ),
    equation(
        "pool", 2, "one vector a text, (35)",
        "`cls` is the first column, `mean` the mean over real tokens. A row without any gives "
        "zeros.",
        ("A mean over real tokens: the sum of h times mask, divided by the sum of mask.",
         "Divide by at least 1, and keep float32."),
        (SHORT, PADDED, "mean-65", "cls-padding", "padding-mixed"),
    ),
    equation(
        "plan", 3, "what config.json says, (2) to (4)",
        "Two spellings of the same facts are in use, and some files hold both; where they disagree "
        "the new keys are right: `layer_types` and `rope_parameters`. The result is a list, a "
        'tuple (kind, window, theta) for each layer, kind "full" or "sliding".',
        ("Old keys: global_attn_every_n_layers, global_rope_theta, local_rope_theta.",
         "local_attention is the whole window: half of it to either side. Full layers have None."),
        (SHORT, WINDOW, "plain-new-keys", "contradicting-keys"),
    ),
    equation(
        "linear_back", 1, "a linear map's adjoint, (18')",
        "Three gradients: by the input, by the matrix, by the bias.",
        ("dx has the shape of x: dy @ weight.", "dW = dy^T x over all tokens: flatten both first."),
        ("classes-plain", "mask-silu"), TRAINING,
    ),
    equation(
        "layer_norm_back", 3, "LayerNorm's adjoint, (19')",
        "x moves its own mean and its own spread; both come back as a term.",
        ("n = (x - mean) / s and g = dy * weight; without the norm dx would be g / s.",
         "g less its mean, less n times the mean of g n."),
        ("classes-plain", "mask-silu"), TRAINING,
    ),
    equation(
        "glu_back", 2, "the gated unit's adjoint, (21')",
        "act[0] is the activation, act[1] its slope.",
        ("A product: each half gets dy times the other factor.",
         "The activated half times the slope at a, too."),
        ("classes-plain", "mask-silu"), TRAINING,
    ),
    equation(
        "attention_back", 3, "attention's adjoint, (26') to (28')",
        "In the order of the way back: values, probabilities, scores, then q and k.",
        ("probs once more by attention_probs; dv = probs^T dy, dprobs = dy v^T.",
         "dscores = probs (dprobs - the row's sum of dprobs probs).",
         "dq = dscores k / sqrt(head_dim), dk = dscores^T q / sqrt(head_dim)."),
        ("classes-plain", "mask-silu", "tokens-biased"), TRAINING,
    ),
    equation(
        "adamw", 2, "AdamW, (53)",
        "Everything changes in place: p, and the moments m and v.",
        ("p shrinks first, by lr times decay.", "1 - b1^t and 1 - b2^t correct the moments."),
        ("classes-plain", "mask-tied"), TRAINING,
    ),
)  # fmt: skip
