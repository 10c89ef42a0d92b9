"""The command in this process: bytes as its stdin, and its numbers compared as float32."""

import io

import numpy as np


class Stdin:
    """Bytes as standard input that is no terminal."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        self.buffer, self.terminal = io.BytesIO(content), terminal

    def isatty(self) -> bool:
        return self.terminal


def same(found, expected):
    """Equal, numbers as float32 (which the command writes in their shortest form)."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return isinstance(found, float) and np.float32(found) == np.float32(expected)
    return type(found) is type(expected) and found == expected
