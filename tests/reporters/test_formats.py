"""Formats for machines: valid by their own schemas, and no text of an adapter is a mark in them."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from markdown_it import MarkdownIt
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as SarifLog

from adapterscan.errors import NotFound
from adapterscan.model import Evidence, Finding, Outcome, Report, Severity, SourceKind, Subject
from adapterscan.reporters.csv_report import COLUMNS, render_csv
from adapterscan.reporters.cyclonedx import render_cyclonedx
from adapterscan.reporters.junit import render_junit
from adapterscan.reporters.markdown import render_markdown
from adapterscan.reporters.sarif import NOT_ANALYSED, render_sarif
from adapterscan.rules.book import RuleBook
from tests.conftest import ADAPTERS
from tests.reporters.conftest import report_of

SHOWN = ["benign", "overwrite-layernorm", "hostile-tensor-names", "header-cut", "pickle-call"]
NASTY = (
    "=cmd|'/C calc'!A0",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/t.png)",
    "</details><script>alert(1)</script>",
    "`` ` ``` @everyone #1 https://evil.example www.evil.example",
    "\x1b]8;;https://evil.example\x07link\x1b]8;;\x07\n::error::fake\n| a | b |",
    "a\u202egnp.exe ]]> &amp; \ud800",
)


def outcome_of(*reports: Report, code: int = 1) -> Outcome:
    error = NotFound("no such repository", hint="check the name")
    return Outcome(reports, (("org/gone", error),), code, Severity.HIGH)


def named(report: Report, text: str) -> Report:
    """A report in which whatever an adapter's author can name is `text`."""
    subject = Subject("tensor", text, text)
    fact = Evidence("tensor.overwrite", subject, text, text)
    finding = Finding(
        "base-weight-overwrite", "A title of ours", Severity.HIGH, report.findings[0].confidence,
        f"A message about {text}", "Ask its author.", 2, (fact, fact),
    )  # fmt: skip
    adapters = tuple(replace(adapter, base_model=text) for adapter in report.adapters)
    return replace(report, name=text, target=text, findings=(finding,), adapters=adapters)


def sarif(outcome: Outcome, book: RuleBook, root: Path = ADAPTERS) -> dict:
    text = "".join(render_sarif(outcome, tuple(book), root))
    SarifLog.model_validate_json(text)
    return json.loads(text)["runs"][0]


@pytest.mark.parametrize("name", SHOWN)
def test_sarif_and_bom_are_valid_by_their_schemas(name: str, book: RuleBook):
    outcome = outcome_of(report_of(name, book))
    sarif(outcome, book)
    text = "".join(render_cyclonedx(outcome))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.mark.parametrize("text", NASTY)
def test_no_name_of_an_adapter_breaks_a_format(text: str, book: RuleBook):
    outcome = outcome_of(named(report_of("benign", book), text))
    run = sarif(outcome, book)
    assert "](" not in run["results"][0]["message"]["text"]
    bom = "".join(render_cyclonedx(outcome))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    ElementTree.fromstring("".join(render_junit(outcome)))  # noqa: S314 - what we wrote ourselves
    rows = list(csv.reader(io.StringIO("".join(render_csv(outcome)))))
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_holds_no_mark_of_an_adapter(text: str, book: RuleBook):
    rendered = "".join(render_markdown(outcome_of(named(report_of("benign", book), text))))
    parser = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    tokens = [t for top in parser.parse(rendered) for t in (top, *(top.children or ()))]
    html = {t.content.strip() for t in tokens if t.type in ("html_block", "html_inline")}
    assert not [t for t in tokens if t.type in ("link_open", "image")]
    assert all(
        line.startswith(("<details><summary>A title of ours", "</details>")) for line in html
    )
    assert "\x1b" not in rendered
    assert "\u202e" not in rendered


