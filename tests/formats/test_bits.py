"""Files, text and patterns in the bytes of numbers: planted ones are found, honest ones are not."""

import gzip
import io
import pickle
import random
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from adapterscan.formats.bit_sample import BitSample, _windows
from adapterscan.formats.payloads import find_files, find_text, find_zlib
from adapterscan.formats.tensors import TensorInfo
from tests.conftest import ROOT

NOISE = random.Random("noise").randbytes
TEXT = (ROOT / "LICENSE").read_bytes()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", TEXT)
    return buffer.getvalue()


FILES = [
    ("elf", b"\x7fELF\x02\x01\x01".ljust(64, b"\0")),
    ("pe", b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0"),
    ("pe", b"MZ" + bytes(76) + b"!This program cannot be run in DOS mode."),
    ("zip", zipped()),
    ("gzip", gzip.compress(TEXT)),
    ("gzip", gzip.compress(b"short")),
    ("bzip2", b"BZh91AY&SY"),
    ("xz", b"\xfd7zXZ\0"),
    ("7z", b"7z\xbc\xaf\x27\x1c"),
    ("rar", b"Rar!\x1a\x07\x01\0"),
    ("pdf", b"%PDF-1.7"),
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("sqlite", b"SQLite format 3\0"),
    ("script", b"#!/usr/bin/env python3"),
    ("script", b"#!/bin/sh"),
    ("pickle", b"\x80\x02cposix\nsystem\n"),
    ("pickle", pickle.dumps(random.Random, protocol=4)),
]


@pytest.mark.parametrize(("kind", "data"), FILES, ids=lambda value: str(value)[:12])
def test_a_file_is_found_anywhere_in_noise(kind, data):
    found = {item.kind: item.at for item in find_files(NOISE(1000) + data + NOISE(1000))}
    assert found[kind] == 1000


def test_decoys_do_not_hide_a_file():
    assert [item.kind for item in find_files(b"PK\3\4" * 50 + zipped())] == ["zip"]


def test_a_zlib_stream_is_found_at_a_beginning():
    assert [item.kind for item in find_zlib(b"\0\0\0\7" + zlib.compress(TEXT))] == ["zlib"]
    assert not list(find_zlib(bytes(64) + zlib.compress(TEXT)))


def test_noise_holds_no_file_and_no_text():
    for _ in range(20):
        data = NOISE(1 << 18)
        assert not [*find_files(data), *find_zlib(data)]
        assert find_text(np.frombuffer(data, np.uint8)) is None


@pytest.mark.parametrize("data", [b"", b"x" * 31, b"3" * 500, b"ab" * 100, bytes(500)])
def test_what_repeats_itself_or_is_short_is_no_text(data):
    assert find_text(np.frombuffer(data, np.uint8)) is None


def test_a_text_is_found_behind_what_repeats_itself():
    data = np.frombuffer(b"3" * 100 + NOISE(50) + TEXT[300:400], np.uint8)
    assert find_text(data) is not None


# Low bits


def normal(count, dtype, seed=0):
    values = np.random.default_rng(seed).normal(0, 0.02, count).astype("<f4")
    if dtype == "BF16":
        return values.astype(ml_dtypes.bfloat16).view("<u2")
    return values.astype("<f2").view("<u2") if dtype == "F16" else values.view("<u4")


def plant(words, data, depth, start=0, order=-1):
    """Write `data` into `depth` low bits from element `start`; order 1 puts the first bits last."""
    words = words.copy()
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, depth)
    groups = bits.reshape(-1, 8 // depth, depth)[:, ::order][:, ::-1].reshape(-1, depth)
    parts = np.packbits(groups, axis=1)[:, 0] >> (8 - depth)
    piece = words[start : start + parts.size]
    keep = words.dtype.type(~((1 << depth) - 1) & ((1 << (8 * words.itemsize)) - 1))
    words[start : start + parts.size] = (piece & keep) | parts.astype(words.dtype)
    return words


def look(words, dtype):
    sample = BitSample([TensorInfo("t", dtype, (words.size,), 0, words.nbytes)])
    sample.factor(TensorInfo("t", dtype, (words.size,), 0, words.nbytes), words.tobytes())
    return sample.finish()


def strongest(words, dtype):
    return max((item.strength for item in look(words, dtype).patterns), default=0.0)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("order", [1, -1])
def test_a_text_in_low_bits_is_found_and_read(dtype, depth, order):
    words = plant(normal(40_000, dtype), TEXT[300:450], depth, 808, order)
    (item,) = [item for item in look(words, dtype).hidden if item.payload.kind == "text"]
    assert str(depth) in item.how
    assert item.payload.shown[8:40].encode() in TEXT  # noise before it can be letters


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_program_in_low_bits_is_found(dtype, depth):
    words = plant(normal(40_000, dtype), FILES[0][1], depth)
    assert "elf" in {item.payload.kind for item in look(words, dtype).hidden}


def test_a_file_in_three_of_four_bytes_is_found():
    words = normal(4096, "F32")
    body = np.frombuffer(zipped()[:3072], np.uint8).reshape(-1, 3)
    whole = words.view(np.uint8).reshape(-1, 4).copy()
    whole[: len(body), :3] = body
    assert "zip" in {item.payload.kind for item in look(whole.view("<u4").ravel(), "F32").hidden}


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 7])
def test_letters_leave_a_period_whatever_the_depth_and_the_first_bit(depth):
    data = bytes(byte ^ 0x15 for byte in TEXT[:1050])  # as many bits for every depth; no text
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    parts = np.packbits(bits[: bits.size // depth * depth].reshape(-1, depth), axis=1)[:, 0]
    words = normal(40_000, "F32")
    end = 4099 + parts.size
    mask = np.uint32((1 << depth) - 1)
    words = words.copy()
    words[4099:end] = (words[4099:end] & ~mask) | (parts >> (8 - depth))
    assert strongest(words, "F32") > 6


def test_a_bit_above_the_lowest_that_never_changes_is_told():
    words = plant(normal(8192, "F32"), bytes(b & 0x7F for b in NOISE(8192)), 8)
    (best, *_) = look(words, "F32").patterns
    assert (best.test, best.plane) == ("constant", 7)


def grid(count, seed=1):
    """Uniform numbers of 24 bits, scaled: what an untrained factor is initialised with."""
    drawn = np.random.default_rng(seed).random(count, np.float32)
    return ((drawn * np.float32(2) - np.float32(1)) * np.float32(0.0198)).view("<u4")


def steps(count):
    """Few steps of Adam from zero: small multiples of the learning rate."""
    values = np.random.default_rng(2).integers(-5, 6, count) * np.float32(1e-4)
    return values.astype("<f4").view("<u4")


def rows(dtype, count=131_072):
    """An embedding that was cast, with every tenth row of 512 trained further."""
    full = normal(count, dtype, 3)
    cast = full & (0xFFFF0000 if dtype == "F32" else 0xFFF8)
    return np.where(np.arange(count) // 512 % 10 == 0, full, cast)


HONEST = {
    "trained rows F32": ("F32", rows("F32")),
    "trained rows F16": ("F16", rows("F16")),
    "normal F32": ("F32", normal(400_000, "F32")),
    "normal BF16": ("BF16", normal(400_000, "BF16")),
    "normal F16": ("F16", normal(400_000, "F16")),
    "tiny F16": ("F16", (normal(100_000, "F16") & 0x83FF)),
    "grid": ("F32", grid(400_000)),
    "few steps": ("F32", steps(100_000)),
    "zeros": ("F32", np.zeros(50_000, "<u4")),
    "ones": ("F32", np.full(50_000, 0x3F800000, "<u4")),
    "thirds": ("F32", np.full(50_000, 0x3EAAAAAB, "<u4")),
    "cast": ("F32", normal(100_000, "BF16").astype("<u4") << 16),
    "half of it zero": ("F32", np.where(np.arange(99_999) % 64 < 32, normal(99_999, "F32"), 0)),
    "short": ("F32", normal(100, "F32")),
    "none": ("F32", normal(0, "F32")),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_numbers_are_silent(name):
    dtype, words = HONEST[name]
    bits = look(words.astype("<u4" if dtype == "F32" else "<u2"), dtype)
    assert not bits.hidden
    assert not bits.mixed or name == "trained rows F32"  # told of factors only
    assert max((item.strength for item in bits.patterns), default=0.0) < 3


def test_noise_in_low_bits_is_invisible():
    """The limit that the docs state: if this fails, say there what can be seen now."""
    words = plant(normal(80_000, "F32"), NOISE(8192), 2)
    assert strongest(words, "F32") < 3


@pytest.mark.parametrize("shorter", ["BF16", "F16"])
def test_one_number_of_more_precision_is_told(shorter):
    if shorter == "BF16":
        words = normal(5000, "BF16").astype("<u4") << 16
    else:
        words = normal(5000, "F16").view("<f2").astype("<f4").view("<u4")
    words[77] |= 1
    (mixed,) = look(words, "F32").mixed
    assert (mixed.shorter, mixed.full) == (shorter, 1)


def test_a_sample_is_even_and_begins_at_the_beginning():
    places = _windows(1_000_000, 0.1)
    assert places[0] == (0, 4096)
    assert {end - start for start, end in places} == {4096}
    assert abs(sum(end - start for start, end in places) - 100_000) < 4096
    assert _windows(1_000_000, 0.0001) == [(0, 4096)]
    assert _windows(7, 1.0) == []


def test_a_text_at_the_beginning_of_a_large_tensor_is_in_the_sample():
    words = plant(normal(4_000_000, "BF16"), TEXT[300:600], 1)
    bits = look(words, "BF16")
    assert bits.looked < bits.elements / 3
    assert {item.payload.kind for item in bits.hidden} == {"text"}


def test_tensors_are_named_wherever_they_stand():
    sample = BitSample([TensorInfo("a", "F32", (40_000,), 0, 160_000)] * 9)
    for number in range(9):
        words = normal(40_000, "F32", number)
        if number == 6:
            words = plant(words, TEXT[300:500], 2)
        sample.factor(TensorInfo(f"t{number}", "F32", (40_000,), 0, 160_000), words.tobytes())
    assert {item.tensor for item in sample.finish().hidden} == {"t6"}


@pytest.mark.parametrize(
    ("data", "even"),
    [(NOISE(4096), True), (zlib.compress(NOISE(9000)), True), (TEXT[:4096], False),
     (normal(2048, "F32").tobytes(), False), (bytes(4096), False),
     (NOISE(100), False), (b"", False)],
)  # fmt: skip
def test_bytes_as_even_as_noise_are_told_from_others(data, even):
    sample = BitSample([])
    sample.other(TensorInfo("t", "U8", (len(data),), 0, len(data)), data, 0)
    assert sample.finish().bytes["t"].even is even
