"""Packed weights in a file: the bits of weights in memory, and nothing of a pack is believed."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.budget import relative_l2
from support.c_interface import BAD_FILE, INVALID, Failed, Model, check, ffi, input_of, lib, struct
from support.failing_calls import ERRORS, SystemCalls, where_calls_can_fail
from support.folders import change_json, change_tensors
from support.native import extension, tiers_and_dtypes
from support.text_folders import model_folder, sentence_folder

import refimpl
from refimpl import ModernBERT, Reranker, SentenceEncoder
from refimpl.backends.pack import make_pack
from refimpl.cli import main
from refimpl.files.safetensors import open_safetensors, write_safetensors
from refimpl.models.model import BUNDLED

native = extension()
TAKEN, MADE, LEFT, NEEDED = range(4)
IDS = np.random.default_rng(1).integers(4, 900, 23)
MODULES = "sentence_transformers.models."
CHAIN = [
    (MODULES + "Pooling", {"word_embedding_dimension": 32}),
    (MODULES + "Dense", {"in_features": 32, "out_features": 20}),
]
TEXTS = ["for i in range(10):", "", "a [MASK] " * 20]


def opened(folder: Path, pack: int = NEEDED, **options: Any) -> Model:
    return Model.open(folder, pack=pack, **options)


def pack(folder: Path, **options: Any) -> Path:
    """Written, unless it is fresh."""
    given = struct("options", **options) if options else ffi.NULL
    check(lib.modernbert_pack(str(folder).encode(), given))
    return path_of(opened(folder, **options))


def path_of(model: Model) -> Path:
    return Path(ffi.string(model.facts().pack).decode())


def state(model: Model) -> np.ndarray:
    return model.forward(input_of([0, 5, 5, len(IDS)], ids=IDS), len(IDS))


def why_not(folder: Path, **options: Any) -> str:
    with pytest.raises(Failed) as failed:
        opened(folder, **options)
    assert failed.value.status == BAD_FILE
    return str(failed.value).partition("is no fresh pack: ")[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model", None)


def age(path: Path, seconds: int = 0) -> None:
    """As if it had been written long ago."""
    os.utime(path, ns=(10**18 + seconds * 10**9,) * 2)


# -- the same model --------------------------------------------------------------------------------


@pytest.mark.parametrize("tier, dtype", tiers_and_dtypes())
def test_bits_are_those_of_weights_in_memory(folder: Path, tier: str, dtype: str) -> None:
    options = dict(tier_cap=tier, dtype=dtype)
    plain = opened(folder, TAKEN, **options)
    file = pack(folder, **options)
    packed = opened(folder, **options)
    assert plain.facts().pack == ffi.NULL and file.name == f"modernbert-{tier}-{dtype}.pack"
    assert packed.facts().packed_bytes == plain.facts().packed_bytes
    np.testing.assert_array_equal(state(packed), state(plain))
    assert opened(folder, LEFT, **options).facts().pack == ffi.NULL
    assert path_of(opened(folder, TAKEN, **options)) == file


@pytest.mark.filterwarnings("ignore::refimpl.errors.UncertifiedWarning")
def test_python_takes_a_pack_of_integers(folder: Path) -> None:
    def run() -> tuple[str | None, np.ndarray]:
        model = refimpl.load(folder, backend="native", dtype="int8")
        assert model.engine is not None
        return model.engine.pack, model.encode_packed(IDS, [0, 4, len(IDS)])

    (nothing, expected), made = run(), make_pack(folder, "int8")
    path, got = run()
    assert (nothing, path) == (None, str(made)) and "int8" in made.name
    np.testing.assert_array_equal(got, expected)


def test_what_int8_keeps_belongs_to_its_pack(folder: Path) -> None:
    def keep(**kept: str) -> None:
        names = {f"layers.{name.replace('_', '.')}": dtype for name, dtype in kept.items()}
        content = {"format": 1, "weights": "", "kept": names}
        (folder / "int8.json").write_text(json.dumps(content))

    whole = state(opened(folder, LEFT, dtype="int8"))
    pack(folder, dtype="int8")
    keep(**{"1_mlp_Wo": "bfloat16", "2_attn_Wqkv": "float32"})
    assert why_not(folder, dtype="int8") == "its model is '32 24 2 3', not '32 24 2 3 kept 0 8 16'"
    mixed = state(opened(folder, LEFT, dtype="int8"))
    assert not np.array_equal(mixed, whole)
    pack(folder, dtype="int8")
    np.testing.assert_array_equal(state(opened(folder, dtype="int8")), mixed)
    keep(**{"1_mlp_Wo": "bfloat16", "2_attn_Wqkv": "bfloat16"})
    assert why_not(folder, dtype="int8").startswith("its model is")


@pytest.mark.parametrize("what", ["encoder", "sentence", "classifier", "half", "wide"])
def test_python_takes_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("REFIMPL_PACK", "leave")
    folder = tmp_path / "m"
    if what == "sentence":
        sentence_folder(folder, CHAIN, settings={"truncate_dim": 7})
    else:
        kind = "sequence_classification" if what == "classifier" else "masked_lm"
        model_folder(folder, kind, id2label={0: "score"})
    if what in ("half", "wide"):
        dtype = np.float16 if what == "half" else np.float64
        change_tensors(
            folder / "model.safetensors",
            lambda t: t.update({n: x.astype(dtype) for n, x in t.items()}),
        )

    def results(model: ModernBERT) -> list[np.ndarray]:
        out = [*model([IDS.tolist()]).values(), model.encode_packed(IDS, [0, 4, len(IDS)])]
        if what == "sentence":
            encoder = SentenceEncoder(model)
            return [*out, encoder.encode(TEXTS), encoder.encode(TEXTS, truncate_dim=15)]
        return out if what != "classifier" else [*out, Reranker(model).predict([("a", "b")])]

    plain = refimpl.load(folder, backend="native")
    expected = results(plain)
    monkeypatch.delenv("REFIMPL_PACK")
    without = refimpl.load(folder, backend="native")
    assert without.engine is not None and without.engine.pack is None
    made = make_pack(folder, "float32")
    model = refimpl.load(folder, backend="native")
    assert model.engine is not None and model.engine.pack == str(made)
    for a, b in zip(results(model), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    again = copy.deepcopy(model)  # packs its own
    assert again.engine is not None and again.engine.pack is None
    for other in (again, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(results(other)[0], expected[0])
    bare = ModernBERT.from_pretrained(folder, backend="native")
    assert bare.engine is not None and (bare.engine.pack is None) == (what == "sentence")
    np.testing.assert_array_equal(
        bare.encode_packed(IDS, [0, len(IDS)]), plain.encode_packed(IDS, [0, len(IDS)])
    )
    near = refimpl.load(folder, backend="numpy").encode_packed(IDS, [0, len(IDS)])
    assert relative_l2(bare.encode_packed(IDS, [0, len(IDS)]), near).max() < 1e-5


def test_make_and_leave_and_a_folder_of_packs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = tmp_path / "packs"
    packs.mkdir()
    monkeypatch.setenv("REFIMPL_PACK_FOLDER", str(packs))
    monkeypatch.setenv("REFIMPL_PACK", "make")
    model = refimpl.load(folder, backend="native")
    (file,) = packs.iterdir()
    assert model.engine is not None and model.engine.pack == str(file)
    assert not list(folder.glob("*.pack*")) and file.name.startswith("modernbert-")
    other = shutil.copytree(folder, tmp_path / "other")
    refimpl.load(other, backend="native")
    assert len(list(packs.iterdir())) == 2  # each folder has its own
    monkeypatch.setenv("REFIMPL_PACK", "leave")
    left = refimpl.load(folder, backend="native").engine
    assert left is not None and left.pack is None
    monkeypatch.setenv("REFIMPL_PACK", "yes")
    with pytest.raises(ValueError, match="REFIMPL_PACK is 'yes'; it must be one of take, make"):
        refimpl.load(folder, backend="native")


def test_the_verb_prints_the_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(folder), "--dtype", "bfloat16"]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file.parent == folder and file.name.endswith("-bfloat16.pack")
    before = file.stat()
    assert main(["pack", str(folder), "--dtype", "bfloat16"]) == 0
    assert file.stat().st_ino == before.st_ino, "a fresh one stays"
    assert main(["pack", str(folder), "--dtype", "float64"]) == 1
    assert main(["pack", str(folder), "--packs", str(folder / "absent")]) == 1
    assert "absent" in capsys.readouterr().err


def test_a_configurable_head_packs_for_itself(tmp_path: Path) -> None:
    task = refimpl.NLPTaskConfig("mood", refimpl.NLPTaskType.SENTIMENT_ANALYSIS, num_classes=3)
    model = refimpl.create_modern_bert_with_head("tiny", task_config=task)
    model.save_pretrained(tmp_path / "m")
    make_pack(tmp_path / "m", "float32")
    loaded = refimpl.load(tmp_path / "m", backend="native")
    assert loaded.engine is not None and loaded.engine.pack is None


# -- what is fresh ---------------------------------------------------------------------------------


def test_a_copy_with_other_times_is_fresh(folder: Path, tmp_path: Path) -> None:
    pack(folder)
    copied = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    age(copied / "model.safetensors", 7)
    np.testing.assert_array_equal(state(opened(copied)), state(opened(folder, LEFT)))


@pytest.mark.parametrize("where", ["first", "last", "middle"])
def test_another_model_of_the_same_size_is_not(tmp_path: Path, where: str) -> None:
    """Where the time of change is the same too, bytes at the ends of every tensor tell; where it is
    not, every byte does."""
    folder = model_folder(tmp_path / "m", None, intermediate_size=1000)
    weights = folder / "model.safetensors"
    age(weights)
    pack(folder)
    tensor = open_safetensors(weights)["layers.1.mlp.Wi.weight"]
    bytes_ = tensor.array().nbytes
    assert bytes_ > 3 * 4096
    place = {"first": 0, "last": bytes_ - 1, "middle": bytes_ // 2}[where]
    content = bytearray(weights.read_bytes())
    content[tensor.offset + place] ^= 1
    weights.write_bytes(content)
    age(weights, 3 if where == "middle" else 0)
    assert why_not(folder) == "it was made of another model.safetensors"
    plain = opened(folder, TAKEN)
    assert plain.facts().pack == ffi.NULL
    pack(folder)  # made anew
    np.testing.assert_array_equal(state(opened(folder)), state(plain))


def test_a_save_over_the_model_takes_its_packs_away(folder: Path) -> None:
    make_pack(folder, "float32")
    make_pack(folder, "bfloat16")
    other = model_folder(folder.parent / "other", None, seed=5)
    refimpl.load(other, backend="native").save_pretrained(folder)
    assert not list(folder.glob("*.pack"))
    model = refimpl.load(folder, backend="native")
    np.testing.assert_array_equal(
        model.encode_packed(IDS, [0, 9, len(IDS)]),
        refimpl.load(other, backend="native").encode_packed(IDS, [0, 9, len(IDS)]),
    )


def test_shards_are_told_apart(tmp_path: Path) -> None:
    from refimpl.files.checkpoint import read_checkpoint, write_checkpoint

    folder, found = tmp_path / "m", read_checkpoint(BUNDLED, kind=None)
    write_checkpoint(folder, found.config, found.params, None, max_shard_size=3_000_000)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    pack(folder)
    np.testing.assert_array_equal(state(opened(folder)), state(opened(folder, LEFT)))
    change_tensors(shards[-1], lambda t: t.update({n: 2 * x for n, x in t.items()}))
    assert why_not(folder) == f"it was made of another {shards[-1].name}"


def test_another_dtype_tier_or_head_size_is_not_taken(folder: Path) -> None:
    pack(folder)
    (tier, dtype), *more = tiers_and_dtypes()
    file = folder / f"modernbert-{tier}-float32.pack"
    change_json(folder / "config.json", num_attention_heads=1)
    assert why_not(folder) == "its model is '32 24 2 3', not '32 24 1 3'"
    change_json(folder / "config.json", num_attention_heads=2)
    for other, dtype in more:
        to = folder / f"modernbert-{other}-{dtype}.pack"
        if to != file:
            shutil.copy(file, to)
            said = why_not(folder, tier_cap=other, dtype=dtype)
            assert said.startswith("its tier is" if other != tier else "its dtype is")


# -- nothing of it is believed ---------------------------------------------------------------------


def changed(file: Path, change: Any) -> None:
    """The header of a pack, as json, after a change; the data as they are."""
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    data = change(header, raw[8 + size :])
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 4096)  # data begin at a page, as a writer has them
    rest = raw[8 + size :] if data is None else data
    file.write_bytes(len(text).to_bytes(8, "little") + text + rest)


NAME = "layers.1.attn.Wo.weight"


def smaller(header: dict[str, Any], data: bytes) -> bytes:
    """One matrix of 64 bytes less, and everything behind it moved."""
    begin, end = header[NAME]["data_offsets"]
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [n - 64 for n in entry["data_offsets"]]
    header[NAME] |= {"data_offsets": [begin, end - 64], "shape": [end - begin - 64]}
    return data[: end - 64] + data[end:]


def moved(header: dict[str, Any], data: bytes) -> bytes:
    """A byte before everything."""
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [n + 1 for n in entry["data_offsets"]]
    header["a"] = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    return b"x" + data


LIES: dict[str, tuple[Any, str]] = {
    "name": (lambda h, d: h.update({"x": h.pop(NAME)}), f"it has no '{NAME}'"),
    "size": (smaller, "bytes, not"),
    "place": (moved, "does not begin at a multiple of 64"),
    "no end": (lambda h, d: h.update({"x": h.pop("end")}), "it has no 'end'"),
    "format": (lambda h, d: h["__metadata__"].update(modernbert_pack="2"), "no pack of this"),
    "layout": (lambda h, d: h["__metadata__"].update(layout="0"), "its layout is '0', not '"),
    "sources": (lambda h, d: h["__metadata__"].update(sources="9"), "another number of files"),
    "metadata": (lambda h, d: h.pop("__metadata__") and None, "it is no pack of this format"),
    "overlap": (lambda h, d: h[NAME].update(data_offsets=[0, h[NAME]["shape"][0]]), "overlap"),
    "huge": (lambda h, d: h[NAME].update(shape=[2**60]), "data_offsets"),
    "cut": (lambda h, d: d[:-1], "truncated, or the header lies"),
    "more": (lambda h, d: d + b"x", "follow the last tensor"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_pack_that_lies_is_refused_and_the_model_opens(folder: Path, what: str) -> None:
    file = pack(folder)
    expected = state(opened(folder, LEFT))
    changed(file, LIES[what][0])
    assert LIES[what][1] in why_not(folder)
    np.testing.assert_array_equal(state(opened(folder, TAKEN)), expected)
    np.testing.assert_array_equal(state(opened(folder, MADE)), expected)
    assert opened(folder).facts().pack != ffi.NULL, "it was rebuilt"


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 5000, b"\xff" * 64])
def test_what_is_no_pack_is_refused(folder: Path, content: bytes) -> None:
    file = pack(folder)
    file.write_bytes(content)
    assert why_not(folder).startswith(str(file))
    file.unlink()
    assert why_not(folder) == "there is none"
    file.mkdir()
    assert why_not(folder) == "there is none"
    assert opened(folder, MADE).facts().pack == ffi.NULL, "it cannot be written there"


@pytest.mark.parametrize("draws", [60, pytest.param(20_000, marks=pytest.mark.soak)])
def test_mutated_packs_never_end_the_process(folder: Path, draws: int) -> None:
    """Bytes of the header and the data changed, cut, or moved: refused, or a pass over numbers."""
    file, rng = pack(folder), np.random.default_rng(5)
    raw, taken = file.read_bytes(), 0
    size = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(draws):
        mutated = bytearray(raw)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, size if rng.random() < 0.8 else len(raw)))
            if rng.random() < 0.6:
                mutated[at] = rng.integers(0, 256)
            elif rng.random() < 0.5:
                mutated[at : at + int(rng.integers(1, 80))] = b""
            else:
                mutated[at:at] = bytes(mutated[at : at + int(rng.integers(1, 80))])
        file.write_bytes(mutated)
        age(file)  # one that was just written is waited for
        model = opened(folder, TAKEN)
        taken += model.facts().pack != ffi.NULL
        state(model)
    print(f"{draws} mutated packs, {taken} taken")
    assert taken, "some mutations are of numbers alone"


def test_a_pack_that_was_written_to_is_an_error_of_the_next_pass(folder: Path) -> None:
    file, model = pack(folder), opened(folder)
    state(model)
    python = refimpl.load(folder, backend="native")
    with open(file, "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    age(file)
    with pytest.raises(Failed, match="the file of the packed weights, .* was changed") as failed:
        state(model)
    assert failed.value.status == BAD_FILE
    with pytest.raises(OSError, match="packed weights"):
        python.encode_packed(IDS, [0, len(IDS)])


def test_a_pack_may_be_deleted_while_a_model_is_open(folder: Path) -> None:
    file, model = pack(folder), opened(folder)
    before = state(model)
    file.unlink()
    np.testing.assert_array_equal(state(model), before)


# -- writing ---------------------------------------------------------------------------------------

START = """
import os, sys
from refimpl.models.task_model import load
sys.stdin.readline()
model = load(sys.argv[1], backend="native")
print(model.engine.pack, float(abs(model([[1, 5, 9, 2]])["last_hidden_state"]).sum()))
"""


def starts(folder: Path, count: int) -> list[str]:
    """What processes print that start at once and may write the pack."""
    env = os.environ | {"REFIMPL_PACK": "make"}
    pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "-c", START, str(folder)]
    children = [subprocess.Popen(command, env=env, cwd=folder, **pipes) for _ in range(count)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    return [child.communicate(timeout=120)[0].strip() for child in children]


@pytest.mark.parametrize("stale", [False, True])
def test_processes_that_start_at_once_share_one_pack(folder: Path, stale: bool) -> None:
    if stale:
        pack(folder)
        change_tensors(
            folder / "model.safetensors", lambda t: t.update({n: x / 2 for n, x in t.items()})
        )
    said = starts(folder, 5)
    (file,) = folder.glob("*.pack*")
    assert len(set(said)) == 1 and said[0].startswith(f"{file} "), said
    assert not list(folder.glob(".*")), "what is written to is gone"
    plain = opened(folder, LEFT)
    out = plain.forward(input_of([0, 4], ids=np.array([1, 5, 9, 2])), 4)
    assert float(said[0].split()[1]) == pytest.approx(float(np.abs(out).sum()), rel=1e-6)


def test_what_a_killed_writer_left_is_taken_over(folder: Path) -> None:
    (tier, _), *_ = tiers_and_dtypes()
    left = folder / f".modernbert-{tier}-float32.pack.part"
    left.write_bytes(b"half of it" * 1000)
    file = pack(folder)
    assert file.exists() and not left.exists()
    np.testing.assert_array_equal(state(opened(folder)), state(opened(folder, LEFT)))


def test_a_link_in_the_place_of_what_is_written_is_not_followed(folder: Path) -> None:
    (tier, _), *_ = tiers_and_dtypes()
    precious = folder.parent / "precious"
    precious.write_text("mine")
    (folder / f".modernbert-{tier}-float32.pack.part").symlink_to(precious)
    assert lib.modernbert_pack(str(folder).encode(), ffi.NULL) == BAD_FILE
    assert precious.read_text() == "mine"


@pytest.mark.heavy
@where_calls_can_fail
@pytest.mark.parametrize("errors", [1, 9])
def test_whatever_call_fails_there_is_a_whole_pack_or_none(folder: Path, errors: int) -> None:
    """And nothing else is left, and the model opens. errors: tried of each call."""
    (tier, _), *_ = tiers_and_dtypes()
    file = folder / f"modernbert-{tier}-float32.pack"
    before = set(folder.iterdir())
    for path in before:
        age(path)  # one that was just written is waited for

    def write() -> None:
        if status := lib.modernbert_pack(str(folder).encode(), ffi.NULL):
            raise RuntimeError(f"{status} {ffi.string(lib.modernbert_last_error()).decode()}")

    calls = SystemCalls.of(write)
    assert calls.error == "" and {"flock", "write", "fsync", "rename"} <= set(calls.names)
    written, tried = file.read_bytes(), {"old": 0, "new": 0}
    for n, name in enumerate(calls.names):
        for code in ERRORS.get(name, ())[:errors]:
            file.unlink(missing_ok=True)
            done = SystemCalls.of(write, fail=(n, code))
            where = f"{n}: {name} {errno.errorcode[code]} {done.error}"
            assert set(folder.iterdir()) - before in ({file}, set()), where
            if not done.error:
                assert file.exists(), where
            if file.exists():
                assert file.read_bytes() == written, where
            tried["new" if file.exists() else "old"] += 1
    assert min(tried.values()) > 3, tried
    print(tried)


@where_calls_can_fail
def test_without_locks_no_writer_touches_what_another_one_writes(folder: Path) -> None:
    """As on a network file system that has none: each has its own file."""
    (tier, _), *_ = tiers_and_dtypes()
    file = folder / f"modernbert-{tier}-float32.pack"
    other = folder / f".modernbert-{tier}-float32.pack.part"
    other.write_text("what another one writes")

    def write() -> None:
        check(lib.modernbert_pack(str(folder).encode(), ffi.NULL))

    names = SystemCalls.of(write).names
    assert file.exists() and not other.exists(), "taken over, under the lock"
    for _ in range(10):  # threads make a call more or less: until it was this one that failed
        file.unlink(missing_ok=True)
        other.write_text("what another one writes")
        place = names.index("flock")
        done = SystemCalls.of(write, fail=(place, errno.ENOLCK))
        names = done.names
        if names[place] == "flock":
            break
    assert names[place] == "flock"
    assert done.error == "" and file.exists() and other.read_text() == "what another one writes"
    assert set(folder.glob(".*")) == {other}


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc/self/attr").exists(), reason="needs /proc"
)
def test_where_it_cannot_be_written_weights_are_in_memory(folder: Path) -> None:
    given = struct("options", pack=MADE, pack_folder=str(folder / "absent"))
    made = ffi.new("modernbert_model **")
    check(lib.modernbert_open(str(folder).encode(), given, made))
    model = Model(made[0])
    assert model.facts().pack == ffi.NULL and state(model).any()
    assert lib.modernbert_pack(str(folder).encode(), given) == BAD_FILE
    assert "absent" in ffi.string(lib.modernbert_last_error()).decode()


def test_a_broken_model_makes_no_pack(folder: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["layers.1.attn.Wo.weight"][0, 0] = np.nan

    tensors = {
        n: np.array(t.array()) for n, t in open_safetensors(folder / "model.safetensors").items()
    }
    spoil(tensors)
    write_safetensors(folder / "model.safetensors", tensors)
    assert lib.modernbert_pack(str(folder).encode(), ffi.NULL) == BAD_FILE
    assert "it holds nan" in ffi.string(lib.modernbert_last_error()).decode()
    assert not list(folder.glob("*pack*")) and not list(folder.glob(".*"))


def test_wrong_uses_are_refused(folder: Path) -> None:
    made = ffi.new("modernbert_model **")
    for use in (-1, 4):
        given = struct("options", pack=use)
        assert lib.modernbert_open(str(folder).encode(), given, made) == INVALID
        assert (
            f"options->pack is {use}; it must be"
            in ffi.string(lib.modernbert_last_error()).decode()
        )


def test_it_is_a_safetensors_file_that_others_may_read(folder: Path) -> None:
    file = pack(folder)
    tensors = open_safetensors(file)
    assert [n for n in tensors if n != "end"] == [
        f"layers.{i}.{name}.weight" for i in range(3)
        for name in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    ]  # fmt: skip
    first = min(t.offset for t in tensors.values())
    assert first % 4096 == 0 and all(t.offset % 64 == 0 for t in tensors.values())
    assert stat.S_IMODE(file.stat().st_mode) & 0o222 == 0o200, "for its owner alone to change"


# Digests of the packed matrices of fixed weights: when one changes, kPackLayout of kernels.h has
# to, so that no pack of before is taken for one of after.
LAYOUTS = {
    "avx512bf16 int8": "1 9ef4e32e96c61efa",
    "avx512 int8": "1 9ef4e32e96c61efa",
    "avx2 int8": "1 9daa3b1db39abb6e",
    "scalar int8": "1 25999f3defe99eb5",
    "avx512bf16 float32": "1 8321b38ff7faa535",
    "avx512bf16 bfloat16": "1 4e4f9fcbbf1fc93f",
    "avx512 float32": "1 8321b38ff7faa535",
    "avx512 bfloat16": "1 5c22a862712c2e43",
    "avx2 float32": "1 d29caec3b934a6ff",
    "avx2 bfloat16": "1 e5f1a9136f3511c0",
    "scalar float32": "1 86a62a4e573fb030",
    "scalar bfloat16": "1 8f390e18f757d073",
}  # and none of tiers that were not at hand


def test_a_new_layout_has_a_new_number(tmp_path: Path) -> None:
    import hashlib

    folder = model_folder(tmp_path / "m", None, num_hidden_layers=1)
    for tier, dtype in tiers_and_dtypes():
        file = pack(folder, tier_cap=tier, dtype=dtype)
        raw = b"".join(
            open_safetensors(file)[f"layers.0.{name}.weight"].array().tobytes()
            for name in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
        )
        layout = json.loads(file.read_bytes()[8:].partition(b" " * 8)[0])["__metadata__"]["layout"]
        found = f"{layout} {hashlib.sha256(raw).hexdigest()[:16]}"
        assert LAYOUTS.get(f"{tier} {dtype}") in (None, found), f"{tier} {dtype}: {found}"
