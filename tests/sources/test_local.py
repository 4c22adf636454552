from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from adapterscan.errors import AccessDenied, NotFound
from adapterscan.model import Artifact, Ref, SourceKind
from adapterscan.sources import HubOptions, open_artifact, open_folder, parse_ref

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX file kinds")
not_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)


def opened(path: Path) -> Artifact:
    return open_artifact(parse_ref(str(path)), HubOptions())


def facts(artifact: Artifact) -> list[tuple[str, str, object]]:
    return [(fact.name, fact.subject.file, fact.value) for fact in artifact.evidence]


def failed(artifact: Artifact) -> list[str]:
    return [problem.what for problem in artifact.problems if problem.failed]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "adapter"
    (root / "checkpoint-1").mkdir(parents=True)
    (root / "adapter_config.json").write_bytes(b"{}")
    (root / "adapter_model.safetensors").write_bytes(b"12345")
    (root / "checkpoint-1" / "adapter_config.json").write_bytes(b"{}")
    return root


def test_every_file_is_listed_in_order_with_its_size(folder: Path) -> None:
    artifact = opened(folder)
    assert [(file.path, file.size) for file in artifact.files] == [
        ("adapter_config.json", 2),
        ("adapter_model.safetensors", 5),
        ("checkpoint-1/adapter_config.json", 2),
    ]
    assert artifact.problems == artifact.evidence == ()


def test_version_control_and_download_bookkeeping_are_passed_over(folder: Path) -> None:
    for name in (".git", ".hg", ".cache/huggingface"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x").touch()
    (folder / ".cache" / "y").touch()
    assert [file.path for file in opened(folder).files if "." in file.path[:1]] == [".cache/y"]


def test_a_link_out_of_the_folder_is_reported_and_not_followed(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s")
    (folder / "a.bin").symlink_to("../secret")
    (folder / "b").symlink_to(tmp_path)
    artifact = opened(folder)
    assert facts(artifact) == [
        ("file.symlink_outside", "a.bin", "../secret"),
        ("file.symlink_outside", "b", str(tmp_path)),
    ]
    assert failed(artifact) == ["a.bin", "b"]
    assert len(artifact.files) == 3


def test_a_link_that_would_leave_the_folder_counts_even_when_nothing_is_there(
    folder: Path,
) -> None:
    (folder / "key.bin").symlink_to("../../no/such/key")
    assert facts(opened(folder)) == [("file.symlink_outside", "key.bin", "../../no/such/key")]


def test_a_link_that_stays_inside_is_read(folder: Path) -> None:
    (folder / "also.safetensors").symlink_to("adapter_model.safetensors")
    files = {file.path: file for file in opened(folder).files}
    assert files["also.safetensors"].size == 5


def test_a_link_to_a_folder_inside_is_noted_but_not_walked_twice(folder: Path) -> None:
    (folder / "loop").symlink_to(".")
    (folder / "last").symlink_to("checkpoint-1")
    artifact = opened(folder)
    assert sorted((item.what, item.failed) for item in artifact.problems) == [
        ("last", False),
        ("loop", False),
    ]


def test_a_link_into_a_passed_over_folder_counts_as_not_looked_at(folder: Path) -> None:
    (folder / ".git" / "weights").mkdir(parents=True)
    (folder / "weights").symlink_to(".git/weights")
    assert failed(opened(folder)) == ["weights"]


def test_a_broken_link_is_a_problem_and_not_a_crash(folder: Path) -> None:
    (folder / "gone").symlink_to("nowhere")
    (folder / "self").symlink_to("self")
    assert failed(opened(folder)) == ["gone", "self"]


def cache_snapshot(tmp_path: Path) -> Path:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / ("a" * 64)).write_bytes(b"w")
    (repository / "blobs" / ("b" * 40)).write_bytes(b"{}")
    (snapshot / "adapter_model.safetensors").symlink_to(f"../../blobs/{'a' * 64}")
    (snapshot / "adapter_config.json").symlink_to(f"../../blobs/{'b' * 40}")
    return snapshot


def test_a_cache_snapshot_is_followed_into_its_contents_whose_names_are_promises(
    tmp_path: Path,
) -> None:
    artifact = opened(cache_snapshot(tmp_path))
    promises = [(file.path, file.expected) for file in artifact.files]
    assert [(path, p and (p.algorithm, p.value, p.source)) for path, p in promises] == [
        ("adapter_config.json", ("git-sha1", "b" * 40, "cache blob name")),
        ("adapter_model.safetensors", ("sha256", "a" * 64, "cache blob name")),
    ]
    assert failed(artifact) == []


def test_a_shared_store_of_contents_keeps_the_promise_of_the_first_link(tmp_path: Path) -> None:
    snapshot = cache_snapshot(tmp_path)
    store = tmp_path / "blobs" / "dd" / ("d" * 64)
    store.parent.mkdir(parents=True)
    store.write_bytes(b"w")
    blob = tmp_path / "models--org--name" / "blobs" / ("a" * 64)
    blob.unlink()
    blob.symlink_to(f"../../blobs/dd/{'d' * 64}")
    promise = opened(snapshot).files[1].expected
    assert promise is not None
    assert promise.value == "a" * 64


def test_a_cache_snapshot_may_not_link_into_another_repository(tmp_path: Path) -> None:
    snapshot = cache_snapshot(tmp_path)
    other = tmp_path / "models--org--other" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    other.touch()
    (snapshot / "x.bin").symlink_to(other)
    assert failed(opened(snapshot)) == ["x.bin"]


def test_one_file_of_a_cache_snapshot_keeps_its_promise(tmp_path: Path) -> None:
    artifact = opened(cache_snapshot(tmp_path) / "adapter_model.safetensors")
    assert [file.expected is not None for file in artifact.files] == [True, True]


@posix
def test_fifos_and_sockets_are_reported_and_never_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe.bin")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.bin")
        artifact = opened(folder)
    assert facts(artifact) == [
        ("file.special", "pipe.bin", "fifo"),
        ("file.special", "socket.bin", "socket"),
    ]
    assert failed(artifact) == ["pipe.bin", "socket.bin"]


