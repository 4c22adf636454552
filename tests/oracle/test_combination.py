"""The combination that we write is what PEFT runs: it answers as its parts do together."""

import peft
import pytest
import torch

from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.together.combining import Method
from adapterscan.together.composing import compose
from adapterscan.together.lineage import parts_of
from tests.oracle.bases import base
from tests.oracle.measure import fill, pin

SETTINGS = {
    "ranks and alphas": ({"r": 4, "lora_alpha": 6}, {"r": 7, "lora_alpha": 2}),
    "rank-stabilised": ({"r": 4, "use_rslora": True}, {"r": 3}),
    "patterns": (
        {"r": 4, "rank_pattern": {"layers.1.self_attn.q_proj": 2}},
        {"r": 4, "alpha_pattern": {"v_proj": 32}},
    ),
    "other modules": (
        {"r": 2, "target_modules": ["q_proj"]},
        {"r": 2, "target_modules": ["v_proj"]},
    ),
    "embedding": ({"r": 2, "target_modules": ["q_proj", "embed_tokens"]}, {"r": 3}),
}
IDS = torch.arange(6)[None]


def saved(tmp_path, settings):
    """Return both adapters as PEFT saved them, and a model that has them active together."""
    first, second = (
        peft.LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **s}) for s in settings
    )
    model = peft.get_peft_model(base("llama"), first, adapter_name="one")
    model.add_adapter("other", second)
    fill(model)
    model.save_pretrained(tmp_path)
    for name in ("one", "other"):
        pin(tmp_path / name)
    return [tmp_path / name for name in ("one", "other")], model


def loaded(folder, model):
    """Return what PEFT says with the adapter in `folder` on the same base."""
    model.load_adapter(str(folder), "both")
    model.set_adapter("both")
    return model(input_ids=IDS).logits


def composed(folders, weights, method, folder):
    found = [
        parts_of(path.name, open_artifact(parse_ref(str(path)), HubOptions())) for path in folders
    ]
    folder.mkdir()
    done = compose([part for parts in found for part in parts], weights, method, folder)
    assert not [item for item in done.skipped if item.failed]
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_the_sum_answers_as_both_adapters_together(name, tmp_path):
    folders, model = saved(tmp_path, SETTINGS[name])
    model.base_model.set_adapter(["one", "other"])
    together = model(input_ids=IDS).logits
    model.disable_adapter_layers()
    assert not torch.allclose(model(input_ids=IDS).logits, together, atol=1e-3)
    model.enable_adapter_layers()
    folder = composed(folders, (1.0, 1.0), Method(), tmp_path / "sum")
    assert torch.allclose(loaded(folder, model), together, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "svd", "ties"])
def test_a_combination_answers_as_the_one_that_peft_makes(name, tmp_path):
    options = {"density": 0.5} if name == "ties" else {}
    folders, model = saved(tmp_path, ({"r": 4, "lora_alpha": 6}, {"r": 4, "lora_alpha": 2}))
    model.add_weighted_adapter(["one", "other"], [1.0, -0.5], "theirs", name, **options)
    model.set_adapter("theirs")
    theirs = model(input_ids=IDS).logits
    folder = composed(folders, (1.0, -0.5), Method(name, **options), tmp_path / "sum")
    assert torch.allclose(loaded(folder, model), theirs, atol=1e-4)
