"""What a rule is, and how `rule.toml` becomes one: data, no code.

A rule names one kind of evidence, the conditions under which that evidence is a finding, and the
words for the reader. Conditions compare one field with one constant; there are no expressions and
no regular expressions, so a rule can neither run anything nor hang.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapterscan.errors import BadRule
from adapterscan.model import Confidence, Scalar, Severity
from adapterscan.text import printable

ID_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FIELD_PATTERN = re.compile(r"value|subject\.(?:kind|file|name)|details\.[a-z0-9_]+")
#: `{count}`, `{count:tensor}`, `{count:entry/entries}`, `{worst}`, `{value}`, `{details.shape}`,
#: `{value:size}` (bytes for people).
PLACEHOLDER = re.compile(r"\{([a-z0-9_.]+)(?::([a-z0-9/ -]+))?\}")

OPERATORS = ("eq", "ne", "in", "not_in", "ge", "gt", "le", "lt", "exists")
IDENTIFIERS = ("cwe", "owasp_llm_2025", "owasp_llm_2026", "atlas", "nist")
CONTEXT = ("category", "variant", "entry_point", "actor", "skill_and_cost", "stealth")
STATISTICS = ("reference", "n", "false_positive_rate", "detection_rate")

_REQUIRED = (
    *("id", "title", "severity", "confidence", "evidence", "message"),
    *("why", "next_step", "limits"),
)
_OPTIONAL = (
    *("when", "rank_by", "min_subjects"),
    *("references", "identifiers", "context", "statistics"),
)

Operand = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a field of the evidence with a constant. An absent field meets only
    `exists = false`."""

    field: str
    op: str
    value: Operand

    def __str__(self) -> str:
        shown = json.dumps(self.value, ensure_ascii=False)
        return f"{self.field} {self.op} {shown}"


@dataclass(frozen=True, slots=True)
class Rule:
    """When evidence becomes a finding, how bad that is, and what the reader should do."""

    id: str
    title: str
    severity: Severity
    confidence: Confidence
    evidence: str  # the name of the evidence that it watches
    message: str  # template, see PLACEHOLDER
    why: str
    next_step: str
    limits: str  # how it can be wrong or evaded
    when: tuple[Condition, ...] = ()  # all must hold
    rank_by: str = ""  # field by which evidence is worse, "" for none
    min_subjects: int = 1
    references: tuple[str, ...] = ()
    identifiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, str] = field(default_factory=dict)


def read_rule(table: Mapping[str, Any], where: str) -> Rule:
    """Return the rule that the table of a rule file says. `where` names the file in complaints.

    Raises BadRule for anything missing, unknown or of the wrong type.
    """
    return _Reader(where, table).rule()


