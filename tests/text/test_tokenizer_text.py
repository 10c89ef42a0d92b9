"""The tokenizer: offsets, counted truncation, pieces, padding, and what it refuses."""

import json
import shutil
import subprocess
import sys
import threading
import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.errors import MissingExtraError, ModelFormatError, TruncationWarning
from refimpl.files.tokenizer_files import TokenizerSettings
from refimpl.models.model import BUNDLED
from refimpl.text.package import PackageCodec
from refimpl.text.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXT = "The quick, brown fox: naïve 😀 `for i in range(10):`\n\tdone"


@cache
def contents():
    return (BUNDLED / "tokenizer.json").read_text()


def backend():
    return tokenizers.Tokenizer.from_str(contents())


@pytest.fixture(scope="module")
def tiny():
    return Tokenizer.from_folder(BUNDLED)


@pytest.fixture
def folder(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(BUNDLED / name, tmp_path / name)
    return tmp_path


def edit(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


# -- ids and offsets ------------------------------------------------------------------------------


def test_special_tokens_stand_around_a_text_and_a_pair(tiny):
    a, b = tiny.encode("one").ids[1:-1], tiny.encode("two").ids[1:-1]
    cls, sep = tiny.cls_token_id, tiny.sep_token_id
    assert tiny.encode("one", "two").ids == [cls, *a, sep, *b, sep]
    pair = tiny.encode("one", "two")
    assert pair.special == [True, *[False] * len(a), True, *[False] * len(b), True]
    assert pair.sequence_ids == [None, *[0] * len(a), None, *[1] * len(b), None]


def test_empty_text_is_the_special_tokens_alone(tiny):
    assert tiny.encode("").ids == [tiny.cls_token_id, tiny.sep_token_id]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_offsets_are_characters_of_the_text(text):
    encoded = Tokenizer(PackageCodec(backend()), TokenizerSettings()).encode(text)
    spans = [
        span for span, special in zip(encoded.offsets, encoded.special, strict=True) if not special
    ]
    # Tokens of one character share its span; otherwise spans follow each other without a gap.
    assert all(0 <= start < end <= len(text) for start, end in spans)
    covered = sorted({i for start, end in spans for i in range(start, end)})
    assert covered == list(range(len(text)))
    assert [s for s, _ in spans] == sorted(s for s, _ in spans)


def test_offsets_count_characters_not_bytes(tiny):
    encoded = tiny.encode("é😀 fox")
    word = encoded.tokens.index("Ġfo")
    assert encoded.offsets[word] == (2, 5)  # " fo": 2 characters, 6 bytes stand before it


def test_a_mask_in_the_text_is_not_special(tiny):
    encoded = tiny.encode("a [MASK]")
    at = encoded.ids.index(tiny.mask_token_id)
    assert not encoded.special[at]
    assert encoded.offsets[at] == (1, 8)  # it takes the space before it (lstrip)


def test_decode_gives_the_text_back(tiny):
    assert tiny.decode(tiny.encode(TEXT).ids, skip_special_tokens=True) == TEXT


def test_join_is_decode_by_token(tiny):
    encoded = tiny.encode(TEXT, add_special_tokens=False)
    assert tiny.join(encoded.tokens) == TEXT


def test_lowercase_lowers_ids_and_keeps_offsets(tiny):
    lower = Tokenizer.from_folder(BUNDLED, lowercase=True)
    assert lower.encode("Quick FOX").ids == tiny.encode("quick fox").ids
    assert lower.encode("Quick FOX").offsets[-2][1] == len("Quick FOX")


# -- truncation -----------------------------------------------------------------------------------


@given(
    first=st.integers(0, 30),
    second=st.integers(0, 30),
    limit=st.integers(4, 40),
    pair=st.booleans(),
)
def test_truncation_keeps_what_the_package_keeps_and_counts_the_rest(first, second, limit, pair):
    one, two = "a " * first, "b " * second
    whole, cut = backend(), backend()
    cut.enable_truncation(limit)
    texts = (one, two) if pair else (one,)
    mine, theirs = (
        Tokenizer(PackageCodec(whole), TokenizerSettings()).encode(
            *texts, max_length=limit, truncate="silent"
        ),
        cut.encode(*texts),
    )
    for column in ("ids", "tokens", "type_ids", "offsets", "word_ids", "sequence_ids"):
        assert getattr(mine, column) == getattr(theirs, column), column
    assert mine.special == [bool(flag) for flag in theirs.special_tokens_mask]
    assert mine.lost == len(whole.encode(*texts)) - len(mine)
    assert len(mine) == min(limit, len(whole.encode(*texts)))


def test_truncation_warns_once_per_call_with_the_counts(tiny):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoded = tiny.encode_batch(["a", "a b c d", "a b c d e"], max_length=4)
    assert [e.lost for e in encoded] == [0, 2, 3]
    (warning,) = caught
    assert warning.category is TruncationWarning
    assert "2 of 3 texts" in str(warning.message) and "5 tokens lost" in str(warning.message)


def test_silent_and_never_do_not_warn(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiny.encode("a b c d", max_length=4, truncate="silent").lost == 2
        whole = tiny.encode("a b c d", max_length=4, truncate="never")
    assert (len(whole), whole.lost) == (6, 0)


def test_error_policy_refuses_and_names_the_text(tiny):
    with pytest.raises(ValueError, match=r"texts\[1\] has 6 tokens, over max_length 5"):
        tiny.encode_batch(["a", "a b c d"], max_length=5, truncate="error")
    assert tiny.encode("a b c", max_length=5, truncate="error").lost == 0


def test_a_cut_leaves_no_setting_behind(tiny):
    tiny.encode("a b c d e f", max_length=4, truncate="silent")
    tiny.chunks("a b c d e f", max_length=4, stride=1)
    assert len(tiny.encode("a b c d e f")) == 8


def test_threads_with_different_limits_do_not_disturb_each_other(tiny):
    text, wrong = "a" + " b" * 50, []

    def work(limit):
        for _ in range(50):
            encoded = tiny.encode(text, max_length=limit, truncate="silent")
            if (len(encoded), encoded.lost) != (limit, 53 - limit):
                wrong.append(limit)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (5, 17, 33, 52)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("tokenizer_limit", "config_limit", "expected"),
    [(512, 8192, 512), (8192, 1024, 1024), (10**30, 2048, 2048), (None, 64, 64), (77, None, 77),
     (None, None, None)],
)  # fmt: skip
def test_default_limit_is_the_smaller_of_tokenizer_and_model(
    folder, tokenizer_limit, config_limit, expected
):
    edit(folder / "tokenizer_config.json", model_max_length=tokenizer_limit)
    edit(folder / "config.json", max_position_embeddings=config_limit)
    assert Tokenizer.from_folder(folder).max_length == expected


@pytest.mark.parametrize(
    ("file", "key"),
    [("tokenizer_config.json", "model_max_length"), ("config.json", "max_position_embeddings")],
)
@pytest.mark.parametrize("limit", [0, -512, 0.5])
def test_limit_without_a_token_is_a_format_error(folder, file, key, limit):
    edit(folder / file, **{key: limit})
    with pytest.raises(ModelFormatError, match=f"is {limit}; it must be at least 1") as caught:
        Tokenizer.from_folder(folder)
    assert (caught.value.file, caught.value.key) == (str(folder / file), key)


def test_default_limit_is_applied(folder):
    edit(folder / "tokenizer_config.json", model_max_length=4)
    tokenizer = Tokenizer.from_folder(folder)
    with pytest.warns(TruncationWarning):
        assert len(tokenizer.encode("a b c d")) == 4
    assert len(tokenizer.encode("a b c d", max_length=6)) == 6


# -- pieces ---------------------------------------------------------------------------------------


@given(words=st.integers(0, 40), limit=st.integers(5, 12), data=st.data())
def test_pieces_cover_the_text_with_the_overlap_asked_for(words, limit, data):
    stride = data.draw(st.integers(0, limit - 3))
    tokenizer = Tokenizer(PackageCodec(backend()), TokenizerSettings())
    text = "a" + " b" * words
    whole = tokenizer.encode(text).offsets[1:-1]
    pieces = [
        piece.offsets[1:-1] for piece in tokenizer.chunks(text, max_length=limit, stride=stride)
    ]
    assert pieces[0] == whole[: limit - 2]
    for before, after in zip(pieces, pieces[1:], strict=False):
        assert after[:stride] == before[len(before) - stride :]
    joined = pieces[0] + [span for piece in pieces[1:] for span in piece[stride:]]
    assert joined == whole
    assert all(len(piece) <= limit - 2 for piece in pieces)
    package = backend()
    package.enable_truncation(limit, stride=stride)
    first = package.encode(text)
    assert [e.offsets[1:-1] for e in (first, *first.overflowing)] == pieces


def test_pieces_of_a_pair_keep_the_first_text_whole(tiny):
    pieces = tiny.chunks("a b", "c d e f g", max_length=8, stride=1)
    question = tiny.encode("a b").ids
    assert [piece.ids[: len(question)] for piece in pieces] == [question] * len(pieces)
    assert [piece.tokens[4:-1] for piece in pieces] == [
        ["c", "Ġd", "Ġe"], ["Ġe", "Ġf", "Ġg"]]  # fmt: skip


def test_pieces_without_room_are_refused(tiny):
    with pytest.raises(ValueError, match="stride 3 must be from 0 to 2"):
        tiny.chunks("a b c d e", max_length=5, stride=3)
    with pytest.raises(ValueError, match="leaves no room for the second"):
        tiny.chunks("a b c", "d", max_length=6, stride=0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_a_long_pair_is_cut_in_linear_memory():
    # Every combination of the pieces cut off would be a quarter of a million encodings.
    code = (
        "import resource\nfrom refimpl.text.tokenizer import Tokenizer\n"
        f"tiny = Tokenizer.from_folder({str(BUNDLED)!r})\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))\n"
        "text = ' a' * 8000\n"
        "encoded = tiny.encode(text, text, max_length=35, truncate='silent')\n"
        "print(len(encoded), encoded.lost)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["35", str(16003 - 35)], done.stderr[-500:]


# -- padding --------------------------------------------------------------------------------------


def test_padding_is_on_the_right_with_the_mask(tiny):
    inputs = tiny.pad(tiny.encode_batch(["a b", "", "a"]))
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert {x.dtype for x in inputs.values()} == {np.dtype(np.int64)}
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == tiny.pad_token_id).all()
    assert inputs["input_ids"][0].tolist() == tiny.encode("a b").ids


def test_ragged_batch_without_a_pad_token_is_refused():
    tokenizer = Tokenizer(PackageCodec(backend()), TokenizerSettings())
    with pytest.raises(ValueError, match="names no padding token"):
        tokenizer.pad(tokenizer.encode_batch(["a", "a b"]))
    assert tokenizer.pad(tokenizer.encode_batch(["a", "b"]))["input_ids"].shape == (2, 3)
    with pytest.raises(ValueError, match="encodings is empty"):
        tokenizer.pad([])


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a", 3], r"texts\[1\] must be a str or a pair of str, not int"),
        (["a", None], r"texts\[1\] .* not NoneType"),
        (["a", b"b"], r"texts\[1\] .* not bytes"),
        ([("a", "b", "c")], r"texts\[0\] .* a tuple of 3"),
        ([("a", 1)], r"texts\[0\] .* \(str, int\)"),
        ("abc", "must be a sequence of texts, not a str"),
    ],
)
def test_what_is_no_text_is_a_type_error_with_its_position(tiny, texts, said):
    with pytest.raises(TypeError, match=said):
        tiny.encode_batch(texts)


def test_lone_surrogate_is_a_value_error_with_its_position(tiny):
    with pytest.raises(ValueError, match=r"texts\[1\] holds a lone surrogate at character 2"):
        tiny.encode_batch(["a", "bc\ud800"])


@pytest.mark.parametrize("limit", [0, 1, 2, -3])
def test_limit_without_room_for_text_is_refused(tiny, limit):
    with pytest.raises(ValueError, match=f"max_length {limit} leaves no room"):
        tiny.encode("a", max_length=limit)


def test_a_pair_needs_more_room_than_a_text(tiny):
    assert len(tiny.encode("a", max_length=3)) == 3
    with pytest.raises(ValueError, match="a pair has 3 special tokens"):
        tiny.encode("a", "b", max_length=3)


@pytest.mark.parametrize("limit", [3.0, "3", True])
def test_limit_that_is_no_int_is_refused(tiny, limit):
    with pytest.raises(TypeError, match="max_length must be an int"):
        tiny.encode("a", max_length=limit)


def test_unknown_policy_is_refused(tiny):
    with pytest.raises(ValueError, match="truncate must be one of warn, error, silent, never"):
        tiny.encode("a", truncate="maybe")


def test_unknown_id_is_refused(tiny):
    with pytest.raises(ValueError, match="id 99999"):
        tiny.token(99999)


# -- folders --------------------------------------------------------------------------------------


def test_folder_without_tokenizer_says_what_to_do(tmp_path):
    with pytest.raises(ModelFormatError, match="copy the tokenizer.json") as caught:
        Tokenizer.from_folder(tmp_path)
    assert caught.value.file == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"version": "1.0"}'])
