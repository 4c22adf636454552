"""Bring a base model here: a folder, a GGUF file, or a hub repository at one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterscan.errors import NotFound, SourceError, TooLarge, Unreachable, UsageError
from adapterscan.model import SourceKind
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.refs import parse_ref

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
        return _local(local, text)
    ref = parse_ref(text)
    if ref.kind is not SourceKind.HUB or ref.subfolder:
        raise UsageError(
            f"--base {text} is no folder, GGUF file or hub repository",
            hint="give a folder with config.json and safetensors, a .gguf file or org/name@commit",
        )
    return _hub(ref.location, ref.revision, options)


def _local(path: Path, name: str) -> Base:
    if path.is_dir():
        weights = sorted(path.glob("*.safetensors"))
        if not (path / "config.json").is_file() or not weights:
            raise NotFound(
                f"{name} holds no config.json with *.safetensors",
                hint="pickled bases are not loaded; convert it, or give a GGUF file",
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


def _hub(repository: str, revision: str | None, options: HubOptions) -> Base:
    """Fetch what a model needs, at one commit, into the hub client's cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        """A progress bar that is none."""

        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hint = "check the name; give a local folder if you have the model"
    try:
        commit = revision
        if not options.offline:
            api = HfApi(endpoint=options.endpoint, token=options.token)
            commit = api.model_info(repository, revision=revision, timeout=options.timeout).sha
            tree = api.list_repo_tree(repository, revision=commit)
            size = sum(
                entry.size
                for entry in tree
                if isinstance(entry, RepoFile) and entry.path.endswith(".safetensors")
            )
            if size > options.max_download:
                raise TooLarge(
                    f"the base {repository} has {size:,} bytes of weights, over the limit",
                    hint="allow more with --max-download",
                )
        folder = snapshot_download(
            repository, revision=commit, allow_patterns=list(WANTED), endpoint=options.endpoint,
            token=options.token, cache_dir=options.cache_dir, local_files_only=options.offline,
            etag_timeout=options.timeout, tqdm_class=None if options.progress else Silent,
        )  # fmt: skip
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise NotFound(f"no base model {repository} at {revision or 'its main branch'}: "
                       f"{type(error).__name__}", hint=hint) from None  # fmt: skip
    except LocalEntryNotFoundError:
        raise Unreachable(f"the base {repository} is not in the cache", hint=hint) from None
    except (HfHubHTTPError, OSError) as error:
        raise SourceError(f"the base {repository} could not be fetched: {type(error).__name__}",
                          hint=hint) from None  # fmt: skip
    found = _local(Path(folder), repository)
    return Base(found.path, f"{repository}@{commit}", found.bytes)
