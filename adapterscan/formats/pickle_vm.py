"""Follow the opcodes of one pickle symbolically: what it names, what it calls, what it would build.

Nothing is imported, called or built. Calls become `Call` values, globals become `Global` values.
When the stack or the memo is misused, CPython stops after having executed everything before: those
facts stay, the misuse is recorded as `Defect`, and we go on so that later names are seen too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from sys import getsizeof
from typing import Any

from adapterscan.formats.joblib_arrays import Place, array_behind
from adapterscan.formats.pickle_opcodes import LexicalError, Opaque, lex
from adapterscan.formats.pickle_values import (
    NOTHING,
    Call,
    Global,
    Group,
    Pairs,
    PersistentId,
    Value,
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Reach:
    """A step by which a pickle gets at, or changes, more than the names that it lists.

    `kind`: "attribute" (getattr with `args`), "call" (of something that is no global), "state"
    (BUILD on a global or on what an attribute held), "items" (the same by SETITEM or APPEND),
    "special" (BUILD that sets `__class__` or the like).
    """

    kind: str
    target: Value
    args: Value
    position: int
    source: Global | None = None  # the reader of attributes


@dataclass(frozen=True, slots=True)
class Defect:
    """Where the pickle stops making sense.

    `code`: "unknown_opcode" | "truncated" | "stack" | "memo" | "limit". For "truncated", `reach` is
    where the opcode that is cut would end, at the least.
    """

    code: str
    reason: str
    position: int
    reach: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a pickle is followed. A tensor takes about 33 opcodes and 12 memo entries."""

    opcodes: int = 2_000_000
    memory: int = 64 << 20  # bytes of values, as estimated by `_COSTS`; 1.3 kB for a tensor
    memo: int = 1_000_000
    depth: int = 10_000  # open marks
    globals: int = 50_000
    reaches: int = 10_000  # the first ones are kept; the rest adds nothing


@dataclass(frozen=True, slots=True, eq=False)
class Disassembly:
    """What one pickle does. `end` is the position after STOP, or where reading ended."""

    start: int
    end: int
    complete: bool  # STOP was reached
    globals: tuple[Global, ...]
    persistent: tuple[PersistentId, ...]
    value: Value
    opcodes: int
    memory: int  # bytes of values
    defect: Defect | None  # the first one
    reaches: tuple[Reach, ...] = ()


def disassemble(
    data: bytes, start: int = 0, limits: Limits | None = None, *, arrays: bool = False
) -> Disassembly:
    """Follow the pickle that begins at `start`. Never raises on hostile bytes; see `Defect`.

    `arrays`: pass over the numbers behind an array of joblib, as its loader does and others do not.
    Cost: about 1 µs per opcode; values are shared, never expanded.
    """
    machine = _Machine(limits or Limits())
    value: Value = Opaque("no value")
    count, end, complete = 0, start, False
    at, behind = start, None
    try:
        while not complete:
            for name, argument, position in lex(data, at):
                count += 1
                if count > machine.limits.opcodes:
                    raise _LimitError(f"more than {machine.limits.opcodes} opcodes")
                end = machine.position = position
                known = argument is None
                machine.spend(_COSTS.get(name, _SLOT) if known else _size(name, argument))
                if name == "STOP":
                    value, end, complete = machine.pop(), position + 1, True
                    break
                _HANDLERS[name](machine, argument)
                if arrays and name == "BUILD" and (behind := machine.behind(data)):
                    break
            if behind and not complete:
                at, done = machine.pass_over(data, behind, count)
                count += done
    except LexicalError as error:
        machine.fail(error.code, error.reason, error.position, error.reach)
        end = error.position
    except _LimitError as error:
        machine.fail("limit", str(error), end)
    found, ids = tuple(machine.globals), tuple(machine.persistent)
    steps = tuple(machine.reaches)
    return Disassembly(
        start, end, complete, found, ids, value, count, machine.spent, machine.defect, steps
    )


class _LimitError(Exception):
    pass


