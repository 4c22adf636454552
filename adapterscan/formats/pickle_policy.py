"""Say how much a global named by a pickle can do: allowed, dangerous or unknown.

The allow-list decides. The list of dangerous names is no line of defence (such lists are always
incomplete); it only tells a known attack apart from a name that nobody has looked at yet.
"""

from __future__ import annotations

import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from typing import Literal

Purpose = Literal["weights", "trainer"]
Standing = Literal["allowed", "dangerous", "unknown"]


def classify(module: str, name: str, purpose: Purpose) -> Standing:
    """Return the standing of `module.name` in a file that is loaded for `purpose`.

    "weights": adapter weights. "trainer": what a Trainer leaves behind (training_args.bin,
    optimizer.pt, scheduler.pt, rng_state.pth, random_states_0.pkl).
    """
    module3, name3 = _python3(module, name)
    full = f"{module3}.{name3}"
    if full in _WEIGHTS or (purpose == "trainer" and _is_trainers(full)):
        return "allowed"
    if is_blocked(module, name) or _is_indirect(module3, name3):
        return "dangerous"
    return "unknown"


def is_blocked(module: str, name: str) -> bool:
    """Return whether `module.name` is itself on the list of what runs code."""
    return _is_dangerous(*_python3(module, name)) or _is_dangerous(module, name)


def is_class(name: str) -> bool:
    """Return whether `name` is spelled like a class: `Net`, `_Net`, `outer.Net`."""
    return bool(re.match(r"_*[A-Z]", name.rpartition(".")[2]))


def is_standard(module: str) -> bool:
    """Return whether `module` is of Python's own library, as of 3.11 or this interpreter."""
    top = module.partition(".")[0]
    return top != "__main__" and (top in sys.stdlib_module_names or top in _ONCE_STANDARD)


def is_library(module: str) -> bool:
    """Return whether `module` belongs to a package that trains or runs models."""
    return module.partition(".")[0] in _LIBRARIES


def _python3(module: str, name: str) -> tuple[str, str]:
    """Return the Python 3 spelling, as the unpickler itself translates protocols 0 to 2."""
    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def _is_trainers(full: str) -> bool:
    return full in _TRAINER or any(pattern.fullmatch(full) for pattern in _TRAINER_PATTERNS)


def _is_dangerous(module: str, name: str) -> bool:
    if any(prefix in _DANGEROUS_MODULES for prefix in _prefixes(module)):
        return True
    parts = name.split(".")
    # `torch` + `serialization.load` reaches the same object as `torch.serialization` + `load`
    walk = [f"{module}.{prefix}" for prefix in _prefixes(name)]
    if any(step in _DANGEROUS_MODULES or step in _DANGEROUS_NAMES for step in walk):
        return True
    # attribute paths (protocol 4): `x` + `__init__.__globals__`
    steps = parts if len(parts) > 1 else []
    if any(step.startswith("__") for step in steps):
        return True
    return parts[-1] in _DANGEROUS_ANYWHERE


def _is_indirect(module: str, name: str) -> bool:
    """Return whether a module object is named, or what loads, evaluates or instantiates others."""
    parts = name.split(".")[:12]
    if any(part in _SYSTEM_MODULES for part in module.split(".")[1:12]):
        return True
    if any(part.lstrip("_") in _SYSTEM_MODULES | _MODULE_OBJECTS for part in parts):
        return True
    for start in range(1, len(parts)):
        # `transformers.trainer` + `torch.hub.x` reaches what `torch` + `hub.x` does
        if _is_dangerous(parts[start - 1], ".".join(parts[start:])):
            return True
    return bool(_LOADERS.fullmatch(parts[-1]))


def _prefixes(dotted: str) -> Iterator[str]:
    """Yield "a", "a.b", "a.b.c" for "a.b.c" (the first dozen steps)."""
    parts = dotted.split(".")[:12]
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _names(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name in names.split())


# Functions that bring in code or objects from elsewhere, however their library calls them.
_LOADERS = re.compile(
    r"_*(\w+_)?(load|loads|unpickle|instantiate|sympify|deserialize|eval|import|exec)"
    r"|_*(load|loads|unpickle|instantiate|deserialize|import|exec)_\w+"
    r"|_*(\w+_)?unsafe_\w+|import_from_\w+|(\w+_)?from_pretrained|(\w+_)?from_pickle"
    r"|eval_expr\w*|evaluate_expr\w*|parse_expr|lambdify|locate|resolve_name|get_obj_from_str"
)

# What later versions removed.
_ONCE_STANDARD = _words(
    "aifc asynchat asyncore audioop binhex cgi cgitb chunk crypt distutils formatter imghdr imp "
    "lib2to3 mailcap msilib nis nntplib ossaudiodev parser pipes smtpd sndhdr spwd sunau symbol "
    "telnetlib uu xdrlib"
)

