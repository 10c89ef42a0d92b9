"""A folder or a hub id to a folder on this machine, with nothing imported for what is cached.

    resolve("folder")                      an existing folder wins
    resolve("org/name[@revision]")         CACHE/models--org--name/snapshots/COMMIT
    resolve("org/name", download=True)     the same, fetched by huggingface_hub when it is absent

CACHE is the first that is set of `cache_dir`, HF_HUB_CACHE, HF_HOME/hub,
XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub. Promise: no network unless asked; a
snapshot without all its weights counts as absent. Only json, safetensors and text files are ever
fetched: no pickle, no code.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ..errors import HubError, MissingExtraError

Folder = str | os.PathLike[str]

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"
BUNDLED = Path(__file__).parents[1] / "bundled" / "tiny"
# Variants whose names are no hub ids, and the ids that their weights have there.
OFFICIAL_CHECKPOINTS = {
    "base": "answerdotai/ModernBERT-base",
    "large": "answerdotai/ModernBERT-large",
}
PATTERNS = ["*.json", "*.safetensors", "*.txt"]  # tokenizers are json or text
# One of these makes a folder that of a model.
VALID = ("config.json", "modules.json", "adapter_config.json")
KERAS = (".keras", ".h5", ".hdf5")
# What counts as "yes" in HF_HUB_OFFLINE, by huggingface_hub's own rule.
YES = {"1", "ON", "YES", "TRUE"}


def resolve(
    name: Folder,
    *,
    revision: str | None = None,
    cache_dir: Folder | None = None,
    download: bool = False,
) -> Path:
    """The folder that `name` stands for.

    name: a folder, or a hub id, which may carry `@revision` (branch, tag or commit; default main).
    cache_dir: a hub cache other than the standard one. download: fetch it when it is not there.
    HubError: not there (says where it was looked for), or not to be had. MissingExtraError:
    a download without huggingface_hub. ValueError: two different revisions, or one of a folder.
    TypeError: a name that is neither text nor a path.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"folder_or_hub_id is {name!r}; it must be a folder or a hub id (org/name)")
    if os.fspath(name) and Path(name).is_dir():
        if revision is not None:
            raise ValueError(
                f"revision is {revision!r}, but {os.fspath(name)!r} is a folder, which has none"
            )
        return Path(name)
    text = os.fspath(name)
    there = Path(text or ".").is_file()
    if text.endswith(KERAS) or there:
        of_keras = " (weights of Keras are of another model: MIGRATION.md)" * text.endswith(KERAS)
        what = "is a file" if there else "is not there, and named as a file of Keras"
        raise HubError(f"{text!r} {what}; a model is a folder with a config.json{of_keras}")
    hub_id, _, asked = text.partition("@")
    if asked and revision is not None and asked != revision:
        raise ValueError(f"revision is {revision!r}, but the name asks for {asked!r}")
    wanted = asked or revision or DEFAULT_REVISION
    if isinstance(name, os.PathLike) or not HUB_ID.fullmatch(hub_id) or ".." in hub_id + wanted:
        raise HubError(f"{os.fspath(name)!r} is neither a folder nor a hub id (org/name)")
    cache = cache_folder() if cache_dir is None else Path(cache_dir)
    repository = cache / ("models--" + hub_id.replace("/", "--"))
    snapshot = _snapshot(repository, wanted)
    lack = "not in the local cache" if snapshot is None else _lack(snapshot)
    if snapshot is not None and lack is None:
        return snapshot
    if hub_id == BUNDLED.name:
        raise HubError(
            f"{hub_id!r} is no folder here and no hub id; the bundled model is {BUNDLED}, and "
            "taken where no model is named"
        )
    if download:
        return _download(hub_id, wanted, cache, repository)
    suffix = "" if wanted == DEFAULT_REVISION else f"@{wanted}"
    raise HubError(
        f"{hub_id!r} is no folder here, and as a hub id (revision {wanted}) it is {lack}: looked "
        f"in {repository}; to fetch it: modernbert download "
        f"{OFFICIAL_CHECKPOINTS.get(hub_id, hub_id)}{suffix}"
    )


def cache_folder() -> Path:
    """The hub cache of this user, whether it exists or not; `~` as it stands where the user has no
    home, as huggingface_hub takes it."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if os.environ.get(variable):
            return Path(os.path.expanduser(os.environ[variable])) / below
    return Path(os.path.expanduser("~")) / ".cache" / "huggingface" / "hub"


def _snapshot(repository: Path, revision: str) -> Path | None:
    """The snapshot folder of a branch, tag or commit, or None."""
    try:
        commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision
    folder = repository / "snapshots" / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def _lack(snapshot: Path) -> str | None:
    """What an interrupted or partial download has left out, or None.

    By the names that shards have; what the index says is for the reader, who opens it once.
    """
    if not any((snapshot / name).is_file() for name in VALID):
        return "there without its config.json"
    weights = list(snapshot.rglob("*.safetensors"))
    shards = [found for path in weights if (found := SHARD.fullmatch(path.name))]
    wanted = {f"{s[1]}-{i:05d}-of-{s[2]}" for s in shards for i in range(1, int(s[2]) + 1)}
    missing = sorted(wanted - {path.stem for path in weights if path.is_file()})
    if missing or not weights:
        return f"there without its weights ({', '.join(missing[:3]) or 'model'}.safetensors)"
    return None


def _download(hub_id: str, revision: str, cache: Path, repository: Path) -> Path:
    """Fetch a snapshot. A failure leaves no trace of a repository that was not there before."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in YES:
        raise HubError(f"{hub_id!r} is not in {cache}, and HF_HUB_OFFLINE forbids to fetch it")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub", f"downloading {hub_id!r}") from None
    was_there = repository.exists()
    try:
        folder = snapshot_download(
            hub_id, revision=revision, cache_dir=cache, allow_patterns=PATTERNS
        )
        lack = _lack(Path(folder))
        if lack is not None:
            raise HubError(f"{hub_id!r} (revision {revision}) was fetched, but it is {lack}")
        return Path(folder)
    except BaseException as error:
        if not was_there:
            shutil.rmtree(repository, ignore_errors=True)
        if isinstance(error, HubError) or not isinstance(error, Exception):
            raise
        cause = " ".join(str(error).split())
        raise HubError(
            f"{hub_id!r} (revision {revision}) could not be fetched: "
            f"{type(error).__name__}: {cause}"
        ) from error
