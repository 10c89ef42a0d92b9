"""Where the public threads are that the list of mistakes cites: llama.cpp#18330 and its address.

A citation names its repository as people do; OWNERS says whose it is. One that is not in the table
has no address, rather than a guessed one.
"""

from __future__ import annotations

import re

OWNERS = {
    "EmbedAnything": "StarlightSearch/EmbedAnything",
    "TensorRT-Model-Connect": "NVIDIA/TensorRT-Model-Connect",
    "bumblebee": "elixir-nx/bumblebee",
    "candle": "huggingface/candle",
    "flash-attention": "Dao-AILab/flash-attention",
    "keras-hub": "keras-team/keras-hub",
    "llama.cpp": "ggml-org/llama.cpp",
    "mlx-embeddings": "Blaizzy/mlx-embeddings",
    "nntrainer": "nnstreamer/nntrainer",
    "ollama": "ollama/ollama",
    "omlx": "jundot/omlx",
    "onnxruntime": "microsoft/onnxruntime",
    "optimum-rbln": "rebellions-sw/optimum-rbln",
    "semantic-router": "vllm-project/semantic-router",
    "sentence-transformers": "huggingface/sentence-transformers",
    "sglang": "sgl-project/sglang",
    "svod": "npatsakula/svod",
    "text-embeddings-inference": "huggingface/text-embeddings-inference",
    "transformers": "huggingface/transformers",
    "vLLM": "vllm-project/vllm",
}
CITATION = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?)#(?P<number>\d+)")


def address(citation: str) -> str | None:
    """The web address of a citation: repository#number, owner/repository#number, or an address."""
    if citation.startswith(("https://", "http://")):
        return citation
    found = CITATION.fullmatch(citation)
    if found is None:
        return None
    name = found["repository"]
    repository = name if "/" in name else OWNERS.get(name)
    return repository and f"https://github.com/{repository}/issues/{found['number']}"
