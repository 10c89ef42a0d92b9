"""EmbedAnything (candle): texts in, normalised mean-pooled vectors out.

    embed_anything_texts.py KIT OUT

It loads from a cache of the hub, so the models are laid out as one: encoders without a head, as
sentence-transformers saves them, under the one architecture that it knows. Cases that no text
makes, with holes, left padding or positions, are left out. A config that it refuses makes it panic,
with the words that are given here.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

HUB = tempfile.mkdtemp()
os.environ |= {"HF_HOME": HUB, "HF_HUB_CACHE": f"{HUB}/hub", "HF_HUB_OFFLINE": "1"}

import embed_anything  # noqa: E402
import numpy as np  # noqa: E402
from kit import ENCODER, Case, Refused, main, weights  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402


@cache
def loaded(folder: Path) -> embed_anything.EmbeddingModel | str:
    """The model, or why there is none."""
    place = Path(HUB, "hub", f"models--kit--{folder.name}")
    revision = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision, encoding="utf-8")
    files = place / "snapshots" / revision
    files.mkdir(parents=True)
    shutil.copy(folder / "tokenizer.json", files)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["ModernBertForMaskedLM"]
    (files / "config.json").write_text(json.dumps(config), encoding="utf-8")
    encoder = {name: x for name, x in weights(folder).items() if name.startswith(ENCODER)}
    save_file(encoder, files / "model.safetensors")
    try:
        return embed_anything.EmbeddingModel.from_pretrained_hf(f"kit/{folder.name}")
    except BaseException as error:  # a panic of Rust is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return f"it panics: {str(error).splitlines()[0]}"


def steps(case: Case):
    if case.texts is None:
        raise Refused("it takes texts, and no text makes this input")
    model = loaded(case.model)
    if isinstance(model, str):
        raise Refused(model)
    answers = embed_anything.embed_query(case.texts, model)
    return {"mean_normalised": np.array([a.embedding for a in answers], np.float32)}


if __name__ == "__main__":
    main(steps)
