"""The C library's tokenizer beside the `tokenizers` package, and what it refuses."""

import copy
import json
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import unicode_tables
from support.native import extension
from support.tokenizer_files import KINDS, PIECES, nfc, plain

from refimpl.files.tokenizer_files import Token
from refimpl.models.model import BUNDLED
from refimpl.text.own import OwnCodec
from refimpl.text.package import PackageCodec
from refimpl.text.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")
extension()
COLUMNS = ("ids", "tokens", "type_ids", "offsets", "word_ids", "sequence_ids", "special")
every_kind = pytest.mark.parametrize("kind", KINDS)
awkward = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
characters = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.one_of(awkward, characters)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    """Kind -> both codecs of the same file."""
    folder, out = tmp_path_factory.mktemp("tokenizers"), {}
    for kind, content in KINDS.items():
        path = folder / f"{kind}.json"
        path.write_text(content(), encoding="utf-8")
        theirs = PackageCodec.read(path, lowercase=False, reason="")
        out[kind] = OwnCodec.read(path), theirs
    return out


def same(codecs, inputs, special=True):
    own, theirs = (codec.encode(inputs, special) for codec in codecs)
    for text, a, b in zip(inputs, own, theirs, strict=True):
        for column in COLUMNS:
            assert getattr(a, column) == getattr(b, column), (text, column)


