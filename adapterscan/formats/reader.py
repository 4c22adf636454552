"""Read one file of an artifact: bounded, once, and hashed over the very bytes that are analysed.

Bytes are read into private buffers and never mapped: a mapped file that is truncated under us kills
the process with SIGBUS, and a mapped page can change between hashing it and analysing it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from adapterscan.errors import ChangedWhileReading, Unreadable
from adapterscan.model import GitSha1, Sha256

SEGMENT_BYTES = 8 << 20
_DIGEST = 32  # bytes


class SourceFile:
    """A regular file, opened once without blocking. Use as a context manager.

    `path` is the artifact-relative name for messages; `local` is where the bytes are; `git_sha1`
    asks for git's blob id beside the SHA-256.
    Raises Unreadable when it cannot be opened or is a FIFO, device, socket or folder.
    """

    def __init__(self, path: str, local: Path, *, git_sha1: bool = False) -> None:
        self.path = path
        self._wants_git_sha1 = git_sha1
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(local, flags)
        except OSError as error:
            reason = f"cannot be opened ({error.strerror or type(error).__name__})"
            raise Unreadable(path, reason, hint="check that it exists and is readable") from error
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._stat = os.fstat(descriptor)
        if not stat.S_ISREG(self._stat.st_mode):
            self._file.close()
            raise Unreadable(
                path, "is not a regular file", hint="remove it; loaders could hang on it"
            )
        self.size: int = self._stat.st_size
        self._turn = threading.Lock()
        self._seen = _Seen()
        self.sha256: Sha256 | None = None
        self.git_sha1: GitSha1 | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` (fewer only at the end of the file).

        Their digest is remembered, and `segments` checks that it sees the same bytes again.
        """
        piece = self._take(start, max(0, min(length, self.size - start)))
        self._seen.add(start, piece)
        return piece

    def glance(self, start: int, length: int) -> bytearray:
        """Return the bytes of a range that no pass will see: nothing is remembered of them."""
        buffer = bytearray(max(0, min(length, self.size - start)))
        self._fill(start, memoryview(buffer))
        return buffer

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Do nothing: a disk is near."""

    def reread(self, start: int, length: int, blake2b: bytes) -> bytearray:
        """Return bytes that `segments` has already passed, proven equal by their BLAKE2b digest."""
        buffer = bytearray(length)
        self._fill(start, memoryview(buffer))
        if hashlib.blake2b(buffer).digest() != blake2b:
            raise self._changed()
        return buffer

    def segments(self, cuts: Iterable[int]) -> Iterator[tuple[int, memoryview]]:
        """Yield (start, bytes) over the whole file in order, reading ahead and hashing meanwhile.

        A segment is at most SEGMENT_BYTES long unless no cut (of the ascending offsets at which a
        segment may end) falls inside it. After the last one `sha256` and `git_sha1` are set.
        Raises ChangedWhileReading when earlier reads, or the file's size or time, no longer agree.
        """
        sha256 = hashlib.sha256()
        sha1 = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        plan = deque(_plan(self.size, cuts))
        again = _Again(self._seen)
        with ThreadPoolExecutor(1, "hash") as hashing, ThreadPoolExecutor(1, "read") as reading:
            pending: Future[None] | None = None
            ahead: Future[memoryview] | None = None
            while plan:
                start, end = plan.popleft()
                if pending is not None and end - start > SEGMENT_BYTES:
                    pending.result()  # lets go of its buffer before this one takes as much
                view = ahead.result() if ahead is not None else self._load(start, end)
                ahead = None
                if plan and plan[0][1] - plan[0][0] <= SEGMENT_BYTES:
                    ahead = reading.submit(self._load, *plan[0])
                if not again.agrees(start, view):
                    raise self._changed()
                if pending is not None:
                    pending.result()
                pending = hashing.submit(sha256.update, view)
                if self._wants_git_sha1:
                    sha1.update(view)
                yield start, view.toreadonly()
                del view
            if pending is not None:
                pending.result()
        self.check_unchanged()
        self.sha256 = Sha256(sha256.hexdigest())
        self.git_sha1 = GitSha1(sha1.hexdigest()) if self._wants_git_sha1 else None

    def read_all(self) -> bytes:
        """Return the whole file, hashed. For small files: the caller has checked `size`."""
        return b"".join(bytes(view) for _, view in self.segments([]))

    def _load(self, start: int, end: int) -> memoryview:
        view = memoryview(bytearray(end - start))
        self._fill(start, view)
        return view

    def _take(self, start: int, length: int) -> bytes:
        pieces: list[bytes] = []
        with self._turn:
            self._file.seek(start)
            while length > 0:
                try:
                    piece = self._file.read(length)
                except OSError as error:
                    raise self._unreadable(error) from error
                if not piece:
                    raise self._changed()
                pieces.append(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fill(self, start: int, view: memoryview) -> None:
        with self._turn:  # one position in the file, and `segments` reads ahead
            self._fill_alone(start, view)

    def _fill_alone(self, start: int, view: memoryview) -> None:
        self._file.seek(start)
        done = 0
        while done < len(view):
            try:
                count = self._file.readinto(view[done:])
            except OSError as error:
                raise self._unreadable(error) from error
            if not count:
                raise self._changed()
            done += count

    def check_unchanged(self) -> None:
        """Raise ChangedWhileReading when the file's size or time is another than at opening."""
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise self._changed()

    def _unreadable(self, error: OSError) -> Unreadable:
        reason = f"cannot be read to its end ({error.strerror})"
        return Unreadable(self.path, reason, hint="check the disk, then scan again")

    def _changed(self) -> ChangedWhileReading:
        return ChangedWhileReading(
            self.path,
            "changed while it was being read",
            hint="scan again when nothing is writing to it",
        )


