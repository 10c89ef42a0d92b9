"""What the tests of the command share: running it in this process, and small models for it."""

import json
import sys

import pytest
from support.command import Stdin
from support.text_folders import NER_LABELS, model_folder, sentence_folder

from refimpl.cli import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command in this process: (exit code, records on stdout, stderr)."""

    def call(*argv, stdin=b"", code=0, parse=True):
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
        found = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        assert found == code, err
        return [json.loads(line) for line in out.splitlines()] if parse else out, err

    return call


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    def made(name, kind, **config):
        (root / name).mkdir()
        return model_folder(root / name, kind, **config)

    (root / "embed").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    modules = [("sentence_transformers.models.Pooling", pooling)]
    settings = {"prompts": {"query": "query: "}}
    return {
        "classify": made("classify", "sequence_classification", id2label={0: "no", 1: "yes"}),
        "rerank": made("rerank", "sequence_classification", id2label={0: "score"}),
        "ner": made("ner", "token_classification", id2label=NER_LABELS),
        "answer": made("answer", "question_answering"),
        "embed": sentence_folder(
            root / "embed", modules, settings=settings, transformer={"query_length": 40}
        ),
    }
