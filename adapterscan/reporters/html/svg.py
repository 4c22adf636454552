"""Write SVG as text: elements with escaped attributes, no style, no script, no reference."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from adapterscan.reporters.html.words import flat

Attribute = str | int | float
_TEXT = 400  # characters in one element


def tag(kind: str, content: Markup | str = "", **attributes: Attribute) -> Markup:
    """Return `<kind …>content</kind>`; `class_` is written `class`, `text_anchor` `text-anchor`.

    Numbers are rounded to a hundredth of a pixel; text is made printable, bounded and escaped.
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    inner = content if isinstance(content, Markup) else escape(flat(content, _TEXT))
    return Markup(f"<{kind}{told}>{inner}</{kind}>" if inner else f"<{kind}{told}/>")  # noqa: S704


def picture(
    width: float, height: float, key: str, title: str, about: str, body: Iterable[Markup],
    **attributes: Attribute,
) -> Markup:  # fmt: skip
    """Return an image that says what it shows. `key` is unique on the page and ours."""
    inner = Markup("").join((tag("title", title, id=f"{key}-t"), tag("desc", about, id=f"{key}-d")))
    return tag(
        "svg", inner + Markup("").join(body), viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}", height=f"{height:g}", role="img",
        aria_labelledby=f"{key}-t", aria_describedby=f"{key}-d",
        **attributes,
    )  # fmt: skip


def _value(value: Attribute) -> str:
    if isinstance(value, str):
        return str(escape(value))
    return f"{round(value, 2):g}"
