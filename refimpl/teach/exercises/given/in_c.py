"""Calling a function of equation.so: arrays as pointers, numbers as they are.

call("rope", x, cos, sin, out, tokens, heads, head_dim)

float32 and bool arrays are handed on contiguous; None is NULL, an int a long, a float a float. What
the function writes, it writes into an array that was contiguous already.
"""

import ctypes
from pathlib import Path

import numpy as np

library = ctypes.CDLL(str(Path(__file__).with_name("equation.so")))


def call(name, *given):
    kept, words = [], []
    for x in given:
        if x is None:
            words.append(ctypes.c_void_p())
        elif isinstance(x, np.ndarray):
            kept.append(np.ascontiguousarray(x, np.uint8 if x.dtype == bool else np.float32))
            words.append(ctypes.c_void_p(kept[-1].ctypes.data))
        elif isinstance(x, float):
            words.append(ctypes.c_float(x))
        else:
            words.append(ctypes.c_long(x))
    getattr(library, name)(*words)
