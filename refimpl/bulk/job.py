"""Files of texts to a folder of parts: planned once, done in any order by anybody, resumable.

    job = Job.plan(inputs, out, Embedder(folder))
    job.run(shard=(3, 16), resume=True)       this process does its share
    job.run(map=...)                          Dask, Ray, Spark: what maps a function over fragments

    out/job.json            what is done to which files: written first, and the same for all shards
    out/<input>-<name>-<first row>-<digest>.parquet      a part
    out/manifest.jsonl      a line per part, with its sha256, when a run ends (per shard: its own)

A part is named by what it is made of (the digest is that of job.json), and there or not there. So a
run that was killed anywhere is resumed by making the parts that are missing; a text has the same
bits in any company, so they are the bytes that it would have written. Long because every other job
in the same folder is refused here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SpaceError
from ..files.abandoned import TOKEN, remove_abandoned
from ..files.atomic import replacing
from ..files.strictjson import read_json
from ..tasks.space import Space
from .inputs import Fragment, fragments, kind_of, read
from .parts import FORMATS, read_line, write_part
from .row_task import Columns, Report, RowTask

ROWS = 16_384
"""Rows of a part: 48 MiB of vectors of base."""

JOB, MANIFEST = "job.json", "manifest.jsonl"
Line = dict[str, Any]
Map = Callable[[Callable[[int], Line], Sequence[int]], Iterable[Line]]
"""`map`, or what an engine has in its place: results in any order."""


@dataclass(frozen=True)
class Summary:
    """What a run, and those before it, have done of a share: parts there, of them made now; rows,
    rows with an error, rows that were cut."""

    parts: int
    made: int
    rows: int
    errors: int
    truncated: int


@dataclass(frozen=True)
class Job:
    """See above. Picklable: files by their paths, the model by its folder and digest; a worker may
    stand in another folder."""

    out: str
    task: RowTask
    pieces: tuple[Fragment, ...]
    inputs: tuple[str, ...]
    names: tuple[str, ...]
    described: str
    id: str | None = None

    @classmethod
    def plan(
        cls,
        inputs: Sequence[str],
        out: str,
        task: RowTask,
        *,
        id: str | None = None,
        rows: int = ROWS,
        format: str = "parquet",
    ) -> Job:
        """Find the fragments of the inputs. task: an Embedder, or one of scorers.py; id: the column
        that is kept beside its values; rows: most of a part. A finished plan in `out` is taken
        where it is one of the same files. Raises OSError; ValueError for wrong inputs and for a
        folder with another job; SpaceError where that was made with another model.
        """
        files = check_plan(inputs, task, id, rows, format)
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; the parts need a folder")
        asked: Line = {
            "format": 1,
            **task.asked(),
            "id": id,
            "rows": rows,
            "parts": format,
            "inputs": files,
        }
        found = _known(folder, asked)
        if found is None:
            cut = [
                [number, f.first, f.count, *f.place]
                for number, path in enumerate(inputs)
                for f in fragments(str(path), rows, task.needed, id)
            ]
            found = asked | {"fragments": cut}
        described = json.dumps(found)
        digest = hashlib.sha256(described.encode()).hexdigest()[:8]
        paths = [str(path) for path in inputs]
        pieces, given, names = [], [], []
        for n, first, count, *place in found["fragments"]:
            pieces.append(Fragment(os.path.abspath(paths[n]), first, count, (place[0], place[1])))
            given.append(paths[n])
            names.append(f"{n:04d}-{_plain(paths[n])}-{first:010d}-{digest}.{format}")
        out = os.path.abspath(folder)
        return cls(out, task, tuple(pieces), tuple(given), tuple(names), described, id)

    @property
    def rows(self) -> int:
        return sum(piece.count for piece in self.pieces)

    def run(
        self,
        *,
        shard: tuple[int, int] = (1, 1),
        resume: bool = False,
        map: Map | None = None,
        report: Callable[[int, int, int], object] | None = None,
    ) -> Summary:
        """Make the parts of a share, all by default: the i-th of n takes every n-th fragment.

        resume: leave parts that are there. map: see Map; without it, one after the other. report:
        is told of rows and tokens that are done, and of all rows that will be (without map).
        Raises ValueError where parts are there and resume is not said, and for a wrong shard;
        OSError; what a fragment's reading raises.
        """
        i, n = shard
        if not 1 <= i <= n:
            raise ValueError(f"shard {i}/{n} is none of 1/{n} .. {n}/{n}")
        mine = range(len(self.pieces))[i - 1 :: n]
        there = {k for k in mine if (Path(self.out) / self.names[k]).is_file()}
        if there and not resume:
            raise ValueError(
                f"{self.out} has {len(there)} of the {len(mine)} parts already: --resume leaves "
                "them and makes the others"
            )
        missing = [k for k in mine if k not in there]
        self._begin()
        if map is None:
            left = sum(self.pieces[k].count for k in missing)
            tell = None if report is None else lambda rows, tokens: report(rows, tokens, left)
            made = [self.part(k, tell) for k in missing]
        else:
            made = list(map(self.part, missing))
        return self._finish(mine, made, MANIFEST if n == 1 else f"manifest-{i}-of-{n}.jsonl")

    def part(self, k: int, report: Report | None = None) -> Line:
        """Make the k-th part, whether it is there or not; its line of the manifest."""
        piece = self.pieces[k]
        rows = read(piece, (self.task.column, *self.task.beside), self.id)
        found = self.task.columns(self.task.rows_of(rows.cells), report)
        # Why a row could not be read says more than that it is no text.
        errors = [rows.errors.get(i, error) for i, error in enumerate(found.errors)]
        found = Columns(found.values, found.truncated, errors, found.tokens)
        path = Path(self.out) / self.names[k]
        return write_part(path, piece, rows, self.task, found, self.id)

    def _begin(self) -> None:
        """job.json, where it is not there. ValueError where another job came first."""
        path = Path(self.out) / JOB
        if not path.is_file():
            with replacing(path) as stream:
                stream.write(self.described.encode())
        if path.read_bytes() != self.described.encode():
            raise ValueError(f"{path} is that of another job, which was begun at the same time")

    def _finish(self, mine: Sequence[int], made: Sequence[Line], name: str) -> Summary:
        """Write the manifest of a share, its lines in the order of the fragments."""
        path = Path(self.out) / name
        known = _manifest(path) | {line["part"]: line for line in made}
        lines = []
        for k in mine:
            part = Path(self.out) / self.names[k]
            line = known.get(part.name)
            if line is None or line["bytes"] != part.stat().st_size:
                line = read_line(part)
            lines.append({"input": self.inputs[k]} | line)
        with replacing(path) as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        # What a killed run was writing; a part made again takes its own along, but for one that was
        # made by a run that was killed right behind.
        remove_abandoned(Path(self.out), f".*.{TOKEN}.part")
        counts = {key: sum(line[key] for line in lines) for key in ("rows", "errors", "truncated")}
        return Summary(parts=len(lines), made=len(made), **counts)


def check_plan(
    inputs: Sequence[str], task: RowTask | None, id: str | None, rows: int, format: str
) -> list[Line]:
    """The inputs as job.json has them. Raises ValueError, OSError."""
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    if type(rows) is not int or rows < 1:
        raise ValueError(f"rows must be an int of at least 1, not {rows!r}")
    if task is not None and id in ("row", task.out, "truncated", "error"):
        raise ValueError(f"id is {id!r}, which is the name of another column of the parts")
    if not inputs:
        raise ValueError("inputs is empty: there is no file to read")
    out = []
    for path in map(str, inputs):
        kind_of(path)
        facts = Path(path).stat()
        out.append({"path": path, "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns})
    return out


def _known(folder: Path, asked: Line) -> Line | None:
    """The plan in a folder, None where there is none. ValueError, SpaceError for another one."""
    path = folder / JOB
    if not path.is_file():
        return None
    found: Line = read_json(path)
    for name, value in asked.items():
        there = found.get(name)
        if there == value:
            continue
        if name == "space" and isinstance(there, str):
            made, now = Space.parse(there), Space.parse(value)
            raise SpaceError(
                f"the parts in {folder} were made in another embedding space "
                f"({', '.join(made.differences(now))}: {there} there, {value} here); name another "
                "folder"
            )
        if name == "inputs" and isinstance(there, list):
            changed = [new["path"] for old, new in zip(there, value, strict=False) if old != new]
            what = f"{changed[0]} is another file, or was changed" if changed else "other inputs"
            raise ValueError(f"{path} is that of another job: {what}; name another folder")
        raise ValueError(
            f"{path} is that of another job: {name} is {there!r} there, {value!r} here; name "
            "another folder"
        )
    return found


def _manifest(path: Path) -> dict[str, Line]:
    """Part -> line; what cannot be read is left to be made again."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return {line["part"]: {k: x for k, x in line.items() if k != "input"} for line in lines}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _plain(path: str) -> str:
    """The stem of a file's name, of letters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", Path(path).stem)[:40] or "input"
