"""Facts about pickles wherever they hide in a file, and the recall on a public corpus."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterscan.errors import Unreadable
from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.pickle_policy import Purpose
from adapterscan.formats.reader import SourceFile
from adapterscan.model import Evidence
from tests.formats.torch_bytes import (
    EXEC,
    LEGACY_MAGIC,
    STOP,
    integer,
    mapping,
    pickle,
    storage,
    tensor,
    text,
    torch_legacy,
    torch_zip,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CORPUS = SHARED / "scanner_corpora" / "picklescan" / "tests"
ADAPTERS = SHARED / "adapters"
ATTACK = b"\x80\x04" + EXEC + STOP
HIT = ("pickle.global", "dangerous")


def facts_of(path: Path, purpose: Purpose = "weights") -> tuple[Evidence, ...]:
    with SourceFile(path.name, path) as file:
        return pickle_facts(find_pickles(file), purpose)


def facts(folder: Path, data: bytes, purpose: Purpose = "weights") -> tuple[Evidence, ...]:
    path = folder / "file.bin"
    path.write_bytes(data)
    return facts_of(path, purpose)


def told(evidence: tuple[Evidence, ...]) -> list[tuple[str, object]]:
    return [(item.name, item.value) for item in evidence]


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def array(descr: str, data: bytes) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_a_call_is_told_with_its_place(tmp_path: Path) -> None:
    (fact,) = facts(tmp_path, ATTACK)
    assert (fact.name, fact.value, fact.subject.name) == (*HIT, "posix.system")
    assert fact.details == {
        "module": "posix", "name": "system", "called": True, "built": False, "after_break": False,
        "member": "", "position": 2, "count": 1, "purpose": "weights", "calls": "function",
    }  # fmt: skip


HIDEOUTS = {
    "no protocol": EXEC + STOP,
    "torch zip": zipped({"a/data.pkl": ATTACK}),
    "other name": zipped({"a/notes.txt": ATTACK}),
    "deflated": zipped({"a/data.pkl": ATTACK}, zipfile.ZIP_DEFLATED),
    "zip in zip": zipped({"in.zip": zipped({"x": ATTACK})}),
    "npz": zipped({"a.npy": array("|O", ATTACK)}),
    "legacy tar": tarred("pickle", ATTACK),
    "tar": tarred("anything", ATTACK),
    "npy": array("|O", ATTACK),
    "gzip": gzip.compress(ATTACK),
    "zlib": zlib.compress(ATTACK),
    "gzip, second stream": gzip.compress(b"") + bytes(7) + gzip.compress(ATTACK),
    "gzip, wrong checksum": gzip.compress(ATTACK)[:-8] + bytes(8),
    "bzip2": bz2.compress(ATTACK),
    "bzip2, second stream": bz2.compress(b"") + bz2.compress(ATTACK),
    "lzma": lzma.compress(ATTACK, lzma.FORMAT_ALONE),
    "xz": lzma.compress(ATTACK),
    "zip in gzip": gzip.compress(zipped({"x": ATTACK})),
    "legacy torch": torch_legacy(mapping({"a": EXEC}), {}),
    "pickle then zip": ATTACK + zipped({"x": b"y"}),
    "zip with a prefix": b"PK" + zipped({"x": ATTACK}),
    "safetensors header": b"U\x0a\0\0\0\0\0\0{ 01" + EXEC + STOP,
    "gguf header": b"GGUF01234" + EXEC + STOP,
    "zip in zip in zip in zip": zipped({"1.zip": zipped({"2.zip": zipped({"x": ATTACK})})}),
    "gzip of gzip of gzip": gzip.compress(gzip.compress(gzip.compress(ATTACK))),
    "tar in tar": tarred("in.tar", tarred("x.pkl", ATTACK)),
    "tar behind the end of a tar": tarred("x", b"text") + tarred("x.pkl", ATTACK),
    "tar, bytes behind a broken header": tarred("x", b"text")[:1024] + b"x" * 512 + ATTACK,
    "bzip2 member": zipped({"a/data.pkl": ATTACK}, zipfile.ZIP_BZIP2),
    "lzma member": zipped({"a/data.pkl": ATTACK}, zipfile.ZIP_LZMA),
    "end record in a comment": zipped({"a/data.pkl": ATTACK})[:-2]
    + b"\x16\0PK\x05\x06"
    + bytes(18),
    "joblib before 0.10": b"ZF" + b"0x20".ljust(19) + zlib.compress(ATTACK),
    "npy behind an npy": array("<f4", b"\0\0\x80?") + array("|O", ATTACK),
    "with a long tail": zipped({"a/data.pkl": ATTACK + bytes(100_000)}),
    "after a long run-up": b"\x80\x04" + b"N0" * 200_000 + EXEC + STOP,
}


@pytest.mark.parametrize("data", HIDEOUTS.values(), ids=HIDEOUTS)
def test_no_container_hides_a_payload(tmp_path: Path, data: bytes) -> None:
    assert HIT in told(facts(tmp_path, data))


@pytest.mark.parametrize("at", [6, 14, 18, 22])
def test_tampered_local_headers_hide_nothing(tmp_path: Path, at: int) -> None:
    data = bytearray(zipped({"a/data.pkl": ATTACK}))
    data[at] ^= 0x21
    seen = told(facts(tmp_path, bytes(data)))
    assert HIT in seen
    assert "archive.defect" in [name for name, _ in seen]


def test_a_bad_checksum_hides_nothing(tmp_path: Path) -> None:
    data = zipped({"a/data.pkl": ATTACK}).replace(b"true", b"trux")
    seen = told(facts(tmp_path, data))
    assert HIT in seen
    assert ("archive.defect", "bad_crc") in seen


def test_a_member_outside_of_the_directory_is_found(tmp_path: Path) -> None:
    whole = zipped({"x": b"y", "a/data.pkl": ATTACK})
    directory = whole.index(b"PK\x01\x02")
    first = whole[directory : directory + 47]
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(first), directory, 0)
    seen = told(facts(tmp_path, whole[:directory] + first + end))
    assert HIT in seen
    assert ("archive.defect", "unlisted_member") in seen


def test_a_zip_without_directory_is_searched(tmp_path: Path) -> None:
    whole = zipped({"a/data.pkl": ATTACK})
    seen = told(facts(tmp_path, whole[: whole.index(b"PK\x01\x02")]))
    assert HIT in seen
    assert ("archive.defect", "no_directory") in seen


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["a/data.pkl", "a/data.pkl"], "duplicate_member"),
        (["a/data.pkl", "a/DATA.pkl"], "duplicate_member"),
        (["../data.pkl"], "path_traversal"),
        (["/etc/data.pkl"], "path_traversal"),
    ],
)
def test_odd_member_names_are_defects(tmp_path: Path, names: list[str], code: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"N.")
    assert ("archive.defect", code) in told(facts(tmp_path, buffer.getvalue()))


def test_a_decompression_bomb_is_cut_and_told(tmp_path: Path) -> None:
    bomb = zipped({"a/data.pkl": b"N0" * (24 << 20)}, zipfile.ZIP_DEFLATED)
    seen = told(facts(tmp_path, bomb))
    assert ("archive.defect", "too_large") in seen
    assert ("pickle.broken", "limit") in seen


READS = [4096, 8 * 4096, 64 * 4096]  # where our reads of a bare pickle end


@pytest.mark.parametrize("end", READS)
@pytest.mark.parametrize("back", [-3, 0, 1, 40])
def test_a_pickle_is_seen_wherever_our_reads_end(tmp_path: Path, end: int, back: int) -> None:
    """Five pickles make a file of torch's old format; the second is filled up with text."""
    fill = text("x" * (end - back - len(LEGACY_MAGIC) - 14)) + b"0"
    first = LEGACY_MAGIC + pickle(fill + integer(1001))
    assert len(first) == end - back
    data = first + pickle(mapping({})) + ATTACK + pickle(b"]")
    assert HIT in told(facts(tmp_path, data, "trainer"))


