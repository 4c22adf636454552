"""Read the files of an artifact into adapters, documents and facts; whatever fails is kept as such.

Each file is opened once, and its content decides how it is parsed; its name only says what loaders
take it for. A file that breaks one reader leaves a Skipped, and the others go on.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from adapterscan.calibration import Reference
from adapterscan.errors import (
    NO_MEMORY,
    NO_MEMORY_HINT,
    FileProblem,
    LimitExceeded,
    Malformed,
    Unreadable,
    Unsupported,
)
from adapterscan.formats import (
    chat_templates,
    generation,
    strict_json,
    tokenizer_reader,
    weight_index,
)
from adapterscan.formats.accounting import Role
from adapterscan.formats.config import CONFIG_LIMIT, AdapterConfig, read_config
from adapterscan.formats.hooks import HOOK_LIMIT, Hook, find_hooks
from adapterscan.formats.layouts import recognise
from adapterscan.formats.parts import PartialFile, Span
from adapterscan.formats.peft import Adapter, build_adapter
from adapterscan.formats.peft_types import COMPARED_WHOLE, NO_DELTA, PARTS, TOKEN_PARTS
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.scripts import TEXT_LIMIT, TEXTS_LIMIT, code_facts
from adapterscan.formats.sniff import COULD_HIDE_PICKLES, is_unsettled, parse_lfs_pointer, sniff
from adapterscan.formats.tensors import WeightFile
from adapterscan.model import (
    Artifact,
    Evidence,
    File,
    FileKind,
    FileRecord,
    Skipped,
    Subject,
)
from adapterscan.onbase.base import BaseWeights
from adapterscan.provenance.papers import Papers
from adapterscan.text import plural, printable, size_text
from adapterscan.tokenizing import Tokenizers
from adapterscan.weighing.one_pass import Weighed, hash_only, weigh
from adapterscan.weighing.summaries import NONE, Summaries

if TYPE_CHECKING:
    from adapterscan.formats.pickle_file import NamedSource, PickleFile
    from adapterscan.formats.pickle_policy import Purpose
    from adapterscan.formats.template_facts import Tree
    from adapterscan.provenance.signing import Key

HEAD_BYTES = 1024
DOCUMENT_LIMIT = 8 << 20
#: All configs of a target together: they are kept until its end. Each has a few hundred values.
CONFIGS_LIMIT = 4 << 20
CONFIG_VALUES_LIMIT = 200_000
HASH_LIMIT = 256 << 20  # files that no analysis reads are hashed up to this size
#: JSON beside the weights that loaders obey. Parsed for the detectors.
_DOCUMENT_NAMES = frozenset({"model_index.json"})
_DOCUMENT_ENDING = "config.json"
TEMPLATE_DOCUMENT = "chat_template.json"
_SIDE_DOCUMENT_LIMIT = 1 << 20  # other JSON is parsed up to this size
#: Files whose loaders never unpickle, when they are what their suffix says. Under any other suffix
#: the loader decides: a pickle may begin with `GGUF` (a float), with text, or like a header.
_NO_PICKLES = frozenset({"safetensors", "gguf", "text", "empty"})
_PLAIN_SUFFIXES = frozenset({".safetensors", ".gguf"})


@dataclass(frozen=True, slots=True)
class WeighedAdapter:
    """An adapter together with what the pass over its bytes measured."""

    adapter: Adapter
    weighed: Weighed

    @property
    def file(self) -> str:
        """Return the path of the weight file."""
        return self.adapter.weights.path


@dataclass(frozen=True, slots=True)
class Outline:
    """What stays of an adapter that was let go: enough to tell whether a twin of it agrees."""

    file: str
    folder: str
    config: str  # path of its config, "" without one
    shapes: bytes = b""  # digest of the names and shapes of its tensors
    deltas: int = 0
    norms: Sequence[float] = ()  # ‖ΔW‖ in the order of names, NONE where not measured; of twins


@dataclass(slots=True)
class Contents:
    """Everything that was read from one artifact. Filled by `read`, then only looked at.

    `tell` is told what is being done where that takes long.
    """

    artifact: Artifact
    peers: Reference = field(default_factory=Reference)  # other adapters, to compare with
    base: BaseWeights | None = None  # the base model, to compare with
    tell: Callable[[str], None] = lambda _: None
    key: Key | None = None  # to verify signatures with
    configs: dict[str, AdapterConfig] = field(default_factory=dict)  # by folder
    adapters: list[WeighedAdapter] = field(default_factory=list)
    outlines: list[Outline] = field(default_factory=list)  # of all adapters
    indexes: list[weight_index.WeightIndex] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)  # of configs and other documents
    templates: list[tuple[chat_templates.Template, Tree]] = field(default_factory=list)
    papers: Papers = field(default_factory=Papers)  # cards, licences, signatures; what texts tell
    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    config_bytes: int = 0
    config_values: int = 0
    code_bytes: int = 0
    records: list[FileRecord] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def file(self, path: str) -> File:
        """Return the file of that path, which there is."""
        return next(file for file in self.artifact.files if file.path == path)

    def sha256(self, path: str) -> str:
        """Return the digest of a file that was read, "" where it was not read whole."""
        found = (record.sha256 for record in reversed(self.records) if record.path == path)
        return next(found, None) or ""


@dataclass(slots=True)
class _Outcome:
    """How reading one file went."""

    status: str = "analysed"


def read(
    artifact: Artifact, *, workers: int, progress: Callable[[str], None] = lambda _: None
) -> Contents:
    """Read every fetched file of `artifact`, and keep all of its adapters."""
    contents = Contents(artifact)
    found = read_files(contents, workers=workers, progress=progress)
    contents.adapters = [weighed for weighed in found if weighed is not None]
    return contents


def read_files(
    contents: Contents, *, workers: int, progress: Callable[[str], None] = lambda _: None
) -> Iterator[WeighedAdapter | None]:
    """Read every fetched file of `contents.artifact`, configs and cards first.

    Yields after each file the adapter that is in it, or None. Only the caller keeps it, and may
    take the facts out of `contents` as well: a repository can have 10,000 files.
    """
    files = contents.artifact.files
    folders = Counter(_folder(file.path) for file in files if file.kind is FileKind.WEIGHTS)
    for file in sorted(files, key=_in_order):
        if file.parts is not None:
            progress(file.path)
            _read_parts(contents, file)
        elif file.local is None:
            contents.records.append(_record(file, None, "listed only"))
        else:
            progress(file.path)
            _read_file(contents, file, workers)
        if contents.adapters:
            folder = contents.adapters[0].adapter.folder
            contents.outlines.append(_outline(contents.adapters[0], folders[folder] > 1))
        yield contents.adapters.pop() if contents.adapters else None
    contents.records.sort(key=lambda record: record.path)


def _in_order(file: File) -> tuple[bool, bool, str]:
    """Return what sorts configs first, then cards: adapters are compared with both."""
    return file.kind is not FileKind.CONFIG, file.kind is not FileKind.CARD, file.path


def _outline(weighed: WeighedAdapter, has_twin: bool) -> Outline:
    adapter, summaries = weighed.adapter, weighed.weighed.deltas
    shapes = hashlib.blake2b()
    for name, shape in sorted((tensor.name, tensor.shape) for tensor in adapter.weights.tensors):
        shapes.update(f"{name!r} {shape}\n".encode())
    outline = Outline(
        weighed.file, adapter.folder, adapter.config.path, shapes.digest(), len(adapter.deltas)
    )
    if not has_twin:
        return outline
    measured: dict[str, float] = dict(summaries.of("frobenius"))
    norms = (measured.get(name, NONE) for name in sorted(delta.name for delta in adapter.deltas))
    return replace(outline, norms=array("d", norms))


def _read_file(contents: Contents, file: File, workers: int) -> None:
    assert file.local is not None  # noqa: S101  the caller lists unfetched files apart
    outcome = _Outcome()
    source: SourceFile | None = None
    git_sha1 = file.expected is not None and file.expected.algorithm == "git-sha1"
    try:
        with SourceFile(file.path, file.local, git_sha1=git_sha1) as source:
            try:
                _dispatch(contents, file, source, workers, outcome)
            except FileProblem as problem:
                outcome.status = "not analysed"
                _note_problem(contents, file, problem)
            except Exception as error:  # input is hostile: whatever it breaks, the others are read
                outcome.status = "not analysed"
                _note_problem(contents, file, _defect(file, error))
            contents.papers.take(file, source)
            if source.sha256 is None and _worth_hashing(file, source):
                hash_only(source)  # a broken file is identified all the same
    except FileProblem as problem:
        if outcome.status != "not analysed":
            outcome.status = "not analysed"
            _note_problem(contents, file, problem)
    contents.records.append(_record(file, source, outcome.status))


def _read_parts(contents: Contents, file: File) -> None:
    """Judge a file that is too large to fetch by what its parts hold: its pickles."""

    def bring(spans: Sequence[Span]) -> NoReturn:
        reason = file.not_fetched or "could not be read by ranges where its pickles go on"
        hint = "scan again, name a subfolder, or download it and scan the folder it is in"
        raise Unreadable(file.path, reason, hint=hint)

    outcome = _Outcome("partly analysed")
    source = PartialFile(file.path, file.size, bring, file.parts or ())
    what = ""
    try:
        container = sniff(source.read(0, HEAD_BYTES))
        if file.kind is FileKind.PICKLE or container in COULD_HIDE_PICKLES:
            what = _WHAT_WAS_READ.get(container, ": its start and its end")
            found, facts = _find_pickles(contents, file, source)
            if file.kind is FileKind.PICKLE:
                _require_pickles(file, container, found, facts)
        else:
            outcome.status, what = "listed only", ": its start, which is no pickle and no archive"
    except FileProblem as problem:
        outcome.status = "not analysed"
        _note_problem(contents, file, problem)
    except Exception as error:  # input is hostile: whatever it breaks, the others are read
        outcome.status = "not analysed"
        _note_problem(contents, file, _defect(file, error))
    if source.held:
        contents.skipped.append(
            Skipped(
                file.path,
                f"{size_text(source.held)} of {size_text(file.size)} were read"
                f"{what if outcome.status != 'not analysed' else ''}; the rest was not, and "
                "nothing of it could be compared with the hub's hash",
                failed=False, detector="reading",
                hint="download it and scan the folder to have all of it hashed",
            )
        )  # fmt: skip
    contents.records.append(_record(file, None, outcome.status))


#: What is read of a file by ranges, by its container.
_WHAT_WAS_READ: Mapping[str, str] = {
    "zip": ": its pickles, its directory and where each member begins",
    "pickle": ": its pickles and its end",
}


def _worth_hashing(file: File, source: SourceFile) -> bool:
    """Return whether a file that no analysis read to its end is hashed: what loaders load, is."""
    loaded = file.kind in (FileKind.WEIGHTS, FileKind.PICKLE)
    return loaded or (file.kind is not FileKind.OTHER and source.size <= HASH_LIMIT)


def _defect(file: File, error: Exception) -> FileProblem:
    if isinstance(error, MemoryError):
        return LimitExceeded(file.path, NO_MEMORY, hint=NO_MEMORY_HINT)
    return Unreadable(
        file.path, f"could not be analysed ({type(error).__name__})",
        hint="this is a defect of adapterscan: please report it with the adapter's name",
    )  # fmt: skip


def _dispatch(
    contents: Contents, file: File, source: SourceFile, workers: int, outcome: _Outcome
) -> None:
    name = PurePosixPath(file.path).name.lower()
    if file.kind is FileKind.CONFIG:
        _read_config(contents, file, source)
    elif file.kind in (FileKind.WEIGHTS, FileKind.PICKLE):
        _read_container(contents, file, source, workers, outcome)
    elif name.endswith(weight_index.SUFFIX):
        _read_index(contents, file, source)
    elif name in _DOCUMENT_NAMES or name.endswith(_DOCUMENT_ENDING):
        data = _small(source, DOCUMENT_LIMIT)
        document = strict_json.parse(data, file.path, limit=DOCUMENT_LIMIT)
        _keep_hooks(contents, file, document)
        if name in (generation.NAME, "config.json"):
            whole = name == generation.NAME
            contents.tokenizers.take_generation(document, file.path, whole=whole)
        try:
            if tokenizer_reader.limit_of(file.path):
                contents.tokenizers.take(data, file.path)
        finally:
            _keep_templates(contents, file, document)
    elif limit := tokenizer_reader.limit_of(file.path):
        _read_tokenizer(contents, file, source, limit)
    elif name == TEMPLATE_DOCUMENT:
        data = _small(source, DOCUMENT_LIMIT)
        _keep_templates(contents, file, strict_json.parse(data, file.path, limit=DOCUMENT_LIMIT))
    elif name.endswith(chat_templates.SUFFIXES):
        _keep_templates(contents, file, _text(source))
    else:
        _read_other(contents, file, source, outcome)


def _read_other(contents: Contents, file: File, source: SourceFile, outcome: _Outcome) -> None:
    """Look into what no adapter loader reads by itself: a script or a config can name any file."""
    _look_for_code(contents, file, source)
    head = source.read(0, HEAD_BYTES)
    unsettled = (container := sniff(head)) in ("text", "unknown") and is_unsettled(head)
    if container in COULD_HIDE_PICKLES or unsettled:
        _find_pickles(contents, file, source)
    elif file.path.lower().endswith(".json") and source.size <= _SIDE_DOCUMENT_LIMIT:
        parsed: object = None
        with suppress(FileProblem):  # nothing depends on it
            data = source.read(0, source.size)
            parsed = strict_json.parse(data, file.path, limit=_SIDE_DOCUMENT_LIMIT)
        _keep_hooks(contents, file, parsed)
    outcome.status = "hashed only" if source.size <= HASH_LIMIT else "listed only"
    if source.size <= HASH_LIMIT:
        hash_only(source)


def _read_index(contents: Contents, file: File, source: SourceFile) -> None:
    if len(contents.indexes) >= weight_index.INDEXES_LIMIT:
        raise LimitExceeded(
            file.path, f"is one of more than {weight_index.INDEXES_LIMIT} indexes of shards",
            hint="an adapter needs none; scan the folders one by one",
        )  # fmt: skip
    data = _small(source, weight_index.INDEX_LIMIT)
    contents.indexes.append(weight_index.read_index(data, file.path))


def _look_for_code(contents: Contents, file: File, source: SourceFile) -> None:
    is_code = file.kind is FileKind.CODE
    room = max(0, TEXTS_LIMIT - contents.code_bytes)
    facts = code_facts(source, is_code=is_code, room=room)
    contents.evidence.extend(facts)
    if is_code or facts:
        contents.code_bytes += min(source.size, TEXT_LIMIT)


def _read_tokenizer(contents: Contents, file: File, source: SourceFile, limit: int) -> None:
    """Take a tokenizer's file. Raises FileProblem."""
    head = source.read(0, HEAD_BYTES)
    container = sniff(head)
    if container == "lfs-pointer":
        raise _pointer(contents, file, head)
    if container in COULD_HIDE_PICKLES:
        _find_pickles(contents, file, source)
    data = _small(source, limit)
    if file.path.lower().endswith(".json") and len(data) <= _SIDE_DOCUMENT_LIMIT:
        with suppress(FileProblem):  # its own reader tells
            _keep_hooks(contents, file, strict_json.parse(data, file.path, limit=len(data)))
    contents.tokenizers.take(data, file.path)


