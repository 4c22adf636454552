"""Trainer files too large to fetch: read by ranges, judged as whole ones are, never passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from adapterscan.model import FileRecord, Outcome, Report, Severity, Skipped
from adapterscan.reporters.json_report import render_json
from adapterscan.rules.judging import load_rules
from adapterscan.scan import EXIT_CLEAN, EXIT_FINDINGS, EXIT_INCOMPLETE, exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.containers import Hole
from fixtures.folder import save
from fixtures.loopback_hub import FOREVER, Content, LoopbackHub, Sparse, read_folder
from fixtures.optimizer import adam, archive
from fixtures.pickles import INERT_CALL, pickled
from tests.formats.torch_bytes import EXEC, integer, torch_legacy

STATE = "optimizer.pt"
TOKEN = "hf_secretsecretsecret"
SIZE = 70 << 20
ATTACK = pickled(INERT_CALL)
FEW = (24, 400_000)  # parameters, and floats of each
HONEST = adam(*FEW)
HOSTILE = adam(*FEW, before=INERT_CALL)


@pytest.fixture
def adapter(tmp_path: Path) -> Mapping[str, bytes]:
    save(tmp_path / "adapter")
    return read_folder(tmp_path / "adapter")


@pytest.fixture
def given(hub: LoopbackHub, options: HubOptions, adapter: Mapping[str, bytes]):
    """Commit an honest adapter with these files beside it, scan it, and return the report."""

    def scanned(files: Mapping[str, Content], *, turn=None, names=(STATE,), **changes) -> Report:
        hub["org/adapter"].commit({**adapter, **files})
        if turn:
            turning(hub, names, turn)
        artifact = open_artifact(parse_ref("hf://org/adapter"), replace(options, **changes))
        return scan(artifact, load_rules())

    return scanned


def fetched(hub: LoopbackHub, name: str = STATE) -> int:
    """Return the bytes of `name` that were asked for by ranges."""
    ranges = [r.range for r in hub.requests if r.method == "GET" and r.path.endswith(name)]
    spans = [text.removeprefix("bytes=").split("-") for text in ranges]
    return sum(int(last) - int(first) + 1 for first, last in spans)


class Turning(dict[str, bytes]):
    """Files that call `turn` with a count whenever one of `names` is asked for."""

    def __init__(self, files, turn, *names: str) -> None:
        super().__init__(files)
        self.turn = turn
        self.names = names or (STATE,)
        self.count = 0

    def get(self, path, default=None):
        if path in self.names:
            self.turn(self.count)
            self.count += 1
        return super().get(path, default)


def turning(hub: LoopbackHub, files, turn) -> Turning:
    """Let `turn` be called for each request for one of the files of the newest commit."""
    repository = hub["org/adapter"]
    sha = repository.refs["main"]
    repository.commits[sha] = Turning(repository.commits[sha], turn, *files)


def verdict(report: Report) -> int:
    return exit_code([report], Severity.HIGH)


def rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings if finding.severity > Severity.INFO}


def said(report: Report, name: str = STATE) -> list[Skipped]:
    return [item for item in report.coverage.skipped if item.what == name]


def record(report: Report, name: str = STATE) -> FileRecord:
    return next(item for item in report.files if item.path == name)


def padded(start: bytes, end: bytes = b"", size: int = SIZE) -> Sparse:
    return Sparse(size, {0: start, size - len(end): end})


# What is read, and what is said of it


def test_an_honest_state_passes_and_its_tensors_stay_where_they_are(hub, given) -> None:
    state = adam(448, 20_500)  # 1344 members, as of a LoRA of all linear layers
    report = given({STATE: state})
    assert len(state) > SIZE
    assert (verdict(report), rules(report)) == (EXIT_CLEAN, set())
    assert fetched(hub) < 2_000_000


def test_two_gigabytes_cost_no_more_than_their_pickle_and_their_members(hub, given) -> None:
    report = given({STATE: adam(300, 900_000)})
    assert record(report).size > 2_000_000_000
    assert (verdict(report), rules(report)) == (EXIT_CLEAN, set())
    assert fetched(hub) < 8_000_000


def test_the_report_says_what_was_read_and_that_no_hash_was_compared(hub, given) -> None:
    report = given({STATE: HONEST})
    (note,) = said(report)
    assert not note.failed
    assert note.reason.startswith(f"{fetched(hub) / 1e3:.1f} kB of 76.8 MB were read: its pickles")
    assert "nothing of it could be compared with the hub's hash" in note.reason
    assert "download it" in note.hint
    kept = record(report)
    assert (kept.status, kept.sha256, kept.verified) == ("partly analysed", None, None)
    document = json.loads("".join(render_json(Outcome((report,), (), 0, None))))
    files = document["reports"][0]["files"]
    (entry,) = [entry for entry in files if entry["path"] == STATE]
    assert (entry["status"], entry["sha256"], entry["verified"]) == ("partly analysed", None, None)


def test_two_scans_give_the_same_report(given) -> None:
    assert given({STATE: HOSTILE}) == given({STATE: HOSTILE})


def test_a_file_at_the_limit_is_fetched_whole(hub, given) -> None:
    report = given({STATE: padded(ATTACK, size=64 << 20)})
    assert record(report).sha256 is not None
    assert not [request for request in hub.requests if request.range]


def test_a_whole_copy_in_the_cache_is_read_instead(hub, options, given) -> None:
    import huggingface_hub

    hub["org/adapter"].commit({STATE: HOSTILE})
    sha = hub["org/adapter"].refs["main"]
    at = {"revision": sha, "cache_dir": options.cache_dir, "endpoint": hub.url, "token": False}
    huggingface_hub.hf_hub_download("org/adapter", STATE, **at)
    hub.requests.clear()
    artifact = open_artifact(parse_ref(f"hf://org/adapter@{sha}"), options)
    report = scan(artifact, load_rules())
    assert "pickle-code-execution" in rules(report)
    assert record(report).sha256 is not None
    assert not [request for request in hub.requests if request.range]


# Where a payload hides

HIDEOUTS: Mapping[str, Content] = {
    "in front": HOSTILE,
    "behind five megabytes of text": adam(*FEW, before=["x" * 5_000_000, INERT_CALL]),
    "in a second pickle": adam(*FEW, more=[("optimizer/extra.pkl", ATTACK)]),
    "under a tensor's name": adam(*FEW, more=[("optimizer/data/9999", ATTACK)]),
    "in a member before the rest": adam(*FEW, first=[("readme.txt", ATTACK)]),
    "in a second member of the name": adam(*FEW, more=[("optimizer/data.pkl", ATTACK)]),
    "bare": padded(ATTACK),
    "right beyond the first STOP": padded(pickled({}) + ATTACK),
    "in the oldest format of torch": padded(torch_legacy(EXEC + integer(1), {})),
    "in a zip at the end": padded(b"\xff", archive([("a/data.pkl", ATTACK)])[:]),
    "in a zip after a pickle": padded(pickled({}), archive([("a/data.pkl", ATTACK)])[:]),
    "under another checksum": Sparse(
        len(HOSTILE),
        {at: piece.replace(b"echo inert", b"echo INERT") for at, piece in HOSTILE.pieces.items()},
    ),
}


@pytest.mark.parametrize("content", HIDEOUTS.values(), ids=HIDEOUTS)
def test_padding_hides_no_payload(given, content: Content) -> None:
    report = given({STATE: content})
    assert len(content) > 64 << 20
    assert verdict(report) == EXIT_FINDINGS
    assert "pickle-code-execution" in rules(report)


@pytest.mark.parametrize("name", ["scheduler.pt", "rng_state.pth", "x.pkl", "a/b.bin", "x.ckpt"])
def test_every_trainer_file_is_read_so(given, name: str) -> None:
    assert "pickle-code-execution" in rules(given({name: HOSTILE}))


def test_a_name_that_we_do_not_know_is_looked_into(hub, given) -> None:
    assert "pickle-code-execution" in rules(given({"state.xyz": HOSTILE}))
    report = given({"state.xyz": padded(b"\xfe\xff numbers")})
    assert (verdict(report), record(report, "state.xyz").status) == (EXIT_CLEAN, "listed only")
    assert "no pickle and no archive" in said(report, "state.xyz")[0].reason


NOT_FOLLOWED: Mapping[str, Content] = {
    "behind seventy megabytes of text": padded(
        b"\x80\x02X" + (SIZE - 100).to_bytes(4, "little"), b"0" + ATTACK[2:]
    ),
    "far beyond STOP": padded(pickled({}), ATTACK),
    "in a format that we do not know": padded(b"\xff\xfe\xfd", b"\xff"),
    "encrypted elsewhere": padded(b"7z\xbc\xaf\x27\x1c"),
    "in a member of thirty-three megabytes": archive(
        [("a/data.pkl", Hole(33 << 20, b"\x80\x02" + b"N0" * 500)), ("a/data/0", Hole(SIZE))]
    ),
}


@pytest.mark.parametrize("content", NOT_FOLLOWED.values(), ids=NOT_FOLLOWED)
def test_what_is_not_followed_to_its_end_does_not_pass(given, content: Content) -> None:
    report = given({STATE: content})
    assert verdict(report) == EXIT_INCOMPLETE
    assert any(item.failed for item in said(report))


def lie(content: Sparse, old: bytes, new: bytes) -> Sparse:
    """Return `content` with `old` replaced in its last piece: the directory and the end record."""
    last = max(content.pieces)
    assert content.pieces[last].count(old) == 1
    return Sparse(len(content), {**content.pieces, last: content.pieces[last].replace(old, new)})


def entry_of(name: bytes, content: Sparse) -> bytes:
    """Return the directory's entry of `name`."""
    directory = content.pieces[max(content.pieces)]
    at = directory.index(name) - 46
    return directory[at : at + 46 + len(name)]


