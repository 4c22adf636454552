from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelInfo

from adapterscan.errors import (
    AccessDenied,
    BadConfig,
    BadReference,
    NotFound,
    RateLimited,
    SourceError,
    StorageError,
    TooLarge,
    Unreachable,
)
from adapterscan.model import Artifact, File, FileKind, Ref, SourceKind
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.hub_facts import hub_facts
from adapterscan.sources.hub_plan import MAX_PAPER_BYTES, MOST_PAPERS
from fixtures.loopback_hub import FOREVER, LoopbackHub

from .conftest import ADAPTER

WEIGHTS = "adapter_model.safetensors"
TOKEN = "hf_secretsecretsecret"


def opened(text: str, options: HubOptions) -> Artifact:
    return open_artifact(parse_ref(f"hf://{text}"), options)


def content(artifact: Artifact, path: str = WEIGHTS) -> bytes:
    local = file(artifact, path).local
    assert local is not None
    return local.read_bytes()


def file(artifact: Artifact, path: str) -> File:
    return next(file for file in artifact.files if file.path == path)


def failed(artifact: Artifact) -> list[str]:
    return [problem.what for problem in artifact.problems if problem.failed]


def facts(artifact: Artifact) -> list[tuple[str, str, object]]:
    """Return what was seen of the files; what the hub says of itself is below."""
    evidence = [fact for fact in artifact.evidence if not fact.name.startswith("hub.")]
    return [(fact.name, str(fact.subject), fact.value) for fact in evidence]


def said(artifact: Artifact) -> list[tuple[str, object]]:
    return [(str(f.subject), f.value) for f in artifact.evidence if f.name == "hub.scan"]


# What is fetched, and at which commit


def test_only_the_files_that_a_scan_needs_are_fetched(
    hub: LoopbackHub, options: HubOptions
) -> None:
    artifact = opened("org/adapter", options)
    assert hub.fetched() == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "run.py",
        "tokenizer_config.json",
        "training_args.bin",
    ]
    assert [(f.path, f.not_fetched) for f in artifact.files if f.local is None] == [
        (".gitattributes", "not read by adapter loaders"),
    ]
    assert artifact.problems == ()
    assert facts(artifact) == []
    assert content(artifact) == ADAPTER[WEIGHTS]


def test_the_listing_promises_a_digest_for_every_file(
    hub: LoopbackHub, options: HubOptions
) -> None:
    artifact = opened("org/adapter", options)
    weights, config = file(artifact, WEIGHTS).expected, file(artifact, "README.md").expected
    assert weights is not None
    assert config is not None
    assert (weights.algorithm, weights.source) == ("sha256", "hub listing")
    assert weights.value == hashlib.sha256(ADAPTER[WEIGHTS]).hexdigest()
    assert config.algorithm == "git-sha1"


