"""Find where a pickle of joblib goes on behind the raw numbers that stand in the middle of it.

joblib writes `NumpyArrayWrapper` with its state, then the numbers of the array, then the rest of
the same pickle. A reader that stops at the numbers never sees what is called behind them.
Source: `NumpyArrayWrapper.read` in joblib/numpy_pickle.py, 1.1 to 1.5.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from adapterscan.formats.pickle_values import Call, Pairs, Value

_CODE = re.compile(r"[<>|=]?([?biufcSUVmMO])(\d{1,6})(?:\[\w+\])?")
#: What joblib puts in the place of an array.
WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something other than opcodes follows BUILD."""

    start: int
    end: int  # where the opcodes go on; unknown, and `start`, for a pickle
    pickled: bool  # an array of objects: a whole pickle, with a memo of its own


def array_behind(target: Value, state: Value, data: bytes, at: int) -> Place | None:
    """Return what follows when BUILD, which ends at `at`, gave `state` to joblib's wrapper.

    None when `target` is something else, or its state does not tell.
    """
    if not isinstance(target, Call) or (target.module, target.name) != WRAPPER:
        return None
    if not isinstance(state, Pairs):
        return None
    fields = {key: value for key, value in state.items if isinstance(key, str)}
    shape, code = fields.get("shape"), _code(fields.get("dtype"))
    if not isinstance(shape, tuple) or code is None:
        return None
    if code[1] == "O":
        return Place(at, at, pickled=True)
    if len(shape) > 64 or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        return None
    start = at
    if fields.get("numpy_array_alignment_bytes") is not None:
        at += 1 + data[at] if at < len(data) else 1  # how much padding, then the padding
    size = int(code[2]) * (4 if code[1] == "U" else 1)
    return Place(start, at + math.prod(shape) * size, pickled=False)


def _code(dtype: Value) -> re.Match[str] | None:
    """Return the type code in a plain call of `numpy.dtype`: its kind and the bytes of an item."""
    if not isinstance(dtype, Call) or not dtype.is_to("numpy", "dtype"):
        return None
    first = dtype.args[0] if isinstance(dtype.args, tuple) and dtype.args else None
    return _CODE.fullmatch(first) if isinstance(first, str) else None
