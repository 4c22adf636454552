"""Find the byte range of each storage of a torch.save file, within the file and without overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from adapterscan.errors import Malformed, Unsupported
from adapterscan.formats.pickle_file import PickleFile
from adapterscan.formats.pickle_values import Global, Pairs, PersistentId
from adapterscan.formats.pickle_vm import Disassembly
from adapterscan.formats.tensors import BITS
from adapterscan.formats.zip_archive import Member, read_member
from adapterscan.model import Evidence, Subject

_HINT = "save the adapter again as safetensors"
_PROTOCOL = 1001

#: dtype of the elements; None where the tensor says it (untyped storages are counted in bytes).
_STORAGES: Mapping[str, str | None] = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "ByteStorage": "U8", "CharStorage": "I8", "ShortStorage": "I16", "IntStorage": "I32",
    "LongStorage": "I64", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
    "UntypedStorage": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """What a persistent id says about a storage."""

    key: str
    dtype: str | None
    nbytes: int
    view: tuple[int, int] | None = None  # (offset, bytes) of a view, in the oldest files


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the bytes of a storage are, absolute in the file."""

    start: int
    nbytes: int
    dtype: str | None


def parse_id(identifier: PersistentId, path: str) -> Claim:
    """Return what a persistent id claims. Raises Malformed or Unsupported."""
    value = identifier.value
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage":
        raise Unsupported(path, "refers to something other than a storage", hint=_HINT)
    kind, key, _, numel = value[1:5]
    if not isinstance(kind, Global) or kind.name not in _STORAGES:
        name = f"{kind.module}.{kind.name}" if isinstance(kind, Global) else "no class"
        raise Unsupported(path, f"has storages of {name!r:.100}, which we do not read", hint=_HINT)
    if not isinstance(key, str) or not _is_count(numel):
        raise Malformed(path, "a storage has no key or size", defect="storage_id")
    dtype = _STORAGES[kind.name]
    width = BITS[dtype] // 8 if dtype else 1
    view = value[5] if len(value) == 6 else None
    if view is None:
        return Claim(key, dtype, numel * width)
    if not (isinstance(view, tuple) and len(view) == 3 and all(map(_is_count, view[1:]))):
        raise Malformed(path, "a storage view has no offset or size", defect="storage_id")
    return Claim(key, dtype, numel * width, (view[1] * width, view[2] * width))


def zip_storages(
    found: PickleFile, pickle: Disassembly, root: str
) -> tuple[Mapping[str, Storage], tuple[Evidence, ...]]:
    """Return the storages of a torch zip whose folder is `root`, and facts about their members.

    Raises Malformed or Unsupported when one is missing, short, compressed or shared.
    """
    path = found.file.path
    members: dict[str, Member] = {}
    for member in found.archive.members if found.archive else ():
        members.setdefault(member.name.lower(), member)
    _require_little_endian(found, members.get(f"{root}/byteorder".lower()))
    storages, evidence = {}, []
    for claim in _claims(pickle, path):
        entry = members.get(f"{root}/data/{claim.key}".lower())
        if entry is None or entry.start < 0:
            _malformed(path, f"storage {claim.key!r:.50} is missing", "missing_storage")
        if entry.method != 0:
            raise Unsupported(path, "its storages are compressed", hint=_HINT)
        if claim.nbytes > entry.compressed or entry.end > found.file.size:
            reason = f"storage {claim.key!r:.50} is shorter than its pickle claims"
            _malformed(path, reason, "storage_size")
        if entry.compressed > claim.nbytes:
            slack = entry.compressed - claim.nbytes
            subject = Subject("file", path, entry.name[:200])
            evidence.append(Evidence("weights.storage_slack", subject, slack, "bytes"))
        storages[claim.key] = Storage(entry.start, claim.nbytes, claim.dtype)
    _require_disjoint(path, storages)
    return storages, tuple(evidence)


def legacy_storages(
    found: PickleFile,
) -> tuple[Mapping[str, Storage], tuple[Evidence, ...]]:
    """Return the storages of a file in torch's old format: counts and raw data after the pickles.

    Raises Malformed or Unsupported when they do not add up.
    """
    path, size = found.file.path, found.file.size
    _, protocol, system, pickle, keys = (stream.found for stream in found.streams[:5])
    if protocol.value != _PROTOCOL:
        _malformed(path, "unknown version of the old format", "protocol")
    facts = system.value.items if isinstance(system.value, Pairs) else []
    if not any(key == "little_endian" and value is True for key, value in facts[:100]):
        raise Unsupported(path, "is big-endian", hint=_HINT)
    claims = {claim.key: claim for claim in _claims(pickle, path)}
    storages: dict[str, Storage] = {}
    at = keys.end
    for key in keys.value if isinstance(keys.value, list) else []:
        claim = claims.get(key) if isinstance(key, str) else None
        if claim is None or key in storages:
            _malformed(path, "its storage keys do not match its tensors", "storage_id")
        count = int.from_bytes(found.file.read(at, 8), "little", signed=True)
        width = BITS[claim.dtype] // 8 if claim.dtype else 1
        if count * width != claim.nbytes or at + 8 + claim.nbytes > size:
            reason = f"storage {key!r:.50} has another size than its pickle claims"
            _malformed(path, reason, "storage_size")
        storages[key] = Storage(at + 8, claim.nbytes, claim.dtype)
        at += 8 + claim.nbytes
    if len(storages) != len(claims):
        _malformed(path, "a storage is missing", "missing_storage")
    rest = size - at
    subject = Subject("file", path)
    extra = (Evidence("weights.trailing_bytes", subject, rest, "bytes"),) if rest else ()
    return storages, extra


def _claims(pickle: Disassembly, path: str) -> Iterator[Claim]:
    """Yield one claim per storage key. Raises Malformed when two ids disagree about a storage."""
    seen: dict[str, tuple[str | None, int]] = {}
    for identifier in pickle.persistent:
        claim = parse_id(identifier, path)
        said = (claim.dtype, claim.nbytes)
        if claim.key not in seen:
            seen[claim.key] = said
            yield claim
        elif seen[claim.key] != said:
            reason = f"storage {claim.key!r:.50} is described in two ways"
            _malformed(path, reason, "storage_conflict")


def _require_little_endian(found: PickleFile, member: Member | None) -> None:
    if member is not None and read_member(found.file, member, 64)[0].strip() != b"little":
        raise Unsupported(found.file.path, "is big-endian", hint=_HINT)


def _require_disjoint(path: str, storages: Mapping[str, Storage]) -> None:
    end = 0
    for storage in sorted(storages.values(), key=lambda item: (item.start, item.nbytes)):
        if storage.nbytes and storage.start < end:
            _malformed(path, "two storages share bytes", "overlap")
        end = max(end, storage.start + storage.nbytes)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _malformed(path: str, reason: str, defect: str) -> NoReturn:
    raise Malformed(path, reason, defect=defect, hint=_HINT)
