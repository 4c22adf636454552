"""Tensors as a file describes them: names, dtypes, shapes and byte ranges, no data read yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.errors import FileProblem, LimitExceeded
from adapterscan.model import Evidence

#: Bits per element of every dtype of the safetensors format (safetensors 0.8.0, `Dtype`).
BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_NUMPY: Mapping[str, str] = {
    "BOOL": "bool", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

_ML_DTYPES: Mapping[str, str] = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}

TENSOR_LIMIT = 100_000  # in a file; a mixture of experts with its own pair for each has 90,000
#: Characters. The longest honest name seen has 140; modules are looked up by every end of a name,
#: so that one of 60,000 dots costs gigabytes.
LONGEST_NAME = 4096

FLOAT_DTYPES = frozenset(name for name in BITS if name.startswith(("F", "BF")))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a weight file.

    `start` and `nbytes` give the byte range of its storage, absolute in the file. A view into a
    shared storage (pickled files) has `offset` and `strides`, in elements; otherwise the tensor
    fills its range in C order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """Return the number of elements; 1 for a 0-D tensor."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """Return the first byte after the range."""
        return self.start + self.nbytes


@dataclass(frozen=True, slots=True)
class WeightFile:
    """What the container of a weight file says; `evidence` holds facts about the container."""

    path: str
    container: str  # "safetensors" | "torch-zip" | "torch-legacy"
    tensors: tuple[TensorInfo, ...]
    evidence: tuple[Evidence, ...] = ()
    problem: FileProblem | None = None  # why the data must not be read although the header can be


def numpy_dtype(name: str) -> np.dtype[Any] | None:
    """Return the NumPy dtype that reads `name`, or None for packed dtypes (F6, F4) we only size."""
    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    if name in _ML_DTYPES:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
        return dtype
    return None


def require_count(count: int, path: str) -> None:
    """Raise LimitExceeded for more tensors than we follow."""
    if count > TENSOR_LIMIT:
        raise LimitExceeded(
            path, f"lists more than {TENSOR_LIMIT:,} tensors, which is the limit",
            hint="the largest mixtures of experts have 90,000; treat it as hostile",
        )  # fmt: skip


def require_name(name: str, path: str) -> None:
    """Raise LimitExceeded for a tensor's name that no module has."""
    if len(name) > LONGEST_NAME:
        raise LimitExceeded(
            path, f"has a tensor name of {len(name):,} characters, over the limit of "
            f"{LONGEST_NAME:,}", hint="no module is called so; treat it as hostile",
        )  # fmt: skip


def as_array(tensor: TensorInfo, storage: memoryview | bytes | bytearray) -> npt.NDArray[Any]:
    """View `storage` (the bytes of the tensor's range) as an array of `tensor.shape`, no copy.

    Raises ValueError when the dtype is packed or the view would leave its storage.
    """
    dtype = numpy_dtype(tensor.dtype)
    if dtype is None:
        raise ValueError(f"dtype {tensor.dtype} has no element view")
    flat = np.frombuffer(storage, dtype=dtype)
    if tensor.strides is None:
        return flat[tensor.offset : tensor.offset + tensor.numel].reshape(tensor.shape)
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True) if n)
    negative = any(step < 0 for step in tensor.strides)
    if negative or tensor.offset < 0 or (tensor.numel and tensor.offset + reach >= flat.size):
        raise ValueError("the view leaves its storage")
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :],
        shape=tensor.shape,
        strides=tuple(step * dtype.itemsize for step in tensor.strides),
        writeable=False,
    )
