"""Small adapters made up on the spot, and copies of them that are the same in other bytes."""

import json

import numpy as np
from safetensors.numpy import save_file

D = 24
MODULES = tuple(
    f"model.layers.{layer}.self_attn.{name}" for layer in range(6) for name in ("q_proj", "v_proj")
)


def made(seed, rank=4, modules=MODULES, inputs=None):
    """Return {module: (A, B)} at random; with `inputs` (another one's), its A."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            inputs[name][0] if inputs else rng.standard_normal((rank, D)),
            rng.standard_normal((D, rank)),
        )
        for name in modules
    }


def written(folder, pairs, prefix="base_model.model.", dtype=np.float32, **config):
    """Write {module: (A, B)} as PEFT would, with s = 1 but for what `config` says."""
    folder.mkdir(parents=True)
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"{prefix}{name}.lora_A.weight"] = np.ascontiguousarray(a, dtype)
        tensors[f"{prefix}{name}.lora_B.weight"] = np.ascontiguousarray(b, dtype)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = max(len(a) for a, _ in pairs.values())
    settings = {
        "peft_type": "LORA", "base_model_name_or_path": "example-org/tiny", "revision": "0" * 40,
        "r": rank, "lora_alpha": rank, "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **config}))
    return folder


def mapped(pairs, change):
    """Return {module: change(module, A, B)}."""
    return {name: change(name, a, b) for name, (a, b) in pairs.items()}


def refactored(pairs, seed=3):
    """Return the same ΔW from other factors: R·A and B·R⁻¹."""
    rng = np.random.default_rng(seed)

    def change(_, a, b):
        gauge = rng.standard_normal((len(a), len(a))) + 3 * np.eye(len(a))
        return gauge @ a, b @ np.linalg.inv(gauge)

    return mapped(pairs, change)


def padded(pairs, rank):
    """Return the same ΔW at a higher rank: rows of A that no column of B uses."""
    rng = np.random.default_rng(4)
    return mapped(
        pairs,
        lambda _, a, b: (
            np.vstack([a, rng.standard_normal((rank - len(a), a.shape[1]))]),
            np.pad(b, ((0, 0), (0, rank - b.shape[1]))),
        ),
    )


def scaled(pairs, factor):
    """Return factor·ΔW; a function of the module's name makes one factor for each."""
    return mapped(pairs, lambda n, a, b: (a, b * (factor(n) if callable(factor) else factor)))


def layer(name):
    return int(name.split(".")[2])