class _Machine:
    """The unpickler's stack, marks and memo, over symbolic values."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.stack: list[Value] = []
        self.below: list[list[Value]] = []  # stacks under the open marks
        self.memo = _Memo()
        self.spent = 0
        self.globals: list[Global] = []
        self.persistent: list[PersistentId] = []
        self.reaches: list[Reach] = []
        self.defect: Defect | None = None
        self.position = 0
        self.state: Value = None  # of the last BUILD

    def fail(self, code: str, reason: str, position: int | None = None, reach: int = 0) -> None:
        if self.defect is None:
            where = self.position if position is None else position
            self.defect = Defect(code, reason, where, reach)

    def spend(self, size: int) -> None:
        self.spent += size
        if self.spent > self.limits.memory:
            raise _LimitError(f"more than {self.limits.memory:,} bytes of values")

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def pop(self) -> Value:
        if self.stack:
            return self.stack.pop()
        self.fail("stack", "pops from an empty stack")
        return Opaque("nothing on the stack")

    def top(self) -> Value:
        if self.stack:
            return self.stack[-1]
        self.fail("stack", "needs a value on an empty stack")
        return Opaque("nothing on the stack")

    def pop_mark(self) -> list[Value]:
        items = self.stack
        if self.below:
            self.stack = self.below.pop()
        else:
            self.fail("stack", "needs a mark that was never set")
            self.stack = []
        return items

    def name(self, module: Value, name: Value) -> Global:
        if len(self.globals) >= self.limits.globals:
            raise _LimitError(f"more than {self.limits.globals} globals")
        resolved = isinstance(module, str) and isinstance(name, str)
        found = Global(
            _text(module), _text(name), self.position, resolved, after_break=self.defect is not None
        )
        self.globals.append(found)
        return found

    def call(self, target: Value, args: Value, kwargs: Value = None) -> None:
        root = target if isinstance(target, Global) else None
        if isinstance(target, Call):
            root = target.root
        self.follow(target, args, _MOST_RELAYS)
        _hand_over((kwargs,))
        self.push(Call(target, args, kwargs, root))

    def follow(self, target: Value, args: Value, relays: int) -> None:
        """Note what is called, and with what, through functions that call their argument."""
        root = target.root if isinstance(target, Call) else target
        if isinstance(root, Global):
            root.called = True
        given = args if isinstance(args, tuple) else ()
        if not isinstance(target, Global):
            self.reach("call", target, args)
        elif reads_attributes(target):
            self.reach("attribute", target, args, target)
            return  # the class of an enum is no callable here
        elif (target.module, target.name) in _RELAYS and len(given) > 2 and relays:
            self.follow(given[0], given[2], relays - 1)
        _hand_over(given)

    def behind(self, data: bytes) -> Place | None:
        """Return what follows the BUILD just done, when that is an array of joblib."""
        return array_behind(self.top(), self.state, data, self.position + 1)

    def pass_over(self, data: bytes, place: Place, count: int) -> tuple[int, int]:
        """Return where the opcodes go on behind an array, and how many opcodes were in it."""
        if not place.pickled:
            return place.end, 0
        left = max(0, self.limits.opcodes - count), max(0, self.limits.memory - self.spent)
        inner = disassemble(
            data, place.start, replace(self.limits, opcodes=left[0], memory=left[1])
        )
        self.globals += inner.globals
        self.reaches += inner.reaches
        self.spend(inner.memory)
        if inner.defect is not None and self.defect is None:
            self.defect = inner.defect
        return inner.end if inner.complete else len(data), inner.opcodes

    def reach(self, kind: str, target: Value, args: Value, source: Global | None = None) -> None:
        if len(self.reaches) < self.limits.reaches and not isinstance(target, Opaque):
            self.reaches.append(Reach(kind, target, args, self.position, source))
            self.spend(_PAIR)

    def put(self, key: Value) -> None:
        if len(self.memo) >= self.limits.memo:
            raise _LimitError(f"more than {self.limits.memo} memo entries")
        if self.memo.put(key if isinstance(key, int) else -1, self.top()):
            self.spend(_APART)

    def get(self, key: Value) -> None:
        if isinstance(key, int) and key in self.memo:
            self.push(self.memo.get(key))
            return
        self.fail("memo", f"asks for memo entry {_text(key)}, which was never stored")
        self.push(Opaque("missing memo entry"))

    def refer(self, value: Value) -> None:
        self.persistent.append(PersistentId(value))
        self.push(self.persistent[-1])


class _Memo:
    """Values by number. Pickles number them from 0, so a list does; what stands apart is rare."""

    def __init__(self) -> None:
        self._row: list[Value] = []
        self._apart: dict[int, Value] = {}

    def __len__(self) -> int:
        return len(self._row) + len(self._apart)

    def __contains__(self, key: int) -> bool:
        return 0 <= key < len(self._row) or key in self._apart

    def get(self, key: int) -> Value:
        return self._row[key] if 0 <= key < len(self._row) else self._apart[key]

    def put(self, key: int, value: Value) -> bool:
        """Store `value`; return whether it stands apart."""
        if 0 <= key < len(self._row):
            self._row[key] = value
        elif key == len(self._row):
            self._row.append(value)
            self._apart.pop(key, None)
        else:
            self._apart[key] = value
            return True
        return False


_MOST_RELAYS = 4
_MOST_INNER = 64  # items of a container that is handed to a call
#: `relay(function, type, arguments, state)` calls `function(*arguments)`.
_RELAYS = frozenset(
    {("torch._tensor", "_rebuild_from_type_v2"), ("torch._tensor", "_rebuild_from_type")}
)
_READERS = frozenset({"getattr", "getattr_static", "_getattribute", "__getattribute__"})


def _hand_over(args: tuple[Value, ...]) -> None:
    """Note the globals among `args`, and those in a container among them."""
    for item in args:
        inner = [item]
        if isinstance(item, list | tuple):
            inner = list(item[:_MOST_INNER])
        elif isinstance(item, Pairs):
            inner = [value for _, value in item.items[:_MOST_INNER]]
        for value in inner:
            if isinstance(value, Global):
                value.passed = True


def reads_attributes(found: Global) -> bool:
    """Return whether `found` is a function that takes an object and an attribute's name."""
    return found.name.rpartition(".")[2] in _READERS