def test_broken_tokenizer_is_a_format_error(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelFormatError, match="not a tokenizer"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"]
)
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_broken_side_file_is_a_format_error(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFormatError) as caught:
        Tokenizer.from_folder(folder)
    assert caught.value.file == str(folder / name)


def test_special_tokens_come_from_the_files_in_order(folder):
    edit(folder / "tokenizer_config.json", mask_token=None, pad_token=None, cls_token=None)
    edit(folder / "config.json", pad_token_id=7, cls_token_id=None)
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": {"content": "[SEP]"}, "sep_token": "[CLS]"})
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.mask_token_id == 2  # the map's, as tokenizer_config.json names none
    assert tokenizer.sep_token_id == 1  # the older file's, as tokenizer_config.json lists no tokens
    assert tokenizer.pad_token_id == 7  # config.json's id, when nothing names the token
    assert tokenizer.cls_token_id is None


def test_special_token_outside_the_vocabulary_is_none_until_it_is_needed(folder):
    plain = Tokenizer.from_folder(folder)
    edit(folder / "tokenizer_config.json", mask_token="<mask>", bos_token="<s>", eos_token="</s>")
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.mask_token_id, tokenizer.bos_token_id, tokenizer.cls_token_id) == (
        None,
        None,
        1,
    )
    text = "a cat <s> and <mask>"  # of which no id would have a row in the embedding
    assert tokenizer.encode(text).ids == plain.encode(text).ids


