"""Fragments: every row of a file is in one of them, and reads the same whatever they are cut to."""

import json
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.bulk.inputs import Fragment, fragments, read
from refimpl.files.formats import table_rows

pytestmark = pytest.mark.extras


def cut(path, rows, column="text", id=None):
    """All texts, errors by row and ids, read fragment by fragment, the last one first."""
    found = fragments(str(path), rows, (column,), id)
    assert [f.first for f in found] == [0, *(f.first + f.count for f in found)][:-1]
    assert all(1 <= f.count <= rows for f in found)
    parts = {f.first: read(f, (column,), id) for f in reversed(found)}
    texts = list(chain.from_iterable(parts[f.first].cells[column] for f in found))
    errors = {f.first + i: why for f in found for i, why in parts[f.first].errors.items()}
    ids = [x for f in found for x in parts[f.first].ids.to_pylist()] if id else None
    return texts, errors, ids


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 10**6])
def test_rows_do_not_depend_on_the_cut(files, rows):
    for path in files:
        assert cut(path, rows, id="id") == cut(path, 10**6, id="id")


def test_bad_rows_keep_their_places(files):
    texts, errors, ids = cut(files[0], 13, id="id")
    assert len(texts) == 305 and sorted(errors) == [40, 41, 42, 43]
    assert "not JSON" in errors[40] and "not text" in errors[41] and "missing" in errors[42]
    assert texts[44] == "a text" and ids[41:43] == ["null", "7"] and ids[39] == "39"
    texts, errors, ids = cut(files[1], 13, id="id")
    assert len(texts) == 153 and sorted(errors) == [20, 21]
    assert texts[22] == "" and texts[0].endswith(', "so"\n0')


CELL = st.text(st.sampled_from('a",\n\r é'), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), max_size=20), st.integers(1, 5), st.booleans())
def test_csv_is_cut_between_its_rows(tmp_path_factory, cells, rows, broken):
    def quoted(cell):
        return '"' + cell.replace('"', '""') + '"'

    content = "id,text\r\n" + "".join(f"{quoted(a)},{quoted(b)}\r\n" for a, b in cells)
    content += 'x,"never closed\na\n' if broken else ""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(content.encode())
    with open(path, "rb") as stream:
        lines = list(table_rows(iter(stream), "csv", ",", True)[1])
    texts, errors, _ = cut(path, rows)
    assert texts == [line.fields.get("text") for line in lines]
    assert sorted(errors) == [i for i, line in enumerate(lines) if line.error is not None]
    assert len(lines) == len(cells) + broken


@given(st.binary(max_size=60), st.integers(1, 3))
def test_any_bytes_are_rows(tmp_path_factory, content, rows):
    root = tmp_path_factory.mktemp("bytes")
    for name in ("a.jsonl", "a.txt", "a.tsv", "a.csv"):
        path = root / name
        header = {"a.tsv": b"text\tx\n", "a.csv": b"text,x\n"}.get(name, b"")
        path.write_bytes(header + content)
        assert cut(path, rows) == cut(path, 100)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables_are_cut_within_their_units(tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"text {i}" if i % 7 else None for i in range(50)]
    table = pa.table({"other": range(50), "key": [i * i for i in range(50)], "body": texts})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=20)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    assert [f.count for f in fragments(str(path), 8, ("body",))] == [8, 8, 4, 8, 8, 4, 8, 2]
    for rows in (1, 8, 20, 99):
        assert cut(path, rows, "body", "key") == (texts, {}, [i * i for i in range(50)])


def test_wrong_files_are_refused(tmp_path, files):
    def refused(said, path, *names):
        with pytest.raises(ValueError, match=said):
            fragments(str(path), 5, names[:1], *names[1:])

    refused("suffix is none of .jsonl", tmp_path / "a.xlsx", "text")
    refused(r"no column 'body'; its columns: \['id', 'text'\]", files[1], "body")
    for kind in ("parquet", "arrow"):
        (tmp_path / f"a.{kind}").write_bytes(b"PAR1 and nothing else")
        refused(f"no {kind} file", tmp_path / f"a.{kind}", "text")
    (tmp_path / "a.txt").write_text("a\n")
    refused("plain lines, which have no 'id'", tmp_path / "a.txt", "text", "id")
    with pytest.raises(OSError):
        fragments(str(tmp_path / "none.csv"), 5, ("text",))


def test_a_file_that_was_changed_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": str(i)}) + "\n" for i in range(9)))
    (found,) = fragments(str(path), 100, "text")
    path.write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match="1 rows where 9 were"):
        read(found, "text")
    assert isinstance(found, Fragment)
