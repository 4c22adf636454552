"""Read what a chat template does from its syntax tree. It is parsed, never compiled or rendered.

Rendering is not safe even in a sandbox: `'a' * 10 ** 10` needs no forbidden name. So everything
here is told by the tree: which texts of a conversation are compared with what, what is then added
to the prompt, and what no honest template needs.

Sources: CVE-2024-34359 and CVE-2026-5760 (code by a template's attributes); arXiv 2602.04653
(instructions that a template adds when a request has certain words).
Limits: values are followed through assignments, loops, namespaces and macros by name, not computed.
A comparison with a text that is put together at run time is seen with its parts only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from adapterscan.errors import Malformed
from adapterscan.formats.chat_templates import Template
from adapterscan.formats.template_facts import MOST, Condition, Construct, Tree, is_prose
from adapterscan.formats.template_values import (
    CHOOSING,
    FRAMES,
    KEYS,
    Holds,
    Values,
    consts,
    names,
    numbers,
    targets,
)
from adapterscan.text import is_hidden

PASSES = 3  # over the tree: what macros are given is known after the first
LARGE = 100_000  # the sandbox of jinja2 allows ranges up to here
REPEATED = 1000  # times that a text is repeated, at most


_FORMATTING = frozenset(
    "join default d trim indent tojson string length count format escape e first last list title "
    "capitalize upper lower safe wordcount int float round abs items dictsort batch slice".split()
)
_RUNTIME = frozenset(
    {"self", "cycler", "joiner", "lipsum", "config", "request", "url_for", "get_flashed_messages",
     "application", "session", "g"}
)  # fmt: skip
_DUNDER = re.compile(r"__\w+__|\bos\.(?:system|popen)\b|\bsubprocess\b|\bpopen\b")
_URL = re.compile(r"(?:https?|ftp)://\S+|\bwww\.\w+\.\w+", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W_]")
_MARKUP = re.compile(r"^\s*[<\[{`|#*▁]|[>\]}|:]\s*$|<\w|\w>|^&\w+;$")
#: What parts of messages are asked for: they are dictionaries, or texts.
_PARTS = frozenset("text image image_url input_audio audio video thinking parts blocks".split())
_COMMAND = re.compile(r"\s*/\w+\s*")


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which transformers adds; parsed as what it holds."""

    tags = {"generation"}  # noqa: RUF012  as its parent declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def read_template(template: Template) -> Tree:
    """Return what a template does. Raises Malformed where it cannot be parsed."""
    extensions: list[type[Extension] | str] = [_Generation, "jinja2.ext.loopcontrols"]
    try:
        parsed = Environment(extensions=extensions, autoescape=False).parse(template.text)  # noqa: S701  never rendered
        return _Reader(parsed).tree
    except TemplateSyntaxError as error:
        reason = f"has a chat template that cannot be parsed (line {error.lineno})"
        raise Malformed(
            template.path, reason, defect="template", hint="no loader can use it; read it by eye"
        ) from error
    except (RecursionError, ValueError) as error:  # or a number of thousands of digits
        reason = "has a chat template that is deeper or longer than we follow"
        raise Malformed(
            template.path, reason, defect="template", hint="treat it as hostile"
        ) from error


