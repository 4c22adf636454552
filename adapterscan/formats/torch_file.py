"""Read the tensors of a torch.save file from its disassembly: allow-listed calls only, no data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adapterscan.errors import LimitExceeded, Malformed, Unsupported
from adapterscan.formats.pickle_file import LEGACY_PICKLES, PickleFile
from adapterscan.formats.pickle_policy import classify
from adapterscan.formats.pickle_values import Call, Global, Pairs, PersistentId, Value
from adapterscan.formats.pickle_vm import Disassembly
from adapterscan.formats.tensors import BITS, TensorInfo, WeightFile, require_count, require_name
from adapterscan.formats.torch_storage import Storage, legacy_storages, parse_id, zip_storages
from adapterscan.model import Evidence, Subject

_MOST_ENTRIES = 200_000
_MOST_DIMENSIONS = 32
_MOST_FACTS = 100
_HINT = "save the adapter again as safetensors"
_PLAIN_TYPES = frozenset({("torch", "Tensor"), ("torch.nn.parameter", "Parameter")})

_DTYPES: Mapping[str, str] = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "bool": "BOOL",
    "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip


def read_torch(found: PickleFile) -> WeightFile:
    """Return the tensors that a file of torch.save holds, as byte ranges; reads no tensor data.

    The object must be a dict of names to tensors, or a dict with such dicts one level down (their
    names are joined by "."). Anything else in it becomes "weights.extra_entry" evidence.

    Raises:
        Malformed: broken pickle; storages missing, too short or overlapping; views out of range.
        Unsupported: names outside of the allow-list, other layouts, big-endian or packed storages.
        LimitExceeded: more opcodes, tensors or dimensions than we follow.
    """
    path, legacy = found.file.path, found.legacy
    pickle, root = _legacy_object(found) if legacy else _zip_object(found)
    _require_harmless(path, pickle)
    storages, facts = legacy_storages(found) if legacy else zip_storages(found, pickle, root)
    tensors: dict[str, TensorInfo] = {}
    evidence = list(facts[:_MOST_FACTS])
    for count, (name, value) in enumerate(_entries(pickle.value, path)):
        if count >= _MOST_ENTRIES:  # shared inner dicts can multiply
            raise LimitExceeded(path, f"more than {_MOST_ENTRIES} entries")
        require_name(name, path)
        tensor = _is_tensor(value)
        if (not tensor or name in tensors) and len(evidence) < _MOST_FACTS:
            subject = Subject("tensor", path, name[:200])
            odd = "weights.duplicate_key" if tensor else "weights.extra_entry"
            evidence.append(Evidence(odd, subject, True if tensor else _kind(value)))
        if not tensor:
            continue
        tensors[name] = _tensor(path, name, value, storages)
        require_count(len(tensors), path)
    container = "torch-legacy" if legacy else "torch-zip"
    return WeightFile(path, container, tuple(tensors.values()), evidence=tuple(evidence))


def _legacy_object(found: PickleFile) -> tuple[Disassembly, str]:
    first = found.streams[:LEGACY_PICKLES]
    for stream in first:
        _require_whole(found.file.path, stream.found)
    if len(first) < LEGACY_PICKLES:
        raise Malformed(found.file.path, "ends among its pickles", defect="truncated")
    return first[3].found, ""


def _zip_object(found: PickleFile) -> tuple[Disassembly, str]:
    """Return the object pickle and the archive's folder, chosen as torch's own reader does."""
    path = found.file.path
    if found.container != "zip" or found.archive is None:
        what = "is a pickle that" if found.container == "pickle" else f"is {found.container} that"
        raise Unsupported(path, f"{what} torch.save did not write; tensors not read", hint=_HINT)
    names = [member.name for member in found.archive.members if member.listed]
    root = names[0].split("/")[0] if names and "/" in names[0] else ""
    if any(name.startswith(f"{root}/code/") for name in names):
        raise Unsupported(path, "is a TorchScript program; tensors not read", hint=_HINT)
    wanted = f"{root}/data.pkl".lower()
    chosen = [s for s in found.streams if s.member.lower() == wanted and s.index == 0]
    clash = any(item.code == "duplicate_member" for item in found.defects)
    if clash or len(chosen) > 1:
        raise Malformed(path, "two members have the same name", defect="duplicate_member")
    if not chosen:
        raise Unsupported(path, "has no data.pkl; tensors not read", hint=_HINT)
    _require_whole(path, chosen[0].found)
    return chosen[0].found, root


def _require_whole(path: str, pickle: Disassembly) -> None:
    defect = pickle.defect
    if defect is not None and defect.code == "limit":
        raise LimitExceeded(path, f"its pickle has {defect.reason}")
    if defect is not None:
        reason = f"its pickle breaks at byte {defect.position}: {defect.reason}"
        raise Malformed(path, reason, defect=f"pickle_{defect.code}")


def _require_harmless(path: str, pickle: Disassembly) -> None:
    for item in pickle.globals:
        if not item.resolved or classify(item.module, item.name, "weights") != "allowed":
            name = f"{item.module}.{item.name}"[:200]
            reason = f"names {name}, which is outside of the allow-list; tensors not read"
            raise Unsupported(path, reason, hint="do not load it; ask for safetensors instead")


def _entries(value: Value, path: str) -> Iterator[tuple[str, Value]]:
    """Yield (name, value) of a dict, with the dicts in it opened one level deep."""
    top = _pairs(value)
    if top is None:
        reason = f"holds a {_kind(value)} and no mapping of names to tensors"
        raise Unsupported(path, reason, hint=_HINT)
    for key, item in top:
        name = key if isinstance(key, str) else f"({_kind(key)})"
        inner = _pairs(item)
        if inner is None or not isinstance(key, str):
            yield name, item if isinstance(key, str) else None
            continue
        for inner_key, inner_item in inner:
            if isinstance(inner_key, str):
                yield f"{name}.{inner_key}", inner_item
            else:
                yield f"{name}.({_kind(inner_key)})", None


def _pairs(value: Value) -> list[tuple[Value, Value]] | None:
    if isinstance(value, Pairs):
        return value.items
    if isinstance(value, Call) and value.is_to("collections", "OrderedDict"):
        args = value.args if isinstance(value.args, tuple) else ()
        first = args[0] if args and isinstance(args[0], list) else []  # Python 2: list of pairs
        given = [tuple(pair) for pair in first if isinstance(pair, list | tuple) and len(pair) == 2]
        return [(pair[0], pair[1]) for pair in given] + value.items
    return None


def _is_tensor(value: Value) -> bool:
    return isinstance(value, Call) and value.module in ("torch._utils", "torch._tensor")


def _kind(value: Value) -> str:
    if isinstance(value, Call):
        return f"{value.module}.{value.name}"[:100]
    names = {Pairs: "dict", PersistentId: "storage", Global: "name"}
    return names.get(type(value), type(value).__name__)


@dataclass(frozen=True, slots=True)
class _View:
    """The arguments of `_rebuild_tensor*`, checked for type but not for range."""

    claim: PersistentId
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Value  # Global or None


def _tensor(path: str, name: str, value: Call, storages: Mapping[str, Storage]) -> TensorInfo:
    view = _view(path, name, _unwrap(path, name, value))
    claim = parse_id(view.claim, path)
    storage = storages[claim.key]
    dtype = storage.dtype
    if isinstance(view.dtype, Global):
        dtype = _DTYPES.get(view.dtype.name)
    if dtype is None:
        raise Unsupported(path, f"tensor {name!r:.100} has a dtype we do not read", hint=_HINT)
    start, nbytes = storage.start, storage.nbytes
    if claim.view is not None:
        if sum(claim.view) > nbytes:
            raise Malformed(path, f"tensor {name!r:.100} leaves its storage", defect="view")
        start, nbytes = start + claim.view[0], claim.view[1]
    return _place(path, name, view, dtype, start, nbytes)


def _place(path: str, name: str, view: _View, dtype: str, start: int, nbytes: int) -> TensorInfo:
    """Return the tensor with its view proven to stay inside the storage."""
    width = BITS[dtype] // 8
    elements = nbytes // width
    shape, numel = view.shape, math.prod(view.shape)
    if numel == 0:
        return TensorInfo(name, dtype, shape, start, 0)
    reach = sum((n - 1) * step for n, step in zip(shape, view.strides, strict=True))
    if view.offset + reach >= elements:
        raise Malformed(path, f"tensor {name!r:.100} leaves its storage", defect="view")
    if numel > elements:  # stride 0 repeats elements: a few bytes could claim any size
        raise LimitExceeded(path, f"tensor {name!r:.100} is larger than its storage", hint=_HINT)
    plain = _contiguous(shape)
    # the stride of a dimension of length 1 means nothing, and may be huge
    strides = tuple(
        step if n > 1 else usual for n, step, usual in zip(shape, view.strides, plain, strict=True)
    )
    if strides == plain and view.offset == 0 and numel == elements:
        return TensorInfo(name, dtype, shape, start, elements * width)
    return TensorInfo(name, dtype, shape, start, elements * width, view.offset, strides)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def _unwrap(path: str, name: str, value: Value) -> Call:
    """Return the call that rebuilds the tensor inside parameters and plain tensor types."""
    for _ in range(4):
        if not isinstance(value, Call) or not isinstance(value.args, tuple):
            break
        args = value.args
        if value.states or value.items or value.appended or value.kwargs is not None:
            raise Unsupported(path, f"tensor {name!r:.100} is changed after it is built")
        if value.name in ("_rebuild_parameter", "_rebuild_parameter_with_state") and args:
            value = args[0]
        elif value.name == "_rebuild_from_type_v2" and len(args) == 4:
            made, kind = args[0], args[1]
            if not isinstance(kind, Global) or (kind.module, kind.name) not in _PLAIN_TYPES:
                raise Unsupported(path, f"tensor {name!r:.100} is of a special type", hint=_HINT)
            value = Call(made, args[2])
        else:
            return value
    raise Malformed(path, f"tensor {name!r:.100} is built from something else", defect="rebuild")


def _view(path: str, name: str, call: Call) -> _View:
    spec = {"_rebuild_tensor": (4, 4), "_rebuild_tensor_v2": (6, 7), "_rebuild_tensor_v3": (7, 8)}
    least, most = spec.get(call.name, (0, 0))
    if call.module != "torch._utils" or not most:
        reason = f"tensor {name!r:.100} is built by {call.name!r:.100}, which we do not read"
        raise Unsupported(path, reason, hint=_HINT)
    args = call.args
    if not least <= len(args) <= most or not isinstance(args[0], PersistentId):
        raise Malformed(path, f"tensor {name!r:.100} has odd arguments", defect="rebuild")
    claim, offset, shape, strides = args[:4]
    metadata = args[most - 1] if most > 4 and len(args) == most else None
    if metadata is not None and _pairs(metadata) != []:
        raise Unsupported(path, f"tensor {name!r:.100} is conjugated or negated", hint=_HINT)
    dtype = args[6] if call.name == "_rebuild_tensor_v3" else None
    if not (_are_counts(shape) and _are_counts(strides) and _are_counts((offset,))):
        raise Malformed(path, f"tensor {name!r:.100} has an odd shape", defect="rebuild")
    if len(shape) != len(strides):
        raise Malformed(path, f"tensor {name!r:.100} has an odd shape", defect="rebuild")
    if len(shape) > _MOST_DIMENSIONS:
        raise LimitExceeded(path, f"tensor {name!r:.100} has {len(shape)} dimensions")
    return _View(claim, offset, shape, strides, dtype)


def _are_counts(values: Value) -> bool:
    return isinstance(values, tuple) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
        for value in values
    )
