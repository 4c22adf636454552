"""Turn the pickles found in a file into evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from adapterscan.formats.pickle_file import PickleFile
from adapterscan.formats.pickle_policy import Purpose, Standing, classify
from adapterscan.formats.pickle_vm import Global
from adapterscan.model import Evidence, Scalar, Subject

_MOST_GLOBALS = 500  # told one by one; the rest is counted
_MOST_REPEATS = 100  # of any other fact with the same value
_LONGEST_NAME = 200
_WORST_FIRST: dict[Standing, int] = {"dangerous": 0, "unknown": 1, "allowed": 2}


@dataclass(slots=True)
class _Use:
    first: Global
    member: str
    count: int = 0
    called: bool = False
    built: bool = False
    after_break: bool = True


def pickle_facts(found: PickleFile, purpose: Purpose) -> tuple[Evidence, ...]:
    """Return what the pickles in a file name and where they, or their archive, are broken.

    - "pickle.global": "allowed" | "dangerous" | "unknown", one per member and name, worst first
    - "pickle.globals_untold": how many further names there are beyond the first 500
    - "pickle.unresolved_global": why a name cannot be known without running the pickle
    - "pickle.broken": code of the first defect ("truncated", "stack", "limit", …)
    - "pickle.trailing": bytes at which a pickle starts that the format does not explain
    - "archive.defect": code of a contradiction in the archive
    """
    facts = [*_globals(found, purpose), *_broken(found), *_trailing(found), *_defects(found)]
    seen: Counter[str] = Counter()
    kept = []
    for fact in facts:
        kind = f"{fact.name} {fact.value}" if isinstance(fact.value, str) else fact.name
        seen[kind] += 1
        if fact.name == "pickle.global" or seen[kind] <= _MOST_REPEATS:
            kept.append(fact)
    return tuple(kept)


def _globals(found: PickleFile, purpose: Purpose) -> Iterator[Evidence]:
    uses: dict[tuple[str, str, str, bool], _Use] = {}
    for stream in found.streams:
        for item in stream.found.globals:
            key = (stream.member, item.module, item.name, item.resolved)
            use = uses.setdefault(key, _Use(item, stream.member))
            use.count += 1
            use.called |= item.called
            use.built |= item.built
            use.after_break &= item.after_break
    told = [
        (classify(use.first.module, use.first.name, purpose), use)
        for (*_, resolved), use in uses.items()
        if resolved
    ]
    told.sort(key=lambda pair: _WORST_FIRST[pair[0]])
    path = found.file.path
    for standing, use in told[:_MOST_GLOBALS]:
        subject = Subject("file", path, _short(f"{use.first.module}.{use.first.name}"))
        yield Evidence("pickle.global", subject, standing, details=_details(use, purpose))
    if len(told) > _MOST_GLOBALS:
        subject = Subject("file", path)
        count = len(told) - _MOST_GLOBALS
        yield Evidence("pickle.globals_untold", subject, count, "names")
    for (*_, resolved), use in uses.items():
        if not resolved:
            subject = Subject("file", path, _short(f"{use.first.module}.{use.first.name}"))
            reason = "extension code" if use.first.module == "copyreg" else "computed name"
            yield Evidence(
                "pickle.unresolved_global", subject, reason, details=_details(use, purpose)
            )


def _details(use: _Use, purpose: Purpose) -> dict[str, Scalar]:
    return {
        "module": _short(use.first.module),
        "name": _short(use.first.name),
        "called": use.called,
        "built": use.built,
        "after_break": use.after_break,
        "member": _short(use.member),
        "position": use.first.position,
        "count": use.count,
        "purpose": purpose,
    }


def _broken(found: PickleFile) -> Iterator[Evidence]:
    for stream in found.streams:
        defect = stream.found.defect
        if defect is not None:
            yield Evidence(
                "pickle.broken",
                Subject("file", found.file.path, _short(stream.member)),
                defect.code,
                details={
                    "reason": defect.reason,
                    "member": _short(stream.member),
                    "position": defect.position,
                    "index": stream.index,
                },
            )


def _trailing(found: PickleFile) -> Iterator[Evidence]:
    for stream in found.streams:
        if not stream.expected:
            yield Evidence(
                "pickle.trailing",
                Subject("file", found.file.path, _short(stream.member)),
                stream.found.start,
                "byte offset",
                details={"member": _short(stream.member), "index": stream.index},
            )


def _defects(found: PickleFile) -> Iterator[Evidence]:
    for defect in found.defects:
        yield Evidence(
            "archive.defect",
            Subject("file", found.file.path, _short(defect.member)),
            defect.code,
            details={"reason": defect.reason, "member": _short(defect.member)},
        )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "…"
