"""Open a local folder or file: list it without leaving it, and say what could not be taken along.

Links are followed only to where a hub cache keeps its contents or inside the folder itself. FIFOs,
devices and sockets are never opened: a reader would hang on them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from adapterscan.errors import AccessDenied, NotFound
from adapterscan.model import (
    Artifact,
    Evidence,
    ExpectedDigest,
    File,
    FileKind,
    Ref,
    Skipped,
    Subject,
)
from adapterscan.sources.kinds import file_kind
from adapterscan.sources.names import label, name_collisions

MAX_ENTRIES = 10_000
MAX_DEPTH = 32
MAX_SETTINGS = 64 << 10  # bytes of `.git/config`

#: Version control and the hub client's own bookkeeping: no loader reads from there.
_BOOKKEEPING = (".git", ".hg", ".cache/huggingface")
_SPECIAL = {
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}

_Fact = File | Skipped | Evidence


def open_folder(
    ref: Ref, *, max_entries: int = MAX_ENTRIES, max_depth: int = MAX_DEPTH
) -> Artifact:
    """Return everything in the folder at `ref.location`, in sorted order, without reading contents.

    Raises NotFound when it is gone and AccessDenied when it may not be listed.
    """
    root = _resolved(ref)
    try:
        os.scandir(root).close()
    except OSError as error:
        raise AccessDenied(
            f"cannot list {label(str(root))} ({error.strerror})",
            hint="check the permissions of the folder",
        ) from error
    facts = list(_walk(_Tree(root, max_entries, max_depth)))
    return _artifact(ref, Path(ref.location), facts)


def open_file(ref: Ref) -> Artifact:
    """Return the one file at `ref.location`; beside weights also the `adapter_config.json`.

    The config is taken along because it holds the scale. Raises NotFound when the file is gone.
    """
    path = _resolved(ref)
    given = Path(ref.location).absolute()  # the name as asked for, not where a link leads
    facts = list(_entry_facts(given.name, given, path))
    taken = {given.name}
    config = given.with_name("adapter_config.json")
    weights = file_kind(label(given.name)) is FileKind.WEIGHTS
    if weights and given.name != config.name and os.path.lexists(config):
        tree = _Tree(given.parent.resolve(), MAX_ENTRIES, MAX_DEPTH)
        facts += _leaf(tree, config.name, tree.root / config.name)
        taken.add(config.name)
    facts += _siblings(given.parent, taken)
    return _artifact(ref, given.parent, facts)


@dataclass(frozen=True, slots=True)
class _Tree:
    root: Path  # real path: no link in it
    max_entries: int
    max_depth: int

    def allows(self, target: Path) -> bool:
        """Return whether a link to `target` (a real path) stays in the tree or in its hub cache."""
        if target.is_relative_to(self.root):
            return True
        cache = _cache_repository(self.root)
        if cache is None:
            return False
        # Newer clients keep one store of contents for all repositories beside the repositories.
        return target.is_relative_to(cache / "blobs") or target.is_relative_to(
            cache.parent / "blobs"
        )


def _resolved(ref: Ref) -> Path:
    try:
        return Path(ref.location).resolve(strict=True)
    except PermissionError as error:
        raise AccessDenied(
            f"not allowed to look at {label(ref.location)}",
            hint="check the permissions of the folders above it",
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise NotFound(
            f"no such file or folder: {label(ref.location)}",
            hint="check the spelling; a broken link counts as missing",
        ) from error


def _artifact(ref: Ref, folder: Path, facts: list[_Fact]) -> Artifact:
    files = tuple(
        sorted((fact for fact in facts if isinstance(fact, File)), key=lambda file: file.path)
    )
    evidence = [fact for fact in facts if isinstance(fact, Evidence)]
    evidence += name_collisions(file.path for file in files)
    problems = tuple(fact for fact in facts if isinstance(fact, Skipped))
    return Artifact(
        ref,
        label(ref.location),
        files,
        problems=problems,
        evidence=tuple(evidence),
        own_names=tuple(_own_names(folder)),
    )


def _own_names(folder: Path) -> Iterator[str]:
    """Yield the paths of `folder`, and a repository's id when it is a snapshot in a hub cache."""
    given, real = folder.absolute(), folder.resolve()
    yield from dict.fromkeys(label(Path(os.path.normpath(p)).as_posix()) for p in (given, real))
    cache = _cache_repository(real)
    if cache is not None:
        yield cache.name.removeprefix("models--").replace("--", "/")


def _walk(tree: _Tree) -> Iterator[_Fact]:
    """Yield a fact per entry below the root, folder by folder, each sorted by name."""
    pending = [("", 0)]
    seen = 0
    while pending:
        folder, depth = pending.pop()
        try:
            entries = sorted(_scan(tree, folder, seen), key=lambda entry: entry.name)
        except OSError as error:
            yield _failed(folder, f"the folder cannot be listed ({error.strerror})")
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if _is_bookkeeping(path):
                yield Skipped(label(path), "version control or cache data: not looked at", False)
                yield from _settings(tree.root / path, f"{path}/config")
                continue
            seen += 1
            if seen > tree.max_entries:
                yield _failed(
                    "", f"more than {tree.max_entries:,} files; the rest was not looked at"
                )
                return
            if not _is_folder(entry):
                yield from _leaf(tree, path, tree.root / path)
            elif depth + 1 > tree.max_depth:
                yield _failed(path, f"deeper than {tree.max_depth} folders")
            else:
                pending.append((path, depth + 1))


