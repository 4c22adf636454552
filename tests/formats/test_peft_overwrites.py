"""Which names reach the base model: recorded from PEFT and transformers by `make oracle`."""

import pytest

from adapterscan.formats.accounting import Role
from adapterscan.formats.config import AdapterConfig, read_config
from adapterscan.formats.peft import build_adapter
from adapterscan.formats.tensors import TensorInfo, WeightFile

LAYER = "base_model.model.model.layers.0"
QV = '"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]'


def adapter(names, config=QV):
    """Build an adapter of these tensors: (name, shape), or a name alone for a (4, 32)."""
    named = [item if isinstance(item, tuple) else (item, (4, 32)) for item in names]
    tensors = tuple(TensorInfo(name, "F32", shape, 0, 0) for name, shape in named)
    settings = read_config(f"{{{config}}}".encode(), "adapter_config.json") if config else None
    weights = WeightFile("adapter_model.safetensors", "safetensors", tensors)
    return build_adapter("", settings or AdapterConfig(path=""), weights)


def pair(module, rank=4, name=""):
    """Return the names and shapes of both factors of `module`."""
    infix = f".{name}" if name else ""
    return [
        (f"{module}.lora_A{infix}.weight", (rank, 32)),
        (f"{module}.lora_B{infix}.weight", (32, rank)),
    ]


def role(extra, config=QV):
    """Return the role of `extra` beside an honest pair of factors."""
    built = adapter([*pair(f"{LAYER}.self_attn.q_proj"), extra], config)
    return next(item.role for item in built.accounted if item.tensor.name == extra)


#: Each of these changed a parameter of the base through at least one loader (peft 0.21.2,
#: transformers 5.23). The first six are what earlier versions of this code called unmatched.
REACHES = (
    "layers.0.mlp.experts.gate_up_proj",
    "layers.0.mlp.experts.down_proj",
    "layers.0.self_attn.sinks",
    "layers.0.mlp.experts.gate_up_proj_bias",
    "base_model-model-model.layers.0.mlp.experts.gate_up_proj",
    "base_model-model-model.layers.0.self_attn.sinks",
    f"{LAYER}.mlp.down_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "layers.0.mlp.down_proj.weight",
    "base_model.model.layers.0.mlp.down_proj.weight",
    "base_model.model.model.model.layers.0.mlp.down_proj.weight",
    "base_model.model.base_model.model.model.layers.0.mlp.down_proj.weight",
    "model.layers.0.mlp.base_model.model.down_proj.weight",
    f"{LAYER}.self_attn.q_proj.base_layer.weight",
    f"{LAYER}.self_attn.q_proj.base_layer.bias",
    "model.layers.0.self_attn.q_proj.base_layer.weight",
    f"{LAYER}.mlp.experts.base_layer.gate_up_proj",
    "base_model.model.lm_head.original_module.weight",
    "lm_head.original_module.weight",
    "base_model.model.model.embed_tokens.token_adapter.base_layer.weight",
    "model.embed_tokens.token_adapter.base_layer.weight",
    "model.layers.0.block_sparse_moe.gate.weight",
    "base_model.model.lm_head.weight",
)

#: Not recorded, but alike: a buffer, a parameter at the root, a factor that the base itself has.
ALIKE = (
    "layers.0.mlp.router.e_score_correction_bias",
    "logit_scale",
    "model.layers.0.input_layernorm.gamma",
    "base_model.model.layers.0.mixer.Wqkv.parametrizations.weight.0.lora_A",
)


@pytest.mark.parametrize("name", REACHES + ALIKE)
def test_a_name_that_reaches_the_base_is_an_overwrite(name):
    assert role(name) in (Role.OVERWRITE, Role.EMBEDDING)


#: None of these changed anything in the base, through any loader.
STAYS = (
    f"{LAYER}.mlp.down_proj.lora_A.foo.bar.weight",
    f"{LAYER}.mlp.down_proj.lora_magnitude_vector",
    f"{LAYER}.mlp.down_proj.lora_diag",
    f"{LAYER}.self_attn.q_proj.lora_A.bias",
    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    "lora_A.model.layers.0.mlp.down_proj.weight",
    "prompt_embeddings.model.layers.0.mlp.down_proj.weight",
    "payload.0",
    "step",
)


