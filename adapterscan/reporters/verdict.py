"""The result of a run in words, the same in every format that people read."""

from __future__ import annotations

from collections import Counter

from adapterscan.model import Outcome, Severity
from adapterscan.reporters.coverage import untested
from adapterscan.text import plural


def said(outcome: Outcome) -> str:
    """Return what was found, what was not analysed and what was not tested, in one line."""
    reports = outcome.reports
    findings = [finding for report in reports for finding in report.findings]
    counts = Counter(finding.severity for finding in findings if not finding.suppression)
    accepted = len(findings) - counts.total()
    found = ", ".join(f"{counts[s]} {s.label}" for s in reversed(Severity) if counts[s])
    incomplete = sum(not report.coverage.complete for report in reports)
    nothing = "no finding that counts" if accepted else "no findings"
    parts = [found or nothing] if reports else []
    if accepted:
        parts.append(f"{plural(accepted, 'finding')} suppressed")
    if incomplete:
        parts.append(f"{plural(incomplete, 'target')} not fully analysed")
    if outcome.errors:
        parts.append(f"{plural(len(outcome.errors), 'target')} not scanned")
    if told := untested(reports):
        parts.append(told)
    return "; ".join(parts)


def bound(outcome: Outcome) -> str:
    """Return from which severity on a finding fails the run, as one types it."""
    return outcome.fail_on.label if outcome.fail_on is not None else "never"
