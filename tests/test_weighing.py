"""Weighing: every kind of ΔW against its dense definition, in any order, dtype and threads."""

import ml_dtypes
import numpy as np
import pytest

from adapterscan.errors import ChangedWhileReading
from adapterscan.formats.deltas import Delta
from adapterscan.formats.reader import SEGMENT_BYTES, SourceFile
from adapterscan.formats.tensors import TensorInfo
from adapterscan.weighing import one_pass
from adapterscan.weighing.one_pass import hash_only, weigh

RNG = np.random.default_rng(7)


def stored(path, arrays, dtypes=None):
    """Write arrays one after the other; return their descriptions by name."""
    names = {np.float32: "F32", np.float16: "F16", np.float64: "F64", ml_dtypes.bfloat16: "BF16"}
    names |= {ml_dtypes.float8_e4m3fn: "F8_E4M3", ml_dtypes.float8_e5m2: "F8_E5M2"}
    infos, at = {}, 0
    with path.open("wb") as out:
        for name, array in arrays.items():
            out.write(array.tobytes())
            dtype = names[array.dtype.type]
            infos[name] = TensorInfo(name, dtype, array.shape, at, array.nbytes)
            at += array.nbytes
    return infos


def measured(folder, arrays, deltas, workers=2, before=lambda path: None):
    path = folder / "w.bin"
    infos = stored(path, arrays)
    with SourceFile("w.bin", path) as file:
        before(path)
        made = [
            Delta(**fields | {"tensors": tuple(infos[name] for name in fields["tensors"])})
            for fields in deltas
        ]
        return weigh(file, infos.values(), made, workers=workers)


def linear(name, a="a", b="b", rank=4, scaling=0.5, kind="linear", diag=(), **fields):
    return {
        "module": name, "kind": kind, "tensors": (a, b, *diag), "rank": rank, "scaling": scaling,
        **fields,
    }  # fmt: skip


def values(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def sigma(delta):
    return np.linalg.svd(delta, compute_uv=False)


def check(summary, dense):
    squares = sigma(dense) ** 2
    np.testing.assert_allclose(summary.frobenius, np.linalg.norm(dense), rtol=1e-6)
    np.testing.assert_allclose(summary.stable_rank, squares.sum() / squares.max(), rtol=1e-5)
    expected = squares.sum() ** 2 / (squares**2).sum()
    np.testing.assert_allclose(summary.participation, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float16, np.float32, np.float64,
        ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
    ],
)  # fmt: skip
def test_a_linear_delta_equals_its_dense_product_in_every_dtype(tmp_path, dtype):
    a, b = values(4, 30, dtype=dtype), values(20, 4, dtype=dtype)
    found = measured(tmp_path, {"a": a, "b": b}, [linear("m")])
    check(found.deltas["m"], 0.5 * b.astype(float) @ a.astype(float))


def test_a_convolution_equals_its_dense_kernel(tmp_path):
    a, b = values(4, 6, 3, 3), values(10, 4, 1, 1)
    found = measured(tmp_path, {"a": a, "b": b}, [linear("m", kind="conv")])
    check(found.deltas["m"], 0.5 * np.einsum("or,rikl->oikl", b[:, :, 0, 0], a).reshape(10, -1))


def test_an_embedding_equals_its_transposed_product(tmp_path):
    a, b = values(4, 50), values(12, 4)
    found = measured(tmp_path, {"a": a, "b": b}, [linear("m", kind="embedding")])
    check(found.deltas["m"], 0.5 * (b @ a).T)


def test_experts_are_split_rank_major_in_b(tmp_path):
    a, b = values(3 * 4, 8), values(6, 4 * 3)
    deltas = [linear("m", kind="experts", part=part, parts=3) for part in range(3)]
    found = measured(tmp_path, {"a": a, "b": b}, deltas)
    for part in range(3):
        expert = b.reshape(6, 4, 3)[:, :, part] @ a.reshape(3, 4, 8)[part]
        check(found.deltas[f"m[{part}]"], 0.5 * expert)


def test_a_merged_layer_is_split_by_groups(tmp_path):
    a, b = values(2 * 4, 8), values(2 * 6, 4, 1)
    deltas = [linear("m", kind="merged", part=part, parts=2) for part in range(2)]
    found = measured(tmp_path, {"a": a, "b": b}, deltas)
    for part in range(2):
        group = b[6 * part : 6 * part + 6, :, 0] @ a[4 * part : 4 * part + 4]
        check(found.deltas[f"m[{part}]"], 0.5 * group)


def test_a_kasa_diagonal_stands_between_the_factors(tmp_path):
    arrays = {"a": values(4, 8), "b": values(6, 4), "d": values(4)}
    found = measured(tmp_path, arrays, [linear("m", diag=("d",))])
    check(found.deltas["m"], 0.5 * arrays["b"] @ np.diag(arrays["d"]) @ arrays["a"])


