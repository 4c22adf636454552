"""What the expressions of a chat template hold: texts that somebody wrote, or nothing of the kind.

Values are followed by name through assignments, loops, namespaces and macros; nothing is computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import IntEnum

from jinja2 import nodes

STEPS = 2_000_000  # of all passes over one template
TEXTS = 1000  # that one variable can be, or a macro writes


class Holds(IntEnum):
    """What a value is, by where it comes from."""

    PLAIN = 0  # nothing of the conversation
    SCHEMA = 1  # tools on offer, documents: their keys and types are no text of a request
    FRAME = 2  # messages and their parts: what holds texts
    PART = 3  # an item of what somebody wrote: a part of a message, or a letter
    RAW = 4  # what somebody wrote, or a list of parts of it
    TEXT = 5  # a text, or a list of texts


_ROOTS = {
    **dict.fromkeys(("messages", "conversation", "history"), Holds.FRAME),
    **dict.fromkeys(("tools", "documents", "custom_tools", "builtin_tools"), Holds.SCHEMA),
}
#: Keys of messages, parts and tools under which nobody writes: what a request is, not what it says.
KEYS = frozenset(
    "role type id name tool_call_id call_id function_call recipient channel format title mime_type "
    "strict required enum from speaker modality source".split()
)
FRAMES = frozenset(
    "tool_calls function functions parameters properties arguments items tools anyOf oneOf "
    "additional_properties tool_responses".split()
)
SIZES = frozenset({"length", "count", "wordcount"})
COUNTERS = frozenset({"index", "index0", "revindex", "revindex0", "length"})  # of a loop
CHOOSING = frozenset({"selectattr", "rejectattr", "select", "reject", "map", "groupby"})
_SAME = frozenset("first last list reverse sort batch slice unique default d safe".split())
_WRITING = frozenset({"string", "tojson", "pprint", "urlencode"})  # of a schema, too


Variable = tuple[str, str]  # the macro that it belongs to, "" for none, and its name


class TooMuchError(ValueError):
    """A template takes more steps than are followed."""


class Values:
    """What each variable holds, in the macro that is read and outside of it."""

    def __init__(self) -> None:
        self.scope = ""  # the macro that is read
        self.holds: dict[Variable, Holds] = {("", n): kind for n, kind in _ROOTS.items()}
        self.fixed: dict[Variable, set[str]] = defaultdict(set)  # texts that it can be
        self.sized: set[Variable] = set()  # that are a length or a number of turns
        self.timed: set[Variable] = {("", "strftime_now")}  # that hold a time or a random choice
        self.over = False  # a variable can be more texts than are followed
        self.left = STEPS
        self._names: dict[int, frozenset[str]] = {}
        self._consts: dict[int, tuple[str, ...]] = {}

    def spend(self, steps: int = 1) -> None:
        """Count steps. Raises TooMuchError where there are too many."""
        self.left -= steps
        if self.left < 0:
            raise TooMuchError

    def bind(self, target: nodes.Node, kind: Holds) -> None:
        """Note what the names of an assignment or a loop hold."""
        bound = targets(target)
        for name in bound:  # of a pair one is a key, and the other can be a text
            self.hold(name, Holds.TEXT if kind >= Holds.FRAME and len(bound) > 1 else kind)

    def hold(self, name: str, kind: Holds, scope: str | None = None) -> None:
        """Note what a variable holds: the most that it ever does."""
        place = (self.scope if scope is None else scope, name)
        self.holds[place] = max(kind, self.holds.get(place, Holds.PLAIN))

    def variable(self, name: str) -> Variable:
        """Return whose variable a name means here: the macro's own, or the template's."""
        own = self.scope, name
        return own if own in self.holds else ("", name)

    def each(self, node: nodes.Node) -> Holds:
        """Return what the items of an expression hold."""
        kind = self.kind(node)
        if kind is Holds.RAW and not isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            return Holds.TEXT
        return Holds.PART if kind is Holds.RAW else kind

    def kind(self, node: nodes.Node | None) -> Holds:
        """Return what an expression holds."""
        self.spend()
        match node:
            case nodes.Name():
                return self._known(node.name) or Holds.PLAIN
            case nodes.Getattr():
                return self._member(node.node, node.attr)
            case nodes.Getitem():
                return self._member(node.node, node.arg)
            case nodes.Call(node=nodes.Getattr(attr="get") as method):
                return self._member(method.node, node.args[0] if node.args else None)
            case nodes.Call(node=nodes.Getattr() as method):
                inside = self.kind(method.node)
                if inside is Holds.SCHEMA or method.attr in ("items", "keys"):
                    return inside
                return max([inside and Holds.TEXT, *map(self.kind, node.args)])
            case nodes.Call(node=nodes.Name(name="caller")):
                return self._known("caller") or Holds.PLAIN
            case nodes.Add() | nodes.Concat():
                inside = max(map(self.kind, node.iter_child_nodes()), default=Holds.PLAIN)
                return Holds.TEXT if inside is Holds.PART else inside
            case nodes.Call():
                given = [*node.args, *(pair.value for pair in node.kwargs)]
                return max(map(self.kind, given), default=Holds.PLAIN)
            case nodes.Filter():
                return self._filtered(node)
            case None | nodes.Const() | nodes.Compare() | nodes.Test() | nodes.Not():
                return Holds.PLAIN
            case nodes.CondExpr():
                return max(self.kind(node.expr1), self.kind(node.expr2))
            case nodes.Slice():
                return Holds.PLAIN
            case nodes.List() | nodes.Tuple() | nodes.Dict():
                inside = max(map(self.kind, node.iter_child_nodes()), default=Holds.PLAIN)
                return Holds.TEXT if inside is Holds.RAW else inside
        return max(map(self.kind, node.iter_child_nodes()), default=Holds.PLAIN)

    def _filtered(self, node: nodes.Filter) -> Holds:
        inside = self.kind(node.node) if node.node else Holds.TEXT
        if node.name in SIZES:
            return Holds.PLAIN
        if node.name in _SAME or (node.name in CHOOSING and node.name != "map"):
            return inside
        if inside is Holds.SCHEMA and node.name not in _WRITING:
            return inside
        return Holds.TEXT if inside else Holds.PLAIN

    def _known(self, name: str) -> Holds | None:
        return self.holds.get(self.variable(name))

    def _member(self, whole: nodes.Node, key: nodes.Node | str | None) -> Holds:
        known = key.value if isinstance(key, nodes.Const) else key
        if isinstance(whole, nodes.Name) and isinstance(known, str):
            kept = self._known(f"{whole.name}.{known}")  # of a namespace
            if kept is not None:
                return kept
        inside = self.kind(whole)
        if inside <= Holds.SCHEMA or inside is Holds.TEXT:
            return inside
        match known:
            case str() if known in KEYS:
                return Holds.PLAIN
            case str() if known in FRAMES:
                return Holds.FRAME
            case int() | nodes.Slice() | nodes.Neg():
                return inside
        return Holds.RAW

    def is_size(self, node: nodes.Node) -> bool:
        """Whether a length of a text, or a number of turns, is in an expression."""
        self.spend()
        match node:
            case nodes.Name():
                return self.variable(node.name) in self.sized
            case nodes.Filter() if node.name in SIZES:
                return node.node is not None and self.kind(node.node) >= Holds.FRAME
            case nodes.Getattr(node=nodes.Name(name="loop")):
                return node.attr in COUNTERS
            case nodes.Getattr(node=nodes.Name() as owner):
                return self.variable(f"{owner.name}.{node.attr}") in self.sized
            case nodes.Compare() | nodes.Test() | nodes.Const():
                return False
        return any(map(self.is_size, node.iter_child_nodes()))

    def by_time(self, node: nodes.Node) -> bool:
        """Whether a time or a random choice is in an expression."""
        chance = any(found.name == "random" for found in node.find_all(nodes.Filter))
        return chance or not self.timed.isdisjoint(map(self.variable, self.names(node)))

    def note(self, variable: Variable, found: Iterable[str]) -> None:
        """Note fixed texts that a variable can be."""
        self.fixed[variable].update(found)
        if len(self.fixed[variable]) > TEXTS:
            self.fixed[variable] = set(sorted(self.fixed[variable])[:TEXTS])
            self.over = True

    def texts(self, node: nodes.Node) -> set[str]:
        """Return the fixed texts that an expression has, by itself or by its variables."""
        found = {*self.consts(node)}
        for name in self.names(node):
            texts = self.fixed[self.variable(name)]
            self.spend(1 + len(texts))
            found |= texts
        return found

    def names(self, node: nodes.Node) -> frozenset[str]:
        """Return the variables that are read below a node: `name`, and `name.attribute`."""
        known = self._names.get(id(node))
        if known is None:
            found: set[str] = set()
            for child in node.iter_child_nodes():
                found |= self.names(child)
            match node:
                case nodes.Name():
                    found.add(node.name)
                case nodes.Getattr(node=nodes.Name() as owner):
                    found.add(f"{owner.name}.{node.attr}")
                case nodes.Getitem(node=nodes.Name() as owner, arg=nodes.Const() as key):
                    found.add(f"{owner.name}.{key.value}")
            self.spend(1 + len(found))
            known = self._names[id(node)] = frozenset(found)
        return known

    def consts(self, node: nodes.Node) -> tuple[str, ...]:
        """Return the fixed texts in an expression; neighbours that are joined come whole."""
        known = self._consts.get(id(node))
        if known is None:
            self.spend()
            known = self._consts[id(node)] = tuple(self._fixed_in(node))
            self.spend(len(known))
        return known

    def _fixed_in(self, node: nodes.Node) -> Iterator[str]:
        if isinstance(node, nodes.Const):
            if isinstance(node.value, str):
                yield node.value
            return
        parts = [self.consts(child) for child in node.iter_child_nodes()]
        joined = isinstance(node, nodes.Add | nodes.Concat)
        if joined and parts and all(len(found) == 1 for found in parts):
            yield "".join(found[0] for found in parts)
        else:
            yield from dict.fromkeys(text for found in parts for text in found)


def targets(node: nodes.Node) -> tuple[str, ...]:
    """Return the variables that are assigned: `name`, and `namespace.name`."""
    match node:
        case nodes.Name():
            return (node.name,)
        case nodes.NSRef():
            return (f"{node.name}.{node.attr}",)
        case nodes.Tuple() | nodes.List():
            return tuple(dict.fromkeys(name for item in node.items for name in targets(item)))
    return ()


def whole_numbers(found: Iterable[nodes.Node]) -> Iterator[int]:
    """Yield the whole numbers among nodes."""
    for node in found:
        if isinstance(node, nodes.Const) and type(node.value) is int:
            yield node.value
