"""Read what a chat template does from its syntax tree. It is parsed, never compiled or rendered.

Rendering is not safe even in a sandbox: `'a' * 10 ** 10` needs no forbidden name. So everything
here is told by the tree: which texts of a conversation are held against what, and which fixed
texts go to the prompt for it. What a condition decides is followed through the variables that are
set where it is met, through macros, and through expressions that choose.

Sources: CVE-2024-34359 and CVE-2026-5760 (code by a template's attributes); arXiv 2602.04653
(instructions that a template adds when a request has certain words).
Limits: values are followed by name, not computed: a text that is put together at run time is seen
with its parts only, unless it is all of fixed texts (`template_folding.py`). Loops that stop early
decide something, too, and are not followed. Conditions on who speaks and on names of tools are no
text of a request. Payloads of less than six words are no sentence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from adapterscan.errors import Malformed
from adapterscan.formats.chat_templates import Template
from adapterscan.formats.template_facts import APART, MOST, Condition, Tree, is_prose
from adapterscan.formats.template_folding import folded
from adapterscan.formats.template_oddities import constructs
from adapterscan.formats.template_shape import shape_of
from adapterscan.formats.template_texts import literal_kind, says_something
from adapterscan.formats.template_values import (
    CHOOSING,
    FRAMES,
    KEYS,
    Holds,
    Values,
    Variable,
    targets,
    whole_numbers,
)

PASSES = 8  # over the tree, at most: what macros are given is known after some
_FORMATTING = frozenset(
    "join default d trim indent tojson string length count format escape e first last list title "
    "capitalize upper lower safe wordcount int float round abs items dictsort batch slice".split()
)
#: What takes a text apart: it decides something only where the pieces are counted or compared.
CUTTING = frozenset(
    "split rsplit splitlines partition rpartition replace strip lstrip rstrip removeprefix "
    "removesuffix".split()
)
_KEEPING = frozenset({"append", "extend", "insert", "update", "setdefault", "add"})
_PLAIN_METHODS = frozenset({"join", "format"})
_FOLDING = (nodes.Filter, nodes.Call, nodes.Getitem, nodes.Add, nodes.Concat)
_OPPOSITE = frozenset({"ne", "notin"})
_FORMS = {"eq": "==", "ne": "!=", "notin": "not in"}

Place = tuple[int, str, str]
Decides = frozenset[tuple[Place, bool]]  # conditions, and whether it is that they are not met
NOTHING: Decides = frozenset()


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which transformers adds; parsed as what it holds."""

    tags = {"generation"}  # noqa: RUF012  as its parent declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def read_template(template: Template) -> Tree:
    """Return what a template does. Raises Malformed where it cannot be parsed, or is too much."""
    extensions: list[type[Extension] | str] = [_Generation, "jinja2.ext.loopcontrols"]
    try:
        parsed = Environment(extensions=extensions, autoescape=False).parse(template.text)  # noqa: S701  never rendered
        return _Reader(parsed).tree
    except TemplateSyntaxError as error:
        reason = f"has a chat template that cannot be parsed (line {error.lineno})"
        raise Malformed(
            template.path, reason, defect="template", hint="no loader can use it; read it by eye"
        ) from error
    except (RecursionError, ValueError) as error:  # TooMuchError; a number of thousands of digits
        reason = "has a chat template that is deeper or longer than we follow"
        raise Malformed(
            template.path, reason, defect="template", hint="treat it as hostile"
        ) from error


