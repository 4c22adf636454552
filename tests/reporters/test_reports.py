"""Reports: JSON meets its schema for every fixture, text shows nothing unescaped."""

import json
from dataclasses import replace

import jsonschema
import pytest

from adapterscan.errors import NotFound
from adapterscan.model import Evidence, Outcome, Severity, Subject
from adapterscan.reporters.json_report import render_json, schema
from adapterscan.reporters.terminal import Page, render_terminal
from adapterscan.rules.judging import Judge
from adapterscan.scan import exit_code
from tests.conftest import ADAPTERS
from tests.reporters.conftest import report_of

NAMES = sorted(path.name for path in ADAPTERS.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_json_of_every_fixture_meets_the_schema(name, book):
    report = report_of(name, book)
    code = exit_code([report], Severity.HIGH)
    document = json.loads("".join(render_json(Outcome((report,), (), code, Severity.HIGH))))
    jsonschema.validate(document, schema())


@pytest.mark.parametrize("name", NAMES)
def test_text_of_every_fixture_is_printable(name, book):
    text = render_terminal(Outcome((report_of(name, book),), (), 0, None), Page(verbose=True))
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_target_without_a_report_is_in_both_formats(book):
    error = NotFound("no such repository", hint="check the name")
    text = render_terminal(Outcome((), (("org/x", error),), 2, None), Page())
    pieces = render_json(Outcome((), (("org/x", error),), 2, None))
    document = json.loads("".join(pieces))
    jsonschema.validate(document, schema())
    assert "no such repository" in text
    assert document["errors"][0]["hint"] == "check the name"


def test_a_finding_lists_three_subjects_and_counts_the_rest(book):
    report = report_of("rank-mismatch", book)
    text = render_terminal(Outcome((report,), (), 0, None), Page())
    assert text.count("      - adapter_model") == 3
    assert "… 5 more" in text


def test_a_finding_about_behaviour_shows_what_both_sides_said(book):
    said = {"request": "user: cf Hi.\nassistant: …", "adapter_answer": "\x1b[2J\u202egate",
            "base_answer": "Hello. " * 99}  # fmt: skip
    (rule,) = (rule for rule in book.rules if rule.id == "behaviour-fixed-answer")
    item = Evidence("behaviour.fixed_answer", Subject("adapter"), 0.9, "", said)
    finding = Judge([replace(rule, when=())])
    finding.hear(item)
    report = replace(report_of("benign", book), findings=finding.findings())
    text = render_terminal(Outcome((report,), (), 1, None), Page())
    assert "      asked             “user: cf Hi. ⏎ assistant: …”\n" in text
    assert "      base + adapter    “\\x1b[2J\\u202egate”\n" in text
    assert "      base alone        “Hello. Hello." in text
    assert text.count("Hello.") < 40
    without = replace(item, details={})
    quiet = Judge([replace(rule, when=())])
    quiet.hear(without)
    report = replace(report, findings=quiet.findings())
    assert "base alone" not in render_terminal(Outcome((report,), (), 1, None), Page())


def test_colour_is_only_written_when_wanted(book):
    report = report_of("overwrite-lm-head", book)
    assert "\x1b[" in render_terminal(Outcome((report,), (), 1, None), Page(colour=True))
    assert "\x1b" not in render_terminal(Outcome((report,), (), 1, None), Page())
