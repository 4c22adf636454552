"""The rule engine: reading rule folders, judging evidence, and never obeying what it shows."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterscan.errors import BadRule
from adapterscan.model import Confidence, Evidence, Severity, Subject
from adapterscan.rules.book import built_in, read_folders
from adapterscan.rules.file import read_rule
from adapterscan.rules.judging import EVIDENCE_SHOWN, Rule, judge, load_rules, matches
from adapterscan.rules.pages import index_page, rule_page
from docs.build import ROOT as CHECKOUT
from docs.build import differences, with_imports, write
from tests.rule_cases import ROOT

TABLE = {
    "id": "some-rule",
    "title": "Something is there",
    "severity": "medium",
    "confidence": "high",
    "evidence": "thing.seen",
    "message": "{count:thing}: {worst} is {value}.",
    "why": "Because.",
    "next_step": "Look.",
    "limits": "May be wrong.",
}
TEXT = "\n".join(f"{key} = '{value}'" for key, value in TABLE.items())


def rule(**changes: Any) -> Rule:
    return read_rule({**TABLE, **changes}, "rule.toml")


def when(field: str, op: str, value: Any) -> Rule:
    return rule(when=[{"field": field, "op": op, "value": value}])


def seen(value: Any = 1, name: str = "a", **details: Any) -> Evidence:
    return Evidence("thing.seen", Subject("file", "f.bin", name), value, "", details)


def folder(home: Path, *names: str, text: str = TEXT) -> Path:
    for name in names:
        (home / name).mkdir(parents=True)
        (home / name / "rule.toml").write_text(text.replace("some-rule", name), "utf-8")
    return home


# ------------------------------------------------------------------------------------ judging


def test_evidence_of_another_name_is_not_judged() -> None:
    assert judge([Evidence("other", Subject("file"), 1)], [rule()]) == ()


def test_no_evidence_gives_no_finding() -> None:
    assert judge([], [rule()]) == ()


def test_one_rule_gives_one_finding_with_all_its_evidence() -> None:
    (finding,) = judge([seen(name="a"), seen(name="b")], [rule()])
    assert finding.rule == "some-rule"
    assert finding.severity is Severity.MEDIUM
    assert finding.confidence is Confidence.HIGH
    assert [item.subject.name for item in finding.evidence] == ["a", "b"]


def test_count_is_of_subjects_and_not_of_evidence() -> None:
    (finding,) = judge([seen(1, "a"), seen(2, "a"), seen(3, "b")], [rule()])
    assert finding.count == 2
    assert len(finding.evidence) == 3


def test_a_rule_can_ask_for_several_subjects() -> None:
    several = rule(min_subjects=2)
    assert judge([seen(1, "a"), seen(2, "a")], [several]) == ()
    assert len(judge([seen(1, "a"), seen(1, "b")], [several])) == 1


def test_evidence_is_kept_worst_first_and_cut() -> None:
    many = [seen(number, f"{number}") for number in range(100)]
    (finding,) = judge(many, [rule(rank_by="value")])
    assert finding.count == 100
    assert [item.value for item in finding.evidence] == list(range(99, 99 - EVIDENCE_SHOWN, -1))


@pytest.mark.parametrize("values", [(1.0, math.nan), (1, 10**400), (False, True), ("text", 0)])
def test_ranking_takes_any_value_and_puts_the_second_first(values: tuple[Any, Any]) -> None:
    evidence = [seen(values[0], "a"), seen(values[1], "b")]
    (finding,) = judge(evidence, [rule(rank_by="value")])
    assert finding.evidence[0].subject.name == "b"


def test_the_order_of_evidence_does_not_matter() -> None:
    evidence = [seen(1, "b"), seen(2, "a"), seen(2, "a", x=1), seen("text", "c")]
    assert judge(evidence, [rule(rank_by="value")]) == judge(
        evidence[::-1], [rule(rank_by="value")]
    )


def test_a_number_of_any_length_is_judged() -> None:
    (finding,) = judge([seen(10**5000), seen(-(10**5000))], [rule(rank_by="value")])
    assert finding.message == "1 thing: f.bin: a is over 10^15."


def test_findings_are_sorted_by_severity_then_confidence_then_id() -> None:
    rules = [
        rule(id="b", severity="low"),
        rule(id="a", severity="low"),
        rule(id="d", severity="critical", confidence="low"),
        rule(id="c", severity="critical"),
    ]
    assert [finding.rule for finding in judge([seen()], rules)] == ["c", "d", "a", "b"]


@pytest.mark.parametrize(
    ("op", "wanted", "value", "holds"),
    [
        ("eq", "x", "x", True),
        ("eq", "x", "y", False),
        ("eq", 1, True, False),
        ("eq", True, 1, False),
        ("eq", 1, 1.0, True),
        ("ne", "x", "y", True),
        ("ne", "x", None, False),
        ("in", ["x", "y"], "y", True),
        ("in", ["x", "y"], "z", False),
        ("in", [1], True, False),
        ("not_in", ["x"], "y", True),
        ("not_in", ["x"], None, False),
        ("ge", 3, 3, True),
        ("gt", 3, 3, False),
        ("le", 3, 3, True),
        ("lt", 3, 2.5, True),
        ("ge", 3, "9", False),
        ("ge", 0, True, False),
        ("ge", 0, math.nan, False),
        ("lt", 0, math.nan, False),
        ("ge", 1.5, 10**400, True),
        ("exists", True, 0, True),
        ("exists", True, None, False),
        ("exists", False, None, True),
    ],
)
def test_a_condition_compares_without_surprises(
    op: str, wanted: Any, value: Any, holds: bool
) -> None:
    assert matches(when("value", op, wanted), seen(value)) is holds
    assert matches(when("details.x", op, wanted), seen(0, x=value)) is holds


def test_all_conditions_must_hold() -> None:
    both = rule(
        when=[
            {"field": "subject.kind", "op": "eq", "value": "file"},
            {"field": "subject.name", "op": "eq", "value": "a"},
        ]
    )
    assert matches(both, seen(name="a"))
    assert not matches(both, seen(name="b"))


def test_a_missing_detail_meets_only_its_absence() -> None:
    assert matches(when("details.x", "exists", False), seen())
    assert not matches(when("details.x", "ne", 1), seen())


# ----------------------------------------------------------------------------------- messages


def message(template: str, *evidence: Evidence) -> str:
    (finding,) = judge(evidence, [rule(message=template)])
    return finding.message


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("{value}", 1234567, "1,234,567"),
        ("{value}", 0.123456, "0.1235"),
        ("{value}", 16000.0, "16,000"),
        ("{value}", 1e300, "1e+300"),
        ("{value}", True, "yes"),
        ("{value}", None, "none"),
        ("{value}", 10**400, "over 10^15"),
        ("{value}", math.inf, "inf"),
        ("{value:size}", 160_200_000, "160.2 MB"),
        ("{value:size}", math.nan, "nan"),
        ("{value:size}", 10**400, "over 10^15"),
        ("{details.absent}", 1, "none"),
    ],
)
def test_values_are_shown_for_people(template: str, value: Any, expected: str) -> None:
    assert message(template, seen(value)) == expected


def test_a_count_is_spelled_with_its_noun() -> None:
    assert message("{count:tensor}", seen()) == "1 tensor"
    assert message("{count:entry/entries}", seen(), seen(name="b")) == "2 entries"
    assert message("{count:file has/files have} it", seen(), seen(name="b")) == "2 files have it"
    assert message("{count}", seen()) == "1"


def test_the_worst_subject_is_the_one_named() -> None:
    (finding,) = judge([seen(1, "a"), seen(9, "b")], [rule(rank_by="value", message="{worst}")])
    assert finding.message == "f.bin: b"


def test_hostile_text_is_made_printable() -> None:
    shown = message(
        "{worst} {value} {details.x}", seen("\x1b[2J", "a\u202eb\n", x="hf_" + "a" * 30)
    )
    assert shown == "f.bin: a\\u202eb\\x0a \\x1b[2J hf_[redacted]"


def test_braces_in_hostile_text_are_not_interpreted() -> None:
    shown = message("{worst} {value}", seen("{count} {details.secret}", "{value}", secret="s3cret"))
    assert shown == "f.bin: {value} {count} {details.secret}"


def test_long_hostile_text_is_cut() -> None:
    assert len(message("{value}", seen("x" * 100_000))) == 120


# -------------------------------------------------------------------------------- rule files


@pytest.mark.parametrize("key", sorted(TABLE))
def test_a_rule_without_a_required_text_is_refused(key: str) -> None:
    with pytest.raises(BadRule, match=rf"rule\.toml: {key} is missing"):
        read_rule({name: text for name, text in TABLE.items() if name != key}, "rule.toml")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sevrity": "high"}, "unknown field 'sevrity'"),
        ({"severity": "terrible"}, "severity 'terrible' is unknown"),
        ({"confidence": "HIGH"}, "confidence 'HIGH' is unknown"),
        ({"id": "Some Rule"}, "not lower-case words"),
        ({"id": "../up"}, "not lower-case words"),
        ({"title": "  "}, "title is missing"),
        ({"title": 3}, "title is missing or is not text"),
        ({"message": "{count!r}"}, "brace"),
        ({"message": "{value.__class__}"}, "no field of evidence|brace"),
        ({"message": "{details}"}, "no field of evidence"),
        ({"message": "{0}"}, "no field of evidence"),
        ({"message": "{value:>10}"}, "brace"),
        ({"message": "{value:hex}"}, "style 'hex'"),
        ({"message": "{"}, "brace"),
        ({"when": "value"}, "when is not a list of tables"),
        ({"when": [{"field": "value", "op": "matches", "value": "x"}]}, "op 'matches' is unknown"),
        ({"when": [{"field": "name", "op": "eq", "value": "x"}]}, "no field of evidence"),
        ({"when": [{"field": "value", "op": "eq"}]}, "cannot compare with None"),
        ({"when": [{"field": "value", "op": "eq", "value": [1]}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "eq", "value": math.nan}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "in", "value": "x"}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "in", "value": []}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "ge", "value": "3"}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "ge", "value": True}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "ge", "value": math.inf}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "exists", "value": 1}]}, "cannot compare"),
        ({"when": [{"field": "value", "op": "eq", "value": 1, "not": 1}]}, "unknown key"),
        ({"rank_by": "size"}, "no field of evidence"),
        ({"min_subjects": 0}, "min_subjects"),
        ({"min_subjects": True}, "min_subjects"),
        ({"references": "CWE-1"}, "references is not a list"),
        ({"identifiers": {"cve": ["x"]}}, "unknown identifier 'cve'"),
        ({"identifiers": {"cwe": "CWE-1"}}, "cwe is not a list"),
        ({"identifiers": []}, "identifiers is not a table"),
        ({"context": {"category": "x"}}, "variant is missing"),
        ({"statistics": {"n": "3"}}, "reference is missing"),
    ],
)
def test_a_bad_rule_is_refused_with_its_reason_and_a_next_step(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadRule, match=complaint) as caught:
        rule(**changes)
    assert caught.value.hint


def test_prose_is_one_line_however_it_is_wrapped() -> None:
    assert rule(why="\nBecause\n  of this.\n").why == "Because of this."


# ------------------------------------------------------------------------------------ folders


def test_rules_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    book = read_folders([folder(tmp_path, "b", "a")])
    assert [item.id for item in book] == ["a", "b"]
    assert len(book) == 2
    assert book.get("a") is book.rules[0]
    assert book.get("c") is None


def test_a_later_folder_replaces_a_rule_and_says_so(tmp_path: Path) -> None:
    first = folder(tmp_path / "one", "a", "b")
    second = folder(tmp_path / "two", "b", text=TEXT.replace("medium", "low"))
    book = read_folders([first, second])
    assert book.replaced == ("b",)
    assert [item.severity for item in book] == [Severity.MEDIUM, Severity.LOW]


def test_the_digest_changes_with_any_word_and_with_nothing_else(tmp_path: Path) -> None:
    same = read_folders([folder(tmp_path / "one", "a")])
    spaced = read_folders([folder(tmp_path / "two", "a", text=f"# note\n\n{TEXT}\n")])
    word = read_folders([folder(tmp_path / "three", "a", text=TEXT.replace("Look.", "Look!"))])
    more = read_folders([folder(tmp_path / "four", "a", "b")])
    assert same.digest == spaced.digest
    assert len({same.digest, word.digest, more.digest}) == 3


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"id = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (TEXT.replace("some-rule", "other").encode(), "in a folder named 'a'"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rule.toml").write_bytes(content)
    with pytest.raises(BadRule, match=complaint) as caught:
        load_rules([tmp_path])
    assert "rule.toml" in caught.value.reason
    assert caught.value.hint


def test_a_folder_without_a_rule_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(BadRule, match="cannot be read"):
        load_rules([tmp_path])


def test_a_folder_of_rules_must_exist_and_hold_some(tmp_path: Path) -> None:
    with pytest.raises(BadRule, match="no such folder"):
        load_rules([tmp_path / "none"])
    with pytest.raises(BadRule, match="holds no rules"):
        load_rules([tmp_path])


def test_hidden_and_private_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "_drafts").mkdir()
    (tmp_path / "notes.md").write_text("", "utf-8")
    assert len(read_folders([folder(tmp_path, "a")])) == 1


def test_extra_rules_join_the_built_in_ones(tmp_path: Path) -> None:
    assert len(load_rules([folder(tmp_path, "zz-mine")])) == len(load_rules()) + 1


# ----------------------------------------------------------------------- where the rules lie


def test_an_installed_package_uses_the_rules_inside_it(tmp_path: Path) -> None:
    shipped = folder(tmp_path / "_rules", "a")
    assert built_in(tmp_path, folder(tmp_path / "rules", "b")) == shipped


def test_a_checkout_uses_the_rules_beside_the_package(tmp_path: Path) -> None:
    checkout = folder(tmp_path / "rules", "b")
    assert built_in(tmp_path / "package", checkout) == checkout


def test_a_package_without_rules_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadRule, match="built-in rules are missing"):
        built_in(tmp_path, tmp_path / "rules")


def test_the_wheel_carries_the_rules_where_they_are_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["rules"] == "adapterscan/_rules"


# -------------------------------------------------------------------------------------- pages


HEADINGS = [
    *("What it is", "Why it matters", "Evidence", "What to do"),
    *("Limits", "Identifiers", "Context", "References"),
]


def headings(page: str) -> Iterator[str]:
    return (line.removeprefix("## ") for line in page.splitlines() if line.startswith("## "))


def test_every_page_has_the_same_headings() -> None:
    assert all(list(headings(rule_page(item))) == HEADINGS for item in load_rules())


def test_a_page_says_when_the_rule_applies() -> None:
    page = rule_page(when("details.x", "in", ["a", True]))
    assert "- `details.x` is one of `a`, `true`" in page


def test_the_index_lists_the_worst_first() -> None:
    index = index_page([rule(id="a", severity="low"), rule(id="b", severity="high")])
    assert index.index("[b](b.md)") < index.index("[a](a.md)")


def test_a_search_that_accused_benign_adapters_is_not_of_high_confidence() -> None:
    (found,) = (rule for rule in load_rules() if rule.id == "behaviour-trigger")
    assert found.confidence is Confidence.MEDIUM
    assert "1 of 17 benign" in found.limits


def test_the_pages_in_the_docs_are_current() -> None:
    assert list(differences(CHECKOUT)) == []


def test_the_import_chain_in_the_docs_is_the_one_that_is_checked() -> None:
    text = with_imports("<!-- imports: layers -->\nold\n<!-- end -->\n")
    assert "rules > together | probes | change > reading" in " ".join(text.split())
    assert "old" not in text


def test_the_docs_name_every_module_that_imports_torch() -> None:
    text = with_imports("<!-- imports: torch -->\n<!-- end -->\n")
    assert "runners/stirred.py" in text
    assert "runners/child.py" not in text  # transformers alone


def test_a_stale_or_left_over_page_is_a_difference(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no runs\n", "utf-8")
    (tmp_path / "docs" / "architecture.md").write_text("no imports\n", "utf-8")
    (tmp_path / "docs" / "config-sinks.md").write_text("no sinks\n", "utf-8")
    write(tmp_path)
    (tmp_path / "docs" / "rules" / "README.md").write_text("old\n", "utf-8")
    (tmp_path / "docs" / "rules" / "gone.md").write_text("gone\n", "utf-8")
    changed = [line.strip() for line in differences(tmp_path) if line.startswith("---")]
    assert changed == ["--- docs/rules/README.md", "--- docs/rules/gone.md"]
    write(tmp_path)
    assert list(differences(tmp_path)) == []
