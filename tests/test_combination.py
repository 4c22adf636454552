"""Adapters that are combined: what they do to each other, and the sum as an adapter of its own."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from adapterscan.combination import MergeRequest, merge
from adapterscan.errors import NotApplicable, Unsupported
from adapterscan.model import Severity
from adapterscan.rules.judging import load_rules
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.together.combining import Method
from tests.planted import TRAINED, Edited
from tests.small_adapters import MODULES, D, layer, made, mapped, padded, scaled, written

RULES = load_rules()
BENIGN = ("benign", "refusal-suppressed", "semantic-backdoor", "token-backdoor")


def reports(folders, weights=None, method="cat", folder=None, **options):
    artifacts = [open_artifact(parse_ref(str(path)), HubOptions()) for path in folders]
    request = MergeRequest(
        tuple(weights or [1.0] * len(folders)), Method(method, **options), folder
    )
    return list(merge(artifacts, RULES, request))


def together(*folders, **options):
    """Return the report of the combination."""
    return reports(folders, **options)[-1]


def found(report):
    return {item.rule for item in report.findings if item.rule.startswith("sum-")}


def facts(report, name):
    return [item for item in report.evidence if item.name == name]


@pytest.fixture
def two(tmp_path):
    return written(tmp_path / "one", made(0)), written(tmp_path / "other", made(1, rank=3))


def test_the_colluding_pair_is_found_in_the_sum_and_in_no_half():
    one, other, both = reports([TRAINED / "colluding-one", TRAINED / "colluding-other"])
    assert not found(one) | found(other)
    assert found(both) == {"sum-cancelling-pair", "sum-related-parts"}
    (pair,) = facts(both, "sum.pair")
    assert (pair.details["first_larger"], pair.details["other_larger"]) == (30, 30)


@pytest.mark.parametrize("first", BENIGN)
@pytest.mark.parametrize("other", BENIGN)
def test_adapters_that_were_trained_apart_stay_silent(first, other):
    if first < other:
        bases = {"sum-bases-differ"}  # refusal-suppressed was trained on another one
        assert found(together(TRAINED / first, TRAINED / other)) <= bases


def test_a_half_of_a_pair_is_told_by_a_sibling():
    assert found(together(TRAINED / "benign", TRAINED / "colluding-one")) == {"sum-opposed-modules"}


def test_halves_behind_one_random_mask_are_found(tmp_path):
    payload, mask = made(0), made(1)

    def half(sign):
        return mapped(
            payload,
            lambda n, a, b: (
                np.vstack([a, mask[n][0]]),
                np.hstack([0.5 * b, sign * 2.0 * mask[n][1]]),
            ),
        )

    folders = [written(tmp_path / "one", half(1)), written(tmp_path / "other", half(-1))]
    assert found(together(*folders)) == {"sum-cancelling-pair"}


def test_a_payload_that_is_cut_by_layers_is_not_seen(tmp_path):
    pairs = made(0)
    even = {name: value for name, value in pairs.items() if layer(name) % 2}
    odd = {name: value for name, value in pairs.items() if not layer(name) % 2}
    report = together(written(tmp_path / "even", even), written(tmp_path / "odd", odd))
    assert found(report) == set()
    (pair,) = facts(report, "sum.pair")
    assert (pair.details["modules"], pair.details["alone"]) == (0, 12)
    assert (pair.value, pair.details["cosine"]) == (None, None)


def test_what_a_negative_weight_takes_away_is_no_cancelling_pair(tmp_path):
    folders = [written(tmp_path / str(i), scaled(made(0), 1.0 + i)) for i in (0, 1)]
    report = together(*folders, weights=[1.0, -1.0])
    assert found(report) == {"sum-related-parts"}
    assert facts(report, "sum.pair")[0].value > 0.5


def test_weights_do_not_change_what_adapters_are_to_each_other(tmp_path):
    folders = [written(tmp_path / str(i), scaled(made(0), 1.0 + i)) for i in (0, 1)]
    for weights, lost in (((1.0, 1.0), -0.8), ((2.0, 1.0), -1.0), ((2.0, -1.0), 1.0)):
        (pair,) = facts(together(*folders, weights=weights), "sum.pair")
        assert pair.details["relation"] == "the same updates, times 2"
        assert pair.value == pytest.approx(lost)


def test_a_negative_weight_does_not_make_trained_adapters_opponents():
    report = together(TRAINED / "benign", TRAINED / "semantic-backdoor", weights=[1.0, -1.0])
    assert found(report) == set()


def test_a_colluding_pair_is_told_whatever_the_weights():
    pair = TRAINED / "colluding-one", TRAINED / "colluding-other"
    assert "sum-cancelling-pair" in found(together(*pair, weights=[0.3, 2.0]))
    assert "sum-opposed-modules" in found(together(*pair, weights=[1.0, -1.0]))


def test_the_sum_that_is_kept_is_the_sum(two, tmp_path):
    kept = tmp_path / "kept"
    report = reports(two, weights=[1.0, -0.5], folder=kept)[-1]
    tensors = load_file(kept / "adapter_model.safetensors")
    first, second = made(0), made(1, rank=3)
    for name in MODULES:
        a, b = (tensors[f"base_model.model.{name}.lora_{x}.weight"].astype(float) for x in "AB")
        expected = first[name][1] @ first[name][0] - 0.5 * second[name][1] @ second[name][0]
        assert b @ a == pytest.approx(expected, abs=1e-4)
    config = json.loads((kept / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (7, 7)
    assert config["base_model_name_or_path"] == "example-org/tiny"
    assert (report.target, report.name) == (str(kept), "one − 0.5·other")
    (adapter,) = report.adapters
    norms = [np.linalg.norm(item.value) for item in facts(report, "sum.module")]
    assert adapter.frobenius_norm == pytest.approx(np.linalg.norm(norms), rel=1e-5)


def test_modules_are_measured_as_the_dense_sum_says(two):
    report = together(*two)
    assert len(facts(report, "sum.module")) == len(MODULES)
    for item in facts(report, "sum.module"):
        parts = [b @ a for a, b in (made(0)[item.subject.name], made(1, rank=3)[item.subject.name])]
        total, norms = sum(parts), [np.linalg.norm(part) for part in parts]
        u, s, vt = np.linalg.svd(total)
        top = max(np.linalg.norm(part, 2) for part in parts)
        onto = max(abs(u[:, 0] @ part @ vt[0]) for part in parts)
        assert item.value == pytest.approx(np.linalg.norm(total), rel=1e-5)
        assert item.details["lost"] == pytest.approx(1 - item.value**2 / np.dot(norms, norms))
        assert item.details["cosine"] == pytest.approx(np.sum(parts[0] * parts[1]) / np.prod(norms))
        assert item.details["growth"] == pytest.approx(s[0] / top, rel=1e-5)
        assert item.details["largest_part"] == pytest.approx(onto / s[0], rel=1e-4)


def test_three_parts_have_three_pairs(two, tmp_path):
    third = written(tmp_path / "third", made(2, modules=MODULES[:4]))
    report = together(*two, third)
    assert [item.subject.name for item in facts(report, "sum.pair")] == [
        "one + other", "one + third", "other + third",
    ]  # fmt: skip
    assert [item.details["modules"] for item in facts(report, "sum.pair")] == [12, 4, 4]
    assert report.adapters[0].ranks == {"11": 12}


def test_rank_stabilised_scaling_and_patterns_are_taken_into_account(tmp_path):
    pairs = made(0)
    plain = written(tmp_path / "plain", scaled(pairs, 2.0))
    stabilised = written(
        tmp_path / "other", pairs, lora_alpha=4.0, use_rslora=True,
        alpha_pattern={"layers.1.self_attn.q_proj": 2.0},
    )  # fmt: skip
    kinds = [item.details for item in facts(together(plain, stabilised), "sum.pair")]
    assert kinds[0]["kind"] == "changed copy"
    assert "1 module changed" in kinds[0]["relation"]


@pytest.mark.parametrize("name", ["linear", "ties", "svd"])
def test_a_method_that_is_not_the_sum_says_how_far_off_it_is(tmp_path, name):
    folders = [written(tmp_path / str(i), made(i)) for i in (0, 1)]
    options = {"density": 0.5} if name == "ties" else {}
    (told,) = facts(together(*folders, method=name, **options), "sum.method")
    assert told.details["method"] == name
    assert 0.1 < told.value < 3.0
    assert facts(together(*folders), "sum.method")[0].value == 0.0


def test_ranks_that_a_method_cannot_put_together_are_named(two):
    with pytest.raises(Unsupported, match="ranks 4, 3; linear needs equal ones"):
        reports(two, method="linear")


def test_a_module_of_another_shape_is_named_and_not_passed_over(tmp_path):
    pairs = made(1)
    a, b = pairs[MODULES[0]]
    pairs[MODULES[0]] = (a, np.vstack([b, b]))
    report = together(written(tmp_path / "one", made(0)), written(tmp_path / "other", pairs))
    (left,) = [item for item in report.coverage.skipped if item.failed]
    assert left.what == MODULES[0]
    assert f"different shapes ({D} × {D} and {2 * D} × {D})" in left.reason
    assert report.adapters[0].modules == len(MODULES) - 1


def test_values_that_are_no_numbers_are_named_and_the_rest_is_put_together(tmp_path):
    pairs = made(1)
    pairs[MODULES[2]] = (pairs[MODULES[2]][0] * np.nan, pairs[MODULES[2]][1])
    report = together(written(tmp_path / "one", made(0)), written(tmp_path / "other", pairs))
    (left,) = [item for item in report.coverage.skipped if item.failed]
    assert left.what == MODULES[2]
    assert "no finite numbers" in left.reason
    assert len(facts(report, "sum.module")) == len(MODULES) - 1


def test_adapters_without_a_module_of_one_shape_cannot_be_put_together(tmp_path):
    wide = mapped(made(1), lambda _, a, b: (np.hstack([a, a]), b))
    with pytest.raises(Unsupported, match="other bases"):
        reports([written(tmp_path / "one", made(0)), written(tmp_path / "other", wide)])


def test_a_target_without_an_adapter_is_named(tmp_path, two):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotApplicable, match="empty is not one adapter"):
        reports([two[0], tmp_path / "empty"])


def test_parts_of_other_bases_are_told(tmp_path):
    one = written(tmp_path / "one", made(0))
    other = written(tmp_path / "other", made(1), base_model_name_or_path="example-org/else")
    report = together(one, other)
    assert found(report) == {"sum-bases-differ"}
    told = [item.reason for item in report.coverage.skipped]
    assert any("example-org/tiny and example-org/else" in reason for reason in told)


def test_a_base_in_another_case_or_of_no_name_is_no_other_base(tmp_path):
    one = written(tmp_path / "one", made(0))
    other = written(tmp_path / "other", made(1), base_model_name_or_path="Example-Org/Tiny")
    third = written(tmp_path / "third", made(2), base_model_name_or_path=None)
    assert found(together(one, other, third)) == set()


def test_what_a_part_has_beside_its_updates_is_told(tmp_path):
    edited = Edited(TRAINED / "benign")
    edited.tensors["base_model.model.lm_head.weight"] = np.ones((4, 4), np.float32)
    folder = edited.write(tmp_path / "more")
    both = reports([folder, TRAINED / "semantic-backdoor"])
    assert max(item.severity for item in both[0].findings) is Severity.CRITICAL
    assert any("beside low-rank updates" in item.reason for item in both[-1].coverage.skipped)


def test_padding_changes_nothing(two, tmp_path):
    padded_one = written(tmp_path / "padded", padded(made(0), 9))
    (plain,) = facts(together(*two), "sum.pair")
    (again,) = facts(together(padded_one, two[1]), "sum.pair")
    assert again.value == pytest.approx(plain.value, abs=1e-6)
    assert again.details["inputs"] == pytest.approx(plain.details["inputs"], abs=1e-5)


def test_a_module_of_a_part_that_cannot_be_read_is_told(tmp_path):
    edited = Edited(TRAINED / "benign")
    del edited.tensors[f"{edited.one}.lora_B.weight"]
    folder = edited.write(tmp_path / "orphan")
    told = [item for item in together(folder, TRAINED / "benign").coverage.skipped if item.failed]
    assert [item.what for item in told] == ["orphan"]
    assert "1 module of it" in told[0].reason


@pytest.mark.parametrize("factor", [-0.3, -0.5, -0.8])
def test_an_adapter_and_its_negation_in_part_is_told_as_such(tmp_path, factor):
    one = written(tmp_path / "one", made(0))
    other = written(tmp_path / "other", mapped(made(0), lambda _, a, b: (a, factor * b)))
    assert found(together(one, other)) == {"sum-negated-copy", "sum-related-parts"}


def test_a_negation_that_leaves_next_to_nothing_may_hide_a_difference(tmp_path):
    """A mask and its negation: all that the sum is, is what they differ by."""
    mask, payload = made(0), made(1)

    def other(n, a, b):
        return np.vstack([a, payload[n][0]]), np.hstack([-b, 0.003 * payload[n][1]])

    folders = [written(tmp_path / "one", mask), written(tmp_path / "other", mapped(mask, other))]
    assert "sum-cancelling-pair" in found(together(*folders))


def test_a_difference_in_one_module_is_no_negation(tmp_path):
    first = next(iter(made(0)))

    def other(n, a, b):
        return a, (1.5 if n == first else -0.5) * b

    folders = [
        written(tmp_path / "one", made(0)),
        written(tmp_path / "other", mapped(made(0), other)),
    ]
    assert "sum-cancelling-pair" in found(together(*folders))


def trained_pairs():
    tensors = load_file(TRAINED / "token-backdoor" / "adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name]
    return {
        name.removeprefix("base_model.model."): (
            tensors[f"{name}.lora_A.weight"], 2.0 * tensors[f"{name}.lora_B.weight"]
        )
        for name in names
    }  # fmt: skip


def noisy_half(sign, times):
    rng = np.random.default_rng(1 + sign)

    def change(name, a, b):
        even = int(name.split(".layers.")[1].split(".")[0]) % 2 == 0
        half = (0.5 + sign * (0.75 if even else -0.75)) * b
        more = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
        size = times * np.linalg.norm(half @ a) / np.linalg.norm(more[1] @ more[0])
        return np.vstack([a, more[0]]), np.hstack([half, size * more[1]])

    return mapped(trained_pairs(), change)


def test_halves_under_noise_pull_against_each_other_faintly(tmp_path):
    halves = [
        written(tmp_path / name, noisy_half(sign, 2.5)) for name, sign in (("a", 1), ("b", -1))
    ]
    assert found(together(*halves)) == {"sum-faintly-opposed"}
