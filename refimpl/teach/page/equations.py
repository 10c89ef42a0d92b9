"""The equations of MODEL.md that a page shows, under its numbers and step names.

STEPS are the rows of its sections 2 and 9 in the order of the pass, with a sentence for those who
see them for the first time; FUNCTIONS the numbered lines of sections 1, 3 to 6. A test holds every
line against MODEL.md, which is not in a wheel.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """A row of MODEL.md: its number ("" where it stands in the row above's), its tap, its equation,
    the functions that the equation names, and what happens, in a sentence."""

    number: str
    tap: str
    equation: str
    uses: tuple[str, ...]
    says: str


STEPS = (
    Step("5", "embedding",
         "h = layer_norm(E[ids]); with token types: layer_norm(E[ids] + T[types])", ("19",),
         "Each token's row of the table E, normed. Nothing tells yet where in the text it stands."),
    Step("6", "layers.{i}.attn_norm",
         "layer_norm(h); in layer 0: h itself, there is no such norm", ("19",),
         "Each vector gets mean 0 and variance 1, and a gain for each column; the residual stream "
         "itself is left as it is (pre-norm)."),
    Step("7", "layers.{i}.q",
         "the first third of linear(attn_norm, attn.Wqkv), head after head", ("18", "1"),
         "The query: what this token looks for. Each head has its own."),
    Step("", "layers.{i}.k", "the second third", ("18",),
         "The key: what this token offers to be found by."),
    Step("", "layers.{i}.v", "the last third", ("18",),
         "The value: what a token that looks here takes along."),
    Step("8", "layers.{i}.q_rot", "rope(q) by (24) with theta(i)", ("22", "23", "24", "4"),
         "Pairs of columns are turned by angles that grow with the position."),
    Step("", "layers.{i}.k_rot", "rope(k)", ("24",),
         "Keys are turned in the same way, so that a score depends on the distance alone."),
    Step("9", "layers.{i}.attention",
         "attention(q_rot, k_rot, v) by (28) with window(i), heads joined",
         ("25", "26", "27", "28", "3"),
         "Each token takes the values of those that it sees, weighted by how well its query fits "
         "their keys."),
    Step("10", "layers.{i}.attn_out", "linear(attention, attn.Wo)", ("18",),
         "The heads' finds are mixed into one vector: what attention adds."),
    Step("11", "layers.{i}.residual_1", "h = h + attn_out", (),
         "It is added to the residual stream."),
    Step("12", "layers.{i}.mlp_norm", "layer_norm(h)", ("19",),
         "Normed again, for the gated unit."),
    Step("13", "layers.{i}.wi", "linear(mlp_norm, mlp.Wi)", ("18",),
         "Two numbers a unit: the first half will be activated, the second half is the gate."),
    Step("14", "layers.{i}.glu", "glu(wi) by (21)", ("20", "21"),
         "Each unit's first number, activated, times its gate."),
    Step("15", "layers.{i}.mlp_out", "linear(glu, mlp.Wo)", ("18",),
         "The units mixed into one vector: what the MLP adds. No other token is looked at here."),
    Step("16", "layers.{i}.residual_2", "h = h + mlp_out", (),
         "It is added too: the layer's result, and the next one's h."),
    Step("17", "final_norm", "layer_norm(h): the `last_hidden_state`", ("19",),
         "The last norm. This is what the encoder gives."),
    Step("29", "head.dense", "linear(x, head.dense)", ("18",),
         "The head starts with a square matrix."),
    Step("", "head.act", "act(head.dense), `classifier_activation`", ("20",), "An activation."),
    Step("", "head.norm", "layer_norm(head.act)", ("19",),
         "A norm: what the decoder, or the classifier, is multiplied with."),
)  # fmt: skip

FUNCTIONS = {
    "1": "head_dim = hidden / heads",
    "3": "window(i) = none if full(i), floor(local_attention / 2) otherwise",
    "4": "theta(i) = global_rope_theta if full(i), local_rope_theta otherwise",
    "18": "linear(x, W, b) = x W^T + b",
    "19": "m = mean(x), s2 = mean((x - m)^2)\n"
    "layer_norm(x) = (x - m) / sqrt(s2 + norm_eps) * weight + bias",
    "20": "gelu(x) = x / 2 * (1 + erf(x / sqrt(2)))",
    "21": "glu(u) = act(u[:inter]) * u[inter:]",
    "22": "inv_freq[k] = theta^(-2 k / head_dim)",
    "23": "angle = position * inv_freq",
    "24": "rotate_half(x) = [-x[head_dim/2:], x[:head_dim/2]]\n"
    "rope(x) = x * cos + rotate_half(x) * sin",
    "25": "visible(i, j) = mask[j] != 0 and (window is none or |i - j| <= window)",
    "26": "scores[i, j] = q[i] . k[j] / sqrt(head_dim) where visible, else -inf",
    "27": "probs[i, j] = exp(scores[i, j] - max_j scores[i, j]) / sum_j exp(..)",
    "28": "attention(q, k, v)[i] = sum_j probs[i, j] v[j]",
}

# What the head says, by its kind: the row of section 9.
ANSWERS = {
    "masked_lm": ("30", "linear(head(x), decoder); tied: decoder.weight is E of (5)"),
    "sequence_classification": (
        "31",
        "linear(head(pooled), classifier); `pooled` by `classifier_pooling`",
    ),
    "token_classification": ("32", "linear(head(x), classifier) for each token"),
}
