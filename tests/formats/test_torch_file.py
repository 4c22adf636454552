"""Tensors out of torch files: views, old formats, and every way such a file can lie."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterscan.errors import FileProblem, LimitExceeded, Malformed, Unsupported
from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.sniff import parse_lfs_pointer, sniff
from adapterscan.formats.tensors import WeightFile, as_array
from adapterscan.formats.torch_file import read_torch
from tests.formats.torch_bytes import (
    EXEC,
    LEGACY_MAGIC,
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
REAL = sorted((SHARED / "adapters").rglob("*.bin"))
FLOATS = np.arange(12, dtype="<f4")
CLAIM = storage("0", "torch.FloatStorage", 12)
WHOLE = tensor(CLAIM, (3, 4), (4, 1))
DATA = {"0": FLOATS.tobytes()}


def read(folder: Path, data: bytes) -> WeightFile:
    path = folder / "adapter_model.bin"
    path.write_bytes(data)
    with SourceFile(path.name, path) as file:
        return read_torch(find_pickles(file))


def values(folder: Path, data: bytes) -> dict[str, np.ndarray]:
    return {
        item.name: as_array(item, data[item.start : item.end])
        for item in read(folder, data).tensors
    }


def test_a_whole_storage_is_a_plain_range(tmp_path: Path) -> None:
    weights = read(tmp_path, torch_zip(mapping({"a": WHOLE}), DATA))
    (found,) = weights.tensors
    assert weights.container == "torch-zip"
    assert (found.dtype, found.shape, found.nbytes) == ("F32", (3, 4), 48)
    assert (found.offset, found.strides) == (0, None)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((4, 3), (1, 4), 0, FLOATS.reshape(3, 4).T),
        ((4,), (1,), 4, FLOATS.reshape(3, 4)[1]),
        ((2, 2), (8, 2), 1, FLOATS.reshape(3, 4)[::2, 1::2]),
        ((1, 1), (2**61, 7), 11, FLOATS[11:].reshape(1, 1)),
        ((), (), 5, FLOATS[5]),
        ((0, 3), (3, 1), 0, np.zeros((0, 3), "f4")),
    ],
)
def test_views_give_the_values_that_torch_would(
    tmp_path: Path,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    expected: np.ndarray,
) -> None:
    data = torch_zip(mapping({"a": tensor(CLAIM, shape, strides, offset)}), DATA)
    np.testing.assert_array_equal(values(tmp_path, data)["a"], expected)


def test_two_names_may_share_a_storage(tmp_path: Path) -> None:
    weights = read(tmp_path, torch_zip(mapping({"a": WHOLE, "b": WHOLE}), DATA))
    assert weights.tensors[0].start == weights.tensors[1].start


def test_the_legacy_format_is_read(tmp_path: Path) -> None:
    claim = storage("94", "torch.FloatStorage", 12, legacy=True)
    value = mapping({"a": tensor(claim, (3, 4), (4, 1))})
    data = torch_legacy(value, {"94": (12, FLOATS.tobytes())})
    assert read(tmp_path, data).container == "torch-legacy"
    np.testing.assert_array_equal(values(tmp_path, data)["a"], FLOATS.reshape(3, 4))


def test_parameters_and_dtypes_outside_of_the_storage_are_read(tmp_path: Path) -> None:
    untyped = storage("0", "torch.storage.UntypedStorage", 4)
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    view = b"J\0\0\0\0" + b"(J\x04\0\0\0t" + b"(J\x01\0\0\0t"
    built = b"ctorch._utils\n_rebuild_tensor_v3\n(" + untyped + view + hooks
    built += b"ctorch\nfloat8_e4m3fn\ntR"
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + built + hooks + b"tR"
    data = torch_zip(mapping({"a": parameter}), {"0": b"abcd"})
    (found,) = read(tmp_path, data).tensors
    assert (found.dtype, found.shape, found.nbytes) == ("F8_E4M3", (4,), 4)


def test_dicts_one_level_down_are_opened(tmp_path: Path) -> None:
    data = torch_zip(mapping({"model": mapping({"a": WHOLE}), "epoch": integer(3)}), DATA)
    weights = read(tmp_path, data)
    assert [item.name for item in weights.tensors] == ["model.a"]
    assert [(item.name, item.value) for item in weights.evidence] == [
        ("weights.extra_entry", "int")
    ]


def test_a_later_entry_of_the_same_name_wins_and_is_told(tmp_path: Path) -> None:
    second = tensor(CLAIM, (12,), (1,))
    value = b"}(" + text("a") + WHOLE + text("a") + second + b"u"
    weights = read(tmp_path, torch_zip(value, DATA))
    assert [item.shape for item in weights.tensors] == [(12,)]
    assert [item.name for item in weights.evidence] == ["weights.duplicate_key"]


def test_bytes_that_no_tensor_uses_are_told(tmp_path: Path) -> None:
    data = torch_zip(mapping({"a": WHOLE}), {"0": FLOATS.tobytes() + b"hidden"})
    (fact,) = read(tmp_path, data).evidence
    assert (fact.name, fact.value, fact.unit) == ("weights.storage_slack", 6, "bytes")


def conflict() -> bytes:
    other = tensor(storage("0", "torch.HalfStorage", 12), (12,), (1,))
    return torch_zip(mapping({"a": WHOLE, "b": other}), DATA)


def overlap() -> bytes:
    two = mapping({"a": WHOLE, "b": tensor(storage("1", "torch.FloatStorage", 12), (12,), (1,))})
    data = torch_zip(two, {**DATA, "1": FLOATS.tobytes()})
    # the directory entry of data/1 points at the member data/0
    entry = data.rindex(b"archive/data/1") - 46
    first = data.index(b"archive/data/0") - 30
    return data[: entry + 42] + struct.pack("<L", first) + data[entry + 46 :]


@pytest.mark.parametrize(
    ("data", "defect"),
    [
        (torch_zip(mapping({"a": WHOLE}), {}), "missing_storage"),
        (torch_zip(mapping({"a": WHOLE}), {"0": b"short"}), "storage_size"),
        (torch_zip(mapping({"a": tensor(CLAIM, (3, 4), (4, 1), 1)}), DATA), "view"),
        (torch_zip(mapping({"a": tensor(CLAIM, (3, 4), (8, 1))}), DATA), "view"),
        (torch_zip(mapping({"a": tensor(CLAIM, (3, 4), (4,))}), DATA), "rebuild"),
        (torch_zip(mapping({"a": tensor(CLAIM, (3,), (-1,), 5)}), DATA), "rebuild"),
        (conflict(), "storage_conflict"),
        (overlap(), "overlap"),
        (torch_zip(b"u", DATA), "pickle_stack"),
        (torch_legacy(mapping({}), {"7": (1, b"abcd")}), "storage_id"),
        (LEGACY_MAGIC + pickle(integer(1)), "truncated"),
    ],
)
def test_contradictions_are_malformed(tmp_path: Path, data: bytes, defect: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(tmp_path, data)
    assert caught.value.defect == defect


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch_zip(mapping({"a": EXEC}), {}), "names posix.system, which is outside"),
        (torch_zip(mapping({"a": WHOLE}), DATA, packed=True), "compressed"),
        (torch_zip(mapping({"a": WHOLE}), DATA, byteorder=b"big"), "big-endian"),
        (torch_zip(integer(1), {}), "no mapping"),
        (torch_zip(WHOLE, DATA), "no mapping"),
        (torch_zip(mapping({"a": WHOLE + b"}b"}), DATA), "changed after"),
        (pickle(mapping({})), "torch.save did not write"),
        (b"hello", "is text"),
        (b"PK\x05\x06" + bytes(18), "no data.pkl"),
    ],
)
def test_what_is_not_read_says_why(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        read(tmp_path, data)


@pytest.mark.parametrize(
    "built",
    [tensor(CLAIM, (2**40,), (0,)), tensor(CLAIM, (1,) * 40, (1,) * 40)],
    ids=["repeated", "dimensions"],
)
def test_claims_beyond_the_storage_are_refused(tmp_path: Path, built: bytes) -> None:
    with pytest.raises(LimitExceeded):
        read(tmp_path, torch_zip(mapping({"a": built}), DATA))


def test_shared_inner_dicts_do_not_multiply(tmp_path: Path) -> None:
    inner = mapping({f"k{index}": b"N" for index in range(2000)}) + b"q\x01"
    outer = {"x": inner} | {f"x{index}": b"h\x01" for index in range(2000)}
    with pytest.raises(LimitExceeded, match="entries"):
        read(tmp_path, torch_zip(mapping(outer), {}))


@pytest.mark.skipif(not REAL, reason="real adapters are not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_every_real_adapter_is_read(path: Path) -> None:
    with SourceFile(path.name, path) as file:
        found = find_pickles(file)
        weights = read_torch(found)
        standing = {item.value for item in pickle_facts(found, "weights")}
    assert standing == {"allowed"}
    assert weights.tensors
    assert not weights.evidence


@pytest.mark.skipif(not REAL, reason="real adapters are not here")
def test_the_largest_real_pickle_is_read() -> None:
    path = max(REAL, key=lambda item: item.read_bytes().count(b"PK\x01\x02"))
    with SourceFile(path.name, path) as file:
        assert read_torch(find_pickles(file)).tensors


BASES = {
    "zip": torch_zip(mapping({"a": WHOLE, "b": tensor(CLAIM, (4,), (1,), 2)}), DATA),
    "legacy": torch_legacy(
        mapping({"a": tensor(storage("9", "torch.FloatStorage", 12, legacy=True), (12,), (1,))}),
        {"9": (12, FLOATS.tobytes())},
    ),
    "packed": torch_zip(mapping({"a": WHOLE}), DATA, packed=True),
}
EDIT = st.tuples(st.floats(0, 1), st.sampled_from(["set", "cut", "insert"]), st.binary(max_size=9))


def mutate(data: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    for share, kind, piece in edits:
        at = int(share * len(data))
        skip = {"set": len(piece), "cut": 1 + len(piece), "insert": 0}[kind]
        data = data[:at] + (piece if kind != "cut" else b"") + data[at + skip :]
    return data


@settings(max_examples=400, deadline=2000)
@given(st.sampled_from(sorted(BASES)), st.lists(EDIT, min_size=1, max_size=4))
def test_any_mutation_ends_in_tensors_or_a_file_problem(
    tmp_path_factory: pytest.TempPathFactory, base: str, edits: list[tuple[float, str, bytes]]
) -> None:
    data = mutate(BASES[base], edits)
    path = tmp_path_factory.getbasetemp() / "mutated.bin"
    path.write_bytes(data)
    with SourceFile("mutated.bin", path) as file:
        found = find_pickles(file)
        pickle_facts(found, "weights")
        try:
            weights = read_torch(found)
        except FileProblem:
            return
    for item in weights.tensors:
        assert as_array(item, data[item.start : item.end]).shape == item.shape


def test_containers_are_told_by_content() -> None:
    samples = {
        "empty": b"",
        "zip": b"PK\x03\x04....",
        "gguf": b"GGUF\x03",
        "npy": b"\x93NUMPY\x01",
        "gzip": b"\x1f\x8b\x08",
        "7z": b"7z\xbc\xaf\x27\x1c",
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "safetensors": b"\x02\0\0\0\0\0\0\0{}",
        "pickle": b"\x80\x04N.",
        "text": b"hello\n",
        "unknown": b"\0\1\2\3",
    }
    assert {name: sniff(head) for name, head in samples.items()} == {name: name for name in samples}


def test_a_pointer_file_names_its_object() -> None:
    oid = "ab" * 32
    lines = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 1234\n".encode()
    assert parse_lfs_pointer(lines) == (oid, 1234)
    assert parse_lfs_pointer(lines + b"more") is None
    assert parse_lfs_pointer(b"hello") is None