class _Reader:
    """Typed, complaining access to the table of one rule file."""

    def __init__(self, where: str, table: Mapping[str, Any]) -> None:
        self.where = where
        self.table = table

    def rule(self) -> Rule:
        self._known("field", self.table, (*_REQUIRED, *_OPTIONAL))
        rank_by = self._text(self.table, "rank_by") if "rank_by" in self.table else ""
        return Rule(
            id=self._id(),
            title=self._text(self.table, "title"),
            severity=Severity[self._choice("severity", [item.label for item in Severity])],
            confidence=Confidence[self._choice("confidence", [item.label for item in Confidence])],
            evidence=self._text(self.table, "evidence"),
            message=self._template(),
            why=self._text(self.table, "why"),
            next_step=self._text(self.table, "next_step"),
            limits=self._text(self.table, "limits"),
            when=tuple(self._condition(item) for item in self._tables("when")),
            rank_by=self._field(rank_by) if rank_by else "",
            min_subjects=self._min_subjects(),
            references=self._texts(self.table, "references"),
            identifiers=self._identifiers(),
            context=self._section("context", CONTEXT),
            statistics=self._section("statistics", STATISTICS),
        )

    def _id(self) -> str:
        name = self._text(self.table, "id")
        if not ID_PATTERN.fullmatch(name):
            raise self._bad(f"id {name!r} is not lower-case words with dashes", "as in code-hook")
        return name

    def _choice(self, key: str, labels: Sequence[str]) -> str:
        value = self._text(self.table, key)
        if value not in labels:
            raise self._bad(f"{key} {value!r} is unknown", f"use one of {', '.join(labels)}")
        return value.upper()

    def _template(self) -> str:
        text = self._text(self.table, "message")
        for name, style in PLACEHOLDER.findall(text):
            if name not in ("count", "worst"):
                self._field(name)
            if style and name != "count" and style != "size":
                raise self._bad(f"message has the style {style!r}", "the one style is {value:size}")
        if re.search(r"[{}]", PLACEHOLDER.sub("", text)):
            raise self._bad(
                "message has a brace that is no placeholder",
                "use {count}, {count:noun}, {worst}, {value}, {details.x}",
            )
        return text

    def _condition(self, table: Mapping[str, Any]) -> Condition:
        self._known("key of [[when]]", table, ("field", "op", "value"))
        name, op = self._field(self._text(table, "field")), self._text(table, "op")
        if op not in OPERATORS:
            raise self._bad(f"op {op!r} is unknown", f"use one of {', '.join(OPERATORS)}")
        value = table.get("value", True) if op == "exists" else table.get("value")
        if not _fits(op, value):
            raise self._bad(f"op {op!r} cannot compare with {value!r}", _OPERANDS[op])
        return Condition(name, op, tuple(value) if isinstance(value, list) else value)

    def _field(self, name: str) -> str:
        if not FIELD_PATTERN.fullmatch(name):
            raise self._bad(
                f"{name!r} is no field of evidence", "use value, subject.name or details.<name>"
            )
        return name

    def _min_subjects(self) -> int:
        value = self.table.get("min_subjects", 1)
        if type(value) is not int or value < 1:
            raise self._bad("min_subjects is not a whole number above 0", "leave it out for 1")
        return value

    def _identifiers(self) -> Mapping[str, tuple[str, ...]]:
        table = self._table("identifiers")
        self._known("identifier", table, IDENTIFIERS)
        return {key: self._texts(table, key) for key in IDENTIFIERS if key in table}

    def _section(self, key: str, names: Sequence[str]) -> Mapping[str, str]:
        table = self._table(key)
        self._known(f"key of [{key}]", table, names)
        if table:
            return {name: self._text(table, name) for name in names}
        return {}

    def _table(self, key: str) -> Mapping[str, Any]:
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self._bad(f"{key} is not a table", f"write it as [{key}]")
        return value

    def _tables(self, key: str) -> Sequence[Mapping[str, Any]]:
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._bad(f"{key} is not a list of tables", f"write each as [[{key}]]")
        return value

    def _text(self, table: Mapping[str, Any], key: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._bad(f"{key} is missing or is not text", f'add {key} = "…"')
        return " ".join(value.split())

    def _texts(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._bad(f"{key} is not a list of texts", f'write {key} = ["…"]')
        return tuple(value)

    def _known(self, what: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
        for key in table:
            if key not in names:
                raise self._bad(f"unknown {what} {key!r}", f"known are {', '.join(names)}")

    def _bad(self, reason: str, hint: str) -> BadRule:
        return BadRule(f"{self.where}: {printable(reason)}", hint=hint)


_OPERANDS = {
    **dict.fromkeys(("eq", "ne"), "compare with a text, a number or true/false"),
    **dict.fromkeys(("in", "not_in"), "compare with a list that is not empty"),
    **dict.fromkeys(("ge", "gt", "le", "lt"), "compare with a finite number"),
    "exists": "compare with true or false, or leave value out",
}


def _fits(op: str, value: object) -> bool:
    match op:
        case "in" | "not_in":
            return isinstance(value, list) and bool(value) and all(map(_is_scalar, value))
        case "ge" | "gt" | "le" | "lt":
            return _is_scalar(value) and not isinstance(value, (bool, str))
        case "exists":
            return isinstance(value, bool)
        case _:
            return _is_scalar(value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, (bool, int, str)) or (
        isinstance(value, float) and math.isfinite(value)
    )
