"""Find and disassemble every pickle in a file: bare, in a row, inside archives and arrays."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from adapterscan.errors import FileProblem
from adapterscan.formats.joblib_arrays import WRAPPER
from adapterscan.formats.pickle_policy import is_blocked
from adapterscan.formats.pickle_values import Global
from adapterscan.formats.pickle_vm import Disassembly, Limits, disassemble
from adapterscan.formats.sniff import sniff
from adapterscan.formats.tar_archive import TarEntry, TarRest, tar_entries
from adapterscan.formats.zip_archive import (
    Archive,
    ArchiveDefect,
    Member,
    MemorySource,
    Source,
    Within,
    read_archive,
    read_head,
    read_member,
)

#: First pickle of a file written by torch.save before torch 1.6; four more pickles follow it.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PICKLES = 5

_LONGEST_PICKLE = 16 << 20  # that of 45,000 tensors has 10 MB
_MOST_OPCODES = 4_000_000  # in all pickles of one file together
_MOST_BYTES = 128 << 20  # of members and pickles of one file together: overlapping ones multiply
_MOST_IN_ONE = 2_000_000  # some 60,000 tensors
_MOST_VALUES = 64 << 20  # bytes of what all pickles of one file would build
_MOST_IN_A_ROW = 100_000  # each counts towards _MOST_OPCODES
_MOST_TOLD_IN_A_ROW = 1000  # without a name in them
_HEAD = 4096
_HEAD_LIMITS = Limits(opcodes=20_000)
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PICKLE_NAMES = (".pkl", ".pickle", ".pck", ".pcl", ".joblib", ".dill")
_ZFILE_HEAD = 21  # "ZF" and the length as text, before the zlib stream
_ARRAY = b"\x93NUMPY"
_MOST_ARRAYS = 1000
_PIECE = 1 << 20
_LEGACY_TAR = frozenset({"storages", "tensors", "pickle"})
_UNREADABLE = frozenset({"7z", "rar", "zstd", "lz4"})
_NESTED = frozenset({"zip", "tar", "npy", "gzip", "bzip2", "xz", "lzma", "zfile"}) | _UNREADABLE
_MOST_STREAMS = 100  # compressed, one after the other
_BAD_COMPRESSION = (zlib.error, OSError, lzma.LZMAError, EOFError)
_DEEPEST = 5  # archives in archives; each one takes of _MOST_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class PickleStream:
    """One pickle. `index` counts the pickles that follow one another in the same place.

    `expected` is false for a pickle that the container's format does not explain.
    """

    member: str  # "" for the file itself; "outer/inner" in nested archives
    index: int
    expected: bool
    found: Disassembly


class NamedSource(Source, Protocol):
    """A `Source` that knows what to call itself in messages: a whole file, or ranges of one."""

    @property
    def path(self) -> str:
        """Return the artifact-relative name."""


@dataclass(frozen=True, slots=True, eq=False)
class PickleFile:
    """All pickles of one file, disassembled once; the facts and the tensor reader share it."""

    file: NamedSource
    container: str
    streams: tuple[PickleStream, ...]
    archive: Archive | None
    defects: tuple[ArchiveDefect, ...]
    problem: FileProblem | None = None  # why there may be more than was found

    @property
    def legacy(self) -> bool:
        """Return whether this is a bare file of torch.save's old format."""
        return bool(self.streams) and is_legacy(self.streams[0])


def is_legacy(stream: PickleStream) -> bool:
    """Return whether `stream` is the magic number that begins torch.save's old format."""
    return not stream.member and not stream.index and _is_magic(stream.found)


def find_pickles(file: NamedSource) -> PickleFile:
    """Disassemble every pickle in `file`, whatever its name says.

    Hostile content never raises: it becomes a stream's `defect` or an archive defect. Bytes that
    cannot be had end the search, as `problem`; what was found before stays.
    """
    search = _Search()
    container, archive, problem = "", None, None
    try:
        container = sniff(file.read(0, _HEAD))
        archive = search.look(file, "", container, 0)
    except FileProblem as error:
        problem = error
    found = tuple(search.streams), archive, tuple(search.defects)
    return PickleFile(file, container, *found, problem)


@dataclass(slots=True)
class _Row:
    """Pickles that follow one another. Positions count from where the first one begins."""

    streams: list[PickleStream] = field(default_factory=list)
    end: int = 0  # after the last STOP
    reach: int = 0  # how far there is more to see at the least; 0: it is over
    beyond: int = 0  # how far one of them reaches at the least, when it is cut off
    legacy: bool = False


