"""Other people's adapters, all benign by their authors' word: how often each rule accuses one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from adapterscan.errors import AdapterscanError
from benchmarks.accuracy import evidence
from benchmarks.accuracy.detectors import SEVERITIES
from benchmarks.accuracy.metrics import Rate

RECORDED = Path(__file__).parent / "results" / "foreign.json"
HARD = SEVERITIES.index("medium")


def rates(folder: Path) -> list[dict[str, Any]]:
    """Scan every folder with weights below `folder`; return how often each rule accuses one."""
    homes = sorted(
        {
            path.parent
            for pattern in ("*.safetensors", "*.bin", "*.npz", "*.pt")
            for path in folder.rglob(pattern)
        }
    )
    fired: Counter[tuple[str, str]] = Counter()
    accused = unread = 0
    for home in homes:
        try:
            found = evidence.measure(home)
        except AdapterscanError:
            unread += 1
            continue
        unread += bool(found["failed"])
        severities = {rule: severity for rule, (severity, _, _) in found["findings"].items()}
        fired.update(severities.items())
        accused += any(SEVERITIES.index(severity) >= HARD for severity in severities.values())
    made = [
        {"rule": "any at medium or above", "severity": "", "adapters": Rate(accused, len(homes))},
        {
            "rule": "could not be analysed in full",
            "severity": "",
            "adapters": Rate(unread, len(homes)),
        },
    ]
    for (rule, severity), count in sorted(
        fired.items(), key=lambda item: (-SEVERITIES.index(item[0][1]), -item[1])
    ):
        made.append(
            {"rule": f"`{rule}`", "severity": severity, "adapters": Rate(count, len(homes))}
        )
    return made


def recorded() -> list[dict[str, Any]]:
    """Return the table as last recorded, where the adapters are not at hand."""
    if not RECORDED.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(RECORDED.read_text("utf-8"))
    return [{key: _restored(value) for key, value in row.items()} for row in rows]


def _restored(value: Any) -> Any:
    """Return a cell as it was before `tables.plain`."""
    return Rate(value["hits"], value["n"]) if isinstance(value, dict) else value


def explained() -> str:
    """Return the sentences that introduce the table."""
    return (
        "Adapters that other people published, benign by their word and never tested for "
        "behaviour (`python -m benchmarks.accuracy --foreign FOLDER`). Rules that state a hard "
        "fact at medium or above must be at zero here. With n adapters and none accused, the 95 % "
        "bound is about 3/n."
    )
