"""Read files on the hub by ranges: of trainer files their pickles, of a base model some tensors.

An optimizer's state weighs gigabytes; what runs when it is loaded is a pickle of kilobytes in it.
The search for pickles is run here over the far file, and every range that it asks for is kept: the
scan then runs the same search over the kept ranges alone.

The client's own file object (HfFileSystem) takes whatever a server sends, also a whole file where a
range was asked for. So ranges are asked for here, and a reply is judged before its body is read.
Limits: ranges cannot be compared with a hash of the whole file. A server that keeps to the protocol
and sends other bytes is believed; the report says that nothing was verified.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adapterscan.errors import FileProblem, RateLimited, SourceError, Unreachable, Unreadable
from adapterscan.formats.parts import PartialFile, Span
from adapterscan.formats.sniff import COULD_HIDE_PICKLES, sniff
from adapterscan.model import File, FileKind
from adapterscan.sources.hub_errors import client_errors
from adapterscan.sources.hub_guard import RETRIED, Guard
from adapterscan.text import size_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.file_download import HfFileMetadata

MOST_BYTES = 32 << 20  # of one artifact by ranges: they are kept in memory
MOST_BYTES_OF_A_FILE = 24 << 20
MOST_REQUESTS = 20_000  # of one artifact; an archive takes one for each of its members
AT_ONCE = 8
_HEAD = 1024
_ATTEMPTS = 3  # at a range that is cut off
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(slots=True)
class Allowance:
    """What is left of the limits of one artifact. `closed` says why nothing more is asked for."""

    nbytes: int
    requests: int = MOST_REQUESTS
    closed: str = ""


@dataclass(frozen=True, slots=True)
class Hub:
    """How to reach files: the client, its guard, and what explains the client's errors."""

    api: HfApi
    guard: Guard
    headers: Mapping[str, str]
    explained: Callable[[], AbstractContextManager[None]]
    patiently: Callable[[Callable[[], HfFileMetadata]], HfFileMetadata]  # waits when asked to


def fetch_parts(file: File, url: str, commit: str, hub: Hub, allowance: Allowance) -> File:
    """Return `file` with the parts that the search for pickles read, and what ended it early."""
    remote = Remote(file, url, commit, hub, allowance)
    source = PartialFile(file.path, file.size, remote.bring)
    why = ""
    try:
        _search(source, file.kind)
    except FileProblem as problem:
        why = problem.reason
    return replace(file, parts=source.parts, not_fetched=why)


def _search(source: PartialFile, kind: FileKind) -> None:
    """Read what the scan will read. Raises FileProblem when that cannot be had."""
    from adapterscan.formats.pickle_file import find_pickles

    if kind is not FileKind.PICKLE and sniff(source.read(0, _HEAD)) not in COULD_HIDE_PICKLES:
        return
    try:
        problem = find_pickles(source).problem
    except Exception:  # a defect of ours: the scan meets it again in the same bytes, and reports it
        return
    if problem is not None:
        raise problem


