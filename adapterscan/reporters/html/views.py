"""What the page says of one report: words and pictures, worked out before a template sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adapterscan.model import Evidence, FileRecord, Finding, Report, Scalar, Severity, Skipped
from adapterscan.reporters.coverage import behaviour, files, inspected
from adapterscan.reporters.html import behaviour as asked
from adapterscan.reporters.html import beside
from adapterscan.reporters.html.bars import Bar, Panel, bar
from adapterscan.reporters.html.together import Pairs, pairs
from adapterscan.reporters.html.weights import Heat, adapters_left_out, heats
from adapterscan.reporters.html.words import details, number, spoken
from adapterscan.rules.file import Rule
from adapterscan.text import plural

FILES, SKIPPED, ADAPTERS = 500, 200, 200  # that are listed of one report
_TRANSCRIPTS = 5  # of one finding
_SPOKEN = frozenset({"request", "adapter_answer", "base_answer"})


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was asked, and what both sides answered; wordings and payloads are marked."""

    asked: Markup
    adapter: Markup
    base: Markup


@dataclass(frozen=True, slots=True)
class FindingView:
    """A finding with its transcripts, its evidence as rows of text, and its rule's page."""

    finding: Finding
    transcripts: tuple[Transcript, ...]
    rows: tuple[tuple[str, str, str], ...]  # subject, value, details
    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How usual an adapter is among those of its kind."""

    fact: Evidence
    bar: Bar


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said of a target where several are listed. `key` begins every id of its elements."""

    key: str
    name: str
    level: str  # the worst severity, else "incomplete" or "none"
    headline: str
    counts: tuple[tuple[str, int], ...]
    complete: bool
    behaviour: str


@dataclass(frozen=True, slots=True)
class View:
    """One report as the page shows it."""

    summary: Summary
    report: Report
    failed: tuple[Skipped, ...]
    untested: tuple[Skipped, ...]
    findings: tuple[FindingView, ...]
    standings: tuple[Standing, ...]
    heats: tuple[Heat, ...]
    undrawn: int
    compared: tuple[tuple[str, beside.Lines], ...]
    panels: tuple[Panel, ...]
    heard: tuple[Evidence, ...]
    pairs: Pairs | None
    read: str
    inspected: str
    files: tuple[FileRecord, ...]


def summary(report: Report, index: int) -> Summary:
    """Return the verdict on the `index`th target, counted from 1."""
    found = _counts(report)
    return Summary(
        key=f"r{index}",
        name=report.name,
        level=level_of(report),
        headline=headline(report),
        counts=tuple((severity.label, found[severity]) for severity in reversed(Severity)),
        complete=report.coverage.complete,
        behaviour=behaviour(report),
    )


def view(report: Report, told: Summary, rules: Mapping[str, Rule]) -> View:
    """Return what the page says of `report`. `rules` are the pages of those that judged it."""
    key, skipped = told.key, report.coverage.skipped
    return View(
        summary=told,
        report=report,
        failed=tuple(item for item in skipped if item.failed),
        untested=tuple(item for item in skipped if not item.failed),
        findings=tuple(
            _finding(item, rules.get(item.rule))
            for item in sorted(report.findings, key=lambda item: item.suppression is not None)
        ),
        standings=tuple(_standings(report)),
        heats=tuple(heats(report, key)),
        undrawn=adapters_left_out(report),
        compared=tuple(beside.lines(report)),
        panels=(*asked.panels(report), *beside.panels(report)),
        heard=tuple(asked.heard(report)),
        pairs=pairs(report, key),
        read=files(report),
        inspected=inspected(report),
        files=tuple(_ordered(report.files)),
    )


def level_of(report: Report) -> str:
    """Return the worst severity that was found, else `incomplete` or `none`: never `safe`."""
    if counts := _counts(report):
        worst = max(counts)
        if worst > Severity.INFO or report.coverage.complete:
            return worst.label
    return "none" if report.coverage.complete else "incomplete"


def headline(report: Report) -> str:
    """Return the verdict on one target in words, with what stands in its way."""
    counts = _counts(report)
    told = ", ".join(f"{counts[s]} {s.label}" for s in reversed(Severity) if counts[s])
    parts = [told or "No findings in what was analysed"]
    if accepted := len(report.findings) - counts.total():
        parts = [told or "No other findings", f"{plural(accepted, 'finding')} suppressed"]
    if failed := sum(item.failed for item in report.coverage.skipped):
        parts.append(f"{plural(failed, 'thing')} could not be analysed")
    if behaviour(report) == "not tested":
        parts.append("behaviour was not tested")
    elif behaviour(report) == "incomplete":
        parts.append("behaviour was not tested to the end")
    return "; ".join(parts)


def _counts(report: Report) -> Counter[Severity]:
    """Return how many findings count of each severity: those that nobody accepted."""
    return Counter(finding.severity for finding in report.findings if not finding.suppression)


def _finding(finding: Finding, rule: Rule | None) -> FindingView:
    told = [item for item in finding.evidence if item.details.keys() >= _SPOKEN]
    rows = tuple(
        (str(item.subject), _value(item), details(item.details, _SPOKEN))
        for item in finding.evidence
    )
    return FindingView(finding, tuple(map(_transcript, told[:_TRANSCRIPTS])), rows, rule)


def _transcript(item: Evidence) -> Transcript:
    d = item.details
    set_off: tuple[Scalar, ...] = (d.get("trigger"), d.get("wording"))
    answer: tuple[Scalar, ...] = (d.get("payload"), d.get("text"))
    return Transcript(
        spoken(d["request"], *set_off),
        spoken(d["adapter_answer"], *answer),
        spoken(d["base_answer"], *answer),
    )


def _value(item: Evidence) -> str:
    return "" if item.value is None else f"{number(item.value)} {item.unit}".strip()


def _standings(report: Report) -> Iterator[Standing]:
    for item in report.evidence:
        if item.name == "adapter.standing":
            told = f"p = {number(item.value)}"
            yield Standing(item, bar("p", "adapter", item.value, told=told))


def _ordered(records: Iterable[FileRecord]) -> Sequence[FileRecord]:
    """Return what differs from its promise first, then what was read, in the order of names."""
    rank = {"not analysed": 0, "partly analysed": 1, "analysed": 2, "hashed only": 3}
    return sorted(
        records,
        key=lambda record: (record.verified is not False, rank.get(record.status, 4), record.path),
    )
