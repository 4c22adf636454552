"""The values that a pickle would build, as symbols: nothing is imported, called or made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: None, bool, int, float, str, bytes, list, tuple, Pairs, Group, Global, Call, PersistentId or
#: Opaque. Lists and objects may contain themselves: never compare, hash, print or walk them
#: without a bound.
Value = Any


#: What calls begin with, and is never added to: most of 100,000 calls stay as they are.
NOTHING: list[Any] = []


@dataclass(slots=True, eq=False, repr=False)
class Pairs:
    """A dict, as the pairs that were set, in order. Keys may be any value, also repeated."""

    items: list[tuple[Value, Value]] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """A set or frozenset, as the items that were added."""

    items: list[Value] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Global:
    """A name that the unpickler would import. `module` and `name` are untrusted text."""

    module: str
    name: str
    position: int
    resolved: bool = True
    called: bool = False
    passed: bool = False  # handed to a call, which may call it in turn
    built: bool = False  # state was set on it, or on what it returned
    after_break: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that the unpickler would make, and what would be done to its result."""

    target: Value
    args: Value
    kwargs: Value = None
    root: Global | None = None  # the global at the start of a chain of calls
    states: list[Value] = field(default_factory=lambda: NOTHING)  # BUILD, in order
    items: list[tuple[Value, Value]] = field(default_factory=lambda: NOTHING)  # SETITEM(S)
    appended: list[Value] = field(default_factory=lambda: NOTHING)  # APPEND(S), ADDITEMS

    @property
    def module(self) -> str:
        """Return the module of the called global, "" when something else is called."""
        return self.target.module if isinstance(self.target, Global) else ""

    @property
    def name(self) -> str:
        """Return the name of the called global, "" when something else is called."""
        return self.target.name if isinstance(self.target, Global) else ""

    def is_to(self, module: str, name: str) -> bool:
        """Return whether this calls exactly `module.name`."""
        return self.module == module and self.name == name


@dataclass(slots=True, eq=False, repr=False)
class PersistentId:
    """An object that the loader is asked for by id: storages, in files of torch."""

    value: Value
