"""The command `modernbert`: one file per verb, results on stdout only.

Also `python -m refimpl`. Exit codes and the environment: EPILOG, which is its help. A reader that
closes the pipe early, such as `head`, ends the command quietly with 0. A verb imports what it needs
when run.
Imports: reference, text, nlp, files, backends, models, tasks, train, verify, bulk, serve, teach.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from .._version import __version__
from . import (
    answer,
    bench,
    classify,
    download,
    embed,
    exercise,
    explain,
    fill_mask,
    finetune,
    info,
    ner,
    pack,
    pretrain,
    quantize,
    rerank,
    search,
    serve,
    tokenize,
    verify,
)
from .outputs import opened_output
from .streams import listening

VERBS = (
    *(fill_mask, embed, search, rerank, classify, ner, answer),
    *(serve, tokenize, finetune, pretrain, quantize, pack, info, bench, verify),
    *(explain, exercise, download),
)


EPILOG = """\
environment:
  REFIMPL_BACKEND         numpy, native or cuda, where --backend leaves it open
  REFIMPL_ISA             the highest tier of instructions that the engine may use
  REFIMPL_THREADS         threads of the engine, else OMP_NUM_THREADS, else the usable cores
  REFIMPL_PACK            take (default): packed weights that `pack` wrote are used; make: they are
                          written on first load; leave: neither
  REFIMPL_PACK_FOLDER     where packed weights are, else beside config.json
  REFIMPL_REQUIRE_NATIVE  1: a missing engine is an error, not a reason to take numpy
  REFIMPL_CUDA_LIBRARY    the library of backend cuda, else libmodernbert_cuda.so in the package
  REFIMPL_CUDA_GRAPHS     0: on backend cuda every kernel is started by itself, in short passes too
  REFIMPL_SERVE_MAX_BODY_BYTES and so on: a twin of each flag of `serve`
  HF_HUB_CACHE            where models of the hub are kept, else HUGGINGFACE_HUB_CACHE, else
                          HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache
  HF_HUB_OFFLINE          1: no network, whatever is asked for
  NO_COLOR                any text: no colour in reports

exit codes:
  0    done
  1    an error, told in one line on stderr; of verify: the port is wrong; of exercise check: not
       right yet
  2    wrong usage
  3    done, but some input lines were bad, each told on stderr as a JSON record;
       of verify: declared deviations only
  4    of verify: nothing is wrong, but not everything was shown (--partial)
  130  interrupted

Help and examples for each verb: modernbert VERB --help
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; `args.run` is the verb's function."""
    parser = argparse.ArgumentParser(
        prog="modernbert",
        description="ModernBERT encoders on the command line: text in, answers out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modernbert {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[2].replace("_", "-")
        sub = verbs.add_parser(
            name,
            help=verb.HELP,
            description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}.",
            epilog=f"example:\n  {verb.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(sub)
        if hasattr(verb, "USAGE"):  # the options would take a screen, above what is wrong
            sub.usage = f"modernbert {name} [options] {verb.USAGE}"
        sub.set_defaults(run=verb.run, usage_error=sub.error)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, alone its help; returns the exit code (argparse exits by itself with 2)."""
    if sys.stderr is None:  # closed by whoever started the command: print would take stdout instead
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments or ["--help"])
    if sys.stdout is None:
        print(f"modernbert {args.verb}: standard output is closed", file=sys.stderr)
        return 1
    code = 0  # of a verb whose reader leaves while it answers
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            with listening(), opened_output(args):
                code = args.run(args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Nobody reads on: what Python still holds back for stdout must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return code
        except KeyboardInterrupt:
            return 130
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            print(f"modernbert {args.verb}: {message}", file=sys.stderr)
            return 1


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """A warning in one line, without the source line that raised it."""
    print(f"modernbert: {' '.join(str(message).split())}", file=sys.stderr)
