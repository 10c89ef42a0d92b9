"""`modernbert verify`: whether a port of ModernBERT is right, and if not, what is wrong.

The port is handed in as a dump, a command, a shared library, through transformers or ONNX Runtime,
or is this package's engine; with --training its training step is judged (verify_training.py). The
report goes to stdout, and to JSON and HTML files. Exit codes: 0 exact-spec, 1 fail, 3 declared
deviations only, 4 incomplete (nothing wrong in what was run, and not all was run that the user asks
for), 2 wrong usage.

Long because every way to hand in a port is an option of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import verify_training
from .numbers import bytes_of
from .options import seconds
from .outputs import say_verdict
from .verify_ports import WAYS, dumped, port_of

if TYPE_CHECKING:
    from ..verify.judge.verdict import Report
    from ..verify.ports.port import Port
    from ..verify.truth.cases import Case
    from ..verify.zoo import Faulty, Mistake

HELP = "check a port of ModernBERT against the reference, and say what is wrong with it"
EXAMPLE = "modernbert verify --dump FOLDER --case window-66"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    port = parser.add_argument_group("the port (one of)").add_mutually_exclusive_group(
        required=True
    )
    port.add_argument(
        "--dump", metavar="PATH", type=Path,
        help="tensors that it has written: PATH/CASE, PATH/CASE.npz or .safetensors per case; "
        "with one --case, PATH may be that dump itself",
    )  # fmt: skip
    port.add_argument(
        "--command", metavar="CMD", help="run as CMD CASE_DIR OUT_DIR, or with {case} and {out}"
    )
    port.add_argument("--library", metavar="LIB.so", help="a library with the interface of port.h")
    port.add_argument(
        "--transformers", nargs="?", const="sdpa", choices=("eager", "sdpa"),
        help="Hugging Face transformers (default: sdpa)",
    )  # fmt: skip
    port.add_argument(
        "--engine", nargs="?", const="", metavar="TIER",
        help="this package's CPU engine (default: the best tier here), or cuda, cuda:1",
    )  # fmt: skip
    port.add_argument(
        "--engine-library", nargs="?", const="", metavar="TIER",
        help="the same through the C interface of libmodernbert.so",
    )  # fmt: skip
    port.add_argument(
        "--onnx", metavar="PATH",
        help="exported models: a file, a folder, or a pattern; each is run on the cases of its "
        "model, which its name or the config.json beside it says (or, of one file, --case)",
    )  # fmt: skip
    port.add_argument(
        "--torch", metavar="FILE.py:FUNCTION",
        help="of --training: FUNCTION(config, weights, head) gives a torch module with a .loss",
    )  # fmt: skip
    port.add_argument(
        "--trainer", action="store_true", help="of --training: this package's refimpl.train"
    )
    port.add_argument("--break", metavar="ID", dest="broken", help="the reference, with a mistake")
    port.add_argument("--list-cases", action="store_true", help="what there is to be run, and why")
    port.add_argument("--zoo", action="store_true", help="the known mistakes")
    port.add_argument("--export", metavar="DIR", help="write cases and expected values, to be used "
                      "in any language, offline")  # fmt: skip
    port.add_argument("--self-test", action="store_true", help="every mistake against every case")
    port.add_argument(
        "--header", action="store_true", help="print port.h, the interface of --library"
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--training", action="store_true",
        help="a training step: loss, gradients and updates, in place of a forward pass",
    )  # fmt: skip
    what.add_argument(
        "--accumulate", action="store_true",
        help="of --training --transformers: micro-batches through Trainer's own accumulation",
    )  # fmt: skip
    what.add_argument("--case", metavar="NAME", action="append", help="only this case (repeatable)")
    what.add_argument(
        "--dtype", help="what the port computes in (default: what it says), and after it what is "
        "declared to deviate in precision: float32+tf32 (README: what a port may say)",
    )  # fmt: skip
    what.add_argument("--map", metavar="FILE", type=Path, help="JSON: names and layouts of a dump")
    what.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=300.0, help="of a call of the port"
    )
    what.add_argument(
        "--no-runtime", action="store_true", help="one pass per case, no calls in other company"
    )
    what.add_argument(
        "--partial", nargs="?", const="", metavar="NAMES",
        help="what need not be shown, separated by commas, as the report names it (alone: anything "
        "may be missing); without it a verdict on less than everything ends with exit code 4",
    )  # fmt: skip
    out = parser.add_argument_group("the report")
    out.add_argument("--full", action="store_true", help="every step, not only those over budget")
    out.add_argument("--json", metavar="FILE", type=Path, help="write it as JSON, too")
    out.add_argument("--html", metavar="FILE", type=Path, help="write it as one page, too")


def run(args: argparse.Namespace) -> int:
    one_blas_thread()
    with usage_errors(args):
        (verify_training.refuse_foreign if args.training else verify_training.refuse_without)(args)
    for name, action in (TRAINING_ACTIONS if args.training else ACTIONS).items():
        if getattr(args, name):
            return action(args)
    with usage_errors(args):
        dtype_known(args.dtype or "float32")
        for name in ("json", "html"):
            writable(f"--{name}", getattr(args, name))
    report = training_report(args) if args.training else forward_report(args)
    tell(args, report)
    return report.exit_code


def dtype_known(dtype: str) -> None:
    """ValueError for a dtype, or a deviation that it declares, without a budget."""
    from ..verify.truth.rounding import precision

    try:
        precision(dtype)
    except ValueError as error:
        raise ValueError(f"--dtype {dtype!r}: {error}") from None


def training_report(args: argparse.Namespace) -> Report:
    from ..verify.training.coverage import NAMES
    from ..verify.training.judge import verify

    with usage_errors(args):
        cases = verify_training.chosen(args.case)
        port = port_of(args, cases, verify_training.WAYS)
        cases = dumped(args, cases)
        without = dispensed(args.partial, NAMES)
    return verify(port, cases, args.dtype, without=without)


def forward_report(args: argparse.Namespace) -> Report:
    from ..verify.judge.coverage import NAMES
    from ..verify.judge.gates import verify

    with usage_errors(args):
        cases = chosen(args.case)
        port = port_of(args, cases, WAYS)
        cases = answered(args, cases, port)
        without = dispensed(args.partial, NAMES)
    # transformers says itself what it declares beside the dtype that it is asked for.
    held_to = None if args.transformers is not None else args.dtype
    return verify(port, cases, held_to, runtime=not args.no_runtime, without=without)


def one_blas_thread() -> None:
    """numpy's BLAS in this process with one thread, unless the user says otherwise: the kit's
    products are small, and on a busy machine threads that wait for one another took 44 s of
    processor time where one takes 7. Ports do not inherit it."""
    name = "OPENBLAS_NUM_THREADS"  # read when numpy is imported
    if "numpy" in sys.modules or name in os.environ:
        return
    os.environ[name] = "1"
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[name]


@contextmanager
def usage_errors(args: argparse.Namespace) -> Iterator[None]:
    """What is wrong with the arguments ends with exit code 2, not with that of a wrong port."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        args.usage_error(str(error))


