"""What a loader does with each key: the accounting of tensors, its evasions, ranks and scales."""

import re

import pytest

from adapterscan.formats import deltas
from adapterscan.formats.accounting import Role
from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.patterns import keyed, match_all
from adapterscan.formats.peft import build_adapter
from adapterscan.formats.tensors import TensorInfo, WeightFile

Q = "base_model.model.model.layers.0.self_attn.q_proj"
DOWN = "base_model.model.model.layers.0.mlp.down_proj"
HEAD = "base_model.model.lm_head"


def config(**fields):
    known = {"path": "adapter_config.json", "peft_type": "LORA", "r": 4, "alpha": 8.0}
    fields.setdefault("target_modules", ("q_proj",))
    return AdapterConfig(**{**known, **fields})


def adapter(shapes, settings=None):
    """Build from {name: shape}; the honest pair of q_proj comes along."""
    shapes = {f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (8, 4), **shapes}
    tensors, at = [], 0
    for name, shape in shapes.items():
        tensors.append(TensorInfo(name, "F32", shape, at, 4 * shape[0]))
        at += 4 * shape[0]
    weights = WeightFile("adapter_model.safetensors", "safetensors", tuple(tensors))
    return build_adapter("", settings or config(), weights)


def role(name, settings=None, **others):
    built = adapter({name: (8,), **dict.fromkeys(others.get("also", ()), (8, 4))}, settings)
    return next(item.role for item in built.accounted if item.tensor.name == name)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (f"{Q}.lora_B.bias", {"raw": {"lora_bias": True}}),
        (f"{Q}.lora_magnitude_vector", {"dora": True}),
        (f"{Q}.lora_diag", {"raw": {"kasa_config": {"beta": 1e-4}}}),
        (f"{Q}.lora_velora_embed", {}),
        (f"{Q}.lora_monteclora_sampler.expert_weights", {}),
        (f"{Q}.lora_monteclora_sampler.std_prior", {}),
        ("base_model.model.model.embed_tokens.lora_embedding_A", {}),
        (
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            {"trainable_tokens": True},
        ),
    ],
)
def test_what_peft_saves_for_a_lora_is_an_adapter_weight(name, settings):
    assert role(name, config(**settings)) is Role.ADAPTER


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (f"{HEAD}.weight", {"modules_to_save": ("lm_head",)}),
        (
            "base_model.model.model.layers.1.input_layernorm.weight",
            {"modules_to_save": ("norm",)},
        ),
        ("base_model.model.score.weight", {"task_type": "SEQ_CLS"}),
        (f"{DOWN}.bias", {"bias": "all"}),
        (f"{Q}.bias", {"bias": "lora_only"}),
        (f"{HEAD}.modules_to_save.default.weight", {"modules_to_save": ("lm_head",)}),
    ],
)
def test_what_the_config_declares_is_declared(name, settings):
    assert role(name, config(**settings)) is Role.DECLARED


@pytest.mark.parametrize(
    "name",
    [
        f"{DOWN}.weight",
        "base_model.model.model.layers.0.input_layernorm.weight",
        f"{Q}.base_layer.weight",
        f"{HEAD}.weight",
        "module.base_model.model.model.layers.0.mlp.down_proj.weight",
        "base_model.model._orig_mod.model.layers.0.mlp.down_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "lm_head.weight",
        "base_model.model.model.layers.0.mlp.experts.gate_up_proj",
        "base_model.model.model.layers.0.mlp.gate.e_score_correction_bias",
        "base_model.model.model.rotary_emb.inv_freq",
    ],
)
def test_a_key_that_could_name_a_base_parameter_is_an_overwrite(name):
    assert role(name) in (Role.OVERWRITE, Role.EMBEDDING)


@pytest.mark.parametrize("entries", [("",), ("weight",), (".weight",), ("up_proj",)])
def test_modules_to_save_that_names_no_module_declares_nothing(entries):
    assert role(f"{DOWN}.weight", config(modules_to_save=entries)) is Role.OVERWRITE


def test_bias_all_declares_biases_and_nothing_else():
    assert role(f"{DOWN}.weight", config(bias="all")) is Role.OVERWRITE


@pytest.mark.parametrize(
    "name", [f"{HEAD}.original_module.weight", f"{HEAD}.modules_to_save.tenant.weight"]
)
def test_a_key_behind_the_copy_that_modules_to_save_makes_is_an_overwrite(name):
    assert role(name, config(modules_to_save=("lm_head",))) is Role.OVERWRITE


CLASSIFIER = "base_model.model.classifier"


@pytest.mark.parametrize("copy", ["original_module", "modules_to_save"])
def test_the_bias_of_a_saved_modules_copy_is_declared_by_bias_all(copy):
    settings = config(bias="all", modules_to_save=("classifier",))
    name = f"{CLASSIFIER}.{copy}.dense.bias"
    assert role(name, settings, also=(f"{CLASSIFIER}.dense.bias",)) is Role.DECLARED


@pytest.mark.parametrize(
    ("name", "also", "settings"),
    [
        ("original_module.dense.weight", "dense.weight", {"bias": "all"}),
        ("modules_to_save.tenant.bias", "bias", {"bias": "all"}),
        ("original_module.dense.bias", "dense.bias", {"bias": "none"}),
        ("original_module.dense.bias", "dense.bias", {"bias": "all", "modules_to_save": ()}),
    ],
)
def test_nothing_else_behind_a_copy_is_declared_by_bias_all(name, also, settings):
    settings = config(**{"modules_to_save": ("classifier",), **settings})
    found = role(f"{CLASSIFIER}.{name}", settings, also=(f"{CLASSIFIER}.{also}",))
    assert found is Role.OVERWRITE


