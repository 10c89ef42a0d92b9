"""sentence-transformers folders with every module, and what breaks each of their files."""

from __future__ import annotations

from typing import Any

from refimpl.reference.sentence import (
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    SentenceHead,
    Settings,
)

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."
HEAD = SentenceHead(
    (Pooling(8, ("cls", "mean")), Dense(16, 5), LayerNorm(5), Dense(5, 4, False, "linear"),
     Normalize()),
    Settings({"query": "q: "}, "query", "dot", 77, True),
)  # fmt: skip
RERANKER = SentenceHead(
    (Pooling(8, ("mean",)), Dense(8, 8, activation="gelu"), LayerNorm(8),
     Dense(8, 1, activation="linear", scores=True)),
    Settings(activation_fn="torch.nn.modules.linear.Identity"),
)  # fmt: skip

# (what, file, changes of its keys, the key that is refused, words of the message)
BROKEN: list[tuple[str, str, dict, str, str]] = [
    ("unknown pooling", "1_Pooling/config.json", {"pooling_mode": "median"}, "pooling_mode",
     "supported: cls"),
    ("no pooling", "1_Pooling/config.json", {"pooling_mode": []}, "pooling_mode", "supported"),
    ("flag is no boolean", "1_Pooling/config.json", {"pooling_mode_max_tokens": 1},
     "pooling_mode_max_tokens", "true or false"),
    ("unknown pooling key", "1_Pooling/config.json", {"pooling_mode_median_tokens": True},
     "pooling_mode_median_tokens", "unknown key"),
    ("pooling without width", "1_Pooling/config.json", {"word_embedding_dimension": ...},
     "embedding_dimension", "missing"),
    ("unknown activation", "2_Dense/config.json", {"activation_function": "torch.nn.Mish"},
     "activation_function", "torch.nn.modules.linear.Identity"),
    ("dense on tokens", "2_Dense/config.json", {"module_input_name": "token_embeddings"},
     "module_input_name", "sentence_embedding"),
    ("dense elsewhere", "2_Dense/config.json", {"module_output_name": "x"},
     "module_output_name", "scores"),
    ("residual dense", "2_Dense/config.json", {"use_residual": True}, "use_residual", "residual"),
    ("size as text", "2_Dense/config.json", {"in_features": "16"}, "in_features", "int"),
    ("size as boolean", "3_LayerNorm/config.json", {"dimension": True}, "dimension", "int"),
    ("unknown key of a norm", "3_LayerNorm/config.json", {"eps": 1}, "eps", "unknown key"),
    ("norm of tokens", "5_Normalize/config.json", {"module_input_name": "token_embeddings"},
     "module_input_name", "sentence_embedding"),
    ("prompt of a number", "config_sentence_transformers.json", {"prompts": {"query": 3}},
     "prompts", "texts"),
    ("unknown default prompt", "config_sentence_transformers.json",
     {"default_prompt_name": "x"}, "default_prompt_name", "query"),
    ("unknown similarity", "config_sentence_transformers.json", {"similarity_fn_name": "x"},
     "similarity_fn_name", "cosine"),
    ("length zero", "sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length",
     "at least 1"),
]  # fmt: skip


def module(name: str, path: str = "1_Pooling", **more: Any) -> dict:
    return {"idx": 1, "name": "1", "path": path, "type": OLD + name, **more}


TRANSFORMER = module("Transformer", "")
# (what, content of modules.json, the key that is refused, words of the message)
LISTS: list[tuple[str, Any, str | None, str]] = [
    ("unknown class", [TRANSFORMER, module("Router")], "type",
     "Transformer first, then Pooling, Dense, LayerNorm, Normalize"),
    ("no transformer", [module("Pooling")], "type", "Transformer first"),
    ("two transformers", [TRANSFORMER, TRANSFORMER], "type", "Transformer first"),
    ("outside", [TRANSFORMER, module("Pooling", "../1_Pooling")], "path", "inside"),
    ("absolute", [TRANSFORMER, module("Pooling", "/1_Pooling")], "path", "inside"),
    ("no class", [{"path": ""}], "type", "missing"),
    ("arguments", [TRANSFORMER, module("Pooling", kwargs=["task"])], "kwargs", "not supported"),
    ("nothing", [], None, "no module"),
    ("no objects", ["Transformer"], None, "no object"),
    ("an object", {}, None, "must hold a list"),
    ("no pooling", [TRANSFORMER, module("Normalize", "5_Normalize")], None, "Pooling"),
    ("two poolings", [TRANSFORMER, module("Pooling"), module("Pooling")], None, "only Pooling"),
]  # fmt: skip
