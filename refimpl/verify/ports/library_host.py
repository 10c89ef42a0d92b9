"""The process in which a shared library runs.

    python -m refimpl.verify.ports.library_host LIB REPLY_FD

Reads one JSON line per job from stdin, {"jobs": [[CASE_DIR, OUT_DIR], ...]}: folders as of a
command (command_port.py), several to be run at the same time. Calls the library through port.h,
writes a dump into each OUT_DIR, and answers one JSON line on the descriptor REPLY_FD: {"results":
[{"refused" | "error" | "unwritten": "..."} or
{}, ...]}. A loaded model stays loaded while config and weights
stay the same. Whatever the library does to this process is seen by library_port.py.

Long because loading, telling and running share the one cffi object and its lifetimes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("port.h")
OK, REFUSED = 0, 1
ABILITIES = {"packed": 1, "positions": 2, "threads": 4, "inject": 8}
MAX_RANK = 8
# What an output holds before the call: a NaN that nobody computes.
UNTOUCHED = np.array(0x7FC0DEAD, np.uint32).view(np.float32)


def declarations() -> str:
    """The part of port.h that cffi reads."""
    text = HEADER.read_text(encoding="utf-8")
    return text.split("/* declarations */")[1].split("/* end of declarations */")[0]


class Refused(Exception):
    """The library says that it does not do this."""


class Library:
    """A loaded library, and the model that it holds at the moment."""

    def __init__(self, path: str) -> None:
        from cffi import FFI

        self.ffi: Any = FFI()
        self.ffi.cdef(declarations())
        self.lib: Any = self.ffi.dlopen(path)
        self.model: Any = None
        self.loaded = ""
        self.told: dict[str, Any] = {}
        self.weights: dict[str, np.ndarray] = {}

    def has(self, name: str) -> bool:
        try:
            return getattr(self.lib, name) is not None
        except AttributeError:
            return False

    def text(self, pointer: Any) -> str:
        return "" if pointer == self.ffi.NULL else self.ffi.string(pointer).decode(errors="replace")

    def check(self, status: int, what: str) -> None:
        if status == OK:
            return
        why = self.text(self.lib.mbv_last_error()) or "no reason given"
        if status == REFUSED:
            raise Refused(why)
        raise RuntimeError(f"{what} gives status {status}: {why}")

    # -- a model ----------------------------------------------------------------------------------

    def load(self, folder: Path, head: str | None) -> None:
        """Open the model in a folder, unless it is the one that is open. Sets what it tells."""
        config = (folder / "config.json").read_bytes()
        digest = hashlib.sha256(config + repr(head).encode())
        digest.update((folder / "model.safetensors").read_bytes())
        if digest.hexdigest() == self.loaded:
            self.weights = {}
            return
        if self.model is not None:
            self.lib.mbv_close(self.model)
            self.model, self.loaded = None, ""
        arrays = {p.stem: np.load(p) for p in sorted((folder / "weights").glob("*.npy"))}
        new, kept = self.ffi.new, []
        tensors = new("mbv_tensor[]", len(arrays))
        for tensor, (name, x) in zip(tensors, arrays.items(), strict=True):
            kept += [new("char[]", name.encode()), new("int64_t[]", x.shape)]
            tensor.name, tensor.shape = kept[-2:]
            tensor.data = self.ffi.cast("float *", x.ctypes.data)
            tensor.rank = x.ndim
        out = new("mbv_model **")
        config_text = new("char[]", config)
        head_text = self.ffi.NULL if head is None else new("char[]", head.encode())
        status = self.lib.mbv_open(config_text, head_text, tensors, len(arrays), out)
        self.check(status, "mbv_open")
        self.model, self.loaded = out[0], digest.hexdigest()
        self.told = self.tell()
        self.weights = self.held(arrays)

    def tell(self) -> dict[str, Any]:
        """port.json: dtype and plan."""
        told: dict[str, Any] = {}
        if self.has("mbv_dtype"):
            told["dtype"] = self.text(self.lib.mbv_dtype(self.model))
        if self.has("mbv_plan"):
            told["plan"] = json.loads(self.text(self.lib.mbv_plan(self.model)))
        return told

    def held(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The parameters as the library holds them."""
        out: dict[str, np.ndarray] = {}
        for name, x in arrays.items() if self.has("mbv_weight") else ():
            mine = np.full(x.shape, np.nan, np.float32)
            pointer = self.ffi.cast("float *", mine.ctypes.data)
            if self.lib.mbv_weight(self.model, name.encode(), pointer, x.size) == OK:
                out["weights." + name.removeprefix("model.")] = mine
        return out

    # -- a forward pass ---------------------------------------------------------------------------

    def forward(self, case: Path, request: dict[str, Any]) -> tuple[dict[str, np.ndarray], str]:
        """Every step that the library gives, and which outputs it has not written, or not whole."""
        shapes: dict[str, list[int]] = {s["tap"]: s["shape"] for s in request["steps"]}
        inputs = {p.stem: np.load(p) for p in (case / "inputs").glob("*.npy")}
        inject = {p.stem: np.load(p) for p in (case / "inject").glob("*.npy")}
        taps: dict[str, np.ndarray] = {}
        problems: list[str] = []

        def view(name: str, data: Any, shape: Any, rank: int) -> np.ndarray | None:
            expected = math.prod(shapes.get(name, [0]))
            found = [shape[i] for i in range(rank)] if 0 <= rank <= MAX_RANK else [-1]
            if name not in shapes or math.prod(found) != expected:
                if len(problems) < MAX_RANK:
                    problems.append(f"step {name!r} is given with the shape {found}")
                return None
            return np.frombuffer(self.ffi.buffer(data, 4 * expected), np.float32).reshape(found)

        def tap(user: Any, name: Any, data: Any, shape: Any, rank: int) -> None:
            x = view(self.text(name), data, shape, rank)
            if x is not None:
                taps[self.text(name)] = x.copy()

        def put(user: Any, name: Any, data: Any, shape: Any, rank: int) -> int:
            x = view(self.text(name), data, shape, rank)
            if x is None or self.text(name) not in inject:
                return 0
            x[...] = inject[self.text(name)].reshape(x.shape)
            return 1

        callbacks = self.ffi.callback("mbv_tap", tap), self.ffi.callback("mbv_inject", put)
        kept, given = self.input(inputs)
        out = self.ffi.new("mbv_output *")
        out.struct_size = self.ffi.sizeof("mbv_output")
        scores = [name for name in ("logits", "start_logits", "end_logits") if name in shapes]
        sizes = [math.prod(shapes[name]) for name in scores]
        hidden = np.full(shapes["final_norm"], UNTOUCHED)
        flat = np.full(sum(sizes), UNTOUCHED)
        out.hidden = self.ffi.cast("float *", hidden.ctypes.data)
        out.scores = self.ffi.cast("float *", flat.ctypes.data) if scores else self.ffi.NULL
        out.tap = callbacks[0]
        out.inject = callbacks[1] if inject else self.ffi.NULL
        self.check(self.lib.mbv_forward(self.model, given, out), "mbv_forward")
        if problems:
            raise RuntimeError("; ".join(problems))
        parts = np.split(flat, np.cumsum(sizes)[:-1]) if scores else []
        ends = {n: x.reshape(shapes[n]) for n, x in zip(scores, parts, strict=True)}
        outputs = {"final_norm": hidden} | ends
        left = {name: untouched(x) for name, x in outputs.items()}
        unwritten = [f"{n} ({left[n]} of {x.size} numbers)" for n, x in outputs.items() if left[n]]
        written = {name: x for name, x in outputs.items() if not left[name]}
        return written | taps, ", ".join(unwritten)

    def input(self, inputs: dict[str, np.ndarray]) -> tuple[Any, Any]:
        """mbv_input, and what must live as long."""
        given = self.ffi.new("mbv_input *")
        given.struct_size = self.ffi.sizeof("mbv_input")
        lengths = inputs.get("cu_seqlens")
        given.batch = len(inputs["input_ids"]) if lengths is None else len(lengths) - 1
        given.seq = inputs["input_ids"].shape[1] if lengths is None else 0
        for name in ("input_ids", "attention_mask", "position_ids", "cu_seqlens"):
            if name in inputs:
                setattr(given, name, self.ffi.cast("int64_t *", inputs[name].ctypes.data))
        return inputs, given


