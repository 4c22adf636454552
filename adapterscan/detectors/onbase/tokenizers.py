"""Say how tokenizers and chat templates beside adapters differ from the base model's own.

Source: `onbase/tokenizer_differences.py`; templates by their syntax trees
(`formats/template_tree.py`). Equal files, and files that say the same in another layout, give
nothing. Limits: an honest author who changes the tokenizer looks like a dishonest one, as far as
words, steps and numbers go. The base that was given is taken for the adapter's own. A condition or
a text that the base's template has somewhere else is not new.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.static.templates import subject
from adapterscan.formats.template_facts import Tree, is_prose
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

MOST = 50  # of each kind, of one template
SHOWN = 300


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield differences of tokenizers (`tokenizer.…`) and of templates.

    `template.differs`: new fixed texts; `template.new`: one condition, construct or sentence that
    the base's has not.
    """
    yield from contents.tokenizers.compared
    base = contents.tokenizers.base
    if base is None or not contents.templates:
        return
    base.load()
    theirs = {"": base.templates.get("default"), **base.templates}
    shapes = {tree.shape for tree in base.templates.values()}
    for template, tree in contents.templates:
        other = theirs.get(template.name) or theirs.get("")
        if other is not None and tree.shape not in shapes:
            yield from _against(subject(template), tree, other)


def _against(about: Subject, tree: Tree, other: Tree) -> Iterator[Evidence]:
    known = " ".join(other.texts)
    texts = [text for text in tree.texts if text not in known]
    held = {(c.form, c.literal) for c in other.conditions}
    said = {" ".join(text.split()) for _, text in other.instructions}
    built = {(c.kind, c.text) for c in other.constructs}
    new = [
        *(
            ("condition", c.line, c.literal, c.adds or c.otherwise)
            for c in tree.conditions
            if (c.form, c.literal) not in held and c.kind in ("text", "command", "number")
        ),
        *(
            ("sentence", line, text, "")
            for line, text in dict.fromkeys(tree.instructions)
            if " ".join(text.split()) not in said
        ),
        *(
            (f"construct: {c.kind}", c.line, c.text, "")
            for c in tree.constructs
            if (c.kind, c.text) not in built
        ),
    ]
    yield Evidence(
        "template.differs", about, len(texts), "texts",
        {
            "first": printable(texts[0], SHOWN) if texts else None, "new": len(new),
            "missing": sum(text not in " ".join(tree.texts) for text in other.texts),
        },
    )  # fmt: skip
    for what, line, text, adds in islice(new, MOST):
        yield Evidence(
            "template.new", about, printable(" ".join(text.split()), SHOWN), "",
            {
                "what": what, "line": line, "adds": printable(" ".join(adds.split()), SHOWN),
                "sentence": is_prose(text) or is_prose(adds),
            },
        )  # fmt: skip


DETECTOR = Detector(
    "tokenizers on the base", 1, frozenset({Need.FILES}), "tokenizers beside the base's own", run,
    takes=lambda contents, _: contents.tokenizers.beside
    or (contents.tokenizers.base and contents.templates),
)  # fmt: skip
