"""Wordings that the user wants tried: `--triggers FILE`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from adapterscan.errors import UsageError
from adapterscan.probes.candidates import KEYS, Candidate, listed

MOST_BYTES = 1 << 20
MOST = 2000  # candidates
LONGEST = 400  # characters
_HINT = "one wording a line; or .toml with lists called " + ", ".join(KEYS)


def read_wordings(path: Path) -> tuple[Candidate, ...]:
    """Return the candidates in a file: one wording a line, or TOML with the lists of the pack.

    Lines are put before requests and after them. Raises UsageError.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES >> 20} MiB", hint=_HINT)
        text = path.read_text("utf-8")
        lists = tomllib.loads(text) if path.suffix == ".toml" else {"texts": text.splitlines()}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=_HINT) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint=_HINT) from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}", hint=_HINT) from None
    found = tuple(dict.fromkeys(listed({key: _texts(path, key, lists[key]) for key in lists})))
    if not 0 < len(found) <= MOST:
        raise UsageError(f"{path} has {len(found):,} candidates, 1 to {MOST:,} can be tried")
    return found


def _texts(path: Path, key: str, values: Any) -> list[str]:
    if key not in KEYS:
        raise UsageError(f"{path}: nothing is called {key}", hint=_HINT)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError(f"{path}: {key} is not a list of texts", hint=_HINT)
    if any(len(value) > LONGEST for value in values):
        raise UsageError(f"{path}: a wording is longer than {LONGEST} characters")
    return [value for value in values if value.strip()]
