"""Put reports together from what scans tell, judging each fact as it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from adapterscan import __version__
from adapterscan.events import Closed, Event, Inspected, Opened
from adapterscan.model import (
    AdapterSummary,
    Coverage,
    Evidence,
    FileRecord,
    Report,
    Skipped,
    SourceKind,
)
from adapterscan.rules.book import RuleBook
from adapterscan.rules.docket import Docket
from adapterscan.text import plural


class Desk:
    """Hears events, one report after the other. Bounded: see `docket`."""

    def __init__(self, rules: RuleBook, config_file: str | None = None) -> None:
        self._rules, self._config_file = rules, config_file
        self._begin(Opened("", "", SourceKind.FOLDER, None, {}))

    def hear(self, event: Event) -> Report | None:
        """Take what a scan tells; return the report when it says that this was all."""
        match event:
            case Evidence():
                self._docket.add((event,))
            case Skipped():
                self._skipped.append(event)
            case FileRecord():
                self._files.setdefault(event.path, event)
            case AdapterSummary():
                self._adapters.append(event)
            case Inspected(what):
                self._inspected.append(what)
            case Opened():
                self._begin(event)
            case Closed():
                return self.close()
        return None

    def close(self) -> Report:
        """Return the report on what was heard since it was opened."""
        evidence, counts = self._docket.evidence(), self._docket.counts()
        skipped = dict.fromkeys((*self._skipped, *_unlisted(counts, evidence)))
        opened, versions = self._opened, dict(self._opened.versions)
        detectors = versions.pop("detectors", "")
        return Report(
            target=opened.target,
            name=opened.name,
            source=opened.source,
            commit=opened.commit,
            files=tuple(sorted(self._files.values(), key=lambda record: record.path)),
            adapters=tuple(self._adapters),
            findings=self._docket.findings(),
            evidence=evidence,
            counts=counts,
            coverage=Coverage(
                tuple(self._inspected),
                tuple(sorted(skipped, key=lambda item: (not item.failed, item.what))),
            ),
            versions={
                "adapterscan": __version__,
                "detectors": detectors,
                "rules": self._rules.digest,
                **versions,
            },
            config_file=self._config_file,
        )

    def lacks(self, paths: Iterable[str]) -> list[str]:
        """Return those of `paths` of which nothing was told how they were read."""
        return [path for path in paths if path not in self._files]

    def _begin(self, opened: Opened) -> None:
        self._opened = opened
        self._docket = Docket(self._rules)
        self._skipped: list[Skipped] = []
        self._files: dict[str, FileRecord] = {}
        self._adapters: list[AdapterSummary] = []
        self._inspected: list[str] = []


def _unlisted(counts: Mapping[str, int], listed: Iterable[Evidence]) -> Iterator[Skipped]:
    left = Counter(counts) - Counter(item.name for item in listed)
    if left:
        names = ", ".join(f"{count:,} {name}" for name, count in left.items())
        yield Skipped(
            "evidence", f"{plural(left.total(), 'more fact')} than there is room to list ({names})",
            failed=False, hint="all were judged: findings count them and cite the worst",
        )  # fmt: skip
