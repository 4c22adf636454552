"""What the terminal report says of its coverage: short, true, and failures in full."""

from dataclasses import replace

import pytest

from adapterscan.calibration import Reference
from adapterscan.model import Evidence, Outcome, Skipped, Subject
from adapterscan.reporters.comparison import render_table
from adapterscan.reporters.terminal import Page, render_terminal
from adapterscan.rules.judging import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.together.lineage import Comparison
from adapterscan.together.relation import relate
from tests.conftest import ADAPTERS

SPECTRA = "spectra, norms and moments of every ΔW"


@pytest.fixture(scope="module")
def report():
    return of("benign-qv")


def of(name):
    artifact = open_artifact(parse_ref(str(ADAPTERS / name)), HubOptions())
    return scan(artifact, load_rules(), options=ScanOptions(peers=Reference()))


def said(*reports, verbose=False):
    text = render_terminal(Outcome(tuple(reports), (), 0, None), Page(verbose=verbose))
    return " ".join(text.split())


def with_skipped(report, *items):
    return replace(report, coverage=replace(report.coverage, skipped=items))


def test_what_nobody_asked_for_takes_a_line_with_the_options_that_ask(report):
    assert (
        "Not tested: base model (--base BASE); behaviour (--base BASE --probe quick); how unusual "
        "the statistics are among adapters of its kind (--reference FILE)." in said(report)
    )
    assert "not in this report" not in said(report)


def test_verbose_says_why_nobody_was_asked(report):
    text = said(report, verbose=True)
    assert "not in this report: behaviour: no prompts were run" in text
    assert "Not tested:" not in text


def test_what_no_option_asks_for_is_told_without_its_hint(report):
    items = [Skipped(f"file {n}", "is text", failed=False, hint="read it") for n in range(6)]
    text = said(with_skipped(report, *items))
    assert "Not in this report: file 0: is text; file 1: is text;" in text
    assert "file 3: is text; 2 more (--verbose)." in text
    assert "read it" not in text


def test_a_failure_is_told_in_full_by_default(report):
    item = Skipped("a.bin", "is broken", failed=True, hint="ask its author")
    assert "not analysed: a.bin: is broken (ask its author)" in said(with_skipped(report, item))


def test_a_second_report_does_not_repeat_what_the_first_said(report):
    text = said(report, report)
    assert text.count("Not tested:") == 1
    assert "Inspected and not tested: the same as above." in text


def test_a_report_that_inspected_less_says_so_below_one_that_inspected_more(report):
    text = said(report, of("kohya"))
    assert "the same as above" not in text
    assert text.count(SPECTRA) == 1


def test_a_report_without_updates_says_that_none_was_measured():
    assert "texts. No weight update was measured." in said(of("kohya"))


def test_no_files_are_no_empty_brackets(report):
    text = said(replace(report, files=()))
    assert "Coverage 0 files. Inspected" in text


def test_the_result_says_that_behaviour_was_not_tested(report):
    assert "Result: 2 info; behaviour was not tested (exit code 0" in said(report)


def test_the_result_of_a_probed_adapter_does_not_say_so(report):
    probed = replace(with_skipped(report), versions={**report.versions, "probes": "quick"})
    assert "Result: 2 info (exit code 0" in said(probed)
    assert "behaviour of 1 target was not tested" in said(report, probed)


def test_the_overview_tells_behaviour_from_what_was_asked(report):
    asked = {**report.versions, "probes": "quick"}
    ended = with_skipped(report, Skipped("behaviour", "interrupted", failed=True))
    text = said(report, replace(with_skipped(report), versions=asked),
                replace(ended, versions=asked))  # fmt: skip
    assert "low what was asked behaviour" in text
    assert "complete not tested" in text
    assert "complete tested" in text
    assert "incomplete incomplete" in text


def test_a_p_value_is_shown_below_the_table(report):
    details = {"members": 87, "alike": "base, width", "floor": 1 / 88}
    item = Evidence("adapter.standing", Subject("adapter", "a"), 0.384, "", details)
    assert "How usual" not in said(report)
    assert (
        "How usual: p = 0.38 among 87 adapters alike in base, width (1 is ordinary, 0.011 the "
        "least)" in said(replace(report, evidence=(item,)))
    )


def test_three_p_values_are_shown_and_the_rest_counted(report):
    details = {"members": 87, "alike": "base", "floor": 1 / 88}
    items = [Evidence("adapter.standing", Subject("adapter", f"{n}"), 0.5, "", details)
             for n in range(5)]  # fmt: skip
    many = replace(report, evidence=tuple(items))
    assert said(many).count("How usual") == 3
    assert "… 2 more; --verbose shows all" in said(many)
    assert said(many, verbose=True).count("How usual") == 5


def test_adapters_without_a_common_module_have_no_cosine():
    apart = Comparison("a", "b", relate([], ["m"]), same_file=False, exact=True)
    row = "".join(render_table([apart], (), verbose=False)).splitlines()[2]
    assert row.split() == ["a", "b", *"no module in common - 0 of 0 -".split()]


def test_nothing_compared_is_no_empty_table():
    assert "".join(render_table([], (), verbose=False)) == ""