PICKLE = entry_of(b"optimizer/data.pkl", HOSTILE)
ORDER = entry_of(b"optimizer/byteorder", HOSTILE)
END = HOSTILE.pieces[max(HOSTILE.pieces)][-22:]
LIES: Mapping[str, Sparse] = {
    "another name": lie(HOSTILE, PICKLE, PICKLE.replace(b"data.pkl", b"data.txt")),
    "another place": lie(HOSTILE, PICKLE[42:46] + PICKLE[46:], ORDER[42:46] + PICKLE[46:]),
    "another size": lie(HOSTILE, PICKLE, PICKLE[:20] + bytes(8) + PICKLE[28:]),
    "a place beyond the end": lie(HOSTILE, PICKLE[42:], b"\xff\xff\xff\x7f" + PICKLE[46:]),
    "no entry for it": lie(HOSTILE, PICKLE, b""),
    "a directory elsewhere": lie(HOSTILE, END, END[:16] + b"\0\0\0\1" + END[20:]),
    "no directory": lie(HOSTILE, END, bytes(22)),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_a_directory_that_lies_does_not_pass(given, content: Sparse) -> None:
    report = given({STATE: content})
    assert verdict(report) in (EXIT_FINDINGS, EXIT_INCOMPLETE)
    assert rules(report) & {"archive-tampered", "archive-broken"}


def test_the_same_file_on_a_disk_is_judged_alike(tmp_path: Path, given, adapter) -> None:
    for content in (HONEST, HOSTILE, *list(LIES.values())[:4], *list(NOT_FOLLOWED.values())[:2]):
        far = given({STATE: content})
        near = tmp_path / "near"
        save(near)
        with (near / STATE).open("wb") as stream:
            stream.truncate(len(content))
            for at, piece in content.pieces.items():
                stream.seek(at)
                stream.write(piece)
        report = scan(open_artifact(parse_ref(str(near)), HubOptions()), load_rules())
        assert record(report).sha256 is not None
        assert [f.rule for f in report.findings] == [f.rule for f in far.findings]
        seen = tuple(item for item in far.evidence if not item.name.startswith("hub."))
        assert report.evidence == seen
        assert verdict(report) == verdict(far)


# Servers that do not keep to the protocol


def test_a_server_that_ignores_ranges_is_not_read_to_its_end(hub, given) -> None:
    hub["org/adapter"].faults.only = STATE
    hub["org/adapter"].faults.ignore_ranges = True
    report = given({STATE: HOSTILE})
    assert verdict(report) == EXIT_INCOMPLETE
    assert "with the whole file" in said(report)[0].reason
    assert hub.sent < 20_000_000


@pytest.mark.parametrize("redirect", [False, True])
def test_a_reply_that_is_cut_off_is_asked_for_the_rest(hub, given, redirect: bool) -> None:
    hub["org/adapter"].faults.redirect = redirect
    hub["org/adapter"].faults.only = STATE
    hub["org/adapter"].faults.cut_after = 9000
    hub["org/adapter"].faults.cuts = 2
    assert "pickle-code-execution" in rules(given({STATE: HOSTILE}))
    starts = [request.range for request in hub.requests if request.range]
    assert "bytes=0-4095" in starts
    assert len(starts) == len(set(starts))


def test_a_server_that_always_cuts_is_given_up_on_that_file_alone(hub, given) -> None:
    hub["org/adapter"].faults.only = STATE
    hub["org/adapter"].faults.cut_after = 9000
    hub["org/adapter"].faults.cuts = FOREVER
    report = given({STATE: HONEST, "training_args.bin": ATTACK})
    assert "pickle-code-execution" in rules(report)
    assert said(report)[0].failed
    assert "cut the connection" in said(report)[0].reason


@pytest.mark.parametrize("away", [False, True])
def test_a_length_that_is_not_the_listed_one_is_refused(hub, given, away: bool) -> None:
    hub["org/adapter"].faults.only = STATE
    hub["org/adapter"].faults.redirect = away
    hub["org/adapter"].faults.tampered[STATE] = adam(24, 400_100)
    report = given({STATE: HONEST})
    assert verdict(report) == EXIT_INCOMPLETE
    assert "the hub sends" in said(report)[0].reason


@pytest.mark.parametrize(
    ("fault", "value", "reason"),
    [
        ("other_range", True, "another range"),
        ("surplus", b"more", "another range|more bytes|fewer"),
        ("headers", {"Content-Encoding": "gzip"}, "compressed"),
        ("headers", {"ETag": f'"{"0" * 64}"'}, "another content than it lists"),
    ],
)
def test_a_reply_that_does_not_fit_is_refused(hub, given, fault, value, reason) -> None:
    hub["org/adapter"].faults.only = STATE
    setattr(hub["org/adapter"].faults, fault, value)
    report = given({STATE: HONEST})
    assert verdict(report) == EXIT_INCOMPLETE
    assert any(text in said(report)[0].reason for text in reason.split("|"))


def test_a_file_that_changes_between_two_ranges_is_refused(hub, given) -> None:
    def turn(count: int) -> None:
        if count == 4:
            hub["org/adapter"].faults.headers["ETag"] = '"another"'

    hub["org/adapter"].faults.only = STATE
    report = given({STATE: HOSTILE}, turn=turn)
    assert verdict(report) == EXIT_INCOMPLETE
    assert "two versions" in said(report)[0].reason


def test_a_listed_file_that_is_not_there_does_not_pass(hub, given) -> None:
    hub["org/adapter"].faults.ghosts[STATE] = SIZE
    report = given({})
    assert verdict(report) == EXIT_INCOMPLETE
    assert said(report)[0].reason == "listed by the hub, but not there"


def test_a_hub_that_asks_to_slow_down_is_waited_for(hub, given) -> None:
    def turn(count: int) -> None:
        if count in (0, 4):
            hub["org/adapter"].faults.limited = 1

    report = given({STATE: HOSTILE}, turn=turn, patience=5)
    assert "pickle-code-execution" in rules(report)


def test_a_hub_that_fails_for_good_is_not_asked_for_the_next_file(hub, given) -> None:
    def turn(count: int) -> None:
        if count == 4:
            hub["org/adapter"].faults.broken = FOREVER

    files = {"a.pt": HOSTILE, "b.pt": HOSTILE, "training_args.bin": ATTACK}
    report = given(files, turn=turn, names=["a.pt", "b.pt"])
    assert "pickle-code-execution" in rules(report)  # of what was fetched before
    assert "HTTP 500" in said(report, "a.pt")[0].reason
    assert "after another file failed" in said(report, "b.pt")[0].reason
    assert not [request for request in hub.requests if request.path.endswith("b.pt")]


# Limits


def test_more_than_the_allowed_bytes_are_not_read(given) -> None:
    report = given({STATE: HOSTILE}, max_download=50_000)
    assert verdict(report) == EXIT_INCOMPLETE
    assert "more bytes than are read by ranges" in said(report)[0].reason


def test_what_was_found_before_the_limit_stays(given) -> None:
    long = Hole(32 << 20, b"\x80\x02" + b"N0" * 500)
    members = [("a/data.pkl", ATTACK), *((f"a/{n}.pkl", long) for n in range(6))]
    report = given({STATE: archive(members)})
    assert "pickle-code-execution" in rules(report)
    assert any("more bytes than are read by ranges" in item.reason for item in said(report))


def test_an_archive_of_too_many_members_does_not_pass(hub, given) -> None:
    far = [(f"a/{number}", Hole(40_000)) for number in range(21_000)]
    report = given({STATE: archive([("a/data.pkl", ATTACK), *far])})
    assert verdict(report) == EXIT_INCOMPLETE
    assert "needs 20,999 more ranges" in said(report)[0].reason
    assert "name a subfolder" in said(report)[0].hint
    assert len(hub.requests) < 50


# Credentials


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub, options, adapter, tmp_path) -> None:
    files = {**adapter, STATE: HOSTILE}
    with LoopbackHub({"org/adapter": files}) as storage:
        hub["org/adapter"].commit(files)
        hub["org/adapter"].faults.private = True
        hub["org/adapter"].faults.away = storage.url.replace("127.0.0.1", "localhost")
        sha = hub["org/adapter"].refs["main"]
        assert sha in storage["org/adapter"].commits
        allowed = replace(options, token=TOKEN, storage=("localhost",))
        artifact = open_artifact(parse_ref("hf://org/adapter"), allowed)
        ranged = [request for request in storage.requests if request.range]
    assert len(ranged) > 40
    assert not any(request.authorized for request in storage.requests)
    assert all(request.authorized for request in hub.requests)
    assert "pickle-code-execution" in rules(scan(artifact, load_rules()))