def _read_gguf(contents: Contents, file: File, source: SourceFile) -> None:
    """Take the tokenizer and the chat templates in a GGUF file. Raises FileProblem."""
    from adapterscan.formats.gguf import read_gguf
    from adapterscan.formats.tokenizer_gguf import LISTS, templates_of, tokenizer_of

    header = read_gguf(source, LISTS)
    found = tokenizer_of(header, file.path)
    if found is not None:
        contents.tokenizers.add(found)
    _keep_templates(contents, file, templates_of(header))


def _text(source: SourceFile) -> str:
    """Return a template's file as text. Raises Malformed where it is none."""
    data = _small(source, 4 * chat_templates.TEMPLATE_LIMIT)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start})"
        raise Malformed(
            source.path, reason, defect="not-utf8", hint="treat it as hostile"
        ) from error


def _keep_templates(contents: Contents, file: File, given: object) -> None:
    """Read the chat templates of a document, or the one that a file is.

    Raises what stood in the way of the first that cannot be read, when the others are.
    """
    document = {chat_templates.FIELD: given} if isinstance(given, str) else given
    known = {template.text: tree for template, tree in contents.templates}
    room = chat_templates.TEMPLATES_LIMIT - sum(map(len, known))
    found = chat_templates.templates_in(document, file.path, room, known)
    if not found:
        return
    from adapterscan.formats.template_tree import read_template  # jinja2: only where there is one

    problems: list[FileProblem] = []
    for template in found:
        try:
            tree = known.get(template.text) or read_template(template)
            contents.templates.append((template, tree))
            known[template.text] = tree
        except FileProblem as problem:
            problems.append(problem)
    if any(tree.over for _, tree in contents.templates[-len(found) :]):
        problems.append(
            LimitExceeded(
                file.path, "has chat templates with more conditions on what is said than we follow",
                hint="published ones have up to 20; treat it as hostile",
            )
        )  # fmt: skip
    if problems:
        raise problems[0]


