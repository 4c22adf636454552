"""Render reports as CSV: a line for each finding and for each part that was not analysed.

A spreadsheet takes a cell that begins with = + - @ for a formula: such cells begin with an
apostrophe here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from adapterscan.model import Finding, Outcome, Report
from adapterscan.text import printable

COLUMNS = (
    "target", "commit", "kind", "severity", "confidence", "rule", "title", "subjects", "file",
    "subject", "value", "unit", "message",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render_csv(outcome: Outcome) -> Iterator[str]:
    """Yield one table for all targets, with a head."""
    yield _line(COLUMNS)
    for report in outcome.reports:
        for finding in report.findings:
            yield _line(_finding(report, finding))
        for item in report.coverage.skipped:
            kind = "not analysed" if item.failed else "not tested"
            told = f"{item.reason}. {item.hint}" if item.hint else item.reason
            yield _line((*_head(report), kind, *[""] * 5, item.what, "", "", "", told))
    for target, error in outcome.errors:
        told = f"{error.reason}. {error.hint}" if error.hint else error.reason
        yield _line((target, "", "not scanned", *[""] * 9, told))


def _finding(report: Report, finding: Finding) -> Sequence[object]:
    worst = finding.evidence[0]
    value = "" if worst.value is None else worst.value
    return (
        *_head(report), "suppressed" if finding.suppression else "finding",
        finding.severity.label, finding.confidence.label, finding.rule,
        finding.title, finding.count, worst.subject.file, worst.subject.name, value, worst.unit,
        finding.message,
    )  # fmt: skip


def _head(report: Report) -> tuple[str, str]:
    return report.name, report.commit or ""


def _line(cells: Sequence[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_cell(cell) for cell in cells])
    return out.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value, 2000)
    return f"'{text}" if text.startswith(_FORMULA) else text