def far_apart(order):
    arrays = {f"a{n}": values(4, 300) for n in range(8)} | {
        f"b{n}": values(200, 4) for n in range(8)
    }
    return {name: arrays[name] for name in sorted(arrays, key=order)}


def test_factors_far_apart_give_what_adjacent_ones_give(tmp_path, monkeypatch):
    apart = far_apart(lambda name: name)
    adjacent = {name: apart[name] for name in sorted(apart, key=lambda name: name[::-1])}
    deltas = [linear(f"m{n}", f"a{n}", f"b{n}") for n in range(8)]
    expected = measured(tmp_path, adjacent, deltas)
    monkeypatch.setattr(one_pass, "WAITING_BYTES", 1000)
    monkeypatch.setattr("adapterscan.formats.reader.SEGMENT_BYTES", 4096)
    assert measured(tmp_path, apart, deltas).deltas == expected.deltas


def test_a_factor_that_changed_before_its_second_reading_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(one_pass, "WAITING_BYTES", 0)
    path = tmp_path / "w.bin"
    infos = stored(
        path, {"a": values(4, 300), "pad": values(SEGMENT_BYTES // 2), "b": values(8, 4)}
    )
    delta = Delta("m", "linear", (infos["a"], infos["b"]), 4, 1.0)

    class Tampered(SourceFile):
        def reread(self, *arguments):
            with path.open("r+b") as other:
                other.write(b"\x01")
            return super().reread(*arguments)

    with Tampered("w.bin", path) as file, pytest.raises(ChangedWhileReading):
        weigh(file, infos.values(), [delta], workers=2)


@pytest.mark.parametrize("workers", [1, 8])
def test_results_do_not_depend_on_the_number_of_threads(tmp_path, workers):
    arrays = far_apart(lambda name: name) | {"x": values(1000)}
    deltas = [linear(f"m{n}", f"a{n}", f"b{n}") for n in range(8)]
    one = measured(tmp_path, arrays, deltas, workers=2)
    other = measured(tmp_path, arrays, deltas, workers=workers)
    assert one == other
    assert list(one.deltas) == list(other.deltas)


def test_values_that_are_not_finite_are_counted_across_segments(tmp_path):
    dense = np.zeros(3 * SEGMENT_BYTES // 4 + 5, np.float32)
    dense[[0, SEGMENT_BYTES // 4 - 1, SEGMENT_BYTES // 4, -1]] = np.nan, np.inf, -np.inf, np.nan
    arrays = {"a": values(4, 3), "odd": values(7), "dense": dense, "b": values(3, 4)}
    found = measured(tmp_path, arrays, [linear("m")])
    assert found.skipped == ()
    assert found.dense["dense"].nonfinite == 4
    assert found.dense["dense"].elements == dense.size


def test_what_is_over_a_limit_is_skipped_by_name_and_the_others_are_measured(tmp_path):
    arrays = {"a": values(2000, 2), "b": values(2, 2000), "c": values(4, 3), "d": values(5, 4)}
    found = measured(tmp_path, arrays, [linear("big", rank=2000), linear("m", "c", "d")])
    assert [(item.what, item.failed) for item in found.skipped] == [("big", True)]
    assert list(found.deltas) == ["m"]


def test_work_beyond_the_size_of_a_file_is_skipped_and_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(one_pass, "WORK_FLOOR", 2 * 40**3)
    monkeypatch.setattr(one_pass, "WORK_PER_BYTE", 0)
    arrays = {f"{part}{n}": values(40, 1) if part == "a" else values(1, 40)
              for n in range(4) for part in "ab"}  # fmt: skip
    deltas = [linear(f"m{n}", f"a{n}", f"b{n}", rank=40) for n in range(4)]
    found = measured(tmp_path, arrays, deltas)
    assert list(found.deltas) == ["m0", "m1"]
    (skipped,) = found.skipped
    assert (skipped.what, skipped.failed) == ("m2 and 1 more module", True)


def test_deltas_that_are_not_finite_are_not_called_measured(tmp_path):
    arrays = {"a": values(4, 3), "b": np.full((5, 4), np.nan, np.float32)}
    found = measured(tmp_path, arrays, [linear("m")])
    assert [(item.what, item.failed) for item in found.skipped] == [("m", True)]
    huge = measured(tmp_path, {"a": values(4, 3), "b": values(5, 4)}, [linear("m", scaling=np.inf)])
    assert [(item.what, item.failed) for item in huge.skipped] == [("m", True)]


def test_a_file_is_hashed_to_its_end_whatever_is_in_it(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 100)
    with SourceFile("x", path) as file:
        hash_only(file)
    assert file.sha256