# -- jobs -----------------------------------------------------------------------------------------


def serve(path: str, lines: Any, reply: Any) -> None:
    """Answer every line of jobs until there are no more."""
    library: Library | None = None
    for line in lines:
        jobs = [(Path(case), Path(out)) for case, out in json.loads(line)["jobs"]]
        try:
            library = library or Library(path)
            requests = [json.loads((case / "case.json").read_text()) for case, _ in jobs]
            library.load(jobs[0][0] / requests[0]["model"], requests[0]["head"])
            run = [(library, case, out, r) for (case, out), r in zip(jobs, requests, strict=True)]
            with ThreadPoolExecutor(len(run)) as pool:
                results = list(pool.map(job, run))
        except Refused as error:
            results = [{"refused": str(error)}] * len(jobs)
        except Exception as error:  # every failure has to reach the other side in words
            results = [{"error": f"{type(error).__name__}: {error}"}] * len(jobs)
        reply.write(json.dumps({"results": results}) + "\n")
        reply.flush()


def job(what: tuple[Library, Path, Path, dict[str, Any]]) -> dict[str, str]:
    """One forward pass, its dump written."""
    library, case, out, request = what
    try:
        steps, unwritten = library.forward(case, request)
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # as above
        return {"error": f"{type(error).__name__}: {error}"}
    for name, x in {**steps, **library.weights}.items():
        np.save(out / f"{name}.npy", x)
    (out / "port.json").write_text(json.dumps(library.told))
    return {"unwritten": unwritten} if unwritten else {}


def untouched(x: np.ndarray) -> int:
    """How many numbers are what they were before the call."""
    return int((x.view(np.uint32) == UNTOUCHED.view(np.uint32)).sum())


def abilities(path: str) -> list[str]:
    """What the library says it can do."""
    library = Library(path)
    bits = library.lib.mbv_abilities() if library.has("mbv_abilities") else 0
    return [name for name, bit in ABILITIES.items() if bits & bit]


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[2]), "w") as reply:
        try:
            print(json.dumps({"abilities": abilities(sys.argv[1])}), file=reply, flush=True)
        except Exception as error:  # as above: the library may be anything
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=reply, flush=True)
        else:
            serve(sys.argv[1], sys.stdin, reply)
