"""List and read zip members as tolerantly as the loaders do, and note where the archive lies.

`zipfile` refuses a bad CRC, an "encrypted" bit or a name that differs between the two headers;
torch's reader checks none of them. So the directory is parsed here, members are read raw, and each
contradiction becomes an `ArchiveDefect` instead of the end of the analysis.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_HEAD = 1024  # bytes read at each local header: header, padding and enough data to recognise it
_LONGEST_DIRECTORY = 8 << 20  # that of 50,000 members of torch has 4 MB
_MOST_MEMBERS = 50_000
_LONGEST_GAP = 1 << 20
_MOST_LZMA = 80 << 20  # bytes of memory: what `xz -9` needs
_WIDE_GAP = 4096  # alignment is done inside the headers; honest writers leave no gaps
_MARKS = (0x0001, "encrypted"), (0x0020, "patched"), (0x0040, "encrypted"), (0x2000, "encrypted")


class Source(Protocol):
    """Bytes that can be read in pieces: a SourceFile, ranges of one, or a member in memory."""

    @property
    def size(self) -> int:
        """Return the number of bytes."""

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`."""

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take note of the (start, length) that will be read next, to bring them here at once."""


@dataclass(frozen=True, slots=True)
class MemorySource:
    """A `Source` over bytes in memory: a member of an archive."""

    data: bytes

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return len(self.data)

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`."""
        return self.data[start : start + length]

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Do nothing: it is all here."""


@dataclass(frozen=True, slots=True)
class Within:
    """A `Source` that is part of another: an entry of a tar, however large."""

    whole: Source
    start: int
    length: int

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return max(0, min(self.length, self.whole.size - self.start))

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`."""
        return bytes(self.whole.read(self.start + start, max(0, min(length, self.size - start))))

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Pass on what will be read next."""
        self.whole.expect([(self.start + start, length) for start, length in ranges])


@dataclass(frozen=True, slots=True)
class ArchiveDefect:
    """A contradiction in an archive. `member` is untrusted text, "" for the archive itself.

    `code`: "no_directory" "bad_directory" "prefixed" "header_mismatch" "name_mismatch" "encrypted"
    "patched" "overlap" "duplicate_member" "path_traversal" "unlisted_member" "unlisted_bytes"
    "bad_crc" "bad_compression" "compression_method" "too_large" "out_of_bounds"; other containers
    add "polyglot" "legacy_tar" "unreadable_container" "nested_too_deep" "trailing_bytes".
    """

    code: str
    reason: str
    member: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One member, by the central directory. The data is at [start, start + compressed)."""

    name: str
    method: int  # 0 stored, 8 deflated
    flags: int
    crc: int
    size: int
    compressed: int
    header: int  # where the local header is
    start: int = -1  # -1: no local header there
    listed: bool = True

    @property
    def end(self) -> int:
        """Return the first byte after the data."""
        return self.start + self.compressed


@dataclass(frozen=True, slots=True)
class Archive:
    """The members of a zip in directory order (unlisted ones last), and its defects."""

    members: tuple[Member, ...]
    defects: tuple[ArchiveDefect, ...]


def read_archive(source: Source) -> Archive | None:
    """Return what the zip in `source` lists and hides, or None when there is no zip.

    Reads the directory and a few kilobytes at each member; never a whole member.
    """
    defects: list[ArchiveDefect] = []
    tail_start = max(0, source.size - 65557)
    tail = source.read(tail_start, 65557)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        if source.read(0, 4) != b"PK\x03\x04":
            return None
        defects.append(ArchiveDefect("no_directory", "there is no central directory"))
        hidden = tuple(_walk(source, 0, source.size))
        return Archive(hidden, (*defects, *_check(source, hidden)))
    where = _locate(source, tail, at, tail_start, defects)
    listed = list(_entries(source, where[:2], defects)) if where else []
    if where and where[2]:
        listed = list(_moved(source, listed, where[2]))
    # what is compressed is looked at from further
    source.expect((item.header, 8 * _HEAD if item.method else _HEAD) for item in listed)
    members = tuple(_local(source, member, defects) for member in listed)
    defects.extend(_check(source, members))
    # a directory of nothing says nothing of where it is
    hidden = tuple(_gaps(source, members, where[0] if where and listed else tail_start + at))
    defects += [
        ArchiveDefect("unlisted_member", "is not in the central directory", member.name)
        for member in hidden
    ]
    return Archive((*members, *hidden), tuple(defects))


def read_head(source: Source, member: Member) -> bytes:
    """Return the first bytes of the data of `member`, as stored: those read with its header."""
    near = member.header + _HEAD
    end = near if member.start < near else member.start + _HEAD
    return source.read(member.start, min(end - member.start, member.compressed))


