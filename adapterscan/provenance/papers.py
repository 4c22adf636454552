"""What is read for provenance beside the weights: papers as bytes, and what any text gives away.

Papers are cards, licences and signatures, kept for the detectors. Texts are searched for secrets
and traces as they pass, and not kept: a report names the place and never the secret.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from adapterscan.errors import FileProblem, LimitExceeded
from adapterscan.formats import front_matter
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.secrets import Secret, find_secrets, unescaped, without
from adapterscan.formats.sniff import sniff
from adapterscan.formats.traces import find_traces
from adapterscan.model import File, FileKind, Skipped
from adapterscan.text import size_text

if TYPE_CHECKING:
    from adapterscan.formats.pickle_file import PickleFile

PAPER_LIMIT = 4 << 20  # bytes of one; the signature of 10,000 files has 2 MB
PAPERS_LIMIT = 16 << 20  # of all of a target
HEADS_LIMIT = 1 << 20  # characters of the heads of all cards
SEARCHED = 4 << 20  # bytes of one text
SEARCHED_IN_ALL = 32 << 20  # of all of a target
MOST = 5_000  # secrets that are kept, and traces
_HEAD = 4096
_MEMBERS = 100  # of an archive that are searched
_MEMBER = 1 << 20  # bytes of one
_LICENCE = re.compile(
    r"(?:licen[cs]e|copying|unlicense|notice|use_policy)(?:[._-][\w.-]{0,40})?", re.IGNORECASE
)
_SIGNATURE = (".sig", ".sigstore", ".sigstore.json", ".asc", ".minisig", ".intoto.jsonl")
#: Files of text that hold data of the model, not words of its author.
_VOCABULARIES = frozenset("tokenizer.json vocab.json merges.txt vocab.txt tekken.json".split())
_MEDIA = frozenset(
    ".avif .bmp .flac .gif .ico .jpeg .jpg .m4a .mkv .mov .mp3 .mp4 .ogg .pdf .png .tif .tiff .ttf "
    ".wav .webm .webp .woff .woff2 .arrow .parquet".split()
)
_WIDE = b"\xff\xfe\0\0"
_BOMS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret in a file, or in a member of an archive."""

    path: str
    member: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class Found:
    """Something personal in a file, and how often."""

    path: str
    kind: str
    text: str
    times: int


@dataclass(slots=True)
class Papers:
    """What was read so far. `papers` and heads by path, cards and licences by folder."""

    papers: dict[str, bytes] = field(default_factory=dict)
    cards: dict[str, str] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    traces: list[Found] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    held: int = 0  # bytes of papers
    parsed: int = 0  # characters of heads
    room: int = SEARCHED_IN_ALL  # bytes that may still be searched
    heads: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, file: File, source: SourceFile) -> None:
        """Keep a paper, and search what a file says. Raises what reading raises."""
        if is_paper(file) and (held := self._held(file, source.size)):
            self.papers[file.path] = source.read(0, held)
            self.held += held
            folder = file.path.rpartition("/")[0]
            if file.kind is FileKind.CARD:
                self.cards.setdefault(folder, file.path)
            elif is_licence(file.path):
                self.licences.setdefault(folder, file.path)
        for member, data in _packed(file, source):
            text, binary = _decode(data[: self.room])
            self.room -= min(self.room, len(data))
            self.search(file.path, member, text, binary=binary)
        length, header = _searchable(file, source)
        if not length:
            return
        taken = self._afford(file.path, length, source.size if not header else length)
        text, binary = _decode(source.read(0, taken))
        self.search(file.path, "", text, binary=binary or header)

    def take_pickles(self, path: str, found: PickleFile) -> None:
        """Search the texts in the pickles of a file."""
        from adapterscan.formats.pickle_texts import texts

        for member, text in texts(found, min(SEARCHED, self.room)):
            self.room -= min(self.room, len(text))
            self.search(path, member, text)

    def search(self, path: str, member: str, text: str, *, binary: bool = False) -> None:
        """Keep what a text gives away, and where a search was cut."""
        text = unescaped(text)
        found = find_secrets(text, binary=binary)
        room = MOST - len(self.leaks)
        self.leaks += [Leak(path, member, secret) for secret in found.secrets[:room]]
        if found.cut:
            self.skipped.append(
                Skipped(
                    path, "has more places that look like a secret than are looked at "
                    f"({', '.join(found.cut)})", failed=True, detector="leaks",
                    hint="honest files have a few; search it with a tool for secrets",
                )
            )  # fmt: skip
        traces = find_traces(without(text, found.secrets))[: MOST - len(self.traces)]
        self.traces += [Found(path, item.kind, item.text, item.times) for item in traces]

    def of(self, path: str) -> str:
        """Return a paper as text, "" where there is none."""
        return _decode(self.papers.get(path, b""))[0]

    def head(self, path: str) -> Mapping[str, Any]:
        """Return what the head of a card says, {} where it says nothing that can be read."""
        if path not in self.heads:
            self.heads[path] = {}
            block = front_matter.split(self.of(path))[0]
            self.parsed += len(block)
            try:
                if self.parsed > HEADS_LIMIT:
                    reason = f"goes with other cards over {HEADS_LIMIT:,} characters of heads"
                    raise LimitExceeded(path, reason, hint="scan the folders one by one")
                self.heads[path] = front_matter.parse(block, path)
            except FileProblem as problem:
                told = Skipped(path, problem.reason, False, problem.hint, "card")
                self.skipped.append(told)
        return self.heads[path]

    def card_of(self, folder: str) -> str:
        """Return the path of the card in `folder`, or else of the one at the top, or ""."""
        return self.cards.get(folder) or self.cards.get("", "")

    def _held(self, file: File, size: int) -> int:
        room = PAPERS_LIMIT - self.held
        held = min(size, PAPER_LIMIT, room)
        if held < size:
            self.skipped.append(
                Skipped(
                    file.path, f"only {size_text(held)} of {size_text(size)} were compared",
                    failed=is_signature(file.path), detector="papers",
                    hint="cards and signatures have kilobytes; look at it yourself",
                )
            )  # fmt: skip
        return held

    def _afford(self, path: str, length: int, size: int) -> int:
        taken = min(length, SEARCHED, self.room)
        self.room -= taken
        if taken < size:
            self.skipped.append(
                Skipped(
                    path, f"only the first {size_text(taken)} of {size_text(size)} were searched "
                    "for secrets", failed=False, detector="leaks",
                    hint="search the rest with a tool for secrets before you publish it",
                )
            )  # fmt: skip
        return taken


