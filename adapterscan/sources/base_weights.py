"""Open a base model for its weights: a folder, a GGUF file, a profile, or a hub repository."""

from __future__ import annotations

from pathlib import Path

from adapterscan.errors import UsageError
from adapterscan.merge.base import BaseWeights
from adapterscan.model import SourceKind
from adapterscan.sources.base import local_base
from adapterscan.sources.base_shards import open_shards
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.refs import parse_ref
from adapterscan.text import printable


def open_base_weights(text: str, options: HubOptions) -> BaseWeights:
    """Return the tensors of the base that `text` names.

    Raises SourceError or UsageError, or a FileProblem for what is no model.
    """
    if text.startswith(("http://", "https://")):
        raise UsageError(
            f"{printable(text, 120)} is a server, which shows no weights to compare with",
            hint="give the base as a folder, a .gguf file or org/name@commit; with --probe a "
            "server is asked for answers",
        )
    local = Path(text).expanduser()
    if local.suffix == ".gguf" or local.is_dir():
        return weights_of(local_base(local, text).path, text)
    ref = parse_ref(text)
    if ref.kind is not SourceKind.HUB or ref.subfolder:
        raise UsageError(
            f"--base {printable(text, 120)} is no folder, GGUF file or hub repository",
            hint="give a folder with config.json and safetensors, a .gguf file or org/name@commit",
        )
    from adapterscan.sources.base_far import open_far  # the hub's client, 0.2 s

    return open_far(ref, options)[0]


def weights_of(path: Path, name: str) -> BaseWeights:
    """Return the tensors of a base that lies at `path`: a folder, or a GGUF file."""
    if path.suffix == ".gguf":
        from adapterscan.sources.base_gguf import GgufBase

        return GgufBase(path, name)
    return open_shards(path, name)
