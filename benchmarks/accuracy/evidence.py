"""What a scan measures of one adapter, kept so that it can be judged again later."""

from __future__ import annotations

import gzip
import json
import resource
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterscan.model import Evidence, Report
from adapterscan.rulebook import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref

STORE = Path(__file__).parent / "evidence"
DIGITS = 5


def measure(folder: Path) -> dict[str, Any]:
    """Scan the adapter in `folder` and return its statistics, findings and cost."""
    started = time.process_time()
    report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "modules": {e.subject.name: _statistics(e) for e in _named(report, "delta.statistics")},
        "outliers": [
            [e.subject.name, e.details["statistic"], _rounded(e.value)]
            for e in _named(report, "delta.outlier")
        ],
        "findings": {
            finding.rule: [finding.severity.label, finding.confidence.label, finding.count]
            for finding in report.findings
        },
        "failed": [item.what for item in report.coverage.skipped if item.failed],
        "versions": dict(report.versions),
        "cpu_seconds": round(seconds, 3),
        "peak_mb": round(peak, 1),
    }


def _named(report: Report, name: str) -> Iterable[Evidence]:
    return (item for item in report.evidence if item.name == name)


def _statistics(item: Evidence) -> dict[str, Any]:
    return {"frobenius": _rounded(item.value)} | {
        key: _rounded(value) for key, value in item.details.items()
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def path(card: Mapping[str, Any]) -> Path:
    """Return where the evidence of a specimen is kept; its name changes with the specimen."""
    return STORE / f"{card['id']}-{card['role']}-{card['key'][:12]}.json.gz"


def save(card: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Keep a specimen's evidence. The same evidence gives the same bytes."""
    STORE.mkdir(exist_ok=True)
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    path(card).write_bytes(gzip.compress(text.encode(), mtime=0))


def load(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a specimen's evidence, or None where it was never measured."""
    where = path(card)
    if not where.exists():
        return None
    found: dict[str, Any] = json.loads(gzip.decompress(where.read_bytes()))
    return found
