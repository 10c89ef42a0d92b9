"""Every key of the others' own files is known here: read, harmless, or refused unless neutral."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.oracle

from refimpl.files import sentence_files, tokenizer_files  # noqa: E402
from refimpl.reference import config_keys  # noqa: E402
from refimpl.reference.config import ModernBertConfig  # noqa: E402

# Keys of config.json that are read and are no field of ModernBertConfig.
READ = {
    "global_attn_every_n_layers", "sliding_window", "rope_parameters", "rope_scaling", "head_dim",
    "num_labels", "label2id", "attribute_map", "architectures",
}  # fmt: skip


def known(key: str) -> bool:
    own = {f.name for f in fields(ModernBertConfig)}
    return key in own | READ or key in config_keys.HARMLESS or key in config_keys.NEUTRAL


def test_keys_of_their_config():
    written = transformers.ModernBertConfig().to_dict()
    asked = inspect.signature(transformers.ModernBertConfig.__init__).parameters
    base = inspect.signature(transformers.PretrainedConfig.__init__).parameters
    keys = {*written, *asked, *base} - {"self", "kwargs", "args"}
    assert {key for key in keys if not known(key)} == set()


def test_keys_of_their_tokenizer():
    text = inspect.getsource(transformers.PreTrainedTokenizerBase.__init__)
    text += inspect.getsource(transformers.PreTrainedTokenizerFast.__init__)
    import re

    keys = set(re.findall(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\"", text))
    assert {"split_special_tokens", "truncation_side", "added_tokens_decoder"} <= keys
    read = {"split_special_tokens", "truncation_side", "added_tokens_decoder", "model_max_length",
            "max_len", "extra_special_tokens", "additional_special_tokens"}  # fmt: skip
    inner = {"tokenizer_object", "gguf_file", "_json_truncation", "_json_padding", "post_processor",
             "_spm_precompiled_charsmap", "tokenizer_truncation", "tokenizer_padding", "tokenizer",
             "vocab", "merges", "unk_id", "model_specific_special_tokens"}  # fmt: skip
    assert keys - read - inner - set(tokenizer_files.HARMLESS) == set()


def test_keys_of_their_modules():
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    own = {
        Pooling: {"embedding_dimension", "pooling_mode", "include_prompt"},
        Dense: {"in_features", "out_features", "bias", "activation_function", "module_input_name",
                "module_output_name", "use_residual"},
        Normalize: {"module_input_name", "module_output_name"},
        LayerNorm: {"dimension"},
        Transformer: {*sentence_files.LENGTHS, "do_lower_case", "modality_config",
                      *sentence_files.NEUTRAL_IN_TRANSFORMER,
                      *sentence_files.HARMLESS_IN_TRANSFORMER},
    }  # fmt: skip
    for module, keys in own.items():
        assert set(module.config_keys) <= keys, module


def test_keys_of_their_settings():
    from sentence_transformers import CrossEncoder, SentenceTransformer

    read = {"prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "activation_fn",
            "model_type"}  # fmt: skip
    import re

    for kind in (SentenceTransformer, CrossEncoder):
        text = "".join(
            inspect.getsource(cls._parse_model_config) + inspect.getsource(cls._get_model_config)
            for cls in kind.__mro__
            if "_parse_model_config" in vars(cls)
        )
        keys = set(re.findall(r"\"(\w+)\": ", text))
        keys |= set(re.findall(r"config(?:\.get\(|\[)\"(\w+)\"", text))
        assert "prompts" in keys
        inner = {"sentence_transformers", "transformers", "pytorch"}  # inside __version__
        assert keys - read - inner - set(sentence_files.HARMLESS_SETTINGS) == set()