def test_a_link_of_an_adapter_stands_in_code_only(book: RuleBook):
    text = "https://evil.example @everyone"
    rendered = "".join(render_markdown(outcome_of(named(report_of("benign", book), text))))
    outside = "".join(rendered.split("`")[::2])
    assert "evil" not in outside


def test_what_could_not_be_analysed_is_a_result_and_a_notification(book: RuleBook):
    run = sarif(outcome_of(report_of("header-cut", book), code=3), book)
    assert NOT_ANALYSED in {result["ruleId"] for result in run["results"]}
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert len(invocation["toolExecutionNotifications"]) > 1


def test_a_clean_scan_has_no_result_and_says_what_was_not_tested(book: RuleBook):
    report = replace(report_of("benign", book), findings=())
    run = sarif(Outcome((report,), (), 0, None), book)
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is True
    assert "behaviour" in run["properties"]["targets"][0]["notTested"]


def test_every_finding_names_its_rule_and_where_it_is(book: RuleBook):
    run = sarif(outcome_of(report_of("overwrite-layernorm", book)), book)
    first = run["results"][0]
    rule = run["tool"]["driver"]["rules"][first["ruleIndex"]]
    assert rule["id"] == first["ruleId"] == "base-weight-overwrite"
    assert rule["properties"]["security-severity"] == "9.5"
    location = first["locations"][0]
    assert location["physicalLocation"]["artifactLocation"] == {
        "uri": "overwrite-layernorm/adapter_model.safetensors"
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"].endswith("layernorm.weight")


def test_fingerprints_do_not_hang_on_values(book: RuleBook):
    report = report_of("overwrite-layernorm", book)
    finding = report.findings[0]
    louder = replace(finding, message="other", evidence=(replace(finding.evidence[0], value=9),))
    again = replace(report, findings=(louder, *report.findings[1:]))
    prints = [
        [result["partialFingerprints"] for result in sarif(outcome_of(one), book)["results"]]
        for one in (report, again)
    ]
    assert prints[0] == prints[1]
    assert len({json.dumps(one) for one in prints[0]}) == len(prints[0])


def test_a_repository_is_named_at_its_commit(book: RuleBook):
    report = replace(
        report_of("overwrite-layernorm", book), source=SourceKind.HUB, commit="c" * 40,
        target="org/name@main:sub",
    )  # fmt: skip
    run = sarif(outcome_of(report), book)
    assert run["originalUriBaseIds"]["TARGET0"]["uri"] == f"hf://org/name@{'c' * 40}/"
    bom = json.loads("".join(render_cyclonedx(outcome_of(report))))
    assert bom["components"][0]["purl"] == f"pkg:huggingface/org/name@{'c' * 40}"


def test_a_bom_of_an_incomplete_scan_says_so(book: RuleBook):
    bom = json.loads("".join(render_cyclonedx(outcome_of(report_of("header-cut", book)))))
    assert bom["compositions"][0]["aggregate"] == "incomplete"


def test_a_bom_names_the_base_an_adapter_is_made_from(book: RuleBook):
    bom = json.loads("".join(render_cyclonedx(outcome_of(report_of("overwrite-layernorm", book)))))
    (ancestor,) = bom["components"][0]["pedigree"]["ancestors"]
    assert ancestor["name"] == "example-org/tiny-llama"
    assert bom["vulnerabilities"][0]["id"] == "base-weight-overwrite"
    assert 506 in bom["vulnerabilities"][0]["cwes"]


def test_junit_fails_what_the_caller_fails_on(book: RuleBook):
    text = "".join(render_junit(outcome_of(report_of("overwrite-layernorm", book))))
    suites = ElementTree.fromstring(text)  # noqa: S314 - what we wrote ourselves
    first, gone = suites.findall("testsuite")
    assert first.get("failures") == "1"
    assert int(first.get("skipped", 0)) > 0
    assert gone.get("errors") == "1"
    assert len(first.findall("testcase")) == int(first.get("tests", 0))