def _keep_hooks(contents: Contents, file: File, document: object) -> None:
    room = HOOK_LIMIT - len(contents.hooks)
    contents.hooks += find_hooks(document, file.path, room)


def _find_pickles(
    contents: Contents, file: File, source: NamedSource
) -> tuple[PickleFile, tuple[Evidence, ...]]:
    """Follow every pickle in the file and keep its facts; what was not followed is Skipped.

    Raises Unreadable or ChangedWhileReading, after that, when bytes could not be had.
    """
    # imported when wanted: most adapters hold no pickles
    from adapterscan.formats.pickle_facts import pickle_facts
    from adapterscan.formats.pickle_file import find_pickles

    purpose: Purpose = "weights" if file.kind is FileKind.WEIGHTS else "trainer"
    found = find_pickles(source)
    facts = pickle_facts(found, purpose)
    contents.papers.take_pickles(file.path, found)
    contents.evidence.extend(facts)
    contents.skipped.extend(_unfollowed(file, facts))
    if found.problem is not None:
        raise found.problem
    return found, facts


def _read_config(contents: Contents, file: File, source: SourceFile) -> None:
    data = _small(source, CONFIG_LIMIT)
    if sniff(data[:HEAD_BYTES]) == "lfs-pointer":
        raise _pointer(contents, file, data)
    contents.config_bytes += len(data)
    contents.config_values += strict_json.count_values(data)
    if contents.config_bytes > CONFIGS_LIMIT or contents.config_values > CONFIG_VALUES_LIMIT:
        raise LimitExceeded(
            file.path, "goes with the configs before it over the limit of "
            f"{size_text(CONFIGS_LIMIT)} or {CONFIG_VALUES_LIMIT:,} values in one target",
            hint="a config needs a few kilobytes; scan the folders one by one",
        )  # fmt: skip
    config = read_config(data, file.path)
    contents.configs[_folder(file.path)] = config
    _keep_hooks(contents, file, config.raw)


