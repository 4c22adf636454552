"""Read a weight file: which container it is, whose tensors, and what they measure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from adapterscan.errors import (
    FileProblem,
    Unsupported,
)
from adapterscan.formats.accounting import Role
from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.layouts import recognise
from adapterscan.formats.peft import Adapter, build_adapter
from adapterscan.formats.peft_types import COMPARED_WHOLE, NO_DELTA, PARTS, TOKEN_PARTS
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.sniff import sniff
from adapterscan.formats.tensors import WeightFile
from adapterscan.model import (
    File,
    FileKind,
    Skipped,
)
from adapterscan.reading.contents import (
    HEAD_BYTES,
    Contents,
    Outcome,
    WeighedAdapter,
    article,
    folder_of,
    note,
    pointer,
)
from adapterscan.reading.documents import look_for_code, read_gguf_texts
from adapterscan.reading.pickles import find_pickles_in, require_pickles
from adapterscan.text import plural, printable, size_text
from adapterscan.weighing.one_pass import Weighed, hash_only, weigh
from adapterscan.weighing.summaries import Summaries

if TYPE_CHECKING:
    from adapterscan.formats.pickle_file import PickleFile


#: Files whose loaders never unpickle, when they are what their suffix says. Under any other suffix
#: the loader decides: a pickle may begin with `GGUF` (a float), with text, or like a header.
_NO_PICKLES = frozenset({"safetensors", "gguf", "text", "empty"})
_PLAIN_SUFFIXES = frozenset({".safetensors", ".gguf"})


def read_container(
    contents: Contents, file: File, source: SourceFile, workers: int, outcome: Outcome
) -> None:
    head = source.read(0, HEAD_BYTES)
    container = sniff(head)
    suffix = PurePosixPath(file.path).suffix.lower()
    if container == "lfs-pointer" and source.size < HEAD_BYTES:  # longer: it only begins like one
        raise pointer(contents, file, head)
    pickles: PickleFile | None = None
    if container not in _NO_PICKLES or (suffix not in _PLAIN_SUFFIXES and container != "empty"):
        if suffix == ".safetensors" and container != "unknown":
            note(contents, "file.disguised", file, container, suffix=suffix)
        pickles, facts = find_pickles_in(contents, file, source)
    if file.kind is FileKind.PICKLE and container != "safetensors":
        look_for_code(contents, file, source)
        hash_only(source)
        if pickles is not None:
            require_pickles(file, container, pickles, facts)
        return
    if pickles is not None and container in ("zip", "pickle"):
        from adapterscan.formats.torch_file import read_torch

        weights = read_torch(pickles)
    elif container == "safetensors" or suffix == ".safetensors":
        weights = read_safetensors(source)
    else:
        if container == "gguf":
            read_gguf_texts(contents, file, source)
        raise Unsupported(
            file.path, f"is {article(container)}, which is not read yet",
            hint="its weights were not looked at; ask the author for safetensors",
        )  # fmt: skip
    pickles = None  # its values can take as much memory as the weighing
    read_weights(contents, file, source, weights, workers, outcome)


def read_weights(
    contents: Contents,
    file: File,
    source: SourceFile,
    weights: WeightFile,
    workers: int,
    outcome: Outcome,
) -> None:
    contents.evidence.extend(weights.evidence)
    folder = folder_of(file.path)
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
    name, folder = PurePosixPath(file.path).name, folder_of(file.path)
    if name.startswith(("adapter", "pytorch_lora")):
        return True
    others = contents.artifact.files
    return not any(f.kind is FileKind.WEIGHTS and f is not file and folder_of(f.path) == folder
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
