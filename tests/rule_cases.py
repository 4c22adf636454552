"""Read `cases.toml` beside each built-in rule: what must meet it, and what must not."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adapterscan.model import Evidence, Subject
from adapterscan.rules.judging import Rule, load_rules

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Case:
    """One example: what it shows, its evidence, and the fixture that shows the same end to end."""

    rule: Rule
    hits: bool
    what: str
    evidence: tuple[Evidence, ...]
    fixture: str

    def __str__(self) -> str:
        return f"{self.rule.id}: {'hits' if self.hits else 'ok'}: {self.what}"


@cache
def cases() -> tuple[Case, ...]:
    return tuple(case for rule in load_rules() for case in _of(rule))


def _of(rule: Rule) -> list[Case]:
    table = tomllib.loads((ROOT / "rules" / rule.id / "cases.toml").read_text("utf-8"))
    assert set(table) <= {"hits", "oks"}
    return [_case(rule, kind == "hits", entry) for kind in ("hits", "oks") for entry in table[kind]]


def _case(rule: Rule, hits: bool, entry: dict[str, Any]) -> Case:
    assert set(entry) <= {"what", "fixture", "evidence"}, entry
    evidence = tuple(_evidence(item) for item in entry.get("evidence", []))
    case = Case(rule, hits, entry["what"], evidence, entry.get("fixture", ""))
    assert case.evidence or case.fixture, str(case)
    return case


def _evidence(item: dict[str, Any]) -> Evidence:
    assert set(item) <= {"name", "subject", "value", "details"}, item
    return Evidence(
        item["name"], Subject(**item["subject"]), item.get("value"), "", item.get("details", {})
    )
