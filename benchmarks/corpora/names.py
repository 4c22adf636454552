"""Names that are called: ours (`names.toml`), and every name on other scanners' block-lists.

Each becomes a pickle that calls it with a harmless text, and an adapter whose `data.pkl` does.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corpora.archives import torch_zip
from benchmarks.corpora.pickles import STOP, call, proto, stacked, tensors, text
from benchmarks.corpora.sample import Sample

_NAMES = Path(__file__).with_name("names.toml")
#: Classes and objects by whose attributes something is run: the module ends before them.
_OBJECTS = frozenset({"cdll", "ops", "classes", "local", "resolvers"})
_ANY = "run"  # stands for every name of a module
_LISTS = (
    ("picklescan", "picklescan/scanner.py", {"_unsafe_globals"}),
    ("fickling", "fickling/fickle.py", {"UNSAFE_IMPORTS"}),
    ("fickling", "fickling/analysis.py", {"UNSAFE_MODULES", "UNSAFE_IMPORTS"}),
    ("modelscan", "modelscan/settings.py", {"unsafe_globals"}),
    ("modelaudit", "modelaudit/detectors/suspicious_symbols.py", {"SUSPICIOUS_GLOBALS"}),
    ("modelaudit", "modelaudit/scanners/pickle_scanner.py", {"ALWAYS_DANGEROUS_MODULES"}),
)


def samples() -> Iterator[Sample]:
    """Yield a bare pickle for each name of `names.toml`, and an adapter for every fifth."""
    for kind, names in tomllib.loads(_NAMES.read_text("utf-8")).items():
        for number, full in enumerate(names.split()):
            pair = split(full)
            yield Sample(f"names, {kind}", full, "file.pkl", bare(*pair))
            if number % 5 == 0:
                yield Sample("names, in an adapter", full, "adapter_model.bin", inside(*pair))


def of_lists(bins: Path) -> Iterator[Sample]:
    """Yield an adapter for every name on the block-lists of the scanners installed in `bins`.

    A name that is on several counts for the first.
    """
    told: set[tuple[str, str]] = set()
    for peer, file, variables in _LISTS:
        for path in sorted(bins.glob(f"{peer}/lib/python3*/site-packages/{file}")):
            for pair in _literals(path, variables):
                if pair not in told:
                    told.add(pair)
                    name = ".".join(pair)
                    yield Sample(f"list of {peer}", name, "adapter_model.bin", inside(*pair))


def bare(module: str, name: str) -> bytes:
    """Return a pickle that calls `module.name` with one text."""
    return proto(4) + call(stacked(module, name), text("inert")) + STOP


def inside(module: str, name: str) -> bytes:
    """Return an adapter that calls it before its tensors are built."""
    return torch_zip(tensors(before=call(stacked(module, name), text("inert")), version=4))


def split(full: str) -> tuple[str, str]:
    """Return (module, name): the name begins at the first capital letter, or is the last step."""
    steps = full.split(".")
    for at, step in enumerate(steps[1:], 1):
        inner = step in _OBJECTS and at < len(steps) - 1
        if step.lstrip("_")[:1].isupper() or inner:
            return ".".join(steps[:at]), ".".join(steps[at:])
    return ".".join(steps[:-1]), steps[-1]


def _literals(path: Path, variables: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what is kept under the names `variables` in a source file."""
    for value in _kept(ast.parse(path.read_text("utf-8")), variables):
        tables = [item for item in ast.walk(value) if isinstance(item, ast.Dict)]
        for table in tables:
            yield from _entries(table)
        if not tables:
            yield from ((module, _ANY) for module in _texts(value) if _is_dotted(module))


def _kept(tree: ast.AST, variables: set[str]) -> Iterator[ast.expr]:
    """Yield what is assigned to `variables`, or stands in a dict under a key of such a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if variables & {item.id for item in targets if isinstance(item, ast.Name)}:
                yield node.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in variables:
                    yield value


def _entries(table: ast.Dict) -> Iterator[tuple[str, str]]:
    for key, value in zip(table.keys, table.values, strict=True):
        if not isinstance(key, ast.Constant) or not _is_dotted(key.value) or key.value.isupper():
            continue  # a level: CRITICAL, HIGH
        if isinstance(value, ast.Dict):
            names = [item.value for item in value.keys if isinstance(item, ast.Constant)]
        elif isinstance(value, (ast.Set, ast.List, ast.Constant)):
            names = _texts(value)
        else:
            continue
        for name in names:
            yield str(key.value), name if _is_dotted(name) else _ANY


def _is_dotted(value: object) -> bool:
    return isinstance(value, str) and value.replace(".", "_").isidentifier()


def _texts(node: ast.AST) -> list[str]:
    constants = (item.value for item in ast.walk(node) if isinstance(item, ast.Constant))
    return [value for value in constants if isinstance(value, str)]