def _is_shared(value: Value) -> bool:
    """Return whether `value` is a global, or was had from an attribute or a computed call."""
    if isinstance(value, Call):
        return not isinstance(value.target, Global) or reads_attributes(value.target)
    return isinstance(value, Global)


def _sets_special(state: Value) -> bool:
    """Return whether BUILD would set an attribute like `__class__` (slots go by setattr)."""
    if not (isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Pairs)):
        return False
    return any(not isinstance(key, str) or key.startswith("__") for key, _ in state[1].items)


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 1 << 64:
        return str(value)
    return "?"


def _touch(value: Value) -> None:
    """Note that a global, or what a call to it returned, gets its state changed."""
    root = value.root if isinstance(value, Call) else value
    if isinstance(root, Global):
        root.built = True


def _mark(machine: _Machine, _: object) -> None:
    if len(machine.below) >= machine.limits.depth:
        raise _LimitError(f"more than {machine.limits.depth} open marks")
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine, _: object) -> None:
    if machine.stack or not machine.below:
        machine.pop()
    else:
        machine.pop_mark()


def _global(machine: _Machine, pair: tuple[Value, Value]) -> None:
    machine.push(machine.name(*pair))


def _stack_global(machine: _Machine, _: object) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.name(module, name))


def _extension(machine: _Machine, argument: object) -> None:
    found = machine.name("copyreg", f"extension code {_text(argument)}")
    found.resolved = False  # what a code means is set by the process that loads the file
    machine.push(found)


def _inst(machine: _Machine, pair: tuple[Value, Value]) -> None:
    args = tuple(machine.pop_mark())
    machine.call(machine.name(*pair), args)


def _pop_mark(machine: _Machine, _: object) -> None:
    machine.pop_mark()


def _obj(machine: _Machine, _: object) -> None:
    items = machine.pop_mark()
    if not items:
        machine.fail("stack", "OBJ without a class")
        items = [Opaque("nothing on the stack")]
    machine.call(items[0], tuple(items[1:]))


def _reduce(machine: _Machine, _: object) -> None:
    args = machine.pop()
    machine.call(machine.pop(), args)


def _newobj_ex(machine: _Machine, _: object) -> None:
    kwargs, args = machine.pop(), machine.pop()
    machine.call(machine.pop(), args, kwargs)