_LIBRARIES = frozenset(
    """
    transformers accelerate trl peft torch datasets deepspeed axolotl swift llamafactory llmtuner
    unsloth unsloth_zoo sentence_transformers diffusers tokenizers safetensors optimum bitsandbytes
    torchao torchvision torchaudio numpy omegaconf lightning lightning_fabric pytorch_lightning
    torchtune setfit evaluate timm open_clip megatron colossalai composer litgpt fairseq
    """.split()
)

_STORAGES = (
    "FloatStorage HalfStorage BFloat16Storage DoubleStorage ByteStorage CharStorage ShortStorage "
    "IntStorage LongStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage QInt8Storage "
    "QUInt8Storage QInt32Storage QUInt4x2Storage QUInt2x4Storage"
)
_DTYPES = (
    "float16 float32 float64 bfloat16 bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 "
    "complex32 complex64 complex128 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz "
    "float8_e8m0fnu float4_e2m1fn_x2 qint8 quint8 qint32 quint4x2 quint2x4"
)

# What `torch.load(weights_only=True)` of torch 2.13 admits, less its names that no adapter was seen
# to use (old Tensor classes, wrapper subclasses, nested and device tensors). NumPy's `scalar` and
# `_reconstruct` are left out on purpose: a weight file has no need for them, `_reconstruct` takes
# any array subclass as an argument, and object arrays carry further pickled calls.
_WEIGHTS = (
    _names("torch", _STORAGES)
    | _names("torch.cuda", _STORAGES)
    | _names("torch", _DTYPES)
    | _names("torch", "Size Tensor device per_tensor_affine per_channel_affine")
    | _names("torch.storage", "UntypedStorage TypedStorage")
    | _names("torch.nn.parameter", "Parameter")
    | _names("torch.serialization", "_get_layout")
    | _names("torch._tensor", "_rebuild_from_type_v2")
    | _names(
        "torch._utils",
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
        "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor",
    )
    | {"collections.OrderedDict", "builtins.set", "_codecs.encode"}
)

# Enums and dataclasses are rebuilt by their class and a state; their constructors run no argument.
_TRAINER = (
    _names("transformers.training_args", "TrainingArguments OptimizerNames ParallelMode")
    | _names("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments")
    | _names(
        "transformers.trainer_utils",
        "IntervalStrategy SaveStrategy EvaluationStrategy SchedulerType HubStrategy FSDPOption "
        "ShardedDDPOption",
    )
    | _names("transformers.trainer_pt_utils", "AcceleratorConfig")
    | _names("transformers.debug_utils", "DebugOption")
    | _names("transformers.generation.configuration_utils", "GenerationConfig")
    | _names("transformers.integrations.deepspeed", "HfTrainerDeepSpeedConfig HfDeepSpeedConfig")
    | _names("transformers.deepspeed", "HfTrainerDeepSpeedConfig HfDeepSpeedConfig")
    | _names("transformers.utils.quantization_config", "BitsAndBytesConfig QuantizationMethod")
    | _names("sentence_transformers.training_args", "SentenceTransformerTrainingArguments")
    | _names("sentence_transformers.training_args", "BatchSamplers MultiDatasetBatchSamplers")
    | _names("accelerate.state", "PartialState AcceleratorState GradientState")
    | _names("accelerate.utils.deepspeed", "HfDeepSpeedConfig")
    | _names(
        "accelerate.utils.dataclasses",
        "DistributedType DeepSpeedPlugin FullyShardedDataParallelPlugin GradientAccumulationPlugin "
        "DataLoaderConfiguration PrecisionType DynamoBackend TorchDynamoPlugin LoggerType "
        "ComputeEnvironment SageMakerDistributedType RNGType ParallelismConfig",
    )
    | _names("accelerate.parallelism_config", "ParallelismConfig")
    | _names("peft.utils.peft_types", "PeftType TaskType")
    | _names("peft.tuners.lora.config", "LoraConfig LoftQConfig LoraRuntimeConfig")
    | _names("peft.tuners.lora", "LoraConfig")
    | _names("torch.optim.lr_scheduler", "LambdaLR StepLR CosineAnnealingLR LinearLR ConstantLR")
    | _names("torch.distributed.fsdp", "ShardingStrategy BackwardPrefetch StateDictType")
    | _names("torch.distributed.fsdp.api", "ShardingStrategy BackwardPrefetch StateDictType")
    | _names("numpy.core.multiarray", "_reconstruct scalar")
    | _names("numpy._core.multiarray", "_reconstruct scalar")
    | _names("numpy", "dtype ndarray float64 float32 int64 int32 bool_ uint32")
    | _names("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor")
    | _names("numpy.dtypes", "Float64DType Float32DType Int64DType Int32DType UInt32DType")
    | _names("collections", "OrderedDict defaultdict Counter deque")
    | _names("builtins", "set frozenset dict list tuple int float bool str bytes bytearray")
    | _names("builtins", "complex slice range object")
    | _names("copyreg", "_reconstructor __newobj__ __newobj_ex__")
    | _names("numpy.core.numeric", "_frombuffer")
    | _names("numpy._core.numeric", "_frombuffer")
    | _names("numpy.random._mt19937", "MT19937")
    | _names("numpy.random._pcg64", "PCG64 PCG64DXSM")
    | _names("numpy.random._philox", "Philox")
    | _names("numpy.random._sfc64", "SFC64")
    | _names(
        "torch._utils",
        "_rebuild_device_tensor_from_cpu_tensor _rebuild_meta_tensor_no_storage "
        "_rebuild_nested_tensor _rebuild_sparse_csr_tensor _rebuild_wrapper_subclass",
    )
    | {"re._compile", "zoneinfo.ZoneInfo._unpickle"}
    | _names("datetime", "datetime timedelta date time timezone")
    | _names("pathlib", "PosixPath PurePosixPath WindowsPath PureWindowsPath Path PurePath")
    | _names("pathlib._local", "PosixPath PurePosixPath WindowsPath PureWindowsPath Path")
    | _names("argparse", "Namespace")
    | _names("types", "SimpleNamespace")
    | _names("uuid", "UUID SafeUUID")
    | _names("decimal", "Decimal")
    | _names("fractions", "Fraction")
    | _names("random", "Random")
    | _names("_random", "Random")
    | _names("array", "array _array_reconstructor")
    | _names("ipaddress", "IPv4Address IPv6Address IPv4Network IPv6Network")
    | _names("string", "Template")
    | _names("joblib.numpy_pickle", "NumpyArrayWrapper")
)

