"""Turn whatever the hub client raises into one of our errors: what happened, and the next step.

Nothing here repeats a token: messages from the client and the server are redacted, and most are not
repeated at all. Only HTTP statuses and the client's exception types decide.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

from adapterscan.errors import (
    AccessDenied,
    AdapterscanError,
    BadReference,
    NotFound,
    RateLimited,
    StorageError,
    Unreachable,
)
from adapterscan.model import Ref
from adapterscan.text import printable, redact

_LOGIN = "log in with `hf auth login` or set HF_TOKEN"
_OFFLINE_COPY = "try again later, or scan the cached copy with --offline"
#: `"api";r=0;t=55`: nothing remains of the quota for 55 s (IETF httpapi-ratelimit-headers).
_SPENT = re.compile(r"r\s*=\s*0\s*;\s*t\s*=\s*(?P<seconds>[0-9]+)")
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def explain(
    error: BaseException, ref: Ref, *, endpoint: str, cache_dir: Path, token: str | None = None
) -> AdapterscanError:
    """Return the error to raise from `error`, which came out of the hub client."""
    from huggingface_hub import errors as hub

    transport = client_errors()[0]
    match error:
        case AdapterscanError():
            return error
        case hub.HFValidationError():
            return BadReference(
                f"the hub does not accept {printable(ref.location)!r} as a name",
                hint="write org/name; letters, digits, '-', '_' and '.' are allowed",
            )
        case hub.HfHubHTTPError():
            return _answered(error, ref, endpoint, token)
        case hub.LocalTokenNotFoundError():
            return AccessDenied("a token was asked for and none is stored here", hint=_LOGIN)
        case hub.OfflineModeIsEnabled():
            return Unreachable(
                "the hub client is in offline mode (HF_HUB_OFFLINE)",
                hint="unset HF_HUB_OFFLINE, or scan the cached copy with --offline",
            )
        case hub.LocalEntryNotFoundError() | hub.FileMetadataError():
            if error.__cause__ is not None:
                return explain(
                    error.__cause__, ref, endpoint=endpoint, cache_dir=cache_dir, token=token
                )
            return _strange(endpoint, _quoted(error, token))
        case _ if isinstance(error, transport):
            return _no_answer(error, endpoint, token)
        case OSError():
            return _disk(error, cache_dir, token)
        case _:
            return _strange(endpoint, _quoted(error, token))


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the hub client raises, also when a server answers nonsense.

    The base of its HTTP library's errors is taken from the client: the library differs by version.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (
        HfHubHTTPError.__bases__[0],
        OSError,
        ValueError,
        RuntimeError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    )


def rate_limited(endpoint: str, seconds: float | None) -> RateLimited:
    """Return the error for a hub that wants us to wait longer than we are willing to."""
    wait = "" if seconds is None else f" and asks us to wait {seconds:.0f} s"
    when = "in a few minutes" if seconds is None else f"in {max(1, round(seconds))} s"
    return RateLimited(
        f"{endpoint} answers that there were too many requests{wait}",
        hint=f"scan again {when}; logged-in users have a higher limit ({_LOGIN})",
    )


def requested_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a reply asks the client to wait, or None when it does not say."""
    spent = _SPENT.search(headers.get("ratelimit", ""))
    seconds = spent["seconds"] if spent else headers.get("retry-after", "").strip()
    return float(seconds) if re.fullmatch("[0-9]{1,9}", seconds) else None


