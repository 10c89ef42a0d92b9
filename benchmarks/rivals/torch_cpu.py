"""transformers on torch's CPU kernels, scaled_dot_product_attention, inference mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CONTENDERS = {"torch float32": "float32", "torch bfloat16": "bfloat16"}


def load(name, files: Path, threads: int):
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    dtype = getattr(torch, name.split()[1])
    model = AutoModel.from_pretrained(files, attn_implementation="sdpa", dtype=dtype).eval()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return out.last_hidden_state.float().numpy()

    return run