def test_a_redirect_that_comes_with_the_first_range_gets_no_token_either(
    hub, adapter, given
) -> None:
    with LoopbackHub({"org/adapter": {**adapter, STATE: HOSTILE}}) as storage:

        def turn(count: int) -> None:
            if count == 1:
                hub["org/adapter"].faults.away = storage.url.replace("127.0.0.1", "localhost")

        report = given({STATE: HOSTILE}, turn=turn, token=TOKEN, storage=("localhost",))
        assert "pickle-code-execution" in rules(report)
        assert any(request.range for request in storage.requests)
        assert not any(request.authorized for request in storage.requests)


def test_the_token_is_sent_with_ranges_that_the_hub_serves_itself(hub, given) -> None:
    hub["org/adapter"].faults.private = True
    assert "pickle-code-execution" in rules(given({STATE: HOSTILE}, token=TOKEN))


# Offline


def test_offline_a_listed_file_that_is_not_cached_does_not_pass(hub, options, adapter) -> None:
    import huggingface_hub

    sha = hub["org/adapter"].commit({**adapter, STATE: HONEST})
    quiet = type("Quiet", (huggingface_hub.utils.tqdm,), {"__init__": _quiet})
    huggingface_hub.snapshot_download(
        "org/adapter", revision=sha, ignore_patterns=[STATE], cache_dir=options.cache_dir,
        endpoint=hub.url, token=False, tqdm_class=quiet,
    )  # fmt: skip
    offline = replace(options, offline=True)
    report = scan(open_artifact(parse_ref(f"hf://org/adapter@{sha}"), offline), load_rules())
    assert verdict(report) == EXIT_INCOMPLETE
    (note,) = said(report)
    assert (note.failed, note.reason) == (True, "offline, and it is not in the cache")


def _quiet(self: object, *args: object, **kwargs: object) -> None:
    kwargs["disable"] = True
    kwargs.pop("name", None)
    super(type(self), self).__init__(*args, **kwargs)  # type: ignore[misc]
