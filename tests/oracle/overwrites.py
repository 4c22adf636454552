"""Add tensors under many names to a valid adapter and see which of them reach the base model.

All names of one form go into one file, each tensor with a value of its own: where that value turns
up in the base, there the name leads. Forms that stop a loader from loading are tried one by one.
"""

import contextlib
import io
import json
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from adapterscan.formats.accounting import Role
from tests.oracle.bases import base
from tests.oracle.measure import look, save

hf.logging.set_verbosity_error()


def _leaf(form):
    """Apply `form` between module and leaf."""
    return lambda name: form.format(*name.rpartition(".")[::2])


#: From the name of a parameter of the base to the name of the extra tensor.
FORMS: Mapping[str, Callable[[str], str]] = {
    "prefixed": "base_model.model.{}".format,
    "no prefix": "{}".format,
    "base_model": "base_model.{}".format,
    "module": "module.{}".format,
    "module, prefixed": "module.base_model.model.{}".format,
    "compiled": "_orig_mod.base_model.model.{}".format,
    "FSDP": "_fsdp_wrapped_module.base_model.model.{}".format,
    "model twice": "base_model.model.model.{}".format,
    "prefix twice": "base_model.model.base_model.model.{}".format,
    "no root": lambda name: name.split(".", 1)[-1],
    "no root, prefixed": lambda name: "base_model.model." + name.split(".", 1)[-1],
    "prefix with other dots": "base_model-model-{}".format,
    "prefix in the middle": _leaf("{}.base_model.model.{}"),
    "base_layer": _leaf("base_model.model.{}.base_layer.{}"),
    "base_layer, no prefix": _leaf("{}.base_layer.{}"),
    "base_layer twice": _leaf("base_model.model.{}.base_layer.base_layer.{}"),
    "original_module": _leaf("base_model.model.{}.original_module.{}"),
    "original_module, no prefix": _leaf("{}.original_module.{}"),
    "modules_to_save": _leaf("base_model.model.{}.modules_to_save.default.{}"),
    "modules_to_save, unnamed": _leaf("base_model.model.{}.modules_to_save.{}"),
    "token_adapter": _leaf("base_model.model.{}.token_adapter.base_layer.{}"),
    "token_adapter, no prefix": _leaf("{}.token_adapter.base_layer.{}"),
    "trainable_tokens_delta": _leaf("base_model.model.{}.token_adapter.trainable_tokens_delta"),
    "factor's base_layer": _leaf("base_model.model.{}.lora_A.default.base_layer.{}"),
    "lora_A": _leaf("base_model.model.{}.lora_A.{}"),
    "lora_A, no prefix": _leaf("{}.lora_A.{}"),
    "lora_A, named": _leaf("base_model.model.{}.lora_A.default.{}"),
    "lora_A of another": _leaf("base_model.model.{}.lora_A.foo.{}"),
    "lora_B": _leaf("base_model.model.{}.lora_B.{}"),
    "lora_embedding_A": _leaf("base_model.model.{}.lora_embedding_A"),
    "lora_embedding_A.leaf": _leaf("base_model.model.{}.lora_embedding_A.{}"),
    "lora_magnitude_vector": _leaf("base_model.model.{}.lora_magnitude_vector"),
    "lora_magnitude_vector.leaf": _leaf("base_model.model.{}.lora_magnitude_vector.{}"),
    "lora_diag": _leaf("base_model.model.{}.lora_diag"),
    "sampler": _leaf("base_model.model.{}.lora_monteclora_sampler.{}"),
    "factor of the name": "base_model.model.{}.lora_A".format,
    "factor of the name, leaf": "base_model.model.{}.lora_A.weight".format,
    "below a factor": "base_model.model.lora_A.{}".format,
    "below a factor, no prefix": "lora_A.{}".format,
    "factor, then prefix": "lora_A.base_model.model.{}".format,
    "another tuner's part": "prompt_embeddings.{}".format,
    "another tuner's part, prefixed": "base_model.model.prompt_embeddings.{}".format,
    "adapter's name at the end": "base_model.model.{}.default".format,
    "adapter's name before the leaf": _leaf("base_model.model.{}.default.{}"),
    "gamma and beta": lambda name: re.sub("bias$", "beta", re.sub("weight$", "gamma", name)),
    "parametrized": _leaf("base_model.model.{}.parametrizations.{}.original"),
    "older name of the experts": lambda name: name.replace(".mlp.", ".block_sparse_moe."),
    "text model": lambda name: name.replace("model.", "model.language_model.", 1),
}


def _from_peft(folder, model):
    return peft.PeftModel.from_pretrained(model, folder)


def _from_peft_meta(folder, model):
    return peft.PeftModel.from_pretrained(model, folder, low_cpu_mem_usage=True)


def _auto_peft(folder, model):
    return peft.AutoPeftModelForCausalLM.from_pretrained(folder)


def _auto_model(folder, model):
    return hf.AutoModelForCausalLM.from_pretrained(folder)


def _load_adapter(folder, model):
    model.load_adapter(str(folder))
    return model


