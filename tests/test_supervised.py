"""A scan that a file hangs, grows or crashes: it ends, names the file, and keeps what it found."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from adapterscan import apart as apart_module
from adapterscan.apart import Limits, apart, watch_memory
from adapterscan.detectors import BUILT_IN, Detector
from adapterscan.errors import NotApplicable, Stopped
from adapterscan.events import Doing, Inspected, Reading
from adapterscan.model import Evidence, Need, Outcome, Subject
from adapterscan.reporters.json_report import render_json
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.supervised import scan_apart
from fixtures.folder import WEIGHTS, save
from tests.conftest import ADAPTERS, ROOT

pytestmark = pytest.mark.skipif(not apart_module.POSSIBLE, reason="this system has no fork")
CALL = b"cposix\nsystem\n(S'echo inert'\ntR."  # never unpickled
BOOK = load_rules()


def hostile(*arguments, **options):
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "tests.hostile_reader", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip
    return result, time.monotonic() - began


def running():
    """Return the command lines of all processes."""
    return subprocess.run(
        ["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True
    ).stdout


def reported(result):
    (report,) = json.loads(result.stdout)["reports"]
    return report


def failed(report):
    return {
        item["what"]: item["reason"] for item in report["coverage"]["skipped"] if item["failed"]
    }


@pytest.fixture
def folder(tmp_path):
    save(tmp_path)
    (tmp_path / "a.bin").write_bytes(CALL)
    (tmp_path / "z.bin").write_bytes(CALL.replace(b"system", b"popen"))
    return tmp_path


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("hang", "took more than half of what was left of 8 s and was stopped"),
        ("spin", "took more than half of what was left of 8 s and was stopped"),
        ("breed", "took more than half of what was left of 8 s and was stopped"),
        ("grow", "needs more memory than adapterscan may take"),
        ("crash", "ended the process that read it (by SIGSEGV)"),
        ("be_killed", "ended the process that read it (by SIGKILL, often for lack of memory)"),
        ("leave", "ended the process that read it (with exit code 0)"),
    ],
)
def test_a_file_that_ends_a_scan_is_named_and_all_others_are_read(folder, what, reason):
    (folder / "m.bin").write_bytes(f"!{what}!".encode())
    result, seconds = hostile(
        "scan", folder, "-f", "json", "--timeout", "8s", "--memory", "400MB", "--fail-on", "never"
    )
    report = reported(result)
    assert failed(report)["m.bin"] == reason
    assert result.returncode == 3
    assert seconds < 30
    (record,) = (item for item in report["files"] if item["path"] == "m.bin")
    assert record["status"] == "not analysed"
    named = {item["subject"]["file"] for item in report["evidence"] if "pickle" in item["name"]}
    assert named == {"a.bin", "z.bin"}
    assert report["adapters"][0]["weights"] == WEIGHTS
    assert "Traceback" not in result.stderr


def test_no_child_of_a_stopped_process_lives_on(folder):
    (folder / "m.bin").write_bytes(b"!breed!")
    mark = uuid.uuid4().hex
    hostile("scan", folder, "--timeout", "4s", env={**os.environ, "MARK": mark})
    assert mark not in running()


def test_memory_that_is_asked_for_again_and_again_is_a_hang(folder):
    (folder / "m.bin").write_bytes(b"!grow_and_swallow!")
    result, _ = hostile("scan", folder, "-f", "json", "--timeout", "4s", "--memory", "300MB")
    assert "took more than half of what was left of 4 s" in failed(reported(result))["m.bin"]


def test_findings_outrank_what_was_stopped(folder):
    (folder / "m.bin").write_bytes(b"!crash!")
    result, _ = hostile("scan", folder)
    assert result.returncode == 1
    assert "m.bin: ended the process" in " ".join(result.stdout.split())


def test_a_file_that_hangs_leaves_nothing_of_itself_in_the_temporary_folder(folder, tmp_path):
    (folder / "m.bin").write_bytes(b"!hang!")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    hostile("scan", folder, "--timeout", "2s", env={**os.environ, "TMPDIR": str(scratch)})
    assert list(scratch.iterdir()) == []


def test_many_hostile_files_end_the_scan_in_its_time_and_the_rest_is_told(folder):
    for number in range(20):
        (folder / f"m{number:02}.bin").write_bytes(b"!hang!")
    result, seconds = hostile("scan", folder, "-f", "json", "--timeout", "6s")
    assert seconds < 12
    said = failed(reported(result))
    assert "m00.bin" in said
    assert any("not read: no time was left" in reason for reason in said.values())
    statuses = {item["path"]: item["status"] for item in reported(result)["files"]}
    assert statuses["m19.bin"] == "not analysed"


def test_one_hostile_target_does_not_cost_the_next_one(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    save(other)
    (folder / "m.bin").write_bytes(b"!crash!")
    result, _ = hostile("scan", folder, other, "-f", "json")
    reports = json.loads(result.stdout)["reports"]
    assert [item["coverage"]["complete"] for item in reports] == [False, True]


def test_a_hook_is_limited_as_the_settings_say(folder):
    (folder / "m.bin").write_bytes(b"!hang!")
    place = folder.parent / "project"
    place.mkdir()
    settings = place / "adapterscan.toml"
    settings.write_text('timeout = "2s"\nmemory = "500MB"\n')
    result, seconds = hostile("hook", folder / WEIGHTS, "--config", settings)
    assert "m.bin: took more than half of what was left of 2 s" in " ".join(result.stdout.split())
    assert seconds < 20


@pytest.mark.parametrize("what", ["hang", "crash"])
def test_a_comparison_that_a_file_ends_is_incomplete_and_names_it(folder, adapters, what):
    (folder / "m.bin").write_bytes(f"!{what}!".encode())
    result, _ = hostile("compare", folder, adapters / "benign-qv", "--timeout", "4s")
    assert result.returncode == 3
    assert result.stderr.startswith("adapterscan: m.bin ")
    assert result.stdout == ""


def test_a_merge_that_a_file_ends_keeps_the_reports_before_it(folder, adapters, tmp_path):
    (folder / "m.bin").write_bytes(b"!crash!")
    result, _ = hostile("merge", adapters / "benign-qv", folder, "-f", "json")
    document = json.loads(result.stdout)
    assert [item["coverage"]["complete"] for item in document["reports"]] == [True, False]
    assert "while reading m.bin" in document["errors"][0]["reason"]
    assert result.returncode in (1, 2)


@pytest.mark.parametrize("options", [("--timeout", "0"), ("--memory", "lots"), ("--timeout", "-1")])
def test_a_limit_that_is_none_is_refused(run, adapters, options):
    result = run("scan", adapters / "benign-qv", *options)
    assert result.returncode == 2
    assert "is not a" in result.stderr


def test_an_interruption_ends_both_processes(folder):
    (folder / "m.bin").write_bytes(b"!breed!")
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile_reader", "scan", str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MARK": mark},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.poll() is None and mark not in running():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert err.startswith("adapterscan: interrupted")
    assert mark not in running()


@pytest.mark.parametrize("name", sorted(path.name for path in ADAPTERS.iterdir() if path.is_dir()))
def test_the_report_is_the_one_that_a_single_process_makes(name):
    artifact = open_artifact(parse_ref(str(ADAPTERS / name)), HubOptions())
    options = ScanOptions(1)
    alone = scan(artifact, BOOK, options=options)
    beside = scan_apart(artifact, BOOK, Limits(600), options=options)
    one, two = ("".join(render_json(Outcome((r,), (), 0, None))) for r in (alone, beside))
    assert one == two


def test_facts_that_a_detector_found_before_it_hung_are_kept(folder):
    def hangs(contents):
        yield Evidence("delta.zero", Subject("module", "f", "m"), 0.0)
        time.sleep(60)

    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    hanging = Detector("test", 1, frozenset({Need.FILES}), "a test", hangs)
    report = scan_apart(
        artifact, BOOK, Limits(2.0), detectors=(*BUILT_IN, hanging), options=ScanOptions(1)
    )
    assert "delta.zero" in report.counts
    assert "pickle.global" in report.counts
    (said,) = (item for item in report.coverage.skipped if "stopped" in item.reason)
    assert said.what == "what the files say together"
    assert not report.coverage.complete


def test_what_the_work_raises_of_ours_is_raised_here():
    def work(emit):
        raise NotApplicable("nothing to do", hint="do something else")

    with pytest.raises(Exception, match="nothing to do") as raised:
        list(apart(work, Limits(10)))
    assert raised.value.hint == "do something else"


@pytest.mark.parametrize("said", ["x\n", "[]\n", '["fact"]\n', '{"a": 1}\n', "[" * 100_000 + "\n"])
def test_nonsense_from_the_other_process_is_not_believed(monkeypatch, said):
    monkeypatch.setattr(apart_module, "encode", lambda event: said.rstrip("\n"))
    with pytest.raises(Stopped, match="nonsense"):
        list(apart(lambda emit: emit(Doing("x")), Limits(10)))


def test_an_orphan_is_ended_by_the_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(apart_module, "_GRACE", 1.0)
    note = tmp_path / "pid"
    script = (
        "import os, time; from adapterscan import apart; apart._GRACE = 1.0\n"
        "def work(emit):\n"
        f"    open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)\n"
        "list(apart.apart(work, apart.Limits(2.0)))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while not note.exists() or not note.read_text():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    child = Path(f"/proc/{note.read_text()}")
    assert child.exists() or not sys.platform.startswith("linux")
    time.sleep(4)
    assert not child.exists() or "Z" in (child / "stat").read_text().split()[2]


def test_where_no_kernel_limits_memory_a_process_watches_itself(monkeypatch):
    monkeypatch.setattr(apart_module, "_KERNEL_LIMITS_MEMORY", False)

    def work(emit):
        held = []
        while True:
            held.append(bytearray(8 << 20))
            time.sleep(0.01)

    with pytest.raises(Stopped, match=r"needed more than 400\.0 MB of memory"):
        list(apart(work, Limits(30, 400_000_000)))


def test_the_time_of_a_file_is_its_own(monkeypatch):
    def work(emit):
        for number in range(4):
            emit(Reading(f"{number}"))
            time.sleep(0.4)
        emit(Inspected("all"))

    assert Inspected("all") in list(apart(work, Limits(6)))
    assert watch_memory.__doc__


def test_a_process_that_ends_before_it_reads_leaves_the_name_of_its_target(run, adapters):
    target = adapters / "benign-qv"
    result = run("scan", target, "--memory", "10MB", "--format", "json")
    (report,) = json.loads(result.stdout)["reports"]
    assert report["target"] == str(target)
    assert report["summary"]["complete"] is False
    assert result.returncode == 3
