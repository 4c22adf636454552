"""Bring a base model here: a folder, a GGUF file, or a hub repository at one commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from adapterscan.errors import NotFound, SourceError, UsageError
from adapterscan.model import File, Ref, SourceKind
from adapterscan.sources.hub import cache_folder, open_hub
from adapterscan.sources.hub_cache import repository_folder
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.hub_plan import Plan, check_total
from adapterscan.sources.names import unsafe_name
from adapterscan.sources.refs import parse_ref

CONFIG = "config.json"

#: What a model needs to answer. No code and no pickles are fetched.
WANTED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
          "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
          "chat_template.jinja")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that lies here."""

    path: Path  # a folder in the layout of transformers, or a GGUF file
    name: str  # with its commit where it has one
    bytes: int  # of its weights


def open_base(text: str, options: HubOptions) -> Base:
    """Return the base model that `text` names. Raises SourceError or UsageError."""
    local = Path(text).expanduser()
    if local.suffix == ".gguf" or local.is_dir():
        return local_base(local, text)
    ref = parse_ref(text)
    if ref.kind is not SourceKind.HUB or ref.subfolder:
        raise UsageError(
            f"--base {text} is no folder, GGUF file or hub repository",
            hint="give a folder with config.json and safetensors, a .gguf file or org/name@commit",
        )
    return _hub(ref, options)


def local_base(path: Path, name: str) -> Base:
    """Return the base that lies at `path`. Raises NotFound, or UsageError for an adapter."""
    if path.suffix != ".gguf":
        weights = sorted(path.glob("*.safetensors"))
        if not (path / CONFIG).is_file() or not weights:
            raise NotFound(
                f"{name} holds no {CONFIG} with *.safetensors",
                hint="give the base itself, not an adapter of it; pickled bases are not loaded: "
                "convert them, or give a GGUF file",
            )
        if (path / "adapter_config.json").exists():
            raise UsageError(
                f"{name} holds an adapter beside the base, which would be loaded with it",
                hint="give a folder with the base alone",
            )
        return Base(path, name, sum(file.stat().st_size for file in weights))
    if not path.is_file():
        raise NotFound(f"there is no file {name}")
    return Base(path, name, 4 * path.stat().st_size)  # it is dequantised


def _hub(ref: Ref, options: HubOptions) -> Base:
    """Fetch what a model needs, at one commit, into the hub client's cache."""
    artifact = open_hub(ref, options, _planned)
    for problem in artifact.problems:
        if not _wanted(problem.what):  # offline, the rest of the repository cannot be seen
            continue
        raise SourceError(
            f"the base {ref.location} could not be fetched whole: {problem.what} {problem.reason}",
            hint="try again, or give a local folder",
        )
    assert artifact.commit is not None  # noqa: S101 - every artifact of a hub has one
    repository = repository_folder(cache_folder(options), ref.location)
    found = local_base(repository / "snapshots" / artifact.commit, ref.location)
    return Base(found.path, f"{ref.location}@{artifact.commit}", found.bytes)


def _planned(listing: Iterable[File], *, max_bytes: int) -> Plan:
    """Plan to fetch what a model needs from the top of a repository. Raises TooLarge."""
    files = sorted(listing, key=lambda file: file.path)
    fetch = [file for file in files if _wanted(file.path) and not unsafe_name(file.path)]
    check_total(fetch, max_bytes)
    left = tuple(replace(file, not_fetched="not needed") for file in files if file not in fetch)
    return Plan(tuple(fetch), (), left, (), ())


def _wanted(path: str) -> bool:
    return "/" not in path and any(fnmatchcase(path, name) for name in WANTED)
