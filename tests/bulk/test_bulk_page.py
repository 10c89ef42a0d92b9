"""The examples of refimpl/bulk/README.md run as they are written."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.examples import check
from support.readme import blocks

pytestmark = pytest.mark.extras
PAGE = "refimpl/bulk/README.md"
TEXTS = "id,text\na,import numpy as np\nb,for i in range(10):\nc,the cat sat on the mat\n"


def test_python_prints_what_it_says(tmp_path, monkeypatch):
    for package in ("pyarrow", "pandas", "dask.dataframe"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.csv").write_text(TEXTS)
    check(PAGE)


def test_commands_run(tmp_path):
    (tmp_path / "texts.csv").write_text(TEXTS)
    (block,) = blocks(PAGE, "sh")
    install, command = block.splitlines()
    assert install == 'pip install "modernbert-refimpl[bulk]"'
    script = f'modernbert() {{ "{sys.executable}" -m refimpl "$@"; }}\n{command}'
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert len(list(Path(tmp_path, "vectors").glob("0000-texts-0000000000-*.parquet"))) == 1
