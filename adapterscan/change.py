"""What changed between two scans of one adapter: findings, files, modules, and what was looked at.

A finding that is gone because nobody looked any more is no progress: what the later scan did not
analyse is told beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adapterscan.model import Confidence, Evidence, Finding, Report, Severity, Skipped

STATISTICS = "delta.statistics"
#: Relative change of a norm below which a module counts as the same: rounding in another type.
SAME = 1e-3


@dataclass(frozen=True, slots=True)
class Moved:
    """A finding of both scans that is about other subjects now, or about more or fewer."""

    old: Finding
    new: Finding
    appeared: tuple[str, ...]  # subjects that only the later one lists
    vanished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Files:
    """Paths, sorted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]  # another SHA-256
    unknown: tuple[str, ...]  # of another size or unread on one side: cannot be told


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """How the size of one module's update changed. None: there is none on that side."""

    module: str
    old: float | None  # ‖ΔW‖_F
    new: float | None

    @property
    def ratio(self) -> float:
        """Return new / old: infinite where it is new, 0 where it is gone."""
        if self.old is None or not self.old:
            return math.inf
        return (self.new or 0.0) / self.old


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that is different, worst first."""

    old: Report
    new: Report
    appeared: tuple[Finding, ...]
    vanished: tuple[Finding, ...]
    moved: tuple[Moved, ...]
    files: Files
    modules: tuple[ModuleChange, ...]
    unseen: tuple[Skipped, ...]  # not analysed or not tested now, and analysed before
    versions: Mapping[str, tuple[str, str]]  # of what decides the result, where they differ

    @property
    def any(self) -> bool:
        """Return whether anything about the adapter is different."""
        files = self.files
        different = (files.added, files.removed, files.changed, files.unknown)
        return bool(self.appeared or self.vanished or self.moved or self.modules or any(different))

    def worse(self, bound: Severity | None) -> bool:
        """Return whether a finding of severity `bound` or worse appeared or is about more now."""
        if bound is None:
            return False
        found = [*self.appeared, *(item.new for item in self.moved if item.appeared)]
        return any(f.severity >= bound and not f.suppression for f in found)


def changed(old: Report, new: Report) -> Change:
    """Compare two reports of one adapter."""
    before = {finding.rule: finding for finding in old.findings}
    after = {finding.rule: finding for finding in new.findings}
    both = [(before[rule], after[rule]) for rule in after if rule in before]
    return Change(
        old=old,
        new=new,
        appeared=_worst(after[rule] for rule in after if rule not in before),
        vanished=_worst(before[rule] for rule in before if rule not in after),
        moved=tuple(_moved(both)),
        files=_files(old, new),
        modules=_modules(old.evidence, new.evidence),
        unseen=_unseen(old, new),
        versions={
            key: (old.versions.get(key, ""), new.versions.get(key, ""))
            for key in sorted({*old.versions, *new.versions})
            if old.versions.get(key) != new.versions.get(key)
        },
    )


def _worst(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    def badness(finding: Finding) -> tuple[Severity, Confidence, str]:
        return finding.severity, finding.confidence, finding.rule

    return tuple(sorted(findings, key=badness, reverse=True))


def _moved(pairs: Iterable[tuple[Finding, Finding]]) -> Iterator[Moved]:
    for old, new in pairs:
        before = {str(fact.subject): fact for fact in old.evidence}
        after = {str(fact.subject): fact for fact in new.evidence}
        appeared = tuple(name for name in after if name not in before)
        vanished = tuple(name for name in before if name not in after)
        values = any(_differs(before[name], after[name]) for name in after if name in before)
        if appeared or vanished or values or old.count != new.count:
            yield Moved(old, new, appeared, vanished)


def _differs(old: Evidence, new: Evidence) -> bool:
    if isinstance(old.value, float) and isinstance(new.value, float):
        return not math.isclose(old.value, new.value, rel_tol=SAME)
    return old.value != new.value


def _files(old: Report, new: Report) -> Files:
    before = {record.path: record for record in old.files}
    after = {record.path: record for record in new.files}
    both = sorted(before.keys() & after.keys())
    read = [p for p in both if before[p].sha256 and after[p].sha256]
    unread = [p for p in both if p not in read]
    return Files(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(p for p in read if before[p].sha256 != after[p].sha256),
        unknown=tuple(
            p for p in unread
            if before[p].size != after[p].size or bool(before[p].sha256) != bool(after[p].sha256)
        ),
    )  # fmt: skip


def _modules(old: Sequence[Evidence], new: Sequence[Evidence]) -> tuple[ModuleChange, ...]:
    before, after = _norms(old), _norms(new)
    found = [ModuleChange(name, before.get(name), after.get(name)) for name in {**before, **after}]
    different = [m for m in found if not math.isclose(m.ratio, 1.0, rel_tol=SAME)]
    return tuple(sorted(different, key=lambda m: (-_distance(m.ratio), m.module)))


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def _norms(facts: Iterable[Evidence]) -> dict[str, float]:
    return {
        fact.subject.name: fact.value
        for fact in facts
        if fact.name == STATISTICS and isinstance(fact.value, float)
    }


def _unseen(old: Report, new: Report) -> tuple[Skipped, ...]:
    known = {item.what for item in old.coverage.skipped}
    return tuple(item for item in new.coverage.skipped if item.what not in known)
