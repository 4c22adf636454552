"""Files that are written tensor by tensor are read back by the format's own package."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from adapterscan.formats.safetensors_writer import SafetensorsWriter

SHAPES = {"a": (2, 3), "ä.b": (0, 4), "c": (5,)}


def test_what_is_written_is_what_the_package_reads(tmp_path):
    values = {name: np.random.default_rng(0).standard_normal(s) for name, s in SHAPES.items()}
    with SafetensorsWriter(tmp_path / "x.safetensors", SHAPES) as out:
        for name, value in values.items():
            out.write(name, value)
    found = load_file(tmp_path / "x.safetensors")
    assert {name: value.shape for name, value in found.items()} == SHAPES
    assert all(np.array_equal(found[n], v.astype(np.float32)) for n, v in values.items())


@pytest.mark.parametrize(("name", "shape"), [("c", (5,)), ("a", (3, 2)), ("x", (1,))])
def test_another_tensor_than_the_next_is_refused(tmp_path, name, shape):
    with (
        pytest.raises(ValueError, match="is not the next tensor, a"),
        SafetensorsWriter(tmp_path / "x.safetensors", SHAPES) as out,
    ):
        out.write(name, np.zeros(shape))


def test_a_file_that_was_not_written_whole_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="2 tensors were not written"),
        SafetensorsWriter(tmp_path / "x.safetensors", SHAPES) as out,
    ):
        out.write("a", np.zeros((2, 3)))