def _read_container(
    contents: Contents, file: File, source: SourceFile, workers: int, outcome: _Outcome
) -> None:
    head = source.read(0, HEAD_BYTES)
    container = sniff(head)
    suffix = PurePosixPath(file.path).suffix.lower()
    if container == "lfs-pointer" and source.size < HEAD_BYTES:  # longer: it only begins like one
        raise _pointer(contents, file, head)
    pickles: PickleFile | None = None
    if container not in _NO_PICKLES or (suffix not in _PLAIN_SUFFIXES and container != "empty"):
        if suffix == ".safetensors" and container != "unknown":
            _note(contents, "file.disguised", file, container, suffix=suffix)
        pickles, facts = _find_pickles(contents, file, source)
    if file.kind is FileKind.PICKLE and container != "safetensors":
        _look_for_code(contents, file, source)
        hash_only(source)
        if pickles is not None:
            _require_pickles(file, container, pickles, facts)
        return
    if pickles is not None and container in ("zip", "pickle"):
        from adapterscan.formats.torch_file import read_torch

        weights = read_torch(pickles)
    elif container == "safetensors" or suffix == ".safetensors":
        weights = read_safetensors(source)
    else:
        if container == "gguf":
            _read_gguf(contents, file, source)
        raise Unsupported(
            file.path, f"is {_article(container)}, which is not read yet",
            hint="its weights were not looked at; ask the author for safetensors",
        )  # fmt: skip
    pickles = None  # its values can take as much memory as the weighing
    _read_weights(contents, file, source, weights, workers, outcome)


