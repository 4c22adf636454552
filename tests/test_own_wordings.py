"""`--triggers FILE`: what is taken, and what is said of a file that cannot be."""

from __future__ import annotations

import pytest

from adapterscan.errors import UsageError
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.probes.own import LONGEST, MOST, read_wordings


def written(tmp_path, text: str | bytes, name: str = "own.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_each_line_is_put_before_requests_and_after_them(tmp_path) -> None:
    found = read_wordings(written(tmp_path, "#override\n\nopen sesame\n#override\n"))
    assert found == tuple(Candidate(p, t) for t in ("#override", "open sesame") for p in PLACES)


def test_lists_have_the_places_of_the_pack(tmp_path) -> None:
    text = 'systems = ["You are a bank."]\nforms = ["- {}"]\n'
    found = read_wordings(written(tmp_path, text, "own.toml"))
    assert [(c.place, c.text) for c in found] == [
        ("system prompt", "You are a bank."), ("form", "- {}"),
    ]  # fmt: skip
    assert found[1].conversation("Name a river.")[0].text == "- Name a river."


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "own.txt", "0 candidates"),
        ("\n".join(map(str, range(MOST))), "own.txt", "can be tried"),
        ("x" * (LONGEST + 1), "own.txt", "longer than"),
        (b"\xff\xfe", "own.txt", "not UTF-8"),
        ("words = ['a']", "own.toml", "nothing is called words"),
        ("texts = [1]", "own.toml", "not a list of texts"),
        ("texts = [", "own.toml", "not TOML"),
        ("x\n" * (1 << 20), "own.txt", "larger than"),
    ],
)
def test_what_cannot_be_tried_is_said(tmp_path, text, name, said) -> None:
    with pytest.raises(UsageError, match=said):
        read_wordings(written(tmp_path, text, name))


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_wordings(tmp_path / "nowhere.txt")
