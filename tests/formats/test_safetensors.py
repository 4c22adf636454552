"""The header reader against the reference parser: never laxer, and as exact where both accept."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from adapterscan.errors import FileProblem, LimitExceeded, Malformed
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.tensors import BITS, TensorInfo, as_array
from fixtures.containers import with_length

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "scanner_corpora" / "safetensors"


def ours(folder, data):
    path = folder / "x.safetensors"
    path.write_bytes(data)
    with SourceFile("x.safetensors", path) as file:
        found = read_safetensors(file)
    if found.problem:
        raise found.problem
    return {t.name: (t.dtype, t.shape, data[t.start : t.end]) for t in found.tensors}


def reference(data):
    return {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in deserialize(data)
    }


def entry(dtype="U8", shape=(4,), offsets=(0, 4), **extra):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **extra}


def packed(header, data=bytes(4)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return with_length(raw, data)


NOTHING = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
SIZES = st.sampled_from([0, 1, 2, 3, 4, 8, -1, 1 << 32, 1 << 53, 1 << 63, 1 << 64, 1.0, True, None])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*BITS, "F31", "f32", None, 4, "C128", "I4"]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=1, max_size=3),
    },
    optional={"extra": st.sampled_from([1, "x", [], {"a": [1e300]}])},
)
METADATA = st.sampled_from([None, {}, {"format": "pt"}, {"a": 1}, [], {"a": {"b": "c"}}])
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "", "\0", "../x"]), ENTRIES, max_size=3)


def same_or_stricter(folder, data):
    """Whatever the reference refuses we refuse; what both accept reads the same."""
    try:
        expected = reference(data)
    except SafetensorError:
        with pytest.raises(FileProblem):
            ours(folder, data)
        return
    try:
        found = ours(folder, data)
    except FileProblem:
        return  # stricter is allowed; the tests below pin where
    assert found == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(header=HEADERS, metadata=METADATA, length=st.integers(0, 12))
def test_no_generated_header_is_accepted_that_the_reference_refuses(
    tmp_path_factory, header, metadata, length
):
    folder = tmp_path_factory.mktemp("generated")
    same_or_stricter(folder, packed({"__metadata__": metadata, **header}, bytes(length)))


VALID = packed(
    {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", (2, 3), (0, 24)),
        "b": entry("BF16", (), (24, 26)),
        "c": entry("U8", (0, 5), (26, 26)),
        "d": entry("I8", (3,), (26, 29)),
    },
    bytes(range(29)),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    at=st.integers(0, len(VALID) - 1),
    cut=st.integers(0, 3),
    put=st.sampled_from([b"", b"-", b"0", b"9", b'"', b"[", b"}", b" ", b"\x00", b"\xff", b"\\u"]),
)
@example(at=0, cut=0, put=b"")
def test_no_mutated_file_is_accepted_that_the_reference_refuses(tmp_path_factory, at, cut, put):
    data = VALID[:at] + put + VALID[at + cut :]
    same_or_stricter(tmp_path_factory.mktemp("mutated"), data)


def test_a_valid_file_reads_as_the_reference_reads_it(tmp_path):
    assert ours(tmp_path, VALID) == reference(VALID)


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_dtype_has_the_size_that_the_reference_gives_it(tmp_path, dtype):
    data = packed({"a": entry(dtype, (8,), (0, BITS[dtype]))}, bytes(BITS[dtype]))
    assert ours(tmp_path, data) == reference(data)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1, 1, 1)])
def test_scalars_and_empty_tensors_are_tensors(tmp_path, shape):
    size = 0 if 0 in shape else 4
    data = packed({"a": entry("F32", shape, (0, size))}, bytes(size))
    assert ours(tmp_path, data) == reference(data)


def test_an_unaligned_tensor_is_read(tmp_path):
    header = {"a": entry("U8", (1,), (0, 1)), "b": entry("F32", (1,), (1, 5))}
    data = packed(header, b"\x07" + struct.pack("<f", 1.5))
    assert ours(tmp_path, data)["b"][2] == struct.pack("<f", 1.5)


def test_bfloat16_values_are_exact():
    values = np.array([1.0, -2.5, 3e38, 1e-40], ml_dtypes.bfloat16)
    tensor = TensorInfo("a", "BF16", (4,), 0, 8)
    assert as_array(tensor, values.tobytes()).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("strides", "offset"), [((4, 1), 1), ((-1, 1), 0), ((1 << 40, 1), 0), ((0, 3), 0)]
)
def test_a_view_cannot_leave_its_storage(strides, offset):
    tensor = TensorInfo("a", "F32", (2, 4), 0, 32, offset, strides)
    with pytest.raises(ValueError, match="leaves its storage"):
        as_array(tensor, bytes(32))


@pytest.mark.parametrize(
    ("data", "defect"),
    [
        (b"", "too-short"),
        (struct.pack("<Q", 1 << 63) + b"{}", "header-too-long"),
        (struct.pack("<Q", 100) + b"{}", "header-cut"),
        (packed(b"[]"), "header-not-object"),
        (packed(b"{"), "not-json"),
        (packed(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"), "too-deep"),
        (packed(b'{"\xff":1}'), "not-utf8"),
        (packed(b'{"\\ud800":' + json.dumps(entry()).encode() + b"}"), "not-json"),
        (packed({"a": entry(x=float("nan"))}), "not-json"),
        (packed(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[-0,4]}}'), "not-json"),
        (packed({"a": entry("U8", (1 << 52, 1 << 52, 0), (0, 0))}, b""), "bad-shape"),
        (packed({"a": entry("U8", (4,), (0, 4)), "b": entry("U8", (2,), (2, 4))}), "overlap"),
        (packed({"a": entry("U8", (2,), (2, 4))}), "hole"),
        (packed({"a": entry()}, bytes(3)), "truncated"),
        (packed({"a": entry()}, b""), "truncated"),
        (packed({"a": entry()}, bytes(5)), "trailing-bytes"),
        (packed({"a": entry("F4", (3,), (0, 1))}, b"0"), "size-mismatch"),
        (packed({"a": entry([[]])}), "bad-dtype"),
        (packed({"__metadata__": {"a": 1}}, b""), "bad-metadata"),
    ],
)
def test_a_contradiction_has_a_code_and_a_next_step(tmp_path, data, defect):
    with pytest.raises(Malformed) as caught:
        ours(tmp_path, data)
    assert caught.value.defect == defect
    assert caught.value.hint
    assert caught.value.path == "x.safetensors"


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":"' + b"x" * (17 << 20) + b'"}',
        b'{"a":[' + b"[]," * 2_000_000 + b"[]]}",
        b"{" + b",".join(b'"%d":%s' % (i, NOTHING) for i in range(100_001)) + b"}",
        b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(10_001)) + b"}}",
        b'{"a":{"dtype":"U8","x":[' + b"[]," * 30_000 + b"[]]}}",
    ],
)
def test_a_header_over_our_limits_is_refused_before_it_is_built(tmp_path, header):
    with pytest.raises(LimitExceeded):
        ours(tmp_path, packed(header))


def test_of_a_repeated_name_the_last_counts_as_in_the_reference(tmp_path):
    header = json.dumps(entry()).encode()
    data = packed(b'{"a":' + header + b',"a":' + header + b"}")
    assert ours(tmp_path, data) == reference(data)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpora are not beside the checkout")
def test_the_corpus_is_read_as_the_reference_reads_it(tmp_path):
    for path in sorted(CORPUS.rglob("*")):
        if path.is_file() and path.suffix in (".safetensors", ".bin", ""):
            same_or_stricter(tmp_path, path.read_bytes())
