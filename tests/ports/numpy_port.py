"""A port as a command: the numpy reference behind CASE_DIR OUT_DIR, and its ways to misbehave.

Run as `python numpy_port.py [HOW] CASE_DIR OUT_DIR`; HOW is one of the functions' names below.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from refimpl.reference.config import ModernBertConfig
from refimpl.verify.truth.passes import Pass, trace
from refimpl.verify.truth.vectors import vectors_of


def load(folder, kind):
    return {path.stem: np.load(path) for path in (folder / kind).glob("*.npy")}


def steps(case):
    """Every step of the case in float32."""
    about = json.loads((case / "case.json").read_text())
    model = case / about["model"]
    config = ModernBertConfig.from_dict(json.loads((model / "config.json").read_text()))
    params = {k.removeprefix("model."): x for k, x in load(model, "weights").items()}
    inputs = load(case, "inputs")
    taps = trace(Pass(config, params, inputs, about["head"], vectors=vectors_of(inputs)))
    assert [(k, list(x.shape)) for k, x in taps.items()] == [
        (step["tap"], step["shape"]) for step in about["steps"]
    ]
    return taps


def save(out, taps):
    for name, x in taps.items():
        np.save(out / f"{name}.npy", x)


def right(case, out):
    save(out, steps(case))
    (out / "port.json").write_text('{"dtype": "float32"}')


def last_only(case, out):
    save(out, {k: x for k, x in steps(case).items() if k == "final_norm"})


def big_endian(case, out):
    save(out, {k: x.astype(">f4") for k, x in steps(case).items()})


def extra(case, out):
    save(out, {**steps(case), "scratch": np.zeros(3), "layers.99.q": np.zeros(3)})


def nan(case, out):
    taps = steps(case)
    taps["layers.1.attention"][0, 2, 1] = np.nan
    save(out, taps)


def nan_in_padding(case, out):
    taps = steps(case)
    mask = load(case, "inputs").get("attention_mask")
    if mask is not None:
        taps["final_norm"][mask == 0] = np.inf
    save(out, taps)


def wrong_shape(case, out):
    taps = steps(case)
    taps["final_norm"] = taps["final_norm"][:, :-1]
    save(out, taps)


def wrong_dtype(case, out):
    taps = steps(case)
    taps["final_norm"] = (taps["final_norm"] * 100).astype(np.int32)
    taps["embedding"] = taps["embedding"].astype(np.complex64)
    save(out, taps)


def half(case, out):
    """Says float32 and keeps every step in bfloat16."""
    taps = {k: (x.view(np.uint32) & 0xFFFF0000).view(np.float32) for k, x in steps(case).items()}
    save(out, taps)


def nothing(case, out):
    pass


def no_heads(case, out):
    """An encoder, which refuses cases with a head."""
    head = json.loads((case / "request.json").read_text())["head"]
    if head is None:
        return right(case, out)
    (out / "port.json").write_text(json.dumps({"refused": f"no head {head}"}))


def refuses(case, out):
    (out / "port.json").write_text('{"refused": "no such head"}')


def hangs(case, out):
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600)  # {out}"])
    time.sleep(600)


def leaves_a_child(case, out):
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600)  # {out}"])
    right(case, out)


def crashes(case, out):
    print("about to fall over", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def fails(case, out):
    sys.exit("cannot read these weights")


def sparse(case, out):
    """10 GB, of which nothing is on the disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    np.lib.format.open_memmap(out / "final_norm.npy", "w+", np.float32, (10 * 2**28,))


def many_files(case, out):
    for i in range(1000):
        (out / f"{i}.bin").write_bytes(bytes(2**16))
        time.sleep(0.001)


def memory_hog(case, out):
    kept = bytearray(2**29)
    kept[:: 2**12] = b"x" * len(kept[:: 2**12])
    time.sleep(600)


if __name__ == "__main__":
    how = sys.argv[1] if len(sys.argv) == 4 else "right"
    globals()[how](Path(sys.argv[-2]), Path(sys.argv[-1]))
