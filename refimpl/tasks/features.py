"""Feature extraction: the encoder's last hidden state of each token.

Results as transformers' pipeline gives them: per text [1][seq][hidden], special tokens included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .task import TextTask, as_list


class FeatureExtraction(TextTask):
    """`FeatureExtraction(folder)(text)`; see `run`."""

    task, head = "feature-extraction", None

    def run(
        self,
        inputs: str | Sequence[str],
        *,
        return_tensors: bool = False,
        batch_size: int | None = None,
        max_length: int | None = None,
        truncate: str | None = None,
    ) -> Any:
        """Hidden states [1, seq, hidden] of one text, or a list of them for several.

        Nested lists, or with `return_tensors` arrays. A text is not cut unless asked.
        """
        texts, single = as_list(inputs)
        encodings = self._encode(texts, max_length, truncate)
        results = []
        for encoded, row in zip(encodings, self._rows(encodings, batch_size), strict=True):
            hidden = row["last_hidden_state"][None, : len(encoded)]
            results.append(hidden if return_tensors else hidden.tolist())
        return results[0] if single else results
