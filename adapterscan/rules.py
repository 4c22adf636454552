"""Judge evidence by rules: one finding per rule, with all the evidence that met it.

The values in evidence come from whoever made the adapter. They are compared, ranked and put into
messages as data: substituted once, made printable, never interpreted.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from re import Match
from typing import TypeGuard

from adapterscan.model import Evidence, Finding, Scalar
from adapterscan.rulebook import RuleBook, load_rules
from adapterscan.rulefile import PLACEHOLDER, Condition, Rule
from adapterscan.text import plural, printable, size_text

__all__ = ["EVIDENCE_SHOWN", "Condition", "Rule", "RuleBook", "judge", "load_rules", "matches"]

#: Evidence kept in a finding; `Finding.count` has the true number, the report has all evidence.
EVIDENCE_SHOWN = 20
_SHOWN = 120  # characters of one inserted value
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
}


def judge(evidence: Iterable[Evidence], rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Return the findings, worst first: by severity, then confidence, then rule id."""
    by_name: dict[str, list[Evidence]] = defaultdict(list)
    for item in evidence:
        by_name[item.name].append(item)
    found = (_finding(rule, by_name.get(rule.evidence, ())) for rule in rules)
    return tuple(
        sorted(
            (finding for finding in found if finding is not None),
            key=lambda finding: (-finding.severity, -finding.confidence, finding.rule),
        )
    )


def matches(rule: Rule, item: Evidence) -> bool:
    """Return whether `item` is what `rule` watches and meets all of its conditions."""
    return item.name == rule.evidence and all(_holds(condition, item) for condition in rule.when)


def _finding(rule: Rule, evidence: Sequence[Evidence]) -> Finding | None:
    met = [item for item in evidence if matches(rule, item)]
    count = len({item.subject for item in met})
    if count < rule.min_subjects or not met:
        return None
    met.sort(key=lambda item: _order(rule, item))
    return Finding(
        rule=rule.id,
        title=rule.title,
        severity=rule.severity,
        confidence=rule.confidence,
        message=_message(rule, met[0], count),
        next_step=rule.next_step,
        count=count,
        evidence=tuple(met[:EVIDENCE_SHOWN]),
        context=rule.context,
        identifiers=rule.identifiers,
    )


def _order(rule: Rule, item: Evidence) -> tuple[float, str, str, str, str]:
    """Worst first; what the rule does not rank is ordered by name, so that runs agree."""
    subject = item.subject
    worst = _rank(_field(item, rule.rank_by)) if rule.rank_by else 0.0
    rest = [item.value, *(part for pair in sorted(item.details.items()) for part in pair)]
    return -worst, subject.file, subject.name, subject.kind, " ".join(map(_key, rest))


def _key(value: Scalar) -> str:
    return hex(value) if isinstance(value, int) else repr(value)  # decimal digits are limited


def _rank(value: Scalar) -> float:
    """Return how bad a value is: numbers by size, true over false, not-a-number over all."""
    if isinstance(value, (bool, int, float)):
        try:
            number = float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        return math.inf if math.isnan(number) else number
    return -math.inf


def _field(item: Evidence, name: str) -> Scalar:
    """Return the field of that name, None when the evidence has none."""
    match name.split(".", 1):
        case ["value"]:
            return item.value
        case ["details", key]:
            return item.details.get(key)
        case ["subject", "kind"]:
            return item.subject.kind
        case ["subject", "file"]:
            return item.subject.file
        case ["subject", "name"]:
            return item.subject.name
    return None


def _holds(condition: Condition, item: Evidence) -> bool:
    value, wanted = _field(item, condition.field), condition.value
    if condition.op == "exists":
        return (value is not None) is wanted
    if value is None:
        return False
    if isinstance(wanted, tuple):  # the reader admits lists for `in` and `not_in` alone
        among = any(_same(value, choice) for choice in wanted)
        return among if condition.op == "in" else not among
    match condition.op:
        case "eq":
            return _same(value, wanted)
        case "ne":
            return not _same(value, wanted)
        case op:
            return _compare(op, value, wanted)


def _same(value: Scalar, wanted: Scalar) -> bool:
    return value == wanted and isinstance(value, bool) is isinstance(wanted, bool)


def _compare(op: str, value: Scalar, wanted: Scalar) -> bool:
    """Compare numbers; anything else, and not-a-number, is neither more nor less."""
    if _is_number(value) and _is_number(wanted):
        return _ORDER[op](value, wanted)
    return False


def _is_number(value: Scalar) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _message(rule: Rule, worst: Evidence, count: int) -> str:
    """Fill the template in one pass: what is inserted is not looked at again."""

    def insert(match: Match[str]) -> str:
        name, style = match[1], match[2] or ""
        if name == "count":
            one, _, many = style.partition("/")
            return plural(count, one, many) if style else f"{count:,}"
        if name == "worst":
            return printable(str(worst.subject), _SHOWN)
        return _shown(_field(worst, name), style)

    return PLACEHOLDER.sub(insert, rule.message)


def _shown(value: Scalar, style: str) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return printable(value, _SHOWN)
        case int() if abs(value) > 10**15:
            return "over 10^15" if value > 0 else "below -10^15"
        case _ if style == "size" and math.isfinite(value):
            return size_text(value)
        case int():
            return f"{value:,}"
        case float() if value.is_integer() and abs(value) < 10**15:
            return f"{value:,.0f}"
        case float():
            return f"{value:.4g}"
