"""From labelled files to a model's folder in one call: `finetune`.

    finetune("classify", ["train.jsonl"], "my-classifier")
    refimpl.pipeline("text-classification", "my-classifier")("a fine day")

Each task reads its own rows: classify (examples.py), tokens (tagged.py), answer (questions.py),
choice (choices.py), embed and rerank (pairs.py), mask (documents.py). Every file is read and
checked before anything is computed or written. Long because every task's preparation stands here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ..errors import ModelFormatError
from ..files.hub import resolve
from ..models.model import Folder, ModernBERT, bundled
from ..models.task_model import ModernBERTForTask, load
from ..reference.config import default_labels
from ..text.tokenizer import Tokenizer
from . import choices, examples, pairs, questions, reranking, start, tagged
from .documents import TEXT, DocumentFile, Reader
from .embedding_work import Contrastive
from .losses import IGNORED
from .masked import Masked, Masks, pieces
from .settings import Settings
from .task_loss import MULTI, SINGLE
from .trainer import Tell, Trainer
from .work import Supervised, Work

Paths = Sequence[Folder]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Run:
    """What a task makes of its files: the model to start from, the data, names of labels, and how
    many texts were cut for their length."""

    model: ModernBERTForTask
    train: Work
    evaluation: Work | None
    labels: Sequence[str]
    truncated: int


@dataclass(frozen=True)
class Task:
    """prepare: see `Run`. longest: most tokens of a text unless asked otherwise. rows: what a row
    has. changes: of Settings, to what suits the task."""

    prepare: Callable[..., Run]
    longest: int
    rows: str
    changes: Mapping[str, Any]


def finetune(
    task: str,
    data: Paths,
    out: Folder,
    *,
    model: Folder | None = None,
    evaluation: Paths = (),
    problem: str | None = None,
    max_length: int | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    loss: str | None = None,
    widths: Sequence[int] = (),
    settings: Settings | None = None,
    resume: bool = False,
    tell: Tell = lambda line: None,
    backend: str = "auto",
    dtype: str = "float32",
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Train a model on rows of files and save it to the folder `out`.

    task: one of TASKS. data, evaluation: JSONL, CSV or TSV files. model: a folder or cached hub id,
    None for the bundled encoder. problem: of classify, see `examples.problem_of`; None: what the
    labels look like. max_length: tokens; how many texts were cut is in the result. class_weights:
    of classify with one label a text and of tokens, label -> weight (1 where it is not named), or
    "balanced": all / (labels x those with this one). loss: of embed (embedding_work.LOSSES) and of
    rerank ("pairs", reranking.LOSSES), None for what suits the rows. widths: of embed, so that the
    first values of a vector are one as well (matryoshka). resume: go on with the run in `out`.
    tell: takes lines of news. backend, dtype, num_threads: see Trainer.
    Returns the last figures, `labels` and `truncated`. Raises ValueError (data, settings),
    ModelFormatError, OSError, FloatingPointError, KeyboardInterrupt once all is saved.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; known: {', '.join(TASKS)}")
    if not data:
        raise ValueError("data is empty; it needs one file of rows or more")
    own = options(task, problem=problem, loss=loss, widths=tuple(widths))
    settings = settings or defaults(task)
    base = opened(model)
    assert base.source is not None
    tokenizer = Tokenizer.from_folder(base.source)
    longest = min(max_length or TASKS[task].longest, limit(base, tokenizer))
    run = TASKS[task].prepare(base, tokenizer, data, evaluation, longest, settings.seed, **own)
    if class_weights is not None:
        settings = replace(settings, class_weights=weights_of(class_weights, task, run))
    writable(out)
    for line in start.replaced_head(base, run.model):
        tell(line)
    trainer = Trainer(
        run.model, run.train, run.evaluation, settings, out, tell,
        backend=backend, dtype=dtype, num_threads=num_threads,
    )  # fmt: skip
    figures = trainer.run(resume=resume)
    return {**figures, "labels": list(run.labels), "truncated": run.truncated}


def weights_of(given: str | Mapping[str, float], task: str, run: Run) -> tuple[float, ...]:
    """Settings.class_weights. Raises ValueError."""
    single = run.model.config.problem_type in (None, SINGLE)
    if task not in ("classify", "tokens") or not single or not isinstance(run.train, Supervised):
        raise ValueError(
            f"class_weights is {given!r}; they are of classify with one label a text, and of tokens"
        )
    labels = list(run.labels)
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(f'class_weights is {given!r}; it must be "balanced" or map labels')
        seen = np.concatenate([np.asarray(u.labels) for u in run.train.examples.units])
        counts = np.bincount(seen[seen != IGNORED], minlength=len(labels))
        return tuple(float(x) for x in counts.sum() / (len(labels) * np.maximum(counts, 1)))
    if unknown := sorted(set(given) - set(labels)):
        raise ValueError(f"class_weights names {unknown[0]!r}; the labels are {labels}")
    return tuple(float(given.get(label, 1.0)) for label in labels)


def defaults(task: str) -> Settings:
    """Settings that suit a task."""
    return replace(Settings(), **TASKS[task].changes)


OPTIONS = {"problem": ("classify",), "loss": ("embed", "rerank"), "widths": ("embed",)}


def options(task: str, **given: Any) -> dict[str, Any]:
    """Those of OPTIONS that the task has. ValueError for another that is given."""
    for name, tasks in OPTIONS.items():
        if given[name] and task not in tasks:
            raise ValueError(
                f"{name} is {given[name]!r}; it is of task {' and '.join(tasks)}, not {task}"
            )
    return {name: given[name] for name, tasks in OPTIONS.items() if task in tasks}


def opened(model: Folder | None) -> ModernBERT:
    """The model to start from. Raises ModelFormatError for weights that are not finite, too."""
    base = load(bundled() if model is None else resolve(model), backend="numpy")
    for name, x in base.params.items():
        if not (x == x).all():
            assert base.source is not None
            raise ModelFormatError("holds NaN", file=base.source.root, key=name)
    return base


def limit(base: ModernBERT, tokenizer: Tokenizer) -> int:
    """The most tokens that the model was made for."""
    return min(tokenizer.max_length or 2**31, base.config.max_position_embeddings)


def writable(folder: Folder) -> None:
    """Makes the folder, before the work. OSError where that, or a file in it, is not possible."""
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"{folder} cannot be written to")


# -- tasks ----------------------------------------------------------------------------------------


def held_out(evaluation: Paths, made: Callable[[Paths], Any]) -> Any:
    """What is made of the evaluation's files; None without any."""
    return made(evaluation) if evaluation else None