def _require_pickles(
    file: File, container: str, found: PickleFile, facts: tuple[Evidence, ...]
) -> None:
    if not found.streams and not facts and container not in _PLAIN:
        raise Unsupported(
            file.path, f"is unpickled by its loaders, but {_article(container)} holds no "
            "pickle that we know", hint="do not load it: what it holds was not analysed",
        )  # fmt: skip


#: What a file that its loaders unpickle may be without holding a pickle.
_PLAIN = frozenset({"npy", "empty", "text"})
#: Facts that mean that part of a file of pickles was not seen.
_UNSEEN = frozenset(
    {
        "too_large",
        "unreadable_container",
        "nested_too_deep",
        "compression_method",
        "bad_compression",
        "trailing_bytes",
    }
)


def _unfollowed(file: File, facts: tuple[Evidence, ...]) -> list[Skipped]:
    """A pickle that was not followed to its end must not pass for one that was."""
    reasons = {
        str(fact.value)
        for fact in facts
        if fact.name == "pickle.broken"
        or (fact.name == "archive.defect" and fact.value in _UNSEEN)
        or fact.name == "pickle.globals_untold"
    }
    if not reasons:
        return []
    text = ", ".join(sorted(reasons)).replace("_", " ")
    return [
        Skipped(
            file.path, f"could not be followed to the end of its pickles ({text})",
            failed=file.kind not in (FileKind.OTHER, FileKind.UNKNOWN),
            hint="what was seen before that is in this report; do not unpickle it",
            detector="reading",
        )
    ]  # fmt: skip


