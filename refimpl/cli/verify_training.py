"""`modernbert verify --training`: the same verb for a training step.

The options of verify.py that hand in a port, with --trainer and --torch beside them; exit codes are
the same.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .verify_ports import dump_of, limits

if TYPE_CHECKING:
    from ..verify.ports.names import Description
    from ..verify.training.cases import TrainingCase
    from ..verify.training.port import TrainingPort

OWN = ("accumulate", "trainer", "torch")
"""Options of verify.py that only a training step has."""


def refuse_without(args: argparse.Namespace) -> None:
    """ValueError for an option that only a training step has."""
    for name in OWN:
        if getattr(args, name):
            raise ValueError(f"--{name} is of --training")


def refuse_foreign(args: argparse.Namespace) -> None:
    """ValueError for an option that a training step does not have."""
    for name in ("library", "engine_library", "onnx", "header", "no_runtime"):
        if getattr(args, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} is not of --training")
    if args.accumulate and args.transformers is None:
        raise ValueError("--accumulate is of --transformers")


def chosen(names: Sequence[str] | None) -> list[TrainingCase]:
    from ..verify.training.cases import CASES, case

    return list(CASES) if names is None else [case(name) for name in names]


def built_by(where: str) -> Callable[[TrainingCase], Any]:
    """FILE.py:FUNCTION -> a function of a case: FUNCTION(config, weights, head) is the module."""
    path, _, name = where.rpartition(":")
    if not path or not Path(path).is_file():
        raise ValueError(f"--torch {where!r} must be FILE.py:FUNCTION, of a file that is there")
    spec = importlib.util.spec_from_file_location("modernbert_verify_port", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--torch {where!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--torch {where!r}: {path} has no function {name}")

    def build(case: TrainingCase) -> Any:
        from ..verify.truth.fixtures import hf_names

        weights = {n: x.astype("float32") for n, x in hf_names(case.params(), case.head).items()}
        return function(case.config, weights, case.head)

    return build


# -- ways in ---------------------------------------------------------------------------------------


def _dump(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    from ..verify.training.files_port import DumpPort

    return dump_of(args, cases, description, DumpPort)


def _command(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    from ..verify.training.files_port import TrainingCommand

    return TrainingCommand(args.command, args.dtype, description, limits(args))


def _transformers(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    from ..verify.training.torch_port import TransformersTrainer

    return TransformersTrainer(args.accumulate, args.transformers, args.dtype or "float32")


def _torch(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    from ..verify.training.torch_port import TorchPort

    return TorchPort(built_by(args.torch), args.torch, args.dtype or "float32")


def _trainer(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    from ..verify.training.trainer_port import TrainerPort

    if args.dtype not in (None, "float32", "float64"):
        raise ValueError(f"--dtype {args.dtype} is not one that refimpl.train computes in")
    return TrainerPort(args.dtype or "float32")


def _engine(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    from ..verify.training.trainer_port import EngineTrainer

    return EngineTrainer(args.engine or None, args.dtype or "float32")


def _broken(
    args: argparse.Namespace, cases: Sequence[TrainingCase], description: Description
) -> TrainingPort:
    """The reference with a mistake of the training zoo."""
    from ..verify.training.port import ReferencePort
    from ..verify.training.zoo import ZOO

    if args.broken not in ZOO:
        raise ValueError(f"--break {args.broken!r} is unknown; known: {', '.join(ZOO)}")
    return ReferencePort(mistake=ZOO[args.broken].apply, name=f"reference with {args.broken}")


WAYS: dict[str, Callable[[argparse.Namespace, Sequence[TrainingCase], Description], TrainingPort]]
WAYS = {
    "dump": _dump,
    "command": _command,
    "transformers": _transformers,
    "torch": _torch,
    "trainer": _trainer,
    "engine": _engine,
    "broken": _broken,
}


# -- without a port -------------------------------------------------------------------------------


def list_cases(args: argparse.Namespace) -> int:
    for case in chosen(args.case):
        print(f"{case.name:18s} {case.problem:28s} {case.rule.optimiser:13s} {case.why}")
    return 0


def list_zoo(args: argparse.Namespace) -> int:
    from ..verify.training.zoo import NOT_EXPRESSED, ZOO

    for m in ZOO.values():
        cited = f" [{', '.join(m.citations)}]" if m.citations else ""
        print(f"{m.id:5s} {m.title}: {m.text}{cited}")
    for id, reason in NOT_EXPRESSED.items():
        print(f"not here: {id}: {reason}")
    return 0


def self_test(args: argparse.Namespace) -> int:
    from ..verify.training import selftest

    return selftest.main()
