"""The command line: exit codes, formats, settings, and what reaches which stream."""

import json
import os
import shutil
from importlib.util import find_spec

import pytest

from fixtures import bases
from fixtures.loopback_hub import LoopbackHub, read_folder


def test_a_clean_adapter_exits_with_0(run, adapters):
    result = run("scan", adapters / "benign-qv")
    assert result.returncode == 0
    assert "behaviour was not tested" in result.stdout


def test_a_finding_at_the_fail_level_exits_with_1_and_names_the_tensor(run, adapters):
    result = run("scan", adapters / "overwrite-layernorm")
    assert result.returncode == 1
    assert "model.layers.2.input_layernorm.weight" in result.stdout


@pytest.mark.parametrize(("level", "code"), [("critical", 0), ("medium", 1), ("never", 0)])
def test_fail_on_moves_the_level(run, adapters, level, code):
    assert run("scan", adapters / "rank-mismatch", "--fail-on", level).returncode == code


def test_something_not_analysed_exits_with_3(run, adapters):
    result = run("scan", adapters / "kohya")
    assert result.returncode == 3
    assert "follows the kohya layout" in result.stdout


def test_findings_outrank_incompleteness(run, adapters):
    assert run("scan", adapters / "pickle-call").returncode == 1


def test_an_unknown_option_exits_with_2(run):
    assert run("scan", "--no-such-option").returncode == 2


def test_a_missing_folder_exits_with_2_and_says_what_to_do(run):
    result = run("scan", "./nowhere")
    assert result.returncode == 2
    assert "→" in result.stdout + result.stderr


def test_one_bad_target_does_not_hide_the_findings_of_another(run, adapters):
    result = run("scan", "./nowhere", adapters / "overwrite-lm-head")
    assert result.returncode == 1
    assert "not scanned" in result.stdout
    assert "lm_head.weight" in result.stdout


def test_targets_come_from_standard_input(run, adapters):
    listing = f"# two\n{adapters / 'benign-qv'}\n\n{adapters / 'overwrite-lm-head'}\n"
    result = run("scan", "-", "--format", "json", stdin=listing)
    assert [report["target"] for report in json.loads(result.stdout)["reports"]] == [
        str(adapters / "benign-qv"),
        str(adapters / "overwrite-lm-head"),
    ]


def test_an_empty_list_of_targets_is_an_error_and_not_a_pass(run):
    assert run("scan", "-", stdin="").returncode == 2


def test_json_goes_alone_to_standard_output(run, adapters):
    result = run("scan", adapters / "overwrite-layernorm", "-f", "json")
    assert json.loads(result.stdout)["exit_code"] == 1
    assert result.stderr == ""


def test_output_writes_the_file_and_leaves_standard_output_empty(run, adapters, tmp_path):
    result = run("scan", adapters / "benign-qv", "-f", "json", "-o", tmp_path / "report.json")
    assert result.stdout == ""
    assert json.loads((tmp_path / "report.json").read_text())["reports"]
    assert list(tmp_path.iterdir()) == [tmp_path / "report.json"]


def test_output_into_a_pipe_or_device_does_not_replace_it(run, adapters, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run("scan", adapters / "benign-qv", "-o", tmp_path / "pipe").returncode == 0
    assert b"benign-qv" in os.read(reader, 1 << 16)
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_output_through_a_link_keeps_the_link(run, adapters, tmp_path):
    (tmp_path / "latest").symlink_to("report")
    run("scan", adapters / "benign-qv", "-o", tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    assert "benign-qv" in (tmp_path / "report").read_text()


def test_an_output_that_cannot_be_written_exits_with_2(run, adapters, tmp_path):
    result = run("scan", adapters / "benign-qv", "-o", tmp_path / "no" / "such" / "folder")
    assert result.returncode == 2
    assert f"{tmp_path / 'no' / 'such' / 'folder'} cannot be written (No such file" in result.stderr
    assert "make room" in result.stderr


def test_a_report_that_cannot_be_read_is_not_said_to_lack_room(run):
    result = run("replay", "./nothere.json")
    assert result.returncode == 2
    assert "nothere.json: No such file or directory" in result.stderr
    assert "check the spelling" in result.stderr


def test_there_is_no_colour_when_standard_output_is_not_a_terminal(run, adapters):
    assert "\x1b" not in run("scan", adapters / "overwrite-layernorm").stdout


def test_two_runs_give_the_same_report_whatever_the_number_of_threads(run, adapters):
    one = run("scan", adapters / "benign", "-f", "json", "--jobs", 1)
    many = run("scan", adapters / "benign", "-f", "json", "--jobs", 4)
    assert one.stdout == many.stdout


def test_settings_come_from_the_callers_project(run, adapters, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.adapterscan]\nfail-on = "medium"\n')
    result = run("scan", adapters / "rank-mismatch")
    assert result.returncode == 1
    assert "pyproject.toml" in result.stdout


def test_settings_inside_the_scanned_tree_are_not_read(run, adapters, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.adapterscan]\nfail-on = "never"\n')
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapters / "overwrite-layernorm" / name).read_bytes())
    result = run("scan", ".")
    assert result.returncode == 1
    assert "lies inside the scanned tree" in result.stderr