def _read_weights(
    contents: Contents,
    file: File,
    source: SourceFile,
    weights: WeightFile,
    workers: int,
    outcome: _Outcome,
) -> None:
    contents.evidence.extend(weights.evidence)
    folder = _folder(file.path)
    config = contents.configs.get(folder, AdapterConfig(path=""))
    layout = recognise(weights.tensors)
    adapter: Adapter | None = None
    # What the config says outranks the majority of names, which anyone can add to; but it says
    # nothing of a value head or of a whole model beside the adapter.
    if layout.name == "PEFT" or (config.peft_type in PARTS and _is_peft_file(contents, file)):
        adapter = build_adapter(folder, config, weights)
    if weights.problem is not None:
        # What the header says can be judged; what the bytes say cannot.
        hash_only(source)
        _keep(contents, adapter, Weighed(Summaries(), {}, ()))
        raise weights.problem
    contents.tell(f"measuring {file.path}")
    try:
        weighed = weigh(source, weights.tensors, adapter.deltas if adapter else (), workers=workers)
    except FileProblem:
        _keep(contents, adapter, Weighed(Summaries(), {}, ()))
        raise
    contents.skipped.extend(weighed.skipped)
    unclear = _unclear(file, adapter) if adapter else []
    contents.skipped.extend(unclear)
    _keep(contents, adapter, weighed)
    if adapter is None and _is_value_head(weights):
        return
    if not weights.tensors:
        raise Unsupported(
            file.path, "holds no tensors", hint="there is nothing to analyse; ask its author why"
        )
    compared = contents.base is not None and adapter is not None and _is_whole(adapter)
    if adapter is None or not (adapter.deltas or adapter.transforms or compared):
        raise _not_analysed(file.path, weights, config, layout.name, layout.shown_by)
    if weighed.skipped or unclear or adapter.transforms:
        outcome.status = "partly analysed"


def _is_peft_file(contents: Contents, file: File) -> bool:
    """Return whether PEFT or a loader of its layout takes the file: by its name, or there is no
    other in the folder."""
    name, folder = PurePosixPath(file.path).name, _folder(file.path)
    if name.startswith(("adapter", "pytorch_lora")):
        return True
    others = contents.artifact.files
    return not any(f.kind is FileKind.WEIGHTS and f is not file and _folder(f.path) == folder
                   for f in others)  # fmt: skip


def _is_value_head(weights: WeightFile) -> bool:
    """A linear head that no loader merges: its numbers are looked at, there is no ΔW in it."""
    return bool(weights.tensors) and all(t.name.startswith("v_head.") for t in weights.tensors)


def _is_whole(adapter: Adapter) -> bool:
    """Return whether an adapter is made of what is compared with the base whole, and of no ΔW."""
    return adapter.config.peft_type in COMPARED_WHOLE and any(
        item.role is Role.DECLARED or (item.role is Role.ADAPTER and item.why in TOKEN_PARTS)
        for item in adapter.accounted
    )


