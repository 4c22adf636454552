"""Find in a chat template's tree what no honest template needs: code, bombs, time, addresses.

Limits: names that are put together at run time from parts of a conversation are not seen, nor texts
that are doubled in a loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from jinja2 import nodes

from adapterscan.formats.template_facts import MOST, Construct
from adapterscan.formats.template_values import Values, targets, whole_numbers
from adapterscan.text import is_hidden

LARGE = 1_000_000  # numbers in templates are years, widths and context lengths
RANGES = 1_000_000  # turns of loops in each other
POWER = 64
_RUNTIME = frozenset({"self", "cycler", "joiner", "lipsum"})
_DUNDER = re.compile(r"__\w+__|\bos\.(?:system|popen)\b")
_URL = re.compile(r"(?:https?|ftp)://[^\s\"'<>]+|\bwww\.\w+\.\w+", re.IGNORECASE)
_WIDTH = re.compile(r"%[-+ #0]*\d{6,}|\{:?[^{}]{0,3}\d{6,}")
_JOINERS = "\u200c\u200d"  # letters of some scripts, and pictures, need them

Found = Iterator[Construct]


def constructs(parsed: nodes.Template, values: Values) -> tuple[list[Construct], bool]:
    """Return what is found, MOST of each kind, and whether there is more."""
    counts: Counter[str] = Counter()
    kept = []
    for construct in dict.fromkeys(_constructs(parsed, values)):
        counts[construct.kind] += 1
        if counts[construct.kind] <= MOST:
            kept.append(construct)
    return kept, max(counts.values(), default=0) > MOST


def _constructs(parsed: nodes.Template, values: Values) -> Found:
    every = [parsed, *parsed.find_all(nodes.Node)]
    bound = {name for node in every for name in _binds(node)}
    for node in every:
        values.spend()
        yield from _code(node, bound, values)
        yield from _bomb(node, values)
        yield from _text(node, values)
        match node:
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
                yield Construct(node.lineno, "include", type(node).__name__.lower())
            case nodes.If() | nodes.CondExpr() if _waits(node.test, values):
                yield Construct(node.lineno, "time", "a date, a time or chance decides")
            case nodes.For() if _waits(node.iter, values):
                yield Construct(node.lineno, "time", "a date, a time or chance decides")
            case nodes.Getitem() if values.by_time(node.arg):
                yield Construct(node.lineno, "time", "a date, a time or chance chooses")
            case nodes.Call(node=nodes.Getattr(attr="get")) if any(map(values.by_time, node.args)):
                yield Construct(node.lineno, "time", "a date, a time or chance chooses")


def _waits(test: nodes.Node, values: Values) -> bool:
    """Whether a time or chance is held against something: whether it is known is no such thing."""
    if not values.by_time(test):
        return False
    ours = {
        id(const)
        for call in (*test.find_all(nodes.Call), test)
        if isinstance(call, nodes.Call) and isinstance(call.node, nodes.Name)
        for argument in call.args
        for const in (argument, *argument.find_all(nodes.Const))
    }
    others = [c for c in test.find_all(nodes.Const) if id(c) not in ours]
    numbers = any(type(c.value) in (int, float) for c in others)
    texts = any(isinstance(c.value, str) and any(map(str.isalnum, c.value)) for c in others)
    chance = any(found.name == "random" for found in test.find_all(nodes.Filter))
    return numbers or texts or chance


def _binds(node: nodes.Node) -> Iterator[str]:
    match node:
        case nodes.Name() if node.ctx != "load":
            yield node.name
        case nodes.Assign() | nodes.AssignBlock() | nodes.For():
            yield from targets(node.target)


def _code(node: nodes.Node, bound: set[str], values: Values) -> Found:
    match node:
        case nodes.Name() if node.name in _RUNTIME - bound and node.ctx == "load":
            yield Construct(node.lineno, "code", node.name)
        case nodes.Getattr() if node.attr.startswith("_"):
            yield Construct(node.lineno, "code", node.attr)
        case nodes.Filter() if node.name == "attr":
            yield Construct(node.lineno, "code", "|attr")
        case nodes.Const() if isinstance(node.value, str) and (found := _DUNDER.search(node.value)):
            yield Construct(node.lineno, "code", found[0])
        case nodes.Add() | nodes.Concat():
            for text in values.consts(node):
                if found := _DUNDER.search(text):
                    yield Construct(node.lineno, "code", found[0])
        case nodes.Getitem() if not isinstance(node.arg, nodes.Const | nodes.Slice | nodes.Neg):
            texts, numbers = values.consts(node.arg), list(node.arg.find_all(nodes.Const))
            if texts and numbers and not values.names(node.arg):
                yield Construct(node.lineno, "code", f"a name of parts: {' '.join(texts)}"[:80])


def _bomb(node: nodes.Node, values: Values) -> Found:
    match node:
        case nodes.Const() if type(node.value) is int and abs(node.value) > LARGE:
            yield Construct(node.lineno, "bomb", f"the number {node.value:,}"[:60])
        case nodes.Const() if isinstance(node.value, str) and _WIDTH.search(node.value):
            yield Construct(node.lineno, "bomb", "a width of a million")
        case nodes.Pow():
            sides = list(whole_numbers([node.left, node.right]))
            known = len(sides) == 2 and abs(sides[0]) <= LARGE and abs(sides[1]) <= POWER
            if not known or abs(sides[0]) ** abs(sides[1]) > LARGE:
                yield Construct(node.lineno, "bomb", "a power")
        case nodes.For():
            if _turns(node) > RANGES:
                yield Construct(node.lineno, "bomb", "loops of millions of turns")


def _turns(node: nodes.For) -> int:
    """Return how often the innermost of nested loops over fixed ranges turns, at most."""
    own = max((abs(n) for n in whole_numbers(_range(node.iter))), default=1)
    inner = max(map(_turns, _inner(node)), default=1)
    return max(own, 1) * inner


def _inner(node: nodes.For) -> Iterator[nodes.For]:
    room: list[nodes.Node] = [*node.body]
    while room:
        found = room.pop()
        if isinstance(found, nodes.For):
            yield found
        else:
            room += found.iter_child_nodes()


def _range(node: nodes.Node) -> list[nodes.Expr]:
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
        return node.args if node.node.name == "range" else []
    return []


def _text(node: nodes.Node, values: Values) -> Found:
    match node:
        case nodes.TemplateData():
            texts: tuple[str, ...] = (node.data,)
        case nodes.Const() if isinstance(node.value, str):
            texts = (node.value,)
        case nodes.Add() | nodes.Concat():
            texts = values.consts(node)
        case _:
            return
    for text in texts:
        for found in _URL.finditer(text):
            yield Construct(node.lineno, "url", found[0])
        if hidden := _hidden(text):
            yield Construct(node.lineno, "invisible", hidden)


def _hidden(text: str) -> str:
    """Return the characters of a text that nobody sees, but for line breaks and honest joiners."""
    if text.isascii() and text.isprintable():
        return ""
    odd = set()
    for place, character in enumerate(text):
        if character in "\n\r\t" or not is_hidden(character):
            continue
        beside = text[max(0, place - 1) : place + 2].replace(character, "")
        joins = character in _JOINERS and bool(beside) and not beside.isascii()
        first = character == "\ufeff" and place == 0
        if not joins and not first:
            odd.add(character)
    return "".join(sorted(odd))
