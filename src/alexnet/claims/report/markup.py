"""HTML and SVG as trees: whatever a name holds is escaped by the library that writes them."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

Child = Element | str | None


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """Return an element; ``None`` among the children or attributes is left out.

    An attribute's name may end in ``_`` (``class_``), and has ``-`` where the keyword has ``_``.

    Examples
    --------
    >>> written(element("p", "a < b ", element("b", "c & d"), class_="x", data_at=1))
    '<p class="x" data-at="1">a &lt; b <b>c &amp; d</b></p>'
    """
    made = Element(tag, dict(_named(attributes)))
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif child is not None and last is None:
            made.text = (made.text or "") + child
        elif child is not None and last is not None:
            last.tail = (last.tail or "") + child
    return made


def _named(attributes: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            yield name.rstrip("_").replace("_", "-"), str(text)


def written(tree: Element) -> str:
    """Return a tree as HTML text."""
    return tostring(tree, encoding="unicode", method="html")
