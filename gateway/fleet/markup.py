"""HTML that escapes whatever is not HTML by its type: what boxes and people say can be nothing but text."""

from __future__ import annotations

from html import escape

VOID = {"input", "link", "meta", "br", "img"}


class Html(str):
    """Text that is HTML already; made by this module alone."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value as HTML."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def h(tag: str, *children: object, **attributes: object) -> Html:
    """Return an element. `class_`, `aria_label`, `data_name` are spelled with hyphens; None and False leave one out."""
    spelled = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return Html(f"<{tag}{spelled}>")
    return Html(f"<{tag}{spelled}>{''.join(map(text, children))}</{tag}>")


def join(*parts: object) -> Html:
    """Return parts one after the other."""
    return Html("".join(map(text, parts)))
