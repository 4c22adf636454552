"""Make an adapter with PEFT, save it, read it with our code, and compare the two."""

import json
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from adapterscan.formats.peft_types import ALL_PARTS
from adapterscan.model import Severity
from adapterscan.reading import read
from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.weighing.factors import update_of
from tests.oracle.bases import base

REVISION = "0" * 40
_NESTED = ("kasa_config", "monteclora_config", "velora_config", "use_bdlora")


@dataclass(frozen=True)
class Made:
    """An adapter that PEFT saved, and the ΔW that PEFT says each of its modules has."""

    folder: Path
    deltas: dict[str, np.ndarray]  # by module path as in the file
    model: torch.nn.Module


@dataclass(frozen=True)
class Read:
    """What our code says about the same folder."""

    adapter: object
    deltas: dict[str, np.ndarray]
    rules: set[str]  # of medium severity or above
    report: object


@cache
def rulebook():
    return load_rules()


def make(variant, folder):
    """Save the adapter of `variant` in `folder`; its factors are random and none of them zero."""
    options = dict(variant.config)
    for name in _NESTED:
        if isinstance(options.get(name), str):
            more = {}
            if name == "use_bdlora":
                more = {
                    "target_modules_bd_a": ["q_proj"],
                    "target_modules_bd_b": ["v_proj"],
                    "nblocks": 2,
                }
            if name == "velora_config":
                more = {"num_groups": 4}
            options[name] = getattr(peft, options[name])(**more)
    settings = replace(variant, config=options).settings()
    save(prepared(variant, folder), settings, folder, variant.size)
    return load(prepared(variant, folder), folder, variant.compared)


def prepared(variant, folder):
    """Return the variant's base; where it is resized, PEFT compares it with the one on disk."""
    model = base(variant.base)
    if variant.prepare:
        model.save_pretrained(folder.parent / f"{folder.name}-base")
        model = type(model).from_pretrained(folder.parent / f"{folder.name}-base")
        variant.prepare(model)
    return model


def save(model, settings, folder, size=0.1):
    """Wrap `model`, fill the adapter and save it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, settings)
        fill(wrapped, size=size)
        wrapped.save_pretrained(folder)
    pin(folder)


def load(model, folder, compared="merge"):
    """Return what PEFT makes of the files: a save sorts the keys of patterns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.PeftModel.from_pretrained(model, folder)
    return Made(folder, deltas_of(wrapped, compared), wrapped)


def fill(wrapped, seed=1, size=0.1):
    """Give every parameter of the adapter values; what `init` decomposed from the base stays."""
    torch.manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if ALL_PARTS & set(name.split(".")):
            if "magnitude" in name or parameter.numel() == 0:
                continue
            parameter.data.copy_(torch.randn_like(parameter) * size)  # in place: some are tied
        elif "modules_to_save" in name:
            parameter.data.copy_(torch.randn_like(parameter))


def pin(folder):
    """Name a base as an honest adapter does: this one was never published."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config |= {"base_model_name_or_path": "someone/base", "revision": REVISION}
    path.write_text(json.dumps(config))


def deltas_of(wrapped, compared):
    """Return ΔW per tuner layer by PEFT's own merge (or from its factors)."""
    if compared == "none":
        return {}
    layers = {
        name: module
        for name, module in wrapped.base_model.model.named_modules()
        if isinstance(module, BaseTunerLayer) and not name.endswith("token_adapter")
    }
    change = factors if compared == "factors" else merged
    return {name: oriented(layer, change(layer)) for name, layer in layers.items()}


def merged(layer):
    """Return what PEFT's merge adds to the weight; taken back again, as layers may share it."""
    kept = {name: value.clone() for name, value in layer.get_base_layer().state_dict().items()}
    before = weight(layer).detach().clone()
    layer.merge()
    change = weight(layer).detach().double() - before.double()
    layer.merged_adapters.clear()
    layer.get_base_layer().load_state_dict(kept)
    return change


def weight(layer):
    """Return the parameter that `layer` adapts."""
    parameter = getattr(layer, "parameter_name", "weight")
    return getattr(layer.get_base_layer(), parameter)


def factors(layer):
    """Return s·B·A (s·B·diag·A for KaSA) of the layer's factors, without the base weight."""
    if "default" in layer.lora_embedding_A:
        product = layer.lora_embedding_B["default"] @ layer.lora_embedding_A["default"]
        return (product * layer.scaling["default"]).T.detach()
    a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
    left = b.reshape(b.shape[0], -1)
    diagonal = getattr(layer, "lora_diag", None)
    if diagonal is not None and "default" in diagonal:
        left = left * diagonal["default"].detach()
    return (left @ a.reshape(a.shape[0], -1)) * layer.scaling["default"]


def oriented(layer, delta):
    """Return ΔW as (d_out, d_in), or (experts, d_out, d_in): the layout of our deltas."""
    delta = delta.detach().double().numpy()
    inner = layer.get_base_layer()
    if delta.ndim == 3 and hasattr(layer, "parameter_name"):
        return delta if layer._did_swap_in_out_features else delta.transpose(0, 2, 1)
    if isinstance(inner, torch.nn.Embedding) or getattr(layer, "fan_in_fan_out", False):
        return delta.T
    return delta.reshape(delta.shape[0], -1)


def look(folder):
    """Read `folder` as a scan does."""
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    report = scan(artifact, rulebook())
    rules = {found.rule for found in report.findings if found.severity >= Severity.MEDIUM}
    contents = read(artifact, workers=1)
    adapter = contents.adapters[0].adapter if contents.adapters else None
    deltas = our_deltas(folder, adapter) if adapter else {}
    return Read(adapter, deltas, rules, report)


def our_deltas(folder, adapter):
    """Return our dense ΔW by module; the parts of one module stacked."""
    data = (folder / adapter.weights.path).read_bytes()
    storages = {(t.start, t.nbytes): data[t.start : t.end] for t in adapter.weights.tensors}
    parts = {}
    for delta in adapter.deltas:
        parts.setdefault(delta.module, []).append(update_of(delta, storages).dense())
    return {name: np.stack(found) if len(found) > 1 else found[0] for name, found in parts.items()}


def error(ours, theirs):
    """Return the largest difference over the largest value."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
