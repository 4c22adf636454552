"""Read what the user typed: a local path, or a repository on the hub with revision and subfolder.

    org/name   org/name@revision   org/name@revision:sub/folder   org/name:sub/folder   hf://org/name
    ./folder   /folder   ~/folder/adapter_model.safetensors   C:\\folder

A path that exists wins over the hub reading of the same text; `hf://` forces the hub.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from adapterscan.errors import BadReference, NotFound
from adapterscan.model import Ref, SourceKind
from adapterscan.sources.names import unsafe_name
from adapterscan.text import printable

_FORMS = "write a path such as ./adapter, or a hub reference such as org/name@revision:subfolder"
_HUB_PREFIX = "hf://"
_MAX_LENGTH = 4096
_MAX_REPO_ID = 96
_DRIVE = re.compile(r"[A-Za-z]:")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
#: Git's own rules for reference names (git check-ref-format), plus "no invisible characters".
_BAD_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock$|/\.")
_URL = re.compile(
    r"https?://[^/]+/(?P<repo>[^/@]+/[^/@?#]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<rev>[^/?#]+)(?:/(?P<sub>[^?#]+))?)?/?(?:[?#].*)?"
)


def path_exists(path: Path) -> bool:
    """Return whether something is at `path`; also true when we are not allowed to look at it."""
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def parse_ref(
    text: str, *, revision: str | None = None, exists: Callable[[Path], bool] = path_exists
) -> Ref:
    """Return what `text` points at, without touching the network.

    `revision` is the one given apart from the text. Raises BadReference when the text fits no form,
    and NotFound when it is clearly a path and nothing is there.
    """
    if not text.strip() or len(text) > _MAX_LENGTH or re.search(r"[\x00-\x1f\x7f]", text):
        raise BadReference(f"not a reference: {printable(text, 80)!r}", hint=_FORMS)
    if text.startswith(_HUB_PREFIX):
        return _hub_ref(text, text.removeprefix(_HUB_PREFIX), revision)
    path = _expanded(text)
    if exists(path):
        if revision is not None:
            raise BadReference(
                f"{printable(text)} is a local path, and a revision was given",
                hint=f"drop the revision, or write {_HUB_PREFIX}{printable(text)} to mean the hub",
            )
        return Ref(text, _path_kind(path), str(path))
    if _is_path(text):
        raise NotFound(
            f"no such file or folder: {printable(text)}",
            hint=_suggested_path(path) or "check the spelling and the current directory",
        )
    return _hub_ref(text, text, revision)


def check_subfolder(subfolder: str) -> str:
    """Return `subfolder` without surrounding slashes; raise BadReference when it could escape."""
    if subfolder.startswith("/") or (subfolder and unsafe_name(subfolder.rstrip("/"))):
        reason = unsafe_name(subfolder.rstrip("/")) or "is absolute"
        raise BadReference(
            f"the subfolder {printable(subfolder)!r} {reason}",
            hint="write a folder inside the repository with forward slashes, such as org/name:a/b",
        )
    return subfolder.rstrip("/")


def check_revision(revision: str) -> str:
    """Return `revision`; raise BadReference when git could not have such a name."""
    if not revision or _BAD_REVISION.search(revision) or not revision.isprintable():
        raise BadReference(
            f"not a revision: {printable(revision)!r}",
            hint="write a branch, a tag, a commit or refs/pr/N after the @",
        )
    return revision


def _hub_ref(text: str, rest: str, revision: str | None) -> Ref:
    if match := _URL.fullmatch(rest):
        raise BadReference(
            f"a web address is not a reference: {printable(text)}",
            hint=f"write {_from_url(match)}",
        )
    repository, inline, subfolder = _split(rest)
    _check_repository(text, repository)
    if inline is not None and revision is not None and inline != revision:
        raise BadReference(
            f"two revisions for {repository}: {printable(inline)} and {printable(revision)}",
            hint="give one of them",
        )
    chosen = inline if inline is not None else revision
    if chosen is not None:
        check_revision(chosen)
    return Ref(text, SourceKind.HUB, repository, chosen, check_subfolder(subfolder))


def _split(rest: str) -> tuple[str, str | None, str]:
    """Return (repository, revision, subfolder); whichever of `@` and `:` comes first decides."""
    match = re.search("[@:]", rest)
    if match is None:
        return rest, None, ""
    repository, tail = rest[: match.start()], rest[match.end() :]
    if match.group() == ":":
        return repository, None, tail or "/"  # an empty subfolder after ":" is a mistake
    revision, colon, subfolder = tail.partition(":")
    return repository, revision, subfolder or ("/" if colon else "")


def _check_repository(text: str, repository: str) -> None:
    parts = repository.split("/")
    if len(parts) == 2 and all(_NAME.fullmatch(part) for part in parts):
        if "--" in repository or ".." in repository or repository.endswith(".git"):
            hint = "a hub id has no '--' or '..' and does not end in .git"
        elif len(repository) > _MAX_REPO_ID:
            hint = f"a hub id has at most {_MAX_REPO_ID} characters"
        else:
            return
    elif len(parts) > 2 and all(_NAME.fullmatch(part) for part in parts[:2]):
        hint = (
            f"if it is a path, nothing is there; on the hub, write "
            f"{parts[0]}/{parts[1]}:{printable('/'.join(parts[2:]))}"
        )
    else:
        hint = _suggested_path(_expanded(repository)) or _FORMS
    raise BadReference(
        f"neither an existing path nor a hub reference: {printable(text)}", hint=hint
    )


def _is_path(text: str) -> bool:
    return (
        text.startswith(("./", "../", "/", "~", ".\\", "..\\", "\\"))
        or text in (".", "..")
        or "\\" in text
        or _DRIVE.match(text) is not None
    )


def _path_kind(path: Path) -> SourceKind:
    try:
        return SourceKind.FOLDER if path.is_dir() else SourceKind.FILE
    except OSError:  # not ours to look at; opening it says so
        return SourceKind.FILE


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home
        return Path(text)


def _suggested_path(path: Path) -> str:
    """Return a hint naming the closest existing sibling of a mistyped path, or ""."""
    try:
        names = sorted(islice(_names(path.parent), 2000))
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {printable(str(path.with_name(close[0])))}?" if close else ""


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries)


def _from_url(match: re.Match[str]) -> str:
    revision = f"@{match['rev']}" if match["rev"] else ""
    subfolder = f":{match['sub'].rstrip('/')}" if match["sub"] else ""
    return printable(f"{match['repo']}{revision}{subfolder}")