def test_the_base_layer_of_a_targeted_head_is_declared():
    both = (f"{HEAD}.lora_A.weight", f"{HEAD}.lora_B.weight")
    settings = config(target_modules=("q_proj", "lm_head"))
    assert role(f"{HEAD}.base_layer.weight", settings, also=both) is Role.DECLARED


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_modules": "all-linear"},
        {"target_modules": ("lm_head",), "raw": {"layers_to_transform": [0]}},
        {"target_modules": ("lm_head",), "raw": {"exclude_modules": ["lm_head"]}},
        {"target_parameters": ("x",)},
    ],
)
def test_factors_that_nothing_targets_do_not_declare_a_new_head(changes):
    both = (f"{HEAD}.lora_A.weight", f"{HEAD}.lora_B.weight")
    found = role(f"{HEAD}.base_layer.weight", config(**changes), also=both)
    assert found is Role.OVERWRITE


@pytest.mark.parametrize(
    "name",
    [
        f"{DOWN}.lora_A.weight.extra",
        f"{DOWN}.lora_A.foo.bar.weight",
        f"{DOWN}.lora_A.bias",
        f"{DOWN}.lora_A",
        "base_model.model.lora_A.weight",
        "lora_A.weight",
        f"{Q}.lora_B.bias",
        f"{Q}.lora_magnitude_vector",
        f"{Q}.lora_diag",
        f"{Q}.hada_w1_a",
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    ],
)
def test_a_key_that_only_looks_like_a_factor_is_not_an_adapter_weight(name):
    assert role(name) is Role.UNMATCHED


def test_a_factor_under_another_adapters_name_is_an_overwrite():
    assert role(f"{DOWN}.lora_A.tenant.weight") is Role.OVERWRITE


def test_a_save_that_leaves_the_adapters_name_in_is_an_adapter():
    names = {f"{DOWN}.lora_A.default.weight": (4, 8), f"{DOWN}.lora_B.default.weight": (8, 4)}
    built = adapter(names)
    assert {item.role for item in built.accounted} == {Role.ADAPTER}
    assert len(built.deltas) == 2


@pytest.mark.parametrize(
    "decoy",
    [
        f"{Q}.lora_A.default.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        f"module.{Q}.lora_A.weight",
    ],
)
def test_a_second_tensor_for_one_factor_is_never_measured_in_its_place(decoy):
    built = adapter({decoy: (4, 8)})
    assert [problem.defect for problem in built.problems] == ["ambiguous"]
    assert built.deltas == ()
    (second,) = (item for item in built.accounted if item.role is Role.UNMATCHED)
    assert second.tensor.name == decoy


def test_a_diagonal_that_peft_would_not_use_does_not_shrink_the_delta():
    assert adapter({f"{Q}.lora_diag": (4,)}).deltas[0].diag is None


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [
        ({}, 2.0),
        ({"rslora": True}, 4.0),
        ({"alpha": None}, 2.0),
        ({"alpha_pattern": {"q_proj": 400.0}}, 100.0),
        ({"alpha_pattern": {r"layers\.0": 4.0, "q_proj": 400.0}}, 100.0),
        ({"alpha_pattern": {"self_attn.q_proj": 4.0, "q_proj": 400.0}}, 1.0),
        ({"alpha_pattern": {"proj": 400.0}}, 2.0),
        ({"alpha_pattern": {r".*_proj": 40.0, "q_proj": 400.0}}, 10.0),
        ({"alpha_pattern": {"layers)|(zzz": 400.0}}, 100.0),
        ({"alpha": -8.0}, -2.0),
    ],
)
def test_the_scale_is_what_peft_computes(settings, scaling):
    assert adapter({}, config(**settings)).deltas[0].scaling == scaling


@pytest.mark.parametrize(
    "key",
    [
        "q_proj",
        "self_attn.q_proj",
        r"layers\.[0-3]\..*",
        "layers)|(zzz",
        "^model",
        "k|q_proj",
        "q.",
    ],
)
def test_a_pattern_key_matches_as_in_get_pattern_key(key):
    names = ["model.layers.0.self_attn.q_proj", "q_proj", "xq_proj", "model.layers", "qq", "k"]
    expected = {name for name in names if re.match(rf"(.*\.)?({key})$", name)}
    assert match_all([keyed(key)], names)[keyed(key)].names == expected


def test_a_config_with_more_patterns_than_peft_can_follow_is_given_up_at_once():
    names = [f"model.layers.{number}.q_proj" for number in range(1000)]
    answers = match_all([keyed(f"m{number}") for number in range(6000)], names)
    assert {answer.problem for answer in answers.values()} == {"timeout"}


def test_a_module_that_would_go_over_the_limit_of_updates_is_left_out_whole(monkeypatch):
    monkeypatch.setattr(deltas, "DELTA_LIMIT", 10)
    experts = "base_model.model.model.layers.0.mlp.experts"
    shapes = {f"{experts}.lora_A.weight": (40, 8), f"{experts}.lora_B.weight": (8, 40)}
    built = adapter(shapes, config(target_parameters=("mlp.experts.down_proj",)))
    assert [delta.module for delta in built.deltas] == ["model.layers.0.self_attn.q_proj"]
    assert [problem.defect for problem in built.problems] == ["unread"]
