"""Open a base model for its weights: a folder, a GGUF file, a profile, or a hub repository.

Where a profile of that very base was built it is used, and the base itself is opened only for what
a profile does not have.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adapterscan.errors import FileProblem, UsageError
from adapterscan.model import FileKind, SourceKind
from adapterscan.onbase.base import BaseWeights
from adapterscan.onbase.profile import SUFFIX, Profile
from adapterscan.sources.base import local_base
from adapterscan.sources.base_shards import open_shards
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.kinds import file_kind
from adapterscan.sources.refs import parse_ref
from adapterscan.text import printable

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_HASHED = 64 << 20  # bytes of a tokenizer file


@dataclass(frozen=True, slots=True)
class Found:
    """A base that was found, not yet read. `identity` names its very bytes.

    `documents`: digests of tokenizer and template files, `algorithm:value` by name.
    """

    name: str
    identity: str
    open: Callable[[], BaseWeights]
    documents: Mapping[str, str]

    def profile_in(self, folder: Path, count: int) -> Path:
        """Return where a profile of it is kept."""
        label = _PLAIN.sub("-", "-".join(self.name.partition("@")[0].split("/")[-2:]))[-80:]
        digest = hashlib.sha256(f"{self.name}\0{self.identity}".encode()).hexdigest()
        return folder / f"{label}-{digest[:16]}-k{count}{SUFFIX}"

    def profile(self, folder: Path) -> Profile | None:
        """Return the profile of it in `folder` that has most to tell; None without one.

        One of a base that was asked what it declines, then the one with most directions.
        """
        found: list[Profile] = []
        name = self.profile_in(folder, 0).name.removesuffix(f"0{SUFFIX}")
        for path in folder.glob(f"{name}*{SUFFIX}"):
            with suppress(FileProblem):  # whatever happened to it: `base build` makes it anew
                found.append(Profile(path, self.open))
        mine = (p for p in found if (p.name, p.about.identity) == (self.name, self.identity))
        return max(mine, key=lambda p: (p.about.asked is not None, p.about.count), default=None)


def open_base_weights(text: str, options: HubOptions, profiles: Path | None = None) -> BaseWeights:
    """Return the tensors of the base that `text` names, or its profile if `profiles` has one.

    Raises SourceError or UsageError, or a FileProblem for what is no model.
    """
    local = Path(text).expanduser()
    if local.suffix == SUFFIX and local.is_file():
        return Profile(local)
    found = find_base(text, options)
    kept = found.profile(profiles) if profiles is not None else None
    return kept or found.open()


def find_base(text: str, options: HubOptions) -> Found:
    """Return what `text` names, as far as it can be told without reading weights.

    Raises SourceError or UsageError.
    """
    if text.startswith(("http://", "https://")):
        raise UsageError(
            f"{printable(text, 120)} is a server, which shows no weights to compare with",
            hint="give the base as a folder, a .gguf file or org/name@commit; with --probe a "
            "server is asked for answers",
        )
    local = Path(text).expanduser()
    if local.suffix == ".gguf" or local.is_dir():
        path = local_base(local, text).path
        return Found(text, _identity(path), lambda: weights_of(path, text), _documents(path))
    ref = parse_ref(text)
    if ref.kind is not SourceKind.HUB or ref.subfolder:
        raise UsageError(
            f"{printable(text, 120)} is no folder, GGUF file or hub repository",
            hint="give a folder with config.json and safetensors, a .gguf file or org/name@commit",
        )
    from adapterscan.sources.base_far import find_far, open_far  # the hub's client, 0.2 s

    listing = find_far(ref, options)
    documents = {
        file.path: f"{file.expected.algorithm}:{file.expected.value}"
        for file in listing.files
        if file.kind is FileKind.TOKENIZER and file.expected and "/" not in file.path
    }
    commit = listing.commit or ""
    name = f"{ref.location}@{commit}"
    return Found(name, commit, lambda: open_far(ref, options, listing), documents)


def weights_of(path: Path, name: str) -> BaseWeights:
    """Return the tensors of a base that lies at `path`: a folder, or a GGUF file."""
    if path.suffix == ".gguf":
        from adapterscan.sources.base_gguf import GgufBase

        return GgufBase(path, name)
    return open_shards(path, name)


def _identity(path: Path) -> str:
    """Return a digest of where weights lie, how large they are and when they were written.

    Hashing them takes as long as measuring them.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    stats = [(file.name, file.stat()) for file in files]
    told = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return hashlib.sha256("\n".join([str(path.resolve()), *told]).encode()).hexdigest()


def _documents(path: Path) -> Mapping[str, str]:
    if path.is_file():
        return {}
    files = (file for file in sorted(path.iterdir()) if file.is_file())
    return {
        file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in files
        if file_kind(file.name) is FileKind.TOKENIZER and file.stat().st_size <= _HASHED
    }
