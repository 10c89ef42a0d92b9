"""What the tests of bulk share: a small sentence model, and files of texts with bad rows."""

import json

import pytest
from support.text_folders import NER_LABELS, model_folder, sentence_folder, some_texts

POOLING = "sentence_transformers.models.Pooling"
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return str(sentence_folder(tmp_path_factory.mktemp("model"), [(POOLING, MEAN)]))


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    return str(sentence_folder(tmp_path_factory.mktemp("other"), [(POOLING, MEAN)], seed=1))


@pytest.fixture(scope="session")
def heads(tmp_path_factory):
    """Verb -> a model with its head."""
    labels = {
        "classify": ("sequence_classification", {0: "no", 1: "perhaps", 2: "yes"}),
        "ner": ("token_classification", NER_LABELS),
        "rerank": ("sequence_classification", {0: "score"}),
    }
    return {
        verb: str(model_folder(tmp_path_factory.mktemp(verb), kind, id2label=names))
        for verb, (kind, names) in labels.items()
    }


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A JSONL file with bad rows and a CSV file with line breaks in its cells."""
    root = tmp_path_factory.mktemp("files")
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(some_texts(300))]
    bad = ["{bad", "", '{"id": "null", "text": null}', '{"id": 7}', '["no object"]', '"a text"']
    lines[40:40] = bad
    (root / "a.jsonl").write_text("\n".join(lines))
    rows = [f'{i},"{text}, ""so""\n{i}"' for i, text in enumerate(some_texts(150, 1))]
    rows[20:20] = ["only one cell", "", '5,"a" b', "6,"]
    (root / "b.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    return [str(root / "a.jsonl"), str(root / "b.csv")]