def read_member(
    source: Source, member: Member, limit: int
) -> tuple[bytes, tuple[ArchiveDefect, ...]]:
    """Return up to `limit` uncompressed bytes of `member`, whatever its CRC and flags say."""
    name = member.name
    if member.start < 0:
        return b"", (ArchiveDefect("out_of_bounds", "has no local header", name),)
    raw = source.read(member.start, min(member.compressed, limit))
    if member.method == 0:
        data, ended = raw, member.compressed <= limit
    elif member.method == 8:
        try:
            inflate = zlib.decompressobj(-15)
            data = inflate.decompress(raw, limit)
            ended = inflate.eof
        except zlib.error as error:
            return raw, (ArchiveDefect("bad_compression", str(error), name),)
    elif member.method in (12, 14):
        data, ended, failed = _unpacked(raw, member.method, limit)
        if failed:
            return data or raw, (ArchiveDefect("bad_compression", failed, name),)
    else:
        return raw, (ArchiveDefect("compression_method", f"method {member.method}", name),)
    if not ended:
        return data, (ArchiveDefect("too_large", f"is longer than {limit} bytes", name),)
    if zlib.crc32(data) != member.crc:
        return data, (ArchiveDefect("bad_crc", "its checksum does not match", name),)
    return data, ()


def _unpacked(raw: bytes, method: int, limit: int) -> tuple[bytes, bool, str]:
    """Return up to `limit` bytes of a bzip2 (12) or LZMA (14) member, if that is all, and an error.

    `zipfile` reads both; an LZMA member is an .lzma file with a shorter header.
    """
    if method == 12:
        stream: bz2.BZ2Decompressor | lzma.LZMADecompressor = bz2.BZ2Decompressor()
    else:
        stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MOST_LZMA)
        raw = raw[4:9] + b"\xff" * 8 + raw[9:]
    try:
        data = stream.decompress(raw, limit)
    except (OSError, EOFError, lzma.LZMAError) as error:
        return b"", False, str(error)
    # an .lzma file without an end mark never says that it is over
    return data, stream.eof or (method == 14 and stream.needs_input), ""


def _locate(
    source: Source, tail: bytes, at: int, tail_start: int, defects: list[ArchiveDefect]
) -> tuple[int, int, int] | None:
    """Return (start, end) of the central directory, and how far it is from where it says."""
    *_, size, offset, _comment = _END.unpack_from(tail, at)
    directory_end = end = tail_start + at
    locator = source.read(max(0, end - _LOCATOR.size), _LOCATOR.size)
    if len(locator) == _LOCATOR.size and locator[:4] == b"PK\x06\x07":
        record_at = _LOCATOR.unpack(locator)[2]
        record = source.read(record_at, _END64.size) if record_at < source.size else b""
        if len(record) == _END64.size and record[:4] == b"PK\x06\x06":
            size64, offset64 = _END64.unpack(record)[8:10]
            if (size not in (size64, 0xFFFFFFFF)) or (offset not in (offset64, 0xFFFFFFFF)):
                defects.append(
                    ArchiveDefect("bad_directory", "two end records name different directories")
                )
            size, offset, directory_end = size64, offset64, record_at
        else:
            defects.append(ArchiveDefect("bad_directory", "the zip64 end record is missing"))
    if size > _LONGEST_DIRECTORY:
        defects.append(ArchiveDefect("too_large", f"a directory of {size} bytes"))
        return None
    if not size:
        return (offset, offset, 0) if offset <= end else None
    for start in (offset, directory_end - size):
        if 0 <= start < source.size and source.read(start, 4) == b"PK\x01\x02":
            if start != offset:
                defects.append(ArchiveDefect("prefixed", "bytes were put before the archive"))
            return start, start + size, start - offset
    defects.append(
        ArchiveDefect("bad_directory", "the central directory is not where it should be")
    )
    return None


def _moved(source: Source, members: list[Member], shift: int) -> Iterator[Member]:
    """Yield `members` wherever they are: some readers move all offsets with a moved directory."""
    places = [(member, replace(member, header=member.header + shift)) for member in members]
    source.expect((place.header, _HEAD) for pair in places for place in pair)
    for told, moved in places:
        found = [place for place in (told, moved) if _local_at(source, place.header) is not None]
        yield from found or (told,)


def _entries(
    source: Source, where: tuple[int, int], defects: list[ArchiveDefect]
) -> Iterator[Member]:
    directory = source.read(where[0], where[1] - where[0])
    at = count = 0
    while at < len(directory):
        if at + _CENTRAL.size > len(directory) or directory[at : at + 4] != b"PK\x01\x02":
            defects.append(ArchiveDefect("bad_directory", "an entry is broken"))
            return
        if count >= _MOST_MEMBERS:
            defects.append(ArchiveDefect("too_large", f"more than {_MOST_MEMBERS} members"))
            return
        fields = _CENTRAL.unpack_from(directory, at)
        flags, method, crc = fields[3], fields[4], fields[7]
        name_end = at + _CENTRAL.size + fields[10]
        name = _decode(directory[at + _CENTRAL.size : name_end], flags)
        extra = directory[name_end : name_end + fields[11]]
        size, compressed, header = _zip64(extra, (fields[9], fields[8], fields[16]))
        yield Member(name, method, flags, crc, size, compressed, header)
        at = name_end + fields[11] + fields[12]
        count += 1