def _second_adapter(folder, model):
    wrapped = peft.PeftModel.from_pretrained(model, folder.parent / "valid")
    wrapped.load_adapter(str(folder), adapter_name="second")
    return wrapped


LOADERS = {
    "PeftModel": _from_peft,
    "PeftModel, low_cpu_mem_usage": _from_peft_meta,
    "AutoPeftModel": _auto_peft,
    "AutoModel": _auto_model,
    "load_adapter": _load_adapter,
    "PeftModel.load_adapter": _second_adapter,
}


@dataclass(frozen=True)
class Setting:
    """A base and an adapter on it, to which tensors are added."""

    base: str
    config: Mapping[str, object]


QV = {"target_modules": ["q_proj", "v_proj"]}
SETTINGS = {
    "plain": Setting("biased_llama", QV),
    "modules_to_save": Setting("llama", {**QV, "modules_to_save": ["lm_head", "norm"]}),
    "bias all": Setting("biased_llama", {**QV, "bias": "all"}),
    "embeddings adapted": Setting("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tokens": Setting("llama", {**QV, "trainable_token_indices": [1, 2]}),
    "tied": Setting("tied_llama", {**QV, "trainable_token_indices": [1, 2]}),
    "DoRA": Setting("llama", {**QV, "use_dora": True}),
    "experts": Setting("mixtral", QV),
    "experts adapted": Setting("mixtral", {**QV, "target_parameters": ["experts.down_proj"]}),
    "sinks": Setting("gpt_oss", QV),
    "GPT-2": Setting("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "OPT": Setting("opt", QV),
}


@dataclass(frozen=True)
class Reached:
    """One name that changed the base: through which loader, and what we call it."""

    setting: str
    form: str
    loader: str
    name: str
    parameter: str
    role: Role
    why: str


def base_state(model):
    """Return the base's parameters and buffers by their names without any wrapper."""
    state = {}
    for name, value in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        names = name.removeprefix("base_model.model.").split(".")
        own = any(n.startswith(("lora_", "trainable_tokens_")) for n in names)
        if own or "modules_to_save" in names:
            continue
        kept = [n for n in names if n not in ("base_layer", "original_module", "token_adapter")]
        state[".".join(kept)] = value.detach()
    return state


def prepare(setting, folder):
    """Save the base and a valid adapter on it under `folder`."""
    base(setting.base).save_pretrained(folder / "base")
    options = {"r": 2, "init_lora_weights": False, "task_type": "CAUSAL_LM", **setting.config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(base(setting.base), peft.LoraConfig(**options), folder / "valid")
    path = folder / "valid" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(folder / "base")}))


def attempt(setting_name, form, folder):
    """Yield a Reached for each name of this form that changes the base, and each role we give."""
    setting = SETTINGS[setting_name]
    targets = base_state(base(setting.base))
    tensors = load_file(folder / "valid" / "adapter_model.safetensors")
    extra = {}
    for index, (parameter, value) in enumerate(targets.items()):
        name = FORMS[form](parameter)
        if value.is_floating_point() and name not in tensors:
            extra[name] = torch.full_like(value, 1000.0 + index)
    forged = folder / "forged"
    shutil.rmtree(forged, ignore_errors=True)
    shutil.copytree(folder / "valid", forged)
    save_file({**tensors, **extra}, forged / "adapter_model.safetensors", {"format": "pt"})
    seen = {item.tensor.name: item for item in look(forged).adapter.accounted}
    values = {float(value.flatten()[0]): name for name, value in extra.items()}
    reached, errors = [], {}
    for loader, run in LOADERS.items():
        model = _loaded(run, forged, setting)
        if isinstance(model, str):  # a name of a real factor with another shape: try without those
            adapted = {name.split(".lora_")[0] for name in tensors}
            fitting = {n: v for n, v in extra.items() if n.split(".lora_")[0] not in adapted}
            save_file(
                {**tensors, **fitting}, forged / "adapter_model.safetensors", {"format": "pt"}
            )
            model = _loaded(run, forged, setting)
            save_file({**tensors, **extra}, forged / "adapter_model.safetensors", {"format": "pt"})
        if isinstance(model, str):
            errors[loader] = model
            continue
        for parameter, value in base_state(model).items():
            name = values.get(float(value.flatten()[0]) if value.numel() else 0.0)
            if name is not None:
                item = seen[name]
                reached.append(
                    Reached(setting_name, form, loader, name, parameter, item.role, item.why)
                )
    return reached, {name: seen[name] for name in extra}, errors


def _loaded(run, folder, setting):
    """Return the model, or why there is none: which error a loader raises is not what we ask."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return run(folder, base(setting.base))
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"


def sweep(setting_name, folder: Path):
    """Try every form in one setting. Return what was reached, all roles, and loaders' errors."""
    prepare(SETTINGS[setting_name], folder)
    reached, roles, errors = [], {}, {}
    for form in FORMS:
        found, given, failed = attempt(setting_name, form, folder)
        reached += found
        roles |= {(form, name): item for name, item in given.items()}
        errors |= {(form, loader): problem for loader, problem in failed.items()}
    return reached, roles, errors