def test_a_branch_that_moves_during_the_scan_is_still_read_at_the_first_commit(
    hub: LoopbackHub, options: HubOptions
) -> None:
    first = hub["org/adapter"].refs["main"]

    class Moving(dict[str, bytes]):
        def get(self, path: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
            hub["org/adapter"].commit({**ADAPTER, WEIGHTS: b"later"})
            return super().get(path, default)

    hub["org/adapter"].commits[first] = Moving(ADAPTER)
    artifact = opened("org/adapter", options)
    assert hub["org/adapter"].refs["main"] != first
    assert artifact.commit == first
    assert content(artifact) == ADAPTER[WEIGHTS]


def test_everything_after_the_first_request_names_the_commit(
    hub: LoopbackHub, options: HubOptions
) -> None:
    artifact = opened("org/adapter@main", options)
    assert artifact.commit is not None
    assert all(artifact.commit in request.path for request in hub.requests[1:])


def test_a_revision_with_slashes_is_resolved(hub: LoopbackHub, options: HubOptions) -> None:
    sha = hub["org/adapter"].commit({WEIGHTS: b"pr"}, branch="refs/pr/1")
    artifact = opened("org/adapter@refs/pr/1", options)
    assert (artifact.commit, content(artifact)) == (sha, b"pr")


def test_a_subfolder_is_the_root_of_its_artifact(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].commit(
        {**ADAPTER, "sub/adapter_config.json": b"{}", "sub/ckpt-1/adapter_model.bin": b"w"}
    )
    artifact = opened("org/adapter:sub", options)
    assert [f.path for f in artifact.files] == ["adapter_config.json", "ckpt-1/adapter_model.bin"]
    assert hub.fetched() == ["sub/adapter_config.json", "sub/ckpt-1/adapter_model.bin"]


def test_nested_checkpoints_are_fetched_too(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].commit({**ADAPTER, f"checkpoint-5/{WEIGHTS}": b"w"})
    assert content(opened("org/adapter", options), f"checkpoint-5/{WEIGHTS}") == b"w"


def test_weights_of_a_whole_model_are_listed_and_not_fetched(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].commit({**ADAPTER, "model-00001-of-00002.safetensors": b"base"})
    base = file(opened("org/adapter", options), "model-00001-of-00002.safetensors")
    assert base.local is None
    assert "whole model" in base.not_fetched


def test_a_listing_of_many_pages_is_read_to_its_end(options: HubOptions) -> None:
    files = {f"f{number}.json": b"{}" for number in range(25)}
    with LoopbackHub({"org/adapter": {**ADAPTER, **files}}, page_size=7) as hub:
        artifact = opened("org/adapter", replace(options, endpoint=hub.url))
    assert len(artifact.files) == 25 + len(ADAPTER)


def test_more_than_the_allowed_bytes_are_refused_before_any_file_is_fetched(
    hub: LoopbackHub, options: HubOptions
) -> None:
    with pytest.raises(TooLarge, match=r"7 files with 16\.4 kB.*adapter_model") as caught:
        opened("org/adapter", replace(options, max_download=1000))
    assert "--max-download" in caught.value.hint
    assert hub.fetched() == []


def test_notes_of_a_trainer_are_fetched_when_they_are_small_and_few(
    hub: LoopbackHub, options: HubOptions
) -> None:
    notes = {f"logs/{number:02}.json": b'{"n": %d}' % number for number in range(MOST_PAPERS + 5)}
    many = {**notes, "LICENSE": b"MIT License", "big.txt": b"x" * (MAX_PAPER_BYTES + 1)}
    hub["org/adapter"].commit({**ADAPTER, **many})
    artifact = opened("org/adapter", options)
    fetched = [f.path for f in artifact.files if f.kind is FileKind.OTHER and f.local is not None]
    assert len(fetched) == MOST_PAPERS
    assert "LICENSE" in fetched
    assert "big.txt" not in fetched


# What the hub says of itself


def test_what_the_hub_says_comes_with_the_answer_that_names_the_commit(
    hub: LoopbackHub, options: HubOptions
) -> None:
    artifact = opened("org/adapter", options)
    (about,) = [fact for fact in artifact.evidence if fact.name == "hub.repository"]
    assert (about.value, about.details["gated"]) == ("2026-01-01", "no")
    assert said(artifact) == [("org/adapter", "no issues")]
    asked = [request.path for request in hub.requests if "/resolve/" not in request.path]
    assert len(asked) == 2  # the repository and its listing


def test_files_that_the_hub_flags_are_quoted(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.flagged = {"training_args.bin": "unsafe", "a/b.pt": "suspicious"}
    expected = [("training_args.bin", "unsafe"), ("a/b.pt", "suspicious")]
    assert said(opened("org/adapter", options)) == expected


def test_a_scan_of_the_hub_that_is_not_done_is_said(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.scanned = False
    assert said(opened("org/adapter", options)) == [("org/adapter", "not done")]


@pytest.mark.parametrize(
    "status",
    [None, 7, [], {}, {"filesWithIssues": 3}, {"filesWithIssues": [None, {}, {"path": 1}]}],
)
def test_an_odd_answer_about_the_scan_is_no_clean_one(status: object) -> None:
    info = ModelInfo(id="org/adapter", securityRepoStatus=status)
    values = {fact.value for fact in hub_facts(info, "org/adapter", "") if fact.name == "hub.scan"}
    assert values in ({"not told"}, {"not done"})


# Transport


def test_a_cut_connection_is_resumed_where_it_broke(hub: LoopbackHub, options: HubOptions) -> None:
    chunk = 10 << 20  # the client keeps whole chunks of this size
    weights = ADAPTER[WEIGHTS] * 700
    hub["org/adapter"].commit({WEIGHTS: weights})
    hub["org/adapter"].faults.cut_after = chunk + 5000
    artifact = opened("org/adapter", options)
    assert content(artifact) == weights
    assert [request.range for request in hub.requests if request.range] == [f"bytes={chunk}-"]


def test_a_connection_that_is_always_cut_is_given_up(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.cut_after = 5000
    hub["org/adapter"].faults.cuts = FOREVER
    with pytest.raises(Unreachable, match="cut the connection"):
        opened("org/adapter", options)
    assert not list((options.cache_dir or Path()).rglob("*.incomplete"))


def test_a_redirected_file_keeps_its_promise(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.redirect = True
    artifact = opened("org/adapter", options)
    assert content(artifact) == ADAPTER[WEIGHTS]
    assert any(request.path.startswith("/elsewhere/") for request in hub.requests)


def test_tampered_bytes_of_equal_length_arrive_with_the_promise_they_break(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].faults.tampered[WEIGHTS] = b"x" * len(ADAPTER[WEIGHTS])
    artifact = opened("org/adapter", options)
    promise = file(artifact, WEIGHTS).expected
    assert promise is not None
    assert promise.value == hashlib.sha256(ADAPTER[WEIGHTS]).hexdigest()
    assert content(artifact) == b"x" * len(ADAPTER[WEIGHTS])


def test_a_short_wait_that_the_hub_asks_for_is_waited(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].faults.limited = 1
    artifact = opened("org/adapter", replace(options, patience=2))
    assert content(artifact) == ADAPTER[WEIGHTS]


@pytest.mark.parametrize("seconds", [3600, None])
def test_a_hub_that_limits_for_ever_ends_in_bounded_time(
    hub: LoopbackHub, options: HubOptions, seconds: int | None
) -> None:
    hub["org/adapter"].faults.limited = FOREVER
    hub["org/adapter"].faults.limited_seconds = seconds
    with pytest.raises(RateLimited) as caught:
        opened("org/adapter", options)
    assert ("3600 s" if seconds else "few minutes") in caught.value.hint


def test_a_limit_in_the_middle_of_the_downloads_is_bounded_as_well(
    hub: LoopbackHub, options: HubOptions
) -> None:
    class Limiting(dict[str, bytes]):
        def get(self, path: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
            hub["org/adapter"].faults.limited = FOREVER
            hub["org/adapter"].faults.limited_seconds = 3600
            return super().get(path, default)

    hub["org/adapter"].commits[hub["org/adapter"].refs["main"]] = Limiting(ADAPTER)
    with pytest.raises(RateLimited, match="3600 s"):
        opened("org/adapter", options)


def test_a_failing_server_is_unreachable(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.broken = FOREVER
    with pytest.raises(Unreachable, match="HTTP 500"):
        opened("org/adapter", options)


def test_a_silent_server_runs_into_the_timeout(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.slow = 0.5
    with pytest.raises(Unreachable, match="in time"):
        opened("org/adapter", replace(options, timeout=0.1))


def test_a_refused_connection_is_unreachable(options: HubOptions) -> None:
    with LoopbackHub({}) as gone:
        url = gone.url
    with pytest.raises(Unreachable, match="cannot be reached") as caught:
        opened("org/adapter", replace(options, endpoint=url))
    assert "--offline" in caught.value.hint


def test_a_web_server_that_is_no_hub_is_told_so(options: HubOptions, hub: LoopbackHub) -> None:
    hub["org/adapter"].faults.sha = "main"
    with pytest.raises(Unreachable, match="no commit"):
        opened("org/adapter", options)


# Answers that refuse


@pytest.mark.parametrize(
    ("fault", "error", "reason", "hint"),
    [
        ("missing", NotFound, "no repository org/adapter", "spelling"),
        ("private", AccessDenied, "does not exist or is private", "hf auth login"),
        ("gated", AccessDenied, "gated", "accept the terms at http://127.0.0.1"),
        ("disabled", AccessDenied, "disabled", "reason"),
    ],
)
def test_each_refusal_has_its_own_reason_and_next_step(
    hub: LoopbackHub,
    options: HubOptions,
    fault: str,
    error: type[SourceError],
    reason: str,
    hint: str,
) -> None:
    setattr(hub["org/adapter"].faults, fault, True)
    with pytest.raises(error, match=reason) as caught:
        opened("org/adapter", options)
    assert hint in caught.value.hint


def test_a_missing_revision_is_named(options: HubOptions) -> None:
    with pytest.raises(NotFound, match="no revision 'v9'"):
        opened("org/adapter@v9", options)


def test_a_missing_subfolder_is_named(options: HubOptions) -> None:
    with pytest.raises(NotFound, match="no subfolder nope"):
        opened("org/adapter:nope", options)


def test_a_name_that_the_client_refuses_is_a_bad_reference(options: HubOptions) -> None:
    with pytest.raises(BadReference, match="does not accept"):
        open_artifact(Ref("x", SourceKind.HUB, "org/-x-"), options)


def test_a_reference_made_by_hand_cannot_escape_either(options: HubOptions) -> None:
    with pytest.raises(BadReference):
        open_artifact(Ref("x", SourceKind.HUB, "org/adapter", subfolder="../x"), options)
    with pytest.raises(BadReference):
        open_artifact(Ref("x", SourceKind.HUB, "org/adapter", revision="../x"), options)


def test_a_private_repository_opens_with_the_token(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].faults.private = True
    artifact = opened("org/adapter", replace(options, token=TOKEN))
    assert content(artifact) == ADAPTER[WEIGHTS]


def test_a_token_that_is_not_accepted_is_said_to_be_the_problem(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].faults.private = True
    with pytest.raises(AccessDenied, match="did not accept the token"):
        opened("org/adapter", replace(options, token="hf_otherotherother"))


def test_no_token_is_sent_when_none_is_wanted(hub: LoopbackHub, options: HubOptions) -> None:
    opened("org/adapter", options)
    assert not any(request.authorized for request in hub.requests)


@pytest.mark.parametrize("fault", ["private", "gated", "broken", "limited"])
def test_a_token_never_appears_in_a_message(
    hub: LoopbackHub, options: HubOptions, fault: str
) -> None:
    setattr(hub["org/adapter"].faults, fault, FOREVER)
    hub["org/adapter"].faults.error_text = "bad token plainsecret and hf_abcdefghijkl"
    with pytest.raises(SourceError) as caught:
        opened("org/adapter", replace(options, token="plainsecret"))
    shown = f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert "plainsecret" not in shown
    assert "hf_abcdefghijkl" not in shown


def test_a_password_in_the_endpoint_is_not_kept(hub: LoopbackHub, options: HubOptions) -> None:
    endpoint = hub.url.replace("//", "//user:password@")
    artifact = opened("org/adapter", replace(options, endpoint=endpoint))
    assert artifact.endpoint == hub.url


@pytest.mark.parametrize("endpoint", ["not a url", "http://[::1", "ftp://host", "https://"])
def test_an_endpoint_that_is_no_web_address_is_a_bad_setting(
    options: HubOptions, endpoint: str
) -> None:
    with pytest.raises(BadConfig, match="web address"):
        opened("org/adapter", replace(options, endpoint=endpoint))


# Hostile answers


def test_a_renamed_repository_is_read_and_reported(options: HubOptions) -> None:
    with LoopbackHub({"org/old": {}, "org/new": ADAPTER}) as hub:
        hub["org/old"].faults.renamed_to = "org/new"
        artifact = opened("org/old", replace(options, endpoint=hub.url))
    assert facts(artifact) == [("repo.renamed", "org/old", "org/new")]
    assert content(artifact) == ADAPTER[WEIGHTS]


@pytest.mark.parametrize("name", ["../evil.bin", "/etc/evil.bin", "a\\..\\evil.bin", "C:/e.bin"])
def test_a_name_that_leaves_the_folder_is_reported_and_the_rest_is_read(
    hub: LoopbackHub, options: HubOptions, name: str
) -> None:
    hub["org/adapter"].faults.ghosts[name] = 4
    artifact = opened("org/adapter", options)
    assert [(n, subject) for n, subject, _ in facts(artifact)] == [("file.unsafe_name", name)]
    assert failed(artifact) == [name]
    assert content(artifact) == ADAPTER[WEIGHTS]
    assert "evil" not in " ".join(hub.fetched())


def test_a_listed_file_that_is_not_there_is_a_problem_of_that_file(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].faults.ghosts["ghost.safetensors"] = 4
    artifact = opened("org/adapter", options)
    assert failed(artifact) == ["ghost.safetensors"]
    assert content(artifact) == ADAPTER[WEIGHTS]


def test_a_name_that_no_file_system_takes_is_a_problem_of_that_file(
    hub: LoopbackHub, options: HubOptions
) -> None:
    name = "n" * 300 + ".safetensors"
    hub["org/adapter"].commit({**ADAPTER, name: b"w"})
    assert failed(opened("org/adapter", options)) == [name]


def test_a_file_that_is_also_a_folder_is_a_problem_of_one_file(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].commit({**ADAPTER, f"{WEIGHTS}/inner.safetensors": b"w"})
    assert failed(opened("org/adapter", options)) == [f"{WEIGHTS}/inner.safetensors"]


def test_colliding_names_in_a_listing_are_reported(hub: LoopbackHub, options: HubOptions) -> None:
    hub["org/adapter"].commit({**ADAPTER, "Readme.md": b"other"})
    assert facts(opened("org/adapter", options)) == [
        ("file.name_collision", "Readme.md", "README.md")
    ]


@pytest.mark.parametrize(
    ("header", "value"), [("ETag", '"../../../evil"'), ("X-Repo-Commit", "../evil")]
)
def test_headers_that_would_steer_the_cache_elsewhere_are_refused(
    hub: LoopbackHub, options: HubOptions, tmp_path: Path, header: str, value: str
) -> None:
    hub["org/adapter"].faults.headers[header] = value
    with pytest.raises(Unreachable, match="refused"):
        opened("org/adapter", options)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_file_larger_than_everything_allowed_is_not_downloaded(
    hub: LoopbackHub, options: HubOptions
) -> None:
    hub["org/adapter"].faults.tampered[WEIGHTS] = b"x" * 200_000
    with pytest.raises(TooLarge, match=r"200\.0 kB at once"):
        opened("org/adapter", replace(options, max_download=100_000))


# Offline


def test_a_fetched_repository_opens_offline_at_the_same_commit(
    hub: LoopbackHub, options: HubOptions
) -> None:
    online = opened("org/adapter", options)
    asked = len(hub.requests)
    offline = opened("org/adapter", replace(options, offline=True))
    assert len(hub.requests) == asked
    assert offline.commit == online.commit
    assert [f.path for f in offline.files] == [f.path for f in online.files if f.local]
    assert content(offline) == ADAPTER[WEIGHTS]
    promise = file(offline, WEIGHTS).expected
    assert promise is not None
    assert promise.source == "cache blob name"
    assert [problem.failed for problem in offline.problems] == [False]


def test_offline_reads_a_pinned_commit_and_a_subfolder(
    hub: LoopbackHub, options: HubOptions
) -> None:
    sha = hub["org/adapter"].commit({f"sub/{WEIGHTS}": b"w"}, branch="refs/pr/2")
    opened("org/adapter@refs/pr/2", options)
    offline = replace(options, offline=True)
    assert content(opened(f"org/adapter@{sha}:sub", offline)) == b"w"
    assert opened("org/adapter@refs/pr/2", offline).commit == sha
    with pytest.raises(NotFound, match="no subfolder"):
        opened(f"org/adapter@{sha}:other", offline)


@pytest.mark.parametrize("text", ["org/adapter", "org/adapter@v1", f"org/adapter@{'a' * 40}"])
def test_what_is_not_cached_cannot_be_opened_offline(options: HubOptions, text: str) -> None:
    with pytest.raises(Unreachable, match="not in the cache") as caught:
        opened(text, replace(options, offline=True))
    assert "without --offline" in caught.value.hint


def test_offline_says_which_listed_files_are_missing(hub: LoopbackHub, options: HubOptions) -> None:
    import huggingface_hub

    sha = hub["org/adapter"].refs["main"]
    huggingface_hub.snapshot_download(
        "org/adapter",
        revision=sha,
        allow_patterns=["adapter_config.json"],
        cache_dir=options.cache_dir,
        endpoint=hub.url,
        token=False,
        tqdm_class=type("Silent", (huggingface_hub.utils.tqdm,), {"__init__": _silent}),
    )
    artifact = opened(f"org/adapter@{sha}", replace(options, offline=True))
    assert WEIGHTS in failed(artifact)
    assert file(artifact, WEIGHTS).not_fetched == "offline, and it is not in the cache"


def _silent(self: object, *args: object, **kwargs: object) -> None:
    kwargs["disable"] = True
    kwargs.pop("name", None)
    super(type(self), self).__init__(*args, **kwargs)  # type: ignore[misc]


# The machine


def test_a_cache_that_cannot_be_made_is_a_storage_error(
    options: HubOptions, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cache") as caught:
        opened("org/adapter", replace(options, cache_dir=tmp_path / "file" / "cache"))
    assert "HF_HOME" in caught.value.hint


def test_nothing_is_printed_without_progress(
    options: HubOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    opened("org/adapter", options)
    assert capfd.readouterr() == ("", "")


def test_a_local_scan_does_not_import_the_hub_client(tmp_path: Path) -> None:
    program = (
        "import sys; from adapterscan.sources import *\n"
        f"open_artifact(parse_ref({str(tmp_path)!r}), HubOptions())\n"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ})
