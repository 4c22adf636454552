"""What a pickle reaches past the names it lists. The attacks are bytes, never unpickled."""

import zipfile
from pathlib import Path

import pytest

from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.pickle_policy import Purpose, classify
from adapterscan.formats.reader import SourceFile
from adapterscan.model import Evidence, Severity
from adapterscan.rules.judging import judge, load_rules

RULES = tuple(load_rules())
ENUM = ("transformers.trainer_utils", "IntervalStrategy")


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def get(holder: bytes, attribute: bytes) -> bytes:
    return name("builtins", "getattr") + holder + attribute + b"\x86R"


def called(target: bytes, *args: bytes) -> bytes:
    return target + b"(" + b"".join(args) + b"tR"


def slots(state: bytes) -> bytes:
    return b"N" + state + b"\x86b"


def facts(folder: Path, body: bytes, purpose: Purpose = "trainer") -> tuple[Evidence, ...]:
    path = folder / "training_args.bin"
    path.write_bytes(b"\x80\x04" + body + b".")
    with SourceFile(path.name, path) as file:
        return pickle_facts(find_pickles(file), purpose)


def reasons(evidence: tuple[Evidence, ...]) -> set[object]:
    return {item.details["why"] for item in evidence if item.name == "pickle.reach"}


def worst(evidence: tuple[Evidence, ...]) -> Severity:
    return max((finding.severity for finding in judge(evidence, RULES)), default=Severity.INFO)


NAMESPACE = name("argparse", "Namespace")
GLOBALS = get(get(NAMESPACE, text("__init__")), text("__globals__"))
CHAIN = called(
    get(called(get(GLOBALS, text("get")), text("_os")), text("system")), text("echo inert")
)
TYPES = name("collections", "OrderedDict")
RELAY = name("torch._tensor", "_rebuild_from_type_v2")
READ = name("builtins", "getattr")
PAIR = called(NAMESPACE)

REACHES = {
    "the chain": (CHAIN, "special attribute"),
    "a call of what was reached": (CHAIN, "computed callable"),
    "dunder": (get(NAMESPACE, text("__init__")), "special attribute"),
    "underscore": (get(NAMESPACE, text("_get_args")), "special attribute"),
    "dotted": (get(NAMESPACE, text("a.b")), "special attribute"),
    "python 2 spelling": (
        name("__builtin__", "getattr") + NAMESPACE + text("__init__") + b"\x86R",
        "special attribute",
    ),
    "no constant name": (get(NAMESPACE, called(TYPES)), "computed attribute"),
    "a default": (READ + NAMESPACE + text("a") + b"N\x87R", "computed attribute"),
    "of a result": (get(called(NAMESPACE), text("a")), "attribute of a computed value"),
    "of a module": (get(name("a.b", "c"), text("D")), "attribute of an unlisted name"),
    "method of an unknown class": (get(name("a.b", "C"), text("run")),
                                   "attribute of an unlisted name"),
    "by a relay": (called(RELAY, READ, TYPES, NAMESPACE + text("__init__") + b"\x86", b"}"),
                   "special attribute"),
    "call by a relay": (called(RELAY, get(name(*ENUM), text("NO")), TYPES, b")", b"}"),
                        "computed callable"),
    "call of a member": (called(get(name(*ENUM), text("NO"))), "computed callable"),
    "call of a call": (called(called(NAMESPACE)), "computed callable"),
    "NEWOBJ of a call": (called(NAMESPACE) + b")\x81", "computed callable"),
    "class gets state": (
        name("transformers.training_args", "TrainingArguments")
        + slots(b"}" + text("__init__") + NAMESPACE + b"s"),
        "sets attributes on a class",
    ),
    "state of a member": (get(name(*ENUM), text("NO")) + b"}b", "changes a shared object"),
    "item of a global": (name("transformers.x", "MAPPING") + text("a") + b"Ns",
                         "changes a shared object"),
    "append to a global": (name("transformers.x", "LIST") + b"Na", "changes a shared object"),
    "changes its class": (PAIR + slots(b"}" + text("__class__") + TYPES + b"s"),
                          "sets special attributes"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "why"), REACHES.values(), ids=REACHES)
@pytest.mark.parametrize("purpose", ["trainer", "weights"])
def test_what_reaches_further_is_told(
    tmp_path: Path, body: bytes, why: str, purpose: Purpose
) -> None:
    evidence = facts(tmp_path, body, purpose)
    assert why in reasons(evidence)
    assert worst(evidence) >= Severity.HIGH