def supervised(
    model: ModernBERTForTask,
    train: examples.Examples,
    checked: examples.Examples | None,
    labels: Sequence[str] = (),
) -> Run:
    cut = train.truncated + (checked.truncated if checked else 0)
    return Run(model, Supervised(train), Supervised(checked) if checked else None, labels, cut)


def classify(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int,
    *, problem: str | None,
) -> Run:  # fmt: skip
    rows = [row for path in data for row in examples.labelled(path)]
    kind, names = examples.problem_of(rows, problem)

    def made(paths: Paths) -> examples.Examples:
        own = [row for path in paths for row in examples.labelled(path)]
        return examples.encoded(own, kind, names, tokenizer, longest)

    checked = held_out(evaluation, made)
    model = start.with_head(base, "sequence_classification", names, kind, seed)
    train = examples.encoded(rows, kind, names, tokenizer, longest)
    return supervised(model, train, checked, names)


def rows_of(read: Callable[[Folder], Iterable[Row]], paths: Paths) -> list[Row]:
    """The rows of all files, in their order."""
    return [row for path in paths for row in read(path)]


def tokens(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int
) -> Run:
    rows = rows_of(tagged.tagged_rows, data)
    names = tagged.tags_of(rows)

    def made(paths: Paths) -> examples.Examples:
        return tagged.encoded(rows_of(tagged.tagged_rows, paths), names, tokenizer, longest)

    checked = held_out(evaluation, made)
    model = start.with_head(base, "token_classification", names, None, seed)
    return supervised(model, tagged.encoded(rows, names, tokenizer, longest), checked, names)


def answer(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int
) -> Run:
    def made(paths: Paths) -> examples.Examples:
        return questions.encoded(rows_of(questions.question_rows, paths), tokenizer, longest)

    train, checked = made(data), held_out(evaluation, made)
    names = list(default_labels(2).values())
    return supervised(
        start.with_head(base, "question_answering", names, None, seed), train, checked
    )