@pytest.mark.parametrize("heading", ["", "[tool.adapterscan]\n"])
def test_named_settings_are_read_from_anywhere(run, adapters, tmp_path, heading):
    settings = tmp_path / "strict.toml"
    settings.write_text(f'{heading}fail-on = "low"\n')
    assert run("scan", adapters / "code-sibling", "--config", settings).returncode == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool.adapterscan]\nfail_on = 'high'", "unknown setting"),
        ("[tool.adapterscan]\nfail-on = 'terrible'", "no severity"),
        ("[tool.adapterscan]\njobs = 0", "jobs"),
        ("[tool.adapterscan\n", "not valid TOML"),
        ("[tool.adapterscan]\nmax-download = 'lots'", "not a size"),
    ],
)
def test_a_bad_setting_exits_with_2_and_names_it(run, adapters, tmp_path, text, says):
    (tmp_path / "pyproject.toml").write_text(text)
    result = run("scan", adapters / "benign-qv")
    assert result.returncode == 2
    assert says in result.stderr


def test_a_folder_of_own_rules_judges_too(run, adapters, tmp_path):
    rule = tmp_path / "mine" / "any-unpinned-base"
    rule.mkdir(parents=True)
    source = (adapters.parents[1] / "rules" / "base-unpinned" / "rule.toml").read_text()
    text = source.replace("'base-unpinned'", "'any-unpinned-base'").replace("'info'", "'high'")
    (rule / "rule.toml").write_text(text)
    result = run("scan", adapters / "benign-qv", "--rules", tmp_path / "mine")
    assert result.returncode == 1
    assert "any-unpinned-base" in result.stdout


def test_rules_lists_and_explain_prints_the_page(run):
    listed = json.loads(run("rules", "--format", "json").stdout)
    assert {"id", "severity", "confidence", "title"} == set(listed[0])
    assert "What to do" in run("explain", "base-weight-overwrite").stdout


def test_explain_suggests_a_near_name(run):
    result = run("explain", "base-weight-overwrit")
    assert result.returncode == 2
    assert "base-weight-overwrite" in result.stderr


def test_a_hub_target_is_pinned_and_verified(run, adapters, tmp_path):
    with LoopbackHub({"org/adapter": read_folder(adapters / "benign-qv")}) as hub:
        result = run("scan", "org/adapter", "--endpoint", hub.url, "-f", "json",
                     "--cache-dir", tmp_path / "cache")  # fmt: skip
    report = json.loads(result.stdout)["reports"][0]
    assert len(report["commit"]) == 40
    assert all(file["verified"] for file in report["files"])
    assert result.returncode == 0


def test_tampered_bytes_of_equal_length_are_critical(run, adapters, tmp_path):
    files = read_folder(adapters / "benign-qv")
    changed = bytearray(files["adapter_model.safetensors"])
    changed[-1] ^= 1
    with LoopbackHub({"org/adapter": files}) as hub:
        hub["org/adapter"].faults.tampered["adapter_model.safetensors"] = bytes(changed)
        result = run("scan", "org/adapter", "--endpoint", hub.url, "--cache-dir", tmp_path / "c")
    assert result.returncode == 1
    assert "content-hash-mismatch" in result.stdout


