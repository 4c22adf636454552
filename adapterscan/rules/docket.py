"""Keep what a scan finds in bounded memory: every fact is judged, the first of each name listed.

A file can give rise to 100,000 facts in a few megabytes. The counts are exact, and a finding cites
the worst of what it is about wherever that came, so what is not listed cannot hide anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from adapterscan.model import Evidence, Finding
from adapterscan.rules.judging import Judge, Rule

#: Facts of one name that a report lists. The largest dense models have 900 modules, so that only
#: mixtures of experts with a ΔW for each expert have more.
EVIDENCE_LISTED = 2000


class Docket:
    """Evidence as it comes in."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._judge = Judge(rules)
        self._counts: Counter[str] = Counter()
        self._listed: dict[str, list[Evidence]] = {}

    def add(self, evidence: Iterable[Evidence]) -> None:
        """Judge each fact as it comes, and keep it if there is room."""
        for item in evidence:
            self._judge.hear(item)
            self._counts[item.name] += 1
            listed = self._listed.setdefault(item.name, [])
            if len(listed) < EVIDENCE_LISTED:
                listed.append(item)

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings, worst first."""
        return self._judge.findings()

    def counts(self) -> Mapping[str, int]:
        """Return how many facts of each name there were, in the order in which they first came."""
        return dict(self._counts)

    def evidence(self) -> tuple[Evidence, ...]:
        """Return by name the first facts, and those that findings cite though they came later."""
        cited = [item for finding in self.findings() for item in finding.evidence]
        kept = {name: {id(item): item for item in items} for name, items in self._listed.items()}
        for item in cited:
            kept[item.name].setdefault(id(item), item)
        return tuple(item for items in kept.values() for item in items.values())
