"""The scale that we say each runtime applies, against the runtime or its own code."""

import json
import math
import subprocess

import peft
import pytest
from safetensors.torch import load_file, save_file

from adapterscan.formats.loading import Settings
from adapterscan.formats.runtimes import readings
from tests.oracle import sources
from tests.oracle.bases import base
from tests.oracle.measure import look, save
from tests.oracle.variants import ATTENTION

PREFIX = "base_model.model."
#: Options of LoraConfig, then fields of the saved config that are changed afterwards.
CASES = {
    "plain": ({}, {}),
    "rsLoRA": ({"use_rslora": True}, {}),
    "alpha 0": ({}, {"lora_alpha": 0}),
    "negative alpha": ({}, {"lora_alpha": -3}),
    "alpha_pattern": ({"alpha_pattern": {"v_proj": 3, r"layers\.1\..*": 12}}, {}),
    "alpha_pattern of 0": ({"alpha_pattern": {"v_proj": 0}}, {}),
    "alpha_pattern, muted": ({}, {"alpha_pattern": {".*": 0.01}}),
    "rank_pattern": ({"rank_pattern": {"q_proj": 2, "k_proj": 8}}, {}),
    "rsLoRA with patterns": (
        {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 3}}, {}
    ),
    "some are not targeted": ({}, {"target_modules": ["q_proj", "k_proj"]}),
    "none is targeted": ({}, {"target_modules": ["down_proj"]}),
    "some are excluded": ({}, {"exclude_modules": ["k_proj"]}),
    "some are excluded by a pattern": ({}, {"exclude_modules": r".*\.1\..*"}),
    "one layer of two": ({}, {"layers_to_transform": [1]}),
    "one layer of two by its parent": (
        {}, {"layers_to_transform": 0, "layers_pattern": ["layers"]}
    ),
    "a layer of another parent": (
        {"target_modules": ["q_proj", "model.layers.0.self_attn.k_proj"]},
        {"layers_to_transform": 1},
    ),
    "rank of the config is another": ({}, {"r": 2}),
    "DoRA": ({"use_dora": True}, {}),
    "bias": ({"bias": "all"}, {}),
    "lora_bias": ({"lora_bias": True}, {}),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, {}),
    "aLoRA": ({"alora_invocation_tokens": [3, 4]}, {}),
    "PiSSA": ({}, {"init_lora_weights": "pissa"}),
    "no lora_alpha": ({}, {"lora_alpha": None}),
    "a pattern for targets": ({"target_modules": r".*(q|k)_proj"}, {}),
    "all-linear": ({"target_modules": "all-linear"}, {}),
}  # fmt: skip
#: What is done to the names of tensors.
NAMES = {
    "no prefix": lambda name: name.removeprefix(PREFIX),
    "the prefix twice": lambda name: f"{PREFIX}{name}",
    "a wrapper before it": lambda name: f"module.{name}",
    "a wrapper within": lambda name: name.replace("self_attn", "self_attn._orig_mod"),
    "compiled": lambda name: name.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "the adapter's name": lambda name: name.replace(".weight", ".default.weight"),
}


@pytest.fixture(scope="module", params=[*CASES, *NAMES])
def folder(request, tmp_path_factory):
    """Return an adapter of a tiny Llama that PEFT saved, changed as the case says."""
    folder = tmp_path_factory.mktemp("runtimes") / "adapter"
    options, changes = CASES.get(request.param, ({}, {}))
    targets = [name for name in ATTENTION if name != "o_proj"]
    options = {"r": 4, "lora_alpha": 6, "target_modules": targets, **options}
    model = base("biased_llama" if "bias" in options or "lora_bias" in options else "llama")
    model.save_pretrained(folder.parent / "base")
    save(model, peft.LoraConfig(**options), folder)
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(
        json.dumps({k: v for k, v in fields.items() if v is not None or k != "lora_alpha"})
    )
    if request.param in NAMES:
        tensors = load_file(folder / "adapter_model.safetensors")
        renamed = {NAMES[request.param](name): tensor for name, tensor in tensors.items()}
        save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def ours(folder, name):
    """Return (why it refuses, s by module) as we say it of the runtime called `name`."""
    adapter = look(folder).adapter
    reading = next(reading for runtime, reading in readings(adapter) if runtime.name == name)
    modules = [delta.module for delta in adapter.deltas]
    return reading.refuses, dict(zip(modules, reading.scales, strict=True))


def agree(said, found):
    refuses, scales = said
    assert not refuses
    assert {name: round(s, 6) for name, s in scales.items() if s} == {
        name: round(s, 6) for name, s in found.items() if s
    }


def applied(model, prefix):
    """Return s by module of the layers of which a B was loaded: at the start all are zero."""
    return {
        name.removeprefix(prefix): layer.scaling["default"]
        for name, layer in model.named_modules()
        if "default" in getattr(layer, "lora_B", {}) and layer.lora_B["default"].weight.any()
    }


def fresh(folder):
    model = base("llama")
    return type(model).from_pretrained(folder.parent / "base")


def test_peft(folder):
    said = ours(folder, "PEFT")
    try:
        loaded = peft.PeftModel.from_pretrained(fresh(folder), str(folder))
    except RuntimeError:
        assert said[0]
    else:
        agree(said, applied(loaded, PREFIX))


def test_transformers(folder):
    said = ours(folder, "transformers")
    model = fresh(folder)
    try:
        model.load_adapter(str(folder))
    except (RuntimeError, ValueError):
        assert said[0]
    else:
        agree(said, applied(model, ""))


@sources.needs_sources
@pytest.mark.parametrize(("name", "version"), [("vLLM", "0.33.0"), ("vLLM before 0.32", "0.31.0")])
def test_vllm(folder, name, version):
    said = ours(folder, name)
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = Settings.of(look(folder).adapter).adapter.deltas
    try:
        found = sources.vllm(version, folder, tensors, [delta.module for delta in modules])
    except ValueError:
        assert said[0]
    else:
        agree(said, found)


@sources.needs_sources
def test_sglang(folder):
    said = ours(folder, "SGLang")
    deltas = look(folder).adapter.deltas
    try:
        found = sources.sglang(folder, [delta.module for delta in deltas])
    except (ValueError, KeyError):
        assert said[0]
        return
    config = json.loads((folder / "adapter_config.json").read_text())
    # of what its config reader accepts, the manager refuses DoRA and the pool other ranks
    if config["use_dora"] or any(delta.rank != config["r"] for delta in deltas):
        assert said[0]
    else:
        agree(said, found)


@sources.needs_sources
def test_llama_cpp(folder, tmp_path):
    said = ours(folder, "llama.cpp")
    try:
        found = sources.llama_cpp(folder, folder.parent / "base", tmp_path / "adapter.gguf")
    except subprocess.CalledProcessError:
        assert said[0]
    else:
        agree(said, found)
        assert not any(map(math.isnan, found.values()))
