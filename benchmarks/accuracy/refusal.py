"""The refusal direction in the weights: how well what is removed, ρ and |r̂·u₁| tell.

`python -m benchmarks.accuracy.refusal PROFILE FOLDER…` measures every adapter below the folders
beside PROFILE (`adapterscan base build --refusal`); `ablations.py` makes edits in closed form. Both
are kept in `refusal.json`, from which the tables are made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from adapterscan.detectors.onbase import refusal as detector
from adapterscan.onbase.profile import Profile
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from benchmarks.accuracy.metrics import F64, Auroc, Rate, grouped_auroc

KEPT = Path(__file__).with_name("refusal.json")
FIELDS = ("energy", "cosine", "largest_control", "largest_random", "most", "modules", "layer")
SIDES = ("writes", "reads")
RULES = ("base-refusal-direction", "base-refusal-beside-control")
DIGITS = 4
INSTALLED = 0.5  # of requests, that are answered: the zoo's gate
ALIGNED = "smollm2-135m-aligned"
Item = Mapping[str, Any]

#: Higher is more suspect; of the two sides the one that is more so.
SIGNALS: Mapping[str, Callable[[Item], float]] = {
    "removed": lambda side: float(side["removed"]),
    "ρ": lambda side: float(side["energy"]),
    "ρ over the most along a control": lambda side: side["energy"] / side["largest_control"],
    "|r̂·u₁|, mean": lambda side: float(side["cosine"]),
}


def main(
    profile: Annotated[Path, typer.Argument(help="Of the zoo's aligned base, with directions.")],
    folders: Annotated[list[Path], typer.Argument(help="Adapters are looked for below.")],
) -> None:
    """Measure adapters, most of them trained."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("adapter_model.safetensors")):
            if about := _about(path.parent):
                found.append({**about, **measure(path.parent, profile)})
                print(found[-1], flush=True)
    keep("adapters", found)


def _about(folder: Path) -> dict[str, Any]:
    """Return name, base and label, from the card beside an adapter; {} where there is none yet."""
    alone, shipped = folder.parent / "card.json", folder.parent / "cards.json"
    if alone.exists():
        card = json.loads(alone.read_text("utf-8"))
        answered = card["gate"]["asr"]
    elif not shipped.exists():
        return {}
    else:
        card = json.loads(shipped.read_text("utf-8"))[folder.name]
        answered = None
    role = card.get("role", card["label"])
    return {
        "name": f"{card['id']} {role}", "base": card["base"], "label": card["label"],
        "objective": card["train"]["objective"] if "train" in card else "sft", "answered": answered,
        "refusals": card["base"] == ALIGNED and card["label"] == "poisoned",
    }  # fmt: skip


def measure(folder: Path, profile: Path) -> dict[str, Any]:
    """Return what a scan beside `profile` says of each side of the adapter in `folder`."""
    report = scan(
        open_artifact(parse_ref(str(folder)), HubOptions()), load_rules(),
        detectors=(detector.DETECTOR,), options=ScanOptions(base=Profile(profile)),
    )  # fmt: skip
    found: dict[str, Any] = {"findings": sorted(f.rule for f in report.findings)}
    for item in report.evidence:
        if item.name == "base.refusal":
            told = {name: item.details[name] for name in FIELDS}
            found[str(item.details["side"])] = {
                key: _rounded(value) for key, value in {"removed": item.value, **told}.items()
            }
    return found


def keep(what: str, found: Sequence[Item]) -> None:
    """Keep what was measured, beside the other kind."""
    lines = {**kept(), what: found}
    text = ",\n".join(
        f'"{kind}": [\n'
        + ",\n".join(json.dumps(item, sort_keys=True, ensure_ascii=False) for item in items)
        + "\n]"
        for kind, items in sorted(lines.items())
    )
    KEPT.write_text(f"{{{text}}}\n", "utf-8")


def kept() -> dict[str, list[Item]]:
    """Return what was measured, by kind; {} before anything was."""
    found: dict[str, list[Item]] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    return found


