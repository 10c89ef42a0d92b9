"""What the verbs read: files and streams in four formats, their ids, and what is refused."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import Stdin

from refimpl.cli import main
from refimpl.files import formats
from refimpl.models.model import BUNDLED

pytest.importorskip("tokenizers")


@pytest.fixture
def read(run, tmp_path):
    """(index, id, text) per record, and {index: error}, of bytes in a file of that name."""

    def call(name, content, *options, code=0):
        path = tmp_path / name
        path.write_bytes(content)
        records, err = run("tokenize", "--no-special", "--file", path, *options, code=code)
        told = {e["index"]: e["error"] for e in map(json.loads, err.splitlines())}
        return [(r["index"], r.get("id"), spelled(r)) for r in records], told

    return call


def spelled(record):
    """The text of a record: the bundled vocabulary is byte-level."""
    from refimpl import Tokenizer

    return Tokenizer.from_folder(BUNDLED).decode(record["ids"])


# -- formats --------------------------------------------------------------------------------------


def test_csv_with_quotes_line_breaks_and_windows_ends(read):
    content = b'id,text,n\r\n7,"He said ""hi"", then\r\nleft",1\r\n\r\n8,b,2\r\n8,"",3'
    found, told = read("a.csv", content)
    assert found == [(0, "7", 'He said "hi", then\r\nleft'), (1, "8", "b"), (2, "8", "")]
    assert told == {}


def test_columns_and_ids_can_be_named(read):
    content = b"doc,body\nx,a\ny,b\n"
    expected = [(0, "x", "a"), (1, "y", "b")]
    assert read("a.csv", content, "--column", "body", "--id", "doc") == (expected, {})
    lines = b'{"doc": 1, "body": "a", "text": "no"}\n{"doc": "1", "body": "b"}\n{"doc": 2}\n'
    found, told = read("a.jsonl", lines, "--field", "body", "--id", "doc", code=3)
    assert found == [(0, 1, "a"), (1, "1", "b")]
    assert "\"body\" is missing; this line has ['doc']" in told[2]


def test_only_column_is_the_text(read):
    assert read("a.csv", b'sentence\n"a, b"\n') == ([(0, None, "a, b")], {})


def test_empty_columns_that_a_spreadsheet_leaves_are_no_error(read):
    expected = [(0, "1", "a"), (1, "2", "b")]
    assert read("a.csv", b"id,text,,\n1,a,,\n2,b,,,,\n") == (expected, {})
    found, told = read("a.csv", b"id,text\n1,a,,\n2,b,,c\n", code=3)
    assert found == expected[:1] and told == {1: "line 3: 4 columns, but the header has 2"}


def test_table_without_a_header(read):
    found, _ = read("a.csv", b"7,a\n8,b\n", "--no-header", "--column", "2", "--id", "1")
    assert found == [(0, "7", "a"), (1, "8", "b")]


def test_other_delimiters(read):
    assert read("a.csv", b"id;text\n1;x,y\n", "--delimiter", ";") == ([(0, "1", "x,y")], {})
    quoted = b'id\ttext\n1\t"x\ty"\n'
    options = ("--input", "csv", "--delimiter", "tab")
    assert read("a.tsv", quoted, *options) == ([(0, "1", "x\ty")], {})


def test_tsv_has_no_quotes_and_no_line_breaks(read):
    content = b'id\ttext\r\n1\t"Hello" he said\r\n2\t"open\r\n\r\n3\t\r\n'
    expected = [(0, "1", '"Hello" he said'), (1, "2", '"open'), (2, "3", "")]
    assert read("a.tsv", content) == (expected, {})


def test_bad_rows_are_told_with_their_line_and_the_others_go_on(read):
    content = b"\xef\xbb\xbfid,text\n1,caf\xe9\n2,ok\n3,nul\0here\n4,a,b\n5\n"
    content += b'6,"x"y\n7,last\n8,"open\n9,z\n'
    found, told = read("a.csv", content, code=3)
    assert found == [(1, "2", "ok"), (6, "7", "last")]
    assert told == {
        0: "line 2: not UTF-8 in column 2, after 'caf'",
        2: told[2],  # where the csv package refuses NUL itself, it names no column
        3: "line 5: 3 columns, but the header has 2",
        4: "line 6: 1 column, but the header has 2",
        5: "line 7: ',' expected after '\"'; a quote within quotes is doubled",
        7: "line 9: a quote that opens here is never closed (2 lines to the end of the file)",
    }
    assert told[2].startswith("line 4: a NUL character")


@pytest.mark.parametrize("content", [b"", b"id,text\n", b"\xef\xbb\xbf", b"\n\n"])
def test_table_without_rows_gives_none(read, content):
    assert read("a.csv", content) == ([], {})


def test_text_keeps_nul_and_blank_lines(read):
    found, _ = read("a.txt", b"a\0b\r\n\r\n c \r\n")
    assert found == [(0, None, "a\0b"), (1, None, ""), (2, None, " c ")]


def test_jsonl_has_no_rows_in_blank_lines_and_names_lines_of_the_file(read):
    lines = (
        b'\n{"text": "a"}\r\n \t\r\n{"text": "b\n[1]\n\n{"text": "\xff"}\n{} {}\n{"id": 5}\n"c"\n\n'
    )
    found, told = read("a.jsonl", lines, code=3)
    assert found == [(0, None, "a"), (6, None, "c")]
    assert told == {
        1: "line 4: not JSON: Unterminated string starting at column 10",
        2: "line 5: expected a JSON object, got list",
        3: "line 7: not UTF-8 at byte 10",
        4: "line 8: not JSON: Extra data at column 4",
        5: """line 9: the field "text" is missing; this line has ['id']""",
    }
    assert read("a.txt", b"\n\xff\n", code=3)[1] == {1: "line 2: not UTF-8 at byte 0"}


def test_huge_lines_are_read(read):
    long = "a" * 300_000
    options = ("--max-length", 3, "--truncate", "silent")
    for name, content in (("a.csv", f'text\n"{long}"\nb'), ("a.jsonl", json.dumps({"text": long}))):
        found, told = read(name, content.encode(), *options)
        assert len(found[0][2]) > 0 and told == {}


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@given(st.lists(st.tuples(cells, cells), max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_package_writes_is_read_back(rows, end):
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows([("id", "text"), *rows])
    raw = iter(out.getvalue().encode().splitlines(keepends=True))
    names, lines = formats.table_rows(raw, "csv", ",", True)
    assert names == ["id", "text"]
    assert [(x.error, x.fields) for x in lines] == [
        (None, dict(zip(names, r, strict=True))) for r in rows
    ]


@given(st.binary(max_size=60), st.sampled_from(["csv", "tsv"]), st.booleans())
def test_no_bytes_are_an_exception(content, kind, header):
    raw = iter(content.splitlines(keepends=True))
    try:
        names, lines = formats.table_rows(raw, kind, "\t", header)
    except ValueError as error:
        assert str(error).startswith("the header, line ")
        return
    found = list(lines)
    assert [line.index for line in found] == list(range(len(found)))
    assert all((line.error is None) == (list(line.fields) == names) for line in found)


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def refused(capsys, monkeypatch):
    """The message of a command that ends with 2, before any model is looked for."""

    def call(*argv, stdin=b""):
        monkeypatch.setattr("sys.stdin", Stdin(stdin))
        with pytest.raises(SystemExit) as ended:
            main([*map(str, argv), "--model", "no/such-model"])
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        return err.splitlines()[-1]

    return call


@pytest.mark.parametrize("verb", ["embed", "fill-mask", "classify", "ner", "tokenize"])
def test_name_of_a_file_is_no_text(refused, tmp_path, verb):
    path = tmp_path / "my texts.jsonl"
    path.write_text("{}")
    said = f"modernbert {verb} --model no/such-model --file '{path}'"
    assert said in refused(verb, path)
    assert said in refused(verb, path, path)


def test_name_of_a_file_is_no_document_question_or_query(refused, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a")
    kept = "--model no/such-model"
    assert f"rerank {kept} q --file {path}" in refused("rerank", "q", path)
    assert f"rerank {kept} - --file {path}" in refused("rerank", path)
    for name in ("--context", "--context-file"):
        assert f"answer {kept} {name} c --file {path}" in refused("answer", path, name, "c")
    said = refused("search", "--index", "x.npz", path)
    assert f"search {kept} --index x.npz --file {path}" in said


@pytest.mark.parametrize("name", ["texts.csv", "a/b.tsv", "docs.jsonl", "NOTES.TXT"])
def test_name_of_a_file_that_is_not_there_is_no_text(refused, name):
    said = refused("embed", name)
    assert f"'{name}' is no file here" in said and f"--model no/such-model --file {name}" in said
    assert f"rerank --model no/such-model q --file {name}" in refused("rerank", "q", name)


@pytest.mark.parametrize("texts", [["see notes.txt"], ["a.csv", "b.csv"], ["csv"], [".csv"]])
def test_what_may_be_a_text_is_one(run, texts):
    assert len(run("tokenize", *texts)[0]) == len(texts)
    assert len(run("tokenize", stdin=b"texts.csv")[0]) == 1


def test_name_of_a_file_among_texts_is_a_text(run, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    assert len(run("tokenize", path, "b")[0]) == 2
    assert len(run("tokenize", tmp_path)[0]) == 1  # a folder is nothing that could be read


@pytest.mark.parametrize(
    ("first", "kind"), [(b"id,text", "csv"), (b'"text";label', "csv"), (b"id\ttitle", "tsv")]
)
def test_header_on_stdin_is_no_text(refused, first, kind):
    assert f"say --input {kind}" in refused("embed", "-", stdin=first + b"\r\n1,2\n")


@pytest.mark.parametrize("first", ["text, and more", "one,two", "id", "id is 3, text is 4"])
def test_text_with_commas_is_text(run, first):
    (record,), _ = run("tokenize", "--no-special", stdin=first.encode())
    assert spelled(record) == first
    (record,), _ = run("tokenize", "--no-special", "--input", "text", stdin=b"id,text")
    assert spelled(record) == "id,text"


def test_said_columns_make_stdin_a_table(run):
    (record,), _ = run("tokenize", "--no-special", "--column", "body", stdin=b"id,body\n7,a\n")
    assert (record["id"], spelled(record)) == ("7", "a")


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("a.csv", b"a,b\n1,2\n", [], "no column 'text'; its columns: ['a', 'b']; say which with"),
        ("a.csv", b"id;text\n", [], "say with --delimiter"),
        (
            "a.csv",
            b"id,text\n",
            ["--id", "doc"],
            "no column 'doc'; its columns: ['id', 'text']; say which with --id",
        ),
        ("a.csv", b"id,text,text\n", [], "several columns 'text'"),
        ("a.csv", b"id,id,text\n", [], "several columns 'id'"),
        ("a.txt", b"a\n", ["--column", "text"], "need fields"),
        ("a.csv", b"text\n", ["a text"], "give texts or --file, not both"),
        ("a.csv", b"text\n", ["-"], "- reads stdin"),
        ("a.csv", b"text\n", ["--output", "a.xyz"], "its suffix is none of .jsonl"),
        ("a.csv", b"text\n", ["--output", "a.npz"], "its suffix is none of .jsonl"),
        ("a.csv", b"text\n", ["--output", "a.npz", "--format", "jsonl"], "means npz, not jsonl"),
        ("a.csv", b"text\n", ["--delimiter", "ab"], "must be one character"),
    ],
)
def test_wrong_usage_is_told_before_the_model_is_looked_for(
    refused, tmp_path, name, content, options, said
):
    (tmp_path / name).write_bytes(content)
    assert said in refused("tokenize", "--file", tmp_path / name, *options)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "id,text\n".encode("utf-16"), "UTF-16 text, not UTF-8 text; iconv"),
        ("a.csv.gz", b"\x1f\x8b\x08\0", "zcat FILE | modernbert tokenize -"),
        ("a.xlsx", b"PK\x03\x04\0", "a zip archive"),
        ("a.parquet", b"PAR1\0", "Parquet"),
        ("a.json", b'[\n{"text": "a"}]\n', "one JSON array; jq -c '.[]'"),
        ("a.csv", b'id,"text\n', "the header, line 1: a quote that opens here"),
    ],
)
def test_what_is_no_such_file_is_one_line(run, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    _, err = run("tokenize", "--file", tmp_path / name, code=1)
    assert said in err and str(tmp_path / name) in err and err.count("\n") == 1


def test_missing_file_is_one_line(run, tmp_path):
    _, err = run("tokenize", "--file", tmp_path / "none", "--model", "no/such-model", code=1)
    assert "No such file" in err and err.count("\n") == 1


# -- ids ------------------------------------------------------------------------------------------


def test_ids_stand_in_every_record_and_table(run, folders):
    lines = b'{"id": "x9", "text": "[MASK]", "question": "q", "context": "c"}\n'
    for verb, *argv in (
        ("fill-mask", "--top-k", 1),
        ("classify", "--model", folders["classify"]),
        ("ner", "--model", folders["ner"], "--ignore-labels", ""),
        ("answer", "--model", folders["answer"], "--impossible"),
        ("embed", "--model", folders["embed"]),
        ("tokenize",),
    ):
        (record,), _ = run(verb, *argv, "-", stdin=lines)
        assert record["id"] == "x9", verb
        out, _ = run(verb, *argv, "-", "--format", "table", stdin=lines, parse=False)
        assert all(row.startswith("x9 ") for row in out.splitlines()[1:]), verb


def test_reranked_documents_keep_their_lines_and_ids(run, folders):
    lines = b'{"id": "a", "text": "one"}\n{bad\n{"id": "c", "text": "two words"}\n'
    model = ("--model", folders["rerank"])
    (record,), err = run("rerank", *model, "q", "-", stdin=lines, code=3)
    found = {(r["corpus_id"], r["id"], r["text"]) for r in record["results"]}
    assert found == {(0, "a", "one"), (2, "c", "two words")}
    assert json.loads(err)["index"] == 1
    line = {"query": "q", "documents": ["one", {"id": "c", "text": "two words"}]}
    (nested,), _ = run("rerank", *model, "-", stdin=json.dumps(line).encode())
    assert [r["score"] for r in nested["results"]] == [r["score"] for r in record["results"]]
    assert {(r["corpus_id"], r.get("id")) for r in nested["results"]} == {(0, None), (1, "c")}
    for bad, said in (
        ([3], "documents[0]: the field"),
        (["a", {"id": 1}], "documents[1]: the fie"),
    ):
        line["documents"] = bad
        _, err = run("rerank", *model, "-", stdin=json.dumps(line).encode(), code=3)
        assert said in json.loads(err)["error"]
