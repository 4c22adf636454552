"""Say which weight files of a folder each loader takes.

Sources: peft 0.21.2 `load_peft_weights`; transformers 5.23 `load_adapter`; vLLM 0.33.0
`lora_model.py`; llama.cpp `convert_lora_to_gguf.py`; diffusers 0.42.1 `_get_weights_file`; SGLang
`srt/lora/lora.py`, which hands the folder to the loader of whole models: every file of a suffix,
less what `model.safetensors.index.json` does not name. LLaMA-Factory 0.9.5 `valuehead.py`; TRL's
value heads up to 0.2x. Read, not run.
Limits: by name alone, exact case, and without what a caller can choose (`weight_name`,
`subfolder`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

_TRAINING = ("optimizer", "scheduler", "scaler", "training_args", "rng_state")
VALUE_HEADS = ("value_head.safetensors", "value_head.bin")


def _first(*wanted: str) -> Callable[[Sequence[str]], tuple[str, ...]]:
    return lambda names: tuple(name for name in wanted if name in names)[:1]


def _diffusers(names: Sequence[str]) -> tuple[str, ...]:
    standard = _first("pytorch_lora_weights.safetensors")(names)
    left_out = ("scheduler", "optimizer", "checkpoint")
    first = [
        name
        for name in names
        if name.endswith(".safetensors") and not any(word in name for word in left_out)
    ]
    return standard or tuple(first[:1]) or _first("pytorch_lora_weights.bin")(names)


def _sglang(names: Sequence[str]) -> tuple[str, ...]:
    for suffix in (".safetensors", ".bin", ".pt"):
        found = [
            name
            for name in names
            if name.endswith(suffix) and (suffix == ".safetensors" or not _of_training(name))
        ]
        if found:
            return tuple(found)
    return ()


def _of_training(name: str) -> bool:
    return name.startswith(_TRAINING)


_LOADERS: Mapping[str, Callable[[Sequence[str]], tuple[str, ...]]] = {
    "PEFT": _first("adapter_model.safetensors", "adapter_model.bin"),
    "transformers": _first("adapter_model.safetensors", "adapter_model.bin"),
    "vLLM": _first("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"),
    "SGLang": _sglang,
    "llama.cpp": _first("adapter_model.safetensors", "adapter_model.bin"),
    "diffusers": _diffusers,
    "LLaMA-Factory's value head": _first(*VALUE_HEADS),
    "TRL's value head": _first("model.safetensors", "pytorch_model.bin"),
}


def picks(names: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return by loader what it takes of the files called `names` in one folder."""
    ordered = sorted(names)
    return {loader: pick(ordered) for loader, pick in _LOADERS.items()}


def takers(file: str, names: Collection[str]) -> str:
    """Return the loaders that take `file`, "no loader that we know" without one."""
    found = [loader for loader, taken in picks(names).items() if file in taken]
    return ", ".join(found) or "no loader that we know"
