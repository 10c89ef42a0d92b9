"""Fill-mask: the most likely tokens at each [MASK] of a text.

    p = softmax(logits) over the vocabulary, of the masks alone; targets select entries and are not
    renormalised

Results as transformers' pipeline gives them: per mask a list of {score, token, token_str,
sequence}, best first. Several masks are filled independently of each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models.scores import softmax
from ..models.task_model import ModernBERTForTask
from ..text.tokenizer import Encoded, Tokenizer
from .task import TextTask, as_list, check_top_k, flagged, passes_of


class FillMask(TextTask):
    """`FillMask(folder)(text)`; see `run`."""

    task, head = "fill-mask", "masked_lm"
    model: ModernBERTForTask

    def run(
        self,
        inputs: str | Sequence[str],
        *,
        top_k: int = 5,
        targets: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        truncate: str | None = None,
    ) -> list[Any]:
        """Candidates for the masks of one text or several.

        targets: words to choose from instead of the whole vocabulary; one that is not a token is
        replaced, with a warning, by its first token. Returns for a text with one mask a list of
        dicts, with several masks a list of such lists; for a list of texts a list of these (a list
        of one text counts as that text). Raises ValueError for a text without a mask.
        """
        check_top_k(top_k)
        mask_id = self.tokenizer.mask_token_id
        if mask_id is None:
            raise ValueError("the tokenizer names no mask token, so there is nothing to fill")
        chosen = None if targets is None else target_ids(self.tokenizer, targets)
        texts, single = as_list(inputs)
        encodings = self._encode(texts, max_length, truncate)
        for i, encoded in enumerate(encodings):
            if mask_id not in encoded.ids:
                cut = f" within the {len(encoded)} tokens kept" if encoded.lost else ""
                raise ValueError(f"texts[{i}] holds no {self.tokenizer.token(mask_id)}{cut}")
        results: list[Any] = [None] * len(encodings)
        model = self.model
        run = passes_of(model.encoder, self.tokenizer)
        for places, out in self.passes(encodings, run, batch_size, key="hidden"):
            params = read_once(model)
            for place, hidden in zip(places, out["last_hidden_state"], strict=True):
                encoded = encodings[place]
                # The head sees tokens one by one: as a text of masks, and no other text's, on which
                # the last bits of a product would depend.
                masked = hidden[masks_of(self.tokenizer, encoded)]
                logits = model.head.forward(params, model.config, masked[None])["logits"][0]
                results[place] = candidates(self.tokenizer, encoded, logits, top_k, chosen)
        return results[0] if single or len(results) == 1 else results


def candidates(
    tokenizer: Tokenizer,
    encoded: Encoded,
    logits: np.ndarray,
    top_k: int,
    targets: np.ndarray | None = None,
) -> list[Any]:
    """The best fillings of one text: a list of dicts, or with several masks one list each.

    logits [masks, vocab], targets ids or None.
    """
    ids = np.array(encoded.ids)
    masks = masks_of(tokenizer, encoded)
    per_mask = []
    for at, scores in zip(masks, logits, strict=True):
        p = softmax(scores)
        allowed = np.arange(p.size) if targets is None else targets
        best = allowed[np.argsort(-p[allowed], kind="stable")[:top_k]]
        found = []
        for token in best:
            filled = np.where(np.arange(ids.size) == at, token, ids)
            filled = filled[filled != tokenizer.pad_token_id]
            # With several masks the special tokens stay, or the other masks would vanish.
            found.append(
                {
                    "score": float(p[token]),
                    "token": int(token),
                    "token_str": tokenizer.decode([token]),
                    "sequence": tokenizer.decode(filled, skip_special_tokens=masks.size == 1),
                }
            )
        per_mask.append([flagged(result, encoded.lost) for result in found])
    return per_mask[0] if masks.size == 1 else per_mask


def read_once(model: ModernBERTForTask) -> dict[str, np.ndarray]:
    """What the head reads: its matrix is the largest of all, and would be widened for each text."""
    names = set(model.head.shapes(model.config))
    if "decoder.weight" not in names:
        names.add("embeddings.tok_embeddings.weight")
    return {name: model.params[name] for name in names}


def masks_of(tokenizer: Tokenizer, encoded: Encoded) -> np.ndarray:
    """Where the masks stand, int64 [masks], ascending."""
    return np.flatnonzero(np.array(encoded.ids) == tokenizer.mask_token_id)


def target_ids(tokenizer: Tokenizer, targets: str | Sequence[str]) -> np.ndarray:
    """The distinct vocabulary ids of target words, int64, ascending. Raises ValueError for none."""
    chosen = set()
    for word in [targets] if isinstance(targets, str) else targets:
        token_id = tokenizer.vocab.get(word)
        if token_id is None:
            pieces = tokenizer.encode(word, truncate="never", add_special_tokens=False).ids
            if not pieces:
                warnings.warn(f"target {word!r} has no token; it is left out", stacklevel=4)
                continue
            token_id = pieces[0]
            warnings.warn(
                f"target {word!r} is not one token; {tokenizer.token(token_id)!r} stands for it",
                stacklevel=4,
            )
        chosen.add(token_id)
    if not chosen:
        raise ValueError(f"targets {targets!r} leave no token to choose from")
    return np.array(sorted(chosen), dtype=np.int64)
