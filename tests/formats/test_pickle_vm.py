"""The symbolic interpreter: what hostile pickles name and call, found without loading them."""

import pickle
import pickletools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterscan.formats.pickle_opcodes import Opaque, lex
from adapterscan.formats.pickle_values import Call, Pairs, PersistentId
from adapterscan.formats.pickle_vm import _HANDLERS, Disassembly, Limits, disassemble


def named(found: Disassembly) -> list[tuple[str, str, bool]]:
    return [(item.module, item.name, item.called) for item in found.globals]


def test_every_opcode_of_the_language_has_a_handler() -> None:
    assert {opcode.name for opcode in pickletools.opcodes} - set(_HANDLERS) == {"STOP"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"cposix\nsystem\n.", ("posix", "system", False)),
        (b"cposix\nsystem\n)R.", ("posix", "system", True)),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93)R.", ("posix", "system", True)),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06systemq\x07h\x00h\x07\x93)R.", ("os", "system", True)),
        (b"(S'true'\niposix\nsystem\n.", ("posix", "system", True)),
        (b"(cposix\nsystem\nS'true'\no.", ("posix", "system", True)),
        (b"cposix\nsystem\n)\x81.", ("posix", "system", True)),
        (b"cposix\nsystem\n)}\x92.", ("posix", "system", True)),
        (b"\x80\x04\x8c\x03bdb\x8c\x07Bdb.run\x93.", ("bdb", "Bdb.run", False)),
    ],
)
def test_a_global_is_found_however_it_is_spelled(
    data: bytes, expected: tuple[str, str, bool]
) -> None:
    assert named(disassemble(data)) == [expected]


def test_state_set_on_an_instance_marks_its_class() -> None:
    found = disassemble(b"cm\nC\n)\x81}b.")
    assert found.globals[0].built


def test_appending_to_a_global_marks_it() -> None:
    assert disassemble(b"csys\npath\nS'x'\na.").globals[0].built


def test_a_computed_name_is_unresolved() -> None:
    found = disassemble(b"cm\nf\n)Rcm\nf\n)R\x93.")
    assert [item.resolved for item in found.globals] == [True, True, False]


def test_an_extension_code_is_unresolved() -> None:
    found = disassemble(b"\x82\x07)R.")
    assert (found.globals[0].resolved, found.globals[0].called) == (False, True)


def test_values_are_rebuilt_as_plain_data() -> None:
    found = disassemble(pickle.dumps({"a": [1, 2.5, None, (True, b"x")]}, protocol=4))
    assert isinstance(found.value, Pairs)
    assert found.value.items == [("a", [1, 2.5, None, (True, b"x")])]


def test_calls_and_persistent_ids_are_values() -> None:
    found = disassemble(b"\x80\x02cm\nf\nI1\nQ\x85R.")
    assert isinstance(found.value, Call)
    assert isinstance(found.value.args[0], PersistentId)
    assert found.persistent[0].value == 1


def test_calls_before_a_break_are_kept() -> None:
    found = disassemble(b"cposix\nsystem\n)R\xffgarbage")
    assert named(found) == [("posix", "system", True)]
    assert found.defect is not None
    assert found.defect.code == "unknown_opcode"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x80\x04cos\nsystem\n)R0h\x03.", "memo"),
        (b"\x80\x04cos\nsystem\n)R00t.", "stack"),
        (b"\x80\x04cos\nsystem\n)R", "truncated"),
        (b"\x80\x04cos\nsystem\n)RX\xff\xff\x00\x00ab", "truncated"),
    ],
)
def test_misuse_is_a_defect_and_hides_nothing(data: bytes, code: str) -> None:
    found = disassemble(data)
    assert found.defect is not None
    assert found.defect.code == code
    assert named(found) == [("os", "system", True)]


def test_names_after_a_stack_error_are_still_told() -> None:
    found = disassemble(b"0cposix\nsystem\n)R.")
    assert [(item.name, item.after_break) for item in found.globals] == [("system", True)]


@pytest.mark.parametrize("decoy", [b"I0x1\n0", b"L0x1fL\n0", b"S'\\xc3\\xa9'\n0", b"V\\ud800\n0"])
def test_a_decoy_that_stops_pickletools_does_not_stop_us(decoy: bytes) -> None:
    assert named(disassemble(decoy + b"cposix\nsystem\n)R.")) == [("posix", "system", True)]


