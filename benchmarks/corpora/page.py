"""Write docs/corpora.md from the answers that were kept."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from tabulate import tabulate

from benchmarks.corpora import results
from benchmarks.corpora.results import Row
from benchmarks.corpora.scanners import SCANNERS

_NAMES = tuple(one.name for one in SCANNERS)
_MOST_ROWS = 60
_PAGE = Path(__file__).with_name("page.md")
_EXPLAINED = Path(__file__).with_name("explained.toml")


def page() -> str:
    """Return the whole page. Needs nothing but `results/`."""
    rows = [row for row in results.read_rows().values() if set(row.answers) >= set(_NAMES)]
    run = results.read_run()
    bad = [row for row in rows if row.truth == "attack"]
    good = [row for row in rows if row.truth == "benign"]
    inert = [row for row in rows if row.truth == "inert"]
    return Template(_PAGE.read_text("utf-8")).substitute(
        command=run["command"], date=run["date"], attacks=len(bad), benign=len(good),
        inert=len(inert), versions=", ".join(f"{k} {v}" for k, v in run["versions"].items()),
        absent=", ".join(run["absent"]) or "nothing",
        alarms=_table(_by_group(bad, "found")), endings=_table(_endings(bad)), missed=_missed(bad),
        followed=_table(_one_by_one([row for row in bad if row.group == "followed"])),
        false_alarms=_table(_by_group(good, "found")), accused=_accused(good),
        noted=_table(_by_group(good, "noted")),
        looks=_table(_one_by_one(inert, why=True)),
    )  # fmt: skip


def explained() -> Mapping[str, Mapping[str, str]]:
    """Return why an attack gives no alarm, by group and name."""
    return tomllib.loads(_EXPLAINED.read_text("utf-8"))


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [{key: str(cell).replace("|", "\\|") for key, cell in row.items()} for row in rows]
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def _by_group(rows: Sequence[Row], verdict: str) -> list[dict[str, Any]]:
    """Return how many of each group have that verdict, by scanner; a last row for all."""
    groups = [*dict.fromkeys(row.group for row in rows), ""]
    table = []
    for group in groups:
        members = [row for row in rows if not group or row.group == group]
        counts = {
            name: sum(row.answers[name].verdict == verdict for row in members) for name in _NAMES
        }
        table.append({"group": group or "**all**", "files": len(members), **counts})
    return table


def _endings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    table = []
    for verdict in ("found", "noted", "incomplete", "clean", "crash", "hang"):
        counts = {n: sum(row.answers[n].verdict == verdict for row in rows) for n in _NAMES}
        table.append({"": verdict, **counts})
    return table


def _one_by_one(rows: Sequence[Row], *, why: bool = False) -> list[dict[str, Any]]:
    return [
        {"file": row.name.removeprefix("attack, then "),
         **{name: row.answers[name].verdict for name in _NAMES},
         **({"why": row.why} if why else {})}
        for row in rows
    ]  # fmt: skip


def _accused(good: Sequence[Row]) -> str:
    """Return a line for each benign file that we raise an alarm for."""
    reasons = explained()
    accused = [row for row in good if row.answers[_NAMES[0]].verdict == "found"]
    lines = [
        f"- `{row.name}` ({row.answers[_NAMES[0]].said}): "
        f"{reasons.get(row.group, {}).get(row.name, '**not explained**')}"
        for row in accused
    ]
    return "\n".join(("Ours:", "", *lines)) if lines else "Ours: none."


def _missed(bad: Sequence[Row]) -> str:
    missed = [row for row in bad if row.answers[_NAMES[0]].verdict != "found"]
    if not missed:
        return "None of these files passes without an alarm."
    counts = Counter(row.answers[_NAMES[0]].verdict for row in missed)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    reasons = explained()
    lines = []
    for row in missed[:_MOST_ROWS]:
        why = reasons.get(row.group, {}).get(row.name, "**not explained**")
        ours = row.answers[_NAMES[0]]
        named = {"group": row.group, "file": row.name}
        lines.append({**named, "we say": ours.verdict, "rules": ours.said, "why": why})
    return f"{len(missed)} without an alarm ({said}):\n\n" + _table(lines)
