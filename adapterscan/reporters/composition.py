"""Render what adapters are to each other: a table of pairs, and the modules that cancel most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tabulate import tabulate

from adapterscan.model import Evidence, Report, Scalar
from adapterscan.text import plural, printable

_MODULES = 4
_LEGEND = (
    "  energy: of the sum, beside parts that leave each other alone. against, alike: modules that",
    "  pull in opposite directions (first/other larger), or in the same one.",
)


_COLUMNS = (
    "  z: the cosine in standard deviations of chance. σ₁ grows: that of the sum over the largest",
    "  of a part. largest part: what one part puts on the sum's first direction, of σ₁.",
)


def composition(report: Report, *, verbose: bool) -> Iterator[str]:
    """Yield lines about the parts of a combination; nothing for a report that is of none."""
    pairs = [item for item in report.evidence if item.name == "sum.pair"]
    if not pairs:
        return
    yield ""
    yield from _pairs(pairs)
    yield from _LEGEND
    modules = [item for item in report.evidence if item.name == "sum.module"]
    telling = sorted(modules, key=_telling)[: len(modules) if verbose else _MODULES]
    if telling:
        yield ""
        yield from _modules(telling)
        yield from _COLUMNS
        if len(modules) > len(telling):
            yield f"  … {plural(len(modules) - len(telling), 'more module')}; --verbose shows all"
    for item in report.evidence:
        if item.name == "sum.method" and item.value:
            yield (
                f"  {item.details['method']} makes something else than the sum of all ΔW: "
                f"{_percent(item.value)} away from it."
            )


def _pairs(pairs: Sequence[Evidence]) -> Iterator[str]:
    rows = [
        [
            printable(item.subject.name, 60),
            f"{item.details['modules']}",
            _number(item.details["cosine"], "+.2f") if item.details["modules"] else "-",
            _energy(item.value) if item.details["modules"] else "-",
            _opposed(item.details),
            f"{item.details['agreeing']}",
            printable(str(item.details["relation"]), 60),
        ]
        for item in pairs
    ]
    headers = ["pair", "modules", "cosine", "energy", "against", "alike", "relation"]
    alone = len(pairs) == 1  # then the report's title names it
    yield from _table([row[alone:] for row in rows], headers[alone:])


def _modules(modules: Sequence[Evidence]) -> Iterator[str]:
    rows = [
        [
            printable(item.subject.name, 60),
            _number(item.value, ".3g"),
            _energy(item.details["lost"]),
            _number(item.details["cosine"], "+.2f"),
            _number(item.details["z"], "+.0f"),
            _number(item.details["growth"], ".2f"),
            _percent(item.details["largest_part"]),
        ]
        for item in modules
    ]
    headers = ["module", "‖ΣΔW‖", "energy", "cosine", "z", "σ₁ grows", "largest part"]
    yield from _table(rows, headers)


def _telling(item: Evidence) -> tuple[float, str]:
    lost = item.details.get("lost")
    return -round(abs(lost), 3) if isinstance(lost, float) else 0.0, item.subject.name


def _opposed(details: Mapping[str, Scalar]) -> str:
    if not details["opposed"]:
        return "0"
    return f"{details['opposed']} ({details['first_larger']}/{details['other_larger']})"


def _energy(value: Scalar) -> str:
    """Return how the energy of the sum compares with that of orthogonal parts."""
    if not isinstance(value, (int, float)):
        return "-"
    return f"−{value:.0%}" if value >= 0.005 else f"+{-value:.0%}" if value <= -0.005 else "0%"


def _percent(value: Scalar) -> str:
    return f"{value:.0%}" if isinstance(value, (int, float)) else "-"


def _number(value: Scalar, style: str) -> str:
    return format(value, style) if isinstance(value, (int, float)) else "-"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> Iterator[str]:
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    yield from (f"  {line}".rstrip() for line in table.splitlines())
