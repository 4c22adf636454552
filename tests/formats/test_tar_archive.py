"""Entries of a tar as Python's own reader lists them, and what it passes over."""

import io
import tarfile

import pytest

from adapterscan.formats.tar_archive import TarEntry, TarRest, tar_entries
from adapterscan.formats.zip_archive import MemorySource

LONG = "d" * 150 + "/" + "é" * 60


def tarred(entries: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


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