def chosen(names: Sequence[str] | None) -> list[Case]:
    from ..verify.truth.cases import CASES, case

    return list(CASES) if names is None else [case(name) for name in names]


def dispensed(names: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """What --partial says need not be shown: nothing, names, or everything."""
    if names is None:
        return ()
    given = tuple(name.strip() for name in names.split(",")) if names else known
    for name in given:
        if name not in known:
            raise ValueError(f"--partial {name!r} is unknown; known: {', '.join(known)}")
    return given


def answered(args: argparse.Namespace, cases: list[Case], port: Port) -> list[Case]:
    """Of a dump without --case: the cases that are there; of ONNX files those of their models."""
    files = getattr(port, "files", None)
    if files is not None:
        return [c for c in cases if c.fixture.name in files]
    return dumped(args, cases)


def writable(option: str, path: Path | None) -> None:
    """ValueError when a report could not be written, told before minutes of work, not after."""
    if path is not None and path.is_dir():
        raise ValueError(f"{option} {path} is a folder; it must be a file")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}")


def tell(args: argparse.Namespace, report: Report) -> None:
    """The report on stdout and in the files that were asked for."""
    from ..verify.report.report import render, to_json

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    data = to_json(report)
    if args.json is not None:
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if args.html is not None:
        from ..verify.report.html import to_html

        args.html.write_text(to_html(data), encoding="utf-8")
    say_verdict(render(report, colour=colour, full=args.full))


# -- without a port -------------------------------------------------------------------------------


def list_cases(args: argparse.Namespace) -> int:
    for case in chosen(args.case):
        shape = " x ".join(map(str, case.inputs["input_ids"].shape))
        print(f"{case.name:18s} {shape:9s} {case.head or 'encoder':24s} {case.why}")
    return 0


def list_zoo(args: argparse.Namespace) -> int:
    from ..verify.zoo import FAULTY, NOT_EXPRESSED, ZOO

    known: list[Mistake | Faulty] = [*ZOO.values(), *FAULTY.values()]
    for mistake in known:
        cited = f" [{', '.join(mistake.citations)}]" if mistake.citations else ""
        print(f"{mistake.id:5s} {mistake.title}: {mistake.text}{cited}")
    for id, reason in NOT_EXPRESSED.items():
        print(f"{id:5s} not here: {reason}")
    return 0


def export(args: argparse.Namespace) -> int:
    from ..verify.training.export import export as export_training
    from ..verify.truth.export import export

    with usage_errors(args):
        if args.training:
            print(export_training(args.export, verify_training.chosen(args.case)))
            return 0
        kit = export(args.export, chosen(args.case), args.full)
    print(kit)
    print(f"modernbert verify: wrote {kit}: {written(kit)}; begin with README.md", file=sys.stderr)
    return 0


def written(kit: Path) -> str:
    """What an exported kit holds, in numbers."""
    models, cases = (len(list((kit / part).iterdir())) for part in ("models", "cases"))
    sizes = [f.stat().st_size for f in kit.rglob("*") if f.is_file()]
    return f"{models} models and {cases} cases, {len(sizes):,} files, {bytes_of(sum(sizes))}"


def self_test(args: argparse.Namespace) -> int:
    from ..verify.judge import selftest

    return selftest.main(say=say_verdict)


def print_header(args: argparse.Namespace) -> int:
    from ..verify.ports.library_host import HEADER

    print(HEADER.read_text(encoding="utf-8"), end="")
    return 0


ACTIONS: dict[str, Callable[[Any], int]] = {
    "list_cases": list_cases,
    "zoo": list_zoo,
    "export": export,
    "self_test": self_test,
    "header": print_header,
}
TRAINING_ACTIONS: dict[str, Callable[[Any], int]] = {
    "list_cases": verify_training.list_cases,
    "zoo": verify_training.list_zoo,
    "export": export,
    "self_test": verify_training.self_test,
}