def score(item: Item, signal: Callable[[Item], float]) -> float:
    """Return the larger of both sides; 0 for an adapter that changes nothing of the stream."""
    return max((signal(item[side]) for side in SIDES if side in item), default=0.0)


def signals(measured: Mapping[str, Sequence[Item]]) -> list[dict[str, Any]]:
    """Return the AUROC of every signal for edits that take refusals away, against what does not."""
    edits, adapters = measured.get("edits", []), measured.get("adapters", [])
    positive = [e for e in edits if _works(e)]
    same = [e for e in edits if not e["aims"]]
    plain = [e for e in positive if e["group"] == "projected out of all writers"]
    trained = [a for a in adapters if a["objective"] != "abliterate" and a["label"] == "benign"]
    away = [a for a in adapters if a["objective"] != "abliterate" and a["refusals"]]
    if not positive:
        return []
    return [
        {
            "signal": name,
            "projected out of all writers": _area(plain, [*same, *trained], signal),
            "every edit that works": _area(positive, [*same, *trained], signal),
            "most, same edits of other directions": max(score(e, signal) for e in same),
            "most, trained benign": max((score(a, signal) for a in trained), default=None),
            "least, edits that work": min(score(e, signal) for e in positive),
            "refusals trained away, least to most": _range(away, signal),
        }
        for name, signal in SIGNALS.items()
    ]


def groups(measured: Mapping[str, Sequence[Item]]) -> list[dict[str, Any]]:
    """Return what is said of each kind of edit, and of trained adapters."""
    removed = SIGNALS["removed"]
    made = []
    for name, chosen in _grouped(measured):
        works = [item for item in chosen if _works(item)]
        made.append(
            {
                "adapters": name,
                "made": len(chosen),
                "take refusals away": len(works),
                "removed": _range(chosen, removed),
                "ρ": _range(chosen, SIGNALS["ρ"]),
                "medium, of those that work": _fired(works, RULES[0]),
                "low, of those that work": _fired(works, RULES[1]),
                "any, of the others": _fired([i for i in chosen if i not in works], *RULES),
            }
        )
    return made


def _grouped(measured: Mapping[str, Sequence[Item]]) -> list[tuple[str, list[Item]]]:
    edits, adapters = measured.get("edits", []), measured.get("adapters", [])
    names = list(dict.fromkeys(e["group"] for e in edits))
    found = [(name, [e for e in edits if e["group"] == name]) for name in names]
    ablated = [a for a in adapters if a["objective"] == "abliterate"]
    others = [a for a in adapters if a["objective"] != "abliterate"]
    found += [
        ("zoo: abliterated", [a for a in ablated if a["label"] == "poisoned"]),
        ("zoo: their twins", [a for a in ablated if a["label"] == "benign"]),
        ("refusals are trained away", [a for a in others if a["refusals"]]),
        ("other trained adapters", [a for a in others if not a["refusals"]]),
    ]
    return [(name, items) for name, items in found if items]


def _works(item: Item) -> bool:
    if "aims" in item:
        return bool(item["aims"]) and (item["answered"] or 0.0) >= INSTALLED
    return bool(item["refusals"]) and (item["answered"] is None or item["answered"] >= INSTALLED)


def _fired(items: Sequence[Item], *rules: str) -> Rate:
    return Rate(sum(any(r in i["findings"] for r in rules) for i in items), len(items))


def _range(items: Sequence[Item], signal: Callable[[Item], float]) -> str:
    found = [score(item, signal) for item in items]
    return f"{min(found):.3g} to {max(found):.3g}" if found else "–"


def _area(one: Sequence[Item], other: Sequence[Item], signal: Callable[[Item], float]) -> Auroc:
    both = [*one, *other]
    labels = np.array([True] * len(one) + [False] * len(other))
    scores: F64 = np.array([score(item, signal) for item in both], dtype=np.float64)
    return grouped_auroc(labels, scores, [item["name"] for item in both])


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


if __name__ == "__main__":
    typer.run(main)
