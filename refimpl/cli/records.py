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

from ..progress import progress
from .lines import Line, blocks, from_command_line, read_lines

Record = dict[str, Any]
Rows = Callable[[Record], Iterable[Sequence[object]]]

BAD_LINES = 3


class Writer:
    """Writes records in the wanted format, and remembers what went wrong.

    columns: the table's header; rows: the table rows of one record.
    """

    def __init__(self, args: argparse.Namespace, columns: Sequence[str], rows: Rows) -> None:
        self.format = args.format or ("table" if sys.stdout.isatty() else "jsonl")
        self.columns, self.rows = columns, rows
        self.policy = getattr(args, "truncate", None)
        self.bad = self.cut = self.tokens_lost = 0
        self._header_done = False

    def write(self, records: Sequence[Record]) -> None:
        """Write records; a `truncated` field is counted."""
        for record in records:
            self.count(record.get("truncated", 0))
        if self.format == "jsonl":
            for record in records:
                print(json.dumps(record, ensure_ascii=False, allow_nan=False))
        else:
            self._write_table(records)
        sys.stdout.flush()

    def count(self, lost: int) -> None:
        """Remember the tokens that a text lost."""
        self.cut += lost > 0
        self.tokens_lost += lost

    def refuse(self, line: Line, error: str) -> None:
        """Tell that a line is bad."""
        self.bad += 1
        record = line.head | {"error": " ".join(error.split())}
        print(json.dumps(record, ensure_ascii=False, default=str), file=sys.stderr)

    def finish(self) -> int:
        """Tell what was cut; the exit code."""
        if self.cut and self.policy == "warn":
            texts = "1 text was" if self.cut == 1 else f"{self.cut} texts were"
            print(
                f"modernbert: {texts} cut, {self.tokens_lost} tokens lost (see --max-length)",
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
            print(line.rstrip())


def run_blocks(
    args: argparse.Namespace,
    writer: Writer,
    answer: Callable[[list[Line]], list[Any]],
    record: Callable[[Line, Any], Record],
    key: str = "text",
    emit: Callable[[list[Line], list[Any]], None] | None = None,
) -> int:
    """Read all input in blocks, answer and write them; the exit code.

    answer: one answer per line, or ValueError / TypeError, on which the lines are tried one by one.
    Texts of the command line are one block; a bad one ends the command, its place in the error.
    emit: instead of writing records, takes the lines of a block with their answers (None: failed).
    """
    strict = from_command_line(args.texts)
    show = sys.stderr.isatty() and not sys.stdout.isatty()
    lines = progress(read_lines(args, args.texts, key), args.verb, show)
    for block in blocks(lines, len(args.texts) if strict else args.batch_size):
        answers = answer(block) if strict else list(_answers(block, answer, writer))
        if emit is not None:
            emit(block, answers)
            continue
        pairs = zip(block, answers, strict=True)
        writer.write([record(line, found) for line, found in pairs if found is not None])
    return writer.finish()


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


def _cell(value: object) -> str:
    """A value in a table: four decimals for scores, control characters escaped."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