def test_tokenizer_of_a_larger_model_is_a_format_error(folder):
    edit(folder / "config.json", vocab_size=8191)
    with pytest.raises(ModelFormatError, match="has id 8191, but the model's vocab_size is 8191"):
        Tokenizer.from_folder(folder)
    edit(folder / "config.json", vocab_size=8192)
    Tokenizer.from_folder(folder)


def test_own_truncation_and_padding_of_the_file_are_off(folder):
    given_ = backend()
    given_.enable_truncation(4)
    given_.enable_padding(length=20)
    given_.save(str(folder / "tokenizer.json"))
    assert len(Tokenizer.from_folder(folder).encode("a b c d e f")) == 8


def test_missing_package_says_how_to_install_it(folder):
    """And why it is needed: the C library's tokenizer does not cover the file."""
    edit(folder / "tokenizer.json", normalizer={"type": "NFKC"})
    code = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from refimpl.text.tokenizer import Tokenizer\n"
        f"Tokenizer.from_folder({str(folder)!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert MissingExtraError.__name__ in result.stderr
    assert 'pip install "modernbert-refimpl[text]"' in result.stderr


# -- what the files beside tokenizer.json say -----------------------------------------------------


def added(content, **flags):
    own = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=False)
    return {"content": content, **own, **flags}


