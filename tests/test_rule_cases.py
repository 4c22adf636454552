"""Every built-in rule: its own cases, its evidence, its words, and the policy on severities."""

from __future__ import annotations

import re

import pytest

from adapterscan.model import Confidence, Severity
from adapterscan.rules.file import CONTEXT, IDENTIFIERS
from adapterscan.rules.judging import Rule, judge, load_rules
from tests.rule_cases import ROOT, Case, cases

RULES = tuple(load_rules())
STATISTICAL = ("delta.outlier", "delta.statistics", "adapter.statistic")
LISTED = frozenset(
    re.findall(r"^\| `([a-z._]+)`", (ROOT / "docs" / "evidence.md").read_text("utf-8"), re.M)
)
IDENTIFIER = {
    "cwe": r"CWE-\d+",
    "owasp_llm_2025": r"LLM(0[1-9]|10)",
    "owasp_llm_2026": r"LLM(0[1-9]|10)",
    "atlas": r"AML\.T\d{4}(\.\d{3})?",
    "nist": r"NISTAML\.\d{2,3}",
}

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


@pytest.mark.parametrize("case", [case for case in cases() if case.evidence], ids=str)
def test_a_case_of_evidence_is_judged_as_it_says(case: Case) -> None:
    assert bool(judge(case.evidence, [case.rule])) is case.hits


@each_rule
def test_a_rule_has_an_example_that_hits_and_one_that_does_not(rule: Rule) -> None:
    assert {case.hits for case in cases() if case.rule.id == rule.id} == {True, False}
    assert any(case.evidence for case in cases() if case.rule.id == rule.id and case.hits)


@each_rule
def test_a_rule_watches_evidence_that_the_docs_list(rule: Rule) -> None:
    assert rule.evidence in LISTED


@each_rule
def test_a_message_of_a_hit_leaves_no_placeholder(rule: Rule) -> None:
    for case in cases():
        if case.rule.id == rule.id and case.hits and case.evidence:
            (finding,) = judge(case.evidence, [rule])
            assert "{" not in finding.message.replace(str(finding.evidence[0].value), "")


@each_rule
def test_a_statistical_rule_says_so_and_is_never_more_than_low(rule: Rule) -> None:
    statistical = rule.evidence in STATISTICAL
    cut = statistical or rule.id == "behaviour-fixed-answer"  # a limit that somebody set
    calibrated = rule.evidence == "adapter.standing"
    assert bool(rule.statistics) is (cut or calibrated)
    assert rule.title.startswith("Unusual for ") is (statistical or calibrated)
    if cut or calibrated:
        assert rule.severity <= Severity.LOW
        assert rule.confidence is (Confidence.MEDIUM if calibrated else Confidence.LOW)


@each_rule
def test_a_rule_places_itself_in_the_frameworks(rule: Rule) -> None:
    assert set(rule.context) == set(CONTEXT)
    assert set(rule.identifiers) == set(IDENTIFIERS)
    for key, values in rule.identifiers.items():
        assert values, key
        assert all(re.fullmatch(IDENTIFIER[key], value) for value in values), values


@each_rule
def test_a_rule_is_short_enough_to_be_read(rule: Rule) -> None:
    assert len(rule.title) <= 76
    assert not rule.title.endswith(".")
    assert all(
        len(text) <= 420 and text.endswith((".", "”"))
        for text in (rule.why, rule.next_step, rule.limits, rule.message)
    )


def test_all_evidence_is_judged_by_some_rule_or_is_mere_context() -> None:
    assert LISTED - {rule.evidence for rule in RULES} == {
        "adapter.statistic",
        "behaviour.words",
        "hub.repository",
        "sum.method",
        "sum.module",
        "delta.scale_disagrees",
        "base.alignment",
        "bits.looked",
        "base.dora",
        "base.intruders",
        "base.module",
        "base.refusal_module",
        "base.relative",
        "base.rounding",
        "change.strength",
        "probe.model",
        "prompt.token",
        "token.moved",
        "tensor.values",
    }
