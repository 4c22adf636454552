"""Keep what every scanner said of every sample, as a table, and how the answers came."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.corpora.sample import Sample
from benchmarks.corpora.scanners import SCANNERS, Answer

RESULTS = Path(__file__).with_name("results")
_ANSWERS, _RUN = RESULTS / "answers.csv", RESULTS / "run.json"
_LONGEST = 120  # characters of what we said


@dataclass(slots=True)
class Row:
    """One sample and the answers about it, by scanner."""

    group: str
    name: str
    file: str
    truth: str
    why: str
    answers: dict[str, Answer] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return what it is kept under."""
        return f"{self.group}/{self.name}"


def renewed(sample: Sample, old: Row | None) -> Row:
    """Return the row of `sample`, with the answers that it has already."""
    answers = dict(old.answers) if old else {}
    return Row(sample.group, sample.name, sample.file, sample.truth, sample.why, answers)


def write(about: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Write `answers.csv` (a row for each sample) and `run.json` (how, when, with what)."""
    RESULTS.mkdir(exist_ok=True)
    rows = list(rows)
    seconds = {
        name: round(sum(row.answers[name].seconds for row in rows if name in row.answers), 1)
        for name in (one.name for one in SCANNERS)
    }
    told = {**about, "samples": len(rows), "seconds of this run": seconds}
    _RUN.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    names = [one.name for one in SCANNERS]
    with _ANSWERS.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("group", "name", "file", "truth", "why", *names, "what we said"))
        for row in rows:
            said = row.answers[names[0]].said[:_LONGEST] if names[0] in row.answers else ""
            given = (row.answers.get(name) for name in names)
            cells = (f"{answer.verdict} ({answer.ended})" if answer else "" for answer in given)
            fields = (row.group, row.name, row.file, row.truth, row.why, *cells, said)
            table.writerow([text.encode("unicode_escape").decode() for text in fields])


def read_rows() -> dict[str, Row]:
    """Return the rows that were written last, by key; seconds and peers' words are not kept."""
    rows: dict[str, Row] = {}
    if not _ANSWERS.is_file():
        return rows
    with _ANSWERS.open(encoding="utf-8", newline="") as kept:
        for raw in csv.DictReader(kept):
            cells = {key: text.encode().decode("unicode_escape") for key, text in raw.items()}
            said = cells["what we said"]
            row = Row(*(cells[key] for key in ("group", "name", "file", "truth", "why")))
            for number, one in enumerate(SCANNERS):
                verdict, _, ended = cells[one.name].partition(" (")
                if not verdict:
                    continue
                words = "" if number else said
                row.answers[one.name] = Answer(verdict, ended.rstrip(")"), 0.0, words)  # type: ignore[arg-type]
            rows[row.key] = row
    return rows


def read_run() -> dict[str, Any]:
    """Return what is known of the last run."""
    found: dict[str, Any] = json.loads(_RUN.read_text("utf-8"))
    return found
