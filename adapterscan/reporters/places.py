"""Where a reader finds what a report is about: addresses of targets and of files in them.

A folder below `root` (a checkout, in a pipeline) is named relative to it, so that code hosts find
the file; what lies elsewhere has an absolute address; a hub repository `hf://org/name@commit/`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

from adapterscan.model import Report, SourceKind


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a target. `relative` is below the root; `base` is its absolute address."""

    base: str  # ends in a slash; "" where paths are relative to the root
    relative: str  # from the root to the target's folder, escaped, ends in a slash, or ""

    def of(self, path: str) -> str:
        """Return the address of a file of the target, relative to `base` or to the root."""
        return f"{self.relative}{_escaped(path)}"


def place_of(report: Report, root: Path) -> Place:
    """Return where a report's target is. `root` is absolute."""
    if report.source is SourceKind.HUB:
        commit = f"@{_escaped(report.commit)}" if report.commit else ""
        repository = report.target.partition("@")[0].partition(":")[0]
        return Place(f"hf://{_escaped(repository)}{commit}/", "")
    text = os.path.normpath(os.path.join(root, report.target))  # noqa: PTH118 - touches no disk
    home = PurePath(text)
    if report.source is SourceKind.FILE:
        home = home.parent
    if not home.is_relative_to(root):
        return Place(f"file://{_escaped(home.as_posix())}/", "")
    below = home.relative_to(root).as_posix()
    return Place("", "" if below == "." else f"{_escaped(below)}/")


def _escaped(path: str) -> str:
    return quote(path, safe="/", errors="replace")
