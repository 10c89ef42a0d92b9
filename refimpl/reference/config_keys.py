"""Keys of config.json that are no field of ModernBertConfig: harmless, or refused unless neutral.

What is in neither table is not known here: it is kept for the round trip and told (`unknown`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import shown

# Key -> why it cannot change the numbers.
_GENERATION = "for generation, which an encoder does not do"
_TORCH = "how torch runs the model"
_FILE = "about the file, written anew by the saver"
_OUTPUTS = "which outputs a call gives by default; here a call says so itself"
HARMLESS: Mapping[str, str] = {
    "model_type": _FILE,
    "dtype": _FILE,
    "torch_dtype": _FILE,
    "transformers_version": _FILE,
    "_name_or_path": _FILE,
    "auto_map": "code of the folder, which is never run; the keys say what is computed",
    "layer_norm_eps": "transformers reads norm_eps alone; a different value is warned of",
    "reference_compile": _TORCH,
    "gradient_checkpointing": _TORCH,
    "torchscript": _TORCH,
    "use_bfloat16": _TORCH,
    "attn_implementation": _TORCH,
    "_attn_implementation": _TORCH,
    "_attn_implementation_autoset": _TORCH,
    "_attn_implementation_internal": _TORCH,
    "_experts_implementation": _TORCH,
    "chunk_size_feed_forward": _TORCH,
    "tf_legacy_loss": _TORCH,
    "deterministic_flash_attn": "a slower backward pass with the same sum every time",
    "repad_logits_with_grad": "how logits of training are laid out",
    "return_dict": _OUTPUTS,
    "output_hidden_states": _OUTPUTS,
    "output_attentions": _OUTPUTS,
    "use_cache": _GENERATION,
    "position_embedding_type": "ModernBERT has rotary positions and never reads it",
    "finetuning_task": "a note of whoever trained the model",
    "task_specific_params": "arguments of pipelines for other models",
    "tokenizer_class": "the class of transformers that reads tokenizer.json",
    "prefix": "text before a prompt of a generating pipeline",
    **dict.fromkeys(
        ("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
         "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
         "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
         "num_return_sequences", "output_scores", "return_dict_in_generate",
         "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
         "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
         "decoder_start_token_id"),
        _GENERATION,
    ),
}  # fmt: skip
# Key -> the values that do nothing (null never does), and why no other is supported.
NEUTRAL: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "quantization_config": (({},), "quantised weights are not supported"),
    "pruned_heads": (({},), "heads that are left out are not supported"),
    "is_decoder": ((False,), "a causal mask is not supported"),
    "is_encoder_decoder": ((False,), "a decoder is not supported"),
    "add_cross_attention": ((False,), "cross-attention is not supported"),
    "cross_attention_hidden_size": ((), "cross-attention is not supported"),
    "tie_encoder_decoder": ((False,), "a decoder is not supported"),
    "causal_mask": ((False,), "a causal mask is not supported"),
}


def does_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    """True for null and for the neutral values, each of its own type: 0 is not False."""
    return value is None or any(type(value) is type(v) and value == v for v in neutral)


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    """ValueError for a key of NEUTRAL that does something."""
    for key, (neutral, why) in NEUTRAL.items():
        if not does_nothing(value := values.get(key), neutral):
            raise ValueError(f"{key} is {shown(value)}; {why}")


def unknown(keys: Mapping[str, Any]) -> list[str]:
    """Those of the keys that are in neither table."""
    return [key for key in keys if key not in HARMLESS and key not in NEUTRAL]
