"""llama.cpp through llama-cpp-python's C bindings, on a GGUF file written here with `gguf`.

Every sequence stands in one batch under its own id, without padding; the embeddings of all tokens
come back. Matrices are stored as F32, BF16 or Q8_0 (blocks of 32), norms as F32. No tokenizer: ids
go in as they are.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

CONTENDERS = {
    "llama.cpp float32": "float32",
    "llama.cpp bfloat16": "bfloat16",
    "llama.cpp q8_0": "int8",
}

NAMES = {
    "attn_norm": "attn_norm",
    "attn.Wqkv": "attn_qkv",
    "attn.Wo": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.Wi": "ffn_up",
    "mlp.Wo": "ffn_down",
}
OUTSIDE = {
    "embeddings.tok_embeddings.weight": "token_embd.weight",
    "embeddings.norm.weight": "token_embd_norm.weight",
    "final_norm.weight": "output_norm.weight",
}


def gguf_name(name: str) -> str:
    """The GGUF name of an encoder's parameter."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def written(files: Path, dtype: str) -> Path:
    """The GGUF file of the model in `files`, matrices in `dtype`."""
    path = files / f"model.{dtype}.gguf"
    if path.exists():
        return path
    import gguf

    from refimpl.files.checkpoint import read_checkpoint

    model = read_checkpoint(files)
    config = model.config
    writer = gguf.GGUFWriter(str(path), "modern-bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.NONE)
    writer.add_rope_freq_base(config.global_rope_theta)
    writer.add_rope_freq_base_swa(config.local_rope_theta)
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_sliding_window(config.local_attention)
    writer.add_sliding_window_pattern(3)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    kinds = {"bfloat16": "BF16", "q8_0": "Q8_0"}
    kind = gguf.GGMLQuantizationType[kinds[dtype]] if dtype in kinds else None
    for name, x in model.params.items():
        x = np.ascontiguousarray(x, np.float32)
        if x.ndim == 2 and kind is not None:
            writer.add_tensor(gguf_name(name), gguf.quantize(x, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(name, files: Path, threads: int):
    import llama_cpp as llama

    path = written(files, name.split()[1])
    quiet = llama.llama_log_callback(lambda level, text, user: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}")
    hidden = llama.llama_model_n_embd(model)
    contexts: dict[tuple[int, int], ctypes.c_void_p] = {}

    def context(tokens: int, sequences: int):
        if (tokens, sequences) not in contexts:
            params = llama.llama_context_default_params()
            params.n_ctx = params.n_batch = params.n_ubatch = tokens
            params.n_seq_max = sequences
            params.n_threads = params.n_threads_batch = threads
            params.embeddings = True
            params.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
            params.attention_type = llama.LLAMA_ATTENTION_TYPE_NON_CAUSAL
            contexts.clear()
            contexts[tokens, sequences] = llama.llama_init_from_model(model, params)
        return contexts[tokens, sequences]

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        real = np.argwhere(mask)
        here = context(len(real), len(ids))
        batch = llama.llama_batch_init(len(real), 0, 1)
        batch.n_tokens = len(real)
        for i, (row, position) in enumerate(real.tolist()):
            batch.token[i] = int(ids[row, position])
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row
            batch.logits[i] = True
        code = llama.llama_encode(here, batch)
        out = np.zeros((*ids.shape, hidden), np.float32)
        if code == 0:
            pointer = llama.llama_get_embeddings(here)
            out[mask.astype(bool)] = np.ctypeslib.as_array(pointer, (len(real), hidden))
        llama.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama_encode says {code}")
        return out

    run.keep = quiet  # the library calls it for as long as it lives
    return run
