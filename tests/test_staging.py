"""What peft is given to load is written by us, and what we cannot write so is not loaded."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterscan.errors import ChangedWhileReading, Unsupported
from adapterscan.probes.staging import stage
from adapterscan.reading import read
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.conftest import ADAPTERS

BENIGN = Path(__file__).parents[1] / "fixtures" / "trained" / "token-backdoor"


def opened(folder: Path):
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    contents = read(artifact, workers=1)
    (weighed,) = contents.adapters
    return contents, weighed.adapter


def copied(tmp_path: Path, **changes) -> Path:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((BENIGN / name).read_bytes())
    config = json.loads((BENIGN / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | changes))
    return tmp_path


def written(folder: Path, out: Path) -> dict:
    out.mkdir()
    stage(*opened(folder), out)
    return json.loads((out / "adapter_config.json").read_text())


def test_the_weights_are_the_bytes_that_were_scanned(tmp_path) -> None:
    written(BENIGN, tmp_path / "out")
    staged = tmp_path / "out" / "adapter_model.safetensors"
    assert staged.read_bytes() == (BENIGN / "adapter_model.safetensors").read_bytes()


def test_scales_and_modules_are_ours_whatever_the_patterns_say(tmp_path) -> None:
    folder = copied(
        tmp_path, target_modules=r".*\.(q|v)_proj", alpha_pattern={r"layers\.0\..*": 64}
    )
    told = written(folder, tmp_path / "out")
    plain = written(BENIGN, tmp_path / "plain")
    assert told["target_modules"] == plain["target_modules"]
    assert told["lora_alpha"] == plain["lora_alpha"]
    assert plain["alpha_pattern"] == {}
    assert told["alpha_pattern"] == {
        "^" + re.escape(name): 64.0 for name in plain["target_modules"] if ".layers.0." in name
    }


def test_a_field_that_nobody_knows_goes_no_further(tmp_path) -> None:
    folder = copied(
        tmp_path,
        auto_mapping={"parent_library": "os"},
        megatron_core="os",
        exclude_modules="(a+)+$",
        layers_pattern="(a+)+$",
        tokenizer_name_or_path="/etc",
    )
    told = written(folder, tmp_path / "out")
    assert told.keys() == written(BENIGN, tmp_path / "plain").keys()
    assert "os" not in told.values()


@pytest.mark.parametrize(("field", "value"), [
    ("peft_type", "IA3"), ("peft_type", ""), ("layer_replication", [[0, 4]]),
    ("init_lora_weights", "pissa"), ("use_bdlora", {"x": 1}), ("lora_alpha", 1e308),
    ("trainable_token_indices", ["1; rm"]), ("alora_invocation_tokens", [1, 2]),
    ("task_type", "SEQ_CLS"), ("kasa_config", {"x": 1}), ("ensure_weight_tying", True),
])  # fmt: skip
def test_what_cannot_be_said_so_is_not_loaded(tmp_path, field, value) -> None:
    folder = copied(tmp_path, **{field: value})
    if field == "lora_alpha":
        folder = copied(tmp_path, lora_alpha=1e308, use_rslora=True, r=1)
    (tmp_path / "out").mkdir()
    contents, adapter = opened(folder)
    if field == "lora_alpha":
        adapter = replace(
            adapter, deltas=tuple(replace(d, scaling=float("inf")) for d in adapter.deltas)
        )
    with pytest.raises(Unsupported):
        stage(contents, adapter, tmp_path / "out")


def test_weights_that_changed_since_the_scan_are_not_loaded(tmp_path) -> None:
    folder = copied(tmp_path)
    contents, adapter = opened(folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (tmp_path / "out").mkdir()
    with pytest.raises(ChangedWhileReading):
        stage(contents, adapter, tmp_path / "out")


def headed(tmp_path: Path, head: dict, **changes) -> Path:
    """The fixture as a reward model: its factors, and what else is saved whole."""
    folder = copied(
        tmp_path, task_type="SEQ_CLS", modules_to_save=["classifier", "score"], **changes
    )
    path = folder / "adapter_model.safetensors"
    whole = {f"base_model.model.{name}": tensor for name, tensor in head.items()}
    save_file(load_file(path) | whole, path)
    return folder


def test_a_head_is_all_that_a_model_for_scores_replaces(tmp_path) -> None:
    folder = headed(tmp_path, {"score.weight": np.ones((3, 64), np.float32)})
    told = written(folder, tmp_path / "out")
    assert told["task_type"] == "SEQ_CLS"
    assert told["modules_to_save"] == ["score"]
    assert not any("score" in name for name in told["target_modules"])


@pytest.mark.parametrize(("head", "why"), [
    ({}, "not one head"),
    ({"classifier.weight": (2, 64)}, "an encoder's"),
    ({"classifier.dense.weight": (64, 64), "classifier.out_proj.weight": (2, 64)}, "an encoder's"),
    ({"score.weight": (1, 64), "classifier.weight": (2, 64)}, "an encoder's"),
    ({"score.weight": (1, 64), "score.bias": (1,)}, "without a bias"),
    ({"score.bias": (1,)}, "without a bias"),
    ({"score.weight": (64,)}, "not one matrix"),
    ({"score.weight": (0, 64)}, "0 labels"),
    ({"score.weight": (5000, 64)}, "5,000 labels"),
    ({"score.0.weight": (64, 64)}, "not one head"),
    ({"model.score.weight": (1, 64)}, "not one head"),
], ids=str)  # fmt: skip
def test_a_head_of_another_make_is_not_loaded(tmp_path, head, why) -> None:
    folder = headed(tmp_path, {k: np.zeros(shape, np.float32) for k, shape in head.items()})
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported, match=why):
        stage(*opened(folder), tmp_path / "out")


def test_a_head_beside_another_whole_module_is_not_loaded(tmp_path) -> None:
    folder = headed(
        tmp_path,
        {"score.weight": np.zeros((1, 64), np.float32),
         "model.norm.weight": np.ones(64, np.float32)},
    )  # fmt: skip
    config = json.loads((folder / "adapter_config.json").read_text())
    config["modules_to_save"].append("model.norm")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported, match="not one head"):
        stage(*opened(folder), tmp_path / "out")


def test_adalora_becomes_plain_lora_with_its_singular_values_in_b(tmp_path) -> None:
    source = ADAPTERS / "benign-adalora"
    told = written(source, tmp_path / "out")
    assert told["peft_type"] == "LORA"
    before, after = opened(source)[1], opened(tmp_path / "out")[1]
    assert {delta.diag for delta in after.deltas} == {None}
    raw = load_file(source / "adapter_model.safetensors")
    new = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for old, delta in zip(before.deltas, after.deltas, strict=True):
        a, b, e = (
            raw[f"base_model.model.{old.module}.lora_{part}"].astype(float) for part in "ABE"
        )
        alpha = told["alpha_pattern"].get("^" + re.escape(old.module), told["lora_alpha"])
        assert alpha / delta.rank == pytest.approx(8 / (4 + 1e-5))
        name = f"base_model.model.{old.module}.lora_"
        ours = new[f"{name}B.weight"].astype(float) @ new[f"{name}A.weight"].astype(float)
        assert ours == pytest.approx(b @ (a * e), rel=1e-5)


def test_a_module_that_adalora_pruned_away_is_not_staged(tmp_path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    source = ADAPTERS / "benign-adalora"
    tensors = load_file(source / "adapter_model.safetensors")
    gone = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    for part in "AE":
        tensors[f"{gone}{part}"] = tensors[f"{gone}{part}"][:0]
    tensors[f"{gone}B"] = tensors[f"{gone}B"][:, :0]
    save_file(tensors, copy / "adapter_model.safetensors")
    (copy / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    told = written(copy, tmp_path / "out")
    assert "model.layers.1.self_attn.q_proj" not in told["target_modules"]
    assert len(told["target_modules"]) == 7


def test_adalora_that_saves_more_than_its_updates_is_not_staged(tmp_path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    source = ADAPTERS / "benign-adalora"
    tensors = load_file(source / "adapter_model.safetensors")
    tensors["base_model.model.model.norm.weight"] = np.ones(64, np.float32)
    save_file(tensors, copy / "adapter_model.safetensors")
    (copy / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    with pytest.raises(Unsupported, match="beside its updates"):
        written(copy, tmp_path / "out")
