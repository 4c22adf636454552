"""Bad input, end to end: a clear line, what was found is kept, never exit 0."""

import json
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from adapterscan.model import Severity
from adapterscan.rules.judging import load_rules
from adapterscan.scan import exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures import temporary
from fixtures.containers import Tensor, safetensors, with_length
from fixtures.folder import CONFIG, WEIGHTS, as_json, config, honest_tensors, save

ESC, BIDI = "\x1b]0;owned\x07\x1b[31m", "\u202e"


def cli(*arguments, code=("-m", "adapterscan"), **options):
    return subprocess.run(
        [sys.executable, *code, *map(str, arguments)], capture_output=True, check=False, **options
    )


def shown(result):
    return result.stdout + result.stderr


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "adapter"
    path.mkdir()
    return path


OVERWRITE = {"base_model.model.model.layers.0.mlp.down_proj.weight": Tensor("F32", (1,), bytes(4))}
MEAN = {**honest_tensors(), **OVERWRITE}


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (safetensors(honest_tensors())[:-10], "is cut short"),
        (safetensors(honest_tensors())[:200], "claims a header of"),
        (struct.pack("<Q", 1 << 63) + bytes(100), "the format allows 100,000,000"),
        (b"", "too short for a header"),
        (with_length(b'{"a":' + b"[" * 100_000), "nested deeper"),
        (with_length(b'{"a\xff":1}'), "not UTF-8"),
        (with_length(b"{}"), "holds no tensors"),
        (b"\x00" * 4096, "not valid JSON"),
    ],
)
def test_broken_weights_are_named_with_a_reason_and_never_clean(folder, weights, reason):
    save(folder, None, weights)
    result = cli("scan", folder)
    assert result.returncode == 3
    text = " ".join(result.stdout.decode().split())
    assert f"not analysed: {WEIGHTS}:" in text
    assert reason in text
    assert b"Traceback" not in shown(result)


def test_a_cut_file_still_tells_what_its_header_overwrites(folder):
    save(folder, None, safetensors(MEAN)[:-1])
    result = cli("scan", folder)
    assert result.returncode == 1
    assert b"base-weight-overwrite" in result.stdout
    assert b"is cut short" in result.stdout


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (b"[" * 100_000, "nested deeper"),
        (b"[]", "holds a JSON list"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"r": "\xff"}', "not UTF-8"),
        (b'{"r": 1' + b"0" * 5000 + b"}", "too long to read"),
        (b"[" + b"[]," * 1_200_000 + b"[]]", "200,000 values"),
        (as_json(config(alpha_pattern={f"m{n}": 1 for n in range(10_001)})), "10,001 entries"),
    ],
)
def test_a_broken_config_is_named_with_a_reason_and_never_clean(folder, settings, reason):
    save(folder, settings)
    result = cli("scan", folder)
    assert result.returncode in (1, 3)
    text = " ".join(result.stdout.decode().split())
    assert f"not analysed: {CONFIG}:" in text
    assert reason in text
    assert b"Traceback" not in shown(result)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "-1e999", "1" + "0" * 400])
def test_a_scale_that_is_no_number_is_a_finding(folder, text):
    save(folder, as_json(config()).replace(b'"lora_alpha": 8', f'"lora_alpha": {text}'.encode()))
    result = cli("scan", folder)
    assert result.returncode == 1
    assert b"scaling-not-finite" in result.stdout
    assert b"Warning" not in result.stderr


@pytest.mark.parametrize("alpha", [1e200, 1e300, 1.7e308, 5e-324])
def test_a_scale_near_the_end_of_floats_is_reported_without_a_crash(folder, alpha):
    save(folder, config(lora_alpha=alpha))
    result = cli("scan", folder, "--format", "json", "--fail-on", "medium")
    assert json.loads(result.stdout)["exit_code"] == result.returncode
    assert result.stderr == b""


@pytest.mark.parametrize("rank", ["10000000", "1" + "0" * 400])
def test_a_rank_that_no_loader_survives_is_a_finding(folder, rank):
    save(folder, as_json(config()).replace(b'"r": 4', f'"r": {rank}'.encode()))
    assert cli("scan", folder).returncode == 1


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_companion_that_cannot_be_parsed_is_not_clean(folder, name):
    save(folder, others={name: b"[" * 100_000})
    assert cli("scan", folder).returncode == 3


@pytest.mark.parametrize(
    "start", [b"GGUF" + bytes(5), b"S'" + b"a" * 9000 + b"'\n0", b"\x80\x02X\x0a\0\0\0\0{aaaaaaaa0"]
)
def test_a_pickle_that_begins_like_something_else_is_found(folder, start):
    call = b"cposix\nsystem\n(S'echo inert'\ntR."
    save(folder, others={"training_args.bin": start + call})
    result = cli("scan", folder)
    assert result.returncode == 1
    assert b"pickle-code-execution" in result.stdout


def test_a_majority_of_foreign_names_does_not_hide_an_overwrite(folder):
    foreign = {f"lora_unet_{n}.x": Tensor("U8", (1,), b"x") for n in range(100)}
    save(folder, None, {**MEAN, **foreign})
    assert b"base-weight-overwrite" in cli("scan", folder).stdout


