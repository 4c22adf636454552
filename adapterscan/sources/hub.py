"""Open a repository on the hub: pin the commit, list it, fetch what a scan needs.

Nothing is hashed here. The listing's digests travel with the files, and the scan compares them with
the very bytes it reads. The hub client is imported inside functions: local scans never pay for it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from adapterscan.errors import AccessDenied, BadConfig, NotFound, Unreachable
from adapterscan.model import (
    Artifact,
    Evidence,
    ExpectedDigest,
    File,
    Ref,
    Skipped,
    Subject,
)
from adapterscan.sources.hub_cache import COMMIT, open_cached, remember_revision
from adapterscan.sources.hub_errors import client_errors, explain, leaks
from adapterscan.sources.hub_facts import hub_facts
from adapterscan.sources.hub_guard import Guard, plain_client
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.hub_plan import Plan, Planner, plan, unsafe
from adapterscan.sources.hub_ranges import MOST_BYTES, Allowance, Hub, Remote, fetch_parts
from adapterscan.sources.kinds import file_kind
from adapterscan.sources.names import label
from adapterscan.sources.refs import check_revision, check_subfolder
from adapterscan.text import printable

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import RepoFile, RepoFolder

_Answer = TypeVar("_Answer")

MAX_LISTED = 50_000
MANY_REQUESTS = 1_000_000  # of a base model: its bytes are what is limited
READ_AGAIN = 2  # times the size of a file of a base that are read of it: headers overlap tensors

#: What the file system says about one name or its neighbours, not about the cache as a whole.
_NAME_ERRORS = frozenset(
    {
        errno.EEXIST,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
    }
)


def open_hub(ref: Ref, options: HubOptions, planned: Planner = plan) -> Artifact:
    """Return the files of `ref` at one commit, with those that a scan needs fetched to the cache.

    `planned` says which those are.
    Raises BadReference, BadConfig (of the endpoint) or the SourceError that fits.
    An interrupt passes through; the client may leave its own unfinished files in the cache.
    """
    import huggingface_hub

    check_subfolder(ref.subfolder)
    if ref.revision is not None:
        check_revision(ref.revision)
    cache_dir = cache_folder(options)
    if options.offline or huggingface_hub.is_offline_mode():
        return replace(open_cached(ref, cache_dir), name=_name(ref))
    return _Visit(ref, options, cache_dir).artifact(planned)


def far_files(
    ref: Ref, options: HubOptions, commit: str, files: Iterable[File]
) -> Iterator[Remote | Path]:
    """Yield for each of `files` what reads it by ranges, or where the cache has it.

    All of them together may take `options.max_download` bytes.
    """
    visit = _Visit(ref, options, cache_folder(options))
    yield from visit.far(commit, files)


def cache_folder(options: HubOptions) -> Path:
    """Return where downloads are kept."""
    from huggingface_hub import constants

    return Path(options.cache_dir or constants.HF_HUB_CACHE).expanduser()


class _Visit:
    """One visit to one repository: the client, its guard, and how its errors are explained."""

    def __init__(self, ref: Ref, options: HubOptions, cache_dir: Path) -> None:
        from huggingface_hub import HfApi

        self.ref = ref
        self.options = options
        self.cache_dir = cache_dir
        self.api: HfApi = HfApi(
            endpoint=options.endpoint, token=options.token, library_name="adapterscan"
        )
        self.endpoint = _without_credentials(self.api.endpoint)
        self.token = _token(options)
        self.guard = Guard(
            self.endpoint,
            patience=options.patience,
            timeout=options.timeout,
            max_bytes=options.max_download,
            storage=options.storage,
        )

    def artifact(self, planned: Planner) -> Artifact:
        with self._explained():
            self.cache_dir.mkdir(parents=True, exist_ok=True)
        info = self._resolve()
        commit = self._commit(info)
        listing, problems = self._list(commit)
        todo = planned(listing, max_bytes=self.options.max_download)
        facts = hub_facts(info, self.ref.location, self.ref.subfolder)
        evidence = [*self._renamed(info), *facts, *todo.evidence]
        problems += todo.problems
        files = list(todo.listed)
        for file in todo.fetch:
            for fact in self._fetch(file, commit):
                match fact:
                    case File():
                        files.append(fact)
                    case Skipped():
                        problems.append(fact)
                    case Evidence():
                        evidence.append(fact)
        files += self._large(todo, commit)
        remember_revision(self.ref, commit, self.cache_dir)
        return Artifact(
            ref=self.ref,
            name=_name(self.ref),
            files=tuple(sorted(files, key=lambda file: file.path)),
            commit=commit,
            endpoint=self.endpoint,
            problems=tuple(problems),
            evidence=tuple(evidence),
            own_names=tuple(name for name in (self.ref.location, info.id) if name),
        )

    def _resolve(self) -> ModelInfo:
        """Ask which commit the revision is at."""
        with self._explained(), self.guard.watching():
            return self._patiently(
                lambda: self.api.model_info(
                    self.ref.location, revision=self.ref.revision, securityStatus=True
                )
            )

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask; wait and ask again where the hub wants that and the client does not do it."""
        from huggingface_hub.errors import HfHubHTTPError

        while True:
            try:
                return ask()
            except HfHubHTTPError:
                wait = self.guard.owed_wait()
                if wait is None:
                    raise
            time.sleep(wait)

    def _commit(self, info: ModelInfo) -> str:
        if info.disabled:
            raise AccessDenied(
                f"{self.ref.location} has been disabled on the hub",
                hint=f"look at {self.endpoint}/{self.ref.location} for the reason; "
                "do not load copies of it",
            )
        commit, asked = info.sha, self.ref.revision or ""
        pinned = COMMIT.fullmatch(asked) is not None
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            what = "no commit"
        elif pinned and commit != asked:
            what = "another commit than the one asked for"
        else:
            return commit
        raise Unreachable(
            f"{self.endpoint} answered with {what} for {self.ref.location}",
            hint="check the endpoint (HF_ENDPOINT) and any proxy in between",
        )

    def _list(self, commit: str) -> tuple[list[File], list[Skipped]]:
        from huggingface_hub.errors import RemoteEntryNotFoundError

        subfolder = self.ref.subfolder
        entries: list[RepoFile | RepoFolder] = []
        with self._explained():
            try:
                with self.guard.watching():
                    tree = self.api.list_repo_tree(
                        self.ref.location, subfolder or None, recursive=True, revision=commit
                    )
                    entries = list(islice(tree, MAX_LISTED + 1))
            except RemoteEntryNotFoundError:
                if not subfolder:
                    raise
            files = list(_files(entries[:MAX_LISTED], subfolder))
        if subfolder and not files:
            raise NotFound(
                f"{self.ref.location} has no subfolder {printable(subfolder)} at {commit[:12]}",
                hint=f"its folders are listed at {self.endpoint}/{self.ref.location}/tree/{commit}",
            )
        if len(entries) <= MAX_LISTED:
            return files, []
        reason = f"more than {MAX_LISTED:,} entries; the rest was not looked at"
        return files, [Skipped("the listing", reason, True, "name a subfolder")]

    def _fetch(self, file: File, commit: str) -> Iterator[File | Skipped | Evidence]:
        """Fetch one file into the cache. What is wrong with this file alone becomes a fact."""
        from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError
        from huggingface_hub.utils.tqdm import tqdm

        silent: Any = partial(tqdm, disable=True)
        remote = self._remote_path(file)
        with self._explained():
            try:
                with self.guard.watching(commit):
                    local = self.api.hf_hub_download(
                        self.ref.location,
                        remote,
                        revision=commit,
                        cache_dir=self.cache_dir,
                        tqdm_class=None if self.options.progress else silent,
                    )
            except RemoteEntryNotFoundError:
                yield Skipped(label(file.path), "listed by the hub, but not there", failed=True)
            except HFValidationError:
                raise
            except ValueError:
                yield from unsafe(file.path, "is refused by the hub client")
            except OSError as error:
                if type(error).__module__.startswith("huggingface_hub"):
                    raise
                if error.errno is not None and error.errno not in _NAME_ERRORS:
                    raise
                reason = error.strerror or "the hub sent another number of bytes than it announced"
                yield Skipped(label(file.path), f"could not be fetched ({reason})", failed=True)
            else:
                yield replace(file, local=Path(local))

    def _large(self, todo: Plan, commit: str) -> Iterator[File]:
        """Yield the files that are too large to fetch, with the parts that their pickles take."""
        if not todo.ranged:
            return
        left = self.options.max_download - sum(file.size for file in todo.fetch)
        allowance, hub = Allowance(min(MOST_BYTES, left)), self._hub()
        for file in todo.ranged:
            cached = self._cached(file, commit)
            if cached is not None:
                yield replace(file, local=cached)
            else:
                yield fetch_parts(file, self._url(file, commit), commit, hub, allowance)

    def far(self, commit: str, files: Iterable[File]) -> Iterator[Remote | Path]:
        """Yield what reads each of `files` by ranges, or where the cache has it."""
        allowance, hub = Allowance(self.options.max_download, MANY_REQUESTS), self._hub()
        for file in files:
            yield self._cached(file, commit) or Remote(
                file, self._url(file, commit), commit, hub, allowance,
                room=file.size * READ_AGAIN, why="read by ranges",
                hint="try again, allow more with --max-download, or give the base as a folder",
            )  # fmt: skip

    def _hub(self) -> Hub:
        # documented, but not declared as exported
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        with plain_client():
            headers = build_hf_headers(token=self.options.token, library_name="adapterscan")
        return Hub(self.api, self.guard, headers, self._explained, self._patiently)

    def _cached(self, file: File, commit: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        remote = self._remote_path(file)
        found = try_to_load_from_cache(self.ref.location, remote, self.cache_dir, commit)
        return Path(found) if isinstance(found, str) else None

    def _url(self, file: File, commit: str) -> str:
        from huggingface_hub import hf_hub_url

        remote = self._remote_path(file)
        return hf_hub_url(self.ref.location, remote, revision=commit, endpoint=self.api.endpoint)

    def _remote_path(self, file: File) -> str:
        return f"{self.ref.subfolder}/{file.path}" if self.ref.subfolder else file.path

    def _renamed(self, info: ModelInfo) -> list[Evidence]:
        asked = self.ref.location
        if not isinstance(info.id, str) or info.id == asked:
            return []
        return [Evidence("repo.renamed", Subject("repository", name=asked), info.id)]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except client_errors() as error:
            reason = explain(
                error,
                self.ref,
                endpoint=self.endpoint,
                cache_dir=self.cache_dir,
                token=self.token,
            )
            raise reason from (None if leaks(error, self.token) else error)


def _files(entries: list[RepoFile | RepoFolder], subfolder: str) -> Iterator[File]:
    from huggingface_hub.hf_api import RepoFile

    prefix = f"{subfolder}/" if subfolder else ""
    for entry in entries:
        if not isinstance(entry, RepoFile) or not entry.path.startswith(prefix):
            continue
        if not isinstance(entry.size, int) or entry.size < 0:
            raise ValueError("a listed file has no size")
        path = entry.path.removeprefix(prefix)
        yield File(path, entry.size, file_kind(path), None, _promise(entry))


def _promise(entry: RepoFile) -> ExpectedDigest:
    if entry.lfs is not None:
        return ExpectedDigest("sha256", str(entry.lfs.sha256), "hub listing")
    return ExpectedDigest("git-sha1", str(entry.blob_id), "hub listing")


def _name(ref: Ref) -> str:
    revision = f"@{ref.revision}" if ref.revision else ""
    subfolder = f":{ref.subfolder}" if ref.subfolder else ""
    return f"{ref.location}{revision}{subfolder}"


def _token(options: HubOptions) -> str | None:
    """Return the token that the client will send, so that it can be kept out of messages."""
    from huggingface_hub import get_token

    if isinstance(options.token, str):
        return options.token
    try:
        return None if options.token is False else get_token()
    except OSError as error:
        raise AccessDenied(
            f"the stored hub token cannot be read ({error.strerror})",
            hint="check the permissions of the token file, or set HF_TOKEN",
        ) from error


def _without_credentials(endpoint: str) -> str:
    """Return the endpoint as it may be shown. Raises BadConfig when it is no web address."""
    hint = "write it as https://host, or leave it out for the default hub"
    try:
        parts = urlsplit(endpoint)
    except ValueError as error:
        raise BadConfig("the hub endpoint is not a web address", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfig("the hub endpoint is not a web address", hint=hint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
