"""The command `modernbert`: lines in, records out in order, exit codes, formats, clean endings."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.children import PROGRAM, end_of
from support.command import Stdin, same
from support.text_folders import NER_LABELS, sentence_folder

import refimpl
from refimpl.cli import VERBS, build_parser, main
from refimpl.cli.inputs import read_lines
from refimpl.cli.streams import listening, raw_lines
from refimpl.models.model import BUNDLED
from refimpl.serve.settings import PREFIX

pytest.importorskip("tokenizers")

CHECKOUT = Path(__file__).resolve().parents[2]
KEPT = "REFIMPL_BACKEND"  # the children compute as this process does
ENV = {k: v for k, v in os.environ.items() if k == KEPT or not k.startswith("REFIMPL_")}


# -- each verb gives what the Python API gives ----------------------------------------------------


def test_fill_mask_gives_the_pipelines_results(run):
    text = "for i in [MASK](10):"
    (record,), err = run("fill-mask", text, "--top-k", 3)
    assert same(record, {"index": 0, "results": refimpl.pipeline("fill-mask")(text, top_k=3)})
    assert err == ""
    (record,), _ = run("fill-mask", "--targets", "Ġrange", "--targets", "Ġlist", text)
    assert [r["token_str"] for r in record["results"]] == [" range", " list"]


def test_classify_gives_the_pipelines_results(run, folders):
    folder = folders["classify"]
    lines = b'{"text": "a"}\n{"text": "a", "text_pair": "b"}\n'
    records, _ = run(
        "classify",
        "--model",
        folder,
        "-",
        stdin=lines,
    )
    classify = refimpl.pipeline("text-classification", folder, top_k=None)
    expected = [classify("a"), classify({"text": "a", "text_pair": "b"})]
    for record, results in zip(records, expected, strict=True):
        assert [r["label"] for r in record["results"]] == [r["label"] for r in results]
    (record,), _ = run("classify", "--model", folder, "a", "--function", "none", "--top-k", 1)
    assert same(record["results"], classify("a", function_to_apply="none", top_k=1))


def test_ner_gives_the_pipelines_results(run, folders):
    text = "Ada lived in London"
    tag = refimpl.pipeline("ner", folders["ner"])
    (record,), _ = run("ner", "--model", folders["ner"], "--ignore-labels", "", text)
    assert same(record["results"], tag(text, aggregation_strategy="simple", ignore_labels=[]))
    (record,), _ = run("ner", "--model", folders["ner"], text, "--aggregation", "none")
    assert same(record["results"], tag(text))


def test_answer_gives_the_pipelines_results(run, folders, tmp_path):
    question, context = "Where?", "She lived in London."
    ask = refimpl.pipeline("question-answering", folders["answer"])
    expected = ask(question=question, context=context)
    model = ("--model", folders["answer"])
    (record,), _ = run("answer", *model, question, "--context", context)
    assert same(record["results"], [expected])
    (tmp_path / "context.txt").write_text(context)
    (record,), _ = run("answer", *model, question, "--context-file", tmp_path / "context.txt")
    assert same(record["results"], [expected])
    line = json.dumps({"question": question, "context": context}).encode()
    (record,), _ = run("answer", *model, "-", stdin=line)
    assert same(record["results"], [expected])


def test_embed_gives_the_encoders_vectors(run, folders):
    encoder = refimpl.SentenceEncoder(folders["embed"])
    model = ("--model", folders["embed"], "--batch-size", 1)
    records, _ = run("embed", *model, "a", "b c", "--normalize", "--prompt-name", "query",
                     "--truncate-dim", 5)  # fmt: skip
    options = dict(batch_size=1, normalize_embeddings=True, prompt_name="query", truncate_dim=5)
    expected = encoder.encode(["a", "b c"], **options)
    assert same([r["embedding"] for r in records], expected.tolist())


def test_rerank_gives_the_rerankers_order(run, folders):
    documents = ["one", "two words", "three"]
    reranker = refimpl.Reranker(folders["rerank"])
    expected = reranker.rank("q", documents, return_documents=True, batch_size=8)
    model = ("--model", folders["rerank"])
    (record,), _ = run("rerank", *model, "q", *documents)
    assert same(record["results"], expected)
    (record,), _ = run("rerank", *model, "q", "-", stdin="\n".join(documents).encode())
    assert same(record["results"], expected)
    line = json.dumps({"query": "q", "documents": documents, "id": "x"}).encode()
    (record,), _ = run("rerank", *model, "-", stdin=line, code=0)
    assert same(record, {"index": 0, "id": "x", "results": expected})


def test_tokenize_gives_ids_tokens_offsets(run):
    (record,), _ = run("tokenize", "a bc")
    assert record["tokens"] == ["[CLS]", "a", "Ġb", "c", "[SEP]"]
    assert record["offsets"] == [[0, 0], [0, 1], [1, 3], [3, 4], [0, 0]]
    (bare,), _ = run("tokenize", "a bc", "--no-special")
    assert bare["ids"] == record["ids"][1:-1]


def test_info_names_version_backend_and_head(run, folders):
    (record,), _ = run("info")
    assert record == refimpl.info() | {"bundled_model": str(BUNDLED)}
    table, _ = run("info", "--format", "table", parse=False)
    assert ["bundled_model", str(BUNDLED)] in [line.split(None, 1) for line in table.splitlines()]
    (record,), _ = run("info", "--model", folders["ner"])
    assert "token_classification" in record["model"]["head"]
    assert record["model"]["labels"] == list(NER_LABELS.values())


@pytest.mark.parametrize("verb", ["rerank", "ner", "answer"])
def test_verb_that_the_bundled_model_cannot_do_asks_for_one(capsys, verb):
    with pytest.raises(SystemExit, match="2"):
        main([verb, "a", "--context", "c"] if verb == "answer" else [verb, "a"])
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(", which the bundled one has not; say --model\n")
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(needed, with a" in shown and "bundled" not in shown


def test_name_of_the_bundled_model_says_where_it_is(run):
    for verb in ("tokenize", "embed"):
        _, err = run(verb, "--model", "tiny", "a", code=1)
        assert f"the bundled model is {BUNDLED}, and taken where no" in err
        assert "download" not in err
    _, err = run("download", "tiny", code=1)
    assert str(BUNDLED) in err


def test_info_tells_what_a_sentence_folder_does_with_texts(run, tmp_path):
    modules = [
        ("sentence_transformers.models.Pooling", {"word_embedding_dimension": 32,
         "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}),
        ("sentence_transformers.models.Dense", {"in_features": 64, "out_features": 8, "bias": True,
         "activation_function": "torch.nn.modules.activation.Tanh"}),
        ("sentence_transformers.models.Normalize", {}),
    ]  # fmt: skip
    settings = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    limit = {"max_seq_length": 77, "do_lower_case": False}
    folder = sentence_folder(tmp_path, modules, settings=settings, transformer=limit)
    told = run("info", "--model", folder)[0][0]["model"]
    assert told["modules"] == ["Pooling(cls, max)", "Dense(64 -> 8, tanh)", "Normalize"]
    assert told["pooling"] == "cls, max" and told["max_length"] == 77
    assert told["prompts"] == {"query": "q: ", "document": ""}
    assert told["default_prompt_name"] == "query" and told["query_length"] is None
    plain = run("info", "--model", BUNDLED)[0][0]["model"]
    assert plain["modules"] == [] and plain["pooling"].startswith("mean, for embed")
    assert plain["max_length"] == refimpl.Tokenizer.from_folder(BUNDLED).max_length
    out, _ = run("info", "--model", folder, "--format", "table", parse=False)
    assert re.search(r"model\.disk_bytes\.float32 +1\.\d+ MB\n", out)


def test_info_sizes_are_what_models_take(run, tmp_path):
    told = run("info", "--model", BUNDLED)[0][0]["model"]
    for dtype, size in told["disk_bytes"].items():
        refimpl.load(BUNDLED).save_pretrained(tmp_path / dtype, dtype=dtype)
        header = 16_384  # names and places of the tensors
        assert 0 < (tmp_path / dtype / "model.safetensors").stat().st_size - size < header
    for dtype, size in told["memory_bytes"]["numpy"].items():
        params = refimpl.load(BUNDLED, dtype=dtype, backend="numpy").params
        assert size == sum(x.nbytes for x in params.values())
    for dtype, size in told["memory_bytes"].get("native", {}).items():
        model = refimpl.load(BUNDLED, dtype=dtype, backend="native")
        rest = [x for name, x in model.params.items() if "tok_emb" not in name and x.ndim == 1
                or name.startswith("head.")]  # fmt: skip
        packed = model.engine._native.packed_bytes()
        assert size == packed + sum(x.nbytes for x in rest)


def test_info_names_the_tasks_of_a_configurable_head(run, tmp_path):
    names = refimpl.NLPTaskConfig("names", "named_entity_recognition", num_classes=3)
    value = refimpl.NLPTaskConfig("value", "text_regression")
    for folder, tasks, head in (
        ("one", names, "a configurable token_classification head (named_entity_recognition)"),
        ("two", [names, value], "a configurable multi_task head "
         "(names: named_entity_recognition, value: text_regression)"),
    ):  # fmt: skip
        refimpl.create_modern_bert_with_head("tiny", tasks).save_pretrained(tmp_path / folder)
        (record,), _ = run("info", "--model", tmp_path / folder)
        assert record["model"]["head"] == head


def test_download_without_a_network_is_an_error(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, err = run("download", "nobody/nothing", code=1)
    assert err.startswith("modernbert download: ") and err.count("\n") == 1


# -- input ----------------------------------------------------------------------------------------


def test_plain_lines_keep_order_and_none_is_dropped(run):
    records, _ = run("tokenize", "-", stdin=b"one\n\ntwo  \r\n three")
    expected = ["one", "", "two  ", " three"]
    assert [r["index"] for r in records] == [0, 1, 2, 3]
    tokenizer = refimpl.Tokenizer.from_folder(refimpl.models.model.BUNDLED)
    assert [r["ids"] for r in records] == [tokenizer.encode(text).ids for text in expected]


def test_stdin_is_read_without_a_dash(run):
    assert run("tokenize", stdin=b"a") == run("tokenize", "a")


def test_more_lines_than_a_batch_come_in_order(run):
    lines = "\n".join(f"{'a ' * (i % 5)}[MASK] {i}" for i in range(11))
    records, _ = run("fill-mask", "--batch-size", 3, "--top-k", 1, stdin=lines.encode())
    assert [r["index"] for r in records] == list(range(11))
    assert all(r["results"][0]["sequence"].endswith(f" {r['index']}") for r in records)


def test_bad_lines_are_told_and_the_others_go_on(run):
    lines = [
        b'{"text": "a [MASK]", "id": 7}',
        b"{bad",
        b"",
        b'{"text": 3}',
        b'{"txt": "a"}',
        b'{"text": "no gap"}',
        b'"b [MASK]"',
        b"[1]",
        b'{"text": "\xff"}',
        b'{"text": "[MASK]", "id": NaN}',
        b'{"text": "\\ud800 [MASK]"}',
        b'{"text": "c [MASK]"}',
    ]
    records, err = run("fill-mask", "-", stdin=b"\n".join(lines), code=3)
    assert [r["index"] for r in records] == [0, 5, 10]
    assert records[0]["id"] == 7
    told = {r["index"]: r["error"] for r in map(json.loads, err.splitlines())}
    assert sorted(told) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert "not JSON" in told[1] and "is int, not text" in told[2]
    assert '"text" is missing' in told[3] and "holds no [MASK]" in told[4]
    assert "line 9: not UTF-8 at byte 10" in told[7] and "lone surrogate" in told[9]


def test_byte_order_mark_is_no_part_of_the_first_line(run):
    mark = b"\xef\xbb\xbf"
    for line in (b'{"text": "a"}', b"a"):
        assert run("tokenize", stdin=mark + line) == run("tokenize", stdin=line)
    inside, _ = run("tokenize", stdin=b"a\n" + mark + b"a")
    assert inside[0]["ids"] != inside[1]["ids"]  # further on it is text


def test_blank_line_does_not_hide_that_jsonl_follows(run):
    records, _ = run("tokenize", stdin=b'\n{"text": "a"}\n')
    assert [record["ids"] for record in records] == [run("tokenize", "a")[0][0]["ids"]]


def test_input_kind_can_be_said(run):
    records, _ = run("tokenize", "--input", "text", stdin=b'{"text": "a"}')
    assert "".join(records[0]["tokens"][1:-1]).replace("Ġ", " ") == '{"text": "a"}'
    _, err = run("tokenize", "--input", "jsonl", stdin=b"plain", code=3)
    assert "not JSON" in err


def test_bad_text_of_the_command_line_ends_with_one_line(run):
    _, err = run("fill-mask", "no gap", code=1)
    assert err == "modernbert fill-mask: texts[0] holds no [MASK]\n"
    texts = ["a [MASK]"] * 3 + ["no gap"]
    for size in (1, 2, 8):
        records, err = run("fill-mask", *texts, "--batch-size", size, code=1)
        assert (records, err) == ([], "modernbert fill-mask: texts[3] holds no [MASK]\n")


# -- long texts -----------------------------------------------------------------------------------


def test_cuts_are_counted_per_record_and_told_once(run):
    lines = b"a b c d\na\na b c d e\n"
    records, err = run("tokenize", "--max-length", 4, "--batch-size", 1, stdin=lines)
    assert [r.get("truncated") for r in records] == [2, None, 3]
    assert err == "modernbert: 2 texts were cut, 5 tokens lost (see --max-length)\n"
    _, err = run("tokenize", "--max-length", 4, "--truncate", "silent", stdin=lines)
    assert err == ""


def test_cuts_are_told_by_every_verb_that_cuts(run, folders):
    for verb, *argv in (
        ("fill-mask", "[MASK] a b c d"),
        ("classify", "--model", folders["classify"], "a b c d e"),
        ("ner", "--model", folders["ner"], "a b c d e"),
        ("embed", "--model", folders["embed"], "a b c d e"),
        ("rerank", "--model", folders["rerank"], "q", "b c d e"),
    ):
        (record,), err = run(verb, "--max-length", 4, *argv)
        assert record["truncated"] >= 2, verb
        assert "tokens lost" in err and err.count("\n") == 1


def test_error_policy_refuses_only_the_long_line(run):
    lines = b"a b c d\na\n"
    records, err = run("tokenize", "--max-length", 4, "--truncate", "error", stdin=lines, code=3)
    assert [r["index"] for r in records] == [1]
    assert json.loads(err)["index"] == 0 and "over max_length 4" in err


# -- formats --------------------------------------------------------------------------------------


def test_table_has_a_header_and_aligned_columns(run):
    out, _ = run("tokenize", "a bc", "\t", "--format", "table", parse=False)
    lines = out.splitlines()
    assert lines[0].split() == ["text", "token", "id", "start", "end"]
    assert lines[1].split() == ["0", "[CLS]", "1", "0", "0"]
    assert lines[0].index("token") == lines[1].index("[CLS]") == 6
    assert len(lines) == 1 + 5 + 3


def test_table_escapes_control_characters(run):
    out, _ = run("fill-mask", "a\x1b[31m [MASK]", "--format", "table", parse=False)
    assert "\x1b" not in out and "\\x1b" in out


def test_table_of_every_verb(run, folders):
    for verb, *argv in (
        ("fill-mask", "[MASK] [MASK]"),
        ("classify", "--model", folders["classify"], "a"),
        ("ner", "--model", folders["ner"], "a b c d e", "--ignore-labels", ""),
        ("answer", "--model", folders["answer"], "q", "--context", "c", "--impossible"),
        ("embed", "--model", folders["embed"], "a"),
        ("rerank", "--model", folders["rerank"], "q", "d"),
        ("info", "--model", folders["embed"]),
    ):
        out, _ = run(verb, *argv, "--format", "table", parse=False)
        assert len(out.splitlines()) >= 2, verb


def npy(*argv, stdin: bytes) -> tuple[np.ndarray, subprocess.CompletedProcess]:
    done = subprocess.run(
        [*PROGRAM, "embed", *map(str, argv), "--format", "npy"], input=stdin, env=ENV,
        capture_output=True,
    )  # fmt: skip
    return np.load(io.BytesIO(done.stdout)), done


def test_npy_has_a_row_per_line_and_nan_for_a_bad_one(folders):
    lines = b'{"text": "a"}\n{bad\n{"text": "b c"}\n'
    table, done = npy("--model", folders["embed"], "-", stdin=lines)
    assert done.returncode == 3
    assert (table.shape, table.dtype) == ((3, 32), np.float32)
    assert np.isnan(table[1]).all()
    expected = refimpl.SentenceEncoder(folders["embed"]).encode(["a", "b c"])
    assert np.array_equal(table[[0, 2]], expected)
    for asked, width in ((7, 7), (1000, 32)):
        options = ["--model", folders["embed"], "-", "--truncate-dim", asked, "--dtype", "float64"]
        empty, done = npy(*options, stdin=b"")
        assert (empty.shape, empty.dtype, done.returncode) == ((0, width), np.float64, 0)
        table, done = npy(*options, stdin=lines)
        assert (table.shape, table.dtype, done.returncode) == ((3, width), np.float64, 3)


# -- usage and endings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [["sing"], ["fill-mask", "--top-k", "0", "x"], ["embed", "--format", "csv", "x"],
     ["fill-mask", "--truncate", "maybe", "x"],
     ["embed", "--prompt", "a", "--prompt-name", "b", "x"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and "usage: modernbert" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [(["answer", "q"], "needs --context or --context-file"),
     (["answer", "q", "--context", "c", "--stride", "-1"], "must be at least 0, not -1"),
     (["ner", "a", "--stride", "-1"], "must be at least 0, not -1"),
     (["rerank", "-", "d"], "each line brings its documents"),
     (["rerank", "q"], "give a text, or - to read lines from stdin")],
)  # fmt: skip
def test_wrong_usage_is_told_before_the_model_is_looked_for(argv, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stdin(b"", terminal=True))
    with pytest.raises(SystemExit) as ended:
        main([*argv, "--model", "no/such-model"])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_no_text_on_a_terminal_is_wrong_usage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stdin(b"", terminal=True))
    with pytest.raises(SystemExit) as ended:
        main(["tokenize"])
    assert ended.value.code == 2
    assert "give a text, or - to read lines from stdin" in capsys.readouterr().err


def test_every_verb_has_help_with_an_example(capsys):
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[2].replace("_", "-")
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        out = capsys.readouterr().out
        assert ended.value.code == 0
        assert f"example:\n  modernbert {name}" in out


def test_command_alone_prints_its_help(capsys):
    shown = []
    for argv in ([], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        shown.append(out)
    assert shown[0] == shown[1]
    assert all(f"  {name} " in shown[0] for name in ("embed", "search", "verify"))


def test_help_names_every_variable_that_is_read(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", capsys.readouterr().out))
    source = "".join(
        path.read_text(encoding="utf-8")
        for pattern in ("refimpl/**/*.py", "csrc/**/*.cpp", "csrc/**/*.h")
        for path in CHECKOUT.glob(pattern)
    )
    named = r"""["']((?:REFIMPL|HF|HUGGINGFACE|XDG|OMP|NO)_[A-Z_]+)["']"""
    read = set(re.findall(named, source)) - {PREFIX}
    assert told == read | {f"{PREFIX}MAX_BODY_BYTES"}, "the prefix stands for a twin of each flag"
    for code in (0, 1, 2, 3, 4, 130):
        assert f"\n  {code:<3d}  " in build_parser().format_help()


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"modernbert {refimpl.__version__}\n")