@pytest.mark.parametrize("by", ["settings", "tokenizer.json"])
def test_truncation_side_left_keeps_the_end(folder, tiny, by):
    if by == "settings":
        edit(folder / "tokenizer_config.json", truncation_side="left")
    else:
        given_ = backend()
        given_.enable_truncation(4, direction="left")
        given_.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(folder)
    whole = tiny.encode(TEXT).ids
    cut = tokenizer.encode(TEXT, max_length=7, truncate="silent")
    assert tokenizer.truncation_side == "left" and cut.lost == len(whole) - 7
    assert cut.ids == [whole[0], *whole[-6:]]
    a, b = "one two three four five six seven", "eight nine"
    ids, pair = tiny.encode(a).ids[1:-1], tiny.encode(b).ids[1:-1]
    room = 12 - 3 - len(pair)
    found = tokenizer.encode(a, b, max_length=12, truncate="silent").ids
    assert found == [1, *ids[-room:], 2, *pair, 2]


def test_truncation_side_that_is_none_is_refused(folder):
    edit(folder / "tokenizer_config.json", truncation_side="middle")
    with pytest.raises(ModelFormatError, match="truncation_side: is 'middle'; supported: right, l"):
        Tokenizer.from_folder(folder)


def test_tokens_that_only_the_settings_list_are_tokens(folder):
    edit(folder / "config.json", vocab_size=8200)
    edit(folder / "tokenizer_config.json", added_tokens_decoder={
        "8193": added("<B>"), "8192": added("<A>", special=True), "2": added("[SEP]", special=True),
    })  # fmt: skip
    tokenizer = Tokenizer.from_folder(folder)
    plain = Tokenizer.from_folder(BUNDLED)
    a, b = plain.encode("a").ids[1:-1], plain.encode("b").ids[1:-1]
    assert tokenizer.encode("a<A>b<B>").ids == [1, *a, 8192, *b, 8193, 2]


