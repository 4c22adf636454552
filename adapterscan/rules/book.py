"""Read folders of rules: `<folder>/<rule id>/rule.toml`, the built-in ones and the caller's own."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from adapterscan.errors import BadRule
from adapterscan.rules.file import Rule, read_rule
from adapterscan.text import printable

RULE_FILE = "rule.toml"


@dataclass(frozen=True, slots=True)
class RuleBook:
    """A set of rules in the order of their ids. `digest` changes whenever any word in them does."""

    rules: tuple[Rule, ...]
    digest: str
    replaced: tuple[str, ...] = ()  # ids that a later folder defined again

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def get(self, rule_id: str) -> Rule | None:
        """Return the rule of that id, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)


def load_rules(extra: Sequence[Path] = ()) -> RuleBook:
    """Read the built-in rules, then each folder of `extra`; a later rule replaces one of its id.

    Raises BadRule for a folder or a rule that cannot be used.
    """
    package = importlib.resources.files("adapterscan")
    checkout = Path(__file__).resolve().parents[2] / "rules"
    return read_folders((built_in(package, checkout), *extra))


def built_in(package: Traversable, checkout: Path) -> Traversable:
    """Return where the built-in rules lie: inside the package, or beside it in a checkout."""
    shipped = package.joinpath("_rules")
    if shipped.is_dir():
        return shipped
    if checkout.is_dir():
        return checkout
    raise BadRule("the built-in rules are missing", hint="reinstall adapterscan")


def read_folders(folders: Sequence[Traversable]) -> RuleBook:
    """Read every rule of `folders`, later ones replacing earlier ones."""
    found: dict[str, tuple[Rule, Mapping[str, Any]]] = {}
    replaced: list[str] = []
    for folder in folders:
        for rule, table in _read_folder(folder):
            if rule.id in found:
                replaced.append(rule.id)
            found[rule.id] = rule, table
    ordered = sorted(found)
    content = json.dumps([found[name][1] for name in ordered], sort_keys=True).encode()
    return RuleBook(
        tuple(found[name][0] for name in ordered),
        hashlib.sha256(content).hexdigest(),
        tuple(sorted(set(replaced))),
    )


def _read_folder(folder: Traversable) -> Iterator[tuple[Rule, Mapping[str, Any]]]:
    if not folder.is_dir():
        raise BadRule(
            f"{printable(str(folder))}: no such folder of rules",
            hint=f"name a folder that holds <rule id>/{RULE_FILE}",
        )
    homes = [
        entry
        for entry in sorted(folder.iterdir(), key=lambda item: item.name)
        if not entry.name.startswith((".", "_")) and entry.is_dir()
    ]
    if not homes:
        raise BadRule(
            f"{printable(str(folder))}: holds no rules",
            hint=f"each rule is a folder with a {RULE_FILE}: <rule id>/{RULE_FILE}",
        )
    for home in homes:
        yield _read_rule(home)


def _read_rule(home: Traversable) -> tuple[Rule, Mapping[str, Any]]:
    path = home.joinpath(RULE_FILE)
    where = printable(str(path))
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise BadRule(
            f"{where}: cannot be read ({error.strerror or error})",
            hint=f"every folder of rules holds a {RULE_FILE}; start other folders' names with _",
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadRule(f"{where}: is not TOML ({error})", hint="fix the syntax there") from error
    rule = read_rule(table, where)
    if rule.id != home.name:
        raise BadRule(
            f"{where}: has id {rule.id!r} in a folder named {printable(home.name)!r}",
            hint="give the folder the name of the rule",
        )
    return rule, table