def own(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return OwnCodec.read(path)


@every_kind
@given(text=texts)
def test_every_column_is_the_packages(codecs, kind, text):
    same(codecs[kind], [text])


@every_kind
@given(pair=st.tuples(awkward, awkward), special=st.booleans())
def test_pairs_are_the_packages(codecs, kind, pair, special):
    same(codecs[kind], [pair, pair[0]], special)


@pytest.mark.parametrize(
    ("kind", "each"),
    [*((kind, 97) for kind in KINDS), pytest.param("nfc", 1, marks=pytest.mark.heavy)],
)
def test_every_character_alone_and_behind_a_letter(codecs, kind, each):
    points = [chr(p) for p in unicode_tables.POINTS[::each]]
    step = 64  # characters to a text, apart from each other
    same(codecs[kind], ["a|".join(points[i : i + step]) for i in range(0, len(points), step)])


@every_kind
@pytest.mark.parametrize("unit", ["a", " ", "\n", "ab", "\u00e9", "e\u0301", "the ", "\U0001f600"])
def test_words_of_any_length(codecs, kind, unit):
    same(codecs[kind], [unit * n for n in (1, 2, 47, 48, 49, 50, 97, 3000)])


def test_a_word_of_a_megabyte(codecs):
    rng = random.Random(0)
    same(codecs["plain"], ["".join(rng.choices("abcdefgh", k=1_000_000)), "a" * 1_000_000])


@every_kind
@given(ids=st.lists(st.integers(0, 9000), max_size=30), skip=st.booleans())
def test_decoding_is_the_packages(codecs, kind, ids, skip):
    a, b = (codec.decode(ids, skip) for codec in codecs[kind])
    assert a == b


@every_kind
def test_facts_are_the_packages(codecs, kind):
    a, b = codecs[kind]
    assert a.vocabulary() == b.vocabulary()
    assert a.ids == b.ids
    assert {repr(t) for t in a.added()} == {repr(t) for t in b.added()}
    assert [a.special_tokens(pair) for pair in (False, True)] == [
        b.special_tokens(pair) for pair in (False, True)
    ]
    assert [a.id(t) for t in ("the", "a", "no such token")] == [
        b.id(t) for t in ("the", "a", "no such token")
    ]
    assert [a.token(i) for i in (0, 5, 10**6)] == [b.token(i) for i in (0, 5, 10**6)]


@given(
    tokens=st.lists(
        st.builds(
            Token,
            st.sampled_from(["the", "Zq", "new one", "caf\u00e9", "[MASK]", "b", "a b", "<x>"]),
            special=st.booleans(), lstrip=st.booleans(), single_word=st.booleans(),
            normalized=st.booleans(),
        ),
        max_size=4,
    ),
    split=st.booleans(),
    text=awkward,
)  # fmt: skip
def test_tokens_added_later_are_the_packages(tokens, split, text):
    path = BUNDLED / "tokenizer.json"
    both = OwnCodec.read(path), PackageCodec.read(path, lowercase=False, reason="")
    for codec in both:
        codec.add(tokens)
        if split:
            codec.split_special()
    same(both, [f"{text}<x>Zq the new one caf\u00e9"])
    assert both[0].vocabulary() == both[1].vocabulary()


def test_threads_share_a_codec(codecs):
    """Also what a vocabulary remembers of itself."""
    mine = OwnCodec.read(BUNDLED / "tokenizer.json")
    text = " ".join(PIECES * 20)
    wanted, got = codecs["plain"][1].encode([text])[0].ids, []
    threads = [
        threading.Thread(target=lambda: got.append(mine.encode([text])[0].ids)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [wanted] * 8


@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_gives_the_same(tmp_path, again):
    codec = own(tmp_path, nfc())
    codec.add([Token("<x>", False)])
    codec.split_special()
    other = again(codec)
    same((codec, other), ["a<x>[MASK]", ("e\u0301", "|||")])
    assert other.added() == codec.added()


def test_a_changed_file_cannot_be_pickled(tmp_path):
    codec = own(tmp_path, nfc())
    (tmp_path / "tokenizer.json").write_text(plain())
    with pytest.raises(OSError, match="was changed since it was read"):
        pickle.dumps(codec)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(OSError, match="was changed since it was read"):
        pickle.dumps(codec)


@pytest.mark.heavy
def test_tables_are_the_packages():
    """After another version of the package: python tests/support/unicode_tables.py > .."""
    assert (unicode_tables.FILE).read_text(encoding="utf-8") == unicode_tables.text()


# -- what is not covered --------------------------------------------------------------------------


UNKNOWN = {
    "normalizer": ({"type": "NFKC"}, "normalizer.type: is 'NFKC'"),
    "pre_tokenizer": ({"type": "Whitespace"}, "pre_tokenizer.pattern: is missing"),
    "post_processor": ({"type": "BertProcessing"}, "post_processor.type: is"),
    "decoder": ({"type": "WordPiece"}, "decoder.type: is"),
    "added_tokens": ([{"id": 3, "content": "[CLS]"}], r"added_tokens\[0\].id: is 3 for '\[CLS\]'"),
    "model": ({"type": "WordPiece"}, "model.type: is"),
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_step_is_named(tmp_path, key):
    content = json.loads(plain())
    content[key], message = UNKNOWN[key]
    with pytest.raises(OSError, match=message):
        own(tmp_path, content)


CHANGED = {
    "continuing_subword_prefix": "##",
    "end_of_word_suffix": "</w>",
    "byte_fallback": True,
}


@pytest.mark.parametrize("key", CHANGED)
def test_an_unknown_setting_of_the_model_is_named(tmp_path, key):
    content = json.loads(plain())
    content["model"][key] = CHANGED[key]
    with pytest.raises(OSError, match=f"model.{key}: is "):
        own(tmp_path, content)


@pytest.mark.parametrize("key, value", [("add_prefix_space", True), ("use_regex", False)])
def test_an_unknown_flag_of_the_words_is_named(tmp_path, key, value):
    content = json.loads(plain())
    content["pre_tokenizer"][key] = value
    with pytest.raises(OSError, match=f"pre_tokenizer.{key}: is "):
        own(tmp_path, content)


def test_merges_ignored_for_whole_tokens_are_the_packages(tmp_path):
    content = json.loads(plain())
    content["model"]["ignore_merges"] = True
    mine = own(tmp_path, content)
    path = tmp_path / "tokenizer.json"
    same(
        (mine, PackageCodec.read(path, lowercase=False, reason="")), ["the theme of [CLS] it", "x"]
    )


def test_a_file_that_is_not_covered_is_the_packages(tmp_path):
    content = json.loads(plain())
    content["normalizer"] = {"type": "NFKC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert isinstance(tokenizer.codec, PackageCodec)
    assert isinstance(Tokenizer.from_folder(BUNDLED).codec, OwnCodec)
    assert tokenizer.encode("\uff21").ids == Tokenizer.from_folder(BUNDLED).encode("A").ids


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([Token(" x", False), Token("y", False, rstrip=True)], "takes the spaces behind it"),
        ([Token("e\u0301z", False), Token("\u00e9z", False)], "are one in normal form"),
    ],
)
def test_tokens_of_unknown_meaning_are_refused_and_nothing_changes(tmp_path, tokens, message):
    codec = own(tmp_path, nfc())
    before = codec.vocabulary()
    with pytest.raises(ValueError, match=message):
        codec.add(tokens)
    assert codec.vocabulary() == before


@pytest.mark.parametrize("draws", [12, pytest.param(300, marks=pytest.mark.heavy)])
def test_broken_files_are_errors(tmp_path, draws):
    """Any value of the file replaced by any other kind of value, and the text cut anywhere."""
    rng = random.Random(1)
    values = [None, True, -1, 2**40, "", "\u2581", [], {}, [1], {"type": "Sequence"}]
    small = json.loads(nfc())
    for _ in range(draws):
        content = json.loads(json.dumps({**small, "model": {**small["model"]}}))
        at, keys = content, []
        while isinstance(at, (dict, list)) and at and len(keys) < rng.randrange(1, 6):
            keys.append(rng.choice(list(at) if isinstance(at, dict) else range(len(at))))
            parent, at = at, at[keys[-1]]
        parent[keys[-1]] = rng.choice(values)
        try:
            own(tmp_path, content).encode(["the [MASK] 12\u00e9"])
        except OSError as error:
            assert str(error).startswith(str(tmp_path / "tokenizer.json"))
    for _ in range(draws // 6):
        with pytest.raises(OSError):
            own(tmp_path, plain()[: rng.randrange(len(plain()))])


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff"])
def test_a_lone_surrogate_is_refused(text):
    codec = OwnCodec.read(BUNDLED / "tokenizer.json")
    with pytest.raises(UnicodeEncodeError):
        codec.encode([text])


@pytest.mark.heavy
def test_the_code_is_small(tmp_path):
    """csrc/text compiled as setup.py does: at most 200 KB of code and tables."""
    root, cxx, size = Path(__file__).resolve().parents[2], shutil.which("c++"), shutil.which("size")
    if not (root / "csrc").exists() or cxx is None or size is None:
        pytest.skip("needs the sources, a C++ compiler and size")
    small = re.findall(r'"(csrc/text/\w+\.cpp)"', (root / "setup.py").read_text())
    flags = ["-std=c++17", "-fvisibility=hidden", "-ffp-contract=off", "-O3", "-g0", "-fPIC"]
    objects = []
    for source in sorted((root / "csrc" / "text").glob("*.cpp")):
        name = str(source.relative_to(root))
        objects.append(str(tmp_path / f"{source.stem}.o"))
        os_ = ["-Os"] if name in small else []
        command = [cxx, *flags, *os_, "-Icsrc", "-c", name, "-o", objects[-1]]
        subprocess.run(command, cwd=root, check=True)
    told = subprocess.run([size, *objects], capture_output=True, text=True, check=True).stdout
    text = sum(int(line.split()[0]) for line in told.splitlines()[1:])
    assert text <= 200_000, f"{text:,} bytes"


# -- by hand: pytest -m soak tests/text/test_own_tokenizer.py -s ----------------------------------


PARTS = 25  # each some minutes: `-k part7` goes on where an earlier run stopped


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS), ids="part{}-".format)
@every_kind
def test_millions_of_texts(codecs, kind, part):
    """10^7 generated strings over the kinds, and 10^6 mutated lines of Python's own library.

    A part has its own seed, so that every run of it sees the same strings.
    """
    rng = random.Random(f"{kind} {part}")
    points = [range(0x80), range(0x800), range(0xD800), range(0xE000, 0x110000)]
    lines = []
    for path in sorted(Path(json.__file__).parents[1].glob("*.py")):
        lines += path.read_text(errors="ignore").splitlines()

    def generated():
        if rng.random() < 0.5:
            return "".join(rng.choices(PIECES, k=rng.randrange(12)))
        return "".join(chr(rng.choice(rng.choice(points))) for _ in range(rng.randrange(12)))

    def mutated():
        line = rng.choice(lines)
        i = rng.randrange(len(line) + 1)
        return line[:i] + generated()[:3] + line[i + rng.randrange(3) :]

    share = PARTS * len(KINDS)
    for name, make, wanted in (
        ("generated", generated, -(-(10**7) // share)),
        ("mutated", mutated, -(-(10**6) // share)),
    ):
        for start in range(0, wanted, 10_000):
            batch = [make() for _ in range(min(10_000, wanted - start))]
            a, b = (codec.encode(batch) for codec in codecs[kind])
            for text, x, y in zip(batch, a, b, strict=True):
                assert (x.ids, x.offsets) == (y.ids, y.offsets), text
        print(f"{kind}, part {part}: {wanted:,} {name}, no difference ({sys.version.split()[0]})")