def test_bytes_after_a_pickle_that_nothing_explains_are_told(tmp_path: Path) -> None:
    (fact,) = facts(tmp_path, pickle(mapping({})) + bytes(100_000) + ATTACK)
    assert (fact.name, fact.value) == ("archive.defect", "trailing_bytes")
    assert f"{100_000 + len(ATTACK)} bytes" in str(fact.details["reason"])


def test_the_storages_of_an_old_torch_file_are_explained(tmp_path: Path) -> None:
    claim = storage("0", "torch.FloatStorage", 4, legacy=True)
    value = mapping({"a": tensor(claim, (4,), (1,))})
    seen = told(facts(tmp_path, torch_legacy(value, {"0": (4, bytes(16))})))
    assert {name for name, _ in seen} == {"pickle.global"}


def test_numbers_that_begin_like_a_long_text_are_not_read_to_their_end(tmp_path: Path) -> None:
    numbers = {f"a/data/{i}": b"X\xff\xff\xff\x7f" + bytes(100_000) for i in range(20)}
    path = tmp_path / "file.bin"
    path.write_bytes(zipped({"a/data.pkl": pickle(mapping({})), **numbers}))
    with Counting("file.bin", path) as file:
        assert pickle_facts(find_pickles(file), "trainer") == ()
    assert file.nbytes < 200_000


