"""Render what a report covers: what was inspected, what could not be, and what nobody asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from adapterscan.model import Report, Skipped, SourceKind
from adapterscan.reporters.layout import Page
from adapterscan.text import plural, printable, size_text

_SKIPPED_LINES = 12
_BRIEFLY = 4  # of those nobody asked for and no option asks for
_BEHAVIOUR = "behaviour"  # what a report says was skipped where no probe, or not all, came through


def coverage(report: Report, page: Page, before: Report | None = None) -> Iterator[str]:
    """Yield the block. Failures are told in full; what was not asked for with `page.verbose`.

    `before`: the report above it, which may have said the same.
    """
    yield page.paint("  Coverage", "1")
    yield page.wrap(f"{files(report)}.", "    ")
    skipped = report.coverage.skipped
    if page.verbose:
        yield page.wrap(f"Inspected: {inspected(report)}.", "    ")
        yield from (_skipped(item, page) for item in skipped)
    else:
        told = before is not None and _usual(before) == _usual(report)
        if told:
            yield "    Inspected and not tested: the same as above."
        else:
            yield page.wrap(f"Inspected: {inspected(report)}.", "    ")
        yield from _failures([item for item in skipped if item.failed], page)
        if not told:
            yield from _untested(_asks(report), page)
        yield from _rest([item for item in skipped if not item.failed and not item.ask], page)
    if report.config_file:
        yield page.wrap(f"Settings from {printable(report.config_file)}.", "    ")


def behaviour(report: Report) -> str:
    """Return how far the model was asked: "tested", "incomplete" or "not tested"."""
    if "probes" not in report.versions:
        return "not tested"
    found = any(item.what == _BEHAVIOUR for item in report.coverage.skipped)
    return "incomplete" if found else "tested"


def untested(reports: Sequence[Report]) -> str:
    """Return what the result says of targets whose behaviour was not tested, "" for none."""
    count = sum(behaviour(report) == "not tested" for report in reports)
    if not count:
        return ""
    of = "" if count == len(reports) else f" of {plural(count, 'target')}"
    return f"behaviour{of} was not tested"


def files(report: Report) -> str:
    """Return how many files there were, how far each was read, and how many the hub vouches for."""
    statuses = Counter(record.status for record in report.files)
    if not statuses:
        return "0 files"
    total = sum(record.size for record in report.files if record.sha256)
    counted = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    told = f"{plural(len(report.files), 'file')} ({counted})"
    return f"{told}, {size_text(total)} read and hashed{_verified(report)}"


def _verified(report: Report) -> str:
    promised = [record for record in report.files if record.verified is not None]
    if promised:
        agree = sum(record.verified is True for record in promised)
        return f"; {agree} of {len(promised)} equal to the hub's listing"
    return "; no listing to compare with" if report.source is not SourceKind.HUB else ""


def inspected(report: Report) -> str:
    """Return what was inspected, in words."""
    told = "; ".join(report.coverage.inspected) or "nothing"
    if any(adapter.modules for adapter in report.adapters):
        return told
    return f"{told}. No weight update was measured"


def _skipped(item: Skipped, page: Page) -> str:
    label = page.paint("not analysed:", "1;33") if item.failed else "not in this report:"
    text = f"{printable(item.what, 120)}: {printable(item.reason, 300)}"
    hint = f" ({printable(item.hint, 300)})" if item.hint else ""
    return page.wrap(f"{label} {text}{hint}", "      ", "    ")


def _failures(failed: Sequence[Skipped], page: Page) -> Iterator[str]:
    for item in failed[:_SKIPPED_LINES]:
        yield _skipped(item, page)
    hidden = len(failed) - _SKIPPED_LINES
    if hidden > 0:
        yield f"    … {hidden} more not analysed; --verbose shows all"


def _usual(report: Report) -> tuple[str, Mapping[str, str]]:
    return inspected(report), _asks(report)


def _asks(report: Report) -> Mapping[str, str]:
    """Return what was not tested and what would ask for it."""
    return {item.what: printable(item.ask) for item in report.coverage.skipped if item.ask}


def _untested(asks: Mapping[str, str], page: Page) -> Iterator[str]:
    if asks:
        told = "; ".join(f"{printable(what, 120)} ({option})" for what, option in asks.items())
        yield page.wrap(f"Not tested: {told}.", "      ", "    ")


def _rest(rest: Sequence[Skipped], page: Page) -> Iterator[str]:
    """Yield what lies outside of the report and no option asks for."""
    if rest:
        told = "; ".join(
            f"{printable(item.what, 120)}: {printable(item.reason, 300)}"
            for item in rest[:_BRIEFLY]
        )
        more = f"; {len(rest) - _BRIEFLY} more" if len(rest) > _BRIEFLY else ""
        yield page.wrap(f"Not in this report: {told}{more} (--verbose).", "      ", "    ")
