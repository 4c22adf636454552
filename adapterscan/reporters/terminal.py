"""Render reports for a person at a terminal: findings, and what was not looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tabulate import tabulate

from adapterscan.errors import AdapterscanError
from adapterscan.model import Evidence, Finding, Outcome, Report, Severity
from adapterscan.reporters.beside_base import beside_base
from adapterscan.reporters.composition import composition
from adapterscan.reporters.coverage import behaviour, coverage
from adapterscan.reporters.layout import Page
from adapterscan.reporters.verdict import bound, said
from adapterscan.text import plural, printable

__all__ = ["Page", "render_terminal"]

_COLOURS = {
    Severity.CRITICAL: "1;37;41", Severity.HIGH: "1;31", Severity.MEDIUM: "33", Severity.LOW: "36",
    Severity.INFO: "2",
}  # fmt: skip
_EVIDENCE_LINES = 3
_STANDINGS = 3  # adapters of one target
_SPOKEN = (
    ("asked", "request"),
    ("base + adapter", "adapter_answer"),
    ("base alone", "base_answer"),
)
_SPOKEN_LENGTH = 240  # characters of each


def render_terminal(outcome: Outcome, page: Page) -> str:
    """Return the text for all targets; untrusted text in it is escaped and bounded."""
    reports, errors = outcome.reports, outcome.errors
    lines: list[str] = []
    for before, report in zip((None, *reports), reports, strict=False):
        lines += [*_report(report, page, before), ""]
    for target, error in errors:
        lines += [*_error(target, error, page), ""]
    if len(reports) + len(errors) > 1:
        lines += [*_overview(reports, errors), ""]
    lines += [page.wrap(f"note: {note}", "  ", "") for note in outcome.notes]
    lines.append(_verdict(outcome, page))
    return "\n".join(lines) + "\n"


def _report(report: Report, page: Page, before: Report | None) -> Iterator[str]:
    place = f" at commit {printable(report.commit[:12])}" if report.commit else ""
    yield page.paint(f"{printable(report.name)}{place}", "1")
    yield from _adapters(report)
    yield from _standings(report, page)
    yield from composition(report, verbose=page.verbose)
    yield ""
    if report.findings:
        counted = [f for f in report.findings if not f.suppression]
        shown = [f for f in counted if f.severity > Severity.INFO or page.verbose]
        for finding in shown:
            yield from _finding(finding, page)
        for finding in report.findings:
            yield from _suppressed(finding, page)
        quiet = len(counted) - len(shown)
        if quiet:
            rules = ", ".join(f.rule for f in counted if f not in shown)
            yield page.wrap(f"  {plural(quiet, 'note')} of severity info ({rules})", "    ", "")
            yield ""
    else:
        yield "  No findings in what was analysed."
        yield ""
    yield from beside_base(report, page)
    yield from coverage(report, page, before)


def _adapters(report: Report) -> Iterator[str]:
    if not report.adapters:
        yield "  No adapter could be read here."
        return
    rows = [
        [
            printable(adapter.weights or adapter.path, 60),
            printable(adapter.peft_type, 20),
            printable(", ".join(adapter.ranks) or "-", 40),
            f"{adapter.modules:,}",
            f"{adapter.parameters:,}",
            f"{adapter.frobenius_norm:.3g}" if adapter.frobenius_norm is not None else "-",
            printable(adapter.base_model or "not named", 40),
        ]
        for adapter in report.adapters
    ]
    headers = ["adapter", "type", "rank", "modules", "parameters", "‖ΔW‖", "base model"]
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    yield from (f"  {line}".rstrip() for line in table.splitlines())


def _standings(report: Report, page: Page) -> Iterator[str]:
    """Yield how usual each adapter is among those of its kind, where it could be told."""
    found = [item for item in report.evidence if item.name == "adapter.standing"]
    shown = found if page.verbose else found[:_STANDINGS]
    for item in shown:
        d = item.details
        file = f" {printable(item.subject.file, 60)}" if len(report.adapters) > 1 else ""
        yield page.wrap(
            f"How usual{file}: p = {item.value:.2g} among {d['members']} adapters alike in "
            f"{printable(str(d['alike']))} (1 is ordinary, {d['floor']:.2g} the least)",
            "    ", "  ",
        )  # fmt: skip
    if len(found) > len(shown):
        yield f"  … {len(found) - len(shown)} more; --verbose shows all"


def _suppressed(finding: Finding, page: Page) -> Iterator[str]:
    """Yield one that was accepted: by whom, why and until when."""
    held = finding.suppression
    if held is not None:
        yield f"  SUPPRESSED {finding.severity.label} {finding.title}  [{finding.rule}]"
        told = f"{printable(held.reason, 400)} ({printable(held.owner)}, until {held.expires})"
        yield page.wrap(told, "    ")
        yield ""


def _finding(finding: Finding, page: Page) -> Iterator[str]:
    severity = page.paint(f" {finding.severity.label.upper()} ", _COLOURS[finding.severity])
    yield f" {severity} {page.paint(finding.title, '1')}  [{finding.rule}]"
    yield page.wrap(finding.message, "    ")
    lines = len(finding.evidence) if page.verbose else _EVIDENCE_LINES
    if finding.count > 1:
        for item in finding.evidence[:lines]:
            yield f"      - {printable(str(item.subject), 120)}{_value(item)}"
        if finding.count > lines:
            yield f"      … {finding.count - min(lines, len(finding.evidence)):,} more"
    yield from _transcript(finding.evidence[0], page)
    yield page.wrap(finding.next_step, "      ", "    → ")
    yield ""


def _transcript(item: Evidence, page: Page) -> Iterator[str]:
    """Yield what was asked and what both sides answered, where evidence of behaviour has it."""
    spoken = [(name, item.details.get(key)) for name, key in _SPOKEN]
    if all(isinstance(text, str) for _, text in spoken):
        for name, text in spoken:
            said = printable(" ⏎ ".join(str(text).splitlines()), _SPOKEN_LENGTH)
            yield page.wrap(f"“{said}”", " " * 24, f"      {name:<18}")


def _value(item: Evidence) -> str:
    if item.value is None:
        return ""
    value = f"{item.value:.4g}" if isinstance(item.value, float) else printable(str(item.value), 60)
    return f" ({value}{' ' + item.unit if item.unit else ''})"


def _error(target: str, error: AdapterscanError, page: Page) -> Iterator[str]:
    yield page.paint(printable(target), "1")
    yield page.wrap(f"not scanned: {printable(error.reason, 600)}", "    ", "  ")
    if error.hint:
        yield page.wrap(printable(error.hint, 600), "      ", "    → ")


def _overview(
    reports: Iterable[Report], errors: Iterable[tuple[str, AdapterscanError]]
) -> Iterator[str]:
    rows = [[printable(report.name, 70), *_counts(report), *_state(report)] for report in reports]
    rows += [
        [printable(target, 70), "", "", "", "", "not scanned", "not tested"] for target, _ in errors
    ]
    headers = ["target", "critical", "high", "medium", "low", "what was asked", "behaviour"]
    yield from tabulate(rows, headers, tablefmt="simple", disable_numparse=True).splitlines()


def _counts(report: Report) -> list[str]:
    counts = Counter(f.severity for f in report.findings if not f.suppression)
    order = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
    return [str(counts[severity]) for severity in order]


def _state(report: Report) -> tuple[str, str]:
    return "complete" if report.coverage.complete else "incomplete", behaviour(report)


def _verdict(outcome: Outcome, page: Page) -> str:
    told = [said(outcome), f"(exit code {outcome.exit_code}, --fail-on {bound(outcome)})"]
    code = outcome.exit_code
    style = "1;31" if code == 1 else "1;33" if code else "1;32"
    return page.paint(f"Result: {' '.join(told)}", style)
