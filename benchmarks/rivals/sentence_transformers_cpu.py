"""sentence-transformers on torch's CPU kernels: its Transformer module, token embeddings out.

The module wants a tokenizer in the folder; ids go in as they are, so any will do.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

CONTENDERS = {
    "sentence-transformers float32": "float32",
    "sentence-transformers bfloat16": "bfloat16",
}


def load(name, files: Path, threads: int):
    import torch
    from sentence_transformers.models import Transformer
    from transformers.utils import logging

    import refimpl

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if not (files / file).exists():
            shutil.copy(Path(refimpl.__file__).parent / "bundled" / "tiny" / file, files / file)
    settings = {"attn_implementation": "sdpa", "dtype": getattr(torch, name.split()[1])}
    model = Transformer(str(files), model_args=settings).eval()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            return model(given)["token_embeddings"].float().numpy()

    return run
