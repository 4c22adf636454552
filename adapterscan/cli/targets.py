"""Turn what was typed into references: standard input, revisions, folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from adapterscan.errors import AdapterscanError, UsageError

if TYPE_CHECKING:
    from adapterscan.model import Ref


def expanded(targets: Iterable[str]) -> Iterator[str]:
    """Replace `-` by the lines of standard input; blank lines and # comments are skipped."""
    for target in targets:
        if target != "-":
            yield target
            continue
        for line in sys.stdin.buffer:  # a line that is not UTF-8 is one bad target, not the end
            text = os.fsdecode(line).strip()
            if text and not text.startswith("#"):
                yield text


def parse_targets(
    targets: Iterable[str], revision: str | None
) -> tuple[list[Ref], list[tuple[str, AdapterscanError]]]:
    from adapterscan.sources import parse_ref

    refs: list[Ref] = []
    failures: list[tuple[str, AdapterscanError]] = []
    for text in targets:
        try:
            refs.append(parse_ref(text, revision=revision))
        except AdapterscanError as error:
            failures.append((text, error))
    if not refs and not failures:
        raise UsageError("no targets", hint="name a hub repository, a folder or a file")
    return refs, failures


def local_trees(refs: Iterable[Ref]) -> list[Path]:
    from adapterscan.model import SourceKind

    trees = []
    for ref in refs:
        if ref.kind is not SourceKind.HUB:
            path = Path(ref.location).expanduser().resolve()
            trees.append(path.parent if ref.kind is SourceKind.FILE else path)
    return trees


def outermost(folders: Iterable[str]) -> list[str]:
    """Drop folders that lie inside another one of the list: it is scanned with it."""
    kept: list[Path] = []
    for folder in sorted(map(Path, folders), key=lambda path: len(path.parts)):
        if not any(folder.is_relative_to(other) for other in kept):
            kept.append(folder)
    return [str(folder) for folder in kept]
