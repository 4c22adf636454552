"""The scale that each runtime applies to the same bytes, or why it does not load them.

Read at the source of peft 0.21.2 (`tuners/lora/layer.py`, `update_layer`; `utils/save_and_load.py`,
`set_peft_model_state_dict`) and tried with it, as transformers 5.24.0 (`model.load_adapter`) was;
servers are in `servers.py`. docs/runtimes.md says what each was held against.
Limits: without the base model nobody knows its names. A name that no runtime takes apart
(`layers.0` for `model.layers.0`) is taken for the base's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from adapterscan.formats.loading import Reading, Runtime, Settings, other_rank
from adapterscan.formats.peft import Adapter
from adapterscan.formats.servers import llama_cpp, sglang, vllm, vllm_before_patterns


def peft(settings: Settings) -> Reading:
    """Return what `PeftModel.from_pretrained` does: it warns of missing names, not of others."""
    return _targeted(settings, ("as saved",))


def transformers(settings: Settings) -> Reading:
    """Return what `model.load_adapter` does: it adds and removes PEFT's prefix until names fit,
    and does not know the adapter's name in them."""
    return _targeted(settings, () if settings.infixed else ("as saved", "bare", "repeated"))


#: The first is what the others are compared with.
RUNTIMES = (
    Runtime("PEFT", "0.21.2", peft),
    Runtime("transformers", "5.24.0", transformers),
    Runtime("vLLM", "0.33.0", vllm),
    Runtime("vLLM before 0.32", "0.31.0", vllm_before_patterns),
    Runtime("SGLang", "0.5.23", sglang),
    Runtime("llama.cpp", "llama-cpp-python 0.3.36", llama_cpp),
)


def readings(adapter: Adapter) -> Iterator[tuple[Runtime, Reading]]:
    """Yield what each runtime makes of an adapter that has a config, PEFT first."""
    settings = Settings.of(adapter)
    for runtime in RUNTIMES:
        yield runtime, runtime.read(settings)


def _targeted(settings: Settings, taken: Collection[str]) -> Reading:
    """Load by name what the config targets; names that are not `taken` find no parameter."""
    deltas, untargeted = settings.adapter.deltas, frozenset(settings.adapter.untargeted)
    left_out: dict[int, str] = {}
    refuses = ""
    for at, delta in enumerate(deltas):
        if delta.module in untargeted:
            left_out[at] = "targets"
        elif settings.names[at] not in taken:
            left_out[at] = "names"
        elif settings.ranks[at] != delta.rank and delta.kind != "merged":
            refuses = refuses or other_rank(delta, settings.ranks[at])
    scales = [0.0 if at in left_out else delta.scaling for at, delta in enumerate(deltas)]
    return Reading(scales, refuses, left_out)
