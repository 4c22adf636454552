"""Take the tokenizers beside adapters as their files are read: facts of each, and what differs.

A vocabulary is let go when the next folder's is read. What needs names of tokens and was read
before them (settings of generation) waits for the tokenizer of its folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath

from adapterscan.errors import LimitExceeded, SourceError
from adapterscan.formats.generation import Setting, settings_in
from adapterscan.formats.generation_facts import facts_of as generation_facts
from adapterscan.formats.tokenizer_facts import MOST, facts_of, out_of_order
from adapterscan.formats.tokenizer_file import TokenizerFile
from adapterscan.formats.tokenizer_reader import read_tokenizer
from adapterscan.formats.vocabulary import Merges, Vocabulary
from adapterscan.model import Evidence, Skipped, Subject
from adapterscan.onbase.documents import BaseTokenizer
from adapterscan.onbase.tokenizer_differences import differences
from adapterscan.text import printable

FACTS_LIMIT = 20_000  # of all tokenizers of a target; an odd one has a few hundred


class Tokenizers:
    """What was seen of the tokenizers of a target. `base`: the base's own, to compare with."""

    def __init__(self, base: BaseTokenizer | None = None) -> None:
        self.base = base
        self.facts: list[Evidence] = []
        self.compared: list[Evidence] = []
        self.generation: list[Evidence] = []
        self.files = 0  # that were read
        self.beside = 0  # that were compared with the base's
        self.settings = 0  # of generation
        self.skipped: list[Skipped] = []
        self._folder = ""
        self._known: Vocabulary | None = None
        self._merges: Merges | None = None
        self._seen: dict[bytes, tuple[tuple[Evidence, ...], tuple[Evidence, ...]]] = {}
        self._waiting: list[Setting] = []
        self._loaded = False

    def take(self, data: bytes, path: str) -> None:
        """Read a tokenizer's file. Raises FileProblem; what was seen before it stays."""
        digest = hashlib.blake2b(data + PurePosixPath(path).name.encode()).digest()
        if digest in self._seen:  # the same in each checkpoint
            self.files += 1
            facts, compared = self._seen[digest]
            self._keep(path, _at(facts, path), _at(compared, path))
            return
        self.add(read_tokenizer(data, path), data, digest)

    def add(self, file: TokenizerFile, data: bytes = b"", digest: bytes = b"") -> None:
        """Keep what is seen in a file, and how it differs from the base's. Raises LimitExceeded."""
        self._enter(file.path)
        self.files += 1
        if file.vocabulary is not None:
            self._known = file.whole()
        facts = tuple(facts_of(file, file.vocabulary if file.kind == "tokenizer" else self._known))
        if file.kind == "merges":
            self._merges = file.merges
        elif file.kind == "vocabulary" and file.vocabulary is not None and self._merges is not None:
            facts += tuple(islice(out_of_order(file, file.vocabulary, self._merges), MOST))
        compared = tuple(self._compared(file, data))
        if file.kind == "tokenizer":
            self._seen[digest] = facts, compared
        self._keep(file.path, facts, compared)

    def take_generation(self, document: object, path: str, *, whole: bool) -> None:
        """Keep what settings of generation do, until the tokens that they mean have names."""
        self._enter(path)
        self.settings += whole
        self._waiting += settings_in(document, path, whole=whole)
        if whole and self.base is not None:
            self._load()
            self.generation += _against(document, self.base.generation, path)

    def finish(self) -> None:
        """Name what still waits; called when all was read."""
        known = self._known
        if known is None and self.base is not None and self._waiting:
            self._load()
            known = self.base.vocabulary
        for setting in self._waiting:
            self.generation += generation_facts(setting, known)
        self._waiting.clear()

    def _enter(self, path: str) -> None:
        """Begin with another folder: its tokens are others."""
        folder = str(PurePosixPath(path).parent)
        if folder != self._folder:
            self.finish()
            self._folder, self._known, self._merges = folder, None, None

    def _compared(self, file: TokenizerFile, data: bytes) -> Iterator[Evidence]:
        if self.base is None:
            return
        self._load()
        if not self.base.anything:
            return
        self.beside += 1
        yield from differences(file, self.base)
        promised = self.base.digests.get(PurePosixPath(file.path).name)
        if promised and not self.base.of("tokenizer") and promised not in _digests(data):
            yield Evidence(
                "tokenizer.file_differs", Subject("file", file.path), "another file", "",
                {"base": printable(self.base.name)},
            )  # fmt: skip

    def _load(self) -> None:
        """Read the base's, once; what stands in the way is told once."""
        if self._loaded or self.base is None:
            return
        self._loaded = True
        try:
            self.base.load()
        except SourceError as error:
            self.skipped.append(_not_read(self.base.name, error.reason, error.hint))
        for problem in self.base.problems:
            what = f"{problem.path} {problem.reason}"
            self.skipped.append(_not_read(self.base.name, what, problem.hint))
        if not self.base.anything and not self.skipped:
            self.skipped.append(
                Skipped(
                    "the base's tokenizer", f"{printable(self.base.name, 120)} has none to compare "
                    "with", failed=False, hint="give the base with its tokenizer files",
                )
            )  # fmt: skip

    def _keep(self, path: str, facts: Iterable[Evidence], compared: Iterable[Evidence]) -> None:
        self.facts += facts
        self.compared += compared
        if len(self.facts) + len(self.compared) > FACTS_LIMIT:
            del self.facts[FACTS_LIMIT:], self.compared[FACTS_LIMIT:]
            raise LimitExceeded(
                path, f"goes with other tokenizers over the limit of {FACTS_LIMIT:,} odd things",
                hint="treat it as hostile; scan the folders one by one",
            )  # fmt: skip


def _at(facts: Iterable[Evidence], path: str) -> Iterator[Evidence]:
    for fact in facts:
        yield replace(fact, subject=replace(fact.subject, file=path))


def _digests(data: bytes) -> set[str]:
    sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return {f"sha256:{hashlib.sha256(data).hexdigest()}", f"git-sha1:{sha1.hexdigest()}"}


def _not_read(name: str, reason: str, hint: str) -> Skipped:
    return Skipped(
        "the base's tokenizer", f"{printable(name, 120)}: {printable(reason, 200)}", failed=True,
        hint=hint,
    )  # fmt: skip


def _against(document: object, base: Mapping[str, object], path: str) -> Iterator[Evidence]:
    """Yield where answers no longer end as the base's do."""
    ends = isinstance(document, Mapping) and document.get("eos_token_id") is not None
    if base.get("eos_token_id") is not None and not ends:
        yield Evidence(
            "generation.setting", Subject("field", path, "eos_token_id"), "nothing", "",
            {"class": "never ends", "tokens": "", "count": 0},
        )  # fmt: skip
