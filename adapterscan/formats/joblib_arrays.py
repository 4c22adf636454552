"""Find where a pickle of joblib goes on behind the raw numbers that stand in the middle of it.

joblib writes `NumpyArrayWrapper` with its state, then the numbers of the array, then the rest of
the same pickle. A reader that stops at the numbers never sees what is called behind them.
Source: `NumpyArrayWrapper.read` in joblib/numpy_pickle.py, 1.1 to 1.5.
"""

from __future__ import annotations

import math
import re

from adapterscan.formats.pickle_values import Call, Global, Pairs, Value

_CODE = re.compile(r"[<>|=]?([?biufcSUVmM])(\d{1,6})(?:\[\w+\])?")
#: What joblib puts in the place of an array.
WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


def end_of_array(target: Value, state: Value, data: bytes, at: int) -> int:
    """Return where the opcodes go on when BUILD, which ends at `at`, gave `state` to a wrapper.

    0 when `target` is something else, or its state does not tell. Arrays of objects are pickles
    of their own and are read as they come.
    """
    if not isinstance(target, Call) or not isinstance(target.target, Global):
        return 0
    if (target.module, target.name) != WRAPPER or not isinstance(state, Pairs):
        return 0
    fields = {key: value for key, value in state.items if isinstance(key, str)}
    shape, size = fields.get("shape"), _item_size(fields.get("dtype"))
    if not isinstance(shape, tuple) or not size:
        return 0
    if not all(type(length) is int and 0 <= length < 1 << 40 for length in shape):
        return 0
    if fields.get("numpy_array_alignment_bytes") is not None:
        at += 1 + data[at] if at < len(data) else 1  # how much padding, then the padding
    return at + math.prod(shape) * size


def _item_size(dtype: Value) -> int:
    """Return the bytes of one number, 0 when `dtype` is no plain call of `numpy.dtype`."""
    if not isinstance(dtype, Call) or not dtype.is_to("numpy", "dtype"):
        return 0
    first = dtype.args[0] if isinstance(dtype.args, tuple) and dtype.args else None
    found = _CODE.fullmatch(first) if isinstance(first, str) else None
    if found is None:
        return 0
    return int(found[2]) * (4 if found[1] == "U" else 1)
