"""What a scan connects to: the configured hub, and for files that lie here nothing at all.

Every name that is looked up and every connection is told by the interpreter itself (audit hooks) in
a process as a user's, its children included; and at the other addresses somebody listens.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from fixtures.containers import safetensors
from fixtures.folder import as_json, config, honest_tensors, save
from fixtures.loopback_hub import LoopbackHub, Sparse, read_folder
from tests.conftest import ROOT

TOKEN = "hf_plantedTokenOfNobody"
TRAP = """
import os, sys
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def look(event, arguments):
    if event.startswith('socket.') and event not in ('socket.__new__', 'socket.gethostname'):
        os.write(log, repr((event, arguments[1:] if event == 'socket.connect' else arguments)).encode() + b'\\n')
sys.addaudithook(look)
from adapterscan.cli import main
main()
"""  # noqa: E501


@contextmanager
def listener():
    """Yield the port of a server that no scan may speak to, and what came in."""
    came = []
    server = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.settimeout(2)
            came.append(connection.recv(4096))
            connection.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1], came
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


@pytest.fixture
def trapped(tmp_path):
    """Run the command line; return how it ended and the events of its sockets."""

    def command(*arguments, **environment):
        log = tmp_path / "sockets"
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.upper().startswith("HF_") and not key.upper().endswith("_PROXY")
        }
        result = subprocess.run(
            [sys.executable, "-c", TRAP, str(log), *map(str, arguments)],
            cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return result, log.read_text().splitlines() if log.exists() else []

    return command


def hostile(port):
    """Return the files of an adapter that names other addresses wherever a name can stand."""
    evil = f"http://localhost:{port}"
    settings = config(
        base_model_name_or_path=f"{evil}/org/base", revision=evil, cache_file=f"{evil}/x",
        tokenizer_name_or_path=evil, auto_mapping={"parent_library": evil},
        corda_config={"cache_file": evil, "covariance_file": evil},
    )  # fmt: skip
    pointer = f"version {evil}/spec/v1\noid sha256:{'0' * 64}\nsize 9\n".encode()
    return {
        "adapter_config.json": as_json(settings),
        "adapter_model.safetensors": safetensors(honest_tensors(), {"source": evil}),
        "other.safetensors": pointer,
        "config.json": as_json({"auto_map": {"AutoModel": f"{evil}--x.Y"}, "_name_or_path": evil}),
        "tokenizer_config.json": as_json({"chat_template": f"{{% include '{evil}' %}}"}),
        "model.safetensors.index.json": as_json({"weight_map": {"w": f"{evil}/w.safetensors"}}),
        "README.md": f"---\nbase_model: {evil}\n---\n![x]({evil}/a.png)\n".encode(),
        ".gitattributes": b"*.bin filter=lfs\n",
        "optimizer.pt": Sparse(
            80 << 20, {0: f"curllib.request\nurlopen\n(S'{evil}'\ntR.".encode()}
        ),
        "training_args.bin": f"curllib.request\nurlopen\n(S'{evil}'\ntR.".encode(),
    }


def test_a_folder_that_names_addresses_is_scanned_without_any_socket(trapped, tmp_path):
    with listener() as (port, came):
        folder = tmp_path / "adapter"
        folder.mkdir()
        for name, data in hostile(port).items():
            (folder / name).write_bytes(data[:])
        result, events = trapped("scan", folder, "-f", "json")
        assert len(json.loads(result.stdout)["reports"][0]["evidence"]) > 10
        assert events == []
        assert came == []


@pytest.mark.parametrize("command", ["merge", "compare", "hook", "calibrate"])
def test_no_command_on_folders_opens_a_socket(trapped, tmp_path, command):
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
        save(folder)
    given = {
        "hook": [folders[0] / "adapter_model.safetensors"],
        "calibrate": [*folders, "-o", tmp_path / "reference.json"],
    }
    result, events = trapped(command, *given.get(command, folders))
    assert result.returncode in (0, 1), result.stderr
    assert events == []


def elsewhere(events, hub):
    """Return the events that are not about the hub's own address."""
    host, port = hub.url.removeprefix("http://").split(":")
    return [item for item in events if not (f"'{host}'" in item and port in item)]


def faulty(faults, evil):
    match faults:
        case "redirected files":
            return {"away": evil}
        case "a next page":
            return {"next_page": f"{evil}/api/models/org/adapter/tree/main?cursor=9"}
        case "a renamed repository":
            return {"headers": {"Location": evil}}
        case "another way to download":
            return {"headers": {
                "X-Xet-Hash": "0" * 64, "X-Xet-Cas-Url": evil, "X-Xet-Refresh-Route": evil,
                "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": "9999999999",
                "Link": f'<{evil}/a>; rel="xet-auth", <{evil}/i>; rel="xet-reconstruction-info"',
            }}  # fmt: skip
    return {}


@pytest.mark.parametrize(
    "faults",
    ["none", "redirected files", "a next page", "a renamed repository", "another way to download"],
)
def test_a_hub_target_is_asked_for_at_the_hub_alone(trapped, tmp_path, faults):
    with listener() as (port, came), LoopbackHub({"org/adapter": hostile(port)}) as hub:
        hub["org/adapter"].faults.error_text = f"http://localhost:{port}"
        for name, value in faulty(faults, f"http://localhost:{port}").items():
            setattr(hub["org/adapter"].faults, name, value)
        result, events = trapped(
            "scan", "org/adapter", "-f", "json", "--endpoint", hub.url,
            "--cache-dir", tmp_path / "cache", HF_TOKEN=TOKEN,
        )  # fmt: skip
        assert result.returncode in (1, 2)
        assert events
        assert elsewhere(events, hub) == []
        assert came == []
        assert TOKEN not in result.stdout + result.stderr
        if faults in ("redirected files", "a next page"):
            (error,) = json.loads(result.stdout)["errors"]
            assert f"sends us to another address, localhost:{port}" in error["reason"]
            assert "ADAPTERSCAN_STORAGE=localhost" in error["hint"]


def test_storage_that_the_caller_allows_is_asked_without_the_token(trapped, tmp_path, adapters):
    files = {"org/adapter": read_folder(adapters / "benign-qv")}
    with LoopbackHub(files, token=TOKEN) as hub, LoopbackHub(files) as storage:
        hub["org/adapter"].faults.away = storage.url.replace("127.0.0.1", "localhost")
        result, _ = trapped(
            "scan", "org/adapter", "--endpoint", hub.url, "--cache-dir", tmp_path / "cache",
            HF_TOKEN=TOKEN, ADAPTERSCAN_STORAGE="localhost",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert storage.requests
        assert not any(request.authorized for request in storage.requests)
