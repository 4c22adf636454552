"""Render reports as a CycloneDX 1.6 machine-learning BOM.

An adapter is a component whose pedigree is its base model; its files are components with their
hashes; findings are vulnerabilities that affect it. What was not analysed makes its composition
"incomplete" and is named in properties: a BOM without vulnerabilities is no clean bill. There is no
time in it, so that the same scan gives the same document.

Source: CycloneDX 1.6 (ECMA-424). `cyclonedx-python-lib` has no model cards; tests validate with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from adapterscan import __version__
from adapterscan.model import AdapterSummary, Finding, Outcome, Report, SourceKind
from adapterscan.text import printable, safe_json

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SPACE = uuid.UUID("4d2f7a0e-6f0b-5f0a-9d55-0c1b0f3a2b11")  # of our serial numbers


def render_cyclonedx(outcome: Outcome) -> Iterator[str]:
    """Yield one document for all targets."""
    components = [_component(report, n) for n, report in enumerate(outcome.reports)]
    bases = _bases(outcome)
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": "adapterscan", "version": __version__}
                ]
            },
            "properties": [_property("exit_code", outcome.exit_code)]
            + [
                _property("not_scanned", f"{printable(target)}: {printable(error.reason, 600)}")
                for target, error in outcome.errors
            ],
        },
        "components": components + list(bases.values()),
        "dependencies": [
            {
                "ref": _ref(n),
                "dependsOn": sorted({bases[name]["bom-ref"] for name in _named(report)}),
            }
            for n, report in enumerate(outcome.reports)
        ],
        "vulnerabilities": [
            _vulnerability(finding, n)
            for n, report in enumerate(outcome.reports)
            for finding in report.findings
        ],
        "compositions": [
            {
                "aggregate": "complete" if report.coverage.complete else "incomplete",
                "assemblies": [_ref(n)],
            }
            for n, report in enumerate(outcome.reports)
        ],
    }
    content = json.dumps(document, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SPACE, digest)}"
    yield safe_json(json.dumps(document, indent=1))
    yield "\n"


def _ref(number: int) -> str:
    return f"adapter-{number}"


def _named(report: Report) -> list[str]:
    """Return the base models that the adapters of a target name."""
    return list(dict.fromkeys(a.base_model for a in report.adapters if a.base_model))


def _bases(outcome: Outcome) -> dict[str, dict[str, Any]]:
    names = sorted({name for report in outcome.reports for name in _named(report)})
    return {name: _base(name, f"base-{n}") for n, name in enumerate(names)}


def _base(name: str, ref: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": printable(name),
        "description": "base model, as the adapter names it; not scanned",
    }
    return found | ({"purl": _purl(name, None)} if _HUB_ID.fullmatch(name) else {})


def _purl(repository: str, commit: str | None) -> str:
    return f"pkg:huggingface/{quote(repository)}{f'@{commit}' if commit else ''}"


def _component(report: Report, number: int) -> dict[str, Any]:
    repository = report.target.partition("@")[0].partition(":")[0]
    on_hub = report.source is SourceKind.HUB and _HUB_ID.fullmatch(repository)
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _ref(number),
        "name": printable(report.name),
        "description": "LoRA adapter" if report.adapters else "no adapter could be read here",
        "pedigree": {
            "ancestors": [_base(name, f"of-{number}-{n}") for n, name in enumerate(_named(report))]
        },
        "components": [
            {
                "type": "file",
                "bom-ref": f"{_ref(number)}/{n}",
                "name": printable(record.path, 400),
                **(
                    {"hashes": [{"alg": "SHA-256", "content": record.sha256}]}
                    if record.sha256
                    else {}
                ),
                "properties": [
                    _property("size", record.size),
                    _property("status", record.status),
                    _property("equals_listing", record.verified),
                ],
            }
            for n, record in enumerate(report.files)
        ],
        "properties": list(_properties(report)),
    }
    if report.commit:
        found["version"] = report.commit
    if on_hub:
        found["purl"] = _purl(repository, report.commit)
    if report.adapters:
        found["modelCard"] = {"modelParameters": _parameters(report.adapters[0])}
    return found


def _parameters(adapter: AdapterSummary) -> dict[str, Any]:
    ranks = ", ".join(adapter.ranks) or "unknown"
    sizes = f"{adapter.modules} modules, {adapter.parameters} parameters"
    told = printable(f"{adapter.peft_type}, rank {ranks}, {sizes}")
    return {"approach": {"type": "supervised"}, "modelArchitecture": told}


def _properties(report: Report) -> Iterator[dict[str, str]]:
    for text in report.coverage.inspected:
        yield _property("inspected", text)
    for item in report.coverage.skipped:
        name = "not_analysed" if item.failed else "not_tested"
        yield _property(name, f"{printable(item.what)}: {printable(item.reason, 600)}")
    for name, value in report.versions.items():
        yield _property(f"version:{name}", printable(value, 2000))


def _vulnerability(finding: Finding, number: int) -> dict[str, Any]:
    cwes = [int(one.removeprefix("CWE-")) for one in finding.identifiers.get("cwe", ())]
    return {
        "bom-ref": f"{finding.rule}-{number}",
        "id": printable(finding.rule),
        "source": {"name": "adapterscan"},
        "ratings": [
            {
                "source": {"name": "adapterscan"},
                "severity": finding.severity.label,
                "method": "other",
                "justification": f"confidence {finding.confidence.label}",
            }
        ],
        "cwes": cwes,
        "description": printable(finding.title, 400),
        "detail": printable(finding.message, 2000),
        "recommendation": " ".join(finding.next_step.split()),
        "affects": [{"ref": _ref(number)}],
        **_analysis(finding),
        "properties": [
            _property("subjects", finding.count),
            *(_property("subject", printable(str(item.subject), 400)) for item in finding.evidence),
        ],
    }


def _analysis(finding: Finding) -> dict[str, Any]:
    """Return that a finding was accepted. It is exploitable all the same, so no more is claimed."""
    held = finding.suppression
    if held is None:
        return {}
    told = printable(f"{held.reason} ({held.owner}, until {held.expires})", 600)
    return {"analysis": {"response": ["will_not_fix"], "detail": told}}


def _property(name: str, value: object) -> dict[str, str]:
    return {"name": f"adapterscan:{name}", "value": "unknown" if value is None else str(value)}
