"""The exported kit for an adapter: cases in, a dump out. Numpy and the standard library alone.

    python ADAPTER.py KIT OUT [OPTION ...]

An adapter is a function of a Case that gives {step: array}, and `main(function)`; it runs in a
virtual environment where its port is installed and this package is not. `Refused` is what it raises
for a case that the port does not take: its words go into port.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
OPTIONS = sys.argv[3:]
ENCODER = ("embeddings.", "layers.", "final_norm.")


class Refused(Exception):
    """Why a port does not run a case."""


@dataclass(frozen=True)
class Case:
    """One case of the kit. model: a folder as on the hub, with config.json, model.safetensors and
    tokenizer.json; texts: those that become the inputs, one a row, or None."""

    name: str
    model: Path
    head: str | None
    inputs: Mapping[str, Array]
    texts: list[str] | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.model / "config.json").read_text(encoding="utf-8"))

    @property
    def ids(self) -> Array:
        """int64 [batch, seq]."""
        return self.inputs["input_ids"]

    @property
    def mask(self) -> Array:
        """int64 [batch, seq], 1 = a real token."""
        return self.inputs.get("attention_mask", np.ones_like(self.ids))

    def plain(self) -> Case:
        """The same. Refused with what ids and a padding mask do not say."""
        for name in ("cu_seqlens", "position_ids"):
            if name in self.inputs:
                raise Refused(f"it takes no {name}")
        return self


def weights(model: Path) -> dict[str, Array]:
    """Name without `model.` -> float32 array."""
    files = sorted((model / "weights").glob("*.npy"))
    return {f.name.removesuffix(".npy").removeprefix("model."): np.load(f) for f in files}


def cases(kit: Path) -> Iterator[Case]:
    """Those of one model after another."""
    found = []
    for folder in sorted((kit / "cases").iterdir()):
        about = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        inputs = {f.stem: np.load(f) for f in sorted((folder / "inputs").glob("*.npy"))}
        model = (folder / about["model"]).resolve()
        texts = folder / "texts.json"
        said = json.loads(texts.read_text(encoding="utf-8")) if texts.exists() else None
        found.append(Case(folder.name, model, about["head"], inputs, said))
    return iter(sorted(found, key=lambda case: (case.model.name, case.name)))


def old_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with thetas and schedule in the spelling of transformers 4 as well, beside what it
    has. Refused where that spelling cannot say the schedule."""
    out = dict(config)
    if "layer_types" in config:
        full = [kind == "full_attention" for kind in config["layer_types"]]
        every = full.index(True, 1) if any(full[1:]) else len(full)
        if full != [i % every == 0 for i in range(len(full))]:
            raise Refused("its config has one period for the schedule, and this model has none")
        out["global_attn_every_n_layers"] = every
    for key, kind in (("global_rope_theta", "full_attention"),
                      ("local_rope_theta", "sliding_attention")):  # fmt: skip
        if "rope_parameters" in config:
            out[key] = config["rope_parameters"][kind]["rope_theta"]
    return out


@contextmanager
def in_old_keys(model: Path) -> Iterator[Path]:
    """A copy of the model's folder with such a config."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model / "model.safetensors", folder)
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        Path(folder, "config.json").write_text(json.dumps(old_keys(config)), encoding="utf-8")
        yield Path(folder)


def main(port: Callable[[Case], Mapping[str, Array]], **about: Any) -> None:
    """Every case through the port, a folder of .npy files each. about: keys of port.json. Whatever
    else than Refused a port raises ends the run: no verdict is made of it."""
    kit, out = Path(sys.argv[1]), Path(sys.argv[2])
    for case in cases(kit):
        folder = out / case.name
        folder.mkdir(parents=True)
        said = dict(about)
        try:
            steps = port(case)
        except Refused as why:
            steps, said = {}, {"refused": str(why)}
        for name, x in steps.items():
            np.save(folder / f"{name}.npy", np.asarray(x))
        (folder / "port.json").write_text(json.dumps(said), encoding="utf-8")
        print(case.name, said.get("refused") or f"{len(steps)} steps", flush=True)
