"""Render reports as JUnit XML, which every build server shows: a target is a suite.

A finding at or above --fail-on fails its case, others pass with their text; what could not be
analysed is an error, and what nobody asked for is skipped: neither counts as passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from adapterscan.model import Finding, Outcome, Report, Severity, Skipped
from adapterscan.text import printable


def render_junit(outcome: Outcome) -> Iterator[str]:
    """Yield one document for all targets."""
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="adapterscan">\n'
    for report in outcome.reports:
        yield from _suite(report, outcome.fail_on)
    for target, error in outcome.errors:
        name = _quoted(target)
        yield f' <testsuite name={name} tests="1" failures="0" errors="1" skipped="0">\n'
        yield f'  <testcase classname={name} name="scan">\n'
        yield f"   <error message={_quoted(error.reason)}>{_text(error.hint)}</error>\n"
        yield "  </testcase>\n </testsuite>\n"
    yield "</testsuites>\n"


def _suite(report: Report, fail_on: Severity | None) -> Iterator[str]:
    skipped = report.coverage.skipped
    counted = [f for f in report.findings if not f.suppression]
    failing = [f for f in counted if fail_on is not None and f.severity >= fail_on]
    broken = sum(item.failed for item in skipped)
    name = _quoted(report.name)
    tests = max(1, len(report.findings) + len(skipped))
    yield (
        f' <testsuite name={name} tests="{tests}" failures="{len(failing)}" errors="{broken}" '
        f'skipped="{len(skipped) - broken}">\n'
    )
    for finding in report.findings:
        yield from _finding(finding, name, fails=finding in failing)
    for item in skipped:
        yield from _skipped(item, name)
    if not report.findings and not skipped:
        yield f'  <testcase classname={name} name="scan"/>\n'
    yield " </testsuite>\n"


def _finding(finding: Finding, suite: str, *, fails: bool) -> Iterator[str]:
    case = f"{finding.rule}: {finding.evidence[0].subject}"
    told = f"{_text(finding.message)}\n{_text(' '.join(finding.next_step.split()))}"
    yield f"  <testcase classname={suite} name={_quoted(case)}>\n"
    if fails:
        title = _quoted(f"{finding.severity.label}: {finding.title}")
        yield f"   <failure type={_quoted(finding.rule)} message={title}>{told}</failure>\n"
    else:
        yield f"   <system-out>{finding.severity.label}: {told}</system-out>\n"
    yield "  </testcase>\n"


def _skipped(item: Skipped, suite: str) -> Iterator[str]:
    tag = "error" if item.failed else "skipped"
    yield f"  <testcase classname={suite} name={_quoted(f'analysis of {item.what}')}>\n"
    yield f"   <{tag} message={_quoted(item.reason)}/>\n  </testcase>\n"


def _text(text: str) -> str:
    return escape(printable(text, 2000))


def _quoted(text: str) -> str:
    return quoteattr(printable(text, 400))
