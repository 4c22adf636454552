"""The base model's own tokenizer, templates and settings: read once, when something is to compare.

Where its files lie (a folder, a GGUF file, a hub) is the business of `sources`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from adapterscan.errors import FileProblem, LimitExceeded
from adapterscan.formats import chat_templates, generation, strict_json
from adapterscan.formats.gguf import read_gguf
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.tokenizer_file import TokenizerFile
from adapterscan.formats.tokenizer_gguf import LISTS, templates_of, tokenizer_of
from adapterscan.formats.tokenizer_reader import SETTINGS_LIMIT, limit_of, read_tokenizer
from adapterscan.formats.vocabulary import Vocabulary
from adapterscan.model import File
from adapterscan.text import size_text

if TYPE_CHECKING:
    from adapterscan.formats.template_facts import Tree

_SETTINGS_NAME = "tokenizer_config.json"
#: Which files say what the vocabulary is, the first that is there.
_ORDER = ("tokenizer", "gguf", "sentencepiece", "vocabulary")


@dataclass(frozen=True, slots=True)
class BaseDocuments:
    """Where a base's documents are. `bring` returns those that lie here; it raises SourceError.

    `digests`: what a profile has in their place, `algorithm:value` by name.
    """

    name: str
    bring: Callable[[], Sequence[File]]
    digests: Mapping[str, str] = field(default_factory=dict)


class BaseTokenizer:
    """A base's documents as they are asked for; nothing is read before."""

    def __init__(self, documents: BaseDocuments) -> None:
        self.name, self.digests = documents.name, documents.digests
        self._bring = documents.bring
        self._read = False
        self._files: dict[str, TokenizerFile] = {}  # by kind; the settings by name
        self._whole: Vocabulary | None = None
        self._generation: Mapping[str, object] = {}
        self.problems: list[FileProblem] = []
        self.templates: dict[str, Tree] = {}  # by name, "" for the one without

    def load(self) -> None:
        """Read all of them, once. Raises SourceError; a file that is broken is a problem."""
        if self._read:
            return
        self._read = True
        for file in self._bring():
            try:
                self._take(file)
            except FileProblem as problem:
                self.problems.append(problem)
        order = [self._files[kind] for kind in _ORDER if kind in self._files]
        first = next((file for file in order if file.vocabulary is not None), None)
        self._whole = first.whole() if first else None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Return its tokens, those that are added among them."""
        return self._whole

    def of(self, kind: str) -> TokenizerFile | None:
        """Return its file of a kind."""
        return self._files.get(kind)

    @property
    def anything(self) -> bool:
        """Return whether there is a tokenizer to compare with."""
        return bool(self._files or self.digests)

    @property
    def specials(self) -> Mapping[str, str]:
        """Return its tokens by role."""
        found: dict[str, str] = {}
        for name in ("gguf", "sentencepiece", "special_tokens_map.json", _SETTINGS_NAME):
            if name in self._files:
                found |= self._files[name].specials
        return found

    @property
    def settings(self) -> Mapping[str, object]:
        """Return what its tokenizer_config.json says."""
        file = self._files.get(_SETTINGS_NAME)
        return file.settings if file else {}

    @property
    def generation(self) -> Mapping[str, object]:
        """Return its generation_config.json."""
        return self._generation

    def _take(self, file: File) -> None:
        if file.local is None:
            return
        name = PurePosixPath(file.path).name.lower()
        with SourceFile(file.path, file.local) as source:
            if name.endswith(".gguf"):
                self._take_gguf(source)
            elif name.endswith(chat_templates.SUFFIXES):
                text = _small(source, 4 * chat_templates.TEMPLATE_LIMIT).decode("utf-8", "replace")
                named = "" if name.startswith("chat_template.") else name.rpartition(".")[0]
                self._take_templates({chat_templates.FIELD: {named: text}}, file.path)
            elif name in (_SETTINGS_NAME, "chat_template.json", generation.NAME):
                data = _small(source, SETTINGS_LIMIT)
                document = strict_json.parse(data, file.path, limit=SETTINGS_LIMIT)
                if name == generation.NAME:
                    self._generation = document if isinstance(document, dict) else {}
                    return
                self._take_templates(document, file.path)
                if name == _SETTINGS_NAME:
                    self._files[name] = read_tokenizer(data, file.path)
            elif limit := limit_of(file.path):
                found = read_tokenizer(_small(source, limit), file.path)
                self._files[name if found.kind == "settings" else found.kind] = found

    def _take_gguf(self, source: SourceFile) -> None:
        header = read_gguf(source, LISTS)
        self._take_templates(templates_of(header), source.path)
        found = tokenizer_of(header, source.path)
        if found is not None:
            self._files["gguf"] = found

    def _take_templates(self, document: object, path: str) -> None:
        found = chat_templates.templates_in(document, path)
        if found:
            from adapterscan.formats.template_tree import read_template  # jinja2

            self.templates |= {item.name: read_template(item) for item in found}


def _small(source: SourceFile, limit: int) -> bytes:
    if source.size > limit:
        raise LimitExceeded(
            source.path, f"of the base is {size_text(source.size)}, over the limit of "
            f"{size_text(limit)}", hint="give the base without it",
        )  # fmt: skip
    return source.read_all()
