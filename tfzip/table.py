"""Text in columns for a terminal: tables, and charts of bars."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfzip import naming

_BAR = 30
_MARGIN = "  "
_LEAST = 8  # columns of a text that is cut
_NUMBER = re.compile(r"([-+]?\.?[0-9][0-9.,]*(e[-+]?[0-9]+)?%?|-)( .*)?|", re.DOTALL)  # with its unit; "-" is none

Row = Sequence[str]


def table(rows: Sequence[Row], *, headed: bool = False, width: int | None = None) -> list[str]:
    """Lines of aligned columns: numbers to the right, but for the first column; texts to the left.

    Args:
        rows: cells, as many in each row; what is not printable in them is escaped.
        headed: the first row is of headings.
        width: columns of the terminal, to which texts are cut; None: they are not.
    """
    columns = [list(map(naming.printable, column)) for column in zip(*rows, strict=True)]
    numeric = [bool(i) and all(map(_NUMBER.fullmatch, column[headed:])) for i, column in enumerate(columns)]
    if width is not None:
        columns = _fitted(columns, numeric, width)
    aligned = [_aligned(column, right) for column, right in zip(columns, numeric, strict=True)]
    return [_MARGIN + _MARGIN.join(cells).rstrip() for cells in zip(*aligned, strict=True)]


def chart(counted: Sequence[tuple[str, int]], width: int | None = None) -> list[str]:
    """Lines of a name, a number and a bar, the longest of which fills the `width` of a terminal, if it is one."""
    most = max((number for _, number in counted), default=0)
    longest = _BAR
    if width is not None:
        counted = [(naming.printable(name), number) for name, number in counted]
        room = width - 3 * len(_MARGIN) - len(str(most))
        names = min(max((columns_of(name) for name, _ in counted), default=0), max(room - _BAR, room // 2, _LEAST))
        counted = [(cut(name, names), number) for name, number in counted]
        longest = max(room - names, _LEAST)
    return table([(name, str(number), _bar(number, most, longest)) for name, number in counted])


def _bar(number: int, most: int, longest: int) -> str:
    return "#" * max(round(number / most * longest), 1) if number else ""


def cut(text: str, width: int) -> str:
    """The text, or as much of it as fits in so many columns with dots behind it."""
    if columns_of(text) <= width:
        return text
    end = min(len(text), 4 * width)
    while end and columns_of(text[:end]) > width - 3:
        end -= 1
    return text[:end] + "..."


def columns_of(text: str) -> int:
    """The columns that a terminal takes for a text: two for a Chinese letter, none for an accent by itself."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _aligned(column: Sequence[str], right: bool) -> list[str]:
    sizes = {cell: columns_of(cell) for cell in column}
    most = max(sizes.values(), default=0)
    filled = {cell: " " * (most - size) for cell, size in sizes.items()}
    return [filled[cell] + cell if right else cell + filled[cell] for cell in column]


def _fitted(columns: list[list[str]], numeric: Sequence[bool], width: int) -> list[list[str]]:
    """The columns, those of texts cut until all fit, the widest first, or until they are too narrow to tell much."""
    sizes = [min(max(map(columns_of, column), default=0), width) for column in columns]
    while sum(sizes) + len(_MARGIN) * len(sizes) > width:
        widest = max((size, i) for i, size in enumerate(sizes) if not numeric[i])
        if widest[0] <= _LEAST:
            break
        sizes[widest[1]] -= 1
    return [[cut(cell, size) for cell in column] for column, size in zip(columns, sizes, strict=True)]