@pytest.mark.parametrize(
    ("verb", "needs"),
    [("classify", "sequence_classification"), ("ner", "token_classification"),
     ("answer", "question_answering"), ("rerank", "sequence_classification")],
)  # fmt: skip
def test_missing_head_names_what_is_there_and_what_is_needed(run, verb, needs):
    context = ["--context", "c"] if verb == "answer" else []
    _, err = run(verb, "--model", BUNDLED, "a", *context, code=1)
    assert "masked_lm" in err and needs in err and err.count("\n") == 1


def test_missing_folder_is_one_line(run, tmp_path):
    _, err = run("fill-mask", "--model", tmp_path / "none", "[MASK]", code=1)
    assert "none" in err and err.count("\n") == 1
    _, err = run("fill-mask", "--model", tmp_path, "[MASK]", code=1)
    assert "config.json" in err and err.count("\n") == 1


def test_closed_pipe_ends_quietly():
    with subprocess.Popen(
        [*PROGRAM, "tokenize", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a nohup ignores it
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"a\n" * 8)
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"a\n" * 5000)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_a_verdict_that_nobody_reads_is_the_exit_code():
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as stdout:
        done = subprocess.run(
            [*PROGRAM, "verify", "--break", "W1", "--case", "window-66", "--no-runtime"],
            stdout=stdout, stderr=subprocess.PIPE, env=ENV,
        )  # fmt: skip
    assert done.returncode == 1 and b"Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes a stream by its number")
