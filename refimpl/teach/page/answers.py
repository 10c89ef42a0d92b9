"""What the head would say after each layer: the head's own function on the residual stream there.

    answers = Answers(model, tokenizer, rows);  answers.look(h) after the embedding and each layer

The answer after layer i is (17) and then (30), (31) or (32) of that layer's `residual_2`; after the
last layer it is the model's own. A text has one answer by (31), each chosen token one by the
others. Heads of other kinds are not asked, and the page says so.
"""

from __future__ import annotations

import numpy as np

from ...models.model import ModernBERT
from ...models.scores import FUNCTIONS
from ...models.summary import described_head
from ...models.task_model import ModernBERTForTask
from ...reference import ops
from ...reference.encoder import norm
from ...reference.heads import Head
from ...tasks.classify import default_function
from ...text.tokenizer import Tokenizer
from .equations import ANSWERS
from .spelling import spelled, visible

Array = np.ndarray

BEST = 5  # answers that are shown


class Answers:
    """See above. `arrays`, once all layers were looked at: `answers.ids`, `answers.probs` and
    `answers.logits` [layers + 1, rows or 1, best]; `answers.sums` [layers + 1, rows or 1], as (27)
    has them, over all answers; the head's steps after the last layer; and of its best answer the
    row of the decoder or classifier, `answers.weight` [rows or 1, hidden], and `answers.bias`.
    """

    def __init__(self, model: ModernBERT, tokenizer: Tokenizer, rows: tuple[int, ...]) -> None:
        self.rows, self._tokenizer = np.array(rows), tokenizer
        head = model.head if isinstance(model, ModernBERTForTask) else None
        self.kind = head.kind if isinstance(head, Head) and head.kind in ANSWERS else None
        self.why = ""
        if self.kind is None:
            what = f"{described_head(model)}, which this page does not show"
            what = "no head" if head is None else what
            self.why = f"The model has {what}: its way ends with final_norm."
        self.config, self._head = model.config, head
        self.of_the_text = self.kind == "sequence_classification"
        self.function = "softmax"
        if self.of_the_text:
            self.function = default_function(model.config)
        self._params = {} if self.kind is None else self._needed(model)
        self._found: list[tuple[Array, ...]] = []
        self._steps: dict[str, Array] = {}

    def _needed(self, model: ModernBERT) -> dict[str, Array]:
        """The parameters that a look reads, widened once."""
        assert self._head is not None
        names = {*self._head.shapes(model.config), "final_norm.weight", "final_norm.bias"}
        if self.kind == "masked_lm" and "decoder.weight" not in names:
            names.add("embeddings.tok_embeddings.weight")
        return {name: model.params[name] for name in names if name in model.params}

    def look(self, h: Array) -> None:
        """Ask the head. h [seq, hidden], the residual stream."""
        if self.kind is None:
            return
        assert self._head is not None
        hidden = norm(self._params, "final_norm", h, self.config, ops)
        hidden = hidden[None] if self.of_the_text else hidden[self.rows][None]
        self._steps = {}

        def tap(name: str, value: Array) -> Array:
            self._steps[name] = value
            return value

        logits = self._head.forward(self._params, self.config, hidden, tap=tap)["logits"]
        logits = logits if self.of_the_text else logits[0]
        probs = FUNCTIONS[self.function](logits)
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :BEST]
        p, x = (np.take_along_axis(scores, best, axis=-1) for scores in (probs, logits))
        sums = np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
        self._found.append((best, p, x, sums))

    @property
    def arrays(self) -> dict[str, Array]:
        """See the class."""
        if not self._found:
            return {}
        ids, probs, logits, sums = (np.array(x) for x in zip(*self._found, strict=True))
        out = {"answers.ids": ids, "answers.probs": probs, "answers.logits": logits}
        out |= {"answers.sums": sums} | self._rows_of(ids[-1, :, 0])
        for name in ("head.dense", "head.act", "head.norm"):
            x = self._steps[name]
            out[name] = x if self.of_the_text else x[0]
        into = out["head.act"]
        mean = into.mean(axis=-1, keepdims=True)
        out["head.norm.mean"] = mean[:, 0]
        out["head.norm.variance"] = ((into - mean) ** 2).mean(axis=-1)
        return out

    def _rows_of(self, answers: Array) -> dict[str, Array]:
        """The rows of the last matrix that give these answers, and their biases."""
        name = "decoder" if self.kind == "masked_lm" else "classifier"
        tied = f"{name}.weight" not in self._params
        weight = self._params["embeddings.tok_embeddings.weight" if tied else f"{name}.weight"]
        out = {"answers.weight": weight[answers]}
        if f"{name}.bias" in self._params:
            out["answers.bias"] = self._params[f"{name}.bias"][answers]
        return out

    @property
    def names(self) -> dict[str, str]:
        """Number -> token or label, of those that were found."""
        found = sorted({int(i) for ids, *_ in self._found for i in ids.flat})
        if self.kind == "masked_lm":
            return {str(i): spelled(self._tokenizer, i) for i in found}
        return {str(i): visible(self.config.id2label[i]) for i in found}
