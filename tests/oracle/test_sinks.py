"""PEFT's sources have no call that imports, opens or unpickles beyond those that were read.

`python -m tests.oracle.test_sinks` writes `peft_calls.txt` anew, from the peft that is installed.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

LIST = Path(__file__).with_name("peft_calls.txt")
CALLS = frozenset(
    "__import__ eval exec from_pretrained hf_hub_download import_module load_file open "
    "safe_load_file torch_load".split()
)
PATTERNS = frozenset("compile findall fullmatch match search sub".split())


def peft_calls() -> list[str]:
    """Return `path call count` for every file of the installed peft, without importing it."""
    spec = find_spec("peft")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    found = Counter(
        f"{path.relative_to(root).as_posix()} {call}"
        for path in root.rglob("*.py")
        for call in _calls(ast.parse(path.read_text("utf-8")))
    )
    return [f"{name} {count}" for name, count in sorted(found.items())]


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        owner = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name in CALLS and not (name == "eval" and owner):  # model.eval() evaluates nothing
            yield name
        elif (owner == "re" and name in PATTERNS) or (owner == "torch" and name == "load"):
            yield f"{owner}.{name}"


def test_every_call_of_peft_that_imports_or_opens_was_read():
    assert peft_calls() == LIST.read_text("utf-8").splitlines()


if __name__ == "__main__":
    LIST.write_text("\n".join(peft_calls()) + "\n", "utf-8")
