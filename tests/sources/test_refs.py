from __future__ import annotations

from pathlib import Path

import pytest

from adapterscan.errors import BadReference, NotFound
from adapterscan.model import SourceKind
from adapterscan.sources import parse_ref


@pytest.mark.parametrize(
    ("text", "location", "revision", "subfolder"),
    [
        ("org/name", "org/name", None, ""),
        ("org/name@main", "org/name", "main", ""),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1", ""),
        ("org/name@v1:a/b", "org/name", "v1", "a/b"),
        ("org/name:a/b/", "org/name", None, "a/b"),
        ("org/name:a@b", "org/name", None, "a@b"),
        ("hf://org/na.me_1-x@0a1b", "org/na.me_1-x", "0a1b", ""),
    ],
)
def test_a_hub_reference_has_a_repository_a_revision_and_a_subfolder(
    text: str, location: str, revision: str | None, subfolder: str
) -> None:
    ref = parse_ref(text, exists=lambda path: False)
    assert (ref.kind, ref.location) == (SourceKind.HUB, location)
    assert (ref.revision, ref.subfolder) == (revision, subfolder)


def test_the_revision_may_be_given_apart() -> None:
    assert parse_ref("org/name:sub", revision="v2").revision == "v2"


def test_two_different_revisions_are_a_mistake() -> None:
    with pytest.raises(BadReference, match="two revisions"):
        parse_ref("org/name@v1", revision="v2")


def test_an_existing_path_wins_over_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name@v1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    ref = parse_ref("org/name@v1")
    assert (ref.kind, ref.location) == (SourceKind.FOLDER, str(Path("org/name@v1")))


def test_the_prefix_forces_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_ref("hf://org/name").kind is SourceKind.HUB


def test_an_existing_file_is_a_single_file(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.touch()
    assert parse_ref(str(file)).kind is SourceKind.FILE


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "adapter").mkdir()
    assert parse_ref("~/adapter").location == str(tmp_path / "adapter")


@pytest.mark.parametrize("text", ["C:\\a\\b", "C:/a/b", "c:adapter", "..\\x", "./nope", "/no/x"])
def test_a_path_that_is_not_there_is_never_taken_for_a_repository(text: str) -> None:
    with pytest.raises(NotFound, match="no such file or folder"):
        parse_ref(text)


def test_a_mistyped_path_is_answered_with_the_closest_name(tmp_path: Path) -> None:
    (tmp_path / "my-adapter").mkdir()
    with pytest.raises(NotFound) as caught:
        parse_ref(str(tmp_path / "my-adaptor"))
    assert "my-adapter" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "org/name"),
        ("   ", "org/name"),
        ("a\0b/c", "org/name"),
        ("name", "org/name"),
        ("org/name/sub/folder", "org/name:sub/folder"),
        ("org/na--me", "'--'"),
        ("org/name.git", ".git"),
        ("https://hub.example/org/name/tree/v1/sub", "org/name@v1:sub"),
        ("org/" + "n" * 120, "96"),
        ("org/name@", "branch"),
        ("org/name@a..b", "branch"),
        ("org/name@-x", "branch"),
        ("org/name@a b", "branch"),
        ("org/name@x\u202ey", "branch"),
        ("org/name:", "forward slashes"),
        ("org/name:../x", "forward slashes"),
        ("org/name:/etc", "forward slashes"),
        ("org/name@v1:a/../../b", "forward slashes"),
        ("org/name@v1:a//b", "forward slashes"),
        ("org/name:C:/x", "forward slashes"),
    ],
)
def test_a_malformed_reference_says_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse_ref(text, exists=lambda path: False)
    assert hint in caught.value.hint


def test_a_revision_makes_no_sense_for_a_path(tmp_path: Path) -> None:
    with pytest.raises(BadReference, match="local path"):
        parse_ref(str(tmp_path), revision="main")
