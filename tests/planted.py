"""Edits of a trained adapter's weights that nobody trained: what weight analysis should see."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[1]
TRAINED = ROOT / "fixtures" / "trained"


class Edited:
    """A copy of a trained fixture in memory, to be edited and written."""

    def __init__(self, source, seed=0):
        self.source = source
        self.tensors = load_file(source / "adapter_model.safetensors")
        self.config = json.loads((source / "adapter_config.json").read_text("utf-8"))
        self.modules = sorted({name.rsplit(".lora_", 1)[0] for name in self.tensors})
        self.one = self.modules[len(self.modules) // 2]
        self.rng = np.random.default_rng(seed)

    def write(self, folder):
        folder.mkdir()
        shutil.copy(self.source / "adapter_model.safetensors", folder)  # its metadata is not kept
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in self.tensors.items()},
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        (folder / "adapter_config.json").write_text(json.dumps(self.config), "utf-8")
        return folder

    def spike(self, modules, strength, *, rows=None, column=None):
        """Put strength·σ₁·uvᵀ in the place of the weakest direction, dense but for what is said.

        `rows`: only so many outputs are written to. `column`: the one input that is read.
        """
        for module in modules:
            down, up = (self.tensors[f"{module}.lora_{x}.weight"].astype(float) for x in "AB")
            q, r = np.linalg.qr(up)
            q2, r2 = np.linalg.qr(down.T)
            left, sizes, right = np.linalg.svd(r @ r2.T)
            left, right = q @ left, right @ q2.T
            u, v = self.rng.normal(size=len(up)), self.rng.normal(size=down.shape[1])
            if rows:
                u[rows:] = 0.0
            if column is not None:
                v = np.eye(len(v))[column]
            left[:, -1], right[-1] = u / np.linalg.norm(u), v / np.linalg.norm(v)
            sizes[-1] = strength * sizes[0]
            root = np.sqrt(sizes)
            self.tensors[f"{module}.lora_B.weight"] = (left * root).astype(np.float32)
            self.tensors[f"{module}.lora_A.weight"] = (root[:, None] * right).astype(np.float32)

    def keep_layers(self, count):
        """Leave out all layers but the first."""
        kept = [
            module
            for module in self.modules
            if int(module.split("layers.")[1].split(".")[0]) < count
        ]
        self.modules = kept
        self.tensors = {n: t for n, t in self.tensors.items() if n.rsplit(".lora_", 1)[0] in kept}
        self.one = kept[1]

    def jitter(self, size):
        """Scale every factor by a log-normal number."""
        for name, tensor in self.tensors.items():
            scale = np.exp(self.rng.normal(0.0, size))
            self.tensors[name] = (tensor * scale).astype(np.float32)

    def boost(self, pattern, factor):
        self.config["alpha_pattern"] = {pattern: self.config["lora_alpha"] * factor}

    def refactor(self):
        """Write the same ΔW with other factors: (B, A) → (B·R⁻¹, R·A)."""
        for module in self.modules:
            down, up = (
                self.tensors[f"{module}.lora_A.weight"],
                self.tensors[f"{module}.lora_B.weight"],
            )
            gauge = self.rng.normal(size=(len(down), len(down))) + 3 * np.eye(len(down))
            self.tensors[f"{module}.lora_A.weight"] = (gauge @ down).astype(np.float32)
            self.tensors[f"{module}.lora_B.weight"] = (up @ np.linalg.inv(gauge)).astype(np.float32)

    def embed_two_tokens(self):
        """Add an update of the embedding that moves two tokens, unlike everything around it."""
        down = np.zeros((4, 49152), np.float32)
        down[0, 100] = down[1, 200] = 3.0
        up = self.rng.normal(size=(576, 4)).astype(np.float32)
        name = "base_model.model.model.embed_tokens.lora_embedding_"
        self.tensors |= {f"{name}A": down, f"{name}B": up}
        self.config["target_modules"] = [*self.config["target_modules"], "embed_tokens"]
