"""What a scan measures of one adapter, kept so that it can be judged again later.

`python -m benchmarks.accuracy.evidence FOLDER` prints it: a process for each, so that its peak of
memory is the scan's own.
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterscan.model import Evidence, Report
from adapterscan.rules.book import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref

STORE = Path(__file__).parent / "evidence"
DIGITS = 5


def measured_alone(folder: Path) -> dict[str, Any]:
    """Return what `measure` does, in a process of its own."""
    command = (sys.executable, "-W", "ignore", "-m", "benchmarks.accuracy.evidence", str(folder))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Scan the adapter in `folder` and return its statistics, findings and cost."""
    started = time.process_time()
    report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())
    seconds = time.process_time() - started
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
        "peak_mb": round(_peak(), 1),
    }


def _peak() -> float:
    """Return the most memory that this process held, 10^6 bytes.

    Not from `getrusage`: there a child begins at the size of the process that started it.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    (line,) = (line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


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
    text = json.dumps({**found, "files": card["files"]}, sort_keys=True, separators=(",", ":"))
    path(card).write_bytes(gzip.compress(text.encode(), mtime=0))


def load(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a specimen's evidence, or None where these bytes of it were never measured."""
    where = path(card)
    if not where.exists():
        return None
    found: dict[str, Any] = json.loads(gzip.decompress(where.read_bytes()))
    return found if found.get("files") == card["files"] else None


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
