"""Render what changed between two scans: for a person at a terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from adapterscan.change import Change, Files, ModuleChange, Moved
from adapterscan.model import Finding
from adapterscan.text import plural, printable, safe_json

SHOWN = 12  # modules, files and subjects of each kind


def render_change(change: Change) -> Iterator[str]:
    """Yield the text, what got worse first."""
    old, new = change.old, change.new
    yield f"{_name(old.name, old.commit)}  →  {_name(new.name, new.commit)}\n\n"
    for finding in change.appeared:
        yield f"  + {_finding(finding)}\n"
    for moved in change.moved:
        yield from _moved(moved)
    for finding in change.vanished:
        yield f"  - {_finding(finding)}\n"
    if not (change.appeared or change.moved or change.vanished):
        yield "  The same findings.\n"
    yield from _files(change.files)
    yield from _modules(change.modules)
    if change.unseen:
        yield "\n  Not analysed now, and not said to be so before:\n"
        yield from (f"    {printable(i.what, 120)}: {printable(i.reason)}\n" for i in change.unseen)
    if change.versions:
        told = ", ".join(printable(key) for key in change.versions)
        yield f"\n  Scanned otherwise: another {told}. Findings may differ for that reason.\n"


def render_change_json(change: Change) -> Iterator[str]:
    """Yield one JSON document."""
    files = change.files
    document = {
        "schema": "1",
        "old": {"name": change.old.name, "commit": change.old.commit},
        "new": {"name": change.new.name, "commit": change.new.commit},
        "appeared": [_row(finding) for finding in change.appeared],
        "vanished": [_row(finding) for finding in change.vanished],
        "moved": [
            {
                **_row(moved.new),
                "subjects_before": moved.old.count,
                "appeared": list(moved.appeared),
                "vanished": list(moved.vanished),
            }
            for moved in change.moved
        ],
        "files": {
            "added": list(files.added),
            "removed": list(files.removed),
            "changed": list(files.changed),
            "unknown": list(files.unknown),
        },
        "modules": [{"module": m.module, "old": m.old, "new": m.new} for m in change.modules],
        "not_analysed_now": [
            {"what": item.what, "reason": item.reason, "failed": item.failed}
            for item in change.unseen
        ],
        "versions": {key: list(pair) for key, pair in change.versions.items()},
    }
    yield safe_json(json.dumps(document, indent=1))
    yield "\n"


def _name(name: str, commit: str | None) -> str:
    return f"{printable(name)}{f' at {printable(commit, 12)}' if commit else ''}"


def _row(finding: Finding) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.label,
        "title": finding.title,
        "subjects": finding.count,
        "suppressed": finding.suppression is not None,
    }


def _finding(finding: Finding) -> str:
    held = " (suppressed)" if finding.suppression else ""
    return f"{finding.severity.label.upper()} {finding.title}  [{finding.rule}]{held}"


def _moved(moved: Moved) -> Iterator[str]:
    counts = f"{moved.old.count:,} → {plural(moved.new.count, 'subject')}"
    yield f"  ~ {_finding(moved.new)}: {counts}\n"
    for mark, names in (("+", moved.appeared), ("-", moved.vanished)):
        yield from (f"      {mark} {printable(name, 120)}\n" for name in names[:SHOWN])
        if len(names) > SHOWN:
            yield f"      {mark} … {len(names) - SHOWN} more\n"


def _files(files: Files) -> Iterator[str]:
    kinds = (("added", files.added), ("removed", files.removed), ("changed", files.changed),
             ("cannot be told", files.unknown))  # fmt: skip
    told = [(kind, paths) for kind, paths in kinds if paths]
    yield "\n  The same files.\n" if not told else "\n  Files\n"
    for kind, paths in told:
        shown = ", ".join(printable(path, 80) for path in paths[:SHOWN])
        more = f", … {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        yield f"    {kind}: {shown}{more}\n"


def _modules(modules: Sequence[ModuleChange]) -> Iterator[str]:
    if not modules:
        yield "  Every module's update is as large as before.\n"
        return
    yield f"\n  {plural(len(modules), 'module')} changed in size\n"
    for module in modules[:SHOWN]:
        yield f"    {printable(module.module, 90)}: {_size(module)}\n"
    if len(modules) > SHOWN:
        yield f"    … {len(modules) - SHOWN} more\n"


def _size(module: ModuleChange) -> str:
    if module.old is None:
        return f"new, ‖ΔW‖ {module.new:.3g}"
    if module.new is None:
        return f"gone, ‖ΔW‖ was {module.old:.3g}"
    times = f"×{module.ratio:.3g}" if module.ratio < math.inf else "from zero"
    return f"‖ΔW‖ {module.old:.3g} → {module.new:.3g} ({times})"
