"""Read a JSON report of ours again. Anybody can have written the file, so its shape is checked.

What is in it is untrusted as an adapter is: reporters escape it as they do what comes from a scan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from adapterscan.errors import AdapterscanError, UsageError
from adapterscan.model import (
    AdapterSummary,
    Confidence,
    Coverage,
    Evidence,
    FileKind,
    FileRecord,
    Finding,
    Outcome,
    Report,
    Scalar,
    Severity,
    Sha256,
    Skipped,
    SourceKind,
    Subject,
    Suppression,
)
from adapterscan.text import printable

REPORT_BYTES = 64 << 20
VERSION = "1"
EXIT_CODES = range(4)
T = TypeVar("T")


def read_report(path: Path) -> Outcome:
    """Return what a file says that `scan --format json` wrote.

    Raises UsageError for a file that is not there, too large, or no report of ours.
    """
    document = load(path)
    try:
        return _document(document)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise not_ours(path) from None


def load(path: Path) -> Any:
    """Return the JSON of a report file, of no shape in particular. Raises UsageError."""
    name = printable(str(path))
    try:
        if not path.is_file():
            raise UsageError(f"{name}: no such file", hint="name a JSON report")
        if path.stat().st_size > REPORT_BYTES:
            raise UsageError(
                f"{name} is too large for a report (over {REPORT_BYTES >> 20} MiB)",
                hint="a report of adapterscan is smaller; check the file",
            )
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{name} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError):
        raise not_ours(path) from None


def not_ours(path: Path) -> UsageError:
    """Return what is said of a file that is no report of ours."""
    return UsageError(
        f"{printable(str(path))} is no JSON report of adapterscan",
        hint="write one with: adapterscan scan … --format json -o report.json",
    )


def _document(table: Mapping[str, Any]) -> Outcome:
    if table["schema"] != VERSION:
        raise ValueError("another version of the schema")
    if _of(table["exit_code"], int) not in EXIT_CODES:
        raise ValueError("no exit code of ours")
    return Outcome(
        reports=_each(table["reports"], _report),
        errors=_each(table["errors"], _error),
        exit_code=table["exit_code"],
        fail_on=None if table["fail_on"] == "never" else Severity[_label(table["fail_on"])],
        notes=_each(table.get("notes", []), lambda text: _of(text, str)),
    )


def _error(table: Mapping[str, Any]) -> tuple[str, AdapterscanError]:
    error = AdapterscanError(_of(table["reason"], str), hint=_of(table["hint"], str))
    return _of(table["target"], str), error


def _report(table: Mapping[str, Any]) -> Report:
    coverage = table["coverage"]
    return Report(
        target=_of(table["target"], str),
        name=_of(table["name"], str),
        source=SourceKind(table["source"]),
        commit=_maybe(table["commit"], str),
        files=_each(table["files"], _file),
        adapters=_each(table["adapters"], _adapter),
        findings=_each(table["findings"], _finding),
        evidence=_each(table["evidence"], _evidence),
        counts=_table(table["evidence_counts"], int),
        coverage=Coverage(
            _each(coverage["inspected"], lambda text: _of(text, str)),
            _each(coverage["skipped"], _skipped),
        ),
        versions=_table(table["versions"], str),
        config_file=_maybe(table["config_file"], str),
    )


def _file(table: Mapping[str, Any]) -> FileRecord:
    digest = _maybe(table["sha256"], str)
    return FileRecord(
        path=_of(table["path"], str),
        size=_of(table["size"], int),
        kind=FileKind(table["kind"]),
        sha256=None if digest is None else Sha256(digest),
        status=_of(table["status"], str),
        verified=_maybe(table["verified"], bool),
    )


def _adapter(table: Mapping[str, Any]) -> AdapterSummary:
    norm = table["frobenius_norm"]
    return AdapterSummary(
        path=_of(table["path"], str),
        weights=_of(table["weights"], str),
        peft_type=_of(table["peft_type"], str),
        base_model=_maybe(table["base_model"], str),
        modules=_of(table["modules"], int),
        tensors=_of(table["tensors"], int),
        parameters=_of(table["parameters"], int),
        ranks=_table(table["ranks"], int),
        frobenius_norm=None if norm is None else float(norm),
    )


def _finding(table: Mapping[str, Any]) -> Finding:
    if not table["evidence"]:
        raise ValueError("a finding without evidence")
    return Finding(
        rule=_of(table["rule"], str),
        title=_of(table["title"], str),
        severity=Severity[_label(table["severity"])],
        confidence=Confidence[_label(table["confidence"])],
        message=_of(table["message"], str),
        next_step=_of(table["next_step"], str),
        count=_of(table["count"], int),
        evidence=_each(table["evidence"], _evidence),
        context=_table(table["context"], str),
        suppression=_suppression(table.get("suppression")),
        identifiers={
            _of(key, str): _each(value, lambda one: _of(one, str))
            for key, value in table["identifiers"].items()
        },
    )


def _suppression(table: Mapping[str, Any] | None) -> Suppression | None:
    if table is None:
        return None
    return Suppression(*(_of(table[key], str) for key in ("reason", "owner", "expires")))


def _evidence(table: Mapping[str, Any]) -> Evidence:
    subject = table["subject"]
    return Evidence(
        name=_of(table["name"], str),
        subject=Subject(*(_of(subject[key], str) for key in ("kind", "file", "name"))),
        value=_scalar(table["value"]),
        unit=_of(table["unit"], str),
        details={_of(key, str): _scalar(value) for key, value in table["details"].items()},
    )


def _skipped(table: Mapping[str, Any]) -> Skipped:
    return Skipped(
        what=_of(table["what"], str),
        reason=_of(table["reason"], str),
        failed=_of(table["failed"], bool),
        hint=_of(table["hint"], str),
        detector=_of(table["detector"], str),
        ask=_of(table.get("ask", ""), str),
    )


def _each(items: Any, made: Callable[[Any], T]) -> tuple[T, ...]:
    return tuple(made(item) for item in _of(items, list))


def _table(items: Any, kind: type[T]) -> dict[str, T]:
    return {_of(key, str): _of(value, kind) for key, value in _of(items, dict).items()}


def _of(value: Any, kind: type[T]) -> T:
    """Return a value of exactly this kind: a truth value is no number here."""
    if type(value) is not kind:
        raise TypeError(kind.__name__)
    return value


def _maybe(value: Any, kind: type[T]) -> T | None:
    return None if value is None else _of(value, kind)


def _scalar(value: Any) -> Scalar:
    if value is not None and type(value) not in (bool, int, float, str):
        raise TypeError("scalar")
    found: Scalar = value
    return found


def _label(text: Any) -> str:
    return _of(text, str).upper()