@pytest.mark.parametrize(
    ("closed", "argv", "code", "said"),
    [
        (0, ["tokenize", "-"], 2, "give a text: standard input is closed"),
        (0, ["tokenize"], 2, "give a text: standard input is closed"),
        (1, ["tokenize", "a"], 1, "modernbert tokenize: standard output is closed"),
        (2, ["tokenize", "--input", "jsonl"], 3, ""),
    ],
)
def test_closed_stream_is_one_line_and_no_traceback(closed, argv, code, said):
    done = subprocess.run(
        ["sh", "-c", f'exec {closed}>&-; exec "$@"', "sh", *PROGRAM, *argv],
        input='{bad\n{"text": "a"}\n', env=ENV, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code
    assert said in done.stderr and "Traceback" not in done.stderr
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [1] * (closed == 2)


def test_interrupt_ends_quietly():
    with subprocess.Popen(
        [*PROGRAM, "tokenize", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a nohup ignores it
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"a\n" * 8)
        process.stdin.flush()
        assert process.stdout.readline()  # it runs, and now waits for more
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


def interrupted_reads(count: int, ready: int) -> bool:
    """Reads of lines in this process, each of which is to be ended by an interrupt."""
    unused, _ = os.pipe()
    sys.stdin = open(unused)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    args = build_parser().parse_args(["embed", "-", "--input", "text"])
    for _ in range(count):
        try:
            with listening():  # as the verbs do: else one in a callback of the collector is lost
                os.write(ready, b"r")
                next(read_lines(args, ["-"]).lines)
        except KeyboardInterrupt:
            continue
        return False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(ready, b"e")
    return True


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_interrupt_ends_a_wait_for_input_whenever_it_arrives():
    """Also between the last look at signals and the read, where one in some hundred was lost."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if interrupted_reads(3000, tell) else 1)
        finally:
            os._exit(2)
    os.set_blocking(ready, False)
    delays = random.Random(0)
    said, asked = b"", time.monotonic()
    while said != b"e" and time.monotonic() < asked + 10:
        try:  # awake all the time: the read is begun some microseconds after the word
            said = os.read(ready, 1)
        except BlockingIOError:
            continue
        until = time.perf_counter() + delays.random() * 60e-6
        while time.perf_counter() < until:
            pass
        os.kill(child, signal.SIGINT)
        asked = time.monotonic()
    if said != b"e":
        os.kill(child, signal.SIGKILL)
    assert (said, end_of(child)) == (b"e", 0), "an interrupt was lost"


def test_lines_are_those_of_the_stream_however_they_arrive():
    for text in (b"", b"a", b"a\n", b"\n\n", b"a\r\nb\n\nc", b"x" * 200_000 + b"\ny" * 3):
        source, into = os.pipe()
        pieces = [text[i : i + 997] for i in range(0, len(text), 997)]

        def write(pieces=pieces, into=into):
            for piece in pieces:
                os.write(into, piece)
            os.close(into)

        thread = threading.Thread(target=write)
        thread.start()
        with open(source, "rb") as stream:
            assert list(raw_lines(stream)) == list(io.BytesIO(text))
        thread.join(60)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "tokenize", "a"], stdout=full, stderr=subprocess.PIPE, env=ENV, text=True
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom refimpl.cli import main\n"
        "try:\n    main(['embed', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'tokenizers', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_tokenize_does_not_load_the_model(run, monkeypatch, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((refimpl.models.model.BUNDLED / name).read_bytes())
    (record,), _ = run("tokenize", "--model", tmp_path, "a")
    assert len(record["ids"]) == 3
