"""Tell programs by their first bytes, and files that something runs by their name alone.

Sources: the ELF, PE/COFF, Mach-O, Java class file and WebAssembly specifications; CPython's
`Lib/importlib/_bootstrap_external.py` for bytecode; [MS-SHLLINK] for shortcuts. Names: transformers
5.23 (`custom_generate`), torch.hub (`hubconf.py`), Hugging Face inference endpoints (`handler.py`),
CPython's `site` module (`*.pth`, `sitecustomize.py`), VS Code, direnv, git.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

_MACH_O = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")
_SHORTCUT = b"\x4c\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46"
_JAVA_FIRST, _JAVA_LAST = 45, 99  # major versions; universal Mach-O binaries share the magic
_BYTECODE = re.compile(rb"[\x00-\xff][\x0b-\x0e]\x0d\x0a[\x00-\x03]\0\0\0", re.DOTALL)
_SHEBANG = re.compile(rb"(?:\xef\xbb\xbf)?#![ \t]{0,8}/[\x20-\x7e]{2,}")
_BATCH = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,8}@echo\s+o(?:n|ff)\b", re.IGNORECASE)

#: What runs a file of this name, when somebody uses the folder as it is meant to be used.
_BY_NAME: Mapping[str, str] = {
    "conftest.py": "pytest",
    "handler.py": "a host of inference endpoints",
    "hubconf.py": "torch.hub.load",
    "sitecustomize.py": "Python, when it starts in this folder",
    "usercustomize.py": "Python, when it starts in this folder",
    ".envrc": "direnv, when somebody enters the folder",
}
#: Libraries that loaders import: Python takes a module of the folder that it starts in first.
_LIBRARIES = (
    "accelerate|bitsandbytes|huggingface_hub|inspect|json|numpy|pandas|peft|pickle|random|requests|"
    "safetensors|scipy|subprocess|tempfile|tokenizers|torch|transformers|trl|typing|vllm"
)
_BY_PATH: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(rf"(?:{_LIBRARIES})(?:\.py|/__init__\.py)"),
        "Python, in place of the library, when it starts in this folder",
    ),
    (re.compile(r"(?:.*/)?custom_generate/.+\.py"), "transformers' generate(custom_generate=…)"),
    (re.compile(r"(?:.*/)?\.vscode/(?:tasks|settings|launch)\.json"), "VS Code"),
    (re.compile(r"(?:.*/)?\.devcontainer/.+"), "a development container"),
    (re.compile(r"(?:.*/)?\.(?:git|husky|githooks)(?:/hooks)?/(?:pre|post)-[a-z-]+"), "git"),
    (re.compile(r"(?:.*/)?\.github/workflows/.+\.ya?ml"), "a build server"),
)


def program(head: bytes) -> str:
    """Return what kind of program `head` (the first kilobyte of a file) begins, or "".

    "elf" "pe" "mach-o" "java class" "wasm" "python bytecode" "shortcut" or "script".
    """
    if head.startswith(b"\x7fELF") and head[4:5] in (b"\1", b"\2") and head[5:6] in (b"\1", b"\2"):
        return "elf"
    if head.startswith(b"MZ") and _is_pe(head):
        return "pe"
    if head.startswith(_MACH_O):
        return "mach-o"
    if head.startswith(b"\xca\xfe\xba\xbe") and len(head) >= 8:
        major = int.from_bytes(head[6:8], "big")
        return "java class" if _JAVA_FIRST <= major <= _JAVA_LAST else "mach-o"
    if head.startswith(b"\0asm\1\0\0\0"):
        return "wasm"
    if head.startswith(_SHORTCUT):
        return "shortcut"
    if len(head) >= 16 and _BYTECODE.match(head):
        return "python bytecode"
    return "script" if _SHEBANG.match(head) or _BATCH.match(head) else ""


def run_by(path: str) -> str:
    """Return what runs the file at `path` (POSIX, relative) because of its name, or ""."""
    lower = path.lower()
    if found := _BY_NAME.get(PurePosixPath(lower).name):
        return found
    return next((who for pattern, who in _BY_PATH if pattern.fullmatch(lower)), "")


def _is_pe(head: bytes) -> bool:
    """A DOS program has no PE header; one that lies beyond what we see is believed."""
    at = int.from_bytes(head[0x3C:0x40], "little") if len(head) >= 0x40 else 0
    if 0x40 <= at <= len(head) - 4:
        return head[at : at + 4] == b"PE\0\0"
    return len(head) >= 0x40 and b"\0" in head
