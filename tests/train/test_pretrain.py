"""Pre-training: documents as a stream, rows packed full, the same bits after any interruption."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_trainer import bits

import refimpl
from refimpl.cli import main
from refimpl.tasks.task import open_tokenizer
from refimpl.train.documents import DocumentFile, Reader
from refimpl.train.losses import IGNORED
from refimpl.train.masked import Masked, Masks, Stream, pieces
from refimpl.train.packing import best_fit
from refimpl.train.pretrain import pretrain, recipe

LENGTH = 24
WORDS = "the cat sat on a mat and saw the dog run to its house".split()


def texts(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(1, 40))) for i in range(n)]


def jsonl(path: Path, found: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in found))
    return path


def table(path: Path, found: list[str]) -> Path:
    path.write_text("id,text\n" + "".join(f'{i},"{t}\n"\n' for i, t in enumerate(found)))
    return path


def plain(path: Path, found: list[str]) -> Path:
    path.write_text("\n\n" + "\n\n\n".join(t.replace(" and ", "\nand ") for t in found) + "\n")
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return [
        jsonl(tmp_path / "a.jsonl", texts(30, 0)),
        table(tmp_path / "b.csv", texts(20, 1)),
        plain(tmp_path / "c.txt", texts(10, 2)),
    ]


def read(reader: Reader, n: int) -> list[tuple[str, str]]:
    return [(d.where, d.text) for d in (reader.next() for _ in range(n))]


def test_every_document_is_read_once_a_pass(files):
    reader = Reader([DocumentFile(f) for f in files])
    found = read(reader, 60)
    assert reader.epoch == 0 and read(reader, 1) == found[:1] and reader.epoch == 1
    for path, n, seed in zip(files, (30, 20, 10), (0, 1, 2), strict=True):
        own = [t.replace("\n", " ").strip() for where, t in found if str(path) in where]
        assert own == texts(n, seed)
    # Each file by its share: none is done long before the others.
    first = [str(files[0]) in where for where, _ in found]
    assert 0.3 < np.mean(first[:30]) / np.mean(first) < 1.7


def test_reading_goes_on_from_any_place(files):
    reader = Reader([DocumentFile(f) for f in files])
    for _ in range(75):
        place = json.loads(json.dumps(reader.place()))
        again = Reader([DocumentFile(f) for f in files])
        again.go_to(place)
        assert read(again, 5) == read(reader, 5)
        reader.go_to(place)
        reader.next()


BAD = {
    "empty": ("a.jsonl", "", "a.jsonl holds no documents"),
    "blank": ("a.txt", "\n \n", "a.txt holds no documents"),
    "no text": ("a.jsonl", '{"txt": "a"}\n', "row 1: 'text' is missing"),
    "no JSON": ("a.jsonl", '{"text": "a"}\n{\n', "row 2: cannot be read"),
    "a number": ("a.jsonl", '{"text": 3}\n', "row 1: text is int, not text"),
    "no column": ("a.csv", "id,txt\n1,a\n", "has the columns .'id', 'txt'.; it needs 'text'"),
    "short row": ("a.csv", "id,text\n1,a\n2\n", "row 2: it has not the 2 fields"),
    "not UTF-8": ("a.txt", b"fine\n\nb\xff\n", "row 3 is not UTF-8 at its byte 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_with_its_row(name, tmp_path):
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read(Reader([DocumentFile(tmp_path / file)]), 3)


def test_a_missing_file_and_no_file_are_told(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        DocumentFile(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="data is empty"):
        Reader([])


# -- rows and masks -------------------------------------------------------------------------------


def stream(files, **changes) -> tuple[Stream, object]:
    tokenizer = open_tokenizer()
    masks = Masks(tokenizer.mask_token_id, 8192)
    settings = recipe(batch_size=4, steps=40, **changes)
    return Stream([DocumentFile(f) for f in files], tokenizer, LENGTH, masks), settings


def test_long_texts_are_cut_and_nothing_is_lost():
    tokenizer = open_tokenizer()
    text = texts(1, 5)[0] * 3
    found = pieces(tokenizer, text, "here", LENGTH)
    assert all(len(x.ids) <= LENGTH for x in found) and len(found) > 3
    # Special tokens stand where the text begins and ends, and not where it is cut.
    whole = tokenizer.encode(text, truncate="never").ids
    assert [i for x in found for i in x.ids] == whole
    assert pieces(tokenizer, "", "here", LENGTH) == []
    # A piece of nothing but the last one would be a guess about nothing.
    alone = pieces(tokenizer, text, "here", len(whole) - 1)
    assert [list(x.ids) for x in alone] == [whole[:-1]]


def test_rows_are_full_and_no_document_waits_for_ever(files):
    work, settings = stream(files, batch_start=4)
    seen, filled = [], []
    for step in range(8):
        oldest = work.pending[0].where if work.pending else None
        units = work.units(step, settings)
        lengths = [unit.tokens for unit in units]
        assert len(best_fit(lengths, LENGTH)) <= 4
        filled.append(sum(lengths) / (4 * LENGTH))
        assert oldest is None or oldest in [unit.where for unit in units]
        seen += [unit.where for unit in units]
        assert len(work.pending) < 80
    assert len(set(seen)) > 20 and np.mean(filled) > 0.95


def test_every_sequence_comes_once_a_pass_in_another_order(files):
    work, settings = stream(files)
    reader = Reader([DocumentFile(f) for f in files])
    held = [pieces(work.tokenizer, t, where, LENGTH) for where, t in read(reader, 60)]
    n, wanted = sum(map(len, held)), Counter(x.where for found in held for x in found)
    passes = [[work._next(settings.seed) for _ in range(n)] for _ in range(3)]
    assert all(Counter(x.where for x in one) == wanted for one in passes) and n > 60
    orders = [[x.ids.tobytes() for x in one] for one in passes]
    assert orders[0] != orders[1] != orders[2] != sorted(orders[2])


def test_a_long_document_is_spread_over_many_steps(tmp_path):
    """Its sequences are the fullest, and stood in one step after another when documents were
    shuffled."""
    long = jsonl(tmp_path / "long.jsonl", [" ".join(texts(60, 1)), *texts(60, 2)])
    work, settings = stream([long], batch_start=4)
    shares = []
    for step in range(10):
        where = [unit.where for unit in work.units(step, settings)]
        shares.append(np.mean([w.endswith("row 1") for w in where]))
    assert max(shares[1:]) < 0.8 and np.count_nonzero(shares) >= 8, shares


def test_data_without_a_token_is_refused(tmp_path):
    """As a normaliser that takes everything away would make it."""
    work, settings = stream([jsonl(tmp_path / "a.jsonl", ["a", "b"])])
    nothing = SimpleNamespace(ids=[], special=[])
    work.tokenizer = SimpleNamespace(encode=lambda text, **_: nothing)
    with pytest.raises(ValueError, match="data holds no text: a whole pass over it gave no token"):
        work.units(0, settings)


def test_masks_are_those_of_the_step_and_the_place(files):
    one, settings = stream(files)
    for step in range(3):
        units = one.units(step, settings)
    again, _ = stream(files)
    for step in range(3):
        other = again.units(step, settings)
    for a, b in zip(units, other, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.sequences[0], b.sequences[0])
    counted = np.concatenate([u.labels != IGNORED for u in units]).mean()
    assert 0.15 < counted < 0.45


def test_later_rates_take_their_place_at_their_share_of_the_run(files):
    work, settings = stream(files)
    phases = Masks(work.masks.mask_id, 8192, 0.3, ((0.5, 0.15), (0.9, 0.05)))
    found = []
    for step in (0, 19, 20, 35, 36, 39):
        works = [stream(files)[0] for _ in range(2)]
        works[0].masks, works[1].masks = (
            phases,
            Masks(phases.mask_id, 8192, phases.at(step / 40).rate),
        )
        units, alone = (w.units(step, settings) for w in works)
        labels = [np.concatenate([u.labels for u in some]) for some in (units, alone)]
        np.testing.assert_array_equal(*labels)
        found.append(float(np.mean(labels[0] != IGNORED)))
    assert found == pytest.approx([0.3, 0.3, 0.15, 0.15, 0.05, 0.05], abs=0.12)
    assert [phases.at(x).rate for x in (0.0, 0.49, 0.5, 0.9, 1.0)] == [0.3, 0.3, 0.15, 0.05, 0.05]


@pytest.mark.parametrize(
    ("rate", "later", "message"),
    [
        (1.0, (), "rate is 1.0; it must be in .0, 1"),
        (0.3, ((0.5, -0.1),), "rate is -0.1; it must be in"),
        (0.3, ((0.5, 0.1), (0.5, 0.2)), "later rates start at .0.5, 0.5. of the run; it must rise"),
        (0.3, ((0.0, 0.1),), "it must rise, between 0 and 1"),
        (0.3, ((1.0, 0.1),), "it must rise, between 0 and 1"),
    ],
)
def test_rates_are_checked(rate, later, message, tmp_path, files):
    with pytest.raises(ValueError, match=message):
        pretrain(files, tmp_path / "out", rate=rate, later_rates=later, length=16)
    assert not (tmp_path / "out").exists()


def test_recipes_have_names_and_may_be_changed():
    assert recipe("tiny", steps=7, batch_size=4) == recipe(steps=7, batch_size=4)
    assert recipe("tiny").steps == 5690 and recipe().steps == 0
    with pytest.raises(ValueError, match="recipe is 'huge'; known: modernbert, tiny"):
        recipe("huge")


def test_a_bad_row_stops_a_run_with_its_place_and_the_state_before_it_stays(tmp_path):
    found = texts(60, 4)
    data = jsonl(tmp_path / "a.jsonl", found)
    settings = recipe(batch_size=2, batch_start=2, steps=400, save_every=1)
    lines = data.read_text().splitlines()
    lines[50] = "{" + lines[50]
    data.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"a.jsonl, row 51: cannot be read"):
        pretrain([data], tmp_path / "out", length=LENGTH, settings=settings)
    assert (tmp_path / "out" / "training.safetensors").exists()


def test_rows_grow_over_the_start_of_a_run(files):
    work, settings = stream(files, batch_start=1, batch_warmup=0.5)
    rows = [work.rows(step, settings) for step in range(40)]
    assert (
        rows[0] == 1
        and rows[20:] == [4] * 20
        and rows == sorted(rows)
        and set(rows) == {1, 2, 3, 4}
    )


def test_a_stream_goes_on_from_its_state(files):
    work, settings = stream(files)
    for step in range(12):
        arrays, facts = work.state()
        facts = json.loads(json.dumps(facts))
        again, _ = stream(files)
        again.restore(arrays, facts)
        units, other = work.units(step, settings), again.units(step, settings)
        assert [u.where for u in units] == [u.where for u in other]
        for a, b in zip(units, other, strict=True):
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.sequences[0], b.sequences[0])


def test_the_evaluation_has_the_same_masks_each_time(files):
    tokenizer = open_tokenizer()
    held = [x for t in texts(12, 3) for x in pieces(tokenizer, t, "here", LENGTH)]
    work = Masked(held, Masks(tokenizer.mask_token_id, 8192))
    model = refimpl.load(Path(refimpl.__file__).parent / "bundled" / "tiny", backend="numpy")
    first = work.evaluate(model)
    assert first == work.evaluate(model) and 0 < first["loss"] < np.log(8192)


# -- runs -----------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def trained(files, out, **options):
    settings = recipe(batch_size=2, batch_start=1, batch_warmup=0.5, steps=6, save_every=2)
    return pretrain(
        files[:2], out, evaluation=[files[2]], length=LENGTH, settings=settings, **options
    )


@pytest.mark.heavy
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_run_that_broke_off_goes_on_with_the_same_bits(tmp_path, files, stop):
    trained(files, tmp_path / "whole")

    def tell(line: str) -> None:
        if line.startswith(f"step {stop}/"):
            raise Stopped

    with pytest.raises(Stopped):
        trained(files, tmp_path / "broken", tell=tell)
    trained(files, tmp_path / "broken", resume=True)
    assert bits(tmp_path / "broken") == bits(tmp_path / "whole")


def test_the_command_trains_from_random_weights_and_fill_mask_reads_it(tmp_path, files, capsys):
    out = str(tmp_path / "out")
    call = ["pretrain", *map(str, files), "--out", out, "--length", "16", "--batch-size", "2"]
    assert main([*call, "--steps", "3", "--batch-start", "1", "--schedule", "constant",
                 "--decay", "0"]) == 1  # fmt: skip
    assert "floor" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*call, "--mask-rate", "0.3,0.1", "--steps", "3"])
    assert "argument --mask-rate" in capsys.readouterr().err
    call += ["--mask-rate", "0.3,0.15@0.7", "--recipe", "tiny"]
    assert main([*call, "--steps", "3"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["steps"] == 3 and "tokens/s" in said.err
    assert main(["fill-mask", "--model", out, "a [MASK]"]) == 0
    assert refimpl.load(out).config.vocab_size == 8192


def test_what_does_not_fit_is_refused(tmp_path, files):
    with pytest.raises(ValueError, match="length is 9000; the model takes at most 8192"):
        pretrain(files, tmp_path / "out", length=9000)
    with pytest.raises(ValueError, match="max_length 2 leaves no room"):
        pretrain(files, tmp_path / "out", length=2)
    with pytest.raises(ValueError, match="tokenizer is given beside model"):
        pretrain(files, tmp_path / "out", model=tmp_path, tokenizer=tmp_path)
    assert not (tmp_path / "out").exists()
