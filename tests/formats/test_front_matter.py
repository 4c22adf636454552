"""Heads of cards: lists, tables and texts, and nothing that grows or constructs."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from adapterscan.errors import FileProblem, LimitExceeded, Malformed
from adapterscan.formats.front_matter import LIMIT, parse, split


def test_the_head_is_what_stands_between_the_first_two_marks() -> None:
    assert split("---\na: 1\n---\nrest\n---\n") == ("a: 1", "rest\n---\n")
    assert split("\ufeff---\r\na: 1\n---\nrest")[0] == "a: 1"


@pytest.mark.parametrize("text", ["", "# Title", "---\nnever closed", "text\n---\na: 1\n---\n"])
def test_a_card_without_a_head_has_none(text: str) -> None:
    assert split(text) == ("", text)


def test_every_scalar_stays_the_text_that_it_was() -> None:
    block = "license: no\nbase_model:\n- a/b\n- c/d\nn: 0x10\nwhen: 2024-01-01\ndeep: {a: [1]}"
    assert parse(block, "README.md") == {
        "license": "no", "base_model": ["a/b", "c/d"], "n": "0x10", "when": "2024-01-01",
        "deep": {"a": ["1"]},
    }  # fmt: skip


def test_a_tag_constructs_nothing() -> None:
    assert parse("a: !!python/object/apply:os.system [echo inert]", "README.md") == {
        "a": ["echo inert"]
    }


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("a: &x [1]\nb: *x", Malformed),
        ("- a\n- b", Malformed),
        ("just words", Malformed),
        ("a: [1", Malformed),
        ("a: \x00", Malformed),
        ("a: " + "[" * 40 + "]" * 40, LimitExceeded),
        ("a: x" * LIMIT, LimitExceeded),
        ("a: [" + "1," * 25_000 + "]", LimitExceeded),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_file_and_a_next_step(
    block: str, problem: type[FileProblem]
) -> None:
    with pytest.raises(problem) as caught:
        parse(block, "README.md")
    assert caught.value.path == "README.md"
    assert caught.value.hint


@pytest.mark.parametrize("piece", ["{", "[", "- ", "? ", "a: ", "&a ", "!!", "'", "|\n", "#", "\t"])
def test_a_hostile_head_takes_seconds_at_most(piece: str) -> None:
    block = (piece * LIMIT)[:LIMIT]
    start = time.process_time()
    with suppress(FileProblem):
        parse(block, "README.md")
    assert time.process_time() - start < 3