HONEST = {
    "member of an enum": get(name(*ENUM), text("STEPS")),
    "member of a custom enum": get(name("my.args", "Kind"), text("DPO")),
    "object with state": called(NAMESPACE) + b"}" + text("a") + b"Nsb",
    "object with slots": called(NAMESPACE) + slots(b"}" + text("a") + b"Ns"),
    "new object": NAMESPACE + b")\x81}b",
    "ordered dict": called(TYPES) + text("a") + b"Ns",
    "array class": called(
        name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b")", text("b")
    ),
    "relay": called(RELAY, TYPES, TYPES, b")", b"}"),
    "class of a library": called(name("transformers.trainer_callback", "TrainerControl")),
}


@pytest.mark.parametrize("body", HONEST.values(), ids=HONEST)
def test_what_honest_files_do_is_not_accused(tmp_path: Path, body: bytes) -> None:
    evidence = facts(tmp_path, body)
    assert reasons(evidence) == set()
    assert worst(evidence) <= Severity.LOW


def test_the_expression_is_spelled_out(tmp_path: Path) -> None:
    reached = [item.value for item in facts(tmp_path, CHAIN) if item.name == "pickle.reach"]
    assert reached[-1] == "argparse.Namespace.__init__.__globals__.get(…).system(…)"


def test_a_long_chain_stays_short(tmp_path: Path) -> None:
    evidence = facts(tmp_path, NAMESPACE + b")R" * 50_000)
    reached = [item for item in evidence if item.name == "pickle.reach"]
    assert 1 < len(reached) <= 100
    assert max(len(str(item.value)) for item in reached) < 300


@pytest.mark.parametrize(
    ("module", "attribute", "least"),
    [
        ("my.project", "make", Severity.HIGH),
        ("transformers.new", "helper", Severity.HIGH),
        ("my.project", "Thing", Severity.MEDIUM),
        ("transformers.new", "Thing", Severity.LOW),
    ],
)
def test_a_called_name_weighs_by_what_it_is(
    tmp_path: Path, module: str, attribute: str, least: Severity
) -> None:
    assert worst(facts(tmp_path, called(name(module, attribute)))) is least
    assert worst(facts(tmp_path, name(module, attribute))) is Severity.LOW


MAKE = name("my.project", "make")
HANDED = {
    "plain": called(name("collections", "defaultdict"), MAKE),
    "in a list": called(name("torch.optim.lr_scheduler", "LambdaLR"), b"N", b"]" + MAKE + b"a"),
    "by keyword": NAMESPACE + b")}" + text("k") + MAKE + b"s\x92",
}


@pytest.mark.parametrize("body", HANDED.values(), ids=HANDED)
def test_a_function_handed_to_a_call_counts_as_called(tmp_path: Path, body: bytes) -> None:
    assert worst(facts(tmp_path, body)) is Severity.HIGH


@pytest.mark.parametrize(
    "full",
    """
    yaml.unsafe_load sympy.sympify numpy.lib.utils.safe_eval hydra.utils.instantiate
    transformers.utils.import_utils.direct_transformers_import datasets.load_dataset
    transformers.modeling_utils.load_state_dict nltk.data.load keras.models.load_model
    accelerate.utils.other.load mlflow.pyfunc.load_model functools.partial builtins.map
    transformers.training_args.os transformers.x.io_sys.sys my.os.path a.b.subprocess
    some_library.io.load_checkpoint some_library.safe_eval six.moves.builtins.x
    """.split(),
)
def test_loaders_evaluators_and_modules_are_dangerous(full: str) -> None:
    module, _, attribute = full.rpartition(".")
    assert classify(module, attribute, "trainer") == "dangerous"
    assert classify(module, attribute, "weights") == "dangerous"


@pytest.mark.parametrize(
    "full",
    """
    my.project.Loader my.project.Evaluator my.project.reload_counter my.project.upload
    torch.optim.adamw.AdamW my.post.Thing my.project.positions my.data.important
    my.project.evaluate transformers.trainer_utils.SaveStrategyX
    """.split(),
)
def test_names_that_resemble_them_are_not(full: str) -> None:
    module, _, attribute = full.rpartition(".")
    assert classify(module, attribute, "trainer") == "unknown"


def test_lz4_is_told_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "training_args.bin"
    path.write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    with SourceFile(path.name, path) as file:
        (fact,) = pickle_facts(find_pickles(file), "trainer")
    assert (fact.name, fact.value) == ("archive.defect", "unreadable_container")


def test_numbers_that_begin_like_lzma_are_not_accused(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", b"]\0\0" + bytes(range(200)))
    with SourceFile(path.name, path) as file:
        assert pickle_facts(find_pickles(file), "weights") == ()
