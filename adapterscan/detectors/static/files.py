"""Compare content with what the hub promised, and look at names that deceive.

Source: today's hub client checks the length of a download but not its content
(huggingface_hub#2364), so tampered bytes of equal length arrive unnoticed.
Limits: a local folder carries no promise to compare with; a hub that lies about both is believed.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import is_hidden

NAME_LIMIT = 512  # characters; the longest honest tensor name seen has 140


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `file.hash_mismatch`."""
    promised = {file.path: file.expected for file in contents.artifact.files}
    for record in contents.records:
        promise = promised[record.path]
        if record.verified is False and promise is not None:
            yield Evidence(
                "file.hash_mismatch",
                Subject("file", record.path),
                record.sha256,
                details={
                    "expected": promise.value,
                    "algorithm": promise.algorithm,
                    "source": promise.source,
                },
            )


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `container.hostile_name`."""
    for tensor in weighed.adapter.weights.tensors:
        hostile = _hostile(tensor.name)
        if hostile:
            subject = Subject("tensor", weighed.file, tensor.name)
            yield Evidence("container.hostile_name", subject, hostile)


def _hostile(name: str) -> str:
    if name.isascii() and name.isprintable():
        hidden: list[str] = []
    else:
        hidden = [character for character in name if is_hidden(character)]
    if any(ord(character) < 0xA0 for character in hidden):
        return "control"
    if hidden:
        return "invisible"
    if len(name) > NAME_LIMIT:
        return "overlong"
    parts = name.replace("\\", "/").split("/")
    return "traversal" if ".." in parts or (len(parts) > 1 and not parts[0]) else ""


DETECTOR = Detector("files", 1, frozenset({Need.FILES}), "content hashes and names", run, each)
