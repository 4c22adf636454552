"""Whatever an adapter calls things, the lines of a report are ours: no command, no forged line.

Hostile text stands in every place where text of an adapter can stand in a report.
"""

import csv
import io
import json
import unicodedata
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterscan.desk import Desk
from adapterscan.errors import AdapterscanError
from adapterscan.events import Closed, Opened, decode, encode
from adapterscan.model import (
    AdapterSummary,
    Evidence,
    FileKind,
    FileRecord,
    Outcome,
    Skipped,
    SourceKind,
    Subject,
)
from adapterscan.reporters.comparison import render_table
from adapterscan.reporters.csv_report import render_csv
from adapterscan.reporters.cyclonedx import render_cyclonedx
from adapterscan.reporters.json_report import render_json
from adapterscan.reporters.junit import render_junit
from adapterscan.reporters.markdown import render_markdown
from adapterscan.reporters.sarif import render_sarif
from adapterscan.reporters.terminal import Page, render_terminal
from adapterscan.rules.book import load_rules
from adapterscan.text import printable
from adapterscan.together.lineage import Comparison
from adapterscan.together.relation import relate
from tests.rule_cases import cases

RESULT = "Result: no findings (exit code 0, --fail-on high)"
HOSTILE = [
    "\x1b]0;owned\x07\x1b[31m\x1b[2J",
    "\x9b31m",
    "\r" + RESULT,
    "\n" + RESULT,
    "\u2028" + RESULT,
    "\x85" + RESULT,
    "x " * 60 + RESULT,
    "\u202egnp.exe",
    "\u2066a\u2069",
    "a\u200bb\ufeff",
    "\U000e0041",
    "::error file=a.py,line=1::owned",
    "x " * 80 + "::stop-commands::t",
    "\n::set-output name=a::b",
    "##[error]owned",
    "##vso[task.setvariable variable=a]b",
    "##teamcity[buildStatus status='x']",
    "<script>alert(1)</script>",
    "<!--",
    "--><img src=x onerror=a>",
    "[a](javascript:b)",
    "![x](http://e)",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(1)",
    '"}],"exit_code":0,"x":[{"a":"',
    "\\",
    "\ud800",
    "%n%s{0}",
    "section_start:0:a\r\x1b[0K",
    "\x00",
    "\x08" * 9,
    "\x7f",
    "|",
    "\u202e",
    "hf_" + "a" * 34,
]
TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=60) | st.builds(
    "{}{}{}".format, st.text(max_size=8), st.sampled_from(HOSTILE), st.text(max_size=8)
)  # fmt: skip
BOOK = load_rules()
HITS = [fact for case in cases() if case.hits for fact in case.evidence]
WORDS = {
    str(word)
    for rule in BOOK
    for condition in rule.when
    for word in (condition.value if isinstance(condition.value, tuple) else [condition.value])
}


def spoilt(fact, text):
    """Return a fact with `text` wherever an adapter's words can stand and its rule still holds."""
    details = {
        key: f"{value}{text}" if isinstance(value, str) and value not in WORDS else value
        for key, value in fact.details.items()
    }
    subject = Subject(fact.subject.kind, f"{text}{fact.subject.file}", f"{text}{fact.subject.name}")
    free = isinstance(fact.value, str) and fact.value not in WORDS
    value = f"{text}{fact.value}" if free else fact.value
    return replace(fact, subject=subject, value=value, details=details)


def report_of(text, facts):
    """Return a report with `text` in every field of every noun that is text."""
    desk = Desk(BOOK, config_file=text)
    summary = AdapterSummary(text, text, text, text, 1, 1, 1, {text: 1}, 1.0)
    record = FileRecord(text, 1, FileKind.OTHER, None, "analysed", None)
    skipped = [Skipped(text, text, failed, text, text, text) for failed in (True, False)]
    for event in (
        Opened(text, text, SourceKind.FOLDER, text, {"base": text}), summary, record, *skipped,
        *(spoilt(fact, text) for fact in facts),
    ):  # fmt: skip
        desk.hear(decode(encode(event)))
    report = desk.hear(Closed())
    assert {field.name for field in fields(report)} >= {"target", "files", "findings", "evidence"}
    return report


def outcome_of(report, text):
    return Outcome((report,), ((text, AdapterscanError(text, hint=text)),), 1, None)


def assert_ours(page):
    lines = page.split("\n")
    for line in lines:
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)
        assert not line.strip().startswith("::")
        assert not any(command in line for command in ("##[", "##vso[", "##teamcity["))
    assert "hf_aaaaaaaaa" not in page
    return lines


@pytest.mark.parametrize("verbose", [False, True])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, start=st.integers(0, max(0, len(HITS) - 1)))
def test_a_page_for_people_holds_no_line_that_an_adapter_wrote(verbose, text, start):
    report = report_of(text, HITS[start : start + 12])
    page = Page(width=80, verbose=verbose)
    lines = assert_ours(render_terminal(outcome_of(report, text), page))
    assert [line for line in lines if line.startswith("Result:")] == [lines[-2]]
    assert "exit code 1" in lines[-2]


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, start=st.integers(0, max(0, len(HITS) - 1)))
def test_json_says_what_stands_there_in_ascii_and_no_build_server_obeys_it(text, start):
    report = report_of(text, HITS[start : start + 12])
    document = "".join(render_json(Outcome((report,), (), 1, None)))
    assert document.isascii()
    assert_ours(document)
    parsed = json.loads(document)
    assert parsed["exit_code"] == 1
    if "hf_" not in text:
        assert parsed["reports"][0]["target"] == text
        assert parsed["reports"][0]["files"][0]["path"] == text


OTHERS = {
    "markdown": (render_markdown, lambda page: None),
    "csv": (render_csv, lambda page: list(csv.reader(io.StringIO(page)))),
    "junit": (render_junit, ElementTree.fromstring),
    "cyclonedx": (render_cyclonedx, json.loads),
    "sarif": (lambda outcome: render_sarif(outcome, BOOK, Path("/")), json.loads),
}


@pytest.mark.parametrize("form", OTHERS)
@settings(max_examples=40, deadline=None)
@given(text=TEXTS, start=st.integers(0, max(0, len(HITS) - 1)))
def test_no_other_format_holds_a_line_that_an_adapter_wrote(form, text, start):
    render, parse = OTHERS[form]
    page = "".join(render(outcome_of(report_of(text, HITS[start : start + 12]), text)))
    assert_ours(page.replace("\r\n", "\n"))
    parse(page)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_a_comparison_holds_no_line_that_an_adapter_wrote(text):
    found = [Comparison(text, text, relate([], [text, text]), False, True)]
    skipped = [Skipped(text, text, True, text)]
    assert_ours("".join(render_table(found, skipped, verbose=True)))


@settings(max_examples=300)
@given(text=TEXTS, limit=st.integers(3, 80))
def test_printable_text_begins_no_command_wherever_a_line_breaks(text, limit):
    for word in ["".join(printable(text, limit)), *printable(text, limit).split()]:
        assert not word.startswith("::")
        assert_ours(word)


def test_names_with_colons_inside_stay_as_they_are():
    assert printable("c10::Half and torch::jit") == "c10::Half and torch::jit"


def test_every_fact_of_the_cases_can_be_spoilt():
    assert len(HITS) > 100
    assert spoilt(Evidence("a", Subject("file", "f", "n"), "v"), "!").value == "!v"
