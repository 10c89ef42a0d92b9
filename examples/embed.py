"""embed.py LIBRARY FOLDER < IDS: embed.c through ctypes, without numpy and without the package.

LIBRARY is libmodernbert.so; IDS has a line a text, token ids with spaces between.
"""

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p


class Sized(ctypes.Structure):
    """A struct of modernbert.h: its size comes first, fields that are left out are zero."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(self), **fields)


class Facts(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        *((name, c_int64) for name in ("vocab", "hidden", "inter", "heads", "layers", "types")),
        ("tier", c_char_p),
        ("dtype", c_char_p),
        ("threads", c_int),
        ("packed_bytes", c_uint64),
        ("modules", c_int64),
        ("width", c_int64),
        ("scores", c_int),
        ("labels", c_int64),
        ("pack", c_char_p),
        ("certificate", c_int),
    ]


class Input(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("sequences", c_int64),
        ("cu_seqlens", POINTER(c_int64)),
        ("ids", POINTER(c_int64)),
        ("embeddings", POINTER(c_float)),
        ("token_types", POINTER(c_int64)),
        ("positions", POINTER(c_int64)),
        ("visible", c_char_p),
    ]


class Embedding(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("width", c_int64),
        ("normalize", c_int),
        ("prompt_tokens", c_int64),
    ]


def main(library, folder):
    lib = ctypes.CDLL(library)
    lib.modernbert_last_error.restype = c_char_p

    def call(function, *arguments):
        if function(*arguments):
            sys.exit(f"embed: {lib.modernbert_last_error().decode()}")

    model, facts = c_void_p(), Facts()
    call(lib.modernbert_open, folder.encode(), None, byref(model))
    call(lib.modernbert_model_facts, model, byref(facts))

    texts = [[int(word) for word in line.split()] for line in sys.stdin]
    ids = [i for text in texts for i in text]
    ends = [sum(map(len, texts[:n])) for n in range(len(texts) + 1)]
    batch = Input(
        sequences=len(texts),
        cu_seqlens=(c_int64 * len(ends))(*ends),
        ids=(c_int64 * max(len(ids), 1))(*ids),
    )
    width = facts.width
    vectors = (c_float * (len(texts) * width))()
    unit = byref(Embedding(normalize=1))
    call(lib.modernbert_embed, model, byref(batch), unit, None, vectors, c_size_t(len(vectors)))
    for start in range(0, len(vectors), width):
        print(*(f"{x:.9g}" for x in vectors[start : start + width]))
    lib.modernbert_close(model)


if __name__ == "__main__":
    main(*sys.argv[1:])
