"""A hub token is planted, and everything that a scan leaves behind is searched for it."""

import json
import os
import subprocess
import sys

import pytest

from fixtures.folder import as_json, config, save
from fixtures.loopback_hub import FOREVER, LoopbackHub, read_folder
from tests.conftest import ADAPTERS, ROOT

ISSUED = "hf_" + "PlantedTokenThatIsNobodys0123456789"[:34]
TOKENS = [ISSUED, "not-shaped-like-a-hub-token-93f1"]

FAULTS = {
    "nothing": {},
    "not accepted (401)": {"private": True},
    "gated (403)": {"gated": True},
    "disabled (403)": {"disabled": True},
    "too many requests (429)": {"limited": FOREVER, "limited_seconds": 9999},
    "an error for a while (500)": {"broken": 1},
    "missing (404)": {"missing": True},
    "another commit": {"sha": "0" * 40},
    "a redirect elsewhere": {"away": "http://localhost:9"},
    "a next page elsewhere": {"next_page": "http://localhost:9/x"},
    "cut short": {"cut_after": 100, "cuts": FOREVER},
    "other bytes than promised": {"tampered": {"README.md": b"x"}},
}


@pytest.fixture
def left_behind(tmp_path):
    """Run a command with a token in place; return its output and all that it wrote anywhere."""

    def command(token, *arguments, module="adapterscan", by="environment", cwd=ROOT):
        places = {name: tmp_path / name for name in ("home", "temporary", "cache")}
        for place in places.values():
            place.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = {
            **kept, "HOME": str(places["home"]), "TMPDIR": str(places["temporary"]),
            "HF_HOME": str(places["home"] / "hf"), "HF_DEBUG": "1", "COLUMNS": "200",
        }  # fmt: skip
        if by == "environment":
            environment["HF_TOKEN"] = token
        else:
            (tmp_path / "token").write_text(token)
            environment["HF_TOKEN_PATH"] = str(tmp_path / "token")
        result = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)], cwd=cwd, env=environment,
            capture_output=True, check=False,
        )  # fmt: skip
        files = [path for place in places.values() for path in place.rglob("*") if path.is_file()]
        names = b"".join(os.fsencode(path) for path in files)
        return result, names + b"".join(path.read_bytes() for path in files)

    return command


@pytest.mark.parametrize("token", TOKENS, ids=["issued", "other"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_hub_brings_the_token_to_light(left_behind, tmp_path, fault, token):
    files = {"org/adapter": read_folder(ADAPTERS / "benign-qv")}
    with LoopbackHub(files, token="hf_another") as hub:
        faults = hub["org/adapter"].faults
        faults.error_text = f"no: Bearer {token} is not known here"
        for name, value in FAULTS[fault].items():
            setattr(faults, name, value)
        result, written = left_behind(
            token, "scan", "org/adapter", "-f", "json", "-o", tmp_path / "cache" / "report.json",
            "--endpoint", hub.url, "--cache-dir", tmp_path / "cache",
        )  # fmt: skip
        assert hub.requests[0].authorized
    assert b"curl" in result.stderr  # the client's own log is on
    assert b"exit_code" in written
    assert token.encode() not in result.stdout + result.stderr + written


@pytest.mark.parametrize("by", ["environment", "file"])
@pytest.mark.parametrize("what", ["crash", "hang", "grow"])
def test_no_crash_of_ours_brings_the_token_to_light(left_behind, tmp_path, what, by):
    files = {**read_folder(ADAPTERS / "benign-qv"), "m.bin": f"!{what}!".encode()}
    with LoopbackHub({"org/adapter": files}) as hub:
        result, written = left_behind(
            ISSUED, "scan", "org/adapter", "--endpoint", hub.url, "--timeout", "4s", "--memory",
            "400MB", "--cache-dir", tmp_path / "cache", module="tests.hostile_reader", by=by,
        )  # fmt: skip
        assert hub.requests[0].authorized
    assert b"m.bin" in result.stdout
    assert ISSUED.encode() not in result.stdout + result.stderr + written


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_token_that_its_author_left_in_an_adapter_is_not_spread(left_behind, tmp_path, form):
    folder = tmp_path / "adapter"
    folder.mkdir()
    save(folder, config(base_model_name_or_path=ISSUED, **{ISSUED: ISSUED}))
    (folder / "config.json").write_bytes(as_json({"auto_map": {"x": f"{ISSUED}--a.B"}}))
    (folder / f"{ISSUED}.py").write_bytes(b"")
    result, _ = left_behind("", "scan", folder, "-f", form, "-v")
    assert b"hf_[redacted]" in result.stdout
    assert ISSUED.encode() not in result.stdout + result.stderr


def test_a_name_that_only_begins_like_a_token_stays_in_json(left_behind, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    save(folder, config(base_model_name_or_path="org/hf_transformers"))
    result, _ = left_behind("", "scan", folder, "-f", "json")
    (adapter,) = json.loads(result.stdout)["reports"][0]["adapters"]
    assert adapter["base_model"] == "org/hf_transformers"


def test_credentials_in_the_endpoint_are_not_shown(left_behind, tmp_path):
    files = {"org/adapter": read_folder(ADAPTERS / "benign-qv")}
    with LoopbackHub(files) as hub:
        secret = hub.url.replace("http://", "http://me:topsecretword@")
        hub["org/adapter"].faults.broken = 1
        result, written = left_behind(
            ISSUED, "scan", "org/adapter", "org/none", "--endpoint", secret, "--cache-dir",
            tmp_path / "cache",
        )  # fmt: skip
    assert result.returncode == 2
    ours = b"".join(line for line in result.stderr.splitlines() if b"adapterscan: " in line)
    assert b"topsecretword" not in result.stdout + ours + written
