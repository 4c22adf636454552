"""Say what a file is for from its name alone; what is inside is for the detectors to say.

The names are those that PEFT, diffusers, MLX, torchtune, DeepSpeed and the trainers write next to
an adapter. Comparison ignores case, because loaders on some file systems do.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from adapterscan.formats.programs import run_by
from adapterscan.model import FileKind

_TOKENIZER_NAMES = frozenset(
    {
        "added_tokens.json",
        "chat_template.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
_TOKENIZER_SUFFIXES = frozenset({".jinja", ".jinja2", ".j2", ".tiktoken"})

#: JSON that loaders read beside an adapter and that can redirect or re-configure them.
_COMPANION_NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model_index.json",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "xlora_config.json",
    }
)

#: Text and media. What is neither this nor known otherwise is UNKNOWN, and looked into.
_PLAIN_SUFFIXES = frozenset(
    {
        *(".bib", ".cff", ".cfg", ".conf", ".css", ".csv", ".diff", ".html", ".htm", ".ini"),
        *(".json", ".jsonl", ".lock", ".log", ".markdown", ".md", ".ndjson", ".patch", ".rst"),
        *(".tex", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
        *(".avif", ".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".tif"),
        *(".tiff", ".webp", ".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".wav"),
        *(".webm", ".arrow", ".parquet", ".ttf", ".woff", ".woff2"),
    }
)
_PLAIN_NAMES = frozenset(
    {
        *(".gitattributes", ".gitignore", ".gitkeep", ".gitmodules", ".dockerignore"),
        *(".editorconfig", ".nojekyll", ".ds_store", "authors", "changelog", "citation"),
        *("contributing", "copying", "latest", "licence", "license", "notice", "use_policy"),
    }
)
_EVENTS = re.compile(r"events\.out\.tfevents\..+")

_CODE_SUFFIXES = frozenset(
    {
        *(".bash", ".bat", ".cmd", ".command", ".fish", ".ps1", ".psm1", ".sh", ".zsh"),
        *(".ipynb", ".py", ".pyc", ".pyd", ".pyo", ".pyw", ".pyx", ".pyz", ".whl"),
        *(".cjs", ".class", ".jar", ".js", ".jse", ".lua", ".mjs", ".node", ".php", ".pl", ".rb"),
        *(".com", ".cpl", ".dll", ".dylib", ".elf", ".exe", ".msi", ".scr", ".so", ".wasm"),
        *(".desktop", ".hta", ".lnk", ".pyt", ".reg", ".service", ".url", ".vbe", ".vbs", ".wsf"),
    }
)
_CODE_NAMES = frozenset(
    {
        *("dockerfile", "justfile", "makefile", "pipfile", "procfile", "pyproject.toml"),
        *("environment.yaml", "environment.yml", "requirements.txt", "setup.cfg"),
    }
)

_TENSOR_SUFFIXES = frozenset({".safetensors", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx"})
_PICKLE_SUFFIXES = frozenset(
    {
        *(".bin", ".ckpt", ".distcp", ".mar", ".nemo", ".pt", ".pt2", ".pth", ".t7", ".tar"),
        *(".dill", ".joblib", ".npy", ".npz", ".p", ".pickle", ".pk", ".pkl", ".ptl", ".sav"),
        *(".th",),
    }
)
#: Pickle-shaped containers that trainers use for the adapter weights themselves.
_ADAPTER_PICKLE = re.compile(
    r"(?:adapter(?:_model|s)?(?:[._-]\d+)*"  # PEFT, torchtune (adapter_0.pt), MLX (adapters.npz)
    r"|pytorch_(?:lora_weights|adapter)"  # diffusers, adapter-transformers
    r"|(?!non_lora)(?:.*[._-])?(?:lora|loha|lokr|lycoris)(?:[._-].*)?)"
    r"\.(?:bin|pt|pth|ckpt|npz)"
)
_SHARED_LIBRARY = re.compile(r".+\.so(?:\.\d+)+")

#: Names under which complete models are published. An adapter is never called that by its tools.
_FULL_MODEL = re.compile(
    r"(?:model|pytorch_model|diffusion_pytorch_model|tf_model|flax_model|consolidated)"
    r"(?:[._-](?:fp16|bf16|fp32|fp8|non_ema|ema|\d+(?:[-_]of[-_]\d+)?))*"
    r"\.(?:safetensors|bin|pt|pth|h5|msgpack|onnx|ckpt)"
)
_QUANTISED = re.compile(r"(?:^|[._-])i?q\d(?:_[0-9a-z]+)*(?:[._-]|$)")


def file_kind(path: str) -> FileKind:
    """Return what the file at `path` (POSIX, relative) is for, judged by its name alone."""
    name, suffix = _name(path), _suffix(path)
    if name == "adapter_config.json":
        return FileKind.CONFIG
    if name in ("readme.md", "readme"):
        return FileKind.CARD
    if name in _TOKENIZER_NAMES or suffix in _TOKENIZER_SUFFIXES:
        return FileKind.TOKENIZER
    if run_by(path) or name in _CODE_NAMES or suffix in _CODE_SUFFIXES:
        return FileKind.CODE
    if _SHARED_LIBRARY.fullmatch(name):
        return FileKind.CODE
    if suffix in _TENSOR_SUFFIXES or _ADAPTER_PICKLE.fullmatch(name):
        return FileKind.WEIGHTS
    if suffix in _PICKLE_SUFFIXES:
        return FileKind.PICKLE
    if suffix in _PLAIN_SUFFIXES or name in _PLAIN_NAMES or _EVENTS.fullmatch(name):
        return FileKind.OTHER
    return FileKind.UNKNOWN


def is_companion_config(path: str) -> bool:
    """Return whether `path` is a JSON file that loaders read beside an adapter."""
    name = _name(path)
    return name in _COMPANION_NAMES or name.endswith(("config.json", ".index.json"))


def is_full_model(path: str) -> bool:
    """Return whether `path` is named like the weights of a whole model, not of an adapter.

    A GGUF counts when it carries a quantisation tag and nothing in its name says adapter: merged
    exports such as `unsloth.Q4_K_M.gguf` lie next to many adapters and weigh gigabytes.
    """
    name = _name(path)
    if name.endswith(".gguf"):
        adapter = "lora" in name or "adapter" in name
        return not adapter and _QUANTISED.search(name.removesuffix(".gguf")) is not None
    return _FULL_MODEL.fullmatch(name) is not None


def _name(path: str) -> str:
    return PurePosixPath(path).name.lower()


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
