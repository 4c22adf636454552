"""What we make of several adapters against PEFT's own `add_weighted_adapter`, module by module."""

import numpy as np
import peft
import pytest
import torch

from adapterscan.lowrank import LowRank
from adapterscan.together.combining import METHODS, Method, combine
from tests.oracle.bases import base
from tests.oracle.measure import error, fill

TOLERANCE = 2e-5
TARGETS = ["q_proj", "v_proj", "down_proj", "embed_tokens"]
DRAWN = {"dare_linear", "dare_ties"}


def wrapped(ranks, **options):
    """Return a model with two adapters of those ranks, filled at random."""
    first, second = (
        peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, **options)
        for rank, alpha in zip(ranks, (7, 12), strict=True)
    )
    model = peft.get_peft_model(base("llama"), first, adapter_name="one")
    model.add_adapter("other", second)
    fill(model)
    return model


def layers(model):
    return {
        name: layer
        for name, layer in model.base_model.model.named_modules()
        if isinstance(layer, peft.tuners.lora.LoraLayer)
    }


def factors(layer, name):
    if name in layer.lora_embedding_A:
        found = layer.lora_embedding_A[name], layer.lora_embedding_B[name]
    else:
        found = layer.lora_A[name].weight, layer.lora_B[name].weight
    return LowRank(*(side.detach().numpy() for side in found), layer.scaling[name])


def compared(model, method, weights, **options):
    """Yield for each module what PEFT combines, and what we do."""
    model.add_weighted_adapter(["one", "other"], list(weights), "both", method.name, **options)
    for layer in layers(model).values():
        ours = combine([factors(layer, "one"), factors(layer, "other")], weights, method)
        yield factors(layer, "both").dense(), ours.dense()


@pytest.mark.parametrize("name", sorted(METHODS.keys() - DRAWN))
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, -2.0)])
def test_a_combination_is_what_peft_makes_of_it(name, weights):
    options = {"density": 0.4} if "ties" in name or "prune" in name else {}
    method = Method(name, **options)
    errors = [
        error(ours, theirs)
        for theirs, ours in compared(wrapped((4, 4)), method, weights, **options)
    ]
    assert len(errors) == 7
    assert max(errors) < TOLERANCE


@pytest.mark.parametrize("name", ["cat", "svd"])
def test_ranks_may_differ(name):
    pairs = compared(wrapped((2, 5)), Method(name), (1.0, -0.5))
    assert max(error(ours, theirs) for theirs, ours in pairs) < TOLERANCE


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_what_is_pruned_at_random_comes_from_the_same_distribution(name):
    model, method = wrapped((4, 4)), Method(name, density=0.6)
    layer = next(iter(layers(model).values()))
    parts = [factors(layer, "one"), factors(layer, "other")]
    theirs, ours = [], []
    for seed in range(300):
        torch.manual_seed(seed)
        a, _ = model.base_model._generalized_task_arithmetic_weighted_adapter(
            name, ["one", "other"], [1.0, 0.5], layer, 0.6, "total"
        )
        theirs.append(a.detach().numpy())
        ours.append(combine(parts, (1.0, 0.5), method, seed).a)
    scale = float(np.std(theirs))
    assert np.mean(ours, axis=0) == pytest.approx(np.mean(theirs, axis=0), abs=0.4 * scale)
    assert np.std(ours, axis=0).mean() == pytest.approx(np.std(theirs, axis=0).mean(), rel=0.05)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"cat", "svd"}))
def test_peft_refuses_other_ranks_where_we_do(name):
    with pytest.raises(ValueError, match="same r value"):
        wrapped((2, 5)).add_weighted_adapter(
            ["one", "other"], [1.0, 1.0], "both", name, density=0.5
        )


def test_two_active_adapters_do_what_cat_does():
    model = wrapped((2, 5))
    ids = torch.arange(6)[None]
    model.base_model.set_adapter(["one", "other"])
    together = model(input_ids=ids).logits
    model.add_weighted_adapter(["one", "other"], [1.0, 1.0], "both", "cat")
    model.set_adapter("both")
    assert torch.allclose(model(input_ids=ids).logits, together, atol=1e-5)


def test_of_rank_stabilised_adapters_peft_scales_the_sum_once_more():
    model = wrapped((4, 4), use_rslora=True)
    pairs = list(compared(model, Method("cat"), (1.0, 1.0)))
    assert max(error(np.sqrt(8) * ours, theirs) for theirs, ours in pairs) < TOLERANCE
