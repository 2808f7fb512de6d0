"""metadata.csv against the csv module, which wrote it before, cell by cell."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfzip import metadata, naming
from tfzip.index import COLUMNS
from tfzip.metadata import Texts, csv_lines

COUNTS = ("label", "shard", "offset", "size", "start")
TEXT = st.one_of(st.text(max_size=6).map(lambda text: text.encode(errors="replace")), st.binary(max_size=6))
COUNT = st.one_of(st.integers(0, 12), st.integers(0, 2**31 - 1))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **dict.fromkeys(
                ("filename", "prediction", "truth"), TEXT | st.sampled_from([b'"', b",", b"\r", b"\n", b"\0"])
            ),
            "confidence": st.floats(width=32) | st.floats(0, 1, width=32),
            "nonfinite": st.booleans(),
            **dict.fromkeys(COUNTS, COUNT),
            "label": st.just(-1) | COUNT,
            "offset": st.integers(0, 2**63 - 1) | COUNT,
        }
    ),
    max_size=30,
)


def written(rows):
    """The rows as csv_lines writes them."""
    columns = {
        name: np.array([row[name] for row in rows], COLUMNS[name]) for name in (*COUNTS, "confidence", "nonfinite")
    }
    texts = [Texts.of([row[name] for row in rows]) for name in ("filename", "prediction", "truth")]
    return [line for lines in csv_lines(columns, *texts) for line in lines.split()]


def expected(rows):
    """The rows as the csv module writes them."""
    lines = []
    for row in rows:
        shown = {
            **{name: str(row[name]) for name in COUNTS if row[name] >= 0},
            **{name: naming.to_text(row[name]) for name in ("filename", "truth")},
            "prediction": row["prediction"].decode("utf-8", "replace"),
            "confidence": "" if row["confidence"] != row["confidence"] else str(np.float32(row["confidence"])),
            "nonfinite": "1" if row["nonfinite"] else "",
        }
        text = io.StringIO()
        csv.writer(text, escapechar="\ud800").writerow([shown.get(name, "") for name in metadata.METADATA_FIELDS])
        lines.append(text.getvalue().encode())
    return lines


def row(**values):
    numbers = dict.fromkeys(COUNTS, 0)
    return {**numbers, "filename": b"a", "prediction": b"", "truth": b"", "confidence": 0, "nonfinite": False, **values}


@settings(deadline=None, max_examples=200)
@given(ROWS)
@example([row(filename=b"")])
@example([row(offset=2**63 - 1), row(offset=10**18), row(offset=9), row(label=-1), row(label=10)])
@example([row(filename="größe".encode()), row(filename=b"gr\xc3"), row(filename=b"\xb6"), row(prediction=b"\xff,")])
def test_rows_are_those_of_the_csv_module(rows):
    assert written(rows) == expected(rows)


def test_any_float_is_its_shortest_decimal():
    every = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32).view(np.float32)
    usual = np.random.default_rng(1).random(20_000, np.float32) ** 5
    edges = np.array([0.0, -0.0, 1.0, 1e-4, 9.999e-5, 1e16, 1e-45, 3.4028235e38, np.inf, -np.inf, np.nan], np.float32)
    rows = [row(confidence=value) for value in np.concatenate([every, usual, edges])]
    assert written(rows) == expected(rows)


@pytest.mark.parametrize(("most_rows", "most_bytes"), [(1, 1 << 20), (3, 1 << 20), (1 << 12, 1), (1 << 12, 7), (2, 5)])
def test_in_whatever_pieces_the_rows_are_the_same(monkeypatch, most_rows, most_bytes):
    rows = [row(filename=b"x" * (number % 5), prediction=b"y" * (number % 3), start=number**3) for number in range(50)]
    monkeypatch.setattr(metadata, "_ROWS", most_rows)
    monkeypatch.setattr(metadata, "_BYTES", most_bytes)
    assert written(rows) == expected(rows)
