"""The docket: everything is judged, little is kept, and what is kept cannot be chosen by a file."""

import pytest

from adapterscan.model import Evidence, Subject
from adapterscan.rules.docket import EVIDENCE_LISTED, Docket
from adapterscan.rules.file import read_rule
from adapterscan.rules.judging import EVIDENCE_SHOWN

RULE = read_rule(
    {
        "id": "some-rule", "title": "Something", "severity": "low", "confidence": "high",
        "evidence": "thing.seen", "message": "{count:thing}; {worst}.", "rank_by": "value",
        "why": "Because.", "next_step": "Look.", "limits": "May be wrong.",
    },
    "rule.toml",
)  # fmt: skip
MANY = 3 * EVIDENCE_LISTED


def seen(value, name="thing.seen", subject=None):
    return Evidence(name, Subject("file", "f.bin", subject or f"{value}"), value)


def docket(evidence):
    found = Docket([RULE])
    found.add(evidence)
    return found


def test_a_few_facts_are_listed_in_the_order_in_which_they_came():
    facts = [seen(3), seen(1), seen(2)]
    assert docket(facts).evidence() == tuple(facts)


def test_of_many_facts_the_first_of_each_name_are_listed_and_all_are_counted():
    found = docket(seen(at, name) for at in range(MANY) for name in ("one", "two"))
    assert found.counts() == {"one": MANY, "two": MANY}
    assert [item.value for item in found.evidence() if item.name == "two"] == [
        *range(EVIDENCE_LISTED)
    ]


@pytest.mark.parametrize("place", [0, EVIDENCE_LISTED + 1, MANY])
def test_the_worst_is_named_and_listed_wherever_it_comes(place):
    facts = [seen(0, subject=f"{at}") for at in range(MANY)]
    facts.insert(place, seen(9, subject="worst"))
    found = docket(facts)
    (finding,) = found.findings()
    assert finding.message == f"{MANY + 1:,} things; f.bin: worst."
    assert finding.count == MANY + 1
    assert finding.evidence[0].subject.name == "worst"
    assert "worst" in {item.subject.name for item in found.evidence()}


def test_nothing_is_listed_twice():
    found = docket(seen(at) for at in range(MANY))
    names = [item.subject.name for item in found.evidence()]
    assert len(names) == len(set(names)) == EVIDENCE_LISTED + EVIDENCE_SHOWN
