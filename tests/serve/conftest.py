"""Servers of the tests of serve: real processes on free ports of the loopback address."""

import pytest
from support.serving import Server
from support.text_folders import NER_LABELS, model_folder, sentence_folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")

    def made(name, kind, **config):
        (root / name).mkdir()
        return str(model_folder(root / name, kind, **config))

    (root / "embed").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    modules = [("sentence_transformers.models.Pooling", pooling)]
    settings = {"prompts": {"query": "query: ", "document": ""}}
    return {
        "embed": str(sentence_folder(root / "embed", modules, settings=settings)),
        "classify": made("classify", "sequence_classification", id2label={0: "no", 1: "yes"}),
        "rerank": made("rerank", "sequence_classification", id2label={0: "score"}),
        "ner": made("ner", "token_classification", id2label=NER_LABELS),
        "answer": made("answer", "question_answering"),
        "fill-mask": made("fill-mask", "masked_lm"),
    }


@pytest.fixture(scope="session")
def servers(folders):
    """Name of a folder -> the server of its model, started when it is first asked for."""
    running = {}

    def get(name):
        if name not in running:
            running[name] = Server("--model", folders[name], "--threads", "1")
        return running[name]

    yield get
    for server in running.values():
        assert server.end() == 0, server.log()
