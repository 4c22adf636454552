"""What each runtime makes of the same bytes: recorded from the runtimes by `make oracle`."""

import math

import pytest

from adapterscan.formats.runtimes import RUNTIMES, readings
from tests.formats.test_peft_overwrites import LAYER, adapter, pair

Q, V = f"{LAYER}.self_attn.q_proj", f"{LAYER}.self_attn.v_proj"
HEAD = '"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"]'
BOTH = (*pair(Q), *pair(V))
NAMES = [runtime.name for runtime in RUNTIMES]


def said(config="", names=BOTH, head=HEAD, alpha='"lora_alpha": 8'):
    """Return by runtime: the scales of all modules, or why it refuses."""
    built = adapter(names, ", ".join(filter(None, (head, alpha, config))))
    return {
        runtime.name: reading.refuses or list(reading.scales)
        for runtime, reading in readings(built)
    }


def test_runtimes_agree_on_a_plain_adapter():
    assert list(said().items()) == [(name, [2.0, 2.0]) for name in NAMES]


def test_an_alpha_of_zero_is_unset_to_llama_cpp():
    found = said(alpha='"lora_alpha": 0')
    assert found.pop("llama.cpp") == [1.0, 1.0]
    assert set(map(tuple, found.values())) == {(0.0, 0.0)}


def test_rslora_is_not_read_by_sglang_and_llama_cpp():
    found = said('"use_rslora": true')
    assert {name for name, scales in found.items() if scales == [2.0, 2.0]} == {
        "SGLang",
        "llama.cpp",
    }
    assert found["vLLM"] == found["PEFT"] == [4.0, 4.0]


def test_patterns_are_read_by_peft_and_by_vllm_since_0_32():
    found = said('"alpha_pattern": {"v_proj": 0.5}')
    assert {name for name, scales in found.items() if scales == [2.0, 0.125]} == {
        "PEFT",
        "transformers",
        "vLLM",
    }


def test_a_rank_of_the_config_counts_in_servers_and_one_of_the_tensors_in_llama_cpp():
    found = said(head=HEAD.replace('"r": 4', '"r": 2'))
    assert "rank" in found["PEFT"]
    assert "rank" in found["SGLang"]
    assert (found["vLLM"], found["llama.cpp"]) == ([4.0, 4.0], [2.0, 2.0])


def test_what_is_not_targeted_is_applied_by_vllm_and_llama_cpp():
    found = said(head=HEAD.replace(', "v_proj"', ""))
    assert {name for name, scales in found.items() if scales == [2.0, 0.0]} == {
        "PEFT",
        "transformers",
    }
    assert found["vLLM"] == found["llama.cpp"] == [2.0, 2.0]
    assert found["SGLang"] == [2.0, 2.0], "q and v are one stacked layer there"


@pytest.mark.parametrize(
    "fields",
    [
        '"exclude_modules": ["v_proj"]',
        r'"exclude_modules": ".*\\.v_proj"',
        '"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj"], "layers_to_transform": 1',
    ],
)
def test_what_is_excluded_is_not_targeted(fields):
    assert said(fields)["PEFT"] == [2.0, 0.0]


def test_layers_that_are_not_transformed_are_not_targeted():
    names = [*pair(Q), *pair(Q.replace("layers.0", "layers.1"))]
    assert said('"layers_to_transform": [1]', names)["PEFT"] == [0.0, 2.0]
    one = '"layers_to_transform": [1], "layers_pattern": ["layers"]'
    assert said(one, names)["PEFT"] == [0.0, 2.0]
    other = '"layers_to_transform": [1], "layers_pattern": "blocks"'
    assert said(other, names)["PEFT"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("before", "loads"),
    [
        ("base_model.model.", {"PEFT", "transformers", "vLLM", "vLLM before 0.32", "llama.cpp"}),
        ("", {"transformers", "vLLM", "vLLM before 0.32", "llama.cpp"}),
        (
            "base_model.model.base_model.model.",
            {"transformers", "vLLM", "vLLM before 0.32", "llama.cpp"},
        ),
        ("module.base_model.model.", set()),
        ("base_model.model._orig_mod.", set()),
    ],
)
def test_the_prefix_decides_who_loads_it(before, loads):
    module = f"{before}model.layers.0.self_attn.q_proj"
    found = said(names=pair(module))
    assert {name for name, scales in found.items() if scales == [2.0]} == {*loads, "SGLang"}


def test_the_name_of_the_adapter_is_known_to_peft_and_to_who_does_not_look():
    found = said(names=pair(Q, name="default"))
    assert {name for name, scales in found.items() if scales == [2.0]} == {"PEFT", "SGLang"}
    assert found["transformers"] == [0.0]


@pytest.mark.parametrize(
    ("field", "refuse"),
    [
        ('"use_dora": true', {"vLLM", "vLLM before 0.32", "SGLang"}),
        ('"bias": "all"', {"vLLM", "vLLM before 0.32"}),
        ('"modules_to_save": ["lm_head"]', {"vLLM", "vLLM before 0.32"}),
        ('"modules_to_save": ["score"]', set()),
        ('"alora_invocation_tokens": [1]', {"vLLM"}),
        ('"layer_replication": [[0, 1], [0, 1]]', {"vLLM"}),
        ('"init_lora_weights": "pissa"', {"vLLM"}),
        ('"init_lora_weights": "gaussian"', set()),
    ],
)
def test_who_refuses_it(field, refuse):
    assert {name for name, reply in said(field).items() if isinstance(reply, str)} == refuse


def test_what_has_no_alpha_is_refused_by_servers():
    found = said(alpha="")
    assert found["PEFT"] == [2.0, 2.0], "its default is 8"
    assert {reply for name, reply in found.items() if isinstance(reply, str)} == {"no lora_alpha"}


def test_a_rank_over_every_setting_is_refused_by_vllm_alone():
    head = HEAD.replace('"r": 4', '"r": 600')
    found = said(names=pair(Q, 600), head=head)
    assert {name for name, reply in found.items() if isinstance(reply, str)} == {
        "vLLM",
        "vLLM before 0.32",
    }


def test_a_full_tensor_stops_vllm_and_the_converter_of_llama_cpp():
    found = said(names=[*BOTH, "base_model.model.lm_head.weight"])
    assert {name for name, reply in found.items() if isinstance(reply, str)} == {
        "vLLM",
        "vLLM before 0.32",
        "llama.cpp",
    }


def test_a_rank_of_zero_is_not_divided_by():
    found = said(head=HEAD.replace('"r": 4', '"r": 0'))
    assert found["vLLM"] == "r is not positive"
    assert "rank 4" in found["PEFT"]


def test_an_alpha_that_is_no_number_stays_none():
    assert all(map(math.isnan, said(alpha='"lora_alpha": NaN')["llama.cpp"]))
