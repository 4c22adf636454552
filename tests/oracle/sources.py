"""Parts of servers' own code, run alone: a server needs a GPU, its reader of configs does not.

ADAPTERSCAN_RUNTIMES names a folder of unpacked releases: docs/runtimes.md says how to fill it.
"""

import ast
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import typing
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest

FOLDER = os.environ.get("ADAPTERSCAN_RUNTIMES", "")
needs_sources = pytest.mark.skipif(not FOLDER, reason="ADAPTERSCAN_RUNTIMES names no folder")

_QUIET = SimpleNamespace(info_once=print, warning=print)


@cache
def _definitions(path, *names):
    """Run some definitions of a file without its imports, and return the names that they make."""
    tree = ast.parse((Path(FOLDER) / path).read_text("utf-8"))
    kept = [node for node in tree.body if getattr(node, "name", "") in names]
    code = compile(ast.Module(kept, []), path, "exec", dont_inherit=True)
    given = {
        "json": json, "math": math, "os": os, "re": re, "logger": _QUIET, "LoRAConfig": object,
        "WeightsMapper": object, "TensorizerConfig": object, "__name__": "json",
        "Optional": typing.Optional, "Dict": dict, "Union": typing.Union, "Set": set,
        "Iterable": typing.Iterable, "Literal": typing.Literal,
        **{name: getattr(dataclasses, name) for name in "dataclass field fields MISSING".split()},
    }  # fmt: skip
    exec(code, given)  # noqa: S102  a release that the person at the keyboard unpacked
    return SimpleNamespace(**{name: given[name] for name in names})


def vllm(version, folder, tensors, modules):
    """Return s by module as vLLM's own config reader has it. Raises what it raises."""
    helper = _definitions(f"vllm-{version}/vllm/lora/peft_helper.py", "PEFTHelper").PEFTHelper
    names = _definitions(
        f"vllm-{version}/vllm/lora/utils.py", "parse_fine_tuned_lora_name",
        "is_base_embedding_weights",
    )  # fmt: skip
    config = helper.from_local_dir(str(folder), None)
    config.validate_legal(SimpleNamespace(max_lora_rank=512))
    found = {
        names.parse_fine_tuned_lora_name(name)[0]
        for name in tensors
        if not names.is_base_embedding_weights(name)
    }
    scale = getattr(config, "get_rank_and_scaling", None)
    return {
        module: (scale(module)[1] if scale else config.vllm_lora_scaling_factor)
        if module in found
        else 0.0
        for module in modules
    }


def sglang(folder, modules):
    """Return s by module as SGLang's own config reader has it. Raises what it raises."""
    root = "sglang-0.5.23/sglang/srt/lora"
    config = _definitions(f"{root}/lora_config.py", "LoRAConfig").LoRAConfig(str(folder))
    named = _definitions(
        f"{root}/utils.py", "get_normalized_target_modules", "get_target_module_name"
    )
    source = (Path(FOLDER) / root / "lora.py").read_text("utf-8")
    assert "self.scaling: float = self.config.lora_alpha / self.config.r\n" in source
    wanted = named.get_normalized_target_modules(config.target_modules)
    scale = config.lora_alpha / config.r

    def of(module):
        if wanted == {"all"}:
            return scale
        # weights are looked up by the name of the layer that they are stacked into
        (stacked,) = named.get_normalized_target_modules([module])
        try:
            named.get_target_module_name(stacked, wanted)
        except ValueError:
            return 0.0
        return scale

    return {module: of(module) for module in modules}


_GGUF = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_up": "mlp.up_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


def llama_cpp(folder, base, out):
    """Return s by module: llama.cpp's own converter is run, and `get_scale` applied to its file.

    Raises CalledProcessError where the converter refuses.
    """
    root = Path(FOLDER) / "llama_cpp_python-0.3.36" / "vendor" / "llama.cpp"
    header = (root / "src" / "llama-adapter.h").read_text("utf-8")
    assert "alpha ? adapter_scale * alpha / rank : adapter_scale;" in header
    assert "rank  = (float) b->ne[0];" in header
    command = [sys.executable, root / "convert_lora_to_gguf.py", "--base", base, "--outfile", out]
    subprocess.run([*map(str, command), str(folder)], check=True, capture_output=True)
    reader = gguf.GGUFReader(out)
    alpha = float(reader.fields["adapter.lora.alpha"].parts[-1][0])
    scales = {}
    for tensor in reader.tensors:
        _, layer, name, *rest = tensor.name.split(".")
        if rest[-1] == "lora_b":
            rank = float(tensor.shape[0])
            scales[f"model.layers.{layer}.{_GGUF[name]}"] = alpha / rank if alpha else 1.0
    return scales