def _build(machine: _Machine, _: object) -> None:
    state, target = machine.pop(), machine.top()
    machine.state = state
    _touch(target)
    if _is_shared(target):
        machine.reach("state", target, state)
    elif _sets_special(state):
        machine.reach("special", target, state)
    if isinstance(target, Call):
        target.states = _added(target.states, [state])


def _extend(machine: _Machine, items: list[Value]) -> None:
    target = machine.top()
    if _is_shared(target):
        machine.reach("items", target, None)
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Group):
        target.items.extend(items)
    elif isinstance(target, Call):
        target.appended = _added(target.appended, items)
    elif isinstance(target, Global):
        _touch(target)  # sys.path.append and the like


def _set(machine: _Machine, items: list[Value]) -> None:
    machine.spend(_PAIR * (len(items) // 2 + 1))
    if len(items) % 2:
        machine.fail("stack", "odd number of keys and values")
        items.append(Opaque("nothing on the stack"))
    target = machine.top()
    if _is_shared(target):
        machine.reach("items", target, None)
    pairs = zip(items[::2], items[1::2], strict=True)
    if isinstance(target, Pairs | Call):
        target.items = _added(target.items, pairs)
    elif isinstance(target, Global):
        _touch(target)  # os.environ[...] = ... and the like


def _added(values: list[Any], more: Iterable[Any]) -> list[Any]:
    if values is NOTHING:
        return list(more)
    values.extend(more)
    return values


def _append(machine: _Machine, _: object) -> None:
    item = machine.pop()
    _extend(machine, [item])


def _setitem(machine: _Machine, _: object) -> None:
    value, key = machine.pop(), machine.pop()
    _set(machine, [key, value])


def _tuple(size: int) -> Callable[[_Machine, object], None]:
    def handler(machine: _Machine, _: object) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(items)))

    return handler


def _dict(machine: _Machine, _: object) -> None:
    items = machine.pop_mark()
    machine.push(Pairs())
    _set(machine, items)


def _constant(value: Value) -> Callable[[_Machine, object], None]:
    return lambda machine, _: machine.push(value)


def _nothing(_: _Machine, __: object) -> None:
    pass


def _argument(machine: _Machine, argument: object) -> None:
    machine.push(argument)


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "FLOAT BINFLOAT"
)

#: What an opcode leaves behind, in bytes as CPython counts them, its place on the stack included.
_SLOT, _APART, _PAIR = 10, 150, 80
_COSTS: Mapping[str, int] = {
    **dict.fromkeys(("EMPTY_LIST", "LIST"), 80),
    **dict.fromkeys(("EMPTY_DICT", "DICT", "EMPTY_SET", "FROZENSET"), 130),
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"), 80),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ"), 120),
    **dict.fromkeys(("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"), 250),
    **dict.fromkeys(("APPEND", "APPENDS", "ADDITEMS"), 30),
    "BUILD": 90,
    **dict.fromkeys(("PERSID", "BINPERSID"), 80),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT"), 20),
    "MEMOIZE": 20,
}


def _size(name: str, argument: object) -> int:
    """Return what an opcode with an argument leaves behind: texts and numbers are kept."""
    cost = _COSTS.get(name)
    if cost is None:
        return getsizeof(argument) + 2 * _SLOT
    texts = argument if isinstance(argument, tuple) else (argument,)
    return cost + sum(getsizeof(text) for text in texts if isinstance(text, str))


_HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_LITERALS.split(), _argument),
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), _nothing),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "EMPTY_TUPLE": _constant(()),
    "NEXT_BUFFER": _constant(Opaque("out-of-band buffer")),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push(Pairs()),
    "EMPTY_SET": lambda machine, _: machine.push(Group()),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.push(machine.top()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": _dict,
    "FROZENSET": lambda machine, _: machine.push(Group(machine.pop_mark())),
    "APPEND": _append,
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_mark()),
    "ADDITEMS": lambda machine, _: _extend(machine, machine.pop_mark()),
    "SETITEM": _setitem,
    "SETITEMS": lambda machine, _: _set(machine, machine.pop_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _inst,
    "OBJ": _obj,
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": _build,
    "PERSID": _Machine.refer,
    "BINPERSID": lambda machine, _: machine.refer(machine.pop()),
}
