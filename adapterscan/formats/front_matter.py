"""Read the YAML block at the head of a card into lists, tables and texts; nothing is constructed.

The parser's events are taken, not its objects: no tags, no aliases (a few lines of which expand to
gigabytes), no guesses about types; every scalar stays the text that it was.
"""

from __future__ import annotations

from typing import Any

from adapterscan.errors import LimitExceeded, Malformed

LIMIT = 64 << 10  # characters; a card with the results of a dozen benchmarks has 10,000
_MOST = 20_000  # events
_DEEPEST = 16
_MARK = "---"
_HINT = "what the card says of base and licence was not compared; look at the head of it"


def split(text: str) -> tuple[str, str]:
    """Return the block between the first two lines of `---`, and the rest; "" without a block."""
    text = text.removeprefix("\ufeff")
    lines = text.split("\n")
    if lines[0].rstrip() != _MARK:
        return "", text
    for at, line in enumerate(lines[1:], 1):
        if line.rstrip() == _MARK:
            return "\n".join(lines[1:at]), "\n".join(lines[at + 1 :])
    return "", text


def parse(block: str, path: str) -> dict[str, Any]:
    """Return what a block says: tables, lists and texts. {} for an empty one.

    Raises LimitExceeded for one that is too large or deep, Malformed for one that is no YAML table.
    """
    if not block.strip():
        return {}
    if len(block) > LIMIT:
        raise LimitExceeded(path, f"has a head of {len(block):,} characters", hint=_HINT)
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    build = _Builder(path)
    try:
        for count, event in enumerate(yaml.parse(block, Loader=loader)):
            if count > _MOST:
                raise LimitExceeded(path, f"has a head of more than {_MOST:,} values", hint=_HINT)
            build.take(event)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _malformed(path, "is no YAML") from error
    if not isinstance(build.root, dict):
        raise _malformed(path, "is no table")
    return build.root


class _Builder:
    """Puts events together. `open`: the containers that are not closed, with the key that waits."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root: Any = None
        self.open: list[tuple[Any, list[str]]] = []

    def take(self, event: Any) -> None:
        match type(event).__name__:
            case "AliasEvent":
                raise _malformed(self.path, "repeats itself by reference")
            case "MappingStartEvent":
                self._enter({})
            case "SequenceStartEvent":
                self._enter([])
            case "MappingEndEvent" | "SequenceEndEvent":
                self.open.pop()
            case "ScalarEvent":
                self._put(event.value, scalar=True)

    def _enter(self, container: Any) -> None:
        if len(self.open) >= _DEEPEST:
            raise LimitExceeded(self.path, "has a head that is too deep", hint=_HINT)
        self._put(container, scalar=False)
        self.open.append((container, []))

    def _put(self, value: Any, *, scalar: bool) -> None:
        if not self.open:
            self.root = value if self.root is None else self.root
            return
        container, waiting = self.open[-1]
        if isinstance(container, list):
            container.append(value)
        elif waiting:
            container[waiting.pop()] = value
        else:
            waiting.append(value if scalar else "")


def _malformed(path: str, what: str) -> Malformed:
    return Malformed(path, f"has a head that {what}", defect="front-matter", hint=_HINT)
