"""What peft is given to load is written by us, and what we cannot write so is not loaded."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from adapterscan.errors import ChangedWhileReading, Unsupported
from adapterscan.reading import read
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.staging import stage

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