class _Reader:
    """Walks a template's tree until nothing new is learnt of its variables."""

    def __init__(self, parsed: nodes.Template) -> None:
        self.tree = Tree()
        self.values = Values()
        self.conditions: dict[Place, Condition] = {}
        self.macros = {macro.name: macro for macro in parsed.find_all(nodes.Macro)}
        self.aliases: dict[str, set[str]] = {name: {name} for name in self.macros}
        self.within: Decides = NOTHING  # what decides whether the place that is read is reached
        self.decided: dict[Variable, Decides] = defaultdict(frozenset)  # also by macro
        self.cut: dict[Variable, Decides] = defaultdict(frozenset)  # texts that were taken apart
        known = -1
        for _ in range(PASSES):
            self._all(parsed.body)
            learnt = self._learnt()
            if learnt == known:
                break
            known = learnt
        else:
            self.tree.over = True
        self.tree.over |= self.values.over
        self.tree.conditions += self.conditions.values()
        self.tree.constructs, over = constructs(parsed, self.values)
        self.tree.over |= over
        texts = [(data.lineno, data.data) for data in parsed.find_all(nodes.TemplateData)]
        texts += [
            (c.lineno, c.value) for c in parsed.find_all(nodes.Const) if isinstance(c.value, str)
        ]
        self.tree.instructions += [(line, text.strip()) for line, text in texts if is_prose(text)]
        spaced = (" ".join(text.split()) for _, text in texts)
        self.tree.texts = tuple(dict.fromkeys(text for text in spaced if text))
        self.tree.shape = shape_of(parsed)

    def _learnt(self) -> int:
        """Return a number that grows with everything that is known."""
        values = self.values
        return (
            sum(values.holds.values())
            + sum(map(len, values.fixed.values()))
            + sum(map(len, self.decided.values())) + sum(map(len, self.cut.values()))
            + len(values.sized) + len(values.timed) + len(self.conditions)
        )  # fmt: skip

    def _all(self, found: Iterable[nodes.Node], within: Decides = NOTHING) -> Decides:
        """Read statements that `within` decides about; return the conditions below them."""
        before, self.within = self.within, self.within | within
        below = NOTHING.union(*(self._visit(node) for node in found))
        self.within = before
        return below

    def _visit(self, node: nodes.Node) -> Decides:
        self.values.spend()
        match node:
            case nodes.Output():
                return NOTHING.union(*(self._told(child) for child in node.nodes))
            case nodes.If():
                return self._branch(node)
            case nodes.For():
                self._bound(node.target, self.values.each(node.iter), node.iter)
                decides = self._read(node.iter) | (self._read(node.test) if node.test else NOTHING)
                self._met(decides, node.body)
                self._met(_not(decides), node.else_)
                otherwise = self._all(node.else_, _not(decides))
                return decides | self._all(node.body, decides) | otherwise
            case nodes.Assign():
                return self._assigned(node.target, node.node)
            case nodes.AssignBlock():
                below = self._all(node.body)
                for name in targets(node.target):
                    self.values.hold(name, self._body_kind(node.body))
                    self.values.note(self.values.variable(name), self._pieces(node.body))
                    self._decide(name, below)
                return below
            case nodes.With():
                found = [
                    self._assigned(target, value)
                    for target, value in zip(node.targets, node.values, strict=True)
                ]
                return NOTHING.union(*found) | self._all(node.body)
            case nodes.Macro():
                return self._macro(node)
            case nodes.CallBlock():
                decides = self._read(node.call)
                for name in self._macros_of(node.call.node):
                    self.values.hold("caller", self._body_kind(node.body), name)
                for argument in node.args:
                    self.values.hold(argument.name, Holds.TEXT)
                self._met(decides, node.body)
                return decides | self._all(node.body, decides)
            case nodes.FilterBlock():
                return self._read(node.filter) | self._all(node.body)
        if isinstance(node, nodes.Expr):
            return self._read(node)
        return self._all(node.iter_child_nodes())

    def _branch(self, node: nodes.If) -> Decides:
        """Read a chain of tests: what the first ones decide holds for all that come after."""
        below, before = NOTHING, NOTHING
        for link in (node, *node.elif_):
            decides = self._read(link.test)
            self._met(before | decides, link.body)
            below |= decides | self._all(link.body, before | decides)
            before |= _not(decides)
        self._met(before, node.else_)
        return below | self._all(node.else_, before)

    def _assigned(self, target: nodes.Node, value: nodes.Node) -> Decides:
        decides = self._told(value)
        self._bound(target, self.values.kind(value), value)
        if known := self._macros_of(value):
            for name in targets(target):
                self.aliases.setdefault(name, set()).update(known)
        for name in targets(target):
            self._decide(name, decides)
        if isinstance(value, nodes.Call):
            for pair in value.kwargs:  # namespace(text=…)
                for name in targets(target):
                    self._named(f"{name}.{pair.key}", self.values.kind(pair.value), pair.value)
                    self._decide(f"{name}.{pair.key}", self._read(pair.value))
        return decides

    def _bound(self, target: nodes.Node, kind: Holds, value: nodes.Node) -> None:
        self.values.bind(target, kind)
        for name in targets(target):
            self._named(name, Holds.PLAIN, value)

    def _named(self, name: str, kind: Holds, value: nodes.Node, scope: str | None = None) -> None:
        """Note what a variable is made of."""
        texts, size, time = (
            self._texts(value),
            self.values.is_size(value),
            self.values.by_time(value),
        )
        self.values.hold(name, kind, scope)
        variable = self.values.variable(name) if scope is None else (scope, name)
        self.values.note(variable, texts)
        if size:
            self.values.sized.add(variable)
        if time:
            self.values.timed.add(variable)

    def _decide(self, name: str, decides: Decides) -> None:
        """Note what decides which value a variable has: of a text, where it was cut."""
        variable = self.values.variable(name)
        is_text = self.values.holds.get(variable, Holds.PLAIN) >= Holds.RAW
        known = self.cut if is_text else self.decided
        found = known[variable] | decides | (NOTHING if is_text else self.within)
        if len(found) > 2 * MOST:
            self.tree.over = True
        else:
            known[variable] = found
        self.values.spend(len(found))

    def _macro(self, node: nodes.Macro) -> Decides:
        self.values.scope, scope = node.name, self.values.scope
        for argument, value in zip(reversed(node.args), reversed(node.defaults), strict=False):
            self._named(argument.name, self.values.kind(value), value)
        within, self.within = self.within, NOTHING
        below = self._all(node.body)
        self.values.scope, self.within = scope, NOTHING
        self.values.note(("", node.name), self._pieces(node.body))
        self._decide(node.name, below)
        self.within = within
        return below

    def _called(self, name: str, call: nodes.Call) -> None:
        """Note what a macro is given, if it is one."""
        macro = self.macros.get(name)
        if macro is None:
            return
        names = [argument.name for argument in macro.args]
        given = [*zip(names, call.args, strict=False), *((p.key, p.value) for p in call.kwargs)]
        for name, value in given:
            self._named(name, self.values.kind(value), value, macro.name)
        for value in (*call.args[len(names) :], *(pair.value for pair in call.kwargs)):
            for name in ("varargs", "kwargs"):
                self._named(name, self.values.kind(value), value, macro.name)

    def _macros_of(self, node: nodes.Node) -> set[str]:
        """Return the macros that an expression can be: by name, or by what holds some."""
        names = self.values.names(node) if self.macros else ()
        return set[str]().union(*(self.aliases.get(name, set()) for name in names))

    def _kept(self, node: nodes.Call, method: nodes.Getattr) -> None:
        """Note what a list or a dictionary is given: `list.append(…)`."""
        given = [*node.args, *(pair.value for pair in node.kwargs)]
        kind = max(map(self.values.kind, given), default=Holds.PLAIN)
        if kind < Holds.FRAME:
            return
        for name in targets(method.node):
            self.values.hold(name, Holds.TEXT if kind is Holds.RAW else kind)

    def _told(self, node: nodes.Node) -> Decides:
        """Read what goes to the prompt or into a variable: an expression can choose, too."""
        decides = self._read(node)
        if isinstance(node, nodes.CondExpr):
            chosen = self._read(node.test)
            self._met(chosen, [node.expr1])
            self._met(_not(chosen), [node.expr2] if node.expr2 else [])
        else:  # which side is chosen is not known
            self._met(frozenset((p, False) for p, _ in decides if p[1] not in CUTTING), [node])
        return decides

    def _read(self, node: nodes.Node) -> Decides:
        """Return the conditions that an expression depends on; register what it holds itself."""
        found = self._conditions(node, False)
        for name in self.values.names(node):
            found |= self.decided[self.values.variable(name)]
        self.values.spend(len(found))
        return found

    def _conditions(self, node: nodes.Node, opposite: bool) -> Decides:
        self.values.spend()
        if isinstance(node, nodes.Call):
            for name in self._macros_of(node.node):
                self._called(name, node)
            if isinstance(node.node, nodes.Getattr) and node.node.attr in _KEEPING:
                self._kept(node, node.node)
        found: list[tuple[Place, bool]] = []
        for condition in self._held(node):
            place = condition.line, condition.form, condition.literal
            if place not in self.conditions:
                if len(self.conditions) >= MOST:
                    self.tree.over = True
                    continue
                self.conditions[place] = condition
            turned = isinstance(node, nodes.Compare) and node.ops[0].op in _OPPOSITE
            found.append((place, opposite ^ turned))
        if isinstance(node, nodes.Compare) or self.values.is_size(node):
            for name in self.values.names(node):
                found += self.cut[self.values.variable(name)]
        below = opposite ^ isinstance(node, nodes.Not)
        inner = (self._conditions(child, below) for child in node.iter_child_nodes())
        return frozenset(found).union(*inner)

    def _held(self, node: nodes.Node) -> Iterator[Condition]:
        """Yield a condition for each fixed text that the conversation's is held against here."""
        values = self.values
        match node:
            case nodes.Compare():
                sides = [node.expr, *(operand.expr for operand in node.ops)]
                form = _FORMS.get(node.ops[0].op, node.ops[0].op)
                if any(map(values.is_size, sides)):
                    yield from self._sizes(node.lineno, form, sides)
                yield from self._against(node.lineno, form, sides)
            case nodes.Test():
                yield from self._against(node.lineno, node.name, [node.node, *(node.args or ())])
                whole = node.node.node if isinstance(node.node, nodes.Getitem) else None
                if node.name in ("defined", "undefined") and values.kind(whole) >= Holds.FRAME:
                    yield from self._sizes(node.lineno, node.name, node.node.find_all(nodes.Const))
            case nodes.Call(node=nodes.Getattr(attr="get") as method):
                if node.args and values.kind(node.args[0]) >= Holds.RAW:
                    yield from self._literals(node.lineno, "look-up", [method.node])
            case nodes.Call(node=nodes.Getattr(attr="replace") as method):
                if values.kind(method.node) >= Holds.RAW:
                    yield from self._rewritten(node.lineno, node.args)
            case nodes.Filter(name="replace"):
                if node.node is None or values.kind(node.node) >= Holds.RAW:
                    yield from self._rewritten(node.lineno, node.args)
            case nodes.Call(node=nodes.Getattr() as method) if method.attr not in _PLAIN_METHODS:
                yield from self._against(node.lineno, method.attr, [method.node, *node.args])
            case nodes.Filter() if node.name in CHOOSING and len(node.args) > 1:
                first = next(iter(values.consts(node.args[0])), "")
                inside = values.kind(node.node)
                if inside >= Holds.FRAME and first not in KEYS | FRAMES:
                    skipped = 2 if node.name.endswith("attr") else 1
                    yield from self._literals(node.lineno, node.name, node.args[skipped:])
            case nodes.Filter() if node.name not in _FORMATTING:
                if node.node is None or values.kind(node.node) >= Holds.RAW:
                    yield from self._literals(node.lineno, node.name, node.args)
            case nodes.Getitem() if values.kind(node.arg) >= Holds.RAW:
                yield from self._literals(node.lineno, "look-up", [node.node])

    def _rewritten(self, line: int, given: Sequence[nodes.Node]) -> Iterator[Condition]:
        """Yield what is replaced in a text, and by what."""
        added = " ".join(sorted(self.values.texts(given[1]))) if len(given) > 1 else ""
        for condition in self._literals(line, "replace", given[:1]):
            yield replace(condition, adds=added)

    def _against(self, line: int, form: str, sides: Sequence[nodes.Node]) -> Iterator[Condition]:
        kinds = [self.values.kind(side) for side in sides]
        if form in ("==", "!="):  # a letter; what a part has is asked of its fields
            kinds = [
                Holds.TEXT if kind is Holds.PART and isinstance(side, nodes.Name) else kind
                for side, kind in zip(sides, kinds, strict=True)
            ]
        if max(kinds) >= Holds.RAW and len(sides) > 1:
            others = [side for side, kind in zip(sides, kinds, strict=True) if kind < Holds.RAW]
            yield from self._literals(line, form, others)

    def _literals(self, line: int, form: str, sides: Iterable[nodes.Node]) -> Iterator[Condition]:
        texts = set[str]().union(*map(self.values.texts, sides))
        for text in sorted(filter(says_something, texts)):
            yield Condition(line, form, text, literal_kind(text))

    def _sizes(self, line: int, form: str, sides: Iterable[nodes.Node]) -> Iterator[Condition]:
        for number in whole_numbers(sides):
            if number > 1:
                yield Condition(line, form, str(number), "number")

    def _met(self, decides: Decides, body: Sequence[nodes.Node]) -> None:
        """Say of conditions what is added to the prompt where they are met, or are not."""
        if not decides or not body:
            return
        added = " ".join(self._added(body))
        rank = (is_prose(added), len(added))
        for place, opposite in decides:
            condition = self.conditions[place]
            before = condition.otherwise if opposite else condition.adds
            if rank > (is_prose(before), len(before)):
                self.conditions[place] = (
                    replace(condition, otherwise=added)
                    if opposite
                    else replace(condition, adds=added)
                )

    def _added(self, body: Iterable[nodes.Node]) -> list[str]:
        """Return the fixed texts that a body adds: what it writes, and what it puts into variables.

        Messages of `raise_exception` go to no prompt; tests are no text.
        """
        found: list[str] = []
        room = list(reversed(list(body)))
        while room:
            node = room.pop()
            self.values.spend()
            whole = folded(node) if isinstance(node, _FOLDING) else None
            match node:
                case _ if whole is not None:
                    found.append(whole)
                case nodes.TemplateData():
                    found.append(node.data)
                case nodes.Const():
                    found += [node.value] if isinstance(node.value, str) else []
                case nodes.Name() if self.values.kind(node) < Holds.RAW:
                    found += self._apart(node.name)
                case nodes.Getattr(node=nodes.Name() as owner) if (
                    self.values.kind(node) < Holds.RAW
                ):
                    found += self._apart(f"{owner.name}.{node.attr}")
                case nodes.Call(node=nodes.Name(name="raise_exception")):
                    pass
                case nodes.Compare() | nodes.Test() | nodes.Macro():
                    pass
                case nodes.If():
                    room += reversed([*node.body, *node.elif_, *node.else_])
                case nodes.CondExpr():
                    room += [item for item in (node.expr2, node.expr1) if item]
                case _:
                    room += reversed(list(node.iter_child_nodes()))
        self.values.spend(len(found))
        return found

    def _pieces(self, body: Sequence[nodes.Node]) -> set[str]:
        """Return the texts of a body, as whole as they follow each other."""
        pieces = " ".join(self._added(body)).split(APART)
        return {" ".join(piece.split()) for piece in pieces if piece.strip()}

    def _apart(self, name: str) -> list[str]:
        """Return the texts that a variable or a macro can be, one apart from the other."""
        texts = self.values.fixed[self.values.variable(name)]
        return [item for text in sorted(texts) for item in (APART, text)] + [APART] * bool(texts)

    def _texts(self, node: nodes.Node) -> set[str]:
        """Return the fixed texts that a value can be."""
        return {*self._added([node]), *self.values.consts(node)} - {APART}

    def _body_kind(self, body: Sequence[nodes.Node]) -> Holds:
        inner = (e for item in body for e in item.find_all(nodes.Expr))
        return max((self.values.kind(item) for item in inner), default=Holds.PLAIN)


def _not(decides: Decides) -> Decides:
    return frozenset((place, not opposite) for place, opposite in decides)
