"""refimpl/files/README.md lists every key of the JSON files that are read, made from the code.

`python tests/package/test_keys_page.py` writes the page anew.
"""

from dataclasses import fields
from pathlib import Path

from refimpl.files import adapter, sentence_files, tokenizer_files
from refimpl.files.meaning import OTHERS
from refimpl.reference import config_keys
from refimpl.reference.config import ModernBertConfig

PAGE = Path(__file__).resolve().parents[2] / "refimpl" / "files" / "README.md"
HEAD = """# What is read of a model folder

Written by `tests/package/test_keys_page.py` from the code. A folder is read once, in one direction:
what is there ([folder.py](folder.py): each JSON file is opened once, strictly), what it means
([meaning.py](meaning.py), [sentence_files.py](sentence_files.py),
[tokenizer_files.py](tokenizer_files.py), [adapter.py](adapter.py)), the tensors
([tensors.py](tensors.py)). The C library follows the same steps and the same keys for what an
encoder needs ([csrc/files](../../csrc/files)).

A key is *read*; or *harmless*, for the reason given; or *refused* unless it has a value that does
nothing (null never does anything). A key that is in no table is told in a warning and kept for
saving in `config.json` and `tokenizer_config.json`, where everybody writes what they like, and
refused by name in the files of sentence-transformers and PEFT. `tests/oracle/test_keys_theirs.py`
holds the tables against the classes of transformers and sentence-transformers, and
`test_finetune_theirs.py` against PEFT's.
"""
# Keys of config.json that are read and are no field of ModernBertConfig.
SPELLINGS = (
    "global_attn_every_n_layers", "sliding_window", "rope_parameters", "rope_scaling", "head_dim",
    "num_labels", "label2id",
)  # fmt: skip
READ_BY_THE_TOKENIZER = (
    "added_tokens_decoder", "*_token", "extra_special_tokens", "additional_special_tokens",
    "model_max_length", "max_len", "truncation_side", "split_special_tokens",
)  # fmt: skip
READ_OF_CONFIG = ("vocab_size", "max_position_embeddings", "*_token_id")
MODULES = {
    "Pooling": ("embedding_dimension", "word_embedding_dimension", "pooling_mode",
                *sentence_files.FLAGS, "include_prompt"),
    "Dense": ("in_features", "out_features", "bias", "activation_function", "module_output_name"),
    "LayerNorm": ("dimension",),
    "Normalize": (),
}  # fmt: skip
SETTINGS = ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "activation_fn",
            "model_type")  # fmt: skip


def code(names):
    return ", ".join(f"`{name}`" for name in names)


def by_reason(table):
    """Rows `keys | reason`, keys of one reason together."""
    reasons = {}
    for key, why in table.items():
        reasons.setdefault(why, []).append(key)
    return [f"| {code(keys)} | {why} |" for why, keys in reasons.items()]


def table(head, rows):
    return "\n".join([f"| {head} |", "|" + " --- |" * head.count("|") + " --- |", *rows]) + "\n"


def neutral(keys):
    return [
        f"| `{key}` | {code(map(repr, values)) or 'null alone'} | {why} |"
        for key, (values, why) in keys.items()
    ]


def values_of(keys):
    return [f"| `{key}` | {code(map(repr, v)) or 'null alone'} |" for key, v in keys.items()]


def page() -> str:
    own = [f.name for f in fields(ModernBertConfig) if f.name != "extra"]
    parts = [
        HEAD,
        "## config.json\n",
        f"Read: {code((*own, *SPELLINGS))}; by heads and rerankers {code(OTHERS)}.\n",
        table("harmless | why", by_reason(config_keys.HARMLESS)),
        table("refused unless | it is | why", neutral(config_keys.NEUTRAL)),
        "## tokenizer_config.json\n",
        f"Read: {code(READ_BY_THE_TOKENIZER)}; of `config.json` {code(READ_OF_CONFIG)}. Where "
        "there is no `added_tokens_decoder`, `special_tokens_map.json` (which then wins) and "
        "`added_tokens.json` are read too, as transformers does.\n",
        table("harmless | why", by_reason(tokenizer_files.HARMLESS)),
        "## modules.json, and the modules that it names\n",
        "Read: `type`, `path`; `kwargs` must be empty; `idx` and `name` are harmless. A class is "
        "what its whole path says: sentence-transformers' own.\n",
        table("module | read", [f"| {name} | {code(keys)} |" for name, keys in MODULES.items()]),
        "`module_input_name` must be `sentence_embedding`, `use_residual` false.\n",
        "## config_sentence_transformers.json\n",
        f"Read where there is a modules.json, as sentence-transformers does: {code(SETTINGS)}.\n",
        table("harmless | why", by_reason(sentence_files.HARMLESS_SETTINGS)),
        "## sentence_bert_config.json\n",
        f"Read where there is a modules.json: {code((*sentence_files.LENGTHS, 'do_lower_case'))}; "
        "`modality_config`, whose text must go through `forward`.\n",
        table("harmless | why", by_reason(sentence_files.HARMLESS_IN_TRANSFORMER)),
        table("refused unless | it is | why", neutral(sentence_files.NEUTRAL_IN_TRANSFORMER)),
        "## adapter_config.json\n",
        f"Read where there are no weights of a whole model beside it: {code(adapter.READ)}. The "
        "base is a folder, named from the adapter's own or as everywhere, or a cached hub id. The "
        "adapter is added to its matrices; tensors that the adapter has whole, config.json, "
        "modules.json and the tokenizer's files, where it has them, stand in the place of the "
        "base's. A config.json must leave the encoder as it is beneath; without one, task_type and "
        "the rows of the classifier say what the head is. For Python; the C library reads whole "
        "models.\n",
        table("harmless | why", by_reason(adapter.HARMLESS)),
        table("refused unless | it is", values_of(adapter.NEUTRAL)),
    ]
    return "\n".join(parts)


def test_page_is_made_from_the_code():
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