def _is_entry(source: Source, archive: Archive) -> bool:
    """Return whether a zip at the end of a tar is its last entry whole, as in NeMo's files."""
    first = min((member.header for member in archive.members), default=-1)
    last = max((member.end for member in archive.members), default=0)
    return any(
        isinstance(entry, TarEntry) and entry.start <= first and last <= entry.start + entry.size
        for entry in tar_entries(source)
    )


@dataclass(slots=True)
class _Search:
    streams: list[PickleStream] = field(default_factory=list)
    defects: list[ArchiveDefect] = field(default_factory=list)
    opcodes: int = _MOST_OPCODES
    values: int = _MOST_VALUES
    room: int = _MOST_BYTES

    def look(self, source: Source, name: str, container: str, depth: int) -> Archive | None:
        """Collect the pickles of `source`; return its zip directory, if it has one."""
        if container != "zip":
            row = self.bare(source, name, 0, container == "pickle")
            rest = source.size - row.end
            if container == "pickle" and row.end and rest and not row.legacy:
                reason = f"{rest} bytes after its last pickle are nothing that we know"
                self.note(ArchiveDefect("trailing_bytes", reason), name)
        archive = read_archive(source) if container not in ("empty", "text") else None
        if archive is not None and container == "tar" and _is_entry(source, archive):
            archive = None  # looked into as that entry
        if archive is not None and (container == "zip" or _is_real(archive)):
            if container != "zip":
                reason = f"is {container} at its start and zip at its end"
                self.note(ArchiveDefect("polyglot", reason), name)
            for defect in archive.defects:
                self.note(defect, name)
            for member in archive.members:
                if not self.affords(name):
                    break
                self.member(source, member, name, depth)
        if container == "tar":
            self.tar(source, name, depth)
        elif container == "npy":
            self.array(source, name)
        elif container in ("gzip", "bzip2", "xz", "lzma", "zlib", "zfile"):
            self.compressed(source, name, container, depth)
        elif container in _UNREADABLE:
            self.note(ArchiveDefect("unreadable_container", f"{container} is not read"), name)
        return archive

    def note(self, defect: ArchiveDefect, name: str) -> None:
        member = "/".join(part for part in (name, defect.member) if part)
        self.defects.append(ArchiveDefect(defect.code, defect.reason, member))

    def affords(self, name: str) -> bool:
        """Return whether we may go on; the place where we stop is noted once per container."""
        if self.opcodes > 0 and self.room > 0 and self.values > 0:
            return True
        self.note(
            ArchiveDefect("too_large", "more content than we follow; the rest is unseen"), name
        )
        return False

    def bare(self, source: Source, name: str, start: int, expected: bool) -> _Row:
        """Collect the pickles that begin at `start`, reading no further than they reach."""
        total = source.size - start
        data = source.read(start, _HEAD)
        if not expected and self.hint(data, total) is None:
            return _Row()
        while True:
            row = self.row(data, name, expected)
            room = min(_LONGEST_PICKLE, total) - len(data)
            if not len(data) < row.reach <= total or room <= 0:
                break
            wanted = max(7 * len(data), row.reach - len(data))
            del row  # the next look needs the room
            data += source.read(start + len(data), min(room, wanted))
        self.opcodes -= sum(stream.found.opcodes for stream in row.streams)
        self.values -= sum(stream.found.memory for stream in row.streams)
        self.room -= len(data)
        self.streams.extend(row.streams)
        if len(data) < row.reach <= total:
            self.note(ArchiveDefect("too_large", f"over {_LONGEST_PICKLE} bytes of pickle"), name)
        return row

    def hint(self, head: bytes, total: int) -> Disassembly | None:
        """Return what `head` does if it tells, or with the rest of `total` bytes might."""
        found = disassemble(head, limits=_HEAD_LIMITS)
        self.opcodes -= found.opcodes
        limited = found.defect is not None and found.defect.code == "limit"
        if _is_telling(found) or limited or len(head) < _reach(found) <= total:
            return found
        return None

    def row(self, data: bytes, name: str, expected: bool) -> _Row:
        """Return the pickles that follow one another in `data`."""
        row, at, opcodes, values = _Row(), 0, self.opcodes, self.values
        for index in range(_MOST_IN_A_ROW):
            limits = Limits(opcodes=max(0, min(_MOST_IN_ONE, opcodes)), memory=max(0, values))
            found, reach = _follow(data, at, limits)
            row.beyond = max(row.beyond, reach)
            opcodes -= found.opcodes
            values -= found.memory
            row.legacy = row.legacy or (index == 0 and _is_magic(found))
            explained = index == 0 or (row.legacy and index < LEGACY_PICKLES)
            silent = index >= _MOST_TOLD_IN_A_ROW and not found.globals and found.defect is None
            if ((explained and expected) or _is_telling(found)) and not silent:
                row.streams.append(PickleStream(name, index, explained, found))
            at = found.end
            row.end = at if found.complete else row.end
            row.reach = row.beyond
            if not found.complete or (row.legacy and index == LEGACY_PICKLES - 1):
                return row
            if at >= len(data):
                row.reach = max(row.beyond, len(data) + 1)  # the next one may begin right there
                return row
        self.note(ArchiveDefect("too_large", f"over {_MOST_IN_A_ROW} pickles in a row"), name)
        return row

    def member(self, source: Source, member: Member, name: str, depth: int) -> None:
        path = f"{name}/{member.name}" if name else member.name
        self.room -= _HEAD if depth else 0  # archives in archives multiply what is looked at
        named = member.name.lower().endswith(_PICKLE_NAMES)
        if member.method != 0:
            head, _ = read_member(source, member, _HEAD)
        else:
            head = read_head(source, member) if member.start >= 0 else b""
        container = sniff(head)
        nested = container in _NESTED
        if not named and not nested and not self.suspect(source, member, head):
            return
        data, defects = read_member(source, member, _LONGEST_PICKLE)
        before = len(self.streams)
        if nested:
            self.nested(data, path, container, depth)
        else:
            self.room -= len(data)
            self.bare(MemorySource(data), path, 0, named)
        if named or len(self.streams) > before:
            for defect in defects:
                self.note(defect, name)

    def suspect(self, source: Source, member: Member, head: bytes) -> bool:
        """Return whether a member that no name announces holds a pickle, reading on until it tells.

        Of random numbers, one in fifty begins like an opcode with a long argument. Most of those
        arguments are longer than the member, so that no more of it needs to be read.
        """
        total = max(member.size, member.compressed)
        while (found := self.hint(head, total)) is not None:
            reach = _reach(found)
            if _is_telling(found) or not reach or self.room <= 0:
                return True
            wanted = min(max(8 * len(head), reach), _LONGEST_PICKLE)
            longer, _ = read_member(source, member, wanted)
            self.room -= len(longer)
            if len(longer) <= len(head):
                return True
            head = longer
        return False

    def tar(self, source: Source, name: str, depth: int) -> None:
        for entry in tar_entries(source):
            if not self.affords(name):
                break
            if isinstance(entry, TarRest):
                reason = f"{entry.size} bytes from {entry.start} on belong to no entry"
                self.note(ArchiveDefect("trailing_bytes", reason), name)
                for start in (entry.start, entry.start + 512):  # behind a header that is broken
                    self.bare(source, name, start, False)
                continue
            path = f"{name}/{entry.name}" if name else entry.name
            if not entry.expected:
                reason = "stands where readers have stopped, or skip"
                self.note(ArchiveDefect("unlisted_member", reason), path)
            if entry.name in _LEGACY_TAR:
                reason = "torch's oldest format, which mixes pickles with raw numbers"
                self.note(ArchiveDefect("legacy_tar", reason), path)
            container = sniff(source.read(entry.start, min(_HEAD, entry.size)))
            if container == "zip" and depth < _DEEPEST:  # checkpoints weigh gigabytes
                self.look(Within(source, entry.start, entry.size), path, container, depth + 1)
            elif container in _NESTED:
                self.nested(source.read(entry.start, min(entry.size, _LONGEST_PICKLE)), path,
                            container, depth)  # fmt: skip
            else:
                # the size may be a lie that other headers correct: read to where the pickle ends
                named = entry.name in _LEGACY_TAR or entry.name.lower().endswith(_PICKLE_NAMES)
                self.bare(source, path, entry.start, named)

    def nested(self, data: bytes, path: str, container: str, depth: int) -> None:
        """Look into an archive that is a member of another."""
        if depth >= _DEEPEST:
            self.note(ArchiveDefect("nested_too_deep", "an archive deep in archives"), path)
            return
        self.room -= len(data)
        self.look(MemorySource(data), path, container, depth + 1)

    def array(self, source: Source, name: str) -> None:
        """Collect the pickles of arrays of objects: a handle reads one array after the other."""
        at, searched = 0, 0
        for _ in range(_MOST_ARRAYS):
            self.one_array(source, name, at)
            at, piece = at + 6, b""
            while at < source.size and searched < _LONGEST_PICKLE:
                piece = source.read(at, _PIECE)
                searched += len(piece)
                found = piece.find(_ARRAY)
                if found >= 0:
                    break
                at += max(1, len(piece) - len(_ARRAY) + 1)
            if _ARRAY not in piece or not self.affords(name):
                return
            at += piece.find(_ARRAY)

    def one_array(self, source: Source, name: str, start: int) -> None:
        head = source.read(start, 12)
        wide = len(head) > 6 and head[6] >= 2
        length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
        at = start + (12 if wide else 10)
        header = source.read(at, min(length, 1 << 16))
        described = header.partition(b"descr")[2].partition(b"fortran")[0]
        if at + length < source.size and (b"O" in described or length > 1 << 16):
            self.bare(source, name, at + length, True)

    def compressed(self, source: Source, name: str, container: str, depth: int) -> None:
        data, whole = _decompress(source.read(0, _LONGEST_PICKLE), container)
        if data:
            self.nested(data, name, sniff(data[:_HEAD]), depth)
        if not whole and depth == 0:
            self.note(ArchiveDefect("bad_compression", f"{container} cannot be read whole"), name)


