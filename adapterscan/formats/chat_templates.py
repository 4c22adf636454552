"""Find the chat templates in a file: texts only, nothing is parsed as a template here.

Sources: transformers 5.23 (`tokenizer_config.json` and `processor_config.json` have one text or a
list of named ones; `chat_template.json`; `chat_template.jinja` and `additional_chat_templates/`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from adapterscan.errors import LimitExceeded
from adapterscan.text import size_text

TEMPLATE_LIMIT = 128 << 10  # characters of one; the longest of seventy published ones has 17,000
TEMPLATES_LIMIT = 512 << 10  # characters of all in one target
SUFFIXES = (".jinja", ".jinja2", ".j2")
FIELD = "chat_template"


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template: the file that it is in, what it is called there ("" for one), its text."""

    path: str
    name: str
    text: str


def templates_in(document: object, path: str, room: int = TEMPLATES_LIMIT) -> list[Template]:
    """Return the chat templates of a JSON document's top level.

    Raises LimitExceeded for one that is too long, or more than `room` characters together.
    """
    found = []
    for name, text in islice(_texts(document), 1000):
        room -= len(text)
        found.append(template(path, name, text, room))
    return found


def template(path: str, name: str, text: str, room: int = TEMPLATES_LIMIT) -> Template:
    """Return a template. Raises LimitExceeded where it is too long, or `room` below 0."""
    if len(text) > TEMPLATE_LIMIT or room < 0:
        limit = TEMPLATE_LIMIT if len(text) > TEMPLATE_LIMIT else TEMPLATES_LIMIT
        raise LimitExceeded(
            path, f"has chat templates over the limit of {size_text(limit)}",
            hint="published ones have up to 17 kB; treat it as hostile",
        )  # fmt: skip
    return Template(path, name, text)


def _texts(document: object) -> Iterator[tuple[str, str]]:
    if not isinstance(document, dict):
        return
    match document.get(FIELD):
        case str(text):
            yield "", text
        case dict(named):
            yield from ((str(name), text) for name, text in named.items() if isinstance(text, str))
        case list(named):
            for item in named:
                if isinstance(item, dict) and isinstance(item.get("template"), str):
                    yield str(item.get("name", "")), item["template"]