def test_a_scan_works_offline_from_the_cache(run, adapters, tmp_path):
    with LoopbackHub({"org/adapter": read_folder(adapters / "overwrite-lm-head")}) as hub:
        where = ("--endpoint", hub.url, "--cache-dir", tmp_path / "cache")
        run("scan", "org/adapter", *where)
    result = run("scan", "org/adapter", "--offline", *where)
    assert result.returncode == 1
    assert "lm_head.weight" in result.stdout


@pytest.mark.parametrize(
    ("fault", "says"),
    [("missing", "not"), ("gated", "gated"), ("private", "HF_TOKEN"), ("disabled", "disabled")],
)
def test_each_refusal_of_the_hub_says_what_to_do(run, adapters, tmp_path, fault, says):
    with LoopbackHub({"org/adapter": read_folder(adapters / "benign-qv")}) as hub:
        setattr(hub["org/adapter"].faults, fault, True)
        result = run("scan", "org/adapter", "--endpoint", hub.url, "--cache-dir", tmp_path / "c")
    assert result.returncode in (2, 3)
    assert says in result.stdout
    assert "→" in result.stdout or "(" in result.stdout


def test_a_token_reaches_no_output(run, adapters, tmp_path):
    token = "hf_" + "a1B2" * 8
    with LoopbackHub({"org/adapter": read_folder(adapters / "benign-qv")}) as hub:
        hub["org/adapter"].faults.error_text = f"bad token {token}"
        hub["org/adapter"].faults.gated = True
        result = run("scan", "org/adapter", "--endpoint", hub.url, "-f", "json",
                     "--cache-dir", tmp_path / "cache", HF_TOKEN=token)  # fmt: skip
    cached = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert token not in result.stdout + result.stderr
    assert not any(token.encode() in content for content in cached)


def test_hook_scans_the_folder_of_each_changed_file_once(run, adapters):
    folder = adapters / "overwrite-layernorm"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    result = run("hook", *files)
    assert result.returncode == 1
    assert result.stdout.count("[base-weight-overwrite]") == 1


def test_a_file_of_no_adapter_is_scanned_by_the_hook_without_its_neighbours(run, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "code.pkl").write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    result = run("hook", "config.json")
    assert result.returncode == 0
    assert "code.pkl" not in result.stdout
    assert run("hook", "venv/code.pkl").returncode == 1


@pytest.mark.parametrize("name", ["config.json", "folder/config.json", "adapter.safetensors"])
def test_a_file_of_no_adapter_that_cannot_be_read_does_not_pass_the_hook(run, tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_text("{")
    assert run("hook", name).returncode == 3


def test_a_file_below_an_adapter_makes_the_hook_scan_the_adapter(run, adapters, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapters / "overwrite-layernorm", folder)
    (folder / "more").mkdir()
    (folder / "more" / "tokenizer.json").write_text("{}")
    result = run("hook", "adapter/more/tokenizer.json")
    assert result.returncode == 1
    assert "input_layernorm.weight" in result.stdout


def test_a_file_that_is_not_there_is_refused_by_the_hook(run):
    result = run("hook", "nofile.json")
    assert result.returncode == 2
    assert "no such file: nofile.json" in result.stderr


def test_a_file_named_like_an_option_is_refused_by_the_hook(run, adapters, tmp_path):
    trap = tmp_path / "--rules=evil" / "config.json"
    trap.parent.mkdir()
    trap.write_text("{}")
    result = run("hook", "--rules=evil/config.json", adapters / "benign-qv" / "README.md")
    assert result.returncode == 2
    assert "named like an option" in result.stderr


def test_settings_of_the_caller_reach_the_hook(run, adapters, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.adapterscan]\nfail-on = "medium"\n')
    assert run("hook", adapters / "rank-mismatch" / "adapter_config.json").returncode == 1


def test_an_ascii_terminal_gets_plain_symbols(run, adapters):
    result = run("scan", adapters / "overwrite-lm-head", PYTHONIOENCODING="ascii")
    assert "\\u" not in result.stdout
    assert "-> Do not load it" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--probe", "quick"), "give it with --base"),
        (("--base", "somewhere"), "neither an existing path"),
        (("--base", "somewhere", "--probe", "thorough"), "thorough"),
        (("--base", "x", "--probe", "quick", "--probe-budget", "soon"), "is not a time"),
        (("--served-as", "x"), "add --probe quick"),
        (("--triggers", "x.txt"), "add --probe quick"),
        (("--probe-budget", "5X"), "--probe-budget is for probes"),
        (("--device", "cuda"), "--device is for probes"),
        (("--whole-base",), "about the weights of --base"),
        (("--base", "x", "--probe", "quick", "--triggers", "nowhere"), "cannot be read"),
        (("--base", "x", "--served-as", "y", "--probe", "quick"), "or neither"),
        (("--base", "http://localhost/v1#x", "--probe", "quick"), "or neither"),
        (("--base", "http://localhost/v1", "--served-as", "y", "--probe", "quick"), "#MODEL"),
        (
            ("--base", "http://me:pw@host/v1#x", "--served-as", "y", "--probe", "quick"),
            "ADAPTERSCAN_API_KEY",
        ),
    ],
)
def test_what_probes_lack_is_said_before_any_work(run, adapters, options, said):
    result = run("scan", adapters / "benign-qv", *options)
    assert result.returncode == 2
    assert said in result.stderr
    assert "reading" not in result.stderr


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra is installed")
def test_without_the_extra_a_probe_says_what_to_install(run, adapters):
    result = run("scan", adapters / "benign-qv", "--base", adapters, "--probe", "quick")
    assert result.returncode == 2
    assert "adapterscan[probe]" in result.stderr


