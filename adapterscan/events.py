"""What a scan tells while it goes, in order, and how that crosses from one process to another.

One JSON array in a line. Whoever reads it checks every type: the process that wrote it has parsed
what strangers made. Numbers that are not finite cross as Python's JSON writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapterscan.model import (
    AdapterSummary,
    Evidence,
    FileKind,
    FileRecord,
    Scalar,
    Sha256,
    Skipped,
    SourceKind,
    Subject,
)

LONGEST_LINE = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A report begins. `versions` lacks what judges: the rules."""

    target: str
    name: str
    source: SourceKind
    commit: str | None
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """A file of the target is about to be read; "": all were, what they say together is next."""

    path: str


@dataclass(frozen=True, slots=True)
class Doing:
    """Something that takes long, for a person who waits."""

    text: str


@dataclass(frozen=True, slots=True)
class Asking:
    """A model is about to be asked questions, for so many seconds at most."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Inspected:
    """An analysis had something to look at and got to its end."""

    what: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The report is complete."""


Event = (
    Opened | Reading | Doing | Asking | Inspected | Closed
    | Evidence | Skipped | AdapterSummary | FileRecord
)  # fmt: skip
Emit = Callable[[Event], None]

_json = json.JSONEncoder(separators=(",", ":")).encode


def encode(event: Event) -> str:
    """Return the line of an event, without its end."""
    match event:
        case Evidence(name, subject, value, unit, details):
            about = [subject.kind, subject.file, subject.name]
            return _json(["fact", name, *about, value, unit, dict(details)])
        case Skipped(what, reason, failed, hint, detector, ask):
            return _json(["skipped", what, reason, failed, hint, detector, ask])
        case Reading(path):
            return _json(["reading", path])
        case Doing(text):
            return _json(["doing", text])
        case Asking(seconds):
            return _json(["asking", seconds])
        case Inspected(what):
            return _json(["inspected", what])
        case FileRecord(path, size, kind, sha256, status, verified):
            return _json(["file", path, size, kind.value, sha256, status, verified])
        case AdapterSummary():
            return _json(["adapter", *_adapter(event)])
        case Opened(target, name, source, commit, versions):
            return _json(["opened", target, name, source.value, commit, dict(versions)])
        case Closed():
            return _json(["closed"])


def decode(line: bytes | str) -> Event:
    """Return the event of a line. Raises ValueError for anything else."""
    try:
        kind, *values = json.loads(line)
        return _DECODERS[kind](values)
    except (TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError("no event") from error


def _adapter(item: AdapterSummary) -> tuple[object, ...]:
    return (
        item.path, item.weights, item.peft_type, item.base_model, item.modules, item.tensors,
        item.parameters, dict(item.ranks), item.frobenius_norm,
    )  # fmt: skip


def _fact(values: list[Any]) -> Evidence:
    name, kind, file, subject, value, unit, details = values
    about = Subject(*map(_text, (kind, file, subject)))
    return Evidence(_text(name), about, _scalar(value), _text(unit), _table(details, _scalar))


def _skipped(values: list[Any]) -> Skipped:
    what, reason, failed, hint, detector, ask = values
    texts = map(_text, (hint, detector, ask))
    return Skipped(_text(what), _text(reason), _is(failed, bool), *texts)


def _file(values: list[Any]) -> FileRecord:
    path, size, kind, sha256, status, verified = values
    digest = None if sha256 is None else Sha256(_text(sha256))
    seen = None if verified is None else _is(verified, bool)
    return FileRecord(_text(path), _is(size, int), FileKind(kind), digest, _text(status), seen)


def _summary(values: list[Any]) -> AdapterSummary:
    path, weights, kind, base, modules, tensors, parameters, ranks, norm = values
    return AdapterSummary(
        _text(path), _text(weights), _text(kind), _maybe(base), _is(modules, int),
        _is(tensors, int), _is(parameters, int), _table(ranks, lambda count: _is(count, int)),
        None if norm is None else _is(norm, float),
    )  # fmt: skip


def _opened(values: list[Any]) -> Opened:
    target, name, source, commit, versions = values
    table = _table(versions, _text)
    return Opened(_text(target), _text(name), SourceKind(source), _maybe(commit), table)


def _asked(seconds: Any) -> float:
    found: float = _is(seconds, float)
    return found


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(kind)
    return value


def _text(value: Any) -> str:
    text: str = _is(value, str)
    return text


def _maybe(value: Any) -> str | None:
    return None if value is None else _text(value)


def _scalar(value: Any) -> Scalar:
    if value is not None and type(value) not in (str, float, int, bool):
        raise TypeError(value)
    found: Scalar = value
    return found


def _table(value: Any, each: Callable[[Any], Any]) -> dict[str, Any]:
    return {_text(key): each(item) for key, item in _is(value, dict).items()}


_DECODERS: Mapping[str, Callable[[list[Any]], Event]] = {
    "fact": _fact,
    "skipped": _skipped,
    "file": _file,
    "adapter": _summary,
    "opened": _opened,
    "reading": lambda values: Reading(_text(*values)),
    "doing": lambda values: Doing(_text(*values)),
    "asking": lambda values: Asking(_asked(*values)),
    "inspected": lambda values: Inspected(_text(*values)),
    "closed": lambda values: Closed(*values),
}
