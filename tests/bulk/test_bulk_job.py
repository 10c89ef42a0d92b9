"""Jobs: the same bytes from every way of running one, killed or not; other jobs are refused."""

import json
import os
import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from support.kills import digests, killed_and_resumed

import refimpl
from refimpl.bulk import Embedder, Job
from refimpl.bulk.inputs import fragments, read
from refimpl.cli import main

pytestmark = pytest.mark.extras
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

KILLS = 8  # of the default run; 100 each as a soak
ROWS = 37


def plan(files, out, folder, **options):
    return Job.plan(files, str(out), Embedder(folder), **({"id": "id", "rows": ROWS} | options))


def manifest(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture(scope="module")
def done(files, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    summary = plan(files, out, folder).run()
    return out, summary, digests(out)


def test_parts_hold_every_row_once_and_in_order(done, files, folder):
    out, summary, parts = done
    encoder = refimpl.SentenceEncoder(folder)
    lines = manifest(out / "manifest.jsonl")
    assert {line["part"]: line["sha256"] for line in lines} == parts
    assert (summary.rows, summary.errors) == (458, 6) and summary.made == summary.parts == len(
        parts
    )
    for path in files:
        tables = [pq.read_table(out / x["part"]) for x in lines if x["input"] == path]
        table = pa.concat_tables(tables)
        (whole,) = fragments(path, 10**6, ("text",), "id")
        rows = read(whole, ("text",), "id")
        assert table["row"].to_pylist() == list(range(whole.count))
        assert table["id"].to_pylist() == rows.ids.to_pylist()
        errors = {i: e for i, e in enumerate(table["error"].to_pylist()) if e is not None}
        assert errors == rows.errors
        good = [i for i in range(whole.count) if i not in errors]
        vectors = encoder.encode([rows.cells["text"][i] for i in good])
        found = table["embedding"].take(good).combine_chunks().flatten().to_numpy()
        assert np.array_equal(found.reshape(-1, 32), vectors)
        assert table["embedding"].is_null().to_pylist() == [i in errors for i in range(whole.count)]


def test_command_gives_the_same_bytes(done, files, folder, tmp_path, capsys):
    out = tmp_path / "out"
    said = ["embed", *files, "--model", folder, "--id", "id", "--part-rows", str(ROWS)]
    assert main([*said, "--out", str(out)]) == 3  # there are bad rows
    assert digests(out) == done[2]
    err = capsys.readouterr().err
    assert "458 rows" in err and "6 bad rows" in err and "es1-" in err
    for shard in ("2/3", "1/3", "3/3"):
        assert main([*said, "--out", str(tmp_path / "shards"), "--shard", shard]) in (0, 3)
    assert digests(tmp_path / "shards") == done[2]
    lines = [x for p in (tmp_path / "shards").glob("manifest-*") for x in manifest(p)]
    assert sorted(x["part"] for x in lines) == sorted(done[2])
    assert main([*said, "--out", str(out)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*said, "--out", str(out), "--resume"]) == 3
    assert "0 made now" in capsys.readouterr().err


def test_threads_and_processes_give_the_same_bytes(done, files, folder, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        plan(files, tmp_path / "threads", folder).run(map=pool.map)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        plan(files, tmp_path / "processes", folder).run(map=pool.map)
    for name in ("threads", "processes"):
        assert digests(tmp_path / name) == done[2]
        assert (tmp_path / name / "manifest.jsonl").read_bytes() == (
            done[0] / "manifest.jsonl"
        ).read_bytes()


def test_a_worker_may_stand_elsewhere(folder, tmp_path, monkeypatch):
    """A plan names files as they were named, and finds them from anywhere."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a cat\na mat\n")
    job = Job.plan(["a.txt"], "out", Embedder(folder), rows=1)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert job.run().rows == 2
    assert [line["input"] for line in manifest(tmp_path / "out/manifest.jsonl")] == ["a.txt"] * 2


def test_dask_gives_the_same_bytes(done, files, folder, tmp_path):
    dask = pytest.importorskip("dask")

    def mapped(scheduler):
        return lambda part, which: dask.compute(
            [dask.delayed(part)(k) for k in which], scheduler=scheduler, num_workers=2
        )[0]

    for scheduler in ("threads", "processes"):
        plan(files, tmp_path / scheduler, folder).run(map=mapped(scheduler))
        assert digests(tmp_path / scheduler) == done[2]


def test_a_job_is_resumed_where_it_stands(done, files, folder, tmp_path):
    job = plan(files, tmp_path, folder)
    some = random.Random(0).sample(range(len(job.pieces)), 5)
    job.run()
    for k in some:
        (tmp_path / job.names[k]).unlink()
    (tmp_path / "manifest.jsonl").write_text('{"part": "cut of')
    # Of a run that was killed while it wrote a part which another one has made since.
    (tmp_path / f".{job.names[0]}.0123abcd.part").write_bytes(b"half")
    made = []
    summary = plan(files, tmp_path, folder).run(
        resume=True, map=lambda part, which: map(part, made.extend(which) or which)
    )
    assert sorted(made) == sorted(some) and summary.made == 5
    assert not list(tmp_path.glob(".*"))
    assert digests(tmp_path) == done[2]
    assert manifest(tmp_path / "manifest.jsonl") == manifest(done[0] / "manifest.jsonl")


def test_an_arrow_part_says_what_its_parquet_twin_says(done, files, folder, tmp_path):
    job = plan(files, tmp_path, folder, format="arrow")
    job.run()
    for k, name in enumerate(job.names):
        table = pa.ipc.open_file(str(tmp_path / name)).read_all()
        twin = sorted(done[2])[k]
        assert table.equals(pq.read_table(done[0] / twin))
    (tmp_path / "manifest.jsonl").unlink()
    assert job.run(resume=True).rows == 458


def test_another_job_is_refused(done, files, folder, other, tmp_path):
    out = str(done[0])

    def refused(said, error=ValueError, inputs=files, embedder=None, **options):
        embedder = embedder or Embedder(folder)
        with pytest.raises(error, match=said):
            Job.plan(inputs, out, embedder, **({"id": "id", "rows": ROWS} | options))

    refused("embedding space .weights: es1", refimpl.SpaceError, embedder=Embedder(other))
    refused("space .normalized", refimpl.SpaceError, embedder=Embedder(folder, normalize=True))
    refused("rows is 37 there, 38 here", rows=38)
    refused("id is 'id' there, None here", id=None)
    refused("parts is 'parquet' there", format="arrow")
    refused("other inputs", inputs=files[:1])
    refused(r"b.csv is another file, or was changed", inputs=files[::-1])
    refused("truncate is 'silent'", embedder=Embedder(folder, truncate="error"))
    refused("format must be one of parquet, arrow", format="csv")
    refused("inputs is empty", inputs=[])
    refused("id is 'row'", id="row")
    refused("suffix is none", inputs=["a.doc"])
    refused("rows must be an int", rows=0)
    with pytest.raises(ValueError, match="shard 3/2 is none of 1/2 .. 2/2"):
        plan(files, out, folder).run(shard=(3, 2), resume=True)
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    job = Job.plan([str(path)], str(tmp_path / "out"), Embedder(folder))
    job.run()
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match="was changed"):
        Job.plan([str(path)], str(tmp_path / "out"), Embedder(folder))
    with pytest.raises(ValueError, match="is a file"):
        Job.plan([str(path)], str(path), Embedder(folder))


def test_wrong_usage_is_told_before_a_model_is_loaded(tmp_path, capsys):
    def told(said, *argv):
        with pytest.raises(SystemExit) as stopped:
            main(["embed", *argv])
        assert stopped.value.code == 2 and said in capsys.readouterr().err

    told("--resume needs --out FOLDER", "a", "--resume")
    told("--part-rows needs --out", "a", "--part-rows", "4")
    told("--out needs the names of files", "--out", "x")
    told("--batch-size goes without --out", "a.csv", "--out", "x", "--batch-size", "4")
    for form in ("npz", "jsonl", "table"):
        told(f"--format {form} goes without --out", "a.csv", "--out", "x", "--format", form)
    told("must be I/N with I from 1 to N, not '0/4'", "a.csv", "--out", "x", "--shard", "0/4")
    assert main(["embed", "a.csv", "--out", str(tmp_path / "x")]) == 1
    assert "a.csv" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "kills", [KILLS, pytest.param(100, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_runs_that_are_killed_lose_nothing(done, files, folder, tmp_path, kills):
    said = ["embed", *files, "--model", folder, "--id", "id", "--part-rows", str(ROWS)]
    jobs, on_their_way = killed_and_resumed(said, done[2], tmp_path, kills)
    assert on_their_way > kills / 4
    told = f"embed: {kills} SIGKILLs to the group, {on_their_way} after parts of their run"
    print(f"{told}; {jobs} jobs of {len(done[2])} parts equal to the byte")
