"""An index that is cut or written to while it is searched is an OSError, not the process's end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from refimpl.files.vectors import read_vectors
from refimpl.tasks import search
from refimpl.tasks.search import nearest

ROWS = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)


def found(vectors: np.ndarray) -> list[int]:
    return [int(rows[0]) for _, rows in nearest(ROWS[[5, 2999]], vectors, 1)]


def test_npy_is_searched_where_it_stands(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    assert found(read_vectors(tmp_path / "v.npy").vectors) == [5, 2999]
    np.save(tmp_path / "f.npy", np.asfortranarray(ROWS))
    assert found(read_vectors(tmp_path / "f.npy").vectors) == [5, 2999]
    np.save(tmp_path / "none.npy", ROWS[:0])
    assert read_vectors(tmp_path / "none.npy").vectors.shape == (0, 8)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "v.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut.npy: no vectors"):
        read_vectors(tmp_path / "cut.npy")
    np.save(tmp_path / "o.npy", np.array([[1, None]], object), allow_pickle=True)
    with pytest.raises(ValueError, match="o.npy: no vectors"):
        read_vectors(tmp_path / "o.npy")


@pytest.mark.parametrize("what", ["cut", "written to"])
def test_npy_that_changes_while_it_is_searched_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    vectors = read_vectors(tmp_path / "v.npy").vectors
    monkeypatch.setattr(search, "MAX_VALUES", 8 * 100)
    with open(tmp_path / "v.npy", "r+b") as stream:
        if what == "cut":
            stream.truncate(4096)
        else:
            stream.seek(50_000)
            stream.write(bytes(16))
    with pytest.raises(OSError, match="was changed since it was opened"):
        found(vectors)


def test_npy_that_is_replaced_is_searched_as_it_was(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    vectors = read_vectors(tmp_path / "v.npy").vectors
    np.save(tmp_path / "other.npy", -ROWS)
    (tmp_path / "other.npy").replace(tmp_path / "v.npy")
    assert found(vectors) == [5, 2999]