@pytest.mark.parametrize("extra", [(), ("-v",), ("--format", "json")])
def test_nothing_unescaped_reaches_the_terminal(folder, extra):
    temporary.hostile_file_names(folder)
    name = f"base_model.model.{ESC}{BIDI}.weight"
    settings = config(
        base_model_name_or_path=ESC + BIDI, revision=ESC, target_modules=[ESC], **{ESC: ESC},
        alpha_pattern={ESC: 3}, modules_to_save=[BIDI], auto_mapping={"parent_library": ESC},
    )  # fmt: skip
    odd = {f"dir{ESC}/x.py": b"", f"{BIDI}.bin": b"cposix\nsystem\n(S'x'\ntR.", "config.json": b"{"}
    save(folder, settings, {**MEAN, name: Tensor("U8", (1,), b"x")}, odd)
    result = cli("scan", folder, f"./no{ESC}{BIDI}", *extra)
    assert result.returncode == 1
    for hostile in (b"\x1b", b"\x07", b"\r", BIDI.encode(), "\u009b".encode()):
        assert hostile not in shown(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ("scan", f"./no{ESC}"),
        ("scan", ".", "--config", f"no{ESC}"),
        ("scan", ".", "-o", f"no{ESC}/x"),
        ("scan", ".", "--rules", f"no{ESC}"),
        ("scan", ".", "--fail-on", ESC),
        ("explain", ESC),
    ],
)
def test_what_the_caller_typed_is_escaped_in_errors(folder, arguments):
    save(folder)
    result = cli(*arguments, cwd=folder)
    assert result.returncode == 2
    assert b"\x1b" not in shown(result)


def test_a_bad_line_on_standard_input_is_one_bad_target(folder):
    save(folder, None, MEAN)
    listing = b"\xff\xfe\n\x1b]0;x\x07\n" + os.fsencode(folder) + b"\n"
    result = cli("scan", "-", input=listing)
    assert result.returncode == 1
    assert result.stdout.count(b"  not scanned: ") == 2
    assert b"\x1b" not in shown(result)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf8_is_written_to_all_the_same(folder, encoding):
    save(folder, config(base_model_name_or_path="\ud800é漢"))
    result = cli("scan", folder, "-v", env={**os.environ, "PYTHONIOENCODING": encoding})
    assert result.returncode == 0
    assert b"Result:" in result.stdout


@pytest.mark.parametrize("make", [temporary.fifo, temporary.symlink_loop, temporary.weights_folder])
def test_what_is_no_regular_file_is_not_opened_and_not_clean(folder, make):
    make(folder)
    assert cli("scan", folder, timeout=60).returncode in (1, 3)


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(safetensors(honest_tensors()))
    temporary.symlink_out(folder, secret)
    result = cli("scan", folder)
    assert result.returncode in (1, 3)
    assert b"a link that leaves the folder" in b" ".join(result.stdout.split())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_not_clean(folder):
    temporary.unreadable(folder)
    assert b"cannot be opened" in cli("scan", folder).stdout


def test_a_folder_in_the_place_of_the_config_is_not_clean(folder):
    save(folder)
    (folder / CONFIG).unlink()
    (folder / CONFIG).mkdir()
    assert cli("scan", folder).returncode == 3


def test_of_two_configs_the_one_that_loaders_read_counts(folder):
    save(folder, config(lora_alpha=float("nan")))
    (folder / "Adapter_Config.json").write_bytes(as_json(config()))
    assert b"scaling-not-finite" in cli("scan", folder).stdout


@pytest.mark.parametrize("change", ["grow", "cut", "same size"])
def test_a_file_that_changes_while_it_is_read_is_reported_as_such(folder, change):
    save(folder, None, MEAN)
    path = folder / WEIGHTS
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())

    def meddle(name):
        if name == WEIGHTS and change == "cut":
            os.truncate(path, 4000)
        elif name == WEIGHTS:
            path.write_bytes(path.read_bytes() + b"x" * (change == "grow"))

    report = scan(artifact, load_rules(), progress=meddle)
    changed = [item for item in report.coverage.skipped if WEIGHTS in item.what]
    size = {"grow": True, "cut": True, "same size": False}[change]
    assert bool(changed) is size  # equal bytes under one name are the file that was read
    assert exit_code([report], Severity.CRITICAL) in (1, 3)


def test_a_full_disk_leaves_no_report_behind_and_says_so(folder):
    save(folder)
    result = cli("scan", folder, "-o", "/dev/full")
    assert result.returncode == 2
    assert result.stderr.startswith(b"adapterscan: /dev/full cannot be written (No space left")
    assert b"\n  \xe2\x86\x92 " in result.stderr


def test_an_interruption_ends_with_one_line_and_no_report(folder, tmp_path):
    temporary.sparse_weights(folder, 40 << 30)
    report = tmp_path / "report.json"
    child = subprocess.Popen(
        [sys.executable, "-m", "adapterscan", "scan", folder, "-f", "json", "-o", report],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may ignore it
    )  # fmt: skip
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    try:
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130
    assert out == b""
    assert err.splitlines()[0] == b"adapterscan: interrupted: no report was written"
    assert b"Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_the_report_is_the_same_for_any_number_of_threads(folder):
    temporary.seven_b_shaped(folder, 2, layers=2)
    reports = [cli("scan", folder, "-f", "json", "-j", jobs).stdout for jobs in (1, 2, 8)]
    assert reports[0] == reports[1] == reports[2]