def _is_magic(found: Disassembly) -> bool:
    return isinstance(found.value, int) and found.value == LEGACY_MAGIC


def _is_real(archive: Archive) -> bool:
    return any(member.start >= 0 for member in archive.members)


def _reach(found: Disassembly) -> int:
    """Return how far a pickle that is cut off reaches at the least, 0 when it is not cut off."""
    return found.defect.reach if found.defect is not None else 0


def _follow(data: bytes, at: int, limits: Limits) -> tuple[Disassembly, int]:
    """Follow a pickle, one of joblib twice: its loader goes on where others do not.

    Return what both do, and how far there is more to see at the least.
    """
    plain = disassemble(data, at, limits)
    if not any((item.module, item.name) == WRAPPER for item in plain.globals):
        return plain, _reach(plain)
    left = limits.opcodes - plain.opcodes, limits.memory - plain.memory
    rest = Limits(opcodes=max(0, left[0]), memory=max(0, left[1]))
    skipping = disassemble(data, at, rest, arrays=True)
    whole, other = (skipping, plain) if skipping.complete else (plain, skipping)
    known = {item.position: (item.module, item.name) for item in whole.globals}
    more = [
        item
        for item in other.globals
        if _is_named(item)
        # an array of objects has a memo of its own, which gives names that plain reading mistakes
        and (item.position not in known or is_blocked(item.module, item.name))
        and known.get(item.position) != (item.module, item.name)
    ]
    places = {step.position for step in whole.reaches}
    both = replace(
        whole,
        globals=(*whole.globals, *more),
        reaches=(*whole.reaches, *(s for s in other.reaches if more and s.position not in places)),
        opcodes=plain.opcodes + skipping.opcodes,
        memory=plain.memory + skipping.memory,
    )
    return both, max(_reach(plain), _reach(skipping))


