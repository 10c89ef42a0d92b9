"""modernbert_text.h from outside: a text in, columns out, and every wrong argument refused."""

import numpy as np
import pytest
from support.c_interface import BAD_FILE, INVALID, Failed, check, ffi, last_error, lib
from support.tokenizer_files import nfc

TEXT = "the [MASK] cafe\u0301|||12"


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text(nfc(), encoding="utf-8")
    made = ffi.new("modernbert_tokenizer **")
    check(lib.modernbert_tokenizer_open(str(tmp_path / "tokenizer.json").encode(), made))
    yield made[0]
    lib.modernbert_tokenizer_close(made[0])


def encode(tokenizer, text, pair=None, special=1):
    raw, second = text.encode(), ffi.NULL if pair is None else pair.encode()
    out = ffi.new("modernbert_encoding *", {"struct_size": ffi.sizeof("modernbert_encoding")})
    size = 0 if pair is None else len(second)
    check(lib.modernbert_tokenizer_encode(tokenizer, raw, len(raw), second, size, special, out))
    return out


def ids(encoding):
    return np.frombuffer(ffi.buffer(encoding.ids, 4 * encoding.count), np.int32).tolist()


def test_a_text_and_a_pair(tokenizer):
    text, pair = encode(tokenizer, TEXT), encode(tokenizer, TEXT, "")
    assert ids(pair)[: text.count] == ids(text)
    assert pair.count == text.count + 1  # one more [SEP]
    assert [text.sequences[i] for i in (0, 1, text.count - 1)] == [-1, 0, -1]
    assert [text.words[i] for i in range(3)] == [-1, 0, 1]
    assert (text.starts[2], text.ends[2]) == (3, 10)  # " [MASK]", which takes the space along
    for encoding in (text, pair):
        lib.modernbert_encoding_free(encoding)
        assert encoding.ids == ffi.NULL and encoding.count == 0
        lib.modernbert_encoding_free(encoding)  # nothing is left to free
    lib.modernbert_encoding_free(ffi.NULL)


def test_content_in_memory_is_the_file(tokenizer):
    content, made = nfc().encode(), ffi.new("modernbert_tokenizer **")
    check(lib.modernbert_tokenizer_parse(content, len(content), b"memory", made))
    a, b = encode(tokenizer, TEXT), encode(made[0], TEXT)
    assert ids(a) == ids(b)
    for encoding in (a, b):
        lib.modernbert_encoding_free(encoding)
    lib.modernbert_tokenizer_close(made[0])
    with pytest.raises(Failed, match="^memory: model: is missing") as failed:
        check(lib.modernbert_tokenizer_parse(b"{}", 2, b"memory", made))
    assert failed.value.status == BAD_FILE and made[0] == ffi.NULL


def test_special_tokens_can_be_left_out(tokenizer):
    whole, bare = encode(tokenizer, TEXT), encode(tokenizer, TEXT, special=0)
    assert ids(whole)[1:-1] == ids(bare)
    for encoding in (whole, bare):
        lib.modernbert_encoding_free(encoding)


def calls(tokenizer):
    """Name -> a call with one wrong argument, and what is said."""
    out, n = ffi.new("modernbert_encoding *"), ffi.new("size_t *")
    right = ffi.new("modernbert_encoding *", {"struct_size": ffi.sizeof("modernbert_encoding")})
    made, word = ffi.new("modernbert_tokenizer **"), ffi.new("const char **")
    number = ffi.new("int32_t *")
    null, run = ffi.NULL, lib.modernbert_tokenizer_encode
    added = ffi.new("modernbert_added_token[1]")
    added[0].bytes = 3
    bad = ffi.new("char[]", b"\xff\xff\xff")
    broken = ffi.new("modernbert_added_token[1]", [{"content": bad, "bytes": 3}])
    add = lib.modernbert_tokenizer_add
    return {
        "open file": (lambda: lib.modernbert_tokenizer_open(null, made), "file is NULL"),
        "open out": (lambda: lib.modernbert_tokenizer_open(b"x", null), "out is NULL"),
        "tokenizer": (lambda: run(null, b"a", 1, null, 0, 1, right), "tokenizer is NULL"),
        "text": (lambda: run(tokenizer, null, 1, null, 0, 1, right), "text is NULL"),
        "utf-8": (lambda: run(tokenizer, b"a\xff", 2, null, 0, 1, right), "not UTF-8 at byte 1"),
        "cut": (lambda: run(tokenizer, b"\xe4\xb8", 2, null, 0, 1, right), "not UTF-8 at byte 0"),
        "pair": (lambda: run(tokenizer, b"a", 1, b"\xc0\x80", 2, 1, right), "pair's text is not"),
        "out": (lambda: run(tokenizer, b"a", 1, null, 0, 1, null), "out is NULL"),
        "size": (lambda: run(tokenizer, b"a", 1, null, 0, 1, out), "out->struct_size is 0"),
        "tokens": (lambda: add(tokenizer, null, 1, 0), "tokens is NULL"),
        "content": (lambda: add(tokenizer, added, 1, 0), r"tokens\[\].content is NULL"),
        "broken": (lambda: add(tokenizer, broken, 1, 0), r"tokens\[\].content is not UTF-8"),
        "template": (lambda: lib.modernbert_tokenizer_template(tokenizer, 0, null), "tokens is"),
        "ids": (lambda: lib.modernbert_tokenizer_ids(null, n), "tokenizer is NULL"),
        "token": (lambda: lib.modernbert_tokenizer_token(tokenizer, 0, word, null), "bytes is"),
        "id": (lambda: lib.modernbert_tokenizer_id(tokenizer, null, 1, number), "token is NULL"),
        "added": (lambda: lib.modernbert_tokenizer_added(tokenizer, 0, null), "out is NULL"),
        "facts": (
            lambda: lib.modernbert_tokenizer_facts(tokenizer, word, null, word),
            "normalizer",
        ),
    }


@pytest.mark.parametrize("name", calls(ffi.NULL))
def test_wrong_arguments_are_refused(tokenizer, name):
    call, said = calls(tokenizer)[name]
    with pytest.raises(Failed, match=said) as failed:
        check(call())
    assert failed.value.status == INVALID


def test_a_missing_file_is_one(tmp_path):
    made = ffi.new("modernbert_tokenizer **")
    path = str(tmp_path / "none.json")
    assert lib.modernbert_tokenizer_open(path.encode(), made) == BAD_FILE
    assert path in last_error() and made[0] == ffi.NULL


def test_no_token_of_an_unknown_id(tokenizer):
    token, size = ffi.new("const char **"), ffi.new("size_t *", 7)
    for unknown in (-1, 2**31 - 1):
        check(lib.modernbert_tokenizer_token(tokenizer, unknown, token, size))
        assert token[0] == ffi.NULL and size[0] == 0
