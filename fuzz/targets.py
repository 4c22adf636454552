"""What is fuzzed: one function for each parser, fed with bytes, and the seeds that it starts from.

A target may raise `AdapterscanError`; anything else that comes out of it is a defect of ours.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapterscan.calibration import read_reference
from adapterscan.detectors import BUILT_IN
from adapterscan.errors import AdapterscanError
from adapterscan.formats import chat_templates, strict_json
from adapterscan.formats.config import CONFIG_LIMIT, read_config
from adapterscan.formats.gguf import read_gguf
from adapterscan.formats.hooks import find_hooks
from adapterscan.formats.model_card import card_text, set_apart
from adapterscan.formats.patterns import keyed, match_all, saved
from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.sniff import parse_lfs_pointer, sniff
from adapterscan.formats.template_tree import read_template
from adapterscan.formats.torch_file import read_torch
from adapterscan.model import Artifact, File, FileKind, Ref, SourceKind
from adapterscan.onbase.profile import Profile
from adapterscan.probes.own import read_wordings
from adapterscan.replay import claim
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, file_kind, open_artifact, parse_ref
from adapterscan.sources.base_shards import files_of, is_tied, parsed
from adapterscan.sources.hub_plan import plan
from adapterscan.together.fingerprint import read_fingerprints
from fixtures.containers import with_length
from fixtures.folder import BIN, CONFIG, WEIGHTS

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "fixtures" / "adapters"
_DEFECT = "defect of adapterscan"


@dataclass(frozen=True, slots=True)
class Target:
    """A parser under test. `most`: the longest input that is tried, in bytes."""

    feed: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    most: int = 4096


class Memory:
    """Bytes as the file that a reader is given."""

    def __init__(self, data: bytes, path: str = "file") -> None:
        self.path, self.size, self._data = path, len(data), data

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`."""
        return self._data[start : start + max(0, length)]

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Do nothing: all is here."""


@cache
def _place() -> Path:
    """Return a folder for this process, in memory where there is such a disk."""
    memory = Path("/dev/shm")  # noqa: S108  a new folder of our own inside it
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))


def _file(data: bytes, name: str) -> Path:
    path = _place() / name
    path.write_bytes(data)
    return path


def _committed(*names: str) -> Iterator[bytes]:
    for name in names:
        yield from (path.read_bytes() for path in sorted(ADAPTERS.rglob(name)))


def _header(data: bytes) -> None:
    read_safetensors(Memory(with_length(data), WEIGHTS))


def _headers() -> Iterator[bytes]:
    for data in _committed("*.safetensors"):
        yield data[8 : 8 + int.from_bytes(data[:8], "little")]


def _pickle(data: bytes) -> None:
    sniff(data[:1024])
    parse_lfs_pointer(data)
    found = find_pickles(Memory(data, BIN))
    for purpose in ("weights", "trainer"):
        pickle_facts(found, purpose)  # type: ignore[arg-type]  # a literal of two
    read_torch(found)


def _json(data: bytes) -> None:
    document = strict_json.parse(data, "config.json", limit=1 << 20)
    with suppress(AdapterscanError):
        chat_templates.templates_in(document, "config.json")
    find_hooks(document, "config.json")


def _config(data: bytes) -> None:
    if len(data) <= CONFIG_LIMIT:
        read_config(data, CONFIG)


def _pattern(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()
    names = ["base_model.model.layers.0.self_attn.q_proj", "a" * 40]
    match_all([text, keyed(text), saved(text)], names)


def _template(data: bytes) -> None:
    read_template(chat_templates.template("t.jinja", "", data.decode("utf-8", "replace")))


def _card(data: bytes) -> None:
    local = _file(data, "README.md")
    card = File("README.md", len(data), FileKind.CARD, local)
    folder = Ref("x", SourceKind.FOLDER, "x")
    set_apart(card_text(Artifact(folder, "x", (card,)), ""))


def _listing(data: bytes) -> None:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    names = [(line[:-1], len(line) << (ord(line[-1]) % 40)) for line in lines if line]
    plan((File(n, size, file_kind(n), None) for n, size in names), max_bytes=1 << 60)
    for name, _ in names:
        with suppress(AdapterscanError):
            parse_ref(name)


def _index(data: bytes) -> None:
    document = parsed(data, "model.safetensors.index.json")
    is_tied(document)
    files_of(document, ["model.safetensors", "a.safetensors"])


def _report(data: bytes) -> None:
    said = claim(_file(data, "report.json"), None)
    said.conversations(said.requests)
    said.holds("I cannot help with that.")


def _adapter(data: bytes) -> None:
    """Scan a folder: a config, a header and what follows it, parted by the bytes `=====`."""
    config, header, *rest = [*data.split(b"=====", 2), b"", b""][:3]
    (_place() / "adapter").mkdir(exist_ok=True)
    _file(config, f"adapter/{CONFIG}")
    _file(with_length(header, b"".join(rest)), f"adapter/{WEIGHTS}")
    artifact = open_artifact(parse_ref(str(_place() / "adapter")), HubOptions())
    report = scan(artifact, load_rules(), detectors=BUILT_IN, options=ScanOptions(1))
    for item in report.coverage.skipped:
        if _DEFECT in item.hint:
            raise AssertionError(item)


def _adapters() -> Iterator[bytes]:
    for path in sorted(ADAPTERS.iterdir()):
        config, weights = path / CONFIG, path / WEIGHTS
        if config.is_file() and weights.is_file() and weights.stat().st_size < 30_000:
            data = weights.read_bytes()
            length = int.from_bytes(data[:8], "little")
            yield b"=====".join((config.read_bytes(), data[8 : 8 + length], data[8 + length :]))


def _templates() -> Iterator[bytes]:
    yield (ROOT / "tests" / "formats" / "honest_templates.txt").read_bytes()
    for data in _committed("tokenizer_config.json", "*.jinja", "chat_template.json"):
        with suppress(ValueError):
            found = json.loads(data).get("chat_template")
            yield from [found.encode()] if isinstance(found, str) else []
        yield data
    yield b"{% if 'x' in messages[-1].content %}{{ 'a' * 9 }}{% endif %}{% generation %}{% endgeneration %}"  # noqa: E501


def _ggufs() -> Iterator[bytes]:
    def text(value: bytes) -> bytes:
        return len(value).to_bytes(8, "little") + value

    head = b"GGUF" + (3).to_bytes(4, "little")
    fields = text(b"general.alignment") + (4).to_bytes(4, "little") + (32).to_bytes(4, "little")
    words = text(b"t") + (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
    words += (2).to_bytes(8, "little") + text(b"a") + text(b"b")
    tensor = text(b"w") + (2).to_bytes(4, "little") + (4).to_bytes(8, "little") * 2 + bytes(12)
    counts = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    yield head + counts + fields + words + tensor + bytes(96)


def _profiles() -> Iterator[bytes]:
    from adapterscan.onbase.base import BaseTensor
    from adapterscan.onbase.profile import About, end_of, header_of, layout_of

    what = About("b", "i", True, 10, (BaseTensor("w.weight", "F32", (4, 4)),), {})
    layout = layout_of(what)
    yield header_of(what, layout) + bytes(end_of(layout))


def _prints() -> Iterator[bytes]:
    sketch = base64.b64encode(bytes(128)).decode()
    module = {"shape": [4, 4], "norm": 1.0, "spectrum": [1.0, 0.5], "sketch": sketch}
    one = {"name": "a", "sha256": "0" * 64, "base_model": None, "modules": {"q": module}}
    yield json.dumps({"format": "adapterscan-fingerprints/1", "adapters": [one]}).encode()


def _references() -> Iterator[bytes]:
    from adapterscan.calibration import BUILT_IN as FILE

    table = json.loads(FILE.read_bytes())
    yield json.dumps({**table, "members": table["members"][:2]}).encode()


def _reports() -> Iterator[bytes]:
    for name in ("behaviour.trigger", "behaviour.refusals_lost"):
        fact = {
            "name": name, "subject": {"kind": "adapter", "file": "a", "name": ""}, "value": 1,
            "details": {"requests": "sums", "trigger": "t", "place": "before", "payload": "p",
                        "request": "r"},
        }  # fmt: skip
        found = {"rule": "r", "evidence": [fact]}
        report = {
            "target": "org/name", "commit": "0" * 40, "files": [{"path": "a", "sha256": "0"}],
            "versions": {"base": "b"}, "findings": [found],
        }  # fmt: skip
        yield json.dumps({"reports": [report]}).encode()


def _lines() -> Iterator[bytes]:
    yield b"adapter_config.json1\nadapter_model.safetensors9\na/../bz\nmodel-00001-of-2.bin~"
    yield "ä\u202eb.pkl5\nCON.txt1\nhttps://huggingface.co/a/b/tree/main1\na/b@main:c1".encode()


TARGETS: dict[str, Target] = {
    "header": Target(_header, _headers),
    "pickle": Target(_pickle, lambda: _committed("*.pkl", "*.bin", "*.pt"), 16384),
    "json": Target(_json, lambda: _committed("*.json")),
    "config": Target(_config, lambda: _committed(CONFIG)),
    "pattern": Target(_pattern, lambda: [rb"(.*\.)?(q|v)_proj$", rb"^(?!.*lm_head).*\d+"], 200),
    "template": Target(_template, _templates, 8192),
    "gguf": Target(lambda data: read_gguf(Memory(data, "base.gguf")), _ggufs),
    "card": Target(_card, lambda: _committed("README.md")),
    "listing": Target(_listing, _lines),
    "index": Target(_index, lambda: [b'{"weight_map": {"w": "a.safetensors"}, "text_config": {}}']),
    "report": Target(_report, _reports),
    "reference": Target(lambda data: read_reference(_file(data, "reference.json")), _references),
    "fingerprints": Target(lambda data: read_fingerprints(_file(data, "prints.json")), _prints),
    "profile": Target(lambda data: Profile(_file(data, "base.profile")), _profiles),
    "wordings": Target(lambda data: read_wordings(_file(data, "w.toml")), lambda: [b'texts=["a"]']),
    "adapter": Target(_adapter, _adapters, 30_000),
}
