"""llama.cpp through xllamacpp, on a GGUF file made here: the last hidden state of every token.

    llama_cpp_server.py KIT OUT auto|disabled

The option is the flash attention. Matrices and norms are stored as F32, and there is no tokenizer:
ids go in as they are, one row at a time without its padding, as the server takes them. GGUF has no
names for biases, and one period for the schedule.
"""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from urllib.request import Request, urlopen

import gguf
import numpy as np
import xllamacpp
from kit import ENCODER, OPTIONS, Case, Refused, main, old_keys, weights

FLASH = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{OPTIONS[0].upper()}")
LONGEST = 512
LAYER = {"attn_norm": "attn_norm", "attn.Wqkv": "attn_qkv", "attn.Wo": "attn_output",
         "mlp_norm": "ffn_norm", "mlp.Wi": "ffn_up", "mlp.Wo": "ffn_down"}  # fmt: skip
OTHERS = {"embeddings.tok_embeddings": "token_embd", "embeddings.norm": "token_embd_norm",
          "final_norm": "output_norm"}  # fmt: skip


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OTHERS:
        return OTHERS[stem] + ".weight"
    _, i, rest = stem.split(".", 2)
    return f"blk.{i}.{LAYER[rest]}.weight"


def write_gguf(folder: Path, path: Path) -> None:
    config = old_keys(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if any(config[key] for key in ("norm_bias", "attention_bias", "mlp_bias")):
        raise Refused("its files have no biases")
    w = gguf.GGUFWriter(str(path), "modern-bert")
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_head_count(config["num_attention_heads"])
    w.add_layer_norm_eps(config["norm_eps"])
    w.add_string("modern-bert.hidden_activation", config["hidden_activation"])
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.NONE)
    w.add_rope_freq_base(config["global_rope_theta"])
    w.add_rope_freq_base_swa(config["local_rope_theta"])
    w.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    w.add_sliding_window(config["local_attention"])
    w.add_sliding_window_pattern(config["global_attn_every_n_layers"])
    w.add_vocab_size(config["vocab_size"])
    w.add_tokenizer_model("no_vocab")
    for name, x in weights(folder).items():
        if name.startswith(ENCODER):
            w.add_tensor(gguf_name(name), x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@lru_cache(1)
def server(folder: Path) -> xllamacpp.Server:
    path = Path(tempfile.mkdtemp()) / "model.gguf"
    write_gguf(folder, path)
    p = xllamacpp.CommonParams()
    p.model.path = str(path)
    p.embedding, p.embd_normalize = True, -1
    p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
    p.n_ctx = p.n_batch = p.n_ubatch = LONGEST
    p.n_parallel, p.warmup, p.flash_attn_type = 1, False, FLASH
    return xllamacpp.Server(p)


def embeddings(folder: Path, ids: list[int]) -> list[list[float]]:
    """A vector a token. (The Python call is OpenAI's, which gives one a text.)"""
    address = server(folder).listening_address + "/embeddings"
    body = json.dumps({"input": ids, "embd_normalize": -1}).encode()
    request = Request(address, body, {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)[0]["embedding"]


def steps(case: Case):
    case.plain()
    final = np.zeros((*case.ids.shape, case.config["hidden_size"]), np.float32)
    for row, (ids, mask) in enumerate(zip(case.ids, case.mask, strict=True)):
        real = np.flatnonzero(mask)
        if not real.size:
            continue
        if (np.diff(real) > 1).any():
            raise Refused("it takes no padding within a row")
        final[row, real] = embeddings(case.model, ids[real].tolist())
    return {"final_norm": final}


if __name__ == "__main__":
    main(steps)
