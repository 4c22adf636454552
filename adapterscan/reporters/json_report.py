"""Render reports as versioned JSON: the wire format, declared apart from the nouns it is made of.

The schema ships as `adapterscan/schemas/report-1.json`. Adding a field keeps the version; removing
one or changing what it means raises it. Untrusted text is kept as it is but for hub tokens, and
escaped by JSON; numbers that are not finite become null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from adapterscan.model import (
    AdapterSummary,
    Evidence,
    FileRecord,
    Finding,
    Outcome,
    Report,
    Scalar,
    Skipped,
)
from adapterscan.text import redact, safe_json

SCHEMA_VERSION = "1"
_encode = json.JSONEncoder(allow_nan=False).encode


def render_json(outcome: Outcome) -> Iterator[str]:
    """Yield one JSON document for all targets in pieces.

    A finding, a fact or a file takes one line. What is still to be written is not held as text.
    """
    fail_on = outcome.fail_on
    document = {
        "schema": SCHEMA_VERSION,
        "exit_code": outcome.exit_code,
        "fail_on": fail_on.label if fail_on is not None else "never",
        "reports": (_report(report) for report in outcome.reports),
        "errors": (
            {"target": target, "reason": redact(error.reason), "hint": redact(error.hint)}
            for target, error in outcome.errors
        ),
        "notes": list(outcome.notes),
    }
    yield from _pieces(document, "\n ")
    yield "\n"


def _pieces(value: Any, indent: str) -> Iterator[str]:
    """Yield the JSON of `value`: an iterator and what holds one over several lines, else in one."""
    if isinstance(value, Iterator):
        empty = True
        yield "["
        for item in value:
            yield indent if empty else f",{indent}"
            yield from _pieces(item, f"{indent} ")
            empty = False
        yield "]" if empty else f"{indent[:-1]}]"
    elif _is_long(value):
        lead = "{"
        for key, item in value.items():
            yield f"{lead}{indent}{_compact(key)}: "
            yield from _pieces(item, f"{indent} ")
            lead = ","
        yield f"{indent[:-1]}}}"
    else:
        yield _compact(value)


def _compact(value: Any) -> str:
    return safe_json(_encode(value))


def _is_long(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_long, value.values()))
    return isinstance(value, Iterator)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the document."""
    text = resources.files("adapterscan").joinpath("schemas/report-1.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _report(report: Report) -> dict[str, Any]:
    worst = max((finding.severity for finding in report.findings), default=None)
    return {
        "target": report.target,
        "name": report.name,
        "source": report.source.value,
        "commit": report.commit,
        "summary": {
            "worst_severity": worst.label if worst is not None else None,
            "findings": len(report.findings),
            "complete": report.coverage.complete,
        },
        "adapters": map(_adapter, report.adapters),
        "findings": map(_finding, report.findings),
        "coverage": {
            "complete": report.coverage.complete,
            "inspected": list(report.coverage.inspected),
            "skipped": map(_skipped, report.coverage.skipped),
        },
        "files": map(_file, report.files),
        "evidence": map(_evidence, report.evidence),
        "evidence_counts": dict(report.counts),
        "versions": dict(report.versions),
        "config_file": report.config_file,
    }


def _adapter(adapter: AdapterSummary) -> dict[str, Any]:
    return {
        "path": adapter.path,
        "weights": adapter.weights,
        "peft_type": adapter.peft_type,
        "base_model": adapter.base_model,
        "modules": adapter.modules,
        "tensors": adapter.tensors,
        "parameters": adapter.parameters,
        "ranks": dict(adapter.ranks),
        "frobenius_norm": _number(adapter.frobenius_norm),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "title": finding.title,
        "severity": finding.severity.label,
        "confidence": finding.confidence.label,
        "message": finding.message,
        "next_step": finding.next_step,
        "count": finding.count,
        "evidence": map(_evidence, finding.evidence),
        "context": dict(finding.context),
        "identifiers": {key: list(value) for key, value in finding.identifiers.items()},
        "suppression": _suppression(finding),
    }


def _suppression(finding: Finding) -> dict[str, str] | None:
    held = finding.suppression
    if held is None:
        return None
    return {"reason": held.reason, "owner": held.owner, "expires": held.expires}


def _evidence(item: Evidence) -> dict[str, Any]:
    subject = {"kind": item.subject.kind, "file": item.subject.file, "name": item.subject.name}
    return {
        "name": item.name,
        "subject": subject,
        "value": _number(item.value),
        "unit": item.unit,
        "details": _numbers(item.details),
    }


def _skipped(item: Skipped) -> dict[str, Any]:
    return {
        "what": item.what,
        "reason": item.reason,
        "failed": item.failed,
        "hint": item.hint,
        "detector": item.detector,
        "ask": item.ask,
    }


def _file(record: FileRecord) -> dict[str, Any]:
    return {
        "path": record.path,
        "size": record.size,
        "kind": record.kind.value,
        "sha256": record.sha256,
        "status": record.status,
        "verified": record.verified,
    }


def _numbers(details: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {key: _number(value) for key, value in details.items()}


def _number(value: Scalar) -> Scalar:
    return None if isinstance(value, float) and not math.isfinite(value) else value
