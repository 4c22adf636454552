"""What servers make of an adapter in PEFT's layout: vLLM, SGLang, and llama.cpp with its converter.

Read at the source of vllm 0.33.0 and 0.31.0 (`lora/peft_helper.py`, `PEFTHelper`;
`lora/lora_model.py`, `from_lora_tensors`; `lora/utils.py`, `parse_fine_tuned_lora_name`), sglang
0.5.23 (`srt/lora/lora_config.py`; `lora.py`, `LoRAAdapter`; `lora_manager.py`,
`validate_new_adapter`; `mem_pool.py`, `load_lora_weight_to_buffer`), and llama.cpp as
llama-cpp-python 0.3.36 has it (`convert_lora_to_gguf.py`; `src/llama-adapter.h`, `get_scale`).
Limits: only reasons to refuse that the adapter alone gives: a model may lack a module, or LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.formats.loading import (
    FACTORS,
    Reading,
    Settings,
    ending,
    first,
    other_rank,
    scale_of,
)
from adapterscan.formats.peft_keys import last_name
from adapterscan.formats.targeting import all_linear
from adapterscan.text import printable

#: vLLM's `--max-lora-rank` when nobody sets it, and the largest that it can be set to.
VLLM_RANK, VLLM_LARGEST_RANK = 16, 512
#: Initialisations that leave the base as it is, to vLLM.
_VLLM_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_VLLM_PASSED = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_VLLM_HEADS = ("score.weight", "score.bias", "classifier.weight", "classifier.bias")
_LLAMA_CPP_PASSED = (".base_layer.weight", "_layernorm", ".norm")
_LLAMA_CPP_FACTORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_")

#: Projections that SGLang stacks: with one of them its siblings are targeted.
_SGLANG_STACKED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
}  # fmt: skip


def vllm(settings: Settings) -> Reading:
    """Return what vLLM 0.33 does: α and r per module by the config, whatever it targets."""
    config, names = settings.config, settings.names
    rank = max((config.r or 0, *config.rank_pattern.values()))
    scales = [
        0.0 if name == "wrapped" else scale_of(alpha, r, config.rslora)
        for name, alpha, r in zip(names, settings.alphas, settings.ranks, strict=True)
    ]
    return Reading(
        scales, first(_vllm_refusals(settings, rank)), settings.wrapped(), _targets(settings),
        _vllm_note(rank),
    )  # fmt: skip


def vllm_before_patterns(settings: Settings) -> Reading:
    """Return what vLLM up to 0.31 does: one scale for all, and some fields that it cannot do."""
    config = settings.config
    rank = config.r or 0
    scale = scale_of(config.alpha or 0.0, rank, config.rslora)
    scales = [0.0 if name == "wrapped" else scale for name in settings.names]
    ignored = settings.set_fields(
        "rank_pattern", "alpha_pattern", "alora_invocation_tokens", "layer_replication", "lora_bias"
    )
    return Reading(
        scales, first(_vllm_old_refusals(settings, rank)), settings.wrapped(),
        (*ignored, *_targets(settings)), _vllm_note(rank),
    )  # fmt: skip


def sglang(settings: Settings) -> Reading:
    """Return what SGLang does: α/r of the config for all that it targets, rsLoRA or not."""
    config, deltas = settings.config, settings.adapter.deltas
    target = config.target_modules
    wanted = frozenset(map(_stacked, target if isinstance(target, tuple) else ()))
    left_out = {
        at: "targets"
        for at, delta in enumerate(deltas)
        if isinstance(target, tuple) and _stacked(delta.module) not in wanted
    }
    scale = scale_of(config.alpha or 0.0, config.r or 0)
    scales = [0.0 if at in left_out else scale for at in range(len(deltas))]
    ignored = settings.set_fields(
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "alora_invocation_tokens",
        "layer_replication",
    )
    return Reading(scales, first(_sglang_refusals(settings)), left_out, ignored)


def llama_cpp(settings: Settings) -> Reading:
    """Return what llama.cpp does: α over the rank of the tensors; α = 0 is none, and then s = 1."""
    alpha = settings.config.alpha or 0.0
    scales = [scale_of(alpha, delta.rank) if alpha else 1.0 for delta in settings.adapter.deltas]
    ignored = settings.set_fields("use_rslora", "alpha_pattern", "layer_replication")
    return Reading(
        scales, first(_llama_cpp_refusals(settings)), {}, (*ignored, *_targets(settings)),
        "α = 0 reads as unset" if alpha == 0 else "",
    )  # fmt: skip


def _targets(settings: Settings) -> tuple[str, ...]:
    """Return ("target_modules",) where there are modules that the config leaves out."""
    return ("target_modules",) if settings.adapter.untargeted else ()


def _vllm_note(rank: int) -> str:
    return f"needs --max-lora-rank {rank}" if VLLM_RANK < rank <= VLLM_LARGEST_RANK else ""


def _vllm_refusals(settings: Settings, rank: int) -> Iterator[str]:
    yield from _vllm_always_refuses(settings, rank)
    yield from _vllm_tensors(settings, ())
    yield from settings.set_fields("alora_invocation_tokens", "layer_replication", "use_bdlora")
    yield from settings.set_fields("lora_bias", "use_qalora")
    init = settings.config.raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in _VLLM_INITS:
        yield f"init_lora_weights {printable(init, 20)}"


def _vllm_old_refusals(settings: Settings, rank: int) -> Iterator[str]:
    yield from _vllm_always_refuses(settings, rank)
    # a bias of lora_B is taken for lora_B, and then lora_B.weight, which sorts after it
    yield from _vllm_tensors(settings, (".lora_A.bias", ".lora_B.bias"))


def _vllm_always_refuses(settings: Settings, rank: int) -> Iterator[str]:
    config = settings.config
    yield from _missing(settings)
    saved = [name for name in config.modules_to_save if name not in ("classifier", "score")]
    if saved:
        yield f"modules_to_save {printable(saved[0], 40)}"
    if config.dora:
        yield "DoRA"
    if config.bias != "none":
        yield f"bias {printable(config.bias, 20)}"
    if rank > VLLM_LARGEST_RANK:
        yield f"a rank over {VLLM_LARGEST_RANK}"
    if any(delta.kind == "conv" for delta in settings.adapter.deltas):
        yield "convolutions"


def _vllm_tensors(settings: Settings, more: tuple[str, ...]) -> Iterator[str]:
    known = (*(f".{name}" for name in FACTORS), *_VLLM_PASSED, *_VLLM_HEADS, *more)
    names = (item.tensor.name for item in settings.adapter.accounted)
    return (f"the tensor {ending(name)}" for name in names if not name.endswith(known))


def _sglang_refusals(settings: Settings) -> Iterator[str]:
    config = settings.config
    target = config.target_modules
    yield from _missing(settings)
    if config.dora:
        yield "DoRA"
    if not isinstance(target, tuple) and not (all_linear(target) or target == "all"):
        yield "target_modules that are no list"
    for delta in settings.adapter.deltas:
        if delta.kind == "linear" and delta.rank != config.r:
            yield other_rank(delta, config.r or 0)


def _llama_cpp_refusals(settings: Settings) -> Iterator[str]:
    adapter = settings.adapter
    if settings.config.alpha is None:
        yield "no lora_alpha"
    for item in adapter.accounted:
        name = item.tensor.name
        if not any(part in name for part in (*_LLAMA_CPP_FACTORS, *_LLAMA_CPP_PASSED)):
            yield f"the tensor {ending(name)}"
    if settings.wrapped():
        yield "names that the converter cannot map"
    for delta in adapter.deltas:
        if delta.kind not in ("linear", "embedding"):
            yield f"factors of {delta.kind}"


def _missing(settings: Settings) -> Iterator[str]:
    """Yield fields without which the servers' readers of configs fail."""
    config = settings.config
    if config.r is None:
        yield "no r"
    elif config.r <= 0:
        yield "r is not positive"
    if config.alpha is None:
        yield "no lora_alpha"
    if "target_modules" not in config.raw:
        yield "no target_modules"


def _stacked(module: str) -> str:
    name = last_name(module)
    return _SGLANG_STACKED.get(name, name)
