"""Reports: JSON meets its schema for every fixture, text shows nothing unescaped."""

import json
from dataclasses import replace

import jsonschema
import pytest

from adapterscan.errors import NotFound
from adapterscan.model import Evidence, Severity, Subject
from adapterscan.reporters.json_report import render_json, schema
from adapterscan.reporters.terminal import Page, render_terminal
from adapterscan.rules.judging import Judge, load_rules
from adapterscan.scan import exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.conftest import ADAPTERS

NAMES = sorted(path.name for path in ADAPTERS.iterdir())


@pytest.fixture(scope="module")
def book():
    return load_rules()


def report_of(name, book):
    return scan(open_artifact(parse_ref(str(ADAPTERS / name)), HubOptions()), book)


@pytest.mark.parametrize("name", NAMES)
def test_json_of_every_fixture_meets_the_schema(name, book):
    report = report_of(name, book)
    code = exit_code([report], Severity.HIGH)
    document = json.loads("".join(render_json([report], exit_code=code, fail_on=Severity.HIGH)))
    jsonschema.validate(document, schema())


@pytest.mark.parametrize("name", NAMES)
def test_text_of_every_fixture_is_printable(name, book):
    text = render_terminal([report_of(name, book)], Page(verbose=True), exit_code=0, fail_on=None)
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_target_without_a_report_is_in_both_formats(book):
    error = NotFound("no such repository", hint="check the name")
    text = render_terminal([], Page(), exit_code=2, fail_on=None, errors=[("org/x", error)])
    pieces = render_json([], exit_code=2, fail_on=None, errors=[("org/x", error)])
    document = json.loads("".join(pieces))
    jsonschema.validate(document, schema())
    assert "no such repository" in text
    assert document["errors"][0]["hint"] == "check the name"


def test_a_finding_lists_three_subjects_and_counts_the_rest(book):
    report = report_of("rank-mismatch", book)
    text = render_terminal([report], Page(), exit_code=0, fail_on=None)
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
    text = render_terminal([report], Page(), exit_code=1, fail_on=None)
    assert "      asked             “user: cf Hi. ⏎ assistant: …”\n" in text
    assert "      base + adapter    “\\x1b[2J\\u202egate”\n" in text
    assert "      base alone        “Hello. Hello." in text
    assert text.count("Hello.") < 40
    without = replace(item, details={})
    quiet = Judge([replace(rule, when=())])
    quiet.hear(without)
    report = replace(report, findings=quiet.findings())
    assert "base alone" not in render_terminal([report], Page(), exit_code=1, fail_on=None)


def test_colour_is_only_written_when_wanted(book):
    report = report_of("overwrite-lm-head", book)
    assert "\x1b[" in render_terminal([report], Page(colour=True), exit_code=1, fail_on=None)
    assert "\x1b" not in render_terminal([report], Page(), exit_code=1, fail_on=None)