# Argument dataclasses of training frameworks: too many to list, and new ones with every release.
_TRAINER_PATTERNS = (
    re.compile(r"trl\.(trainer|experimental)(\.\w+)*\.[A-Z]\w*(Config|Arguments)"),
    re.compile(r"trl\.trainer(\.\w+)*_config\._?[A-Z]\w*"),  # FDivergenceType, _BaseConfig
    re.compile(r"trl\.trainer\.utils\.OnPolicyConfig"),
    re.compile(r"sentence_transformers(\.\w+)*\.(training_args|sampler)\.[A-Z]\w*"),
    re.compile(r"(llamafactory|llmtuner)\.hparams\.\w+\.[A-Z]\w*Arguments"),
    re.compile(r"axolotl\.core\.training_args(_base)?\.[A-Z]\w*(Config|Arguments)"),
    re.compile(r"swift\.(trainers|llm)(\.\w+)*\.[A-Z]\w*(Config|Arguments)"),
    re.compile(r"unsloth\.(trainer|models)(\.\w+)*\.[A-Z]\w*(Config|Arguments)"),
)

# Nothing in these modules is a harmless part of a model file, whatever its name.
_DANGEROUS_MODULES = _words(
    """
    os posix nt subprocess _posixsubprocess popen2 commands sys pty tty
    shutil socket _socket socketserver ssl _ssl select selectors asyncio multiprocessing
    _multiprocessing concurrent threading _thread signal
    importlib _frozen_importlib _frozen_importlib_external imp runpy pkgutil zipimport zipapp
    pickle _pickle cPickle cloudpickle dill shelve marshal jsonpickle
    code codeop ctypes _ctypes cffi _cffi_backend
    pdb bdb cProfile profile _lsprof trace timeit doctest unittest test pytest _pytest nose
    pydoc webbrowser antigravity idlelib lib2to3 turtledemo tkinter _tkinter
    pip ensurepip venv distutils setuptools pkg_resources site sitecustomize usercustomize
    _osx_support _aix_support _pyrepl pyrepl readline cmd
    urllib urllib2 urllib3 http httplib xmlrpc xmlrpclib requests httpx aiohttp ftplib smtplib
    poplib imaplib nntplib telnetlib asyncore asynchat paramiko fabric boto3 huggingface_hub
    tempfile fileinput linecache dbm sqlite3 _sqlite3 mmap mailbox
    logging.config logging.handlers wsgiref cgi
    torch.hub torch.package torch.jit torch._inductor torch._dynamo torch.utils.cpp_extension
    torch.utils.bottleneck torch.utils.collect_env torch.utils._config_module torch.fx
    torch.utils.data.datapipes torch.distributed.rpc torch.distributed.run torch.multiprocessing
    torch.testing torch.utils.model_zoo torch.classes torch.ops torch._ops torch.library
    numpy.testing numpy.f2py numpy.distutils numpy.ctypeslib numpy.lib.npyio numpy.lib._npyio_impl
    numpy.compat numpy.ma.testutils
    pandas.io scipy.io
    IPython ipykernel jupyter_client pexpect sh plumbum invoke
    functools _functools itertools contextlib weakref gc inspect sched
    yaml ruamel _yaml hydra mlflow nltk keras tf_keras tensorflow sympy jinja2 mako
    __builtins__ _imp compileall py_compile modulefinder _signal faulthandler resource syslog joblib
    pyximport Cython numba numexpr pydantic.deprecated.parse skops fire xdist gdown wget
    """
)