class Remote:
    """One file of a commit, read by ranges. Every reply must agree with the listing.

    `room`: bytes that are read of it. `why` says in complaints why it is not fetched whole, and
    `hint` what to do.
    """

    def __init__(
        self,
        file: File,
        url: str,
        commit: str,
        hub: Hub,
        allowance: Allowance,
        *,
        room: int = MOST_BYTES_OF_A_FILE,
        why: str = "too large to fetch",
        hint: str = "",
    ) -> None:
        self.file = file
        self.why, self.hint = why, hint
        self.url = url
        self.commit = commit
        self.hub = hub
        self.allowance = allowance
        self.room = room
        self.location = ""  # where the bytes are, once the hub has said so
        self.headers: Mapping[str, str] = {}
        self.versions: set[str] = set()  # what the replies say they are part of

    def bring(self, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each span. Raises Unreadable."""
        self._charge(spans)
        try:
            with self.hub.explained(), self.hub.guard.watching(self.commit):
                if not self.location:
                    self._locate()
                if len(spans) == 1:
                    return [self._range(*spans[0])]
                with ThreadPoolExecutor(AT_ONCE, initializer=self.hub.guard.join) as pool:
                    return list(pool.map(lambda span: self._range(*span), spans))
        except SourceError as error:
            if isinstance(error, Unreachable | RateLimited):
                self.allowance.closed = error.reason
            raise self._problem(error.reason) from error

    def _charge(self, spans: Sequence[Span]) -> None:
        if self.allowance.closed:
            raise self._problem(f"not asked for after another file failed: {self.allowance.closed}")
        size = sum(end - start for start, end in spans)
        left = min(self.room, self.allowance.nbytes)
        if size > left:
            more = f"{size_text(size)} more, {size_text(left)} are left"
            raise self._problem(f"needs more bytes than are read by ranges ({more})")
        if len(spans) > self.allowance.requests:
            left = self.allowance.requests
            reason = f"needs {len(spans):,} more ranges, {left:,} are left"
            raise self._problem(reason)
        self.room -= size
        self.allowance.nbytes -= size
        self.allowance.requests -= len(spans)

    def _locate(self) -> None:
        """Ask the hub where the file is, and whether it is still the one that was listed."""
        from huggingface_hub.errors import RemoteEntryNotFoundError

        try:
            found = self.hub.patiently(lambda: self.hub.api.get_hf_file_metadata(url=self.url))
        except RemoteEntryNotFoundError as error:
            raise self._problem("listed by the hub, but not there") from error
        if found.size is not None and found.size != self.file.size:
            raise self._wrong(
                f"{size_text(found.size)} where {size_text(self.file.size)} are listed"
            )
        listed = self.file.expected.value if self.file.expected else ""
        named = found.etag or ""
        if _SHA256.fullmatch(listed) and _SHA256.fullmatch(named) and listed != named:
            raise self._wrong("another content than it lists")
        self.location = found.location
        away = _origin(found.location) != _origin(self.url)
        self.headers = {
            name: value
            for name, value in self.hub.headers.items()
            if not (away and name.lower() == "authorization")  # it is the hub's, and nobody else's
        }

    def _range(self, start: int, end: int) -> bytes:
        """Return exactly the bytes from `start` to `end`, going on where a reply is cut off."""
        transport = client_errors()[0]
        body = bytearray()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._ask(start, end, body)
            except transport:
                if attempt == _ATTEMPTS:
                    raise
            if len(body) == end - start:
                return bytes(body)
        raise self._wrong("fewer bytes than it announces")

    def _ask(self, start: int, end: int, body: bytearray) -> None:
        """Append to `body` what it lacks of the span; wait and ask again when the hub says so."""
        from huggingface_hub import get_session

        headers = {
            **self.headers,
            "Range": f"bytes={start + len(body)}-{end - 1}",
            "Accept-Encoding": "identity",
        }
        while True:
            with get_session().stream("GET", self.location, headers=headers) as reply:
                if reply.status_code not in RETRIED:
                    self._take(reply, start + len(body), end, body)
                    return
            time.sleep(
                self.hub.guard.owed_wait() or 0
            )  # the guard ends this when it takes too long

    def _take(self, reply: Any, first: int, end: int, body: bytearray) -> None:
        if reply.status_code == 200:
            reason = f"{self.why}, and the hub answers a range of it with the whole file"
            raise self._problem(reason)
        if reply.status_code != 206:
            raise self._problem(f"the hub answers a range of it with HTTP {reply.status_code}")
        told = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", ""))
        if told is None or tuple(map(int, told.groups())) != (first, end - 1, self.file.size):
            raise self._wrong("another range than the one asked for")
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise self._wrong("compressed bytes")
        self.versions.add(reply.headers.get("etag", ""))
        if len(self.versions) > 1:
            raise self._wrong("ranges of two versions")
        room = end - first
        for piece in reply.iter_raw():
            room -= len(piece)
            if room < 0:
                raise self._wrong("more bytes than it announces")
            body += piece

    def _wrong(self, what: str) -> Unreadable:
        return self._problem(f"{self.why}, and the hub sends {what}")

    def _problem(self, reason: str) -> Unreadable:
        return Unreadable(self.file.path, reason, hint=self.hint)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port
