"""Hub ids in a cache made by hand, and downloads through a stand-in for huggingface_hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.errors import HubError, MissingExtraError
from refimpl.files.hub import PATTERNS, cache_folder, resolve

COMMIT = "0123456789" * 4
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_HUB_OFFLINE")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def put(cache: Path, name: str, ref: str = "main", weights: bool = True) -> Path:
    repository = cache / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs" / ref).parent.mkdir(parents=True)
    (repository / "refs" / ref).write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    if weights:
        (snapshot / "model.safetensors").write_bytes(b"")
    return snapshot


def test_hub_existing_folder_wins(cache: Path, tmp_path: Path) -> None:
    put(cache, "org/name")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve("org/name") == Path("org/name")
    assert resolve(tmp_path / "org") == tmp_path / "org"


def test_hub_folder_has_no_revisions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="revision is 'v1', but .* is a folder"):
        resolve(tmp_path, revision="v1")


@pytest.mark.parametrize("name", [None, 3, b"org/name"])
def test_hub_name_is_text_or_a_path(name: Any) -> None:
    with pytest.raises(TypeError, match=f"folder_or_hub_id is {name!r}; it must be a folder or"):
        resolve(name)


@pytest.mark.parametrize("name", ["org/name", "org-1/na.me_2", "name"])
def test_hub_id_is_found_by_its_branch(cache: Path, name: str) -> None:
    snapshot = put(cache, name)
    assert resolve(name) == resolve(f"{name}@main") == snapshot


@pytest.mark.parametrize("ref", ["v1.0", "refs/pr/3"])
def test_hub_revision_in_the_name_or_beside_it(cache: Path, ref: str) -> None:
    snapshot = put(cache, "org/name", ref)
    assert resolve(f"org/name@{ref}") == resolve("org/name", revision=ref) == snapshot
    assert resolve(f"org/name@{COMMIT}") == snapshot
    with pytest.raises(HubError, match="not in the local cache"):
        resolve("org/name")
    with pytest.raises(ValueError, match="'other'.*asks for"):
        resolve(f"org/name@{ref}", revision="other")


def test_hub_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    for variable, value, expected in (
        ("HF_HUB_CACHE", "a", "a"),
        ("HUGGINGFACE_HUB_CACHE", "b", "b"),
        ("HF_HOME", "c", "c/hub"),
        ("XDG_CACHE_HOME", "d", "d/huggingface/hub"),
        ("HOME", "e", "e/.cache/huggingface/hub"),
    ):
        for other in VARIABLES[:4]:
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(variable, value)
        monkeypatch.setenv("HOME", "e")
        assert cache_folder() == Path(expected)


def test_hub_environment_has_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "c")
    monkeypatch.setenv("XDG_CACHE_HOME", "d")
    assert cache_folder().name == "cache"
    monkeypatch.setenv("HF_HUB_CACHE", "")
    assert cache_folder() == Path("c/hub")


def test_hub_cache_dir_beats_the_environment(tmp_path: Path) -> None:
    snapshot = put(tmp_path / "mine", "org/name")
    assert resolve("org/name", cache_dir=tmp_path / "mine") == snapshot


def test_hub_miss_says_where_and_how(cache: Path) -> None:
    with pytest.raises(HubError) as caught:
        resolve("org/name@v2")
    text = str(caught.value)
    assert str(cache / "models--org--name") in text and "revision v2" in text
    assert "modernbert download org/name@v2" in text
    assert not cache.exists()
    with pytest.raises(HubError, match="modernbert download answerdotai/ModernBERT-base$"):
        resolve("base")


@pytest.mark.parametrize(
    "name", ["./here", "/no/such/folder", "a/b/c", "", "../x", "org/na me", "a/.."]
)
def test_hub_what_is_no_id_is_refused(name: str) -> None:
    with pytest.raises(HubError, match="neither a folder nor a hub id"):
        resolve(name)


def test_hub_path_object_is_never_an_id(cache: Path) -> None:
    put(cache, "org/name")
    with pytest.raises(HubError, match="neither a folder"):
        resolve(Path("org/name"))


@pytest.mark.parametrize("revision", ["../../../secret", ".."])
def test_hub_revision_cannot_leave_the_repository(cache: Path, revision: str) -> None:
    put(cache, "org/name")
    with pytest.raises(HubError, match="neither"):
        resolve("org/name", revision=revision)


def test_hub_ref_cannot_leave_the_snapshots(cache: Path, tmp_path: Path) -> None:
    put(cache, "org/name")
    (tmp_path / "model").mkdir()
    (cache / "models--org--name" / "refs" / "main").write_text("../../../model")
    with pytest.raises(HubError, match="not in the local cache"):
        resolve("org/name")


def test_hub_half_fetched_snapshots_count_as_absent(cache: Path) -> None:
    snapshot = put(cache, "org/name", weights=False)
    with pytest.raises(HubError, match=r"without its weights \(model.safetensors\)"):
        resolve("org/name")
    (snapshot / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(HubError, match=r"its weights \(model-00002-of-00002.safetensors\)"):
        resolve("org/name")
    (snapshot / "model-00002-of-00002.safetensors").write_bytes(b"")
    assert resolve("org/name") == snapshot
    (snapshot / "config.json").unlink()
    with pytest.raises(HubError, match="without its config.json"):
        resolve("org/name")


# -- downloads: a stand-in package, so that no test needs the network -----------------------------


class Hub:
    """What snapshot_download is called with, and what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fault = fault
        module = SimpleNamespace(snapshot_download=self.snapshot_download)
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.calls.append({"repo_id": repo_id, **options})
        snapshot = put(options["cache_dir"], repo_id, weights=self.fault is None)
        if self.fault:
            raise self.fault
        return str(snapshot)


def test_hub_download_only_when_asked_and_absent(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch)
    with pytest.raises(HubError):
        resolve("org/name")
    assert hub.calls == []
    snapshot = resolve("org/name@main", download=True)
    assert snapshot == resolve("org/name", download=True)
    expected = dict(repo_id="org/name", revision="main", cache_dir=cache, allow_patterns=PATTERNS)
    assert hub.calls == [expected]


def test_hub_downloads_neither_pickle_nor_code() -> None:
    from fnmatch import fnmatch

    def fetched(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in PATTERNS)

    wanted = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.json", "vocab.txt",
              "1_Pooling/config.json", "2_Dense/model.safetensors"]  # fmt: skip
    unwanted = ["pytorch_model.bin", "modeling.py", "tokenizer.py", "model.onnx", "x.pt", "a.pkl"]
    assert all(map(fetched, wanted)) and not any(map(fetched, unwanted))


def test_hub_failed_download_says_why_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, ConnectionError("Name or service\n not known"))
    with pytest.raises(HubError, match="ConnectionError: Name or service not known"):
        resolve("org/name", download=True)
    assert not list(cache.rglob("*.json")) and not (cache / "models--org--name").exists()


def test_hub_offline_is_honoured(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        resolve("org/name", download=True)
    assert hub.calls == []
    snapshot = put(cache, "org/name")
    assert resolve("org/name", download=True) == snapshot


def test_hub_download_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r'pip install "modernbert-refimpl\[hub\]"'):
        resolve("org/name", download=True)


def test_hub_resolving_imports_no_hub(cache: Path) -> None:
    put(cache, "org/name")
    code = (
        "import sys; from refimpl.files.hub import resolve; resolve('org/name');"
        "sys.exit(any(m.startswith('huggingface_hub') for m in sys.modules))"
    )
    env = {"HF_HUB_CACHE": str(cache), "PYTHONPATH": os.environ["PYTHONPATH"]}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0
