"""What PEFT makes of config fields, where our reading depends on it."""

import json

import peft
import pytest
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file

from adapterscan.formats.accounting import Role
from adapterscan.formats.config import read_config
from adapterscan.formats.peft import build_adapter
from adapterscan.formats.tensors import TensorInfo, WeightFile
from tests.oracle.bases import base
from tests.oracle.measure import error, load, look, save
from tests.oracle.variants import ATTENTION, QV


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves an adapter with these options and returns its folder."""

    def of(name="llama", **options):
        options = {"r": 4, "target_modules": list(QV), "init_lora_weights": False, **options}
        save(base(name), peft.LoraConfig(**options), tmp_path / "adapter")
        return tmp_path / "adapter"

    return of


def edit(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["layers.0.self_attn.q_proj", "v_proj"]},
        {"target_modules": ["model.layers.1.self_attn.q_proj"]},
        {"target_modules": r".*(q|v)_proj"},
        {"target_modules": "all-linear", "exclude_modules": ["down_proj", "layers.0.mlp.up_proj"]},
        {"target_modules": list(ATTENTION), "exclude_modules": r".*\.1\..*"},
        {"layers_to_transform": 1},
        {"layers_to_transform": [0], "layers_pattern": ["layers"]},
        {"target_modules": ["lm_head", "embed_tokens"]},
    ],
    ids=str,
)
def test_we_target_what_peft_targets(saved, options):
    folder = saved(**options)
    ours, theirs = look(folder), load(base("llama"), folder)
    assert ours.deltas.keys() == theirs.deltas.keys()
    assert not ours.adapter.untargeted


@pytest.mark.parametrize(
    "entry", ["norm", "head", "lm_head", "embed", "mlp", "layers.0.mlp", "1.input_layernorm", "q"]
)
def test_modules_to_save_is_a_suffix_of_the_name(saved, entry):
    """PEFT wraps by `endswith`: each parameter below a wrapper is declared, and no other."""
    settings = peft.LoraConfig(target_modules=["k_proj"], modules_to_save=[entry])
    wrapped = peft.get_peft_model(base("llama"), settings).base_model.model
    wrappers = [n for n, m in wrapped.named_modules() if isinstance(m, ModulesToSaveWrapper)]
    names = [name for name, _ in base("llama").named_parameters() if "k_proj" not in name]
    config = read_config(
        json.dumps({"peft_type": "LORA", "target_modules": ["k_proj"], "modules_to_save": [entry]})
        .encode(), "adapter_config.json",
    )  # fmt: skip
    tensors = tuple(TensorInfo(f"base_model.model.{name}", "F32", (1,), 0, 4) for name in names)
    found = build_adapter("", config, WeightFile("w", "safetensors", tensors)).accounted
    declared = {item.path for item in found if item.role is Role.DECLARED}
    assert declared == {n for n in names if any(n.startswith(f"{w}.") for w in wrappers)}


def test_a_rank_that_the_config_contradicts_stops_peft_and_is_a_finding(saved):
    folder = saved()
    edit(folder, r=3)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(base("llama"), folder)
    assert "rank-mismatch" in look(folder).rules


def test_a_save_sorts_patterns_so_overlapping_keys_may_no_longer_load(saved):
    folder = saved(rank_pattern={"q_proj": 8, r"layers\.0\..*q_proj": 2})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(base("llama"), folder)
    assert "rank-mismatch" in look(folder).rules


def test_an_unknown_type_stops_peft_and_is_not_analysed(saved):
    folder = saved()
    edit(folder, peft_type="BONE")
    with pytest.raises((KeyError, ValueError)):
        load(base("llama"), folder)
    assert not look(folder).report.coverage.complete


def test_missing_targets_are_filled_by_model_type_and_nothing_is_untargeted(saved):
    folder = saved()
    edit(folder, target_modules=None)
    ours, theirs = look(folder), load(base("llama"), folder)
    assert not ours.adapter.untargeted
    assert all(error(ours.deltas[n], delta) < 1e-5 for n, delta in theirs.deltas.items())


def test_a_zero_scale_is_inert_in_peft_and_in_ours(saved):
    folder = saved()
    edit(folder, lora_alpha=0)
    theirs = load(base("llama"), folder)
    assert not any(delta.any() for delta in theirs.deltas.values())
    assert not any(delta.any() for delta in look(folder).deltas.values())


def test_factors_of_modules_that_are_not_targeted_are_ignored_by_peft(saved):
    folder = saved()
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    extra = {name.replace("q_proj", "k_proj"): value.clone() for name, value in tensors.items()}
    extra = {n: v for n, v in extra.items() if "k_proj.lora_A" in n}
    extra |= {n.replace("lora_A", "lora_B"): v.T.clone().contiguous() for n, v in extra.items()}
    save_file({**tensors, **extra}, path, {"format": "pt"})
    assert not any("k_proj" in name for name in load(base("llama"), folder).deltas)
    assert all("k_proj" in name for name in look(folder).adapter.untargeted)
    assert look(folder).adapter.untargeted
