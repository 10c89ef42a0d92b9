"""Output of the verbs: records as JSONL or a table on stdout, bad lines as JSON on stderr.

    run_blocks: lines -> blocks -> answers -> records, in the order of the lines

Promise: stdout carries results only; a line that fails is told and counted, and the others go on;
tokens that truncation cut are told once, at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..files.lines import Line, blocks
from ..progress import Progress
from .inputs import Input
from .numbers import single

Record = dict[str, Any]
Rows = Callable[[Record], Iterable[Sequence[object]]]

BAD_LINES = 3


class Writer:
    """Writes records in the wanted format, and remembers what went wrong.

    columns: the table's header; rows: the table rows of one record.
    """

    def __init__(self, args: argparse.Namespace, columns: Sequence[str], rows: Rows) -> None:
        self.args, self.out, self.format = args, args.out, args.format
        self.columns, self.rows = columns, rows
        self.policy = getattr(args, "truncate", None)
        # What a float32 model says about texts is float32; a benchmark's times are not.
        self.single = hasattr(args, "file") and getattr(args, "dtype", None) != "float64"
        self.bad = self.cut = self.tokens_lost = self.written = 0
        self.progress: Progress | None = None
        self._header_done = False

    def write(self, records: Sequence[Record]) -> None:
        """Write records; a `truncated` field is counted."""
        for record in records:
            self.count(record.get("truncated", 0))
        if self.format == "jsonl":
            for record in records:
                shown = single(record) if self.single else record
                text = json.dumps(shown, ensure_ascii=False, allow_nan=False, default=listed)
                print(text, file=self.out)
        else:
            self._write_table(records)
        self.written += len(records)
        self.out.flush()

    def count(self, lost: int) -> None:
        """Remember the tokens that a text lost."""
        self.cut += lost > 0
        self.tokens_lost += lost

    def refuse(self, line: Line, error: str) -> None:
        """Tell that a line is bad, and which of its file it is."""
        self.bad += 1
        where = "" if line.number is None else f"line {line.number}: "
        record = line.head | {"error": where + " ".join(error.split())}
        if self.progress is not None:
            self.progress.clear()
        print(json.dumps(record, ensure_ascii=False, default=str), file=sys.stderr)

    def finish(self) -> int:
        """Tell what was cut, and keep for `--output` what was written; the exit code."""
        bad = f" ({counted(self.bad, 'bad line')})" if self.bad else ""
        self.args.wrote = counted(self.written, "record") + bad
        if self.cut and self.policy == "warn":
            verb = "was" if self.cut == 1 else "were"
            print(
                f"modernbert: {counted(self.cut, 'text')} {verb} cut, {self.tokens_lost} tokens "
                "lost (see --max-length)",
                file=sys.stderr,
            )
        return BAD_LINES if self.bad else 0

    def _write_table(self, records: Sequence[Record]) -> None:
        cells = [[_cell(value) for value in row] for record in records for row in self.rows(record)]
        if not self._header_done:
            cells.insert(0, list(self.columns))
            self._header_done = True
        widths = (
            [max(len(row[i]) for row in cells) for i in range(len(self.columns))] if cells else []
        )
        for row in cells:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print(line.rstrip(), file=self.out)


def run_blocks(
    args: argparse.Namespace,
    given: Input,
    writer: Writer,
    answer: Callable[[list[Line]], list[Any]],
    record: Callable[[Line, Any], Record],
    emit: Callable[[list[Line], list[Any]], None] | None = None,
) -> int:
    """Read all input in blocks, answer and write them; the exit code.

    answer: one answer per line, or ValueError / TypeError, on which the lines are tried one by one.
    Texts of the command line are one block; a bad one ends the command, its place in the error.
    emit: instead of writing records, takes the lines of a block with their answers (None: failed).
    """
    size = max(len(args.texts), 1) if given.strict else args.batch_size
    with Progress(args.verb, verbose=not given.strict and progress_shown(args)) as shown:
        writer.progress = shown
        for block in blocks(given.lines, size):
            answers = answer(block) if given.strict else list(_answers(block, answer, writer))
            if emit is not None:
                emit(block, answers)
            else:
                pairs = zip(block, answers, strict=True)
                writer.write([record(line, found) for line, found in pairs if found is not None])
            shown.advance(len(block), given.part)
    writer.progress = None
    return writer.finish()


def progress_shown(args: argparse.Namespace) -> bool:
    """On a terminal, unless the results go there too."""
    return sys.stderr.isatty() and (args.out is not sys.stdout or not sys.stdout.isatty())


def _answers(
    block: list[Line], answer: Callable[[list[Line]], list[Any]], writer: Writer
) -> Iterator[Any]:
    """An answer per line of a block, None for those that fail, which are told."""
    good = [line for line in block if line.error is None]
    try:
        found = iter(answer(good) if good else [])
        one_by_one = False
    except (ValueError, TypeError):
        one_by_one = True
    for line in block:
        if line.error is not None:
            writer.refuse(line, line.error)
            yield None
        elif not one_by_one:
            yield next(found)
        else:
            try:
                yield answer([line])[0]
            except (ValueError, TypeError) as error:
                writer.refuse(line, str(error))
                yield None


def place(record: Record) -> object:
    """What a row of a table names its text by: the id, or the number where there is none."""
    return record.get("id", record["index"])


def counted(n: int, what: str) -> str:
    """1 record, 2,000 records."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def listed(value: Any) -> Any:
    """What json asks for an array."""
    return value.tolist()


def _cell(value: object) -> str:
    """A value in a table: four decimals for scores, control characters escaped."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
