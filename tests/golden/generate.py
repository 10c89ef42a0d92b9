"""Write the golden files: what transformers computes, in float64, for every generated case.

    PYTHONPATH=tests:tests/oracle python tests/golden/generate.py     (torch, transformers,
                                                                       sentence-transformers)
One .npz per case: for batch i the hidden states [layers + 2, n, hidden] and the logits of the
per-token heads [n, ...] at the watched tokens (`cases.watched`), the logits of the pooled heads,
and sentence-transformers' poolings. All float64, with transformers' rotary tables and their
application replaced by float64 ones (`oracle/hf.py`). Weights and inputs are not stored: they
follow from the case. `provenance` is json: versions, digest and config of the case, hash of the
sources.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import hf
import numpy as np
import torch
import transformers
from support.cases import CASES, Case, watched

POOLINGS = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
FOLDER, TESTS = Path(__file__).parent, Path(__file__).parents[1]
SOURCES = (Path(__file__), TESTS / "oracle" / "hf.py", TESTS / "support" / "cases.py")


def pooled(hidden: np.ndarray, mask: np.ndarray, how: str) -> np.ndarray:
    """sentence-transformers' pooling of [batch, seq, hidden]."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    features = {
        "token_embeddings": torch.from_numpy(hidden),
        "attention_mask": torch.from_numpy(mask),
    }
    return Pooling(hidden.shape[-1], pooling_mode=how)(features)["sentence_embedding"].numpy()


def arrays(case: Case) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for i, batch in enumerate(case.batches):
        inputs = case.inputs(batch)
        found = hf.run(case, inputs, float64_rotary=True)
        at = tuple(watched(case, batch, inputs.mask).T)
        out[f"{i}.hidden"] = found["hidden"][(slice(None), *at)]
        for kind in ("masked_lm", "token_classification", "question_answering"):
            out[f"{i}.{kind}"] = found[kind][at]
        for kind in ("sequence_classification", "multiple_choice"):
            out[f"{i}.{kind}"] = found[kind]
        for how in POOLINGS:
            out[f"{i}.pooled.{how}"] = pooled(found["hidden"][-1], inputs.mask, how)
    return out


def provenance(case: Case) -> str:
    import sentence_transformers

    source = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES))
    facts = {
        "case": case.name,
        "seed": case.seed,
        "digest": case.digest(),
        "config": case.config(),
        "sources_sha256": source.hexdigest(),
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "attention": "sdpa",
        "dtype": "float64",
        "rotary": "float64 tables and application in place of transformers' float32 ones",
    }
    return json.dumps(facts, indent=1, sort_keys=True)


def main() -> None:
    torch.set_num_threads(1)
    for case in CASES:
        path = FOLDER / f"{case.name}.npz"
        np.savez(path, provenance=np.array(provenance(case)), **arrays(case))
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
