"""Bound what a hub's replies may make the client do: wait, hang, fetch too much, write elsewhere or
ask elsewhere.

The client waits as long as a 429 reply asks it to, has no timeout on API calls, builds cache paths
from reply headers, and follows a redirect or the link to a listing's next page wherever they point,
the link with the caller's token. The guard watches requests and replies through the HTTP client's
own event hooks, for the threads that take part and only while it is attached.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from adapterscan.errors import TooLarge, Unreachable
from adapterscan.sources.hub_errors import rate_limited, requested_wait
from adapterscan.text import printable, size_text

RETRIED = frozenset({408, 429, 500, 502, 503, 504})  # what the client repeats by itself
_LONGEST_BACKOFF = 8.0
_MAX_REPLY = 64 << 20  # of an API call; a page of a listing is well below 1 MB
#: The public hub, and where it keeps its files.
_PUBLIC, _PUBLIC_STORAGE = ("huggingface.co", "hf.co"), (".huggingface.co", ".hf.co")
_ETAG = re.compile(r'(?:W/)?"?[0-9A-Za-z_.+=-]+"?')


class Guard:
    """Counts the waiting a hub asks for, and refuses replies that go too far.

    `patience` is the total of seconds to wait when the hub asks to slow down or fails; `timeout`
    the seconds without an answer; `max_bytes` the largest body to accept; `storage` the hosts that
    may be asked beside the endpoint's own.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        patience: float,
        timeout: float,
        max_bytes: int,
        storage: Sequence[str] = (),
    ) -> None:
        self._endpoint = endpoint
        self._home = _place(endpoint)
        self._storage = frozenset(host.strip().lower() for host in storage)
        self._patience = patience
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._waited = 0.0
        self._backoff = 1.0
        self._owed = threading.local()  # .wait: what the last reply to this thread asked for
        self._commit: str | None = None
        self._threads: set[int] = set()
        self._turn = threading.Lock()

    @contextmanager
    def watching(self, commit: str | None = None) -> Iterator[None]:
        """Watch every request that this thread, and those that `join`, make inside the block.

        With `commit`, replies about files must belong to it. The block raises RateLimited, TooLarge
        or Unreachable when a reply goes too far.
        """
        from huggingface_hub import get_session

        def on_request(request: Any) -> None:
            if threading.get_ident() in self._threads:
                self._check_request(request)

        def on_response(response: Any) -> None:
            if threading.get_ident() in self._threads:
                self._check_response(response)

        hooks = get_session().event_hooks
        self._commit = commit
        self.join()
        hooks["request"].append(on_request)
        hooks["response"].append(on_response)
        try:
            with plain_client():
                yield
        finally:
            hooks["request"].remove(on_request)
            hooks["response"].remove(on_response)
            self._threads.clear()

    def join(self) -> None:
        """Watch the requests of the calling thread as well, until the block ends."""
        self._threads.add(threading.get_ident())

    def owed_wait(self) -> float | None:
        """Return how long the last reply asks us to wait before asking again; None: do not."""
        owed: float | None = getattr(self._owed, "wait", None)
        self._owed.wait = None
        return owed

    def _check_request(self, request: Any) -> None:
        self._check_place(str(request.url))
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            phase: limits.get(phase) or self._timeout
            for phase in ("connect", "read", "write", "pool")
        }

    def _check_place(self, url: str) -> None:
        """Raise Unreachable for an address that is not the hub's, before anything goes there."""
        scheme, host, port = there = _place(url)
        _, home, home_port = self._home
        if there == self._home or host in self._storage:
            return
        if (host, port) == (home, 443) and home_port == 80 and scheme == "https":
            return
        public = home in _PUBLIC and scheme == "https"
        if public and (host in _PUBLIC or host.endswith(_PUBLIC_STORAGE)):
            return
        shown = printable(f"{host}:{port}", 120)
        raise Unreachable(
            f"{self._endpoint} sends us to another address, {shown}; it was not asked",
            hint=f"if your hub keeps its files there, set ADAPTERSCAN_STORAGE={printable(host)}",
        )

    def _check_response(self, response: Any) -> None:
        self._owed.wait = None
        if response.status_code in RETRIED:
            with self._turn:
                self._count_wait(response)
            return
        self._backoff = 1.0
        headers = response.headers
        length = headers.get("content-length", "")
        if response.request.method != "HEAD":
            if length.isdecimal():
                self._check_length(int(length))
            return
        for name in ("etag", "x-linked-etag"):
            if name in headers and not _ETAG.fullmatch(headers[name]):
                raise self._bad_reply(f"a malformed {name} header")
        answered = headers.get("x-repo-commit", self._commit)
        if self._commit is not None and answered != self._commit:
            raise self._bad_reply("another commit than the one asked for")

    def _count_wait(self, response: Any) -> None:
        asked = requested_wait(response.headers)
        wait = self._backoff if asked is None else asked + 1  # the client adds a second
        self._backoff = min(_LONGEST_BACKOFF, 2 * self._backoff)
        if self._waited + wait > self._patience:
            if response.status_code == 429:
                raise rate_limited(self._endpoint, asked)
            raise Unreachable(
                f"{self._endpoint} has a problem of its own (HTTP {response.status_code})",
                hint="try again later, or scan the cached copy with --offline",
            )
        self._waited += wait
        self._owed.wait = wait

    def _check_length(self, length: int) -> None:
        if self._commit is None and length > _MAX_REPLY:
            raise self._bad_reply(f"{size_text(length)} where a listing was expected")
        if self._commit is not None and length > self._max_bytes:
            raise TooLarge(
                f"{self._endpoint} sends {size_text(length)} at once, "
                f"more than the limit of {size_text(self._max_bytes)}",
                hint="raise the limit with --max-download if you trust the repository",
            )

    def _bad_reply(self, what: str) -> Unreachable:
        return Unreachable(
            f"{self._endpoint} answered with {what}; the reply was refused",
            hint="check the endpoint (HF_ENDPOINT) and any proxy in between",
        )


@contextmanager
def plain_client() -> Iterator[None]:
    """Keep the hub's client from asking for anything else than what it is told to.

    Its other way to download (Xet) goes by a client of its own, which no hook sees. And where it
    builds headers, it asks the public hub for a list of programs that may be using it, whatever the
    endpoint is (huggingface_hub 2.4.0, `utils/_detect_agent.py`).
    """
    from huggingface_hub import constants

    names = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY")
    before = {name: getattr(constants, name, None) for name in names}
    for name in names:
        setattr(constants, name, True)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)


def _place(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address; port -1 for one that is none."""
    try:
        parts = urlsplit(url)
        default = 443 if parts.scheme == "https" else 80
        return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or default
    except ValueError:
        return "", "", -1