def _settings(folder: Path, path: str) -> Iterator[File]:
    """Yield git's settings, which hold the token of whoever cloned with one in the address."""
    place = folder / "config"
    try:
        status = place.lstat() if folder.name == ".git" and not folder.is_symlink() else None
    except OSError:
        return
    if status is not None and stat.S_ISREG(status.st_mode) and status.st_size <= MAX_SETTINGS:
        yield File(label(path), status.st_size, FileKind.OTHER, place)


def _scan(tree: _Tree, folder: str, seen: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(tree.root / folder) as entries:
        yield from islice(entries, tree.max_entries - seen + 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    junction = getattr(entry, "is_junction", None)  # Windows, Python 3.12
    if junction is not None and junction():
        return False
    return entry.is_dir(follow_symlinks=False)


def _is_bookkeeping(path: str) -> bool:
    return any(path == name or path.endswith("/" + name) for name in _BOOKKEEPING)


def _leaf(tree: _Tree, path: str, place: Path) -> Iterator[_Fact]:
    """Yield the facts about one entry that is not a folder itself."""
    try:
        is_link = stat.S_ISLNK(place.lstat().st_mode) or _is_junction(place)
        target = place.resolve()
        outside = is_link and not tree.allows(target)
        if not outside:
            target = place.resolve(strict=True)
    except (FileNotFoundError, RuntimeError):  # RuntimeError: a link to itself
        yield _failed(path, "a link to nothing")
        return
    except OSError as error:
        yield _failed(path, f"not readable ({error.strerror})")
        return
    if not is_link:
        yield from _entry_facts(path, place, place)
    elif outside:
        value = label(_link_text(place))
        yield Evidence("file.symlink_outside", Subject("file", label(path)), value)
        yield _failed(path, "a link that leaves the folder; it was not followed")
    elif target.is_dir():
        yield from _folder_link(tree, path, target)
    else:
        yield from _entry_facts(path, place, target)


def _folder_link(tree: _Tree, path: str, target: Path) -> Iterator[_Fact]:
    inside = target.relative_to(tree.root).as_posix() if target.is_relative_to(tree.root) else ""
    parts = PurePosixPath(inside).parts
    hidden = not inside or any(
        _is_bookkeeping("/".join(parts[: end + 1])) for end in range(len(parts))
    )
    if hidden and target != tree.root:
        yield _failed(path, "a link to a folder that is not looked at")
    else:
        yield Skipped(label(path), "a link to a folder that is looked at in its own place", False)


def _entry_facts(path: str, place: Path, target: Path) -> Iterator[_Fact]:
    fact = _entry(path, place, target)
    if isinstance(fact, Evidence):
        yield _failed(path, f"a {fact.value}, not a regular file; it was not opened")
    yield fact


def _entry(path: str, place: Path, target: Path) -> _Fact:
    """Return the File at `target`, seen in the tree at `place`; special files become evidence."""
    name = label(path)
    try:
        status = target.stat()
    except OSError as error:
        return _failed(path, f"not readable ({error.strerror})")
    if not stat.S_ISREG(status.st_mode):
        special = _SPECIAL.get(stat.S_IFMT(status.st_mode), "special file")
        return Evidence("file.special", Subject("file", name), special)
    return File(name, status.st_size, file_kind(name), target, _blob_promise(place))


def _blob_promise(place: Path) -> ExpectedDigest | None:
    """Return the digest that a hub cache promises: its links point to files named by their content.

    The first step of the link counts: in a shared store the final name is another kind of hash.
    """
    if not place.is_symlink():
        return None
    blob = Path(os.path.normpath(place.parent.resolve() / _link_text(place)))
    if blob.parent.name != "blobs" or not blob.parent.parent.name.startswith("models--"):
        return None
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        return ExpectedDigest("sha256", blob.name, "cache blob name")
    if re.fullmatch("[0-9a-f]{40}", blob.name):
        return ExpectedDigest("git-sha1", blob.name, "cache blob name")
    return None


def _cache_repository(root: Path) -> Path | None:
    """Return the `models--org--name` folder of a hub cache when `root` is one of its snapshots."""
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.parent.parent
    return None


def _siblings(folder: Path, taken: set[str]) -> list[_Fact]:
    others = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                others += entry.name not in taken
                if others >= MAX_ENTRIES:
                    break
    except OSError:
        return []
    if not others:
        return []
    count = f"{others:,} other {'entry' if others == 1 else 'entries'}"
    return [
        Skipped(
            f"{count} of the folder",
            "only this file was asked for",
            failed=False,
            hint="scan the folder instead",
        )
    ]


def _failed(path: str, reason: str) -> Skipped:
    return Skipped(label(path) or "the folder", reason, failed=True)


def _link_text(place: Path) -> str:
    try:
        return str(place.readlink())
    except OSError:
        return "a junction"


def _is_junction(place: Path) -> bool:
    isjunction = getattr(os.path, "isjunction", None)  # Python 3.12
    return bool(isjunction and isjunction(place))
