"""Entries of a tar as Python's own reader lists them, and what it passes over."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.tar_archive import TarEntry, TarRest, tar_entries
from adapterscan.formats.zip_archive import MemorySource
from benchmarks.corpora.archives import tarred

LONG = "d" * 150 + "/" + "é" * 60


def read(data: bytes) -> list[TarEntry | TarRest]:
    return list(tar_entries(MemorySource(data)))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_and_places_are_those_of_tarfile(form: int) -> None:
    data = tarred({"a.txt": b"x" * 700, LONG: b"y", "empty": b""}, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [TarEntry(m.name, m.offset_data, m.size) for m in archive]
    assert read(data) == expected


def test_a_size_in_an_extension_outranks_the_header() -> None:
    data = bytearray(tarred({"a": b"x" * 9}, tarfile.PAX_FORMAT))
    record = tarred({"pax": b"10 size=9\n"})[:1024]
    head = bytearray(record[:512])
    head[156:157] = b"x"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    (entry,) = read(bytes(head) + record[512:] + bytes(data))
    assert (entry.start, entry.size) == (1536, 9)


def test_an_archive_behind_the_end_is_not_expected() -> None:
    first, second = read(tarred({"a": b"x"}) + tarred({"b": b"y"}))
    assert [entry.expected for entry in (first, second) if isinstance(entry, TarEntry)] == [
        True, False,
    ]  # fmt: skip


def test_what_is_no_entry_is_told_with_its_place() -> None:
    whole = tarred({"a": b"x"})
    assert read(whole[:1024] + b"z" * 600) == [TarEntry("a", 512, 1), TarRest(1024, 600)]


def test_padding_is_not_told() -> None:
    assert read(tarred({"a": b"x"}) + bytes(100_000)) == [TarEntry("a", 512, 1)]


def zipped(payload: bytes, size: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/data/0", bytes(size))
    return buffer.getvalue()


def looked_into(folder: Path, data: bytes) -> tuple[list[str], list[str]]:
    """Return the globals and the defects that are found in a file."""
    path = folder / "megatron_lora.nemo"
    path.write_bytes(data)
    with SourceFile(path.name, path) as file:
        facts = pickle_facts(find_pickles(file), "trainer")
    names = [str(f.details["name"]) for f in facts if f.name == "pickle.global"]
    return names, [str(f.value) for f in facts if f.name == "archive.defect"]


@pytest.mark.parametrize("size", [100, 20 << 20])
def test_a_checkpoint_at_the_end_of_a_tar_is_no_contradiction(size: int, tmp_path: Path) -> None:
    data = tarred({"model_config.yaml": b"a: 1\n", "model_weights.ckpt": zipped(b"N.", size)})
    assert looked_into(tmp_path, data) == ([], [])


@pytest.mark.parametrize("size", [100, 20 << 20])
@pytest.mark.parametrize("last", [True, False])
def test_a_pickle_in_a_checkpoint_in_a_tar_is_found(size: int, last: bool, tmp_path: Path) -> None:
    bad = {"model_weights.ckpt": zipped(b"cposix\nsystem\n(S'echo inert'\ntR.", size)}
    entries = {"a.yaml": b"a: 1\n"} | bad if last else bad | {"a.yaml": b"a: 1\n"}
    assert looked_into(tmp_path, tarred(entries))[0] == ["system"]


def test_a_directory_that_reaches_out_of_the_last_entry_is_a_contradiction(tmp_path: Path) -> None:
    whole = zipped(b"N.")
    data = tarred({"a.txt": whole[:40], "b.ckpt": whole[40:]})
    assert "polyglot" in looked_into(tmp_path, data)[1]
