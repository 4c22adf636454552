"""Turn the pickles found in a file into evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from adapterscan.formats.pickle_file import PickleFile
from adapterscan.formats.pickle_policy import (
    Purpose,
    Standing,
    classify,
    is_class,
    is_library,
    is_standard,
)
from adapterscan.formats.pickle_values import Call, Global, Value
from adapterscan.formats.pickle_vm import Reach, reads_attributes
from adapterscan.model import Evidence, Scalar, Subject

_MOST_GLOBALS = 500  # told one by one; the rest is counted
_MOST_REPEATS = 100  # of any other fact with the same value
_MOST_REACHES = 100
_DEEPEST_EXPRESSION = 12
_LONGEST_NAME = 200
_WORST_FIRST: dict[Standing, int] = {"dangerous": 0, "unknown": 1, "allowed": 2}


@dataclass(slots=True)
class _Use:
    first: Global
    member: str
    count: int = 0
    called: bool = False
    passed: bool = False
    built: bool = False
    after_break: bool = True
    far: bool = False  # reads an attribute that no honest file needs


def pickle_facts(found: PickleFile, purpose: Purpose) -> tuple[Evidence, ...]:
    """Return what the pickles in a file name and where they, or their archive, are broken.

    - "pickle.global": "allowed" | "dangerous" | "unknown", one per member and name, worst first
    - "pickle.globals_untold": how many further names there are beyond the first 500
    - "pickle.unresolved_global": why a name cannot be known without running the pickle
    - "pickle.reach": the expression by which more is reached than the listed names, and why
    - "pickle.broken": code of the first defect ("truncated", "stack", "limit", …)
    - "pickle.trailing": bytes at which a pickle starts that the format does not explain
    - "archive.defect": code of a contradiction in the archive
    """
    facts = [
        *_globals(found, purpose),
        *_reached(found, purpose),
        *_broken(found),
        *_trailing(found),
        *_defects(found),
    ]
    seen: Counter[str] = Counter()
    kept = []
    for fact in facts:
        kind = f"{fact.name} {fact.value}" if isinstance(fact.value, str) else fact.name
        seen[kind] += 1
        if fact.name == "pickle.global" or seen[kind] <= _MOST_REPEATS:
            kept.append(fact)
    return tuple(kept)


def _globals(found: PickleFile, purpose: Purpose) -> Iterator[Evidence]:
    far = {
        id(step.source)
        for stream in found.streams
        for step in stream.found.reaches
        if step.source is not None and _why(step, purpose)
    }
    uses: dict[tuple[str, str, str, bool], _Use] = {}
    for stream in found.streams:
        for item in stream.found.globals:
            key = (stream.member, item.module, item.name, item.resolved)
            use = uses.setdefault(key, _Use(item, stream.member))
            use.count += 1
            use.called |= item.called
            use.passed |= item.passed
            use.far |= id(item) in far
            use.built |= item.built
            use.after_break &= item.after_break
    told = [(_standing(use, purpose), use) for (*_, resolved), use in uses.items() if resolved]
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


def _standing(use: _Use, purpose: Purpose) -> Standing:
    found = use.first
    enums = use.called and not use.passed and not use.far  # Python 3.11 pickles members so
    if purpose == "trainer" and enums and _is_getattr(found):
        return "allowed"
    return classify(found.module, found.name, purpose)


def _is_getattr(found: Global) -> bool:
    return (found.module, found.name) in (("builtins", "getattr"), ("__builtin__", "getattr"))


def _calls(use: _Use) -> str:
    if not (use.called or use.passed):
        return "nothing"
    if not is_class(use.first.name):
        return "function"
    if is_standard(use.first.module):
        return "standard class"
    return "library class" if is_library(use.first.module) else "other class"


def _reached(found: PickleFile, purpose: Purpose) -> Iterator[Evidence]:
    told: set[tuple[str, str, str]] = set()
    for stream in found.streams:
        for step in stream.found.reaches:
            why = _why(step, purpose)
            if not why:
                continue
            if step.kind == "attribute":
                text = _attribute(step.args, _DEEPEST_EXPRESSION)
            else:
                text = _expression(step.target, _DEEPEST_EXPRESSION)
                text += "(…)" if step.kind == "call" else ""
            key = (stream.member, _short(text), why)
            if key in told or len(told) >= _MOST_REACHES:
                continue
            told.add(key)
            yield Evidence(
                "pickle.reach",
                Subject("file", found.file.path, key[1]),
                key[1],
                details={
                    "why": why,
                    "member": _short(stream.member),
                    "position": step.position,
                    "purpose": purpose,
                },
            )


def _why(step: Reach, purpose: Purpose) -> str:
    """Return what is wrong with `step`, or "" when honest files do it: members of enums."""
    match step.kind:
        case "attribute":
            return _why_attribute(step.args, purpose)
        case "call":
            return "computed callable"
        case "special":
            return "sets special attributes"
        case "state" if isinstance(step.target, Global):
            return "sets attributes on a class"
    return "changes a shared object"


def _why_attribute(args: Value, purpose: Purpose) -> str:
    if not isinstance(args, tuple) or len(args) != 2 or not isinstance(args[1], str):
        return "computed attribute"
    holder, name = args
    if not name.isidentifier() or name.startswith("_"):
        return "special attribute"
    if not isinstance(holder, Global) or not holder.resolved:
        return "attribute of a computed value"
    standing = classify(holder.module, holder.name, purpose)
    member = standing == "allowed" or (standing == "unknown" and name.isupper())
    return "" if is_class(holder.name) and member else "attribute of an unlisted name"


def _expression(value: Value, depth: int) -> str:
    if isinstance(value, Global):
        return _short(f"{value.module}.{value.name}")
    if not isinstance(value, Call) or not depth:
        return "…"
    if isinstance(value.target, Global) and reads_attributes(value.target):
        return _attribute(value.args, depth)
    return f"{_expression(value.target, depth - 1)}(…)"


def _attribute(args: Value, depth: int) -> str:
    if not isinstance(args, tuple) or len(args) < 2:
        return "getattr(…)"
    name = _short(args[1]) if isinstance(args[1], str) else "…"
    return f"{_expression(args[0], depth - 1)}.{name}"


def _details(use: _Use, purpose: Purpose) -> dict[str, Scalar]:
    return {
        "module": _short(use.first.module),
        "name": _short(use.first.name),
        "called": use.called or use.passed,
        "calls": _calls(use),
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
