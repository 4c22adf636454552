"""Findings that somebody has accepted: for these bytes, for a reason, by a name, until a day.

A suppressed finding stays in every report and no longer fails a run. An entry holds for one rule
and one state of a file (or of the whole artifact): when a byte of it changes, the finding counts
again, and so it does after the day. It hides nothing by pattern: a finding counts as long as one of
its subjects is not accepted.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from adapterscan.errors import BadConfig
from adapterscan.model import Evidence, Finding, Report, Suppression
from adapterscan.text import printable

FILE_BYTES = 4 << 20
_KEYS = {"rule", "file", "subject", "sha256", "artifact", "reason", "owner", "expires"}
_NEEDED = ("rule", "reason", "owner", "expires")


@dataclass(frozen=True, slots=True)
class Entry:
    """One acceptance. Exactly one of `sha256` (of `file`) and `artifact` is not empty."""

    rule: str
    reason: str
    owner: str
    expires: date  # the last day
    file: str = ""
    sha256: str = ""
    subject: str = ""  # of one tensor, module or field; "": all in that file
    artifact: str = ""  # digest of everything in the target, see `artifact_digest`

    def __str__(self) -> str:
        what = f"{self.file}: {self.subject}" if self.subject else self.file or "the whole artifact"
        return f"{self.rule} in {what}"


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Return the entries of a file, `[[suppress]]` tables in TOML. Raises BadConfig."""
    name = printable(str(path))
    try:
        if path.stat().st_size > FILE_BYTES:
            raise BadConfig(f"{name} is too large for suppressions", hint="name another file")
        tables = tomllib.loads(path.read_text("utf-8")).get("suppress", [])
    except OSError as error:
        raise BadConfig(
            f"{name} cannot be read ({error.strerror})",
            hint="`adapterscan baseline REPORT.json -o FILE` writes one",
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{name} is not valid TOML ({printable(str(error))})") from error
    if not isinstance(tables, list):
        raise BadConfig(f"{name}: suppress is no list", hint="write [[suppress]] before each entry")
    return tuple(_entry(table, f"{name}, entry {n}") for n, table in enumerate(tables, 1))


def _entry(table: Any, where: str) -> Entry:
    if not isinstance(table, dict) or set(table) - _KEYS:
        raise BadConfig(f"{where} has an unknown key", hint=f"known: {', '.join(sorted(_KEYS))}")
    for key in _NEEDED:
        if not table.get(key):
            raise BadConfig(f"{where} has no {key}", hint="say why, who, and until when")
    if not isinstance(table["expires"], date):
        raise BadConfig(f"{where}: expires is no date", hint="write expires = 2027-01-31")
    texts = {key: value for key, value in table.items() if key != "expires"}
    if not all(isinstance(value, str) for value in texts.values()):
        raise BadConfig(f"{where}: every value but expires is text")
    if bool(texts.get("sha256")) == bool(texts.get("artifact")):
        raise BadConfig(
            f"{where} needs sha256 (of its file) or artifact, not both",
            hint="it holds for bytes, not for names: `adapterscan baseline` fills them in",
        )
    return Entry(expires=table["expires"], **texts)


def artifact_digest(report: Report) -> str:
    """Return one SHA-256 of all files of a target: of `digest  path` lines, sorted."""
    lines = sorted(f"{r.sha256 or f'unread {r.size}'}  {r.path}\n" for r in report.files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def suppressed(
    reports: Iterable[Report], entries: Sequence[Entry], today: date
) -> tuple[tuple[Report, ...], tuple[str, ...]]:
    """Return the reports with what is accepted marked, and notes on entries that do nothing."""
    used: set[Entry] = set()
    current = [entry for entry in entries if entry.expires >= today]
    found = tuple(_marked(report, current, used) for report in reports)
    return found, tuple(_notes(entries, used, today))


def _marked(report: Report, entries: Sequence[Entry], used: set[Entry]) -> Report:
    digests = {record.path: record.sha256 or "" for record in report.files}
    whole = artifact_digest(report)

    def holds(entry: Entry, fact: Evidence) -> bool:
        if entry.artifact:
            return entry.artifact == whole
        about = entry.file == fact.subject.file and entry.subject in ("", fact.subject.name)
        return about and entry.sha256 == digests.get(entry.file)

    def marked(finding: Finding) -> Finding:
        own = [entry for entry in entries if entry.rule == finding.rule]
        met = [next((e for e in own if holds(e, fact)), None) for fact in finding.evidence]
        unseen = finding.count > len(finding.evidence)  # may be in another file
        if not all(met) or (unseen and not all(e and e.artifact for e in met)):
            return finding
        used.update(entry for entry in met if entry)
        first = min((entry for entry in met if entry), key=lambda entry: entry.expires)
        mark = Suppression(first.reason, first.owner, first.expires.isoformat())
        return replace(finding, suppression=mark)

    return replace(report, findings=tuple(map(marked, report.findings)))


def _notes(entries: Iterable[Entry], used: set[Entry], today: date) -> Iterator[str]:
    for entry in entries:
        if entry.expires < today:
            yield f"the suppression of {printable(str(entry))} expired on {entry.expires}"
        elif entry not in used:
            yield (
                f"the suppression of {printable(str(entry))} met nothing: the finding is gone, its "
                "bytes are others, or another subject is not accepted"
            )


def entries_of(
    reports: Iterable[Report], reason: str, owner: str, expires: date
) -> Iterator[Entry]:
    """Yield the entries that accept every finding of `reports` that counts, as they are now."""
    for report in reports:
        digests = {record.path: record.sha256 or "" for record in report.files}
        for finding in report.findings:
            if finding.suppression:
                continue
            files = dict.fromkeys(fact.subject.file for fact in finding.evidence)
            common = {"rule": finding.rule, "reason": reason, "owner": owner}
            if finding.count > len(finding.evidence) or not all(map(digests.get, files)):
                yield Entry(**common, expires=expires, artifact=artifact_digest(report))
                continue
            for file in files:
                yield Entry(**common, expires=expires, file=file, sha256=digests[file])


def written(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield entries as TOML."""
    yield "# Findings that were accepted: docs/suppressions.md\n"
    for entry in dict.fromkeys(entries):
        yield "\n[[suppress]]\n"
        for key in ("rule", "file", "subject", "sha256", "artifact", "reason", "owner"):
            if value := getattr(entry, key):
                yield f"{key} = {_quoted(value)}\n"
        yield f"expires = {entry.expires.isoformat()}\n"


def _quoted(text: str) -> str:
    """Return a basic string of TOML; control and surrogate characters cannot stand in it."""
    escaped = "".join(
        f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 32 or ord(c) == 127 else c for c in text
    )
    return f'"{escaped.encode("utf-8", "replace").decode()}"'