def _is_named(item: Global) -> bool:
    """Return whether a name is one that could be imported, and is read before any break."""
    dotted = _DOTTED.fullmatch(item.module) and _DOTTED.fullmatch(item.name)
    return bool(item.resolved and not item.after_break and dotted)


def _is_telling(found: Disassembly) -> bool:
    """Return whether bytes that nobody announced as a pickle behave like one."""
    if found.complete and found.defect is None and found.opcodes > 2:
        return True
    return any(
        _is_named(item) and (item.called or is_blocked(item.module, item.name))
        for item in found.globals
    )


def _decompress(raw: bytes, container: str) -> tuple[bytes, bool]:
    """Return up to _LONGEST_PICKLE bytes, and whether that is everything.

    Streams that follow one another count as one, as the standard library reads them.
    """
    content = b""
    raw = raw[_ZFILE_HEAD:] if container == "zfile" else raw
    for _ in range(_MOST_STREAMS):
        room = _LONGEST_PICKLE - len(content)
        if room <= 0:
            return content, False
        stream = _decompressor(container)
        try:
            content += stream.decompress(raw, room)
        except _BAD_COMPRESSION:
            return content + _before_the_error(raw, container)[:room], False
        rest = stream.unused_data.lstrip(b"\0")
        if not stream.eof or not rest:
            return content, stream.eof
        if not rest.startswith(raw[:2]):
            return content, True
        raw = rest
    return content, False


def _decompressor(container: str) -> Any:
    if container in ("gzip", "zlib", "zfile"):
        return zlib.decompressobj(47)
    if container == "bzip2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(memlimit=80 << 20)  # what `xz -9` needs


def _before_the_error(raw: bytes, container: str) -> bytes:
    """Return what a loader that reads bit by bit gets, from the first 64 KiB of a bad stream."""
    stream, pieces, room = _decompressor(container), [], _LONGEST_PICKLE
    with suppress(*_BAD_COMPRESSION):
        for at in range(min(len(raw), 1 << 16)):
            pieces.append(stream.decompress(raw[at : at + 1], room))
            room -= len(pieces[-1])
            if room <= 0:
                break
    return b"".join(pieces)