def _zip64(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (size, compressed, header offset) with the 0xFFFFFFFF ones taken from `extra`."""
    at, big = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            big = extra[at + 4 : at + 4 + length]
            break
        at += 4 + length
    wide = [int.from_bytes(big[i : i + 8], "little") for i in range(0, len(big) - 7, 8)]
    size, compressed, header = (
        wide.pop(0) if value == 0xFFFFFFFF and wide else value for value in values
    )
    return size, compressed, header


def _decode(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8" if flags & 0x800 else "cp437", "replace")


def _local(source: Source, member: Member, defects: list[ArchiveDefect]) -> Member:
    """Return `member` with its data located, noting what the local header says differently."""
    found = _local_at(source, member.header)
    if found is None:
        defects.append(ArchiveDefect("out_of_bounds", "has no local header", member.name))
        return member
    if found.name != member.name:
        reason = "has another name in its local header"
        defects.append(ArchiveDefect("name_mismatch", reason, member.name))
    streamed = found.flags & 8 and found.crc == found.compressed == found.size == 0
    same = (found.crc, found.size, found.compressed) == (
        member.crc, member.size, member.compressed,
    )  # fmt: skip
    if found.method != member.method or not (streamed or same):
        reason = "its local header says otherwise"
        defects.append(ArchiveDefect("header_mismatch", reason, member.name))
    if (found.flags ^ member.flags) & 0x2061:
        defects.append(ArchiveDefect("header_mismatch", "its flags differ", member.name))
    return replace(member, start=found.start, flags=member.flags | found.flags)


def _local_at(source: Source, at: int) -> Member | None:
    piece = source.read(at, _HEAD) if 0 <= at < source.size else b""
    if len(piece) < _LOCAL.size or piece[:4] != b"PK\x03\x04":
        return None
    _, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = (
        _LOCAL.unpack_from(piece)
    )
    name_end = _LOCAL.size + name_length
    name = _decode(piece[_LOCAL.size : name_end], flags)
    extra = piece[name_end : name_end + extra_length]
    size, compressed, _ = _zip64(extra, (size, compressed, 0))
    data = name_end + extra_length
    return Member(name, method, flags, crc, size, compressed, at, at + data, listed=False)


def _check(source: Source, members: tuple[Member, ...]) -> Iterator[ArchiveDefect]:
    # torch's reader looks names up without regard to case
    names = Counter(member.name.lower() for member in members)
    reach, previous = 0, ""
    for member in sorted(members, key=lambda item: item.header):
        name = member.name
        for bit, code in _MARKS:
            if member.flags & bit:
                yield ArchiveDefect(code, f"flag 0x{bit:x} is set", name)
        if names[name.lower()] > 1:
            yield ArchiveDefect("duplicate_member", "its name occurs more than once", name)
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or name[1:2] == ":":
            yield ArchiveDefect("path_traversal", "its name leaves the archive", name)
        if member.start < 0:
            continue
        if member.end > source.size:
            yield ArchiveDefect("out_of_bounds", "reaches past the end of the file", name)
        if member.method == 0 and member.size != member.compressed:
            yield ArchiveDefect("header_mismatch", "stored, but with two sizes", name)
        if member.header - reach >= _WIDE_GAP:
            reason = f"{member.header - reach} bytes before it belong to no member"
            yield ArchiveDefect("unlisted_bytes", reason, name)
        if member.header < reach:
            yield ArchiveDefect("overlap", f"shares bytes with {previous!r:.80}", name)
        if member.end > reach:
            reach, previous = member.end, name


def _gaps(source: Source, members: tuple[Member, ...], end: int) -> Iterator[Member]:
    """Yield members whose headers stand between the listed ones."""
    at, budget = 0, _LONGEST_GAP
    spans = sorted((member.header, member.end) for member in members if member.start >= 0)
    for start, stop in (*spans, (end, end)):
        if start - at >= _LOCAL.size and budget > 0:
            yield from _walk(source, at, min(start, at + budget))
            budget -= start - at
        at = max(at, stop)


def _walk(source: Source, start: int, end: int) -> Iterator[Member]:
    """Yield the local headers found between `start` and `end`, with sizes guessed if unstated."""
    window = source.read(start, min(end - start, 16 * _LONGEST_GAP))
    at, count = window.find(b"PK\x03\x04"), 0
    while at >= 0 and count < 1000:
        following = window.find(b"PK\x03\x04", at + 4)
        found = _local_at(source, start + at)
        if found is not None:
            stop = start + (following if following >= 0 else len(window))
            room = max(0, stop - found.start)
            known = 0 < found.compressed <= room
            yield found if known else replace(found, compressed=room, size=room)
        at, count = following, count + 1
