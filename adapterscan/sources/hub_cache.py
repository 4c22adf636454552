"""Open a repository from the hub client's cache alone, at the commit its refs name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from adapterscan.errors import NotFound, Unreachable
from adapterscan.model import Artifact, File, Ref, Skipped, SourceKind
from adapterscan.sources.hub_plan import why_not_fetched
from adapterscan.sources.kinds import file_kind
from adapterscan.sources.local import open_folder
from adapterscan.sources.names import unsafe_name
from adapterscan.text import printable

COMMIT = re.compile("[0-9a-f]{40}")
_DEFAULT_REVISION = "main"


def open_cached(ref: Ref, cache_dir: Path) -> Artifact:
    """Return the cached snapshot of `ref`; the names of the cached contents promise their digests.

    Raises Unreachable when the repository or the revision is not cached, NotFound when the
    subfolder is not.
    """
    repository = repository_folder(cache_dir, ref.location)
    commit = _commit(ref, repository)
    snapshot = repository / "snapshots" / commit if commit else None
    if commit is None or snapshot is None or not snapshot.is_dir():
        at = f" at {printable(ref.revision)}" if ref.revision else ""
        raise Unreachable(
            f"offline, and {ref.location}{at} is not in the cache {cache_dir}",
            hint="scan it once without --offline (or unset HF_HUB_OFFLINE) to fetch it",
        )
    folder = snapshot / ref.subfolder
    if not folder.is_dir():
        raise NotFound(
            f"the cached {ref.location} has no subfolder {printable(ref.subfolder)}",
            hint="check the spelling, or scan it once without --offline to fetch it",
        )
    local = open_folder(Ref(ref.text, SourceKind.FOLDER, str(folder)))
    missing = _not_cached(ref, commit, cache_dir, {file.path for file in local.files})
    return replace(
        local,
        ref=ref,
        commit=commit,
        files=tuple(sorted((*local.files, *missing), key=lambda file: file.path)),
        problems=(*local.problems, *_offline_problems(missing)),
        own_names=(ref.location,),
    )


def remember_revision(ref: Ref, commit: str, cache_dir: Path) -> None:
    """Note in the cache which commit a branch or tag was at, as the client does: for `--offline`.

    Best effort, like the client's: a cache that cannot be written only makes a later scan ask.
    """
    revision = ref.revision or _DEFAULT_REVISION
    if revision == commit or unsafe_name(revision):
        return
    place = repository_folder(cache_dir, ref.location) / "refs" / revision
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(commit)
    except OSError:
        return


def repository_folder(cache_dir: Path, repository: str) -> Path:
    """Return where the cache keeps a model repository."""
    return cache_dir / f"models--{repository.replace('/', '--')}"


def _commit(ref: Ref, repository: Path) -> str | None:
    revision = ref.revision or _DEFAULT_REVISION
    if COMMIT.fullmatch(revision):
        return revision
    if unsafe_name(revision):
        return None
    try:
        with (repository / "refs" / revision).open() as stream:
            commit = stream.read(64).strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _not_cached(ref: Ref, commit: str, cache_dir: Path, cached: set[str]) -> list[File]:
    """Return the files of the commit that are not cached, when the client kept its listing."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(ref.location, revision=commit, cache_dir=cache_dir)
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        return []
    prefix = f"{ref.subfolder}/" if ref.subfolder else ""
    files = []
    for entry in tree:
        path = entry.path.removeprefix(prefix)
        if entry.path.startswith(prefix) and path not in cached and not unsafe_name(path):
            file = File(path, entry.size, file_kind(path), None)
            why = why_not_fetched(file) or "offline, and it is not in the cache"
            files.append(replace(file, not_fetched=why))
    return files


def _offline_problems(missing: list[File]) -> list[Skipped]:
    online = "scan it once without --offline"
    needed = [file for file in missing if not why_not_fetched(file)]
    if needed:
        return [Skipped(file.path, file.not_fetched, True, online) for file in needed]
    return [
        Skipped("files that are not in the cache", "offline: they cannot be seen", False, online)
    ]
