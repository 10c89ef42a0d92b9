"""The port that the arguments of `modernbert verify` name, for a forward pass or a training step.

A way in is an option, and what makes the port of it: WAYS here, those of a training step in
verify_training.py. `port_of` chooses among either. It decides nothing about the port itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..verify.ports.isolation import Limits
    from ..verify.ports.names import Description
    from ..verify.ports.port import Port
    from ..verify.training.cases import TrainingCase
    from ..verify.truth.cases import Case

    AnyCase = TypeVar("AnyCase", Case, TrainingCase)
P = TypeVar("P")
Make = Callable[[Path, "str | None", "str | None", "Description"], P]


def port_of(
    args: argparse.Namespace,
    cases: Sequence[AnyCase],
    ways: Mapping[str, Callable[[argparse.Namespace, Sequence[AnyCase], Description], P]],
) -> P:
    """The port of the way in that was given. Raises ValueError, OSError, MissingExtraError.

    ways: option -> a function of arguments, cases, and the description that --map gives.
    """
    from ..verify.ports.names import Description, read_description

    description = Description() if args.map is None else read_description(args.map)
    make = next(make for name, make in ways.items() if getattr(args, name) not in (None, False))
    return make(args, cases, description)


def dump_of(
    args: argparse.Namespace, cases: Sequence[AnyCase], description: Description, make: Make[P]
) -> P:
    """The dumps in --dump, or the one dump of the one case that it is itself."""
    from ..verify.ports.dump import locate

    if not args.dump.exists():
        raise ValueError(f"--dump {args.dump} does not exist")
    alone = len(cases) == 1 and locate(args.dump, cases[0].name) is None
    return make(args.dump, cases[0].name if alone else None, args.dtype, description)


def dumped(args: argparse.Namespace, cases: Sequence[AnyCase]) -> list[AnyCase]:
    """Of a dump without --case the cases that are there, else those that were chosen."""
    from ..verify.ports.dump import locate

    if args.dump is None or args.case is not None:
        return list(cases)
    found = [c for c in cases if locate(args.dump, c.name) is not None]
    if not found:
        what = "training case" if args.training else "case"
        raise ValueError(
            f"--dump {args.dump} holds no dump under the name of a {what} (--list-cases); "
            "if it is the dump of one case itself, name that with --case"
        )
    return found


def limits(args: argparse.Namespace) -> Limits:
    from ..verify.ports.isolation import Limits

    return Limits(seconds=args.timeout)


# -- a forward pass -------------------------------------------------------------------------------


def _dump(args: argparse.Namespace, cases: Sequence[Case], description: Description) -> Port:
    from ..verify.ports.dump import DumpPort

    return dump_of(args, cases, description, DumpPort)


def _command(args: argparse.Namespace, cases: Sequence[Case], description: Description) -> Port:
    from ..verify.ports.command_port import CommandPort, startable

    return CommandPort(startable(args.command), args.dtype, description, limits(args))


def _library(args: argparse.Namespace, cases: Sequence[Case], description: Description) -> Port:
    from ..verify.ports.library_port import LibraryPort

    return LibraryPort(args.library, args.dtype, limits(args))


def _transformers(
    args: argparse.Namespace, cases: Sequence[Case], description: Description
) -> Port:
    from ..verify.ports.transformers_port import TransformersPort

    return TransformersPort(args.transformers, args.dtype or "float32")


def _engine(args: argparse.Namespace, cases: Sequence[Case], description: Description) -> Port:
    from ..verify.ports.cuda_port import CudaPort
    from ..verify.ports.engine_port import EnginePort
    from ..verify.truth.rounding import base_of

    if args.engine.startswith("cuda"):
        return CudaPort(args.engine, base_of(args.dtype or "float32"))
    return EnginePort(args.engine or None, dtype=base_of(args.dtype or "float32"))


def _engine_library(
    args: argparse.Namespace, cases: Sequence[Case], description: Description
) -> Port:
    from ..verify.ports.c_port import CPort
    from ..verify.truth.rounding import base_of

    return CPort(args.engine_library or None, dtype=base_of(args.dtype or "float32"))


def _onnx(args: argparse.Namespace, cases: Sequence[Case], description: Description) -> Port:
    from ..verify.ports.onnx_files import OnnxFiles, by_model, onnx_files
    from ..verify.ports.onnx_port import OnnxPort

    files = onnx_files(args.onnx)
    if len(files) == 1 and args.case is not None and len({c.fixture for c in cases}) == 1:
        return OnnxPort(files[0], args.dtype, description)
    return OnnxFiles(by_model(files), args.dtype, description)


def _broken(args: argparse.Namespace, cases: Sequence[Case], description: Description) -> Port:
    """The reference with a mistake of the zoo."""
    from ..verify.ports.port import ReferencePort
    from ..verify.zoo import FAULTY, NOT_EXPRESSED, ZOO

    id = args.broken
    if id in ZOO:
        return ReferencePort(mistake=ZOO[id].apply, name=f"reference with {id}")
    if id in FAULTY:
        return FAULTY[id].wrap(ReferencePort(name=f"reference with {id}"))
    if id in NOT_EXPRESSED:
        raise ValueError(f"--break {id}: {NOT_EXPRESSED[id]}")
    variants = [known for known in (*ZOO, *FAULTY) if known.rstrip("abcdefgh") == id]
    hint = f"one of {', '.join(variants)}" if variants else "those that --zoo lists"
    raise ValueError(f"--break {id!r} is unknown; known: {hint}")


WAYS: dict[str, Callable[[argparse.Namespace, Sequence[Case], Description], Port]] = {
    "dump": _dump,
    "command": _command,
    "library": _library,
    "transformers": _transformers,
    "engine": _engine,
    "engine_library": _engine_library,
    "onnx": _onnx,
    "broken": _broken,
}
