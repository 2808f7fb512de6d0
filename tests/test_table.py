"""Columns that stand under each other, whatever is in them."""

import unicodedata

import pytest

from tfzip.table import chart, columns_of, cut, table

WIDE = ["猫", "日本語", "한국어", "e\u0301te\u0301", "été", "cat", "ﾊﾝ", "🐈", "a\u200db", "👍🏽"]


def columns_by_hand(text):
    """By Unicode's own tables, for texts without emoji: two for what is wide, none for marks."""
    wide = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else wide.get(unicodedata.east_asian_width(c), 1) for c in text)


@pytest.mark.parametrize("text", [*WIDE[:7], "naïve café", "、。", "ñ" * 9, ""])
def test_columns_of_a_text(text):
    assert columns_of(text) == columns_by_hand(text)


def test_columns_start_under_each_other():
    lines = table([(name, "|", str(number)) for number, name in enumerate(WIDE)])
    assert len({columns_of(line[: line.index("|")]) for line in lines}) == 1
    assert len({columns_of(line) for line in lines}) == 1


def test_numbers_end_under_each_other_and_texts_begin_so():
    rows = [
        ["class", "offered", "share", "least", "text"],
        ["7", "1797", "5.0%", "-0.25", "7"],
        ["12", "3", "100.0%", "1e-05", "x"],
        ["c", "20", "-", "", "2 y"],
    ]
    assert table(rows, headed=True) == [
        "  class  offered   share  least  text",
        "  7         1797    5.0%  -0.25  7",
        "  12           3  100.0%  1e-05  x",
        "  c           20       -         2 y",
    ]
    assert table([["a", "5 images"], ["b", "12 images"]]) == ["  a   5 images", "  b  12 images"]


def test_texts_are_cut_to_a_terminal_and_numbers_never():
    rows = [["a" * 50, "->", "b" * 20, "1234567"], ["c", "->", "d", "1"]]
    assert max(map(len, table(rows))) == 2 + 50 + 2 + 2 + 2 + 20 + 2 + 7
    for width in (80, 60, 41):
        lines = table(rows, width=width)
        assert max(map(len, lines)) == width
        assert lines[0].endswith("  1234567")
        assert "..." in lines[0]
    assert table(rows, width=10)[0].endswith("  1234567")
    assert table(rows, width=500) == table(rows)


@pytest.mark.parametrize("text", ["x" * 40, "猫" * 40, "e\u0301" * 40, "a猫" * 20])
def test_a_cut_text_fits_and_says_so(text):
    for width in range(4, 90):
        made = cut(text, width)
        assert columns_of(made) <= width
        if columns_of(text) <= width:
            assert made == text
        else:
            assert made.endswith("...")
            assert text.startswith(made[:-3])
            assert columns_of(made) >= width - 1, "as much as fits"


def test_bars_are_as_long_as_the_numbers_say():
    counted = [("a", 1000), ("bb", 500), ("c", 1), ("d", 0)]
    bars = [line.count("#") for line in chart(counted)]
    assert bars == [30, 15, 1, 0]
    for width in (40, 80, 200):
        lines = chart(counted, width)
        assert len(lines[0]) == width
        assert abs(lines[0].count("#") - 2 * lines[1].count("#")) <= 1
        assert not any(line.endswith(" ") for line in lines)
    assert chart([]) == chart([], 80) == table([]) == []
    assert chart([("a", 0)]) == ["  a  0"]


def test_what_could_act_on_a_terminal_is_escaped_and_stands_in_line():
    lines = table([["\x1b[31m", "|"], ["plain name", "|"]]) + chart([("\x1b]0;x\x07" * 20, 3), ("b", 1)], 40)
    assert all(line.isprintable() for line in lines)
    assert len({line.index("|") for line in lines[:2]}) == 1
    assert max(map(len, lines[2:])) <= 40
