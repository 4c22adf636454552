"""Patterns from a config are matched as PEFT matches them, and cannot hang or fill the machine."""

import re
import time

import pytest

from adapterscan.formats.patterns import layered, match_all, saved

NAMES = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qkv"]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (r".*\.(q_proj|v_proj)", 6),
        (r"^(?!.*layers\.0).*q_proj$", 2),
        ("model.layers.1.self_attn.q_proj", 1),
        ("q_proj", 0),
        (r"(.*\.)?(layers\.2\.self_attn\.k_proj)$", 1),
    ],
)
def test_honest_patterns_match_as_re_does(pattern, count):
    assert len(match_all([pattern], NAMES)[pattern].names) == count


@pytest.mark.parametrize("pattern", [r"(.*)*(.*)*(.*)*!", r"((a|aa|model|.)+)+!"])
def test_a_pattern_that_hangs_is_reported_and_the_others_are_answered(pattern):
    start = time.monotonic()
    answers = match_all([pattern, r".*q_proj$"], NAMES)
    assert answers[pattern].problem == "timeout"
    assert len(answers[r".*q_proj$"].names) == 3
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("pattern", ["((((a{1000}){1000}){1000}){1000})", "(" * 2000 + ")" * 2000])
def test_a_pattern_that_grows_ends_with_an_answer(pattern):
    assert match_all([pattern], NAMES)[pattern].names == frozenset()


def test_a_pattern_that_does_not_compile_is_invalid():
    assert match_all(["(q_proj"], NAMES)["(q_proj"].problem.startswith("invalid")


def test_an_overlong_pattern_is_not_tried():
    pattern = "(a)" * 5000
    assert match_all([pattern], NAMES)[pattern].problem == "too long"


def test_many_hostile_patterns_are_given_up_after_three():
    start = time.monotonic()
    answers = match_all([f"(.*)*(.*)*(.*)*{i}!" for i in range(6)], NAMES)
    assert {answer.problem for answer in answers.values()} == {"timeout"}
    assert time.monotonic() - start < 40


@pytest.mark.parametrize("entry", ["q_proj", "layers", r"(self_)?attn", "k|v_proj"])
def test_an_entry_of_modules_to_save_matches_as_peft_makes_it(entry):
    expected = {name for name in NAMES if re.match(rf"(^|.*\.){entry}($|\..*)", name)}
    assert match_all([saved(entry)], NAMES)[saved(entry)].names == expected


@pytest.mark.parametrize("pattern", ["layers", "(h|layers)", "model.layers", "q_proj"])
def test_a_layers_pattern_matches_as_peft_makes_it(pattern):
    expected = {name for name in NAMES if re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name)}
    assert match_all([layered(pattern)], NAMES)[layered(pattern)].names == expected
