"""Tell of credentials in files, and of what names its author's machine, people, runs and data.

Source: CWE-798, CWE-200, CWE-540. Whoever finds a hub token in a repository can replace its files.
Limits: formats in `formats/secret_kinds.py`. Whether a credential still works is not tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, FileKind, Need, Scalar, Subject
from adapterscan.provenance.papers import Found, is_licence
from adapterscan.reading import Contents
from adapterscan.text import printable

#: What people write into a card or a licence on purpose.
_MEANT = frozenset({"e-mail address", "data set", "run of a tracker"})
_EVENTS = re.compile(
    r"events\.out\.tfevents\.\d+\.([^.]{1,80}(?:\.[^.]{1,80}){0,6}?)(?:\.\d+){0,3}(?:\.v2)?"
)


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `leak.secret` and `leak.trace`."""
    for leak in contents.papers.leaks:
        secret = leak.secret
        details: dict[str, Scalar] = {
            "line": secret.line, "length": secret.length, "begins": printable(secret.start),
            "by": "form" if secret.sure else "context", "member": printable(leak.member),
        }  # fmt: skip
        subject = Subject("file", leak.path, printable(leak.member))
        yield Evidence("leak.secret", subject, secret.kind, "", details)
    for trace in contents.papers.traces:
        if trace.kind in _MEANT and _is_public(trace.path):
            continue
        yield _trace(trace.path, trace)
    for file in contents.artifact.files:
        name = PurePosixPath(file.path).name
        if (match := _EVENTS.fullmatch(name)) and file.kind is FileKind.OTHER:
            yield _trace(file.path, Found(file.path, "name of a machine", match[1], 1))


def _trace(path: str, trace: Found) -> Evidence:
    details: dict[str, Scalar] = {"kind": trace.kind, "times": trace.times}
    return Evidence("leak.trace", Subject("file", path), printable(trace.text), "", details)


def _is_public(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    return (
        name in ("readme.md", "readme")
        or is_licence(path)
        or name.endswith((".md", ".bib", ".cff"))
    )


DETECTOR = Detector(
    "leaks", 1, frozenset({Need.FILES}), "secrets and personal traces in texts", run
)
