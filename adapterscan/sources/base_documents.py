"""Find a base model's tokenizer, templates and settings of generation, wherever the base lies.

From a hub these files alone come, at the commit, and only when an adapter brings something to
compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from adapterscan.errors import SourceError
from adapterscan.formats.generation import NAME
from adapterscan.model import File, FileKind, SourceKind
from adapterscan.onbase.documents import BaseDocuments
from adapterscan.onbase.profile import SUFFIX, Profile
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.hub_plan import MAX_TEXT_BYTES, Plan, check_total
from adapterscan.sources.kinds import file_kind
from adapterscan.sources.names import unsafe_name
from adapterscan.sources.refs import parse_ref
from adapterscan.text import printable

_FOLDER = "additional_chat_templates/"


def base_documents(text: str, options: HubOptions) -> BaseDocuments:
    """Return where the documents of the base that `text` names are. Nothing is read or fetched yet.

    Raises FileProblem for a broken profile, UsageError for what names no base.
    """
    local = Path(text).expanduser()
    if local.suffix == SUFFIX and local.is_file():
        about = Profile(local).about
        return BaseDocuments(about.base, tuple, about.documents)
    if local.suffix == ".gguf" or local.is_dir():
        return BaseDocuments(text, lambda: tuple(_here(local)))
    ref = parse_ref(text)
    if ref.kind is not SourceKind.HUB:
        return BaseDocuments(text, tuple)

    def bring() -> Sequence[File]:
        from adapterscan.sources.hub import open_hub  # the hub's client, 0.2 s

        artifact = open_hub(ref, options, _planned)
        wanted = [file for file in artifact.files if _is_wanted(file)]
        absent = [file.path for file in wanted if file.local is None]
        if absent:
            raise SourceError(
                f"{printable(', '.join(absent), 120)} could not be fetched",
                hint="try again, or give a local folder",
            )
        return wanted

    return BaseDocuments(ref.location, bring)


def _here(path: Path) -> Iterable[File]:
    found = [path] if path.is_file() else sorted(path.glob("*"))
    found += sorted(path.glob(f"{_FOLDER}*.jinja")) if path.is_dir() else []
    for item in found:
        name = item.name if item.parent == path or path.is_file() else f"{_FOLDER}{item.name}"
        file = File(name, item.stat().st_size, file_kind(name), item) if item.is_file() else None
        if file is not None and (path.is_file() or _is_wanted(file)):
            yield file


def _is_wanted(file: File) -> bool:
    """Whether a file at the top of a base, or one of its templates, says how texts are read."""
    if "/" in file.path.removeprefix(_FOLDER):
        return False
    return file.kind is FileKind.TOKENIZER or file.path == NAME


def _planned(listing: Iterable[File], *, max_bytes: int) -> Plan:
    """Plan to fetch those files, and to list the rest. Raises TooLarge."""
    files = sorted((f for f in listing if not unsafe_name(f.path)), key=lambda file: file.path)
    fetch = [file for file in files if _is_wanted(file) and file.size <= MAX_TEXT_BYTES]
    check_total(fetch, max_bytes)
    left = tuple(replace(f, not_fetched="not needed") for f in files if f not in fetch)
    return Plan(tuple(fetch), (), left, (), ())
