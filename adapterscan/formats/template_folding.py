"""Put together fixed texts that a chat template takes apart: replaced, reversed, joined, cased.

Only texts that stand in the template are folded, nothing of a conversation, and no text grows
beyond LONGEST: `'a' * 10 ** 10` stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import nodes

LONGEST = 10_000  # characters
_DEPTH = 20
_CASES: dict[str, Callable[[str], str]] = {
    "lower": str.lower, "upper": str.upper, "title": str.title, "capitalize": str.capitalize,
    "trim": str.strip, "strip": str.strip,
}  # fmt: skip


def folded(node: nodes.Node, depth: int = 0) -> str | None:
    """Return the text that an expression of fixed texts makes; None for any other expression."""
    if depth > _DEPTH:
        return None
    match node:
        case nodes.Const(value=str(text)):
            return text
        case nodes.Add(left=left, right=right):
            return _joined([left, right], "", depth)
        case nodes.Concat(nodes=parts):
            return _joined(parts, "", depth)
        case nodes.Filter(name="join", node=nodes.List(items=items), args=args):
            between = folded(args[0], depth + 1) if args else ""
            return _joined(items, between, depth) if between is not None else None
        case nodes.Call(
            node=nodes.Getattr(attr="join", node=inner), args=[nodes.List(items=items)]
        ):
            between = folded(inner, depth + 1)
            return _joined(items, between, depth) if between is not None else None
        case nodes.Filter(name=name, node=nodes.Node() as inner, args=args):
            return _changed(name, folded(inner, depth + 1), args, depth)
        case nodes.Call(node=nodes.Getattr(attr=name, node=inner), args=args):
            return _changed(name, folded(inner, depth + 1), args, depth)
        case nodes.Getitem(node=inner, arg=nodes.Slice(start=None, stop=None, step=step)):
            whole = folded(inner, depth + 1) if step == nodes.Neg(nodes.Const(1)) else None
            return whole[::-1] if whole is not None else None
    return None


def _joined(parts: list[nodes.Expr], between: str, depth: int) -> str | None:
    texts = [folded(part, depth + 1) for part in parts[:LONGEST]]
    found = [text for text in texts if text is not None]
    if len(found) < len(parts) or sum(map(len, found)) + len(between) * len(found) > LONGEST:
        return None
    return between.join(found)


def _changed(name: str, text: str | None, args: list[nodes.Expr], depth: int) -> str | None:
    """Return a text after a filter or a method, where it is one of those that are folded."""
    if text is None:
        return None
    if name in _CASES and not args:
        return _CASES[name](text)
    if name == "reverse":
        return text[::-1]
    given = [folded(argument, depth + 1) for argument in args]
    if name == "replace" and len(given) == 2:
        old, new = given
        if old and new is not None and len(text) + text.count(old) * len(new) <= LONGEST:
            return text.replace(old, new)
    return None
