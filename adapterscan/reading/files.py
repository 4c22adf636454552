"""Read the files of an artifact into adapters, documents and facts; whatever fails is kept as such.

Each file is opened once, and its content decides how it is parsed; its name only says what loaders
take it for. A file that breaks one reader leaves a Skipped, and the others go on.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from adapterscan.errors import (
    NO_MEMORY,
    NO_MEMORY_HINT,
    FileProblem,
    LimitExceeded,
    Unreadable,
)
from adapterscan.formats.parts import PartialFile, Span
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.sniff import COULD_HIDE_PICKLES, sniff
from adapterscan.model import (
    Artifact,
    File,
    FileKind,
    FileRecord,
    Skipped,
)
from adapterscan.reading.contents import (
    HEAD_BYTES,
    Contents,
    Outcome,
    Outline,
    WeighedAdapter,
    folder_of,
    note_problem,
)
from adapterscan.reading.documents import HASH_LIMIT, read_config_file, read_document
from adapterscan.reading.pickles import find_pickles_in, require_pickles
from adapterscan.reading.weights import read_container
from adapterscan.text import size_text
from adapterscan.weighing.one_pass import hash_only
from adapterscan.weighing.summaries import NONE

if TYPE_CHECKING:
    pass


def read(
    artifact: Artifact, *, workers: int, progress: Callable[[str], None] = lambda _: None
) -> Contents:
    """Read every fetched file of `artifact`, and keep all of its adapters."""
    contents = Contents(artifact)
    found = read_files(contents, workers=workers, progress=progress)
    contents.adapters = [weighed for weighed in found if weighed is not None]
    return contents


def read_files(
    contents: Contents, *, workers: int, progress: Callable[[str], None] = lambda _: None
) -> Iterator[WeighedAdapter | None]:
    """Read every fetched file of `contents.artifact`, configs and cards first.

    Yields after each file the adapter that is in it, or None. Only the caller keeps it, and may
    take the facts out of `contents` as well: a repository can have 10,000 files.
    """
    files = contents.artifact.files
    folders = Counter(folder_of(file.path) for file in files if file.kind is FileKind.WEIGHTS)
    for file in sorted(files, key=_in_order):
        if file.parts is not None:
            progress(file.path)
            _read_parts(contents, file)
        elif file.local is None:
            contents.records.append(_record(file, None, "listed only"))
        else:
            progress(file.path)
            _read_file(contents, file, workers)
        if contents.adapters:
            folder = contents.adapters[0].adapter.folder
            contents.outlines.append(_outline(contents.adapters[0], folders[folder] > 1))
        yield contents.adapters.pop() if contents.adapters else None
    contents.records.sort(key=lambda record: record.path)


def _in_order(file: File) -> tuple[bool, bool, str]:
    """Return what sorts configs first, then cards: adapters are compared with both."""
    return file.kind is not FileKind.CONFIG, file.kind is not FileKind.CARD, file.path


def _outline(weighed: WeighedAdapter, has_twin: bool) -> Outline:
    adapter, summaries = weighed.adapter, weighed.weighed.deltas
    shapes = hashlib.blake2b()
    for name, shape in sorted((tensor.name, tensor.shape) for tensor in adapter.weights.tensors):
        shapes.update(f"{name!r} {shape}\n".encode())
    outline = Outline(
        weighed.file, adapter.folder, adapter.config.path, shapes.digest(), len(adapter.deltas)
    )
    if not has_twin:
        return outline
    measured: dict[str, float] = dict(summaries.of("frobenius"))
    norms = (measured.get(name, NONE) for name in sorted(delta.name for delta in adapter.deltas))
    return replace(outline, norms=array("d", norms))


def _read_file(contents: Contents, file: File, workers: int) -> None:
    assert file.local is not None  # noqa: S101  the caller lists unfetched files apart
    outcome = Outcome()
    source: SourceFile | None = None
    git_sha1 = file.expected is not None and file.expected.algorithm == "git-sha1"
    try:
        with SourceFile(file.path, file.local, git_sha1=git_sha1) as source:
            try:
                _dispatch(contents, file, source, workers, outcome)
            except FileProblem as problem:
                outcome.status = "not analysed"
                note_problem(contents, file, problem)
            except Exception as error:  # input is hostile: whatever it breaks, the others are read
                outcome.status = "not analysed"
                note_problem(contents, file, _defect(file, error))
            contents.papers.take(file, source)
            if source.sha256 is None and _worth_hashing(file, source):
                hash_only(source)  # a broken file is identified all the same
    except FileProblem as problem:
        if outcome.status != "not analysed":
            outcome.status = "not analysed"
            note_problem(contents, file, problem)
    contents.records.append(_record(file, source, outcome.status))


def _read_parts(contents: Contents, file: File) -> None:
    """Judge a file that is too large to fetch by what its parts hold: its pickles."""

    def bring(spans: Sequence[Span]) -> NoReturn:
        reason = file.not_fetched or "could not be read by ranges where its pickles go on"
        hint = "scan again, name a subfolder, or download it and scan the folder it is in"
        raise Unreadable(file.path, reason, hint=hint)

    outcome = Outcome("partly analysed")
    source = PartialFile(file.path, file.size, bring, file.parts or ())
    what = ""
    try:
        container = sniff(source.read(0, HEAD_BYTES))
        if file.kind is FileKind.PICKLE or container in COULD_HIDE_PICKLES:
            what = _WHAT_WAS_READ.get(container, ": its start and its end")
            found, facts = find_pickles_in(contents, file, source)
            if file.kind is FileKind.PICKLE:
                require_pickles(file, container, found, facts)
        else:
            outcome.status, what = "listed only", ": its start, which is no pickle and no archive"
    except FileProblem as problem:
        outcome.status = "not analysed"
        note_problem(contents, file, problem)
    except Exception as error:  # input is hostile: whatever it breaks, the others are read
        outcome.status = "not analysed"
        note_problem(contents, file, _defect(file, error))
    if source.held:
        contents.skipped.append(
            Skipped(
                file.path,
                f"{size_text(source.held)} of {size_text(file.size)} were read"
                f"{what if outcome.status != 'not analysed' else ''}; the rest was not, and "
                "nothing of it could be compared with the hub's hash",
                failed=False, detector="reading",
                hint="download it and scan the folder to have all of it hashed",
            )
        )  # fmt: skip
    contents.records.append(_record(file, None, outcome.status))


#: What is read of a file by ranges, by its container.
_WHAT_WAS_READ: Mapping[str, str] = {
    "zip": ": its pickles, its directory and where each member begins",
    "pickle": ": its pickles and its end",
}


def _worth_hashing(file: File, source: SourceFile) -> bool:
    """Return whether a file that no analysis read to its end is hashed: what loaders load, is."""
    loaded = file.kind in (FileKind.WEIGHTS, FileKind.PICKLE)
    return loaded or (file.kind is not FileKind.OTHER and source.size <= HASH_LIMIT)


def _defect(file: File, error: Exception) -> FileProblem:
    if isinstance(error, MemoryError):
        return LimitExceeded(file.path, NO_MEMORY, hint=NO_MEMORY_HINT)
    return Unreadable(
        file.path, f"could not be analysed ({type(error).__name__})",
        hint="this is a defect of adapterscan: please report it with the adapter's name",
    )  # fmt: skip


def _dispatch(
    contents: Contents, file: File, source: SourceFile, workers: int, outcome: Outcome
) -> None:
    if file.kind is FileKind.CONFIG:
        read_config_file(contents, file, source)
    elif file.kind in (FileKind.WEIGHTS, FileKind.PICKLE):
        read_container(contents, file, source, workers, outcome)
    else:
        read_document(contents, file, source, outcome)


def _record(file: File, source: SourceFile | None, status: str) -> FileRecord:
    sha256 = source.sha256 if source else None
    verified: bool | None = None
    if file.expected is not None and source is not None:
        actual = source.sha256 if file.expected.algorithm == "sha256" else source.git_sha1
        verified = actual == file.expected.value if actual else None
    return FileRecord(file.path, file.size, file.kind, sha256, status, verified)