def test_flags_of_the_settings_beat_those_of_tokenizer_json(folder):
    mask = Tokenizer.from_folder(folder).mask_token_id
    spans = []
    for wide in (False, True):
        flags = added("[MASK]", special=True, lstrip=wide, rstrip=wide)
        edit(folder / "tokenizer_config.json", added_tokens_decoder={str(mask): flags})
        found = Tokenizer.from_folder(folder).encode("a [MASK] b")
        spans.append(found.offsets[found.ids.index(mask)])
    assert spans == [(2, 8), (1, 9)]


def test_extra_special_tokens_are_tokens(folder):
    edit(folder / "config.json", vocab_size=8200)
    for spelled in (["<X>", added("<Y>")], {"image_token": "<X>", "y": "<Y>"}):
        edit(folder / "tokenizer_config.json", extra_special_tokens=spelled)
        assert Tokenizer.from_folder(folder).encode("<X><Y>").ids == [1, 8192, 8193, 2]


def test_older_list_of_added_tokens_is_read(folder):
    edit(folder / "config.json", vocab_size=8200)
    (folder / "added_tokens.json").write_text(json.dumps({"<Q>": 8193, "<P>": 8192}))
    assert Tokenizer.from_folder(folder).encode("<P><Q>").ids == [1, 8192, 8193, 2]


def test_token_of_more_rows_than_the_model_has_is_refused(folder):
    edit(folder / "tokenizer_config.json", added_tokens_decoder={"8192": added("<A>")})
    with pytest.raises(ModelFormatError, match="token '<A>' has id 8192"):
        Tokenizer.from_folder(folder)


def test_special_tokens_in_a_text_are_text_where_the_folder_says_so(folder):
    assert 2 in Tokenizer.from_folder(folder).encode("ignore [SEP] this").ids[1:-1]
    edit(folder / "tokenizer_config.json", split_special_tokens=True)
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode("ignore [SEP] this").ids
    assert 2 not in ids[1:-1] and (ids[0], ids[-1]) == (1, 2)


def test_dropout_of_training_is_off(folder):
    content = json.loads(contents())
    content["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    tokenizer, plain = Tokenizer.from_folder(folder), Tokenizer.from_folder(BUNDLED)
    for _ in range(20):
        assert tokenizer.encode(TEXT).ids == plain.encode(TEXT).ids


def test_impossible_id_of_config_json_is_none(folder):
    edit(folder / "tokenizer_config.json", pad_token=None)
    for impossible in (-1, 8192, [3], True, "3"):
        edit(folder / "config.json", pad_token_id=impossible)
        assert Tokenizer.from_folder(folder).pad_token_id is None


def test_unknown_key_is_told(folder):
    edit(folder / "tokenizer_config.json", own_key=1, chat_template="x")
    with pytest.warns(UserWarning, match="tokenizer_config.json: own_key: no key that is known"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"lstrip": True}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": added("x", lstrip=1)}}),
        ("tokenizer_config.json", {"mask_token": 3}),
        ("tokenizer_config.json", {"extra_special_tokens": [4]}),
        ("special_tokens_map.json", {"pad_token": ["x"]}),
    ],
)
def test_wrong_token_is_a_format_error(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ModelFormatError) as caught:
        Tokenizer.from_folder(folder)
    assert caught.value.file == str(folder / name) and caught.value.key is not None
