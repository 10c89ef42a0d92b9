"""A public name stands in `__all__`, in `_WHERE` and under TYPE_CHECKING, and is of one module."""

import ast
from pathlib import Path

import pytest

import refimpl


def for_type_checkers() -> dict[str, str]:
    """Name -> module, of the imports under `if TYPE_CHECKING`."""
    tree = ast.parse(Path(refimpl.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_public_names_are_the_same_everywhere():
    assert for_type_checkers() == refimpl._WHERE
    assert sorted(refimpl.__all__) == sorted(["__version__", *refimpl._WHERE])


@pytest.mark.parametrize("name", refimpl.__all__)
def test_public_name_is_there(name):
    assert getattr(refimpl, name) is not None and name in dir(refimpl)
