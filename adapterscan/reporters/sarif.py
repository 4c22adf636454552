"""Render reports as SARIF 2.1.0, as GitHub code scanning shows it.

One run holds all targets, since code hosts take one run a category. A finding becomes one result
for each file that it is about; tensors, modules and fields are logical locations, for a binary has
no lines. Fingerprints hang on rule, target and file, not on values: an alert stays the same when
the adapter is trained again. What was asked for and not analysed is a result too (`not-analysed`),
and a notification: a code host shows results only, and an incomplete scan must not look clean.

Source: OASIS SARIF 2.1.0 (errata 01); GitHub's documented subset and limits (2026).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from adapterscan import __version__
from adapterscan.model import (
    Confidence,
    Evidence,
    Finding,
    Outcome,
    Report,
    Severity,
    Skipped,
)
from adapterscan.reporters.places import Place, place_of
from adapterscan.rules.file import Rule
from adapterscan.text import printable, safe_json

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
MAX_RESULTS = 25_000  # GitHub takes no more in a run
MAX_PLACES = 100  # logical locations of a result
NOT_ANALYSED = "not-analysed"
_TEXT = 4000  # characters of a message
_LEVELS = {
    Severity.CRITICAL: "error", Severity.HIGH: "error", Severity.MEDIUM: "warning",
    Severity.LOW: "note", Severity.INFO: "note",
}  # fmt: skip
#: GitHub: over 9 is critical, from 7 high, from 4 medium, below low.
_SCORES = {
    Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0",
    Severity.INFO: "0.0",
}  # fmt: skip
_PRECISION = {Confidence.HIGH: "high", Confidence.MEDIUM: "medium", Confidence.LOW: "low"}
_TAXONOMIES = {
    "cwe": ("CWE", "MITRE"),
    "owasp_llm_2025": ("OWASP Top 10 for LLM 2025", "OWASP"),
    "owasp_llm_2026": ("OWASP Top 10 for LLM 2026", "OWASP"),
    "atlas": ("ATLAS", "MITRE"),
    "nist": ("NIST AI 100-2", "NIST"),
}
_HELD = Mapping[str, tuple[str, ...]]


def render_sarif(outcome: Outcome, rules: Iterable[Rule], root: Path) -> Iterator[str]:
    """Yield one SARIF log. `rules` explain the findings; `root` is what local paths start from."""
    reports = outcome.reports
    fired = {finding.rule for report in reports for finding in report.findings}
    known = [rule for rule in rules if rule.id in fired]
    held = _identifiers(known)
    descriptors = [_descriptor(rule, held) for rule in known] + [_incomplete_rule()]
    index = {item["id"]: number for number, item in enumerate(descriptors)}
    places = [place_of(report, root) for report in reports]
    bases = {place.base: f"TARGET{n}" for n, place in enumerate(places) if place.base}
    targets = [
        _Target(report, place, bases.get(place.base, ""), index)
        for report, place in zip(reports, places, strict=True)
    ]
    results = [result for target in targets for result in target.results()]
    notes = [
        _notification(f"{report.name}: {_told(item)}")
        for report in reports
        for item in report.coverage.skipped
        if item.failed
    ]
    notes += [
        _notification(f"{name}: not scanned: {error}. {error.hint}", "error")
        for name, error in outcome.errors
    ]
    if len(results) > MAX_RESULTS:
        notes.append(_notification(f"{len(results):,} results, the first {MAX_RESULTS:,} listed"))
    run = {
        "tool": {"driver": _driver(descriptors, held)},
        "automationDetails": {"id": "adapterscan/"},
        "invocations": [
            {
                "executionSuccessful": not notes,
                "exitCode": outcome.exit_code,
                "toolExecutionNotifications": notes,
            }
        ],
        "originalUriBaseIds": {name: {"uri": base} for base, name in bases.items()},
        "artifacts": [artifact for target in targets for artifact in target.artifacts()],
        "results": results[:MAX_RESULTS],
        "taxonomies": [_taxonomy(key, ids) for key, ids in held.items()],
        "columnKind": "unicodeCodePoints",
        "properties": {"targets": [_target(report) for report in reports]},
    }
    yield safe_json(json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1))
    yield "\n"


def _driver(descriptors: Sequence[Mapping[str, Any]], held: _HELD) -> dict[str, Any]:
    return {
        "name": "adapterscan",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": descriptors,
        "supportedTaxonomies": [
            {"name": _TAXONOMIES[key][0], "index": n} for n, key in enumerate(held)
        ],
    }


def _identifiers(rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    """Return the identifiers that rules cite, by taxonomy, in a fixed order."""
    cited: dict[str, set[str]] = {}
    for rule in rules:
        for key, ids in rule.identifiers.items():
            cited.setdefault(key, set()).update(ids)
    return {key: tuple(sorted(cited[key])) for key in _TAXONOMIES if key in cited}


def _taxonomy(key: str, ids: Iterable[str]) -> dict[str, Any]:
    name, organization = _TAXONOMIES[key]
    return {
        "name": name,
        "organization": organization,
        "shortDescription": {"text": name},
        "isComprehensive": False,
        "taxa": [{"id": one} for one in ids],
    }


def _descriptor(rule: Rule, held: _HELD) -> dict[str, Any]:
    told = [("Why it matters", rule.why), ("What to do", rule.next_step), ("Limits", rule.limits)]
    sources = "".join(f"\n- {reference}" for reference in rule.references)
    order, cwe = list(held), rule.identifiers.get("cwe", ())
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why.strip()},
        "help": {
            "text": "\n\n".join(f"{head}: {text.strip()}" for head, text in told),
            "markdown": "\n\n".join(f"**{head}.** {text.strip()}" for head, text in told)
            + (f"\n\n**Sources.**{sources}" if sources else ""),
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "relationships": [
            {
                "target": {
                    "id": one,
                    "index": held[key].index(one),
                    "toolComponent": {"name": _TAXONOMIES[key][0], "index": order.index(key)},
                },
                "kinds": ["relevant"],
            }
            for key in order
            for one in rule.identifiers.get(key, ())
        ],
        "properties": {
            "security-severity": _SCORES[rule.severity],
            "precision": _PRECISION[rule.confidence],
            "tags": ["security", *(f"external/cwe/{one.lower()}" for one in cwe)],
        },
    }


def _incomplete_rule() -> dict[str, Any]:
    why = "Something that the scan was asked for could not be analysed; it may hold anything."
    return {
        "id": NOT_ANALYSED,
        "shortDescription": {"text": "Not analysed"},
        "fullDescription": {"text": why},
        "help": {"text": f"{why} Each result says why, and what to do."},
        "defaultConfiguration": {"level": "warning"},
        "properties": {
            "security-severity": _SCORES[Severity.MEDIUM],
            "precision": "very-high",
            "tags": ["security"],
        },
    }


@dataclass(frozen=True, slots=True)
class _Target:
    """One report, and how its files are addressed."""

    report: Report
    place: Place
    base: str  # the name of its `originalUriBaseIds`, "" where paths are relative to the root
    index: Mapping[str, int]  # where each rule stands

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield findings, and what was asked for and not analysed."""
        for finding in self.report.findings:
            by_file: dict[str, list[Evidence]] = {}
            for fact in finding.evidence:
                by_file.setdefault(fact.subject.file, []).append(fact)
            for file, facts in by_file.items():
                yield self._finding(finding, file, facts)
        paths = {record.path for record in self.report.files}
        for item in self.report.coverage.skipped:
            if item.failed:
                file = item.what if item.what in paths else ""
                key = (item.what, item.detector)
                yield self._result(NOT_ANALYSED, "warning", _told(item), file, key)

    def artifacts(self) -> Iterator[dict[str, Any]]:
        """Yield the files, with their hashes."""
        for record in self.report.files:
            found: dict[str, Any] = {
                "location": self._location(record.path),
                "length": record.size,
                "properties": {"status": record.status, "verified": record.verified},
            }
            if record.sha256:
                found["hashes"] = {"sha-256": record.sha256}
            yield found

    def _finding(self, finding: Finding, file: str, facts: Iterable[Evidence]) -> dict[str, Any]:
        message = f"{finding.message}\n\nNext: {' '.join(finding.next_step.split())}"
        result = self._result(finding.rule, _LEVELS[finding.severity], message, file)
        named = (fact.subject for fact in facts if fact.subject.name)
        logical = [
            {"fullyQualifiedName": printable(subject.name, 300), "kind": subject.kind}
            for subject in islice(named, MAX_PLACES)
        ]
        if logical:
            result["locations"][0]["logicalLocations"] = logical
        result["properties"] = {
            "title": finding.title,
            "severity": finding.severity.label,
            "confidence": finding.confidence.label,
            "subjects": finding.count,
        }
        if held := finding.suppression:
            told = f"{held.reason} ({held.owner}, until {held.expires})"
            result["suppressions"] = [{"kind": "external", "justification": _plain(told)}]
        return result

    def _result(
        self, rule: str, level: str, message: str, file: str, more: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        key = json.dumps([rule, self.report.target, file, *more]).encode()
        physical = {
            "artifactLocation": self._location(file or _front(self.report)),
            "region": {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1},
        }
        result = {
            "ruleId": rule,
            "level": level,
            "message": {"text": _plain(message)},
            "locations": [{"physicalLocation": physical}],
            "partialFingerprints": {
                "primaryLocationLineHash": f"{hashlib.sha256(key).hexdigest()[:16]}:1"
            },
        }
        return result | ({"ruleIndex": self.index[rule]} if rule in self.index else {})

    def _location(self, path: str) -> dict[str, Any]:
        uri = self.place.of(path) or "."
        return {"uri": uri, "uriBaseId": self.base} if self.base else {"uri": uri}


def _front(report: Report) -> str:
    """Return the file that stands for a target where what is found is about none of them."""
    for adapter in report.adapters:
        if adapter.weights:
            return adapter.weights
    return report.files[0].path if report.files else ""


def _target(report: Report) -> dict[str, Any]:
    return {
        "target": printable(report.target),
        "commit": report.commit,
        "complete": report.coverage.complete,
        "inspected": list(report.coverage.inspected),
        "notTested": [printable(item.what) for item in report.coverage.skipped if not item.failed],
        "versions": dict(report.versions),
    }


def _told(item: Skipped) -> str:
    hint = f" {item.hint}." if item.hint else ""
    return f"{item.what} was not analysed: {item.reason}.{hint}"


def _notification(text: str, level: str = "warning") -> dict[str, Any]:
    return {"level": level, "message": {"text": _plain(text)}}


def _plain(text: str) -> str:
    """Return untrusted text as a SARIF plain-text message, in which `[a](b)` would be a link."""
    lines = "\n".join(printable(line, _TEXT) for line in text.split("\n")[:8])
    return lines.replace("](", "] (")
