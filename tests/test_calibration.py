"""A reference of adapters: what it holds, whom it compares with, and that its p-values are true."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adapterscan import calibration
from adapterscan.calibrate import members
from adapterscan.calibration import (
    FEATURES,
    LEAST,
    Kind,
    Member,
    Reference,
    built_in,
    read_reference,
    standing,
    write_reference,
)
from adapterscan.errors import BadCalibration
from adapterscan.model import Evidence
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.planted import TRAINED, Edited

KIND = Kind("org/base", 64, "LORA", "q_proj, v_proj", "5-8")


def made(count, seed=0, kind=KIND, heavy=False):
    """Return adapters whose statistics are draws from one distribution."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(len(FEATURES), len(FEATURES)))
    rows = (
        rng.standard_t(3, (count, len(FEATURES)))
        if heavy
        else rng.normal(size=(count, len(FEATURES)))
    )
    return [
        Member(f"m{i}", rng.bytes(32).hex(), kind, tuple(row)) for i, row in enumerate(rows @ mixed)
    ]


def measured(folder):
    (member,) = members(open_artifact(parse_ref(str(folder)), HubOptions()))
    assert isinstance(member, Member), member
    return member


@pytest.mark.parametrize("heavy", [False, True])
def test_p_values_of_adapters_like_those_of_the_reference_are_uniform(heavy) -> None:
    from scipy.stats import kstest

    p = []
    for seed in range(150):
        *others, new = made(LEAST + 2, seed, heavy=heavy)
        p.append(standing(new, others).p)
    floor = 1 / (LEAST + 2)
    assert min(p) >= floor
    assert kstest(p, "uniform").pvalue > 0.01
    assert sum(value <= 0.1 for value in p) <= 0.1 * 150 + 3 * (0.09 * 150) ** 0.5


def test_an_adapter_far_from_all_others_has_the_floor_and_is_explained() -> None:
    others = made(60)
    odd = list(others[0].values)
    odd[FEATURES.index("kurtosis highest")] += 500.0
    found = standing(replace(others[0], sha256="ff" * 32, values=tuple(odd)), others)
    assert found.p == pytest.approx(1 / 61)
    assert found.score > 2 * found.usual
    assert found.most[0][0] == "kurtosis highest"


def test_equal_adapters_are_told_apart_by_lot_and_none_is_unusual_for_sure() -> None:
    values = (0.0,) * len(FEATURES)
    rng = np.random.default_rng(0)
    equal = [Member("m", rng.bytes(32).hex(), KIND, values) for _ in range(400)]
    p = [standing(member, equal[:50]).p for member in equal[50:]]
    assert 0.4 < np.mean(p) < 0.6
    assert standing(equal[60], equal[:50]).p == standing(equal[60], equal[:50]).p


def test_the_order_of_members_does_not_matter() -> None:
    *others, new = made(50)
    assert standing(new, others[::-1]).p == pytest.approx(standing(new, others).p)
    assert standing(new, others[::-1]).score == pytest.approx(standing(new, others).score)


def test_compared_with_the_nearest_kind_that_has_enough() -> None:
    other_rank = replace(KIND, ranks="9-16")
    other_modules = replace(KIND, modules="down_proj")
    other_base = replace(KIND, base="org/other")
    new = made(1, 9)[0]
    parts = [
        made(LEAST, i, kind) for i, kind in enumerate((KIND, other_rank, other_modules, other_base))
    ]

    def near(*kept):
        fields, found = Reference(tuple(m for part in kept for m in part)).near(new)
        return fields[-1], len(found)

    assert near(*parts) == ("ranks", LEAST)
    assert near(parts[0][:5], *parts[1:]) == ("modules", LEAST + 5)
    assert near(parts[0][:5], parts[2]) == ("peft_type", LEAST + 5)
    assert near(parts[3])[1] == LEAST
    assert near(parts[0][:5])[1] == 5
    assert near(made(LEAST, 0, replace(KIND, width=65)))[1] == 0


def test_an_adapter_is_not_compared_with_itself() -> None:
    known = made(LEAST + 1)
    _, found = Reference(tuple(known)).near(known[3])
    assert len(found) == LEAST
    assert known[3] not in found


def test_the_same_update_with_other_factors_is_the_same_member(tmp_path) -> None:
    edited = Edited(TRAINED / "benign")
    edited.refactor()
    again, before = measured(edited.write(tmp_path / "again")), measured(TRAINED / "benign")
    assert again.sha256 != before.sha256
    assert again.kind == before.kind
    assert again.values == pytest.approx(before.values, abs=2e-3)


def test_modules_that_are_not_changed_make_no_adapter_unusual(tmp_path) -> None:
    edited = Edited(TRAINED / "benign")
    name = next(n for n in edited.tensors if "lora_B" in n)
    edited.tensors[name] = np.zeros_like(edited.tensors[name])
    again, before = measured(edited.write(tmp_path / "again")), measured(TRAINED / "benign")
    assert np.abs(np.array(again.values) - before.values).max() < 0.5


def test_what_is_written_is_read_again(tmp_path) -> None:
    reference = Reference(tuple(made(3)), ("a note\u202e",))
    path = tmp_path / "r.json"
    path.write_text(write_reference(reference), "utf-8")
    found = read_reference(path)
    assert found.members == reference.members
    assert "\u202e" not in found.notes[0]
    assert len(found.digests[0]) == 64


