"""Render reports as versioned JSON: the wire format, declared apart from the nouns it is made of.

The schema ships as `adapterscan/schemas/report-1.json`. Adding a field keeps the version; removing
one or changing what it means raises it. Untrusted text is kept as it is, escaped by JSON; numbers
that are not finite become null.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from adapterscan.errors import AdapterscanError
from adapterscan.model import Evidence, FileRecord, Finding, Report, Scalar, Severity, Skipped
from adapterscan.text import redact

SCHEMA_VERSION = "1"


def render_json(
    reports: Iterable[Report],
    *,
    exit_code: int,
    fail_on: Severity | None,
    errors: Sequence[tuple[str, AdapterscanError]] = (),
) -> str:
    """Return one JSON document for all targets. `errors` are (target, why there is no report)."""
    document = {
        "schema": SCHEMA_VERSION,
        "exit_code": exit_code,
        "fail_on": fail_on.label if fail_on is not None else "never",
        "reports": [_report(report) for report in reports],
        "errors": [
            {"target": target, "reason": redact(error.reason), "hint": redact(error.hint)}
            for target, error in errors
        ],
    }
    text = io.StringIO()  # `dumps` would hold every piece at once: 500 MB for 99,000 tensors
    text.writelines(json.JSONEncoder(indent=1, allow_nan=False).iterencode(document))
    text.write("\n")
    return text.getvalue()


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
        "adapters": [
            {
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
            for adapter in report.adapters
        ],
        "findings": [_finding(finding) for finding in report.findings],
        "coverage": {
            "complete": report.coverage.complete,
            "inspected": list(report.coverage.inspected),
            "skipped": [_skipped(item) for item in report.coverage.skipped],
        },
        "files": [_file(record) for record in report.files],
        "evidence": [_evidence(item) for item in report.evidence],
        "versions": dict(report.versions),
        "config_file": report.config_file,
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
        "evidence": [_evidence(item) for item in finding.evidence],
        "context": dict(finding.context),
        "identifiers": {key: list(value) for key, value in finding.identifiers.items()},
    }


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
