"""Judge the names of files: which could escape a folder, which collide, how to show odd ones."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PureWindowsPath

from adapterscan.model import Evidence, Subject


def unsafe_name(path: str) -> str:
    """Return why the relative POSIX `path` could leave its folder on some system, or ""."""
    if not path or path.startswith("/"):
        return "is absolute" if path else "is empty"
    if "\\" in path:
        return "has a backslash"
    if "\0" in path:
        return "has a NUL character"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"has a {part!r} segment" if part else "has an empty segment"
        if PureWindowsPath(part).drive:
            return "has a drive letter"
    return ""


def label(path: str) -> str:
    """Return `path` as valid Unicode: bytes that are not UTF-8 become `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def name_collisions(paths: Iterable[str]) -> Iterator[Evidence]:
    """Yield one `file.name_collision` per path that equals an earlier one on some file system.

    Case-insensitive and normalising file systems (Windows, macOS) keep only one of the two, so what
    was reviewed and what is loaded can differ. `value` is the other name.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        groups[_folded(path)].append(path)
    for first, *others in groups.values():
        for other in others:
            yield Evidence("file.name_collision", Subject("file", other), first)


def _folded(path: str) -> str:
    folded = unicodedata.normalize("NFC", path).casefold()
    return unicodedata.normalize("NFC", folded)