@pytest.mark.parametrize("change", [
    {"features": ["rms mean"]},
    {"adapterscan-reference": 99},
    {"members": [{}]},
    {"members": 7},
    {"notes": [7]},
], ids=str)  # fmt: skip
def test_what_is_no_reference_is_refused(tmp_path, change) -> None:
    path = tmp_path / "r.json"
    table = json.loads(write_reference(Reference(tuple(made(2)))))
    path.write_text(json.dumps(table | change), "utf-8")
    with pytest.raises(BadCalibration, match=r"r\.json"):
        read_reference(path)


@pytest.mark.parametrize(("field", "value"), [
    ("values", [float("nan")] * len(FEATURES)),
    ("values", [1e999] * len(FEATURES)),
    ("values", [0.0]),
    ("values", [10**400] * len(FEATURES)),
    ("sha256", "not hexadecimal"),
    ("kind", {"base": "b", "width": "64", "peft_type": "LORA", "modules": "", "ranks": ""}),
    ("kind", {"base": "b"}),
    ("kind", {"base": [], "width": 64, "peft_type": "LORA", "modules": "", "ranks": ""}),
], ids=str)  # fmt: skip
def test_a_member_that_is_none_is_refused(tmp_path, field, value) -> None:
    path = tmp_path / "r.json"
    table = json.loads(write_reference(Reference(tuple(made(2)))))
    table["members"][1][field] = value
    path.write_text(json.dumps(table), "utf-8")
    with pytest.raises(BadCalibration):
        read_reference(path)


@pytest.mark.parametrize("content", ["", "[", "[]", "[" * 200_000, '"text"', "null"])
def test_other_files_are_refused(tmp_path, content) -> None:
    path = tmp_path / "r.json"
    path.write_text(content, "utf-8")
    with pytest.raises(BadCalibration, match=r"calibrate|no reference"):
        read_reference(path)
    with pytest.raises(BadCalibration, match="cannot be read"):
        read_reference(tmp_path / "absent")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(calibration, "LIMIT", 10)
    path = tmp_path / "r.json"
    path.write_text(write_reference(Reference()), "utf-8")
    with pytest.raises(BadCalibration, match="too large"):
        read_reference(path)


def test_the_shipped_reference_has_statistics_of_named_adapters_and_nothing_else() -> None:
    shipped = built_in()
    assert len(shipped.members) >= LEAST
    assert shipped.notes
    assert len({member.sha256 for member in shipped.members}) == len(shipped.members)
    for member in shipped.members:
        assert member.name.startswith("zoo: ") or "/" in member.name
        assert not member.name.startswith(("/", "."))


def scanned(folder, peers=None) -> list[Evidence]:
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    return scan(artifact, load_rules(), options=ScanOptions(1, peers))


def standing_of(report):
    return next((item for item in report.evidence if item.name == "adapter.standing"), None)


def test_a_reference_with_too_few_gives_no_p_value_and_says_so() -> None:
    report = scanned(TRAINED / "benign", Reference(tuple(made(5))))
    assert standing_of(report) is None
    (told,) = (s for s in report.coverage.skipped if "insufficient reference" in s.reason)
    assert "0 adapters of its kind, a p-value needs 39" in told.reason
    assert "adapterscan calibrate" in told.hint
    assert not told.failed


def test_a_benign_adapter_is_compared_and_not_accused() -> None:
    report = scanned(TRAINED / "benign")
    found = standing_of(report)
    assert found.value > 0.1
    assert found.details["members"] >= LEAST
    assert found.details["floor"] == pytest.approx(1 / (found.details["members"] + 1))
    assert "unusual-for-its-kind" not in {finding.rule for finding in report.findings}
    assert report.versions["reference"]


def test_calibrate_writes_what_scan_compares_with(run, tmp_path, adapters) -> None:
    done = run(
        "calibrate", TRAINED, adapters / "config-list", "-o", "r.json", "--note", "mine", "-q"
    )
    assert done.returncode == 3, done.stderr
    assert "huggingfacetb/smollm2-135m-instruct" in done.stdout
    assert f"left out: {adapters / 'config-list'}: adapter_config.json: " in done.stderr
    written = read_reference(tmp_path / "r.json")
    assert written.notes == ("mine",)
    assert str(TRAINED.parent) not in (tmp_path / "r.json").read_text("utf-8")
    done = run("scan", TRAINED / "benign", "--reference", "r.json", "-f", "json")
    (report,) = json.loads(done.stdout)["reports"]
    assert report["versions"]["reference"].count(",") == 1
    (tmp_path / "settings.toml").write_text('reference = ["r.json"]\n', "utf-8")
    again = run("scan", TRAINED / "benign", "--config", "settings.toml", "-f", "json")
    assert json.loads(again.stdout)["reports"][0]["versions"] == report["versions"]


def test_calibrate_counts_what_it_was_given_twice(run) -> None:
    done = run("calibrate", TRAINED / "benign", TRAINED / "benign", "-o", "r.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 of 2 adapters written to r.json; 1 has the weights of another\n")


def test_a_missing_target_of_calibrate_is_no_success(run, tmp_path) -> None:
    done = run("calibrate", TRAINED / "benign", "./nowhere", "-o", "r.json")
    assert done.returncode == 2
    assert "left out: ./nowhere: " in done.stderr
    assert (tmp_path / "r.json").exists()


def test_nothing_to_calibrate_with_is_an_error(run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("calibrate", "empty", "-o", "r.json")
    assert done.returncode == 2
    assert "no adapter could be measured" in done.stderr
    assert not (tmp_path / "r.json").exists()
