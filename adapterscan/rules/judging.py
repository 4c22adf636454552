"""Judge evidence by rules: one finding per rule, with all the evidence that met it.

The values in evidence come from whoever made the adapter. They are compared, ranked and put into
messages as data: substituted once, made printable, never interpreted.
"""

from __future__ import annotations

import math
import operator
from array import array
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from re import Match
from typing import TypeGuard

from adapterscan.model import Evidence, Finding, Scalar
from adapterscan.rules.book import RuleBook, load_rules
from adapterscan.rules.file import PLACEHOLDER, Condition, Rule
from adapterscan.text import plural, printable, size_text

__all__ = [
    "EVIDENCE_SHOWN", "Condition", "Judge", "Rule", "RuleBook", "judge", "load_rules", "matches",
]  # fmt: skip

#: Evidence kept in a finding, the worst; `Finding.count` has the true number.
EVIDENCE_SHOWN = 20
_SHOWN = 120  # characters of one inserted value
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
}


class Judge:
    """Hears evidence as it comes in, in any order, and keeps what the findings will say of it.

    That is the exact number of subjects and the worst evidence of each rule: a scan can measure
    more than there is room for, and nobody can hide behind it.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._cases: dict[str, list[_Case]] = defaultdict(list)
        for rule in rules:
            self._cases[rule.evidence].append(_Case(rule))

    def hear(self, item: Evidence) -> None:
        """Take note of one piece of evidence."""
        for case in self._cases.get(item.name, ()):
            case.hear(item)

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings, worst first: by severity, then confidence, then rule id."""
        found = (case.finding() for cases in self._cases.values() for case in cases)
        return tuple(
            sorted(
                (finding for finding in found if finding is not None),
                key=lambda finding: (-finding.severity, -finding.confidence, finding.rule),
            )
        )


def judge(evidence: Iterable[Evidence], rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Return the findings that `evidence` gives, worst first."""
    bench = Judge(rules)
    for item in evidence:
        bench.hear(item)
    return bench.findings()


def matches(rule: Rule, item: Evidence) -> bool:
    """Return whether `item` is what `rule` watches and meets all of its conditions."""
    return item.name == rule.evidence and all(_holds(condition, item) for condition in rule.when)


class _Case:
    """What one rule has heard so far."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.subjects = array("q")  # as hashes: 8 bytes for each, which a set has 80 for
        self.worst: list[tuple[_Order, Evidence]] = []

    def hear(self, item: Evidence) -> None:
        if not matches(self.rule, item):
            return
        self.subjects.append(hash(item.subject))
        place = _place(self.rule, item)
        if len(self.worst) == EVIDENCE_SHOWN and place > self.worst[-1][0][:-1]:
            return
        insort(self.worst, ((*place, _rest(item)), item), key=itemgetter(0))
        del self.worst[EVIDENCE_SHOWN:]

    def finding(self) -> Finding | None:
        count, rule = len(set(self.subjects)), self.rule
        if count < rule.min_subjects or not count:
            return None
        return Finding(
            rule=rule.id,
            title=rule.title,
            severity=rule.severity,
            confidence=rule.confidence,
            message=_message(rule, self.worst[0][1], count),
            next_step=rule.next_step,
            count=count,
            evidence=tuple(item for _, item in self.worst),
            context=rule.context,
            identifiers=rule.identifiers,
        )


_Order = tuple[float, str, str, str, str]


def _place(rule: Rule, item: Evidence) -> tuple[float, str, str, str]:
    """Worst first; what the rule does not rank is ordered by name, so that runs agree."""
    subject = item.subject
    worst = _rank(_field(item, rule.rank_by)) if rule.rank_by else 0.0
    return -worst, subject.file, subject.name, subject.kind


def _rest(item: Evidence) -> str:
    """Return what orders evidence of the same rank about the same subject."""
    rest = [item.value, *(part for pair in sorted(item.details.items()) for part in pair)]
    return " ".join(map(_key, rest))


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