class _Seen:
    """What was read before the pass: where, and its digest. An archive takes 100,000 small reads,
    a header one of many megabytes."""

    def __init__(self) -> None:
        self._starts, self._ends = array("q"), array("q")
        self._digests = bytearray()

    def add(self, start: int, piece: bytes) -> None:
        self._starts.append(start)
        self._ends.append(start + len(piece))
        self._digests += hashlib.blake2b(piece, digest_size=_DIGEST).digest()

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (start, end, digest) in order of starts."""
        for at in sorted(range(len(self._starts)), key=self._starts.__getitem__):
            digest = self._digests[at * _DIGEST : (at + 1) * _DIGEST]
            yield self._starts[at], self._ends[at], bytes(digest)


_Piece = tuple[int, int, bytes, hashlib.blake2b]


class _Again:
    """Follows a pass over the file and compares it with what was read before."""

    def __init__(self, seen: _Seen) -> None:
        self._ahead = iter(seen)
        self._next = next(self._ahead, None)
        self._open: list[_Piece] = []

    def agrees(self, start: int, view: memoryview) -> bool:
        """Return whether all pieces that end in this segment are the same as before."""
        end, agree, still = start + len(view), True, []
        for piece in chain(self._open, self._begun(end)):
            low, high, expected, digest = piece
            digest.update(view[max(low, start) - start : min(high, end) - start])
            if high > end:
                still.append(piece)
            elif digest.digest() != expected:
                agree = False
        self._open = still
        return agree

    def _begun(self, end: int) -> Iterator[_Piece]:
        while self._next is not None and self._next[0] < end:
            yield *self._next, hashlib.blake2b(digest_size=_DIGEST)
            self._next = next(self._ahead, None)


def _plan(size: int, cuts: Iterable[int]) -> Iterator[tuple[int, int]]:
    start, last = 0, 0
    for cut in chain((cut for cut in cuts if 0 < cut < size), (size,)):
        if cut - start > SEGMENT_BYTES and last > start:
            yield start, last
            start = last
        last = cut
    if last > start:
        yield start, last
