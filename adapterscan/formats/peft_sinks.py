"""List the config fields that PEFT hands to something that imports, opens, fetches or unpickles.

Read from the sources of peft 0.7.0 to 0.21.2; `tests/oracle/test_sinks.py` says when a release has
a call that is not accounted for here. `docs/config-sinks.md` is generated from this table. Fields
that reach `re` are in `targeting.pattern_fields`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sink:
    """A field (`a.b`; `a[]`: each value of a mapping or list) and the call that it reaches.

    `reaches`: "import", "unpickle", "read", "fetch" (a repository or a folder) or "options" (of a
    loader). `kinds`: the types that have the field, none for all. `harmless`: its default.
    """

    field: str
    reaches: str
    call: str
    when: str
    affected: str
    kinds: frozenset[str] = frozenset()
    harmless: tuple[object, ...] = ()


_LORA = frozenset({"LORA"})
_MPT = frozenset({"MULTITASK_PROMPT_TUNING"})
_PROMPT = frozenset({"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING"})
_ON_PURPOSE = "when the caller prepares an initialisation with this config"

SINKS: tuple[Sink, ...] = (
    Sink(
        "auto_mapping.parent_library", "import", "importlib.import_module, auto.py",
        "AutoPeftModel, no task_type",
        "any module up to peft 0.19.1; four known libraries since 0.20.0",
    ),
    Sink(
        "megatron_core", "import", "importlib.import_module, tuners/lora/tp_layer.py",
        "megatron_config is set", "any module from peft 0.8.0 to 0.19.1; megatron.… since 0.20.0",
        _LORA, ("megatron.core",),
    ),
    Sink(
        "tokenizer_kwargs", "options", "AutoTokenizer.from_pretrained, tuners/prompt_tuning",
        "prompt_tuning_init is TEXT, in training",
        "with trust_remote_code up to peft 0.17.1, without it since 0.18.0", _PROMPT,
    ),
    Sink(
        "tokenizer_name_or_path", "fetch", "AutoTokenizer.from_pretrained, tuners/prompt_tuning",
        "prompt_tuning_init is TEXT, in training", "all", _PROMPT | {"CPT"},
    ),
    Sink(
        "prompt_tuning_init_state_dict_path", "unpickle",
        "torch.load, tuners/multitask_prompt_tuning",
        "prompt_tuning_init is one of a source task, also when it is only loaded",
        "runs code up to peft 0.12.0; weights_only since 0.13.0", _MPT,
    ),
    Sink(
        "corda_config.cache_file", "unpickle", "torch.load, tuners/lora/corda.py", _ON_PURPOSE,
        "peft since 0.15; runs code with torch before 2.6", _LORA,
    ),
    Sink(
        "corda_config.covariance_file", "unpickle", "torch.load, tuners/lora/corda.py",
        _ON_PURPOSE, "peft since 0.15; runs code with torch before 2.6", _LORA,
    ),
    Sink(
        "lora_ga_config.cache_file", "unpickle", "torch.load, tuners/lora/loraga.py",
        "a script passes it on; no field of 0.21.2", "runs code with torch before 2.6", _LORA,
    ),
    Sink(
        "adapters[]", "fetch", "LoraConfig.from_pretrained and load_peft_weights, tuners/xlora",
        "XLoraModel is built from the config", "all", frozenset({"XLORA"}),
    ),
    Sink(
        "shadow_model", "fetch", "AutoModel.from_pretrained, tuners/shadow/model.py", "always",
        "peft since 0.21.0", frozenset({"SHADOW"}), ("mirror",),
    ),
    Sink(
        "base_model_name_or_path", "fetch", "from_pretrained, auto.py; transformers' redirect",
        "AutoPeftModel, and AutoModel on a folder without a config.json", "all",
    ),
)  # fmt: skip


def reached(sink: Sink, raw: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield (field, value) for everything in the config `raw` that the sink would be given."""
    if sink.kinds and str(raw.get("peft_type", "")).upper() not in sink.kinds:
        return
    name = sink.field.removesuffix("[]")
    value: object = raw
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None or value == "" or value in sink.harmless:
        return
    if not sink.field.endswith("[]"):
        yield name, value
    elif isinstance(value, dict):
        yield from ((f"{name}[{key}]", item) for key, item in value.items())
    elif isinstance(value, list):
        yield from ((f"{name}[{at}]", item) for at, item in enumerate(value))
