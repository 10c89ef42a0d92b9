"""`modernbert info`: version, build, backends, where the bundled model is; with --model, what a
folder holds."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from typing import Any

from .numbers import bytes_of
from .options import add_format
from .records import Record, Writer

HELP = "show the version, the build, the backends, and what a model folder holds"
EXAMPLE = "modernbert info --model FOLDER"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FOLDER", help="describe this model folder too")
    parser.add_argument(
        "--cflags", action="store_true", help="print what a C compiler needs to find modernbert.h"
    )
    parser.add_argument(
        "--libs", action="store_true", help="print what a linker needs to take libmodernbert.so"
    )
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from ..backends.backend import info
    from ..files.hub import BUNDLED

    if args.cflags or args.libs:
        if args.model is not None:
            args.usage_error("--cflags and --libs take no --model")
        print(compiler_flags(args.cflags, args.libs))
        return 0
    found: Record = dict(info())
    # In a package that lies in a zip it is in no folder.
    found["bundled_model"] = str(BUNDLED) if BUNDLED.is_dir() else None
    if args.model is not None:
        found["model"] = described(args.model)
    writer = Writer(args, ("what", "value"), rows)
    writer.write([found])
    return 0


def compiler_flags(cflags: bool, libs: bool) -> str:
    """Arguments of a compiler, of a linker, or of both. ValueError where there is no library."""
    from ..backends.backend import library, library_header

    place = str(library().parent)
    out = [f"-I{library_header().parent}"] if cflags else []
    out += [f"-L{place}", f"-Wl,-rpath,{place}", "-lmodernbert"] if libs else []
    return shlex.join(out)


def described(folder: str) -> dict[str, Any]:
    """The facts of a model folder that one asks for first."""
    from ..files.sentence_files import DEFAULT_PROMPTS
    from ..files.stored import dtype_name
    from ..files.tokenizer_files import tokenizer_settings
    from ..models.facts import disk_bytes, memory_bytes
    from ..models.summary import described_head, described_modules
    from ..models.task_model import ModernBERTForTask, load
    from ..reference.sentence import SentenceHead
    from ..tasks.embed import settings_of
    from ..tasks.task import head_limit

    model = load(folder)
    assert model.source is not None
    config, settings = model.config, settings_of(model)
    head = model.head if isinstance(model, ModernBERTForTask) else None
    limit = settings.max_seq_length or head_limit(model)
    stored = model.params.stored.values()
    dtypes = {dtype_name(x) for x in stored}
    return {
        "folder": str(model.folder),
        "head": described_head(model),
        "modules": described_modules(head) if isinstance(head, SentenceHead) else [],
        "pooling": pooling(head),
        "prompts": {**dict.fromkeys(DEFAULT_PROMPTS, ""), **settings.prompts},
        "default_prompt_name": settings.default_prompt_name,
        "similarity": settings.similarity_fn_name or "cosine",
        "embedding_space": embedding_space(model),
        "max_length": limit or tokenizer_settings(model.source).limit,
        "query_length": settings.query_length,
        "document_length": settings.document_length,
        "parameters": model.num_parameters,
        "layers": config.num_hidden_layers,
        "full_attention_layers": sum(map(config.is_global, range(config.num_hidden_layers))),
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "labels": list(config.id2label.values()),
        "stored_as": sorted(dtypes),
        "stored_bytes": sum(x.nbytes for x in stored),
        "disk_bytes": disk_bytes(model.shapes()),
        "memory_bytes": memory_bytes(model.shapes()),
        "int8": certificate_of(model),
    }


def certificate_of(model: Any) -> dict[str, Any] | None:
    """What int8.json says, and whether it is of these weights; None without one."""
    from ..files.certificate import digest_of_weights, read_certificate

    layers = model.config.num_hidden_layers
    found = read_certificate(model.source, layers)
    if found is None:
        return None
    return {
        "of_these_weights": found.weights == digest_of_weights(model.params, layers),
        "kept": dict(found.kept),
        "texts": found.texts.count,
        "tokens": found.texts.tokens,
        **found.figures,
        "measured": dict(found.measured),
    }


def embedding_space(model: Any) -> str | None:
    """The digest of the vectors that `embed` gives when nothing else is said; None for a model that
    gives none."""
    import warnings

    from ..tasks import SentenceEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `pooling` says it
        try:
            return str(SentenceEncoder(model).space())
        except (ValueError, ImportError):
            return None


def pooling(head: Any) -> str:
    """How token vectors become one, where `embed` or the head makes one of them."""
    from ..nlp import NLPHead
    from ..reference.sentence import Pooling, SentenceHead

    if isinstance(head, SentenceHead):
        return ", ".join(mode for m in head.modules if isinstance(m, Pooling) for mode in m.modes)
    if isinstance(head, NLPHead) and head.options.pooling_type is not None:
        return head.options.pooling_type
    return "mean, for embed: the folder names no modules"


def rows(record: Record, prefix: str = "", size: bool = False) -> Iterable[tuple[object, ...]]:
    """Names with dots and values; sizes in units, lists with commas."""
    for name, value in record.items():
        in_bytes = size or name.endswith("_bytes")
        if isinstance(value, dict):
            yield from rows(value, f"{prefix}{name}.", in_bytes)
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "-"
        else:
            yield f"{prefix}{name}", bytes_of(value) if in_bytes else shown(value)


def shown(value: object) -> object:
    """Numbers with commas, nothing as -."""
    if value is None or value == "":
        return "-"
    return f"{value:,}" if type(value) is int else value
