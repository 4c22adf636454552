"""Trees and files made to hang, fill or drown whoever reads them: each scan ends, and says so."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
import zlib

import pytest

from fixtures import temporary
from fixtures.folder import CONFIG, WEIGHTS, as_json, config, save

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX file types")
SECONDS = 60  # on a busy machine; alone each takes one or two
CALL = b"cposix\nsystem\n(S'echo inert'\ntR."  # never unpickled


def a_socket(folder):
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()  # noqa: PTH109  a socket's path may have 108 bytes
    os.chdir(folder)
    try:
        server.bind("training_args.bin")
    finally:
        os.chdir(here)
        server.close()


def a_device(folder):
    try:
        os.mknod(folder / "training_args.bin", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


def a_link_to(target):
    return lambda folder: (folder / "training_args.bin").symlink_to(target)


def sparse(name):
    def make(folder):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 40)

    return make


def pipes(folder):
    for number in range(2000):
        os.mkfifo(folder / f"p{number}.bin")


def deep(folder):
    here = os.getcwd()  # noqa: PTH109
    os.chdir(folder)
    try:
        for _ in range(3000):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
    finally:
        os.chdir(here)


def many_files(folder):
    for number in range(20_000):
        (folder / f"f{number:06}.txt").touch()


def odd_names(folder):
    for number in range(200):
        place = os.fsencode(folder) + b"/" + bytes([0xFF, 0x80 + number % 100]) * 127
        os.close(os.open(place[: len(os.fsencode(folder)) + 253] + b"%02x" % (number % 256),
                         os.O_CREAT | os.O_WRONLY))  # fmt: skip


def loops(folder):
    for number in range(50):
        (folder / f"d{number}").mkdir()
        (folder / f"d{number}" / "up").symlink_to("..", target_is_directory=True)


def member(name, body, method, size, at):
    crc = 0
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, method, 0, 0, crc, len(body), size,
                        len(name), 0)  # fmt: skip
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, method, 0, 0, crc, len(body), size,
                          len(name), 0, 0, 0, 0, 0, at)  # fmt: skip
    return local + name + body, central + name


def archive(entries, body):
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries),
                      sum(map(len, entries)), len(body), 0)  # fmt: skip
    return body + b"".join(entries) + end


def overlapping_zip(folder):
    """Write 40,000 members that are all the same 250 kB, which inflate to 256 MB each."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bytes(256 << 20)) + packer.flush()
    local, central = member(b"x/data.pkl", body, 8, 256 << 20, 0)
    (folder / "pytorch_model.bin").write_bytes(archive([central] * 40_000, local))


def nested_zips(folder):
    data = CALL
    for depth in range(60):
        local, central = member(b"x/data.pkl" if not depth else b"n.zip", data, 0, len(data), 0)
        data = archive([central], local)
    (folder / "training_args.bin").write_bytes(data)


def tar_of_tars(folder):
    import io
    import tarfile

    data = CALL
    for _ in range(20):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name in ("a", "b"):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        data = out.getvalue()[: 4 << 20]
    (folder / "training_args.bin").write_bytes(data)


def gzip_bomb(folder):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = packer.compress(bytes(512 << 20)) + packer.flush()
    (folder / "training_args.bin").write_bytes(body)


def document(name, data):
    return lambda folder: (folder / name).write_bytes(data)


COLLIDING = b"{" + b",".join(b'"%d":1' % (n * ((1 << 61) - 1)) for n in range(60_000)) + b"}"
BOMBS = {
    "fifo": temporary.fifo,
    "socket": a_socket,
    "device": a_device,
    "2000 pipes": pipes,
    "proc link": a_link_to("/proc/self/mem"),
    "environ link": a_link_to("/proc/self/environ"),
    "endless link": a_link_to("/dev/zero"),
    "sparse terabyte of weights": sparse(WEIGHTS),
    "sparse terabyte of pickle": sparse("optimizer.pt"),
    "sparse terabyte of config": sparse(CONFIG),
    "sparse terabyte of an unknown kind": sparse("x.unheard-of"),
    "folders that lead up": loops,
    "3000 folders deep": deep,
    "20,000 files": many_files,
    "names of 255 bytes": odd_names,
    "overlapping zip": overlapping_zip,
    "60 zips in each other": nested_zips,
    "20 tars in each other": tar_of_tars,
    "gzip": gzip_bomb,
    "a million values": document("config.json", b"[" + b"1," * 1_000_000 + b"1]"),
    "100,000 levels": document(CONFIG, b'{"a":' * 100_000),
    "a million digits": document(CONFIG, b'{"r":' + b"9" * 1_000_000 + b"}"),
    "a million digits behind a point": document(CONFIG, b'{"r":0.' + b"9" * 1_000_000 + b"}"),
    "keys of one hash": document("config.json", COLLIDING),
    "one key, again and again": document(CONFIG, b"{" + b'"r":1,' * 60_000 + b'"r":1}'),
}
#: What loads nothing hidden: all of it is looked at, so nothing has to be said.
HARMLESS = {
    "folders that lead up", "20,000 files", "names of 255 bytes", "keys of one hash",
    "one key, again and again", "sparse terabyte of an unknown kind",
    "a million digits behind a point",
}  # fmt: skip


#: Weights are hashed whole, a terabyte of holes as well: until the time is up.
ENDLESS = ("sparse terabyte of weights", "sparse terabyte of pickle")


@pytest.mark.parametrize("bomb", ENDLESS)
def test_a_terabyte_of_holes_ends_when_its_time_is_up_and_the_others_are_read(run, tmp_path, bomb):
    save(tmp_path, as_json(config()))
    BOMBS[bomb](tmp_path)
    (tmp_path / "z.bin").write_bytes(CALL)
    result = run("scan", tmp_path, "-f", "json", "--timeout", "10s")
    (report,) = json.loads(result.stdout)["reports"]
    stopped = [s for s in report["coverage"]["skipped"] if "10 s and was stopped" in s["reason"]]
    assert len(stopped) == 1
    assert "posix" in {item["details"].get("module") for item in report["evidence"]}
    assert result.returncode == 1


@pytest.mark.parametrize("bomb", [name for name in BOMBS if name not in ENDLESS])
def test_a_bomb_ends_in_time_and_is_named(run, tmp_path, bomb):
    folder = tmp_path / "adapter"
    folder.mkdir()
    if bomb != "fifo":
        save(folder, as_json(config()))
    BOMBS[bomb](folder)
    began = time.monotonic()
    result = run("scan", folder, "-f", "json", "--timeout", f"{SECONDS}s")
    subprocess.run(["rm", "-rf", folder], check=True)  # too deep for Python's own
    assert time.monotonic() - began < SECONDS
    (report,) = json.loads(result.stdout)["reports"]
    assert "defect of adapterscan" not in result.stdout
    assert not any("was stopped" in item["reason"] for item in report["coverage"]["skipped"])
    assert result.stderr == ""
    if bomb not in HARMLESS:
        assert result.returncode in (1, 3), result.stdout[-2000:]
        assert report["findings"] or not report["coverage"]["complete"]