@posix
def test_a_fifo_given_by_name_is_reported_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    artifact = opened(tmp_path / "pipe.bin")
    assert facts(artifact) == [("file.special", "pipe.bin", "fifo")]
    assert artifact.files == ()


@not_root
def test_a_folder_that_cannot_be_listed_is_a_problem(folder: Path) -> None:
    (folder / "checkpoint-1").chmod(0)
    try:
        assert failed(opened(folder)) == ["checkpoint-1"]
    finally:
        (folder / "checkpoint-1").chmod(0o700)


@not_root
def test_a_target_that_cannot_be_listed_is_an_error(folder: Path) -> None:
    folder.chmod(0)
    try:
        with pytest.raises(AccessDenied):
            opened(folder)
    finally:
        folder.chmod(0o700)


@posix
def test_names_that_are_not_text_are_shown_with_escapes(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/evil\xff.bin", "wb"):  # noqa: PTH123 - a bytes path
        pass
    (folder / "two\nlines.bin").touch()
    paths = [file.path for file in opened(folder).files]
    assert "evil\\xff.bin" in paths
    assert "".join(paths).encode()


def test_names_that_collide_on_other_file_systems_are_reported(folder: Path) -> None:
    (folder / "Adapter_Config.json").touch()
    (folder / "caf\u00e9.bin").touch()
    (folder / "cafe\u0301.bin").touch()
    if len(list(folder.iterdir())) != 6:
        pytest.skip("this file system folds names itself")
    assert facts(opened(folder)) == [
        ("file.name_collision", "adapter_config.json", "Adapter_Config.json"),
        ("file.name_collision", "caf\u00e9.bin", "cafe\u0301.bin"),
    ]


def test_too_many_files_and_too_deep_folders_are_problems(folder: Path) -> None:
    ref = Ref("x", SourceKind.FOLDER, str(folder))
    assert failed(open_folder(ref, max_entries=2)) == ["the folder"]
    assert failed(open_folder(ref, max_depth=0)) == ["checkpoint-1"]


def test_a_single_weight_file_brings_its_config_and_says_what_it_left(folder: Path) -> None:
    artifact = opened(folder / "adapter_model.safetensors")
    assert [file.path for file in artifact.files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [(item.what, item.failed) for item in artifact.problems] == [
        ("1 other entry of the folder", False)
    ]


def test_a_single_other_file_comes_alone(folder: Path) -> None:
    artifact = opened(folder / "adapter_config.json")
    assert [file.path for file in artifact.files] == ["adapter_config.json"]


def test_a_target_that_vanished_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_folder(Ref("x", SourceKind.FOLDER, str(tmp_path / "gone")))
