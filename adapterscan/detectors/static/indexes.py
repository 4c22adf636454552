"""Compare an index of shards with the files that are there, and with where it may lead.

Source: transformers 5.23 opens whatever the index names, `../` and absolute paths included, by
the suffix of the name: a `.bin` in a safetensors index is unpickled.
Limits: the names of tensors in the shards are not compared with those in the index.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.formats.weight_index import WeightIndex
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

_SHARD = re.compile(r".*-\d{1,6}-of-\d{1,6}\.(?:safetensors|bin|pt|h5)")
_WEIGHTS = (".bin", ".ckpt", ".h5", ".msgpack", ".pt", ".pth", ".safetensors")
_ROOTED = re.compile(r"[/~\\]|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]{1,20}://")


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `index.entry`, `index.unlisted` and `index.duplicate_tensor`."""
    there = {file.path for file in contents.artifact.files}
    named: set[str] = set()
    for index in contents.indexes:
        folder = posixpath.dirname(index.path)
        for shard, tensors in index.shards.items():
            place = posixpath.normpath(posixpath.join(folder, shard.replace("\\", "/")))
            named.add(place)
            if kind := _kind(index, shard, place, there):
                subject = Subject("field", index.path, printable(shard))
                details: dict[str, Scalar] = {"tensors": tensors}
                yield Evidence("index.entry", subject, kind, details=details)
        if index.odd:
            subject = Subject("field", index.path, "weight_map")
            yield Evidence("index.entry", subject, "no text", details={"tensors": index.odd})
        for tensor in index.repeated:
            subject = Subject("field", index.path, printable(tensor))
            yield Evidence("index.duplicate_tensor", subject, printable(tensor))
    folders = {posixpath.dirname(index.path) for index in contents.indexes}
    for path in sorted(there - named):
        if posixpath.dirname(path) in folders and _SHARD.fullmatch(path.lower()):
            yield Evidence("index.unlisted", Subject("file", path), "named by no index")


def _kind(index: WeightIndex, shard: str, place: str, there: set[str]) -> str:
    """Return "outside", "another format", "subfolder", "missing", or "" for an honest entry."""
    if _ROOTED.match(shard) or ".." in re.split(r"[/\\]", shard):
        return "outside"
    strict = ".safetensors." in index.path.lower()
    if not shard.endswith(".safetensors" if strict else _WEIGHTS):
        return "another format"
    if place not in there:
        return "missing"
    return "subfolder" if "/" in shard or "\\" in shard else ""


DETECTOR = Detector(
    "indexes", 1, frozenset({Need.FILES}), "indexes of shards", run,
    takes=lambda contents, _: contents.indexes,
)  # fmt: skip
