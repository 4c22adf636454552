"""AdaLoRA's factors: which tensors, which scale, and what is no ΔW; `make oracle` asks PEFT."""

import pytest

from tests.formats.test_peft_overwrites import adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"
ADA = '"peft_type": "ADALORA", "target_modules": ["q_proj"]'


def parts(rank=4, module=Q, ending=""):
    return [
        (f"{module}.lora_A{ending}", (rank, 32)),
        (f"{module}.lora_B{ending}", (32, rank)),
        (f"{module}.lora_E{ending}", (rank, 1)),
    ]


def built(fields="", names=None):
    return adapter(names or parts(), ", ".join(filter(None, (ADA, fields))))


@pytest.mark.parametrize(
    ("fields", "scaling"),
    [
        ('"lora_alpha": 8, "init_r": 4', 8 / (4 + 1e-5)),
        ('"lora_alpha": 8', 8 / (12 + 1e-5)),
        ('"init_r": 4', 8 / (4 + 1e-5)),
        ('"lora_alpha": 0, "init_r": 8', 4 / (8 + 1e-5)),
        ('"lora_alpha": -1, "init_r": 8', 4 / (8 + 1e-5)),
        ('"lora_alpha": NaN, "init_r": 8', 4 / (8 + 1e-5)),
        ('"lora_alpha": 8, "init_r": 4, "r": 64, "use_rslora": true', 8 / (4 + 1e-5)),
        ('"lora_alpha": 8, "init_r": 4, "alpha_pattern": {"q_proj": 99}', 8 / (4 + 1e-5)),
        ('"lora_alpha": 8, "init_r": true', 8 / (12 + 1e-5)),
    ],
)
def test_the_scale_is_alpha_over_the_first_rank(fields, scaling):
    (delta,) = built(fields).deltas
    assert delta.scaling == pytest.approx(scaling, rel=1e-12)
    assert delta.diag.name == f"{Q}.lora_E"


def test_the_name_of_the_adapter_may_be_left_in():
    assert len(built(names=parts(ending=".default")).deltas) == 1


@pytest.mark.parametrize(
    ("names", "defect"),
    [
        (parts()[:2], "orphan"),
        (parts()[1:], "orphan"),
        ([*parts()[:2], (f"{Q}.lora_E", (3, 1))], "shape"),
        ([(f"{Q}.lora_A", (4,)), *parts()[1:]], "shape"),
        ([*parts(), (f"{Q}.lora_E.default", (4, 1))], "ambiguous"),
        ([*parts(), *parts(module=Q.removeprefix("base_model.model."))], "ambiguous"),
    ],
)
def test_what_is_no_update_is_a_problem(names, defect):
    made = built(names=names)
    assert not made.deltas
    assert [problem.defect for problem in made.problems] == [defect]
