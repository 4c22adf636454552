"""Read what lies beside weights: configs, indexes, tokenizers, templates, scripts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from adapterscan.errors import (
    FileProblem,
    LimitExceeded,
    Malformed,
)
from adapterscan.formats import (
    chat_templates,
    generation,
    strict_json,
    tokenizer_reader,
    weight_index,
)
from adapterscan.formats.config import CONFIG_LIMIT, read_config
from adapterscan.formats.hooks import HOOK_LIMIT, find_hooks
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.scripts import TEXT_LIMIT, TEXTS_LIMIT, code_facts
from adapterscan.formats.sniff import COULD_HIDE_PICKLES, is_unsettled, sniff
from adapterscan.model import (
    File,
    FileKind,
)
from adapterscan.reading.contents import HEAD_BYTES, Contents, Outcome, folder_of, pointer, small
from adapterscan.reading.pickles import find_pickles_in
from adapterscan.text import size_text
from adapterscan.weighing.one_pass import hash_only

if TYPE_CHECKING:
    pass


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


def read_document(contents: Contents, file: File, source: SourceFile, outcome: Outcome) -> None:
    """Read a file that holds no weights, by its name; its content decides what is looked for."""
    name = PurePosixPath(file.path).name.lower()
    if name.endswith(weight_index.SUFFIX):
        read_index_file(contents, file, source)
    elif name in _DOCUMENT_NAMES or name.endswith(_DOCUMENT_ENDING):
        data = small(source, DOCUMENT_LIMIT)
        document = strict_json.parse(data, file.path, limit=DOCUMENT_LIMIT)
        keep_hooks(contents, file, document)
        if name in (generation.NAME, "config.json"):
            whole = name == generation.NAME
            contents.tokenizers.take_generation(document, file.path, whole=whole)
        try:
            if tokenizer_reader.limit_of(file.path):
                contents.tokenizers.take(data, file.path)
        finally:
            keep_templates(contents, file, document)
    elif limit := tokenizer_reader.limit_of(file.path):
        read_tokenizer_file(contents, file, source, limit)
    elif name == TEMPLATE_DOCUMENT:
        data = small(source, DOCUMENT_LIMIT)
        keep_templates(contents, file, strict_json.parse(data, file.path, limit=DOCUMENT_LIMIT))
    elif name.endswith(chat_templates.SUFFIXES):
        keep_templates(contents, file, _text(source))
    else:
        read_other(contents, file, source, outcome)


def read_other(contents: Contents, file: File, source: SourceFile, outcome: Outcome) -> None:
    """Look into what no adapter loader reads by itself: a script or a config can name any file."""
    look_for_code(contents, file, source)
    head = source.read(0, HEAD_BYTES)
    unsettled = (container := sniff(head)) in ("text", "unknown") and is_unsettled(head)
    if container in COULD_HIDE_PICKLES or unsettled:
        find_pickles_in(contents, file, source)
    elif file.path.lower().endswith(".json") and source.size <= _SIDE_DOCUMENT_LIMIT:
        parsed: object = None
        with suppress(FileProblem):  # nothing depends on it
            data = source.read(0, source.size)
            parsed = strict_json.parse(data, file.path, limit=_SIDE_DOCUMENT_LIMIT)
        keep_hooks(contents, file, parsed)
    outcome.status = "hashed only" if source.size <= HASH_LIMIT else "listed only"
    if source.size <= HASH_LIMIT:
        hash_only(source)


def read_config_file(contents: Contents, file: File, source: SourceFile) -> None:
    data = small(source, CONFIG_LIMIT)
    if sniff(data[:HEAD_BYTES]) == "lfs-pointer":
        raise pointer(contents, file, data)
    contents.config_bytes += len(data)
    contents.config_values += strict_json.count_values(data)
    if contents.config_bytes > CONFIGS_LIMIT or contents.config_values > CONFIG_VALUES_LIMIT:
        raise LimitExceeded(
            file.path, "goes with the configs before it over the limit of "
            f"{size_text(CONFIGS_LIMIT)} or {CONFIG_VALUES_LIMIT:,} values in one target",
            hint="a config needs a few kilobytes; scan the folders one by one",
        )  # fmt: skip
    config = read_config(data, file.path)
    contents.configs[folder_of(file.path)] = config
    keep_hooks(contents, file, config.raw)


def read_index_file(contents: Contents, file: File, source: SourceFile) -> None:
    if len(contents.indexes) >= weight_index.INDEXES_LIMIT:
        raise LimitExceeded(
            file.path, f"is one of more than {weight_index.INDEXES_LIMIT} indexes of shards",
            hint="an adapter needs none; scan the folders one by one",
        )  # fmt: skip
    data = small(source, weight_index.INDEX_LIMIT)
    contents.indexes.append(weight_index.read_index(data, file.path))


def look_for_code(contents: Contents, file: File, source: SourceFile) -> None:
    is_code = file.kind is FileKind.CODE
    room = max(0, TEXTS_LIMIT - contents.code_bytes)
    facts = code_facts(source, is_code=is_code, room=room)
    contents.evidence.extend(facts)
    if is_code or facts:
        contents.code_bytes += min(source.size, TEXT_LIMIT)


def read_tokenizer_file(contents: Contents, file: File, source: SourceFile, limit: int) -> None:
    """Take a tokenizer's file. Raises FileProblem."""
    head = source.read(0, HEAD_BYTES)
    container = sniff(head)
    if container == "lfs-pointer":
        raise pointer(contents, file, head)
    if container in COULD_HIDE_PICKLES:
        find_pickles_in(contents, file, source)
    data = small(source, limit)
    if file.path.lower().endswith(".json") and len(data) <= _SIDE_DOCUMENT_LIMIT:
        with suppress(FileProblem):  # its own reader tells
            keep_hooks(contents, file, strict_json.parse(data, file.path, limit=len(data)))
    contents.tokenizers.take(data, file.path)


def read_gguf_texts(contents: Contents, file: File, source: SourceFile) -> None:
    """Take the tokenizer and the chat templates in a GGUF file. Raises FileProblem."""
    from adapterscan.formats.gguf import read_gguf
    from adapterscan.formats.tokenizer_gguf import LISTS, templates_of, tokenizer_of

    header = read_gguf(source, LISTS)
    found = tokenizer_of(header, file.path)
    if found is not None:
        contents.tokenizers.add(found)
    keep_templates(contents, file, templates_of(header))


def _text(source: SourceFile) -> str:
    """Return a template's file as text. Raises Malformed where it is none."""
    data = small(source, 4 * chat_templates.TEMPLATE_LIMIT)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start})"
        raise Malformed(
            source.path, reason, defect="not-utf8", hint="treat it as hostile"
        ) from error


def keep_templates(contents: Contents, file: File, given: object) -> None:
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


def keep_hooks(contents: Contents, file: File, document: object) -> None:
    room = HOOK_LIMIT - len(contents.hooks)
    contents.hooks += find_hooks(document, file.path, room)
