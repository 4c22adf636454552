"""Decide which files of a hub listing to fetch, and say of every other one why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol

from adapterscan.errors import TooLarge
from adapterscan.model import Evidence, File, FileKind, Skipped, Subject
from adapterscan.provenance.papers import is_licence, is_signature
from adapterscan.sources.kinds import is_companion_config, is_full_model
from adapterscan.sources.names import label, name_collisions, unsafe_name
from adapterscan.text import plural, size_text

MAX_TEXT_BYTES = 48 << 20  # Gemma 3's tokenizer.json has 33 MB
MAX_CODE_BYTES = 1 << 20  # of scripts and notebooks, which are read as text
MAX_PAPER_BYTES = 256 << 10  # licences, signatures and what a trainer noted, in text
MOST_PAPERS = 30  # of these: repositories can hold thousands of notes
MAX_PICKLE_BYTES = 64 << 20  # of larger ones, only what the search for pickles takes is read

_NOTES = (".json", ".yaml", ".yml", ".toml", ".cfg", ".conf", ".ini", ".log", ".txt")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fetch and what to say about the rest. The first three partition the files."""

    fetch: tuple[File, ...]
    ranged: tuple[File, ...]  # to be read by ranges
    listed: tuple[File, ...]
    problems: tuple[Skipped, ...]
    evidence: tuple[Evidence, ...]


class Planner(Protocol):
    """What decides which files of a listing to fetch. Raises TooLarge."""

    def __call__(self, listing: Iterable[File], *, max_bytes: int) -> Plan:
        """Return the plan for files whose paths are relative to the artifact's root."""
        ...


def plan(listing: Iterable[File], *, max_bytes: int) -> Plan:
    """Return the plan for a listing whose paths are relative to the artifact's root.

    Raises TooLarge when the files to fetch weigh more than `max_bytes` together.
    """
    fetch: list[File] = []
    ranged: list[File] = []
    listed: list[File] = []
    problems: list[Skipped] = []
    evidence: list[Evidence] = []
    seen: set[str] = set()
    papers = 0
    for file in sorted(listing, key=lambda file: file.path):
        reason = unsafe_name(file.path)
        if reason:
            found, problem = unsafe(file.path, reason)
            evidence.append(found)
            problems.append(problem)
        elif file.path in seen:
            problems.append(Skipped(label(file.path), "listed twice by the hub", failed=True))
        elif papers < MOST_PAPERS and _is_paper(file):
            papers += 1
            fetch.append(file)
        elif why := why_not_fetched(file):
            listed.append(replace(file, not_fetched=why))
        elif _is_for_ranges(file):
            ranged.append(file)
        else:
            fetch.append(file)
        seen.add(file.path)
    check_total(fetch, max_bytes)
    evidence += name_collisions(file.path for file in (*fetch, *ranged, *listed))
    return Plan(tuple(fetch), tuple(ranged), tuple(listed), tuple(problems), tuple(evidence))


def unsafe(path: str, reason: str) -> tuple[Evidence, Skipped]:
    """Return what to report about a name that could leave the download folder."""
    name = label(path)
    return (
        Evidence("file.unsafe_name", Subject("file", name), reason),
        Skipped(name, f"its name {reason}; it was not fetched", failed=True),
    )


def why_not_fetched(file: File) -> str:
    """Return why a file is only listed, or "" when it is needed."""
    if is_companion_config(file.path):
        return _too_big(file, MAX_TEXT_BYTES)
    match file.kind:
        case FileKind.CONFIG | FileKind.CARD | FileKind.PICKLE | FileKind.UNKNOWN:
            return ""
        case FileKind.WEIGHTS:
            named = "named like the weights of a whole model, not of an adapter"
            return named if is_full_model(file.path) else ""
        case FileKind.TOKENIZER:
            return _too_big(file, MAX_TEXT_BYTES)
        case FileKind.CODE:
            return "" if file.size <= MAX_CODE_BYTES else "a program of this size is not read"
        case FileKind.OTHER:
            return "not read by adapter loaders"


def _is_paper(file: File) -> bool:
    """Return whether a file that no loader reads is small, and may say where all comes from or
    give a secret away."""
    if file.kind is not FileKind.OTHER or not 0 < file.size <= MAX_PAPER_BYTES:
        return False
    name = PurePosixPath(file.path).name.lower()
    told = is_licence(file.path) or is_signature(file.path) or name.startswith("events.out.")
    return told or name.endswith(_NOTES)


def _is_for_ranges(file: File) -> bool:
    large = file.size > MAX_PICKLE_BYTES
    return large and file.kind in (FileKind.PICKLE, FileKind.UNKNOWN)


def _too_big(file: File, limit: int) -> str:
    if file.size <= limit:
        return ""
    return f"{size_text(file.size)} is more than is fetched of such a file ({size_text(limit)})"


def check_total(files: Sequence[File], max_bytes: int) -> None:
    """Raise TooLarge when files weigh more than `max_bytes` together."""
    total = sum(file.size for file in files)
    if total <= max_bytes:
        return
    largest = max(files, key=lambda file: file.size)
    raise TooLarge(
        f"{plural(len(files), 'file')} with {size_text(total)} would be fetched, more than the "
        f"limit of {size_text(max_bytes)}; the largest is {label(largest.path)} "
        f"with {size_text(largest.size)}",
        hint=f"allow it with --max-download {-(-total // 1_000_000)}MB, or name a subfolder "
        "with org/name:subfolder",
    )