def is_paper(file: File) -> bool:
    """Return whether a file is a card, a licence or a signature, by its name."""
    return file.kind is FileKind.CARD or is_licence(file.path) or is_signature(file.path)


def is_licence(path: str) -> bool:
    """Return whether a file is called as licences are."""
    name = PurePosixPath(path).name
    return _LICENCE.fullmatch(name) is not None and not name.lower().endswith((".py", ".json"))


def is_signature(path: str) -> bool:
    """Return whether a file is called as detached signatures are."""
    return path.lower().endswith(_SIGNATURE)


def _searchable(file: File, source: SourceFile) -> tuple[int, bool]:
    """Return how many bytes of a file can hold texts, and whether they are the header of a
    container."""
    name = PurePosixPath(file.path).name.lower()
    if name in _VOCABULARIES or PurePosixPath(name).suffix in _MEDIA or not source.size:
        return 0, False
    head = source.read(0, _HEAD)
    container = sniff(head)
    if container == "safetensors":
        return min(source.size, 8 + int.from_bytes(head[:8], "little"), SEARCHED), True
    if container == "gguf":
        return min(source.size, SEARCHED // 4), True
    if file.kind in (FileKind.WEIGHTS, FileKind.PICKLE):
        return (source.size, False) if container == "text" else (0, False)
    return (source.size, False) if container in ("text", "unknown") else (0, False)


def _packed(file: File, source: SourceFile) -> Iterator[tuple[str, bytes]]:
    """Yield (member, bytes) of what is packed in a file that no loader takes for weights."""
    if file.kind in (FileKind.WEIGHTS, FileKind.PICKLE) or not source.size:
        return
    container = sniff(source.read(0, _HEAD))
    if container == "gzip":
        with suppress(zlib.error):
            inflate = zlib.decompressobj(47)
            yield "", inflate.decompress(source.read(0, SEARCHED // 4), SEARCHED)
    elif container == "zip":
        from adapterscan.formats.zip_archive import read_archive, read_member

        archive = read_archive(source)
        for member in archive.members[:_MEMBERS] if archive else ():
            suffix = PurePosixPath(member.name.lower()).suffix
            if suffix not in _MEDIA and 0 < member.size <= _MEMBER:
                yield member.name, read_member(source, member, _MEMBER)[0]


def _decode(data: bytes) -> tuple[str, bool]:
    """Return bytes as text, and whether they are more than text."""
    if data[:4] == _WIDE or (data[1:4] == data[5:8] == b"\0\0\0" and data[4:5] != b"\0"):
        return data.removeprefix(_WIDE).decode("utf-32-le", "replace"), False
    if encoding := _BOMS.get(data[:2]):
        return data[2:].decode(encoding, "replace"), False
    start = data[:512]
    if start and start[1::2].count(0) > len(start) * 0.4:
        return data.decode("utf-16-le", "replace"), False
    if start and start[::2].count(0) > len(start) * 0.4:
        return data.decode("utf-16-be", "replace"), False
    try:
        return data.decode("utf-8"), b"\0" in data
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 4:  # cut in the middle of a character
            return data[: error.start].decode("utf-8"), b"\0" in data
        return data.decode("latin-1"), True
