"""Tables of the refusal direction: which side counts, and what is an edit that works."""

from __future__ import annotations

from benchmarks.accuracy import refusal
from benchmarks.accuracy.sizes import beside, known, over_all

SIDE = {"removed": 0.1, "energy": 2.0, "cosine": 0.1, "largest_control": 4.0}
EDIT = {"name": "a", "group": "g", "aims": True, "answered": 0.9, "findings": [refusal.RULES[0]]}
OTHER = {"name": "b", "group": "h", "aims": False, "answered": None, "findings": []}
TRAINED = {
    "name": "c", "base": "b", "label": "benign", "objective": "sft", "answered": 0.0,
    "refusals": False, "findings": [],
}  # fmt: skip


def measured():
    loud = {**SIDE, "removed": 0.7, "energy": 200.0}
    return {
        "edits": [
            {**EDIT, "writes": loud, "reads": SIDE},
            {**EDIT, "name": "d", "answered": 0.1, "reads": SIDE},
            {**OTHER, "writes": SIDE},
        ],
        "adapters": [{**TRAINED, "reads": SIDE}],
    }


def test_the_more_suspect_side_counts() -> None:
    edit = measured()["edits"][0]
    assert refusal.score(edit, refusal.SIGNALS["removed"]) == 0.7
    assert refusal.score(edit, refusal.SIGNALS["ρ over the most along a control"]) == 50.0
    assert refusal.score(OTHER, refusal.SIGNALS["removed"]) == 0.0


def test_only_edits_that_work_are_positives() -> None:
    (row, *_) = refusal.signals(measured())
    assert row["every edit that works"].value == 1.0
    assert row["least, edits that work"] == 0.7
    assert row["most, trained benign"] == 0.1


def test_groups_say_what_fired() -> None:
    rows = {row["adapters"]: row for row in refusal.groups(measured())}
    assert (rows["g"]["made"], rows["g"]["take refusals away"]) == (2, 1)
    assert str(rows["g"]["medium, of those that work"]).startswith("1/1")
    assert str(rows["h"]["any, of the others"]).startswith("0/1")


def test_ratios_are_to_the_weights_that_were_measured() -> None:
    module, (norm, top) = next(iter(known()["smollm2-135m"].items()))
    values = {module: {"frobenius": norm / 2, "top_energy": 0.25}, "unknown": {"frobenius": 1.0}}
    found = beside("smollm2-135m", values)
    assert found == {module: {"relative": 0.5, "top_ratio": norm / 4 / top}}
    assert over_all("smollm2-135m", values) == 0.5
    assert beside("another base", values) == {}
