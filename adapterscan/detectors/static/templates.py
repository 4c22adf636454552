"""Say what the chat templates beside an adapter do: conditions on what is said, code, instructions.

A template runs on every request, in front of the model. Loaders that read the adapter's tokenizer
use the one beside it instead of the base's.

Source: `formats/template_tree.py`.
Limits: a template that adds its text to every request is told (`template.instruction`) and not
judged: so do honest ones. With `--base`, `onbase/tokenizers.py` says what the base's has not.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.formats.chat_templates import Template
from adapterscan.formats.template_facts import CONSTRUCTS, MOST, Condition, is_prose
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

SHOWN = 300  # characters of a text that a template adds


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield what is seen in each template.

    `template.present`: characters. `template.condition`: the text that a request is held against.
    `template.construct`: its kind. `template.instruction`: the text.
    """
    for template, tree in contents.templates:
        about = subject(template)
        yield Evidence("template.present", about, len(template.text), "characters")
        for condition in tree.conditions:
            yield Evidence(
                "template.condition", about, printable(condition.literal), "",
                {
                    "form": condition.form, "kind": condition.kind, "line": condition.line,
                    "class": _class(condition),
                    "adds": printable(" ".join(condition.adds.split()), SHOWN),
                    "otherwise": printable(" ".join(condition.otherwise.split()), SHOWN),
                },
            )  # fmt: skip
        for construct in tree.constructs:
            yield Evidence(
                "template.construct", about, construct.kind, "",
                {
                    "what": CONSTRUCTS[construct.kind], "text": printable(construct.text),
                    "line": construct.line,
                },
            )  # fmt: skip
        for line, text in dict.fromkeys(tree.instructions[:MOST]):
            shown = printable(" ".join(text.split()), SHOWN)
            yield Evidence("template.instruction", about, shown, "", {"line": line})


def _class(condition: Condition) -> str:
    """Return "trigger", "switch", "words" or "markup".

    A trigger adds a sentence where words are met, or so many turns; a switch does where a tag or a
    command is met, or where something is not; words alone add none.
    """
    worded = condition.kind in ("text", "number")
    if worded and is_prose(condition.adds):
        return "trigger"
    if is_prose(condition.adds) or is_prose(condition.otherwise):
        return "switch"
    return "words" if condition.kind == "text" else "markup"


def subject(template: Template) -> Subject:
    """Return a template as a subject: a field of a document, or a file."""
    if template.path.lower().endswith((".json", ".gguf")):
        name = f"[{printable(template.name)}]" if template.name else ""
        return Subject("field", template.path, f"chat_template{name}")
    return Subject("file", template.path)


DETECTOR = Detector(
    "templates", 1, frozenset({Need.FILES}), "what chat templates do with a conversation", run,
    takes=lambda contents, _: contents.templates,
)  # fmt: skip
