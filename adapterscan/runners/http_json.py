"""JSON over HTTP with a server that is not trusted: bounded in size, time and tries.

The standard library's client, since the hub's own is httpx in one of its major versions and another
package in the next. It never follows a redirect and reads no proxy settings, so that a key goes to
the address that the user typed and nowhere else.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NoReturn
from urllib.parse import urlsplit

from adapterscan.errors import RunnerProblem, UsageError
from adapterscan.text import printable

ANSWER_BYTES = 16 << 20
CALL_SECONDS = 120.0  # for one answer
TRIES = 5  # of a question that the server is too busy for
LONGEST_WAIT = 15.0  # seconds between two of them, whatever the server asks for
CHUNK = 1 << 16
BUSY = frozenset({429, 503})
KEY_VARIABLE = "ADAPTERSCAN_API_KEY"
_SAID = 200  # characters of a server's own words in an error
_MORE_TIME = "give it more time with --probe-budget, or ask a faster server"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server answers: `http://127.0.0.1:8000`, without the `/v1`."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def text(self) -> str:
        """Return the address of the API as people write it. It never has credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}/v1"


def parse_address(text: str) -> Address:
    """Return the address that an `http(s)://…` names. Raises UsageError."""
    hint = "give it as http://127.0.0.1:8000/v1#MODEL"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError("the server's address cannot be read", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "the server's address has a user name or password in it",
            hint=f"leave it out; a key is read from {KEY_VARIABLE}",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"{printable(text)} is no address of a server", hint=hint)
    if not text.isascii() or any(character <= " " for character in text):
        raise UsageError("the server's address has characters that no address has", hint=hint)
    secure = parts.scheme == "https"
    path = parts.path.rstrip("/").removesuffix("/v1")
    return Address(secure, parts.hostname, port or (443 if secure else 80), path)


class Client:
    """Asks one server, from as many threads as one likes."""

    def __init__(self, address: Address, key: str = "", until: float = float("inf")) -> None:
        """Make nothing known to the server yet. Raises UsageError for a key that is none.

        `until`: time.monotonic() after which nothing is asked.
        """
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"{KEY_VARIABLE} has characters that no key has",
                hint="is there a line break in it?",
            )
        self.address, self.until = address, until
        self._key = key
        self._own = threading.local()
        self._opened: list[HTTPConnection] = []
        self._closed = False

    def ask(self, path: str, body: object = None, unless: Container[int] = ()) -> Any:
        """Return the JSON that `path` answers to `body` (a GET without one).

        None where the status is one of `unless`. Raises RunnerProblem with what to do next.
        """
        for tried in range(TRIES):
            status, data, wait = self._answer(path, body)
            if status not in BUSY or tried == TRIES - 1:
                break
            self._pause(min(wait if wait is not None else 0.5 * 2**tried, LONGEST_WAIT))
        if status in unless:
            return None
        if status != 200:
            self._refuse(status, path, data)
        return self._parsed(data)

    def close(self) -> None:
        """End all connections, also those that a thread waits on."""
        self._closed = True
        for connection in list(self._opened):
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(2)
            connection.close()

    def _answer(self, path: str, body: object) -> tuple[int, bytes, float | None]:
        """Return status, body, and the seconds that the server asks to wait."""
        until = min(self.until, time.monotonic() + CALL_SECONDS)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        given = None if body is None else json.dumps(body).encode()
        fresh = False
        while True:
            connection, used = self._connection(until)
            try:
                method = "GET" if given is None else "POST"
                connection.request(method, self.address.path + path, given, headers)
                response = connection.getresponse()
                return response.status, self._read(response, until), _wait(response)
            except TimeoutError:
                self._drop()
                raise RunnerProblem(
                    f"{self.address.text} did not answer in time", hint=_MORE_TIME
                ) from None
            except (OSError, HTTPException, ValueError) as error:
                self._drop()
                if used and not fresh and not self._closed:  # it was idle and the server ended it
                    fresh = True
                    continue
                said = printable(self._hidden(f"{type(error).__name__} {error}".strip()), _SAID)
                raise RunnerProblem(
                    f"{self.address.text} cannot be reached: {said}",
                    hint="is the server running, and its address and certificate right?",
                ) from None
            except BaseException:
                self._drop()
                raise

    def _connection(self, until: float) -> tuple[HTTPConnection, bool]:
        """Return this thread's connection, and whether it was used before."""
        left = until - time.monotonic()
        if left <= 0:
            raise RunnerProblem("the time for probes was up", hint=_MORE_TIME)
        found: HTTPConnection | None = getattr(self._own, "connection", None)
        if found is not None and found.sock is not None:
            found.sock.settimeout(left)
            return found, True
        kind = HTTPSConnection if self.address.secure else HTTPConnection
        made = kind(self.address.host, self.address.port, timeout=left)
        self._own.connection = made
        self._opened.append(made)
        return made, False

    def _drop(self) -> None:
        connection = self._own.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()
            with suppress(ValueError):
                self._opened.remove(connection)

    def _read(self, response: HTTPResponse, until: float) -> bytes:
        """Return a body of at most ANSWER_BYTES that came before `until`."""
        data = bytearray()
        while part := response.read1(CHUNK):
            data += part
            if len(data) > ANSWER_BYTES:
                raise RunnerProblem(
                    f"an answer of {self.address.text} has more than {ANSWER_BYTES >> 20} MiB",
                    hint="is it the API of a model?",
                )
            if time.monotonic() > until:
                raise TimeoutError
        if response.length:
            raise HTTPException(f"{response.length} bytes of an answer are missing")
        response.close()  # or the connection would not take another question
        return bytes(data)

    def _pause(self, seconds: float) -> None:
        if time.monotonic() + seconds > self.until:
            raise RunnerProblem(f"{self.address.text} stayed busy", hint=_MORE_TIME)
        time.sleep(seconds)

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise RunnerProblem(
                f"{self.address.text} answered with something that is no JSON",
                hint="is it the API of a model? It often ends with /v1",
            ) from None

    def _refuse(self, status: int, path: str, data: bytes) -> NoReturn:
        """Raise what can be done about a status."""
        said = printable(self._hidden(data[: 4 * _SAID].decode("utf-8", "replace")), _SAID)
        where = self.address.text
        match status:
            case 401 | 403:
                reason = f"{where} wants a key" if not self._key else f"{where} refused the key"
                raise RunnerProblem(f"{reason} ({status})", hint=f"set {KEY_VARIABLE}")
            case 404 | 405 | 501:
                raise RunnerProblem(
                    f"{where} has no {path}, or no model of that name",
                    hint="vLLM and llama.cpp's llama-server have all that is needed",
                )
            case status if 300 <= status < 400:
                raise RunnerProblem(
                    f"{where} sends elsewhere ({status}), which is not followed",
                    hint="give the address that it points to",
                )
            case status if status in BUSY:
                raise RunnerProblem(f"{where} stayed busy ({status})", hint="try again later")
        raise RunnerProblem(
            f"{where} answered {status} to {path}: {said}", hint="see the server's own log"
        )

    def _hidden(self, text: str) -> str:
        """Return what a server said without the key, which it may repeat."""
        return text.replace(self._key, "[key]") if self._key else text


def _wait(response: HTTPResponse) -> float | None:
    """Return the seconds of `Retry-After`, None where there are none. A date counts as none."""
    said = response.getheader("Retry-After", "").strip()
    return float(said) if said.isascii() and said.isdecimal() and len(said) < 6 else None


def _no_number(said: str) -> NoReturn:
    raise ValueError(said)
