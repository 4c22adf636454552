"""What the expressions of a chat template hold: texts that somebody wrote, or nothing of the kind.

Values are followed by name through assignments, loops, namespaces and macros; nothing is computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import IntEnum

from jinja2 import nodes

from adapterscan.formats.template_facts import MOST


class Holds(IntEnum):
    """What a value is, by where it comes from."""

    PLAIN = 0  # nothing of the conversation
    SCHEMA = 1  # tools on offer, documents: their keys and types are no text of a request
    FRAME = 2  # messages and their parts: what holds texts
    TEXT = 3  # what somebody wrote


_ROOTS = {
    **dict.fromkeys(("messages", "conversation", "history"), Holds.FRAME),
    **dict.fromkeys(("tools", "documents", "custom_tools", "builtin_tools"), Holds.SCHEMA),
}
#: Keys of messages, parts and tools under which nobody writes: what a request is, not what it says.
KEYS = frozenset(
    "role type id name tool_call_id call_id function_call recipient channel format title mime_type "
    "strict required enum".split()
)
FRAMES = frozenset(
    "tool_calls function functions parameters properties arguments items tools anyOf oneOf "
    "additional_properties tool_responses".split()
)
_SIZES = frozenset({"length", "count"})
_SAME = frozenset("first last list reverse sort batch slice unique default d safe".split())
_WRITING = frozenset({"string", "tojson", "join", "pprint", "urlencode"})  # of a schema, too
CHOOSING = frozenset({"selectattr", "rejectattr", "select", "reject", "map", "groupby"})


class Values:
    """What each variable holds, in the macro that is read and outside of it."""

    def __init__(self) -> None:
        self.scope = ""  # the macro that is read
        self.holds: dict[tuple[str, str], Holds] = {("", n): kind for n, kind in _ROOTS.items()}
        self.fixed: dict[str, set[str]] = defaultdict(set)  # texts that a variable can be
        self.over = False  # a variable can be more texts than are followed
        self.timed: set[str] = set()  # variables with a time or a random choice in them

    def bind(self, target: nodes.Node, kind: Holds) -> None:
        """Note what the names of an assignment or a loop hold."""
        bound = list(targets(target))
        for name in bound:  # of a pair one is a key, and the other can be a text
            self.hold(name, Holds.TEXT if kind >= Holds.FRAME and len(bound) > 1 else kind)

    def hold(self, name: str, kind: Holds, scope: str | None = None) -> None:
        """Note what a variable holds: the most that it ever does."""
        place = (self.scope if scope is None else scope, name)
        self.holds[place] = max(kind, self.holds.get(place, Holds.PLAIN))

    def _known(self, name: str) -> Holds | None:
        """Return what a variable holds: the macro's own, or the template's."""
        return self.holds.get((self.scope, name), self.holds.get(("", name)))

    def kind(self, node: nodes.Node | None) -> Holds:
        """Return what an expression holds."""
        match node:
            case nodes.Name():
                return self._known(node.name) or Holds.PLAIN
            case nodes.Getattr():
                if isinstance(node.node, nodes.Name):
                    kept = self._known(f"{node.node.name}.{node.attr}")  # of a namespace
                    if kept is not None:
                        return kept
                return self.member(node.node, node.attr)
            case nodes.Getitem():
                return self.member(node.node, node.arg)
            case nodes.Call(node=nodes.Getattr(attr="get") as method):
                return self.member(method.node, node.args[0] if node.args else None)
            case nodes.Call(node=nodes.Getattr() as method):
                inside = self.kind(method.node)
                if inside is Holds.SCHEMA or method.attr in ("items", "keys"):
                    return inside
                return max([inside and Holds.TEXT, *map(self.kind, node.args)])
            case nodes.Call():
                return max([self.kind(item) for item in node.args], default=Holds.PLAIN)
            case nodes.Filter():
                inside = self.kind(node.node)
                if node.name in _SIZES:
                    return Holds.PLAIN
                if node.name in _SAME or (node.name in CHOOSING and node.name != "map"):
                    return inside
                if inside is Holds.SCHEMA and node.name not in _WRITING:
                    return inside
                return Holds.TEXT if inside else Holds.PLAIN
            case nodes.Compare() | nodes.Test() | nodes.Not():
                return Holds.PLAIN
            case None | nodes.Const():
                return Holds.PLAIN
            case nodes.CondExpr():
                return max(self.kind(node.expr1), self.kind(node.expr2))
            case nodes.Slice():
                return Holds.PLAIN
        kinds = [self.kind(child) for child in node.iter_child_nodes()]
        return max(kinds, default=Holds.PLAIN)

    def member(self, whole: nodes.Node, key: nodes.Node | str | None) -> Holds:
        inside = self.kind(whole)
        if inside <= Holds.SCHEMA:
            return inside
        known = key.value if isinstance(key, nodes.Const) else key
        match known:
            case str() if known in KEYS:
                return Holds.PLAIN
            case str() if known in FRAMES:
                return Holds.FRAME
            case int() | nodes.Slice() | nodes.Neg():
                return inside
        return Holds.TEXT

    def size(self, node: nodes.Node) -> bool:
        """Whether an expression is the length of a text or of a conversation."""
        return isinstance(node, nodes.Filter) and node.name in _SIZES and bool(self.kind(node.node))

    def by_time(self, node: nodes.Node) -> bool:
        """Whether a time or a random choice is in an expression."""
        calls = [*node.find_all(nodes.Call), *([node] if isinstance(node, nodes.Call) else [])]
        called = any(
            isinstance(call.node, nodes.Name) and call.node.name == "strftime_now" for call in calls
        )
        chance = any(found.name == "random" for found in node.find_all(nodes.Filter))
        return called or chance or not self.timed.isdisjoint(names(node))

    def note(self, name: str, found: Iterable[str]) -> None:
        """Note fixed texts that a variable can be."""
        self.fixed[name].update(found)
        if len(self.fixed[name]) > MOST:
            self.fixed[name] = set(sorted(self.fixed[name])[:MOST])
            self.over = True

    def texts(self, node: nodes.Node) -> set[str]:
        """Return the fixed texts that an expression has, by itself or by its variables."""
        return {*consts(node)}.union(*(self.fixed[name] for name in names(node)))


def targets(node: nodes.Node) -> Iterator[str]:
    """Yield the variables that are assigned: `name`, and `namespace.name`."""
    match node:
        case nodes.Name():
            yield node.name
        case nodes.NSRef():
            yield f"{node.name}.{node.attr}"
        case nodes.Tuple():
            for item in node.items:
                yield from targets(item)


def names(node: nodes.Node) -> Iterator[str]:
    """Yield the variables that are read below a node: `name`, and `name.attribute`."""
    for found in (node,) if isinstance(node, (nodes.Name, nodes.Getattr)) else ():
        yield from _named(found)
    for kind in (nodes.Name, nodes.Getattr):
        for below in node.find_all(kind):
            yield from _named(below)


def _named(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        yield node.name
    elif isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        yield f"{node.node.name}.{node.attr}"


def consts(node: nodes.Node) -> Iterator[str]:
    """Yield the fixed texts in an expression; neighbours that are joined come whole."""
    if isinstance(node, nodes.Const):
        if isinstance(node.value, str):
            yield node.value
        return
    if isinstance(node, (nodes.Add, nodes.Concat)):
        parts = [node.left, node.right] if isinstance(node, nodes.Add) else node.nodes
        texts = [list(consts(part)) for part in parts]
        if all(len(found) == 1 for found in texts):
            yield "".join(found[0] for found in texts)
        else:
            yield from (text for found in texts for text in found)
        return
    for child in node.iter_child_nodes():
        yield from consts(child)


def numbers(found: Iterable[nodes.Node]) -> Iterator[int]:
    """Yield the whole numbers among nodes."""
    for node in found:
        if isinstance(node, nodes.Const) and type(node.value) is int:
            yield node.value