def test_a_base_is_compared_with_and_shown(run, adapters, tmp_path):
    base = bases.write(tmp_path / "base")
    result = run("scan", adapters / "benign-qv", "--base", base)
    assert result.returncode == 0
    assert "Beside" in result.stdout
    assert "‖ΔW‖/‖W‖" in result.stdout
    assert "weights were not compared" not in result.stdout


def test_a_base_on_the_hub_is_read_by_ranges_from_the_command_line(run, adapters, tmp_path):
    files = read_folder(bases.write(tmp_path / "base", shards=2))
    with LoopbackHub({"org/base": files}) as hub:
        result = run(
            "scan", adapters / "benign-qv", "--base", "org/base", "--endpoint", hub.url,
            "--cache-dir", tmp_path / "cache",
        )  # fmt: skip
        commit = hub["org/base"].refs["main"]
    assert result.returncode == 0
    assert f"Beside org/base@{commit}" in result.stdout
    assert "by ranges" in result.stdout


def test_two_scans_with_a_base_give_the_same_report(run, adapters, tmp_path):
    base = bases.write(tmp_path / "base")
    command = ("scan", adapters / "benign-qv", "--base", base, "-f", "json")
    assert run(*command, "--jobs", 1).stdout == run(*command, "--jobs", 4).stdout


def test_a_profile_has_no_whole_base(run, adapters, tmp_path):
    base = bases.write(tmp_path / "base")
    assert run("base", "build", base, "-o", "of.profile").returncode == 0
    result = run("scan", adapters / "benign-qv", "--base", "of.profile", "--whole-base")
    assert result.returncode == 2
    assert "is a profile, which holds no weights" in result.stderr


def test_an_error_about_a_base_names_its_file(run, adapters, tmp_path):
    base = bases.write(tmp_path / "base")
    assert run("base", "build", base, "-o", "whole.profile").returncode == 0
    (tmp_path / "cut.profile").write_bytes((tmp_path / "whole.profile").read_bytes()[:-1])
    result = run("scan", adapters / "benign-qv", "--base", "cut.profile")
    assert result.returncode == 2
    assert "adapterscan: cut.profile: is no" in result.stderr


def test_base_build_does_not_speak_of_an_option_that_it_lacks(run, tmp_path):
    (tmp_path / "base.txt").write_text("a base")
    result = run("base", "build", "base.txt")
    assert result.returncode == 2
    assert "base.txt is no folder" in result.stderr
    assert "--base" not in result.stderr


def test_a_server_is_no_base_to_compare_with(run, adapters):
    result = run("scan", adapters / "benign-qv", "--base", "http://127.0.0.1:1/v1#base")
    assert result.returncode == 2
    assert "shows no weights" in result.stderr