def test_what_was_found_before_bytes_went_missing_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(zipped({"a/data.pkl": ATTACK, "a/z.pkl": b"\x80\x02" + bytes(9000)}))
    with Missing("file.bin", path) as file:
        found = find_pickles(file)
    assert found.problem is not None
    assert HIT in told(pickle_facts(found, "trainer"))


class Counting(SourceFile):
    """Counts the bytes that are read."""

    nbytes = 0

    def read(self, start: int, length: int) -> bytes:
        self.nbytes += length
        return super().read(start, length)


class Missing(SourceFile):
    """Refuses the long read of the second pickle."""

    def read(self, start: int, length: int) -> bytes:
        if length == 9002:
            raise Unreadable(self.path, "gone")
        return super().read(start, length)


def test_a_pickle_after_the_first_is_trailing(tmp_path: Path) -> None:
    evidence = facts(tmp_path, pickle(mapping({})) + ATTACK)
    assert HIT in told(evidence)
    assert [item.value for item in evidence if item.name == "pickle.trailing"] == [6]


def test_empty_pickles_in_between_hide_nothing(tmp_path: Path) -> None:
    assert HIT in told(facts(tmp_path, b"N." * 20 + ATTACK))


def test_more_pickles_in_a_row_than_we_follow_is_told(tmp_path: Path) -> None:
    assert ("archive.defect", "too_large") in told(facts(tmp_path, b"N." * 150_000))


def test_two_thousand_pickles_in_a_row_hide_nothing(tmp_path: Path) -> None:
    assert HIT in told(facts(tmp_path, b"]K\x01a." * 2000 + ATTACK))


def test_members_that_share_bytes_do_not_multiply_the_work(tmp_path: Path) -> None:
    whole = zipped({"a.pkl": b"\x80\x02" + b"N0" * 400_000 + STOP})
    at = whole.index(b"PK\x01\x02")
    entry, count = whole[at : at + 51], 5000
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, count, count, 51 * count, at, 0)
    seen = told(facts(tmp_path, whole[:at] + entry * count + end))
    assert {("archive.defect", "overlap"), ("archive.defect", "too_large")} <= set(seen)


def test_garbage_after_an_attack_is_broken_not_hidden(tmp_path: Path) -> None:
    assert told(facts(tmp_path, ATTACK[:-1] + b"\xff\xff")) == [
        HIT,
        ("pickle.broken", "unknown_opcode"),
    ]


