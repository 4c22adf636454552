"""Compare weight files that loaders choose between: in one folder, and in folders below it.

Source: docs of each loader as in `formats/picking.py`. Two files in one folder are compared tensor
by tensor (`formats/twins.py`). An adapter in a folder below another one, as trainers leave in
`checkpoint-500`, is compared by the names and shapes of its tensors and by its bytes.
Limits: a checkpoint is meant to differ from what was trained on; what a loader takes is told from
names, so that a caller who names a file or a folder gets that one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from adapterscan.detectors.detector import Detector
from adapterscan.errors import ChangedWhileReading, FileProblem
from adapterscan.formats.picking import VALUE_HEADS, picks, takers
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.twins import Difference, difference
from adapterscan.model import Evidence, FileKind, Need, Scalar, Subject
from adapterscan.reading import Contents, Outline
from adapterscan.weighing.one_pass import hash_only
from adapterscan.weighing.summaries import NONE

COMPARED = 8  # pairs of files of a target that are read again
_OWN_NAME = re.compile(r"(?:adapter|pytorch_lora)[^/]*", re.IGNORECASE)


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `adapter.weights_disagree`, `adapter.picked`, `adapter.nested`, `file.value_head`."""
    by_folder: dict[str, list[Outline]] = defaultdict(list)
    for outline in contents.outlines:
        by_folder[outline.folder].append(outline)
    names = _weight_names(contents)
    for folder in sorted(names):
        yield from _picked(folder, names[folder])
    room = COMPARED
    for folder in sorted(by_folder):
        group = [item for item in by_folder[folder] if item.deltas or _has_own_name(item.file)]
        group.sort(key=lambda item: item.file)
        for other in group[1:]:
            room -= 1
            yield from _disagreement(contents, group[0], other, names.get(folder, []), room >= 0)
    yield from _nested(contents, by_folder)


def _weight_names(contents: Contents) -> dict[str, list[str]]:
    """Return by folder the names of what loaders may take for weights."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in contents.artifact.files:
        if file.kind in (FileKind.WEIGHTS, FileKind.PICKLE):
            path = PurePosixPath(file.path)
            found["" if str(path.parent) == "." else str(path.parent)].append(path.name)
    return found


def _picked(folder: str, names: Sequence[str]) -> Iterator[Evidence]:
    """Say what each loader takes where there is a choice."""
    chosen = picks(names)
    for name in VALUE_HEADS:
        if name in names:
            path = f"{folder}/{name}" if folder else name
            details: dict[str, Scalar] = {"taken_by": takers(name, names)}
            kind = name.rpartition(".")[2]
            yield Evidence("file.value_head", Subject("file", path), kind, "", details)
    peft = chosen["PEFT"]
    if not peft or len(names) < 2:
        return
    others = {
        loader: taken for loader, taken in chosen.items() if taken != peft and "head" not in loader
    }
    if others := {loader: taken for loader, taken in others.items() if taken}:
        told = "; ".join(f"{loader}: {', '.join(taken[:4])}" for loader, taken in others.items())
        details = {"peft": peft[0], "others": told, "loaders": ", ".join(others)}
        yield Evidence("adapter.picked", Subject("adapter", folder), len(others), "", details)


def _has_own_name(path: str) -> bool:
    return _OWN_NAME.fullmatch(PurePosixPath(path).name) is not None


def _disagreement(
    contents: Contents, first: Outline, other: Outline, names: Sequence[str], read: bool
) -> Iterator[Evidence]:
    """Two weight files in one folder: loaders differ in which they take, so they must agree.

    `read`: compare their values one by one, and not only the norm of each ΔW.
    """
    details: dict[str, Scalar] = {"first": first.file, "second": other.file}
    for key, outline in (("taken_first_by", first), ("taken_second_by", other)):
        details[key] = takers(PurePosixPath(outline.file).name, names)
    found = Difference()
    try:
        if read:
            found = _difference(contents, first, other)
    except FileProblem:  # which was told when it was read: compare what is known of it
        read = False
    value = _in_words(found) if read else _known_difference(first, other)
    if read:
        details |= {
            "tensors": found.differing + found.only_first + found.only_second + found.reshaped,
            "of": found.tensors + found.only_first + found.only_second + found.reshaped,
            "share": found.elements_differing / found.elements if found.elements else None,
            "largest": found.largest,
            "worst": found.worst,
            "unread": found.unread,
        }
    if value:
        yield Evidence("adapter.weights_disagree", Subject("adapter", first.folder), value,
                       details=details)  # fmt: skip


def _difference(contents: Contents, first: Outline, other: Outline) -> Difference:
    """Compare the files, and prove that they are those that were scanned."""
    files = [contents.file(item.file) for item in (first, other)]
    opened = [SourceFile(file.path, file.local) for file in files if file.local is not None]
    if len(opened) < len(files):
        for source in opened:
            source.__exit__(None, None, None)
        raise ChangedWhileReading(first.file, "is not here any more")
    with opened[0] as one, opened[1] as two:
        found = difference(one, two)
        for source in (one, two):
            hash_only(source)
            if source.sha256 != contents.sha256(source.path):
                hint = "scan again when nothing is writing to it"
                raise ChangedWhileReading(source.path, "changed while it was scanned", hint=hint)
    return found


def _in_words(found: Difference) -> str:
    if found.only_first or found.only_second or found.reshaped:
        return "names or shapes of tensors"
    return "values" if found else ""


def _known_difference(first: Outline, other: Outline) -> str:
    if first.shapes != other.shapes:
        return "names or shapes of tensors"
    if len(first.norms) != len(other.norms) or not all(map(_close, first.norms, other.norms)):
        return "values"
    return ""


def _close(one: float, two: float) -> bool:
    if one == NONE or two == NONE:
        return one == two
    return abs(one - two) <= 0.02 * max(abs(one), abs(two))  # a copy may be of another dtype


def _nested(contents: Contents, by_folder: dict[str, list[Outline]]) -> Iterator[Evidence]:
    """Tell each adapter that lies below another one, and whether it is the same."""
    digests = {record.path: record.sha256 for record in contents.records}
    for folder, group in by_folder.items():
        above = next((by_folder[name] for name in _parents(folder) if name in by_folder), None)
        if above is None:
            continue
        mine, outer = group[0], above[0]
        digest = digests.get(mine.file)
        if digest and digest == digests.get(outer.file):
            value = "the same bytes"
        else:
            value = "other values" if mine.shapes == outer.shapes else "other tensors"
        details: dict[str, Scalar] = {"below": outer.file, "file": mine.file}
        yield Evidence("adapter.nested", Subject("adapter", folder), value, "", details)


def _parents(folder: str) -> Iterator[str]:
    while folder:
        folder = folder.rpartition("/")[0]
        yield folder


DETECTOR = Detector(
    "twins", 1, frozenset({Need.FILES}), "weight files that loaders choose between", run,
    takes=lambda contents, _: contents.outlines,
)  # fmt: skip
