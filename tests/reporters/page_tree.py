"""An HTML page taken apart by the standard parser, for tests to hold rules against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset("meta link input br".split())


@dataclass
class Element:
    """A tag with its attributes and what it holds: text and elements, in order."""

    tag: str
    attributes: dict[str, str]
    pieces: list[str | Element] = field(default_factory=list)

    @property
    def inside(self) -> list[Element]:
        """Return the elements directly in it."""
        return [piece for piece in self.pieces if isinstance(piece, Element)]

    def all(self, *tags: str) -> Iterator[Element]:
        """Yield every element under this one, of these tags or of any."""
        for child in self.inside:
            if not tags or child.tag in tags:
                yield child
            yield from child.all(*tags)

    @property
    def words(self) -> str:
        """Return all text in it, in order."""
        return "".join(p.words if isinstance(p, Element) else p for p in self.pieces)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute twice in {tag}"
        self.open[-1].pieces.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].pieces.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def tree(page: str) -> Element:
    """Return the page's elements. Raises AssertionError where tags do not pair."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root
