"""Servers that serving.py asks in turns with ours, where they are installed.

    sentence-transformers   behind our own front end: its forward pass in the place of the engine's,
                            with our routes, tokenizer, lanes and passes; float32, torch
    infinity_emb            as its command starts it, with torch

    python benchmarks/serving_peers.py FOLDER       serves the first of them on a free port

Peers live in environments of their own: --st-python and --infinity of serving.py name them. One
that is not there, or does not start, is named with the reason and left out.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from http_load import Target

START = 180.0  # seconds until a peer must be ready


class Absent(Exception):
    """Why a peer is left out."""


@dataclass
class Running:
    """A peer that answers."""

    name: str
    target: Target
    process: subprocess.Popen[str]

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def started(name: str, command: list[str], target: Target, ready: str) -> Running:
    """Absent where the command does not get ready; its last words are the reason."""
    log = tempfile.TemporaryFile("w+")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    try:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=env)
    except OSError as error:
        raise Absent(f"{command[0]}: {error.strerror}") from None
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        log.seek(0)
        said = re.search(r"on http://127\.0\.0\.1:(\d+)", log.read())
        target.port = int(said[1]) if said and not target.port else target.port
        try:
            if target.port:
                urllib.request.urlopen(f"http://127.0.0.1:{target.port}{ready}", timeout=5).close()
                return Running(name, target, process)
        except OSError:
            pass
        time.sleep(0.2)
    process.kill()
    log.seek(0)
    words = [line.strip() for line in log.read().splitlines() if line.strip()] or ["said nothing"]
    why = [line for line in words if re.match(r"\w+Error\b", line)] or words
    raise Absent(f"did not get ready: {why[-1][:300]}")


def sentence_transformers(folder: str, python: str) -> Running:
    """Behind our front end, by an interpreter that has both."""
    needed = "import sentence_transformers, uvicorn, httptools, prometheus_client, refimpl"
    try:
        found = subprocess.run([python, "-c", needed], capture_output=True, text=True)
        lacks = found.stderr.strip().splitlines()[-1] if found.returncode else ""
    except OSError as error:
        lacks = str(error.strerror)
    if lacks:
        raise Absent(f"{python}: {lacks} (see --st-python)")
    return started("sentence-transformers", [python, __file__, folder], Target(0), "/ready")


def infinity(folder: str, command: str) -> Running:
    """Its tokenizers are those of transformers 4, which know a class by another name."""
    path = shutil.which(command)
    if path is None:
        raise Absent(f"there is no {command} (see --infinity)")
    copy = Path(tempfile.mkdtemp(prefix="infinity-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for file in Path(folder).resolve().iterdir():
        (copy / file.name).symlink_to(file)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").unlink()
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    asked = [path, "v2", "--model-id", str(copy), "--served-model-name", "peer", "--device", "cpu"]
    asked += ["--engine", "torch", "--dtype", "float32", "--no-bettertransformer"]
    asked += ["--host", "127.0.0.1", "--port", str(port)]
    return started("infinity_emb", asked, Target(port, "/embeddings", "peer"), "/health")


def vector(target: Target, text: str) -> Any:
    """What a server gives for a text, float32 [width]."""
    import base64

    import numpy as np

    request = urllib.request.Request(
        f"http://127.0.0.1:{target.port}{target.path}",
        target.body(text),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)["data"][0]["embedding"]
    if isinstance(found, str):
        return np.frombuffer(base64.b64decode(found), "<f4")
    return np.array(found, np.float32)


# -- sentence-transformers behind our front end ---------------------------------------------------


class Rival:
    """SentenceEncoder's half behind the tokens, by sentence-transformers."""

    def __init__(self, own: Any, folder: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self.own, self.torch = own, torch
        self.model = SentenceTransformer(folder, device="cpu").float().eval()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def pass_of(self, normalize_embeddings: bool, truncate_dim: None, **said: Any) -> Any:
        import numpy as np

        def run(batch: list[Any]) -> Any:
            padded = self.own.tokenizer.pad(batch, token_type_ids=False)
            given = {name: self.torch.from_numpy(np.asarray(x)) for name, x in padded.items()}
            with self.torch.inference_mode():
                found = self.model.forward(given)["sentence_embedding"].numpy()
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            return found / np.maximum(lengths, 1e-12) if normalize_embeddings else found

        return run, (self.own.dimension, normalize_embeddings, 0)


def serve(folder: str) -> int:
    """Our front end with a Rival where the encoder was, until it is told to end."""
    import refimpl.serve.server as server
    from refimpl.serve.settings import Settings

    class Service(server.Service):
        def _offer(self, name: str, kind: Any) -> None:
            super()._offer(name, kind)
            if name == "embed":
                self.tasks[name] = Rival(self.tasks[name], folder)

    server.Service = Service  # type: ignore[misc]
    settings = Settings(
        model=folder, port=0, log="none", timeout=600.0, max_concurrent_requests=4096,
        max_queue_tokens=2**26,
    )  # fmt: skip
    return server.serve(settings, lambda where: print(where, file=sys.stderr, flush=True))


if __name__ == "__main__":
    sys.exit(serve(str(Path(sys.argv[1]).resolve())))
