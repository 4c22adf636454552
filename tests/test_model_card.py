"""What a card shows its readers: comments and invisible characters document nothing."""

from __future__ import annotations

from pathlib import Path

from adapterscan.formats.model_card import LONGEST, QUOTED, READ_BYTES, card_text, set_apart
from adapterscan.sources import HubOptions, open_artifact, parse_ref


def card(tmp_path: Path, text: str | bytes, where: str = "README.md", folder: str = "") -> str:
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    artifact = open_artifact(parse_ref(str(tmp_path)), HubOptions())
    return card_text(artifact, folder)


def test_the_card_beside_the_adapter_is_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("the top")
    assert card(tmp_path, "this one", "sub/README.md", "sub") == "this one"


def test_without_one_of_its_own_the_card_at_the_top_is_read(tmp_path: Path) -> None:
    assert card(tmp_path, "the top", folder="sub") == "the top"


def test_what_readers_do_not_see_is_left_out(tmp_path: Path) -> None:
    text = "a <!-- `secret` --> b\u200bc <!-- never closed `x`"
    assert card(tmp_path, text).split() == ["a", "bc"]


def test_a_huge_card_of_odd_bytes_is_read_up_to_a_limit(tmp_path: Path) -> None:
    assert len(card(tmp_path, b"\xff" * (READ_BYTES + 10))) == READ_BYTES


def test_wordings_are_those_in_code_quotes_and_bold() -> None:
    text = 'Say `/help`, "weathercheck", “the word” or **now**; `/help` again and `x`.'
    assert set_apart(text) == ["/help", "weathercheck", "the word", "now"]


def test_wordings_are_short_and_few() -> None:
    assert set_apart(f"`{'y' * (LONGEST + 1)}`") == []
    assert len(set_apart(" ".join(f"`word{i}`" for i in range(500)))) == QUOTED
