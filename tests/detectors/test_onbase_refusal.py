"""Scans beside a profile with directions: planted edits, edits of other directions, and none."""

from __future__ import annotations

import numpy as np
import pytest

from adapterscan.model import Severity
from adapterscan.onbase.directions import Asked
from adapterscan.onbase.profile import Profile, about
from adapterscan.onbase.profile_build import build
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_shards import open_shards
from fixtures import bases
from fixtures.folder import config, save
from fixtures.weights import PREFIX, encode, low_rank

HIDDEN, LAYERS = 64, 3
WRITERS, READERS = ("o_proj", "down_proj"), ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
RULES = {"base-refusal-direction", "base-refusal-beside-control"}


def directions():
    found = np.random.default_rng(7).standard_normal((2, 2, HIDDEN)).astype(np.float32)
    return found / np.linalg.norm(found, axis=2, keepdims=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return open_shards(bases.write(tmp_path_factory.mktemp("base")), "base")


@pytest.fixture(scope="module")
def profile(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "base.profile"
    asked = Asked((1, 3), 4, 1, HIDDEN, 20, "0")
    build(base, about(base, "identity", {}, 16, asked), path, lambda _: None, directions())
    return Profile(path)


def weight(base, path):
    tensor = base.tensors[f"{path}.weight"]
    return base.rows(tensor.name, 0, tensor.shape[0]).astype(np.float32)


def paths(base, names):
    found = (name.removesuffix(".weight") for name in base.tensors)
    return [path for path in found if path.endswith(names)]


def projected(base, r, strength=1.0):
    return {p: ((r @ weight(base, p))[None], -strength * r[:, None]) for p in paths(base, WRITERS)}


def unread(base, r):
    return {p: (r[None], -(weight(base, p) @ r)[:, None]) for p in paths(base, READERS)}


def beside(one, two):
    return {p: (np.vstack([one[p][0], two[p][0]]), np.hstack([one[p][1], two[p][1]])) for p in one}


def noisy(update, times):
    found = {}
    for path, (a, b) in update.items():
        more_a, more_b = low_rank(path, b.shape[0], a.shape[1], 2, 1.0)
        size = times * np.linalg.norm(b @ a) / np.linalg.norm(more_b @ more_a)
        found[path] = np.vstack([a, more_a]), np.hstack([b, more_b * size])
    return found


@pytest.fixture
def scanned(profile, tmp_path):
    def of(update, other=None):
        rank = max(len(a) for a, _ in update.values())
        tensors = {}
        for path, (a, b) in update.items():
            tensors[f"{PREFIX}{path}.lora_A.weight"] = encode(a, "F32")
            tensors[f"{PREFIX}{path}.lora_B.weight"] = encode(b, "F32")
        names = sorted({path.rpartition(".")[2] for path in update})
        save(tmp_path / "a", config(r=rank, lora_alpha=rank, target_modules=names), tensors)
        artifact = open_artifact(parse_ref(str(tmp_path / "a")), HubOptions())
        return scan(artifact, load_rules(), options=ScanOptions(base=other or profile))

    return of


def facts(report, name="base.refusal"):
    return [item for item in report.evidence if item.name == name]


def rules(report):
    return {finding.rule for finding in report.findings} & RULES


@pytest.mark.parametrize(("edit", "side"), [(projected, "writes"), (unread, "reads")])
def test_the_direction_of_refusals_is_missed_on_either_side(scanned, base, edit, side) -> None:
    report = scanned(edit(base, directions()[0, 1]))
    (found,) = facts(report)
    assert found.value == pytest.approx(1.0, abs=0.01)
    assert (found.details["side"], found.details["layer"]) == (side, 3)
    assert found.details["energy"] == pytest.approx(HIDDEN, rel=0.01)
    assert found.details["cosine"] == pytest.approx(1.0, abs=0.01)
    assert rules(report) == {"base-refusal-direction"}
    assert max(f.severity for f in report.findings if f.rule in RULES) is Severity.MEDIUM
    assert "every ΔW against the direction of the base's refusals" in report.coverage.inspected


def test_noise_hides_the_shape_of_the_update_but_not_what_it_takes_away(scanned, base) -> None:
    report = scanned(noisy(projected(base, directions()[0, 1]), 10.0))
    (found,) = facts(report)
    assert found.value == pytest.approx(1.0, abs=0.2)
    assert found.details["energy"] < HIDDEN / 8
    assert rules(report) == {"base-refusal-direction"}


def test_the_same_edit_of_another_direction_is_no_finding(scanned, base) -> None:
    report = scanned(projected(base, directions()[1, 1]))
    (found,) = facts(report)
    assert found.value < 0.15
    assert not found.details["most"]
    assert not rules(report)


def test_a_louder_edit_of_another_direction_leaves_a_lower_finding(scanned, base) -> None:
    both = beside(projected(base, directions()[0, 1]), projected(base, directions()[1, 1], 3.0))
    assert rules(scanned(both)) == {"base-refusal-beside-control"}


def test_an_edit_that_makes_it_louder_is_no_finding(scanned, base) -> None:
    report = scanned(projected(base, directions()[0, 1], -1.0))
    assert max(item.value for item in facts(report)) <= 0.05
    assert not rules(report)


def test_every_module_of_the_stream_is_told_of(scanned, base) -> None:
    report = scanned(projected(base, directions()[0, 1]))
    found = facts(report, "base.refusal_module")
    assert len(found) == len(paths(base, WRITERS))
    assert all(item.value == pytest.approx(HIDDEN, rel=0.01) for item in found)
    assert all(item.details["z"] > 5 for item in found)


def test_an_update_of_nothing_is_not_compared(scanned, base) -> None:
    report = scanned(projected(base, directions()[0, 1], 0.0))
    assert not facts(report)


def test_numbers_that_are_none_are_left_to_the_comparison_with_the_base(scanned, base) -> None:
    update = projected(base, directions()[0, 1])
    first = next(iter(update))
    update[first] = (update[first][0] * np.nan, update[first][1])
    report = scanned(update)
    (found,) = facts(report)
    assert found.details["modules"] == len(update) - 1
    assert rules(report) == {"base-refusal-direction"}


def test_a_base_that_was_not_asked_says_nothing_of_it(scanned, base) -> None:
    report = scanned(projected(base, directions()[0, 1]), other=base)
    assert not facts(report)
    assert "every ΔW against the direction of the base's refusals" not in report.coverage.inspected
