"""Say what a config's base model is: a hub id, a path, an address, or the artifact itself.

Source: transformers 5.23 and peft 0.21.2 hand the text to `from_pretrained`, which takes a folder
of that name, as seen from where the process runs, before a repository on the hub. An artifact that
is its own base decides the model under the adapter too, and whole models are not analysed here.
Limits: a folder on a disk does not say what it is called on the hub, and nobody knows from which
directory it will be loaded; every place from which a relative path leads into it counts. Names that
agree are no proof: anyone can call a folder so.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from adapterscan.formats.config import AdapterConfig
from adapterscan.model import Artifact

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_FILES = (".safetensors", ".bin", ".gguf")
#: The ways to write a repository: `org/name`, with a revision, as an address, for git.
_REPOSITORY = re.compile(
    r"(?:hf://|(?:https?://)?(?P<host>[^/\s@]+)/)?(?P<id>[\w.-]+/[\w.-]+?)(?:\.git)?"
    r"(?:@[^\s]*|/(?:tree|blob|raw|resolve|commit)/[^\s]*)?/*(?:[?#][^\s]*)?",
    re.IGNORECASE,
)
_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")
_LONGEST = 4096  # of a path or an address that anything opens
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[^/]+$")  # in the hub client's cache
#: What is appended to a model's name in that of a GGUF file: `.Q4_1`, `-F16`, `-00001-of-00002`.
_GGUF_TAIL = re.compile(
    r"(?:[._-](?:i?q\d\w{0,8}|b?fp?(?:16|32)|mxfp4|\d{5}-of-\d{5})){0,4}\.gguf$", re.IGNORECASE
)


def base_kind(config: AdapterConfig, artifact: Artifact) -> str:
    """Return "missing", "self", "url", "hub" or "path"."""
    text = (config.base_model or "").strip()
    if not text:
        return "missing"
    if len(text) <= _LONGEST and (
        _is_own_repository(text, artifact) or _is_own_folder(text, config, artifact)
    ):
        return "self"
    if _URL.match(text):
        return "url"
    return "hub" if is_hub_id(text) else "path"


def is_hub_id(text: str) -> bool:
    """Return whether `text` has the form of an id on the hub, `name` or `org/name`."""
    return _HUB_ID.fullmatch(text) is not None and not text.endswith(_FILES)


def same_name(named: str, given: str) -> bool:
    """Return whether the base that was given goes by the name that a config has for it.

    A repository is its owner and name, in any case, at any commit; one that was given has a commit.
    Of a path only the last part is a name; a GGUF file's is without its quantisation.
    """
    if max(len(named), len(given)) > _LONGEST:
        return False
    owner, name = _called(named.strip())
    other, own = _called(given, path="@" not in given)
    return name == own and name not in ("", ".", "..") and (owner == other or not (owner and other))


def _called(text: str, *, path: bool = False) -> tuple[str, str]:
    """Return a base's owner, "" where that is not known, and its name."""
    text = text.replace("\\", "/").rstrip("/").lower()
    if snapshot := _SNAPSHOT.search(text):
        return snapshot[1], snapshot[2]
    match = None if path else _REPOSITORY.fullmatch(text)
    if match and is_hub_id(match["id"]) and match["host"] in (None, *_HOSTS):
        owner, _, name = match["id"].partition("/")
        return owner, name
    return "", _GGUF_TAIL.sub("", text.rpartition("/")[2].partition("@")[0])


def _is_own_repository(text: str, artifact: Artifact) -> bool:
    match = _REPOSITORY.fullmatch(text)
    if match is None:
        return False
    endpoint = (artifact.endpoint or "").lower()
    hosts = {*_HOSTS, endpoint.partition("://")[2].partition("/")[0]}
    if match["host"] is not None and match["host"].lower() not in hosts:
        return False
    return match["id"].lower() in {name.lower() for name in artifact.own_names}


def _is_own_folder(text: str, config: AdapterConfig, artifact: Artifact) -> bool:
    """Return whether a loader that runs in or above the artifact would find `text` inside of it."""
    paths = {file.path for file in artifact.files}
    for inside in _insides(text.replace("\\", "/"), posixpath.dirname(config.path), artifact):
        if is_hub_id(text):  # a folder that happens to have the name of a model holds no model
            found = posixpath.join(inside, "config.json") in paths
        else:
            found = not inside or any(
                path == inside or path.startswith(f"{inside}/") for path in paths
            )
        if found:
            return True
    return False


def _insides(text: str, folder: str, artifact: Artifact) -> Iterator[str]:
    """Yield where in the artifact `text` may lead, "" for its root."""
    known = [name for name in artifact.own_names if _ABSOLUTE.match(name)]
    if _ABSOLUTE.match(text):
        places = [(root, posixpath.normpath(text)) for root in known]
    else:
        # on the hub, a clone is called like the repository
        roots = known or [f"/{name.rpartition('/')[2]}" for name in artifact.own_names]
        places = [
            (root, posixpath.normpath(posixpath.join(root, start, text)))
            for root in roots
            for start in ("", folder)
        ]
        ending = f"/{posixpath.normpath(text)}"
        places += [(root, root) for root in known if root.endswith(ending)]
    for root, place in places:
        if place == root:
            yield ""
        elif place.startswith(f"{root}/"):
            yield place.removeprefix(f"{root}/")