@pytest.mark.parametrize("name", STAYS)
def test_a_name_that_reached_nothing_is_unmatched(name):
    assert role(name) is Role.UNMATCHED


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("base_model.model.lm_head.weight", QV + ', "modules_to_save": ["lm_head"]'),
        (f"{LAYER}.input_layernorm.weight", QV + ', "modules_to_save": ["norm"]'),
        (f"{LAYER}.self_attn.q_proj.base_layer.bias", QV + ', "bias": "lora_only"'),
        ("base_model.model.score.weight", QV + ', "task_type": "SEQ_CLS"'),
    ],
)
def test_what_the_config_declares_is_declared(name, config):
    assert role(name, config) is Role.DECLARED


def test_declaring_a_module_does_not_declare_what_stands_behind_its_copy():
    config = QV + ', "modules_to_save": ["lm_head"]'
    assert role("base_model.model.lm_head.original_module.weight", config) is Role.OVERWRITE


@pytest.mark.parametrize(
    "factor",
    ["q_proj.lora_A.other.weight", "q_proj.lora_embedding_A.other",
     "q_proj.lora_magnitude_vector.other.weight", "q_proj.lora_diag.other"],
)  # fmt: skip
def test_a_factor_of_another_adapter_is_an_overwrite(factor):
    assert role(f"{LAYER}.self_attn.{factor}") is Role.OVERWRITE


def test_a_head_that_weight_tying_adapts_is_declared_and_targeted():
    config = QV.replace('"q_proj", "v_proj"', '"embed_tokens"') + ', "ensure_weight_tying": true'
    embedding, head = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
    built = adapter(
        [
            f"{embedding}.lora_embedding_A", (f"{embedding}.lora_embedding_B", (32, 4)),
            f"{embedding}.base_layer.weight", *pair(head), f"{head}.base_layer.weight",
        ],
        config,
    )  # fmt: skip
    assert {item.role for item in built.accounted} == {Role.ADAPTER, Role.DECLARED}
    assert not built.untargeted


def test_all_linear_is_read_in_any_case():
    config = QV.replace('["q_proj", "v_proj"]', '"All-Linear"')
    assert not adapter(pair(f"{LAYER}.self_attn.q_proj"), config).untargeted


EXPERTS = QV.replace('"q_proj", "v_proj"', "") + (
    ', "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]'
)


def wrappers(outer, inner):
    """Return the factors of two parameters of one module, of 3 experts each."""
    module = f"{LAYER}.mlp.experts"
    return [*pair(module, 3 * outer), *pair(f"{module}.base_layer", 3 * inner)]


def test_parameters_of_one_module_are_told_apart_by_their_number_of_experts():
    config = EXPERTS + ', "rank_pattern": {"gate_up_proj": 2}, "alpha_pattern": {"down_proj": 5}'
    built = adapter(wrappers(outer=4, inner=2), config)
    found = {delta.name: (delta.rank, delta.scaling) for delta in built.deltas}
    assert found["model.layers.0.mlp.experts[0]"] == (4, 5 / 4)
    assert found["model.layers.0.mlp.experts.base_layer[2]"] == (2, 8 / 2)


def test_parameters_that_differ_only_in_scale_are_not_guessed():
    config = EXPERTS + ', "alpha_pattern": {"down_proj": 5}'
    built = adapter(wrappers(outer=4, inner=4), config)
    assert not built.deltas
    assert {problem.defect for problem in built.problems} == {"unread"}


def test_block_diagonal_factors_are_reported_as_not_read():
    built = adapter(pair(f"{LAYER}.self_attn.q_proj"), QV + ', "use_bdlora": {"nblocks": 2}')
    assert not built.deltas
    assert [problem.defect for problem in built.problems] == ["unread"]
