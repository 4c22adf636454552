"""`adapterscan merge` as a user runs it."""

import json

import jsonschema
import pytest

from adapterscan.reporters.json_report import schema
from tests.planted import TRAINED
from tests.small_adapters import made, written

PAIR = (TRAINED / "colluding-one", TRAINED / "colluding-other")


@pytest.fixture
def two(tmp_path):
    return written(tmp_path / "one", made(0)), written(tmp_path / "other", made(1))


def test_a_colluding_pair_exits_with_1_and_says_why(run):
    result = run("merge", *PAIR)
    assert result.returncode == 1
    said = " ".join(result.stdout.split())
    assert "60 (30/30)" in said
    assert "point against each other in 60 of 60 modules, the first the larger one in 30" in said
    assert "the same directions, rescaled module by module" in said


def test_adapters_that_leave_each_other_alone_exit_with_0(run, two):
    result = run("merge", *two)
    assert result.returncode == 0
    assert "unrelated" in result.stdout


def test_the_report_follows_the_schema(run, two):
    result = run("merge", *two, "-f", "json", "--weights", "1,-0.5")
    document = json.loads(result.stdout)
    jsonschema.validate(document, schema())
    assert [report["name"] for report in document["reports"]][-1] == "one − 0.5·other"
    assert document["reports"][-1]["evidence_counts"]["sum.module"] == 12


def test_two_runs_give_the_same_report(run, two):
    arguments = ("merge", *two, "-f", "json", "--method", "dare_ties", "--density", 0.5)
    assert run(*arguments, "-j", 1).stdout == run(*arguments, "-j", 2).stdout


def test_verbose_shows_every_module(run, two):
    assert "8 more modules; --verbose shows all" in run("merge", *two).stdout
    assert "more modules" not in run("merge", *two, "-v").stdout


def test_a_combination_can_be_kept_and_scanned(run, two, tmp_path):
    assert run("merge", *two, "--save", tmp_path / "kept").returncode == 0
    assert run("scan", tmp_path / "kept").returncode == 0
    again = run("merge", *two, "--save", tmp_path / "kept")
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_a_place_that_cannot_be_written_to_is_no_defect_of_ours(run, two, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("merge", *two, "--save", tmp_path / "file" / "kept")
    assert result.returncode == 2
    assert "cannot be written (Not a directory)" in " ".join(result.stdout.split())
    assert "defect" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "1"], "1 weights for 2 adapters"),
        (["--weights", "1,x"], "are not weights"),
        (["--weights", "1,inf"], "finite number"),
        (["--method", "slerp"], "use one of cat, svd"),
        (["--method", "ties"], "--density 0.5"),
        (["--density", "0.5"], "methods that prune"),
        (["--method", "ties", "--density", "0"], "above 0"),
        (["--rank", "3"], "--rank is for --method svd"),
        (["--base", "x"], "--base is for --probe here"),
        (["--device", "cuda"], "--device is for probes"),
    ],
)
def test_options_that_do_not_go_together_are_explained(run, two, arguments, said):
    result = run("merge", *two, *arguments)
    assert result.returncode == 2
    assert said in result.stderr


def test_one_adapter_is_no_combination(run, two):
    result = run("merge", two[0])
    assert result.returncode == 2
    assert "name two or more" in result.stderr


def test_an_adapter_that_was_mistyped_is_named(run, two, tmp_path):
    result = run("merge", two[0], "no such adapter")
    assert result.returncode == 2
    assert "no such adapter" in result.stdout
    assert "no combination" not in result.stdout + result.stderr


def test_of_three_adapters_with_one_mistyped_the_other_two_are_not_put_together(run, two):
    result = run("merge", *two, "./typo", "--weights", "1,1,0.5")
    assert result.returncode == 2
    assert "typo" in result.stdout
    assert "one + other" not in result.stdout


def test_a_part_that_cannot_be_opened_or_read_is_no_pass(run, two, adapters, tmp_path):
    assert run("merge", two[0], tmp_path / "nowhere").returncode == 2
    result = run("merge", two[0], adapters / "kohya")
    assert result.returncode == 2
    assert "kohya is not one adapter" in result.stdout


def test_findings_of_a_part_count_even_where_nothing_can_be_put_together(run, two, adapters):
    result = run("merge", two[0], adapters / "overwrite-lm-head")
    assert result.returncode == 1
    assert "lm_head.weight" in result.stdout