def _answered(error: BaseException, ref: Ref, endpoint: str, token: str | None) -> AdapterscanError:
    from huggingface_hub import errors as hub

    assert isinstance(error, hub.HfHubHTTPError)  # noqa: S101 - narrows for the type checker
    status = error.response.status_code
    with_token = "authorization" in error.response.request.headers
    page = f"{endpoint}/{ref.location}"
    code = error.response.headers.get("x-error-code", "")
    match error:
        case hub.GatedRepoError():
            return AccessDenied(
                f"{ref.location} is gated: its terms must be accepted first",
                hint=f"accept the terms at {page}" + ("" if with_token else f", then {_LOGIN}"),
            )
        case hub.DisabledRepoError():
            return AccessDenied(
                f"{ref.location} has been disabled on the hub",
                hint=f"look at {page} for the reason; do not load copies of it",
            )
        case hub.RevisionNotFoundError():
            return NotFound(
                f"{ref.location} has no revision {printable(ref.revision or 'main')!r}",
                hint=f"the branches and tags are listed at {page}/tree/main",
            )
        case hub.EntryNotFoundError():
            return NotFound(
                f"the hub does not have a file that it listed for {ref.location}",
                hint="scan again; the repository may have just changed",
            )
    if status == 401 and with_token:
        return AccessDenied(
            f"the hub did not accept the token for {ref.location}",
            hint="the token may have expired, or may not read this repository; "
            "`hf auth whoami` shows whose it is",
        )
    if status == 401:
        return AccessDenied(
            f"{ref.location} does not exist or is private; the hub does not say which",
            hint=f"check the spelling; if it is private, {_LOGIN}",
        )
    if isinstance(error, hub.RepositoryNotFoundError) or (status == 404 and not code):
        return NotFound(
            f"there is no repository {ref.location} on {endpoint}",
            hint="check the spelling" + ("" if with_token else f"; if it is private, {_LOGIN}"),
        )
    return _status(error, status, ref, endpoint, token)


def _status(
    error: BaseException, status: int, ref: Ref, endpoint: str, token: str | None
) -> AdapterscanError:
    if status == 403:
        return AccessDenied(
            f"the hub forbids access to {ref.location}",
            hint="the token needs the permission to read it",
        )
    if status == 404:
        return NotFound(
            f"the hub has no such thing in {ref.location}", hint="check revision and subfolder"
        )
    if status == 429:
        from huggingface_hub import errors as hub

        assert isinstance(error, hub.HfHubHTTPError)  # noqa: S101 - narrows for the type checker
        return rate_limited(endpoint, requested_wait(error.response.headers))
    if status >= 500:
        return Unreachable(
            f"{endpoint} has a problem of its own (HTTP {status})", hint=_OFFLINE_COPY
        )
    return _strange(endpoint, f"HTTP {status}: {_quoted(error, token)}")


def _no_answer(error: BaseException, endpoint: str, token: str | None) -> Unreachable:
    kind = type(error).__name__
    if "Timeout" in kind:
        reason = f"{endpoint} did not answer in time"
    elif "Proxy" in kind:
        reason = f"the proxy on the way to {endpoint} does not work ({_quoted(error, token)})"
    elif "RemoteProtocol" in kind or "Read" in kind or "Write" in kind:
        reason = f"{endpoint} cut the connection ({_quoted(error, token)})"
    else:
        reason = f"{endpoint} cannot be reached ({_quoted(error, token)})"
    return Unreachable(reason, hint=f"check the network and the endpoint; {_OFFLINE_COPY}")


def _strange(endpoint: str, what: str) -> Unreachable:
    return Unreachable(
        f"{endpoint} does not answer as a hub does ({what})",
        hint="check the endpoint (HF_ENDPOINT) and any proxy in between",
    )


def _disk(error: OSError, cache_dir: Path, token: str | None) -> AdapterscanError:
    if error.errno in _FULL:
        return StorageError(
            f"the disk with the download cache is full: {cache_dir}",
            hint="free some space, or set HF_HOME to a folder on another disk",
        )
    if error.errno is None:  # the client's own complaint about a download, such as a wrong length
        return Unreachable(f"a download failed ({_quoted(error, token)})", hint="scan again")
    return StorageError(
        f"the download cache cannot be used: {cache_dir} ({error.strerror})",
        hint="check its permissions, or set HF_HOME to a folder you can write to",
    )


def leaks(error: BaseException, token: str | None) -> bool:
    """Return whether the text of `error` holds a token, so that it must not be chained."""
    text = str(error)
    return bool(token and token in text) or redact(text) != text


def _quoted(error: BaseException, token: str | None) -> str:
    """Return the first line of a foreign message, without secrets and safe to show."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    if token:
        text = text.replace(token, "[token]")
    return printable(redact(text))
