"""Bugs in the forward pass: one line of the port made wrong, as public ports have had it.

Each row has the zoo's id of the mistake, so that `modernbert verify` must rank that first. Symptoms
of degree 3 are worded as users report them. Long because every bug stands here with its edit, its
symptom and its hint.
"""

from __future__ import annotations

from functools import partial

from .table import FORWARD, Exercise, planted_bug

SHORT, WINDOW, PADDED = "plain-short", "plain-window", "plain-padded"
bug = partial(planted_bug, FORWARD, "bug")


BUGS: tuple[Exercise, ...] = (
    # -- degree 1 ---------------------------------------------------------------------------------
    bug(
        1, 1, "A1b", "attention that looks at one token only",
        "Attention maps of this port are almost one-hot: every token takes one other token's value "
        "and next to nothing of the rest. Embedding, q, k and v are right.",
        "What keeps a sum of head_dim products from growing with head_dim?",
        (SHORT, "two-tokens", "one-token"),
        (" / np.float32(math.sqrt(q.shape[-1]))", ""),
    ),
    bug(
        2, 1, "A2a", "every token asks what it should answer",
        "The weights are loaded (their sums agree with the file's), the norm before attention is "
        "right, and still the very next step is not.",
        "Wqkv holds three maps, one below the other. Which is the first?",
        (SHORT, "two-tokens"),
        ("q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]",
         "k, q, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]"),
    ),
    bug(
        3, 1, "A5a", "a stream that forgets where it came from",
        "Layer 0 is right to the last digit. From layer 1 on the hidden states drift away from the "
        "expected ones, more with every layer.",
        "In layer 0 the norm before attention is left out. What does that make equal there, and "
        "nowhere else?",
        (SHORT, WINDOW),
        ('h = tap(at + "residual_1", h + a)', 'h = tap(at + "residual_1", x + a)'),
    ),
    bug(
        4, 1, "F1", "a gate on the wrong side",
        "Attention is right in every layer when it is fed the right input. The MLP is not, though "
        "its first product is.",
        "Two halves come out of Wi. One is activated, the other multiplies: which is which?",
        (SHORT, "plain-silu"),
        ("return act(a) * g", "return a * act(g)"),
    ),
    bug(
        5, 1, "N3", "norms that leave a mean behind",
        "The first step of all, `embedding`, is off by some percent already, and so is every norm "
        "after it. The lengths of the vectors look right.",
        "Take the mean of a row of `embedding` divided by the norm's weight. What should it be?",
        (SHORT, "plain-biases"),
        ("centred = x - mean", "centred = x"),
    ),
    bug(
        6, 1, "N4a", "the last step is the last but one",
        "All layers are right. Masked tokens are guessed badly, sentence vectors are far from the "
        "expected ones.",
        "Count the norms of a model with 4 layers: one after the embedding, two a layer but for "
        "the first, and ..",
        (SHORT, "one-token"),
        ('return tap("final_norm", norm(w, "final_norm", h, eps))', 'return tap("final_norm", h)'),
    ),
    bug(
        7, 1, "R8a", "a clock that runs backwards",
        "Tables of cos and sin are right, q and k are right before they are turned and wrong "
        "afterwards. Scores between neighbours look plausible.",
        "Turn the point (1, 0) by a quarter by hand. Where should it be, and where is it here?",
        (SHORT, "two-tokens"),
        ("[-second, first]", "[second, -first]"),
    ),
    bug(
        8, 1, "R8b", "one hand of the clock stands still",
        "Scores depend on where a text starts: the same words at positions 0 .. 11 and "
        "100 .. 111 attend differently.",
        "What makes a score depend on the distance alone? Two things have to be turned.",
        (SHORT, "two-tokens"),
        ('k_rot = tap(at + "k_rot", rope(k, *tables[kind]))', 'k_rot = tap(at + "k_rot", k)'),
    ),
    bug(
        9, 1, "W1", "right on the blackboard, wrong in the book",
        "Sentences of a few words agree with the reference to the last digit. Paragraphs do not.",
        "Which steps may look at other tokens at all? Of these, which layers are wrong, and which "
        "are right?",
        (SHORT, WINDOW),
        ("near = True if window is None else np.abs(ahead) <= window", "near = True"),
    ),
    bug(
        10, 1, "W7", "tokens that are not there",
        "Each text alone is right. In a batch with a longer one it gets another answer.",
        "What stands in a row of a batch behind the end of its text, and who must not see it?",
        (SHORT, PADDED),
        ("return (near & same & mask[:, None, :])[:, None]",
         "return (near & same & np.ones_like(mask)[:, None, :])[:, None]"),
    ),
    bug(
        11, 1, "H4a", "too sure, and then not sure at all",
        "The most probable token is the right one, always. Its probability, which the caller makes "
        "of the output, is hardly above that of the others.",
        "Scores, log-probabilities and probabilities are three things. Which does the caller "
        "expect, and how often is softmax applied?",
        ("one-token", "spans", "mean-65"),
        ('    if kind == "question_answering":\n        tap("start_logits", scores[..., 0])\n'
         '        tap("end_logits", scores[..., 1])',
         '    if kind == "question_answering":\n'
         '        tap("start_logits", softmax(scores[..., 0]))\n'
         '        tap("end_logits", softmax(scores[..., 1]))'),
        ('        tap("logits", scores)\n',
         '        tap("logits", softmax(scores))\n\n\ndef softmax(x):\n'
         '    e = np.exp(x - x.max(-1, keepdims=True))\n    return e / e.sum(-1, keepdims=True)\n'),
    ),
    bug(
        12, 1, "F4b", "both doors shut",
        "The MLP's output is too small, and hardly ever negative before its last product.",
        "How many of the two halves does (21) send through the activation?",
        (SHORT, "plain-silu"),
        ("return act(a) * g", "return act(a) * act(g)"),
    ),
    # -- degree 2 ---------------------------------------------------------------------------------
    bug(
        13, 2, "W4a", "a text of 4 tokens is right, one of 24 is not",
        "The port was tested with short texts and shipped. A user sends a long one.",
        "`local_attention` of the plain models is 6. How many keys does a token in the middle see?",
        (SHORT, WINDOW, "eight-tokens"),
        ('window = config["local_attention"] // 2', 'window = config["local_attention"]'),
    ),
    bug(
        14, 2, "W3a", "almost the right neighbours",
        "The vectors of long texts have a cosine of more than 0.9 with the expected ones, those of "
        "short ones of 1.",
        "Count by hand: with a window of 3 to either side, which keys does token 10 see?",
        (SHORT, WINDOW, "window-66"),
        ("np.abs(ahead) <= window", "np.abs(ahead) < window"),
    ),
    bug(
        15, 2, "W5b", "left and right are not alike",
        "Reversing the order of a text (and of its positions) should reverse its hidden states. "
        "Here it does so for short texts only.",
        "Try the rule on a query and the keys at both ends of its window.",
        (SHORT, WINDOW, "eight-tokens"),
        ("np.abs(ahead) <= window", "(ahead >= -window) & (ahead < window)"),
    ),
    bug(
        16, 2, "R9", "layers that swapped their clocks",
        "Every length is affected, one token alone is not. The further apart two tokens are, the "
        "stranger their score.",
        "Two kinds of layer, two thetas. Print what each layer is going to use before it computes.",
        ("one-token", SHORT, WINDOW),
        ('{True: ("full", None, theta_full), False: ("sliding", window, theta_sliding)}',
         '{True: ("full", None, theta_sliding), False: ("sliding", window, theta_full)}'),
    ),
    bug(
        17, 2, "C1", "one clock for all layers",
        "One token alone is right. Two are not, though only slightly wrong, and what full layers "
        "compute is right if they get the right input.",
        "Which numbers of config.json does the port read, and which of them does it use?",
        ("one-token", SHORT, WINDOW),
        ('{True: ("full", None, theta_full), False: ("sliding", window, theta_sliding)}',
         '{True: ("full", None, theta_full), False: ("sliding", window, theta_full)}'),
    ),
    bug(
        18, 2, "A2c", "heads that share their halves",
        "The sum over q, k and v of the squares is the expected one, to the last digit; and yet "
        "nothing behind it is right.",
        "The axis of 3 * hidden entries is three axes in one. In which order?",
        (SHORT, "two-tokens", "cls-padding"),
        ("parts = qkv.reshape(*qkv.shape[:2], 3, heads, -1)\n"
         "    q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]",
         "parts = qkv.reshape(*qkv.shape[:2], heads, 3, -1)\n"
         "    q, k, v = parts[:, :, :, 0], parts[:, :, :, 1], parts[:, :, :, 2]"),
    ),
    bug(
        19, 2, "A4a", "a shape that fits by accident",
        "Every reshape succeeds, no error, no warning. One token alone is right.",
        "A reshape never moves a number. After the weighted sum the axes are batch, heads, seq, "
        "head_dim; and the result has heads joined.",
        ("one-token", SHORT, WINDOW),
        ("    out = (probs @ v).swapaxes(1, 2)\n    return out.reshape(*out.shape[:2], -1)",
         "    out = probs @ v\n    return out.reshape(out.shape[0], out.shape[2], -1)"),
    ),
    bug(
        20, 2, "R1a", "turned in other pairs",
        "The length of every q and k is right, before and after it was turned. Position 0 is "
        "right, and no other.",
        "A turn needs two coordinates. Which two of a head belong together here?",
        ("one-token", SHORT, "two-tokens"),
        ("    first, second = np.split(x, 2, axis=-1)\n"
         "    turned = np.concatenate([-second, first], axis=-1)\n"
         "    return x * cos[:, :, None] + turned * sin[:, :, None]",
         "    half = x.shape[-1] // 2\n"
         "    cos, sin = cos[:, :, None, :half], sin[:, :, None, :half]\n"
         "    first, second = x[..., 0::2], x[..., 1::2]\n"
         "    pairs = [first * cos - second * sin, first * sin + second * cos]\n"
         "    return np.stack(pairs, axis=-1).reshape(x.shape)"),
    ),
    bug(
        21, 2, "F2", "wrong in the fourth digit",
        "Cosines are 1.00000. No answer changes. The reference disagrees in the fourth digit, on "
        "every input, by about the same.",
        "Too much for rounding, too little for a wrong formula. Which function has a famous "
        "approximation?",
        (SHORT, "plain-silu"),
        ("    phi = 0.5 * (1.0 + erf(x / math.sqrt(2.0)))",
         "    phi = 0.5 * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))"),
    ),
    bug(
        22, 2, "F3", "a gate that opens too early",
        "Models with silu are right. Models with gelu are off by some percent in every layer.",
        "Phi is the share of a normal distribution below x. What is erf the share of?",
        (SHORT, "plain-silu"),
        ("erf(x / math.sqrt(2.0))", "erf(x)"),
    ),
    bug(
        23, 2, "C6", "a setting that nobody reads",
        "Three of four models are right. The fourth has a config.json that differs in one line.",
        "Compare the config.json of a case that is right with that of one that is wrong.",
        (SHORT, "plain-silu", "silu-64"),
        ('act = ACTIVATIONS[config["hidden_activation"]]\n\n', 'act = gelu\n\n'),
    ),
    bug(
        24, 2, "N1", "a step too many",
        "Each single layer is right when it gets the right input, but for one.",
        "The input of layer 0 comes out of a norm. Is there a second one in the file?",
        (SHORT, "one-token"),
        ('x = h if i == 0 else norm(w, at + "attn_norm", h, eps)',
         'x = layer_norm(h, 1, None, eps) if i == 0 else norm(w, at + "attn_norm", h, eps)'),
    ),
    bug(
        25, 2, "N2b", "louder with every layer",
        "Hidden states are right up to the first layer's attention. Then numbers grow, layer by "
        "layer.",
        "How many norms does a layer have, and what does each of them read?",
        (SHORT, "one-token"),
        ('norm(w, at + "mlp_norm", h, eps)', "h"),
    ),
    bug(
        26, 2, "N6b", "tensors that nobody asked for",
        "All models are right but those with more tensors in their file than the others.",
        "List the names in weights/ of a model that is wrong. Which of them does the port look up?",
        (SHORT, "plain-biases", "two-tokens"),
        ('linear(x, w[name + ".weight"], w.get(name + ".bias"))',
         'linear(x, w[name + ".weight"], w["classifier.bias"] if name == "classifier" else None)'),
        ('layer_norm(x, w[name + ".weight"], w.get(name + ".bias"), eps)',
         'layer_norm(x, w[name + ".weight"], None, eps)'),
    ),
    bug(
        27, 2, "H2a", "short texts are alike",
        "Sentence vectors of short texts in a batch of long ones lie close together, and close to "
        "zero. The hidden states of their tokens are right.",
        "A mean is a sum and a count. What is summed, and what is counted?",
        ("mean-65", PADDED, SHORT),
        ("    real = mask.astype(np.float32)\n", "    real = np.ones(mask.shape, np.float32)\n"),
    ),
    bug(
        28, 2, "H3b", "the right parts in the wrong order",
        "The encoder is right, and no head is. Their tensors are all used.",
        "(29) has three rows. The port has three lines.",
        ("one-token", "spans", "mean-65"),
        ('    x = tap("head.act", act(x))\n    x = tap("head.norm", norm(w, "head.norm", x, '
         'config["norm_eps"]))',
         '    x = tap("head.act", norm(w, "head.norm", x, config["norm_eps"]))\n'
         '    x = tap("head.norm", act(x))'),
    ),
    bug(
        29, 2, "H6b", "a table that is used twice",
        "One masked-language model guesses as the reference does. Another one, of the same size, "
        "guesses at random.",
        "`tie_word_embeddings` of the two, and the names in their weights/.",
        ("one-token", "eight-tokens", "two-tokens"),
        ('tied = "decoder.weight" not in w', "tied = True"),
    ),
    bug(
        30, 2, "C2a", "the first layer is short-sighted",
        "Short texts are wrong a little, long ones much. Fed with right input, three of four "
        "layers are right.",
        "Which layers see the whole text? Start counting where (2) does.",
        ("one-token", SHORT, WINDOW),
        ("    return [kinds[is_full] for is_full in full]",
         "    return [kinds[is_full and i > 0] for i, is_full in enumerate(full)]"),
    ),
    # -- degree 3 ---------------------------------------------------------------------------------
    bug(
        31, 3, "W9", "HTTP 200, and the body is null",
        "\"Most requests are fine. Now and then a whole batch comes back as NaN, and it is always "
        "one in which a very short text was padded to the length of a very long one, or an empty "
        "text was sent.\"",
        "What is the sum of e^s over no keys at all, and what is 0 / 0?",
        (PADDED, "padding-mixed", SHORT),
        ("    probs = e / np.where(total == 0, np.float32(1), total)",
         "    with np.errstate(invalid=\"ignore\"):\n        probs = e / total"),
    ),
    bug(
        32, 3, "W12", "neighbours in one row talk",
        "\"Packing made it three times as fast. But the vectors of my texts now depend on what "
        "was packed beside them.\"",
        "Which keys of the row belong to the same text as the query?",
        (WINDOW, "packed"),
        ("    same = sequence[:, :, None] == sequence[:, None, :]\n",
         "    same = np.ones((1, 1, 1), bool)\n"),
    ),
    bug(
        33, 3, "R5a", "the second text of a row",
        "\"With packing, the first text of each row has the vectors that it has alone. All others "
        "are slightly off, and the further back they stand, the more.\"",
        "A text's first token has position 0, wherever it stands.",
        (WINDOW, "packed"),
        ("positions = np.arange(ids.shape[1])[None] - np.repeat(ends[:-1], lengths)[None]",
         "positions = np.arange(ids.shape[1])[None]"),
    ),
    bug(
        34, 3, "R4a", "an argument without effect",
        "\"I pass position_ids as for a decoder, counted from the first real token. It makes no "
        "difference at all.\"",
        "Follow the array from inputs/ to the angle.",
        (WINDOW, "positions-left", "positions-far"),
        ('    positions = given.get("position_ids", positions)\n', ""),
    ),
    bug(
        35, 3, "R5b", "the side of the padding matters",
        "\"Padded on the right my batch is fine. Padded on the left, or with gaps, it is not what "
        "transformers gives.\"",
        "Where is position 0 of a row that starts with padding: at its first column, or at its "
        "first real token?",
        (PADDED, "padding-mixed"),
        ("np.ones(ids.shape)) != 0\n\n",
         "np.ones(ids.shape)) != 0\n    if \"attention_mask\" in given:\n"
         "        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)\n\n"),
    ),
    bug(
        36, 3, "R3b", "it comes round again",
        "\"Up to a handful of tokens all is well. Beyond that it gets worse step by step, and then "
        "strangely periodic: two tokens far apart attend as if they were neighbours.\"",
        "How many rows does the table of cos and sin have, and what is looked up for the next "
        "position?",
        ("two-tokens", SHORT, WINDOW),
        ("            cos, sin = rope_table(positions, head_dim, theta)\n",
         "            length = config[\"local_attention\"]\n"
         "            at = positions if kind == \"full\" else positions % length\n"
         "            cos, sin = rope_table(at, head_dim, theta)\n"),
    ),
    bug(
        37, 3, "W11", "a word that cannot be said",
        "\"There is one token in my vocabulary that changes nothing, wherever I put it: no other "
        "token's vector notices it.\"",
        "Who decides which tokens are real: the mask, or the id?",
        (PADDED, "pad-id-is-a-word"),
        ("    mask = given.get(\"attention_mask\", np.ones(ids.shape)) != 0\n",
         "    mask = np.ones(ids.shape, bool) if packed else ids != config[\"pad_token_id\"]\n"),
    ),
    bug(
        38, 3, "N5", "three digits are gone",
        "\"Our own checkpoint only: a few tokens come out as noise. Published ones are fine. The "
        "rows of these tokens have entries around 1000.\"",
        "E[x^2] and E[x]^2 in float32, for a row of mean 1000 and variance 1: how many digits of "
        "the difference are left?",
        (SHORT, "hard-rows"),
        ("variance = (centred * centred).mean(-1, keepdims=True)",
         "variance = np.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)"),
    ),
    bug(
        39, 3, "C7a", "some rows shout",
        "\"All is well on normal text. With our padding tokens, whose embeddings are nearly zero, "
        "the hidden states are far too large.\"",
        "For which rows does the small number under the root matter?",
        (SHORT, "hard-rows", "silu-64"),
        ('eps, heads = config["norm_eps"], config["num_attention_heads"]',
         'eps, heads = 1e-12, config["num_attention_heads"]'),
        ('x = tap("head.norm", norm(w, "head.norm", x, config["norm_eps"]))',
         'x = tap("head.norm", norm(w, "head.norm", x, 1e-12))'),
    ),
    bug(
        40, 3, "N7", "all of it is a little too small",
        "\"Every vector has the right direction to three digits and is about one and a half "
        "percent too short, in the small model. In a larger one the difference is smaller.\"",
        "Statistics packages and ModernBERT divide the sum of squares by different numbers.",
        (SHORT, "one-token", "usual-size-80"),
        ("variance = (centred * centred).mean(-1, keepdims=True)",
         "variance = centred.var(-1, keepdims=True, ddof=1)"),
    ),
    bug(
        41, 3, "H5b", "the second text is the first one's second word",
        "\"One text at a time our classifier is right. In a batch, only the first text is.\"",
        "How far apart in memory are the first tokens of two rows?",
        ("cls-padding", "mean-65"),
        ('        h = tap("pooled", pool(h, mask, config["classifier_pooling"]))',
         '        cls = config["classifier_pooling"] == "cls"\n'
         '        rows = h.reshape(-1, h.shape[-1])[: len(h)] if cls else pool(h, mask, "mean")\n'
         '        h = tap("pooled", rows)'),
    ),
    bug(
        42, 3, "A3b", "the longest text comes first",
        "\"As long as the texts of a batch are sorted, longest first, the short ones are wrong. "
        "Sorted the other way round, everything after their length is cut off.\"",
        "The mask has a row for each text.",
        (SHORT, PADDED, "positions-left"),
        ("return (near & same & mask[:, None, :])[:, None]",
         "return (near & same & mask[:1, None, :])[:, None]"),
    ),
    bug(
        43, 3, "X5a", "quiet voices from the padding",
        "\"A text alone and the same text in a batch agree to four digits. With more padding it "
        "is three. Nobody else seems to mind.\"",
        "How much weight has a key whose score is 10 lower than the others'? And 65 of those?",
        (SHORT, PADDED, "many-pads-192"),
        ("    return (near & same & mask[:, None, :])[:, None]",
         "    return (near & same)[:, None], np.where(mask, 0, -10)[:, None, None].astype(\"f\")"),
        ("    scores = np.where(seen, scores, np.float32(-np.inf))",
         "    scores = np.where(seen[0], scores + seen[1], np.float32(-np.inf))"),
    ),
    bug(
        44, 3, "R2a", "the further back, the worse",
        "\"The first words of a document are right to six digits, its last ones to three. Nothing "
        "jumps, it just fades.\"",
        "Which numbers does a token get by its position alone, and how are they stored?",
        (SHORT, "window-66", "positions-far"),
        ("    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)",
         "    table = np.cos(angle).astype(np.float16), np.sin(angle).astype(np.float16)\n"
         "    return table[0].astype(np.float32), table[1].astype(np.float32)"),
    ),
    bug(
        45, 3, "C5b", "saved anew, and it is another model",
        "\"I loaded my model with the new version, saved it, and converted it again. Same weights, "
        "to the bit. Other vectors.\"",
        "The new file says the same things under other keys.",
        (SHORT, "plain-new-keys", "cls-padding"),
        ('    if "rope_parameters" in config:\n', '    if "global_rope_theta" not in config:\n'
         "        theta_full, theta_sliding = 160000.0, 10000.0\n"
         '    elif "rope_parameters" in config:\n'),
    ),
    bug(
        46, 3, "C3", "every third layer, but which?",
        "\"The schedule of layers is right, I printed it: two sliding, one full, two sliding, one "
        "full. And short texts are nearly right, too.\"",
        "What does i count, and from where?",
        ("one-token", SHORT, WINDOW),
        ("[i % every == 0 for i", "[(i + 1) % every == 0 for i"),
    ),
)  # fmt: skip