def test_a_computed_name_is_told(tmp_path: Path) -> None:
    evidence = facts(tmp_path, b"\x80\x04cm\nf\n)Rcm\nf\n)R\x93)R.")
    assert ("pickle.unresolved_global", "computed name") in told(evidence)


def test_names_are_cut_and_counted(tmp_path: Path) -> None:
    many = b"".join(b"cmodule%d\n%s\n0" % (index, b"n" * 300) for index in range(700))
    evidence = facts(tmp_path, b"\x80\x04" + many + ATTACK[2:])
    assert evidence[0].value == "dangerous"
    assert ("pickle.globals_untold", 201) in told(evidence)
    assert max(len(item.subject.name) for item in evidence) < 250


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# Title\n\ntext\n",
        b"class A:\n    import os\n",
        b"import os\nos.system('x')\n",
        b'{"a": 1}\n',
        b"cat\ndog\nbird\n",
        bytes(range(256)) * 20,
        b"PK\x03\x04",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:",
        torch_zip(mapping({}), {"0": b"\x80\x02" + bytes(range(200))}),
        torch_zip(mapping({}), {"0": b"\x1f\x8b\x08" + bytes(range(200))}),
    ],
    ids=repr,
)
def test_what_is_no_pickle_is_not_accused(tmp_path: Path, data: bytes) -> None:
    names = {name for name, _ in told(facts(tmp_path, data))}
    assert not names & {"pickle.global", "pickle.broken", "pickle.trailing"}


# Samples without a payload, and what keeps each out of the recall below.
BENIGN = {
    "bad_pytorch.pt": "eight bytes of a PNG header",
    "not_a_pickle.bin": "seven stray bytes",
    "benign0_v0.pkl": "a list of strings",
    "benign0_v3.pkl": "a list of strings",
    "benign0_v4.pkl": "a list of strings",
    "benign_password_protected.zip": "an encrypted text file",
    "new_pytorch_model.bin": "a tensor",
    "pytorch_model.bin": "a state dict in the legacy format",
    "int_array.npy": "integers",
    "int_arrays.npz": "integers",
    "int_arrays_compressed.npz": "integers",
    "object_array.npy": "an object array of integers",
    "object_arrays.npz": "an object array of integers",
    "object_arrays_compressed.npz": "an object array of integers",
}
# Malicious samples in which no global is classified as dangerous, and what is told instead.
WITHOUT_DANGEROUS = {
    "malicious1.7z": ("archive.defect", "unreadable_container"),  # 7z is not unpacked
    "sys_module_override_sploit.pkl": ("pickle.unresolved_global", "computed name"),
}


def corpus() -> Iterator[Path]:
    return (path for path in sorted(CORPUS.glob("data*/*")) if path.is_file())


needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="scanner corpus is not here")


@needs_corpus
@pytest.mark.parametrize(
    "path", [path for path in corpus() if path.name not in BENIGN], ids=lambda path: path.name
)
def test_every_malicious_sample_is_told(path: Path) -> None:
    assert WITHOUT_DANGEROUS.get(path.name, HIT) in told(facts_of(path))


@needs_corpus
@pytest.mark.parametrize("purpose", ["weights", "trainer"])
@pytest.mark.parametrize("name", BENIGN)
def test_no_benign_sample_is_dangerous(name: str, purpose: Purpose) -> None:
    (path,) = (path for path in corpus() if path.name == name)
    assert not {HIT, ("pickle.broken", "stack")} & set(told(facts_of(path, purpose)))


@pytest.mark.skipif(not ADAPTERS.is_dir(), reason="real adapters are not here")
def test_no_real_adapter_file_is_accused() -> None:
    facts = {
        (path.name, item.name, item.value)
        for path in ADAPTERS.rglob("*")
        if path.is_file()
        for item in facts_of(path)
    }
    assert {(name, value) for _, name, value in facts} == {("pickle.global", "allowed")}