# Named by themselves, or as a step of an attribute path, these are modules that somebody imported.
_SYSTEM_MODULES = _words(
    "os posix nt sys subprocess builtins __builtins__ importlib shutil ctypes runpy marshal pty"
)
_MODULE_OBJECTS = _words(
    """
    socket pickle cPickle dill cloudpickle joblib multiprocessing threading _thread tempfile
    platform inspect gc pkgutil zipimport codeop fileinput glob urllib urllib3 requests httpx
    asyncio signal webbrowser zipfile tarfile sqlite3 functools operator itertools copyreg codecs
    traceback linecache imp posixpath ntpath warnings logging atexit weakref contextlib
    huggingface_hub modules
    """
)

# Single names in modules that are otherwise ordinary. `builtins.getattr` is not here: 10 of 216
# benign training_args.bin use it for members of enums. What it is applied to decides.
_DANGEROUS_NAMES = (
    _names(
        "builtins",
        "eval exec compile __import__ open input execfile file apply breakpoint globals locals "
        "vars delattr setattr __build_class__ __loader__ __spec__ reload "
        "map filter iter type super property classmethod staticmethod memoryview help exit quit "
        "raw_input",
    )
    | _names("types", "CodeType FunctionType LambdaType MethodType ModuleType BuiltinFunctionType")
    | _names("operator", "attrgetter itemgetter methodcaller call")
    | _names("_operator", "attrgetter itemgetter methodcaller call")
    | _names("io", "open open_code FileIO OpenWrapper")
    | _names("_io", "open open_code FileIO")
    | _names("logging", "FileHandler basicConfig")
    | _names("codecs", "open decode lookup StreamReaderWriter StreamRecoder")
    | _names("_codecs", "decode lookup")
    | _names("uuid", "_get_command_stdout _popen _find_mac_near_keyword")
    | _names("platform", "popen _syscmd_file _syscmd_ver")
    | _names("copyreg", "add_extension pickle")
    | _names("atexit", "register")
    | _names("typing", "get_type_hints ForwardRef _eval_type")
    | _names("tarfile", "open TarFile")
    | _names("zipfile", "ZipFile PyZipFile")
    | _names("gzip", "open GzipFile")
    | _names("bz2", "open BZ2File")
    | _names("lzma", "open LZMAFile")
    | _names("torch", "load save compile")
    | _names("torch.serialization", "load save _load _legacy_load add_safe_globals")
    | _names("torch.storage", "_load_from_bytes")
    | _names("torch._utils", "_import_dotted_name _rebuild_device_tensor_from_numpy")
    | _names("torch._tensor", "_rebuild_from_type")
    | _names("numpy", "load loads save savez memmap fromfile genfromtxt loadtxt DataSource")
    | _names("numpy.core.records", "fromfile")
    | _names("numpy.core.memmap", "memmap")
    | _names("transformers.dynamic_module_utils", "get_class_from_dynamic_module")
    | _names("transformers", "pipeline AutoModel AutoTokenizer AutoConfig")
    # constructors that fetch, open or run what their argument names
    | _names("sentence_transformers", "SentenceTransformer CrossEncoder SparseEncoder")
    | _names("sentence_transformers.SentenceTransformer", "SentenceTransformer")
    | _names("sentence_transformers.cross_encoder.CrossEncoder", "CrossEncoder")
    | _names("vllm", "LLM")
    | _names("vllm.entrypoints.llm", "LLM")
    | _names("llama_cpp", "Llama")
    | _names("llama_cpp.llama", "Llama")
)

# Names that mean the same thing wherever they were re-exported, so that an innocent module which
# merely imported them (`torch._dynamo.x` + `system`) is no way around.
_DANGEROUS_ANYWHERE = _words(
    """
    system popen Popen check_output check_call execv execve execvp execl execlp spawnv spawnl
    eval exec __import__ import_module run_code runcode runctx runstring execWrapper
    load_module exec_module evaluate_guards_expression
    """
)