class _Reader:
    """Walks a template's tree, with what each variable holds."""

    def __init__(self, parsed: nodes.Template) -> None:
        self.tree = Tree()
        self.values = Values()
        self.conditions: dict[tuple[int, str, str], Condition] = {}
        self.flags: dict[str, list[Condition]] = defaultdict(list)
        self.large = max(numbers(parsed.find_all(nodes.Const)), default=0)
        self.macros = {macro.name: macro for macro in parsed.find_all(nodes.Macro)}
        for _ in range(PASSES):
            self.tree = Tree()
            self._all(parsed.body)
        self.tree.conditions += self.conditions.values()
        self.tree.over |= self.values.over
        for data in parsed.find_all(nodes.TemplateData):
            self._text(data.data, data.lineno)
        for const in parsed.find_all(nodes.Const):
            if isinstance(const.value, str):
                self._text(const.value, const.lineno)

    def _all(self, found: Iterable[nodes.Node]) -> list[Condition]:
        return [condition for node in found for condition in self._visit(node)]

    def _visit(self, node: nodes.Node) -> list[Condition]:
        """Return the conditions below a node, and keep everything that is seen there."""
        match node:
            case nodes.If() | nodes.CondExpr():
                return self._branch(node)
            case nodes.For():
                self.values.bind(node.target, min(self.values.kind(node.iter), Holds.FRAME))
                found = self._all([node.iter]) + (self._all([node.test]) if node.test else [])
                self._met(found, node.body)
                return found + self._all([*node.body, *node.else_])
            case nodes.Assign() | nodes.AssignBlock():
                return self._assigned(node)
            case nodes.Macro():
                self.values.scope, before = node.name, self.values.scope
                found = self._all(node.iter_child_nodes())
                self.values.scope = before
                return found
            case nodes.Call() if (
                isinstance(node.node, nodes.Name) and node.node.name in self.macros
            ):
                self._given(self.macros[node.node.name], node)
            case nodes.Name() if node.name in _RUNTIME and node.ctx == "load":
                self._odd(node, "code", node.name)
            case nodes.Getattr() if node.attr.startswith("_"):
                self._odd(node, "code", node.attr)
            case nodes.Filter() if node.name == "attr":
                self._odd(node, "code", "|attr")
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
                self._odd(node, "include", type(node).__name__.lower())
            case nodes.Add() | nodes.Concat():
                for text in consts(node):
                    self._hidden_in(text, node.lineno)
            case nodes.Mul() | nodes.Pow():
                self._grown(node)
            case nodes.Const() if type(node.value) is int and abs(node.value) > LARGE:
                self._odd(node, "bomb", f"the number {node.value:,}"[:60])
            case nodes.Compare() if self.values.by_time(node):
                self._odd(node, "time", "a date, a time or chance decides")
        own = list(self._held(node))
        for condition in own:
            if len(self.conditions) < MOST or _place(condition) in self.conditions:
                self.conditions.setdefault(_place(condition), condition)
            else:
                self.tree.over = True
        return own + self._all(node.iter_child_nodes())

    def _branch(self, node: nodes.If | nodes.CondExpr) -> list[Condition]:
        found = self._all([node.test])
        found += [flag for name in names(node.test) for flag in self.flags[name]]
        if isinstance(node, nodes.CondExpr):
            rest: list[nodes.Node] = [node.expr1, *([node.expr2] if node.expr2 else [])]
            self._met(found, rest)
            return found + self._all(rest)
        self._met(found, [*node.body, *node.else_])
        return found + self._all([*node.body, *node.elif_, *node.else_])

    def _met(self, found: Sequence[Condition], body: Iterable[nodes.Node]) -> None:
        """Say of conditions what is added to the prompt where they are met, or are not."""
        added = " ".join(text for node in body for text in _added(node)) if found else ""
        for condition in found:
            known = self.conditions.get(_place(condition), condition)
            if _place(condition) in self.conditions and len(added) > len(known.adds):
                self.conditions[_place(condition)] = replace(known, adds=added)

    def _assigned(self, node: nodes.Assign | nodes.AssignBlock) -> list[Condition]:
        body = [node.node] if isinstance(node, nodes.Assign) else node.body
        found = self._all(body)
        kind = max((self.values.kind(item) for item in body if isinstance(item, nodes.Expr)),
                   default=Holds.PLAIN)  # fmt: skip
        if isinstance(node, nodes.AssignBlock):
            inner = (e for item in body for e in item.find_all(nodes.Expr))
            kind = max((self.values.kind(item) for item in inner), default=Holds.PLAIN)
        self.values.bind(node.target, kind)
        for name in targets(node.target):
            self.values.note(name, (text for item in body for text in consts(item)))
            if kind is Holds.PLAIN:
                self.flags[name] += [item for item in found if item not in self.flags[name]]
            if any(self.values.by_time(item) for item in body):
                self.values.timed.add(name)
        if isinstance(node, nodes.Assign) and isinstance(node.node, nodes.Call):
            for pair in node.node.kwargs:  # namespace(text=…)
                for name in targets(node.target):
                    self.values.hold(f"{name}.{pair.key}", self.values.kind(pair.value))
        return found

    def _given(self, macro: nodes.Macro, call: nodes.Call) -> None:
        named = [argument.name for argument in macro.args]
        given = [*zip(named, call.args, strict=False), *((p.key, p.value) for p in call.kwargs)]
        for name, value in given:
            self.values.hold(name, self.values.kind(value), macro.name)
            self.values.note(name, consts(value))

    def _held(self, node: nodes.Node) -> Iterator[Condition]:
        """Yield a condition for each fixed text that the conversation's is held against here."""
        match node:
            case nodes.Compare():
                sides = [node.expr, *(operand.expr for operand in node.ops)]
                form = {"eq": "==", "ne": "!=", "notin": "not in"}.get(
                    node.ops[0].op, node.ops[0].op
                )
                if any(self.values.size(side) for side in sides):
                    for number in numbers(sides):
                        if number > 1:
                            yield Condition(node.lineno, form, str(number), "number")
                if any(self.values.kind(side) is Holds.TEXT for side in sides):
                    yield from self._literals(node.lineno, form, sides)
            case nodes.Test() if node.args and self.values.kind(node.node) is Holds.TEXT:
                yield from self._literals(node.lineno, node.name, node.args)
            case nodes.Call(node=nodes.Getattr() as method):
                if self.values.kind(method.node) is Holds.TEXT and method.attr != "get":
                    yield from self._literals(node.lineno, method.attr, node.args)
            case nodes.Filter() if node.name in CHOOSING and self.values.kind(node.node):
                first = next(iter(consts(node.args[0])), "") if node.args else ""
                if first and first not in KEYS | FRAMES and len(node.args) > 1:
                    yield from self._literals(node.lineno, node.name, node.args[2:])
            case nodes.Filter() if node.name not in _FORMATTING:
                if self.values.kind(node.node) is Holds.TEXT:
                    yield from self._literals(node.lineno, node.name, node.args)
            case nodes.Getitem() if self.values.kind(node.arg) is Holds.TEXT:
                yield from self._literals(node.lineno, "look-up", [node.node])

    def _literals(self, line: int, form: str, sides: Iterable[nodes.Node]) -> Iterator[Condition]:
        for side in sides:
            if self.values.kind(side) is Holds.TEXT:
                continue
            for text in sorted(self.values.texts(side)):
                if _LETTERS.search(text):
                    yield Condition(line, form, text, _class(text))

    def _grown(self, node: nodes.Mul | nodes.Pow) -> None:
        repeated = any(
            isinstance(side, (nodes.List, nodes.Tuple))
            or isinstance(getattr(side, "value", 0), str)
            for side in (node.left, node.right)
        )
        if isinstance(node, nodes.Pow) or (repeated and self.large > REPEATED):
            self._odd(node, "bomb", "a text or a number is multiplied")

    def _text(self, text: str, line: int) -> None:
        self._hidden_in(text, line)
        if is_prose(text):
            self.tree.instructions.append((line, text.strip()))

    def _hidden_in(self, text: str, line: int) -> None:
        if found := _DUNDER.search(text):
            self.tree.constructs.append(Construct(line, "code", found[0]))
        for found in _URL.finditer(text):
            self.tree.constructs.append(Construct(line, "url", found[0]))
        if hidden := {c for c in text if is_hidden(c)} - set("\n\r\t"):
            self.tree.constructs.append(Construct(line, "invisible", "".join(sorted(hidden))))

    def _odd(self, node: nodes.Node, kind: str, text: str) -> None:
        self.tree.constructs.append(Construct(node.lineno, kind, text))


def _place(condition: Condition) -> tuple[int, str, str]:
    return condition.line, condition.form, condition.literal


def _class(text: str) -> str:
    if _COMMAND.fullmatch(text):
        return "command"
    if text in _PARTS:
        return "key"
    return "markup" if _MARKUP.search(text) else "text"


def _added(node: nodes.Node) -> Iterator[str]:
    """Yield the fixed texts that a branch adds: what it writes, and what it puts into variables.

    Messages of `raise_exception` go to no prompt; tests of inner branches are no text of theirs.
    """
    match node:
        case nodes.TemplateData():
            yield node.data
        case nodes.Const():
            if isinstance(node.value, str):
                yield node.value
        case nodes.Call(node=nodes.Name(name="raise_exception")):
            return
        case nodes.Compare() | nodes.Test():
            return
        case nodes.Getitem():
            yield from _added(node.node)
        case _:
            for child in node.iter_child_nodes():
                yield from _added(child)