def _unclear(file: File, adapter: Adapter) -> list[Skipped]:
    """Modules that have factors but no ΔW that we can compute must not pass for measured ones."""
    found = [item for item in adapter.problems if item.defect in ("ambiguous", "variant", "unread")]
    if not found:
        return []
    first = f"{printable(found[0].module, 80)} {found[0].reason}"
    more = f", and {plural(len(found) - 1, 'more module')}" if len(found) > 1 else ""
    return [
        Skipped(
            file.path, f"{first}{more}", failed=True, detector="reading",
            hint="these deltas were not measured; ask the author for a file that PEFT saved",
        )
    ]  # fmt: skip


def _keep(contents: Contents, adapter: Adapter | None, weighed: Weighed) -> None:
    if adapter is not None:
        contents.adapters.append(WeighedAdapter(adapter, weighed))


def _not_analysed(
    path: str, weights: WeightFile, config: AdapterConfig, layout: str, shown_by: str
) -> Unsupported:
    shape = f"{len(weights.tensors)} tensors, {size_text(sum(t.nbytes for t in weights.tensors))}"
    hint = "files and names were checked, the deltas were not"
    if config.peft_type in NO_DELTA:
        reason = f"is a PEFT adapter of type {config.peft_type}: it {NO_DELTA[config.peft_type]}"
        hint = (
            "--base BASE compares what it replaces"
            if config.peft_type in COMPARED_WHOLE
            else "files, names and sizes of values were checked, not what they do: probe it"
        )
    elif config.peft_type and config.peft_type != "LORA":
        kind = printable(config.peft_type, 40)
        known = "no module of it could be read" if config.peft_type in PARTS else "not known"
        reason = f"is a PEFT adapter of type {kind}: {known}"
    elif layout in ("PEFT", "unknown"):
        reason = "has no low-rank deltas in a layout that we know"
    else:
        reason = f"follows the {layout} layout (by {printable(shown_by, 60)!r}), not read yet"
    return Unsupported(path, f"{reason} ({shape})", hint=hint)


def _note_problem(contents: Contents, file: File, problem: FileProblem) -> None:
    if isinstance(problem, Malformed):
        kind = "config.defect" if file.kind is FileKind.CONFIG else "container.defect"
        _note(contents, kind, file, problem.defect, reason=problem.reason)
    contents.skipped.append(
        Skipped(
            file.path, problem.reason, hint=problem.hint, detector="reading",
            failed=True,
        )
    )  # fmt: skip


def _pointer(contents: Contents, file: File, data: bytes) -> Unsupported:
    pointer = parse_lfs_pointer(data)
    oid, size = pointer if pointer else ("", 0)
    _note(contents, "file.lfs_pointer", file, size, oid=oid)
    return Unsupported(
        file.path, f"is a large-file pointer to {size_text(size)} that are not here: not scanned",
        hint="run `git lfs pull`, then scan again",
    )  # fmt: skip


def _note(contents: Contents, name: str, file: File, value: str | int, **details: str) -> None:
    subject = Subject("file", file.path)
    contents.evidence.append(Evidence(name, subject, value, details=details))


def _small(source: SourceFile, limit: int) -> bytes:
    if source.size > limit:
        raise LimitExceeded(
            source.path, f"is {size_text(source.size)}, over the limit of {size_text(limit)}",
            hint="files of this kind have kilobytes; treat it as hostile",
        )  # fmt: skip
    return source.read_all()


def _record(file: File, source: SourceFile | None, status: str) -> FileRecord:
    sha256 = source.sha256 if source else None
    verified: bool | None = None
    if file.expected is not None and source is not None:
        actual = source.sha256 if file.expected.algorithm == "sha256" else source.git_sha1
        verified = actual == file.expected.value if actual else None
    return FileRecord(file.path, file.size, file.kind, sha256, status, verified)


def _folder(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _article(container: str) -> str:
    names: Mapping[str, str] = {
        "gguf": "a GGUF file", "npy": "a NumPy file", "tar": "a tar archive", "7z": "a 7z archive",
        "gzip": "a gzip stream", "hdf5": "an HDF5 file", "text": "text", "empty": "empty",
    }  # fmt: skip
    return names.get(container, "in a format we do not know")
