"""Render reports as Markdown, for job summaries and comments.

Untrusted text stands in code spans only, where Markdown has no links, images or mentions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterscan.model import Evidence, Finding, Outcome, Report, Severity, Skipped
from adapterscan.reporters.verdict import bound, said
from adapterscan.text import plural, printable

SHOWN = 50  # findings of a target that are told in full; a summary may hold a megabyte
EVIDENCE = 3  # subjects of a finding
_MARKS = re.compile(r"([\\`*_{}\[\]()<>#|~@:&$])")


def render_markdown(outcome: Outcome) -> Iterator[str]:
    """Yield one document for all targets."""
    yield f"## adapterscan: {_text(said(outcome))}\n\n"
    yield f"Exit code {outcome.exit_code}, `--fail-on {bound(outcome)}`.\n\n"
    for report in outcome.reports:
        yield from _report(report)
    for target, error in outcome.errors:
        yield f"### {_code(target)}\n\nNot scanned: {_text(error.reason)}. {_text(error.hint)}\n\n"


def _report(report: Report) -> Iterator[str]:
    commit = f" at commit {_code(report.commit[:12])}" if report.commit else ""
    yield f"### {_code(report.name)}{commit}\n\n"
    failed = [item for item in report.coverage.skipped if item.failed]
    if failed:
        yield f"**Not fully analysed** ({plural(len(failed), 'part')}):\n\n"
        yield from (f"- {_skipped(item)}\n" for item in failed[:SHOWN])
        yield "\n"
    asks = [item for item in report.coverage.skipped if item.ask]
    if asks:
        told = "; ".join(f"{_text(item.what)} ({_code(item.ask)})" for item in asks)
        yield f"Not tested: {told}.\n\n"
    counted = [finding for finding in report.findings if not finding.suppression]
    loud = [finding for finding in counted if finding.severity > Severity.INFO]
    if loud:
        yield "| severity | finding | rule | about |\n|---|---|---|---|\n"
        yield from (_row(finding) for finding in loud[:SHOWN])
        yield "\n"
        for finding in loud[:SHOWN]:
            yield from _finding(finding)
    elif len(counted) == len(report.findings):
        above = " above info" if counted else ""
        yield f"No findings{above} in what was analysed.\n\n"
    quiet = [finding.rule for finding in counted if finding.severity == Severity.INFO]
    if quiet:
        yield f"Notes of severity info: {', '.join(_code(rule) for rule in quiet)}.\n\n"
    for finding in report.findings:
        if held := finding.suppression:
            told = f"{_text(held.reason)} ({_text(held.owner)}, until {_text(held.expires)})"
            yield f"Suppressed: {_text(finding.title)} ({finding.severity.label}): {told}.\n\n"
    if len(loud) > SHOWN:
        yield f"… {len(loud) - SHOWN} more.\n\n"


def _row(finding: Finding) -> str:
    first = finding.evidence[0].subject
    more = f" and {finding.count - 1:,} more" if finding.count > 1 else ""
    return (
        f"| {finding.severity.label.upper()} | {_text(finding.title)} | {_code(finding.rule)} "
        f"| {_code(str(first), 80)}{more} |\n"
    )


def _finding(finding: Finding) -> Iterator[str]:
    yield f"<details><summary>{_text(finding.title)} ({finding.severity.label})</summary>\n\n"
    yield f"{_code(finding.message, 1500)}\n\n"
    if finding.count > 1:
        yield from (f"- {_evidence(item)}\n" for item in finding.evidence[:EVIDENCE])
        yield "\n"
    yield f"Next: {_text(' '.join(finding.next_step.split()), 1500)}\n\n</details>\n\n"


def _evidence(item: Evidence) -> str:
    value = f" = {_code(f'{item.value} {item.unit}'.strip(), 80)}" if item.value is not None else ""
    return f"{_code(str(item.subject), 120)}{value}"


def _skipped(item: Skipped) -> str:
    hint = f" ({_text(item.hint)})" if item.hint else ""
    return f"{_code(item.what)}: {_code(item.reason, 300)}{hint}"


def _text(text: str, limit: int = 300) -> str:
    """Return text in which Markdown finds no mark."""
    return _MARKS.sub(r"\\\1", printable(text, limit)) if text else ""


def _code(text: str, limit: int = 200) -> str:
    """Return untrusted text as a code span: it holds no run of as many backticks as are around it.

    A bar would end the cell of a table even inside a span.
    """
    shown = printable(text, limit).replace("|", "¦")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return f"{fence}{space}{shown}{space}{fence}"
