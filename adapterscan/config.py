"""The caller's own settings: from a named file or the caller's project, never the scanned tree.

A planted ignore file turns another scanner's critical finding into exit code 0. So a pyproject.toml
that lies inside a scanned folder is not read unless it is named with `--config`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterscan.errors import BadConfig
from adapterscan.model import Severity

_LIMIT = 1 << 20
KEYS = (
    "fail-on", "rules", "reference", "suppressions", "max-download", "jobs", "timeout", "memory",
    "verify-key",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `[tool.adapterscan]`; None where nothing is set. `source` is the file, if any."""

    fail_on: Severity | None = None
    never_fail: bool = False
    rules: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()
    suppressions: tuple[Path, ...] = ()
    max_download: str | None = None
    jobs: int | None = None
    verify_key: Path | None = None
    timeout: str | None = None
    memory: str | None = None
    source: str | None = None
    ignored: str = ""  # a file that was found but not used, and why


def load_settings(explicit: Path | None, cwd: Path, scanned: Iterable[Path]) -> Settings:
    """Return the settings of `explicit`, else of the nearest pyproject.toml at or above `cwd`.

    Raises BadConfig when the file cannot be read or has an unknown or ill-typed setting.
    """
    if explicit is not None:
        return _parse(explicit, _read(explicit))
    for folder in (cwd, *cwd.parents):
        candidate = folder / "pyproject.toml"
        if not candidate.is_file():
            continue
        inside = next((tree for tree in scanned if candidate.resolve().is_relative_to(tree)), None)
        if inside is not None:
            why = f"{candidate} lies inside the scanned tree; name it with --config to use it"
            return Settings(ignored=why)
        data = _read(candidate)
        return _parse(candidate, data) if "adapterscan" in data.get("tool", {}) else Settings()
    return Settings()


def parse_severity(text: str) -> Severity | None:
    """Return the severity called `text`, None for "never". Raises BadConfig for anything else."""
    if text.lower() == "never":
        return None
    try:
        return Severity[text.upper()]
    except KeyError:
        choices = ", ".join(severity.label for severity in Severity)
        raise BadConfig(f"no severity is called {text!r}", hint=f"use {choices} or never") from None


def parse_size(text: str) -> int:
    """Return the bytes meant by `2GB`, `500 MB` or `1000000`. Raises BadConfig."""
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
    try:
        size = int(_with_unit(text, units))
        if size < 0:
            raise ValueError(text)
        return size
    except (ValueError, KeyError, OverflowError):
        raise BadConfig(f"{text!r} is not a size", hint="write for example 500MB or 2GB") from None


def parse_seconds(text: str) -> float:
    """Return the seconds meant by `90s`, `10m`, `2h` or `45`. Raises BadConfig."""
    units = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = _with_unit(text, units)
        if not 0 < seconds < 1e7:
            raise ValueError(text)
        return seconds
    except (ValueError, KeyError):
        raise BadConfig(f"{text!r} is not a time", hint="write for example 90s or 10m") from None


def parse_weights(text: str | None, count: int) -> tuple[float, ...]:
    """Return the `count` weights of `1,-0.5`; None means 1 for each. Raises BadConfig."""
    if text is None:
        return (1.0,) * count
    try:
        found = tuple(float(item) for item in text.split(","))
    except ValueError:
        raise BadConfig(f"{text!r} are not weights", hint="write for example 1,0.5") from None
    if len(found) != count or not all(math.isfinite(weight) for weight in found):
        raise BadConfig(
            f"{text!r} are {len(found)} weights for {count} adapters",
            hint="give a finite number for each, in the order of the adapters",
        )
    return found


def _with_unit(text: str, units: Mapping[str, float]) -> float:
    """Return a number times the unit after it. Raises ValueError or KeyError."""
    cleaned = text.strip().lower().replace(" ", "").replace("_", "")
    number = cleaned.rstrip("".join(units))
    return float(number) * units[cleaned[len(number) :]]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LIMIT:
            raise BadConfig(f"{path} is too large for a configuration", hint="name another file")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror})"
        raise BadConfig(reason, hint="check --config") from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise BadConfig(f"{path} is not valid TOML ({error})", hint="correct that line") from error


def _parse(path: Path, data: Mapping[str, Any]) -> Settings:
    table = _table(path, data)
    if not isinstance(table, dict):
        raise BadConfig(f"{path} has no [tool.adapterscan] table", hint="add one, or drop --config")
    for key in table:
        if key not in KEYS:
            raise BadConfig(f"{path}: unknown setting {key!r}", hint=f"known: {', '.join(KEYS)}")
    fail_on, jobs = table.get("fail-on"), table.get("jobs")
    if fail_on is not None and not isinstance(fail_on, str):
        raise BadConfig(f"{path}: fail-on must be text", hint='for example fail-on = "high"')
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1):
        raise BadConfig(f"{path}: jobs must be a whole number from 1", hint="jobs = 2")
    key = table.get("verify-key")
    if key is not None and not isinstance(key, str):
        raise BadConfig(f"{path}: verify-key must be a file", hint='verify-key = "key.pub"')
    severity = parse_severity(fail_on) if fail_on is not None else None
    size = table.get("max-download")
    if size is not None:
        parse_size(str(size))
    timeout, memory = table.get("timeout"), table.get("memory")
    if timeout is not None and timeout != "off":
        parse_seconds(str(timeout))
    if memory is not None and memory != "off":
        parse_size(str(memory))
    return Settings(
        fail_on=severity,
        never_fail=fail_on is not None and severity is None,
        rules=_paths(path, table, "rules", "folders"),
        references=_paths(path, table, "reference", "files"),
        suppressions=_paths(path, table, "suppressions", "files"),
        max_download=str(size) if size is not None else None,
        jobs=jobs,
        verify_key=path.parent / key if key is not None else None,
        timeout=str(timeout) if timeout is not None else None,
        memory=str(memory) if memory is not None else None,
        source=str(path),
    )


def _table(path: Path, data: Mapping[str, Any]) -> Any:
    """Return what `[tool.adapterscan]` holds; of a file of ours alone that lacks it, all of it."""
    tools = data.get("tool")
    found = tools.get("adapterscan") if isinstance(tools, dict) else None
    return data if found is None and path.name != "pyproject.toml" else found


def _paths(path: Path, table: Mapping[str, Any], key: str, what: str) -> tuple[Path, ...]:
    """Return the paths of a setting, relative to the file that it stands in."""
    given = table.get(key, [])
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise BadConfig(f"{path}: {key} must be a list of {what}", hint=f'{key} = ["my-{key}"]')
    return tuple(path.parent / item for item in given)
