"""Jobs of classify, ner and rerank: cells are the in-process results; killed, they are resumed."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from support.kills import digests, killed_and_resumed
from support.text_folders import some_texts

import refimpl
from refimpl.bulk import Classifier, Embedder, Job, Ranker, Scorer, Tagger
from refimpl.cli import main

pytestmark = pytest.mark.extras
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pd = pytest.importorskip("pandas")

TEXTS = some_texts(60)
QUERY = "a cat"
GROUPS = [[*TEXTS[i : i + i % 7]] for i in range(60)]  # of 0 to 6 documents
ROWS = 11
BAD = {7: "{bad", 20: '{"id": 20}', 33: '{"id": 33, "text": 5, "query": 5}'}


def lines(given):
    """JSONL of these rows, some of them replaced by bad ones."""
    good = [json.dumps({"id": i} | row) for i, row in enumerate(given)]
    return "\n".join(BAD.get(i, line) for i, line in enumerate(good))


def classified(folder, rows, **options):
    return refimpl.pipeline("text-classification", folder)(rows, **({"top_k": None} | options))


def ranked(folder, rows, top_k=None):
    reranker = refimpl.Reranker(folder)
    return [reranker.rank(row["query"], row["documents"], top_k) for row in rows]


TEXT = [{"text": text} for text in TEXTS]
PAIRS = [{"text": text, "text_pair": TEXTS[-i] if i % 2 else None} for i, text in enumerate(TEXTS)]
GIVEN = [{"query": text, "documents": GROUPS[i]} for i, text in enumerate(TEXTS)]
NER = "token-classification"
# Name -> arguments, rows, and what the task gives in-process for some of them.
CASES = {
    "classify": (["classify"], TEXT, classified),
    "pairs": (
        ["classify", "--top-k", "2", "--function", "sigmoid"],
        PAIRS,
        lambda folder, rows: classified(folder, rows, top_k=2, function_to_apply="sigmoid"),
    ),
    "ner": (
        ["ner"],
        TEXT,
        lambda folder, rows: refimpl.pipeline(NER, folder, aggregation_strategy="simple")(
            [row["text"] for row in rows]
        ),
    ),
    "tokens": (
        ["ner", "--aggregation", "none", "--ignore-labels", ""],
        TEXT,
        lambda folder, rows: refimpl.pipeline(NER, folder, ignore_labels=[""])(
            [row["text"] for row in rows]
        ),
    ),
    "pieces": (
        ["ner", "--aggregation", "first", "--stride", "2", "--max-length", "9"],
        TEXT,
        lambda folder, rows: refimpl.pipeline(NER, folder, aggregation_strategy="first")(
            [row["text"] for row in rows], stride=2, max_length=9
        ),
    ),
    "rerank": (["rerank", "-"], GIVEN, ranked),
    "best": (["rerank", "--top-k", "2", "-"], GIVEN, lambda folder, rows: ranked(folder, rows, 2)),
    "query": (
        ["rerank", QUERY],
        TEXT,
        lambda folder, rows: (
            refimpl.Reranker(folder).predict([(QUERY, row["text"]) for row in rows]).tolist()
        ),
    ),
}


@pytest.fixture
def case(request, heads, tmp_path):
    """The arguments of a job without its folder, its rows, its model and what it must give."""
    argv, rows, expected = CASES[request.param]
    path, folder = tmp_path / "rows.jsonl", heads[argv[0]]
    path.write_text(lines(rows))
    said = ["--model", folder, "--id", "id", "--part-rows", str(ROWS)]
    return [*argv, str(path), *said], rows, folder, expected


def table_of(out):
    return pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("0*.parquet"))])


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_cells_are_the_in_process_results(case, tmp_path, capsys):
    argv, rows, folder, expected = case
    out = tmp_path / "out"
    assert main([*argv, "--out", str(out)]) == 3  # there are bad rows
    err = capsys.readouterr().err
    assert "6 parts of 60 rows" in err and "3 bad rows" in err and "es1-" in err
    table = table_of(out)
    assert table["row"].to_pylist() == list(range(60))
    errors = {i: e for i, e in enumerate(table["error"].to_pylist()) if e is not None}
    assert sorted(errors) == sorted(BAD)
    assert "not JSON" in errors[7] and "missing" in errors[20] and "int, not text" in errors[33]
    good = [i for i in range(60) if i not in BAD]
    found = table[next(name for name in ("results", "score") if name in table.column_names)]
    assert found.take(good).to_pylist() == expected(folder, [rows[i] for i in good])
    assert found.is_null().to_pylist() == [i in BAD for i in range(60)]
    assert table["id"].to_pylist() == [None if i == 7 else str(i) for i in range(60)]
    for shard in ("2/3", "1/3", "3/3"):
        assert main([*argv, "--out", str(tmp_path / "shards"), "--shard", shard]) in (0, 3)
    assert digests(tmp_path / "shards") == digests(out)
    assert main([*argv, "--out", str(out), "--resume"]) == 3
    assert "0 made now" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["pairs", "ner", "rerank", "query"], indirect=True)
def test_what_is_killed_is_resumed_to_the_same_bytes(case, tmp_path):
    argv = case[0]
    assert main([*argv, "--out", str(tmp_path / "done")]) == 3
    killed_and_resumed(argv, digests(tmp_path / "done"), tmp_path, kills=2)


def test_what_is_cut_is_counted_or_an_error(heads, tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"query": "a", "documents": ["a", "the cat sat on a mat " * 3, "b"]})
    )
    said = ["rerank", "-", str(path), "--model", heads["rerank"], "--max-length", "12"]
    assert main([*said, "--out", str(tmp_path / "cut")]) == 0
    assert "1 row cut" in capsys.readouterr().err
    assert table_of(tmp_path / "cut")["truncated"].to_pylist()[0] > 0
    assert main([*said, "--out", str(tmp_path / "none"), "--truncate", "error"]) == 3
    assert table_of(tmp_path / "none")["error"][0].as_py().startswith("documents[1] has ")
    done = Tagger(heads["ner"], max_length=9, truncate="error").columns(["a", "the cat sat " * 9])
    assert done.errors[0] is None and "the text has" in done.errors[1]


def test_tables_bring_pairs_and_lists_of_documents(heads, tmp_path):
    """A CSV file with a column text_pair; a Parquet file with a column of lists."""
    path = tmp_path / "pairs.csv"
    path.write_text("text,text_pair\n" + "".join(f'"{t}","{t[::-1]}"\n' for t in TEXTS[:9]))
    Job.plan([str(path)], str(tmp_path / "csv"), Classifier(heads["classify"])).run()
    pairs = [{"text": text, "text_pair": text[::-1]} for text in TEXTS[:9]]
    found = table_of(tmp_path / "csv")["results"].to_pylist()
    assert found == classified(heads["classify"], pairs)
    path = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"query": [*TEXTS, None], "documents": [*GROUPS, None]}), path)
    job = Job.plan([str(path)], str(tmp_path / "tables"), Ranker(heads["rerank"]), rows=ROWS)
    with ThreadPoolExecutor(2) as pool:
        assert job.run(map=pool.map).errors == 1
    assert table_of(tmp_path / "tables")["results"].to_pylist() == [
        *ranked(heads["rerank"], GIVEN), None
    ]  # fmt: skip
    assert table_of(tmp_path / "tables")["error"][60].as_py() == (
        "the query must be a str, not NoneType"
    )


def test_batches_of_engines_have_the_same_cells(heads):
    does = Classifier(heads["classify"], top_k=1)
    expected = classified(heads["classify"], PAIRS, top_k=1)
    columns = {name: [row[name] for row in PAIRS] for name in ("text", "text_pair")}
    found = does({name: np.array(cells, object) for name, cells in columns.items()})
    assert found["results"].tolist() == expected and set(found["error"]) == {None}
    assert does(pa.table(columns)).column("results").to_pylist() == expected
    frame = does(pd.DataFrame(columns))
    assert [list(cell) for cell in frame["results"]] == expected
    alone = does(pa.table({"text": TEXTS}))
    assert alone.column("results").to_pylist() == classified(heads["classify"], TEXT, top_k=1)
    ranks = Ranker(heads["rerank"])
    frame = pd.DataFrame({"query": TEXTS, "documents": [np.array(g, object) for g in GROUPS]})
    assert [list(cell) for cell in ranks(frame)["results"]] == ranked(heads["rerank"], GIVEN)


def test_another_job_is_refused(heads, tmp_path, folder):
    path, out = tmp_path / "a.jsonl", str(tmp_path / "out")
    path.write_text(lines(TEXT))
    first = Classifier(heads["classify"])
    Job.plan([str(path)], out, first).run()

    def refused(said, task, error=ValueError):
        with pytest.raises(error, match=said):
            Job.plan([str(path)], out, task)

    refused("top_k is None there, 1 here", replace(first, top_k=1))
    refused("space .pooling", replace(first, function="none", space=""), refimpl.SpaceError)
    refused("task is 'classify' there, 'rerank' here", Scorer(heads["rerank"], query="a"))
    refused("task is 'classify' there, 'embed' here", Embedder(folder))
    with pytest.raises(refimpl.SpaceError, match="this Classifier .* weights"):
        replace(first, folder=heads["rerank"]).columns([("a", None)])
    with pytest.raises(ValueError, match="stride needs an aggregation_strategy"):
        Tagger(heads["ner"], aggregation="none", stride=2)
    with pytest.raises(ValueError, match="needs a model with one label; .* has 3"):
        Ranker(heads["classify"])
    with pytest.raises(ValueError, match="function_to_apply must be one of"):
        Classifier(heads["classify"], function="tanh")
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(ValueError, match="plain lines, which have no 'documents'"):
        Job.plan([str(tmp_path / "a.txt")], str(tmp_path / "x"), Ranker(heads["rerank"]))


def test_wrong_usage_is_told_before_a_model_is_loaded(tmp_path, capsys):
    def told(said, *argv):
        with pytest.raises(SystemExit) as stopped:
            main([*argv])
        assert stopped.value.code == 2 and said in capsys.readouterr().err

    told("--resume needs --out FOLDER", "classify", "a", "--model", "x", "--resume")
    told("--out needs the names of files", "rerank", "a", "--model", "x", "--out", "y")
    told("--batch-size goes without --out", "ner", "a.csv", "--out", "x", "--batch-size", "4")
    told("are scored, not ordered", "rerank", "a", "b.csv", "--model", "x", "--out", "y",
         "--top-k", "1")  # fmt: skip
    for verb in (["classify"], ["ner"], ["rerank", "-"]):
        assert main([*verb, "a.csv", "--model", "x", "--out", str(tmp_path / "x")]) == 1
        assert "a.csv" in capsys.readouterr().err and not (tmp_path / "x").exists()