def choice(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int
) -> Run:
    def made(paths: Paths) -> examples.Examples:
        return choices.encoded(rows_of(choices.choice_rows, paths), tokenizer, longest)

    train, checked = made(data), held_out(evaluation, made)
    return supervised(start.with_head(base, "multiple_choice", (), None, seed), train, checked)


def rerank(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int,
    *, loss: str | None,
) -> Run:  # fmt: skip
    model = start.with_head(base, "sequence_classification", ["LABEL_0"], MULTI, seed)
    if loss not in (None, PAIRS, *reranking.LOSSES):
        raise ValueError(f"loss is {loss!r}; known: {', '.join((PAIRS, *reranking.LOSSES))}")
    if loss in (None, PAIRS):

        def made(paths: Paths) -> examples.Examples:
            return pairs.reranked(rows_of(pairs.relevance_rows, paths), tokenizer, longest)

        return supervised(model, made(data), held_out(evaluation, made))

    def ranked(paths: Paths) -> reranking.Reranking:
        return reranking.Reranking(rows_of(pairs.query_rows, paths), tokenizer, longest, loss)

    train, checked = ranked(data), held_out(evaluation, ranked)
    cut = train.truncated + (checked.truncated if checked else 0)
    return Run(model, train, checked, (), cut)


def embed(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int,
    *, loss: str | None, widths: Sequence[int],
) -> Run:  # fmt: skip
    model = start.with_embeddings(base, longest)
    assert model.sentence_head is not None
    settings = model.sentence_head.settings
    if settings.do_lower_case:
        assert base.source is not None
        tokenizer = Tokenizer.from_folder(base.source, lowercase=True)
    longest = min(longest, settings.max_seq_length or longest)

    def made(paths: Paths) -> Contrastive:
        margins = loss == "margin"
        rows = [row for path in paths for row in pairs.together_rows(path, margins=margins)]
        return Contrastive(rows, tokenizer, longest, loss, widths)

    train, checked = made(data), held_out(evaluation, made)
    cut = train.truncated + (checked.truncated if checked else 0)
    return Run(model, train, checked, (), cut)


def mask(
    base: ModernBERT, tokenizer: Tokenizer, data: Paths, evaluation: Paths, longest: int, seed: int
) -> Run:
    model = start.with_head(base, "masked_lm", (), None, seed)
    masks = masks_of(model, tokenizer)

    def made(paths: Paths) -> Masked:
        return Masked(
            [x for d in documents(paths) for x in pieces(tokenizer, d.text, d.where, longest)],
            masks,
        )

    return Run(model, made(data), held_out(evaluation, made), (), 0)


def masks_of(model: ModernBERT, tokenizer: Tokenizer) -> Masks:
    """ValueError for a tokenizer without a mask token."""
    if tokenizer.mask_token_id is None:
        raise ValueError("the tokenizer names no mask token, which a masked-LM needs")
    return Masks(tokenizer.mask_token_id, model.config.vocab_size)


def documents(paths: Paths) -> list[Any]:
    """All documents of files that are held in memory."""
    out = []
    for path in paths:
        reader = Reader([DocumentFile(path)])
        while True:
            found = reader.next()
            if reader.epoch:
                break
            out.append(found)
    return out


WHOLE = 512
PAIRS = "pairs"  # the loss of a reranker that judges each document alone
TASKS: Mapping[str, Task] = {
    "classify": Task(classify, WHOLE, "text, label (a text, a list, a number)", {}),
    "tokens": Task(tokens, WHOLE, "tokens, tags; or text, entities", {}),
    "answer": Task(answer, 384, "question, context, answers", {"epochs": 3}),
    "choice": Task(choice, WHOLE, "text, choices, label", {}),
    "embed": Task(
        embed, 256, "anchor, positive[, negative ..]; or two texts, score",
        {"epochs": 3, "batch_size": 64},
    ),
    "rerank": Task(rerank, WHOLE, "query, document, label; or query, positive, negative", {}),
    "mask": Task(mask, WHOLE, f"{TEXT}; or plain text, documents parted by empty lines",
                 {"epochs": 3}),
}  # fmt: skip
