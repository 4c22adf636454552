from __future__ import annotations

import errno
from pathlib import Path

import pytest

from adapterscan.errors import AdapterscanError, StorageError, Unreachable
from adapterscan.model import Ref, SourceKind
from adapterscan.sources.hub_errors import explain, requested_wait

REF = Ref("org/name", SourceKind.HUB, "org/name")


def explained(error: Exception) -> AdapterscanError:
    return explain(error, REF, endpoint="http://hub", cache_dir=Path("/c"), token="s3cret")


def test_a_full_disk_names_the_cache_and_how_to_move_it() -> None:
    error = explained(OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, StorageError)
    assert str(Path("/c")) in error.reason
    assert "HF_HOME" in error.hint


def test_a_read_only_cache_is_a_storage_error() -> None:
    error = explained(PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, StorageError)
    assert "Permission denied" in error.reason


def test_nonsense_from_a_server_is_quoted_without_tokens_or_controls() -> None:
    error = explained(ValueError("got s3cret and hf_abcdefghijkl\x1b[31m\nmore"))
    assert isinstance(error, Unreachable)
    assert "s3cret" not in error.reason
    assert "hf_abc" not in error.reason
    assert "\x1b" not in error.reason
    assert "more" not in error.reason


def test_our_own_errors_pass_unchanged() -> None:
    error = StorageError("x")
    assert explained(error) is error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"api";r=12;t=55'}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_either_header(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert requested_wait(headers) == seconds