@pytest.mark.parametrize(
    "limits",
    [Limits(opcodes=100), Limits(memory=2000), Limits(memo=100), Limits(depth=100)],
    ids=repr,
)
def test_limits_keep_what_was_seen(limits: Limits) -> None:
    flood = b"".join(b"(N" + b"r" + index.to_bytes(4, "little") for index in range(200))
    found = disassemble(b"cos\nsystem\n)R" + flood + b".", limits=limits)
    assert found.defect is not None
    assert found.defect.code == "limit"
    assert named(found) == [("os", "system", True)]


@pytest.mark.parametrize(
    "data",
    [
        b"(" + b"}" * 50_000 + b"t.",
        b"(" + b"]]a" * 30_000 + b"t.",
        b"\x80\x04(" + b"\x8f" * 50_000 + b"t.",
        b"\x80\x04(" + b"}\x94" * 50_000 + b"t.",
        b"}(" + b"NN" * 50_000 + b"u.",
        b"(" + b"N)R" * 50_000 + b"t.",
        b"(" + b"N)RNNs" * 20_000 + b"t.",
        b"(" + b"N)RNb" * 20_000 + b"t.",
        b"(" + b"Pab\n" * 50_000 + b"t.",
        b"(" + b"J\xff\xff\0\0" * 50_000 + b"t.",
        b"(" + b"X\x0b\0\0\0\xf0\x9f\x98\x80abcdefg" * 50_000 + b"t.",
        b"(" + b"".join(b"cm%d\nn%d\n" % (at, at) for at in range(20_000)) + b"t.",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_the_memory_of_values_is_not_underrated(data: bytes) -> None:
    tracemalloc.start()
    found = disassemble(data)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.complete
    assert 0.5 * held < found.memory < 2.5 * held
    assert held < 1.05 * found.memory


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([b"\x94", *(bytes([0x71, key]) for key in range(5))]), max_size=12))
def test_the_memo_is_the_one_of_the_interpreter(puts: list[bytes]) -> None:
    """Values are numbered, put under the keys of the unpickler, and asked for again."""
    stored = b"".join(b"K" + bytes([at]) + put + b"0" for at, put in enumerate(puts))
    for key in range(5):
        data = b"\x80\x04" + stored + b"h" + bytes([key]) + b"."
        try:
            expected = pickle.loads(data)  # noqa: S301  small numbers and a memo, made above
        except pickle.UnpicklingError:
            assert disassemble(data).defect is not None
            continue
        assert disassemble(data).value == expected


def test_a_long_value_is_not_kept() -> None:
    found = disassemble(b"\x80\x04B" + (2 << 20).to_bytes(4, "little") + bytes(2 << 20) + b".")
    assert isinstance(found.value, Opaque)


def test_a_second_pickle_starts_where_the_first_ends() -> None:
    data = b"N." + b"cos\nsystem\n)R."
    assert named(disassemble(data, disassemble(data).end)) == [("os", "system", True)]


@pytest.mark.parametrize(
    "data",
    [
        b"]q\x00h\x00a.",
        b"}q\x00h\x00h\x00s.",
        b"cm\nC\n)Rq\x00h\x00b.",
        b")" + b"\x85" * 300_000 + b".",
        b"N" + b")R" * 150_000 + b"Nb" * 150_000 + b".",
        b"(" + b"2" * 300_000 + b".",
    ],
    ids=["self-list", "self-dict", "self-state", "deep tuple", "call chain", "dup"],
)
def test_cyclic_and_deep_structures_end(data: bytes) -> None:
    disassemble(data)  # a hang would be one of the suite


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(PLAIN, st.integers(0, 5))
def test_honest_pickles_split_as_in_pickletools(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    ours = [(name, position) for name, _, position in lex(data)]
    assert ours == [(opcode.name, position) for opcode, _, position in pickletools.genops(data)]
    found = disassemble(data)
    assert found.complete
    assert found.defect is None


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_disassembly(data: bytes) -> None:
    found = disassemble(data)
    assert found.complete or found.defect is not None
