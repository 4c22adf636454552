"""Standing of names: the allow-list decides, the block-list only says how bad."""

import pytest

from adapterscan.formats.pickle_policy import classify

WEIGHTS = [
    ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"), ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"), ("torch", "BFloat16Storage"), ("torch.storage", "UntypedStorage"),
    ("torch", "float8_e4m3fn"), ("__builtin__", "set"),
]  # fmt: skip
TRAINER = [
    ("transformers.training_args", "TrainingArguments"),
    ("transformers.training_args", "OptimizerNames"),
    ("transformers.trainer_utils", "IntervalStrategy"),
    ("transformers.trainer_pt_utils", "AcceleratorConfig"),
    ("accelerate.state", "PartialState"), ("accelerate.utils.dataclasses", "DistributedType"),
    ("torch", "device"), ("trl.trainer.sft_config", "SFTConfig"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("pathlib", "PosixPath"), ("argparse", "Namespace"), ("datetime", "timedelta"),
    ("trl.trainer.dpo_config", "FDivergenceType"), ("trl.trainer.base_config", "_BaseConfig"),
    ("sentence_transformers.base.sampler", "BatchSamplers"),
    ("random", "Random"), ("joblib.numpy_pickle", "NumpyArrayWrapper"),
]  # fmt: skip
DANGEROUS = [
    ("os", "system"), ("posix", "system"), ("__builtin__", "eval"), ("builtins", "exec"),
    ("subprocess", "Popen"), ("commands", "getoutput"), ("cPickle", "loads"), ("marshal", "loads"),
    ("importlib", "import_module"), ("numpy.testing._private.utils", "runstring"),
    ("torch", "hub.load"), ("torch.serialization", "load"), ("torch", "os.system"),
    ("collections", "_sys.modules"), ("collections", "OrderedDict.__init__.__globals__"),
    ("pkgutil", "resolve_name"), ("operator", "attrgetter"), ("logging", "FileHandler"),
    ("torch.utils._config_module", "ConfigModule.load_config"), ("httplib", "HTTPSConnection"),
    ("operator", "itemgetter"), ("py_compile", "compile"), ("_imp", "create_dynamic"),
    ("joblib", "load"), ("vllm", "LLM"), ("builtins", "exit"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), WEIGHTS)
def test_what_adapters_contain_is_allowed(module: str, name: str) -> None:
    assert classify(module, name, "weights") == "allowed"


@pytest.mark.parametrize(("module", "name"), WEIGHTS + TRAINER)
def test_what_trainers_leave_is_allowed_for_them(module: str, name: str) -> None:
    assert classify(module, name, "trainer") == "allowed"


@pytest.mark.parametrize(("module", "name"), TRAINER[:6])
def test_what_trainers_leave_is_not_allowed_in_weights(module: str, name: str) -> None:
    assert classify(module, name, "weights") == "unknown"


@pytest.mark.parametrize(("module", "name"), DANGEROUS)
@pytest.mark.parametrize("purpose", ["weights", "trainer"])
def test_known_ways_to_run_code_are_dangerous(module: str, name: str, purpose: str) -> None:
    assert classify(module, name, purpose) == "dangerous"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("__builtin__", "getattr"),
        ("somebody.model", "Net"),
        ("torch", "_utils"),
        ("osprey", "x"),
        ("torch", "FloatStorage.x"),
        ("", ""),
        ("collections ", "OrderedDict"),
    ],
)
def test_what_nobody_looked_at_is_unknown(module: str, name: str) -> None:
    assert classify(module, name, "weights") == "unknown"
