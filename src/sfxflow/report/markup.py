"""HTML from Python values: everything is escaped that is not already `Html`."""

import html
import math

#: What stands in place of a number that is not defined.
NONE = "\N{EN DASH}"


class Html(str):
    """Text that is HTML already."""


def escaped(value):
    """`value` as HTML."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def element(tag, *content, **attributes):
    """An element with its content; an attribute `class_` is called class, and _ in names becomes -.

    Parameters
    ----------
    tag : str
    content : str, Html or list of these
        None is left out.
    attributes : str
        None is left out.

    Returns
    -------
    Html
    """
    text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{text}>{joined(content)}</{tag}>")


def joined(content):
    """Several pieces one after the other; lists within are opened."""
    pieces = []
    for piece in content:
        if isinstance(piece, list | tuple):
            pieces.append(joined(piece))
        elif piece is not None:
            pieces.append(escaped(piece))
    return Html("".join(pieces))


def table(caption, head, rows, foot=(), class_=None):
    """A table; the first column names the rows.

    Parameters
    ----------
    caption : str or Html
    head : sequence
        Names of the columns.
    rows, foot : sequence of sequences
    class_ : str, optional

    Returns
    -------
    Html
        Wrapped so that a wide table scrolls by itself on a narrow screen.
    """

    def line(cells):
        return element("tr", element("th", cells[0], scope="row"), [element("td", cell) for cell in cells[1:]])

    body = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", [element("th", name, scope="col") for name in head])),
        element("tbody", [line(row) for row in rows]),
        element("tfoot", [line(row) for row in foot]) if foot else None,
        class_=class_,
    )
    return element("div", body, class_="scroll", tabindex="0", role="region", aria_label=_plain(caption))


def _plain(caption):
    return caption if not isinstance(caption, Html) else "table"


def is_number(value):
    """Whether `value` is a finite number; None and NaN are not."""
    return value is not None and math.isfinite(value)


def fixed(value, digits):
    """A number with so many digits after the point."""
    if not is_number(value):
        return NONE
    text = f"{value:.{digits}f}"
    return f"\N{MINUS SIGN}{text[1:]}" if text.startswith("-") else text


def percent(value, digits=1):
    """A fraction in percent, without the sign."""
    return fixed(100.0 * value, digits) if is_number(value) else NONE


def count(value):
    """A whole number with thin spaces between the thousands."""
    return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if is_number(value) else NONE


def share(part, whole):
    """`part / whole`, None where that is not defined."""
    return part / whole if whole else None
