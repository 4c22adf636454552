"""What an adapter does beside its B·A, and what of it could not be measured."""

import math

import numpy as np
import pytest

from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.containers import Tensor
from fixtures.folder import config, save

Q = "base_model.model.model.layers.0.self_attn.q_proj"
HEAD = "base_model.model.lm_head.weight"


def f32(values):
    values = np.asarray(values, np.float32)
    return Tensor("F32", values.shape, values.tobytes())


def zero_b(**others):
    pair = {f"{Q}.lora_A.weight": np.ones((4, 8)), f"{Q}.lora_B.weight": np.zeros((8, 4))}
    return {name: f32(values) for name, values in (pair | others).items()}


def scanned(folder, tensors, **changes):
    save(folder, config(target_modules=["q_proj"], **changes), tensors)
    return scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())


def no_effect(report):
    return any(item.name == "adapter.no_effect" for item in report.evidence)


def values(report):
    return {e.subject.name: e for e in report.evidence if e.name == "tensor.values"}


@pytest.mark.parametrize(
    ("others", "changes"),
    [
        ({}, {}),
        ({f"{Q}.lora_B.bias": np.zeros(8)}, {"lora_bias": True}),
    ],
)
def test_an_adapter_of_zeros_changes_nothing(tmp_path, others, changes):
    assert no_effect(scanned(tmp_path, zero_b(**others), **changes))


@pytest.mark.parametrize(
    ("others", "changes"),
    [
        ({f"{Q}.lora_B.bias": np.full(8, 50.0)}, {"lora_bias": True}),
        ({f"{Q}.lora_B.bias": np.full(8, np.nan)}, {"lora_bias": True}),
        ({f"{Q}.lora_B.bias": np.full(8, 50.0)}, {}),
        ({f"{Q}.lora_magnitude_vector": np.zeros(8)}, {"use_dora": True}),
        ({f"{Q}.lora_diag": np.ones(4)}, {"kasa_config": {"beta": 1e-4}}),
        ({HEAD: np.zeros((8, 8))}, {"modules_to_save": ["lm_head"]}),
        ({f"{Q}.bias": np.zeros(8)}, {"bias": "lora_only"}),
        ({f"{Q}.base_layer.weight": np.zeros((8, 8))}, {}),
        (
            {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta":
             np.zeros((2, 8))},
            {"trainable_token_indices": {"embed_tokens": [1, 2]}},
        ),
        ({"base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight": np.zeros((8, 4))}, {}),
    ],
)  # fmt: skip
def test_an_adapter_that_acts_beside_its_deltas_is_not_said_to_change_nothing(
    tmp_path, others, changes
):
    assert not no_effect(scanned(tmp_path, zero_b(**others), **changes))


def test_a_module_of_two_kinds_of_factors_is_not_measured_as_the_empty_kind(tmp_path):
    decoy = {f"{Q}.lora_embedding_A": np.zeros((4, 8)), f"{Q}.lora_embedding_B": np.zeros((8, 4))}
    payload = zero_b(**{f"{Q}.lora_B.weight": np.ones((8, 4))}, **decoy)
    report = scanned(tmp_path, payload)
    assert not no_effect(report)
    assert not report.coverage.complete


def test_the_size_of_what_is_no_factor_is_told(tmp_path):
    bias = f"{Q}.lora_B.bias"
    found = values(scanned(tmp_path, zero_b(**{bias: [3, 0, 0, -3]}), lora_bias=True))
    assert set(found) == {bias}
    assert found[bias].value == pytest.approx(3 / math.sqrt(2))
    assert found[bias].details == {"elements": 4, "zeros": 0.5, "role": "adapter weight"}


def test_modules_that_are_not_finite_make_the_scan_incomplete(tmp_path):
    pairs = {
        f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{part}.weight":
        f32(np.full((4, 4), np.nan if i < 2 else 1.0))
        for i in range(3) for part in "AB"
    }  # fmt: skip
    report = scanned(tmp_path, pairs)
    (skipped,) = [item for item in report.coverage.skipped if item.failed]
    assert "layers.0.self_attn.q_proj and 1 more module" in skipped.what
    assert "NaN" in skipped.reason


def full_places(report):
    found = (e for e in report.evidence if e.name == "tensor.declared_full")
    return {(e.details["place"], e.details["field"]) for e in found}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("lm_head.weight", {"modules_to_save": ["lm_head"]}, ("embedding", "modules_to_save")),
        ("lm_head.base_layer.weight", {"target_modules": ["q_proj", "lm_head"]},
         ("base layer", "target_modules")),
        ("model.layers.0.input_layernorm.weight", {"modules_to_save": ["norm"]},
         ("layer vector", "modules_to_save")),
        ("model.layers.0.self_attn.q_proj.bias", {"bias": "all"}, ("layer vector", "bias")),
    ],
)  # fmt: skip
def test_a_declared_tensor_says_where_it_stands_and_by_what(tmp_path, name, changes, expected):
    head = {f"base_model.model.lm_head.lora_{part}.weight": np.ones((2, 2)) for part in "AB"}
    tensor = {f"base_model.model.{name}": np.ones((8, 8) if "base" in name else 8)}
    settings = {"target_modules": ["q_proj"]} | changes
    save(tmp_path, config(**settings), zero_b(**head, **tensor))
    report = scan(open_artifact(parse_ref(str(tmp_path)), HubOptions()), load_rules())
    assert full_places(report) == {expected}
