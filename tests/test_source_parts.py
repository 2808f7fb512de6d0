"""What sources are made of: columns of one type, pieces of large files, frames of TFRecords."""

import gzip
import io
import json

import forged
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip

from tfzip import framing, storage
from tfzip.options import Options
from tfzip.sources import open_source, pieces, planned, region
from tfzip.sources.columns import column_of, truths_of

NAN = float("nan")

COLUMNS = {
    # values, dtype, column
    "ints": ([1, -2, 0], "i", [1, -2, 0]),
    "ints as text": (["1", "-2", "+3", "0"], "i", [1, -2, 3, 0]),
    "zeros that say something": (["007", "010"], "O", [b"007", b"010"]),
    "a price beside them": (["007", "1.5"], "O", [b"007", b"1.5"]),
    "ints of both": ([1, "2"], "i", [1, 2]),
    "the largest": ([2**63 - 1, -(2**63)], "i", [2**63 - 1, -(2**63)]),
    "the largest as text": ([str(2**63 - 1)], "i", [2**63 - 1]),
    "too large": ([2**63], "O", [b"9223372036854775808"]),
    "too large as text": (["99999999999999999999"], "O", [b"99999999999999999999"]),
    "far too large": ([10**400], "O", [str(10**400).encode()]),
    "too large a float": (["1e39"], "O", [b"1e39"]),
    "missing ints": ([1, None, 3], "f", [1.0, NAN, 3.0]),
    "missing, and too large for floats": ([2**24 + 1, None], "O", [b"16777217", b""]),
    "floats": ([0.5, -1.25], "f", [0.5, -1.25]),
    "floats as text": (["0.5", "-1e3", ".25", "2.", "1E-2"], "f", [0.5, -1000.0, 0.25, 2.0, np.float32(0.01)]),
    "ints and floats": (["1", "2.5"], "f", [1.0, 2.5]),
    "missing floats": ([0.5, None], "f", [0.5, NAN]),
    "not finite": (["nan", "inf", "-Infinity"], "f", [NAN, float("inf"), float("-inf")]),
    "numbers and words": (["1", "two", None], "O", [b"1", b"two", b""]),
    "words": (["a", "Stra\u00dfe", "\u732b"], "O", [b"a", "Straße".encode(), "猫".encode()]),
    "spaces": (["1 ", " 2"], "O", [b"1 ", b" 2"]),
    "underscores": (["1_000"], "O", [b"1_000"]),
    "other digits": (["\u0661", "\uff12"], "O", [b"\xd9\xa1", b"\xef\xbc\x92"]),
    "hexadecimal": (["0x10"], "O", [b"0x10"]),
    "not UTF-8": (["caf\udce9"], "O", [b"caf\xe9"]),
    "booleans": ([True, False], "i", [1, 0]),
    "booleans and words": ([True, "x"], "O", [b"true", b"x"]),
    "nested": ([[1, "é"], {"a": None}], "O", ['[1, "é"]'.encode(), b'{"a": null}']),
    "nested and numbers": ([[1], 2], "O", [b"[1]", b"2"]),
    "nothing but missing": ([None, None], "O", [b"", b""]),
    "nothing": ([], "O", []),
    "empty texts": (["", "1"], "O", [b"", b"1"]),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_a_column_has_one_type(case):
    values, kind, expected = COLUMNS[case]
    column = column_of(values)
    assert column.dtype == {"i": np.int64, "f": np.float32, "O": object}[kind]
    np.testing.assert_array_equal(column, np.array(expected, column.dtype))


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_come_back_whether_written_as_text_or_not(values):
    for written in (values, [str(value) for value in values]):
        assert column_of(written).tolist() == values


@settings(deadline=None)
@given(st.lists(st.floats(width=32), min_size=1))
def test_floats_come_back_whether_written_as_text_or_not(values):
    for written in (values, [repr(value) for value in values]):
        np.testing.assert_array_equal(column_of(written), np.array(values, np.float32))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(JSON, max_size=6))
def test_any_json_makes_a_column(values):
    values = json.loads(json.dumps(values))
    column = column_of(values)
    assert len(column) == len(values)
    if column.dtype == object:
        assert all(isinstance(value, bytes) for value in column)


TRUTHS = {
    # values, texts, classes, labels
    "none": (None, None, None, None),
    "all missing": ([None, None], None, None, None),
    "labels": ([3, None, 0], None, [], [3, -1, 0]),
    "labels as text": (["3", "0", None], None, [], [3, 0, -1]),
    "words": (["cat", None, "ant", "cat"], [b"cat", b"", b"ant", b"cat"], [b"ant", b"cat"], None),
    "words and numbers": (["1", "one"], [b"1", b"one"], [b"1", b"one"], None),
    "floats": ([0.5, 1], [b"0.5", b"1"], [b"0.5", b"1"], None),
}


@pytest.mark.parametrize("case", TRUTHS)
def test_truths_are_labels_or_texts(case):
    values, texts, classes, labels = TRUTHS[case]
    known = truths_of(values)
    assert (known.texts, known.classes) == (texts, classes)
    assert {name: column.tolist() for name, column in known.labels.items()} == ({"truth": labels} if labels else {})


# Pieces of files.


@st.composite
def layouts(draw):
    """How long a file is, and pieces of it: gaps, none, some of no size, some larger than a chunk."""
    size = st.one_of(st.integers(0, 2000), st.sampled_from([0, 511, 512, 1 << 20, (1 << 20) + 1, 2_500_000]))
    starts, sizes, at = [], [], 0
    for _ in range(draw(st.integers(0, 5))):
        at += draw(st.sampled_from([0, 0, 1, 512, 100_000]))
        starts.append(at)
        sizes.append(draw(size))
        at += sizes[-1]
    return at + draw(st.sampled_from([1, 511, 512, 513, 10_240, (1 << 20) - 1])), starts, sizes


NOISE = np.random.default_rng(1).integers(0, 256, 14_000_000, np.uint8).tobytes()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(layouts())
def test_pieces_of_a_compressed_file_are_those_of_what_it_holds(tmp_path_factory, layout):
    total, starts, sizes = layout
    path = tmp_path_factory.mktemp("gz") / "file.gz"
    path.write_bytes(igzip.compress(NOISE[:total], 0))
    pieces = region.gzip_pieces(str(path), total, np.array(starts, np.int64), np.array(sizes, np.int64))
    expected = [NOISE[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    assert list(pieces.as_numpy_iterator()) == expected


@pytest.mark.parametrize("blocks", [1, 2, 2048, 2049, 4099, 3 * 2048])
@pytest.mark.parametrize("rest", [0, 1, 511])
def test_a_piece_may_be_all_of_a_compressed_file(tmp_path, blocks, rest):
    whole = NOISE[: 512 * blocks + rest]
    (tmp_path / "file.gz").write_bytes(gzip.compress(whole + bytes(512), 1))
    half = len(whole) // 2
    for starts, sizes in (([0], [len(whole)]), ([0, half], [half, len(whole) - half]), ([len(whole)], [0])):
        pieces = region.gzip_pieces(str(tmp_path / "file.gz"), len(whole) + 512, np.array(starts), np.array(sizes))
        assert list(pieces.as_numpy_iterator()) == [whole[a : a + b] for a, b in zip(starts, sizes, strict=True)]


@pytest.mark.parametrize("blocks", [3001, 4099, 9973, 27_011])
def test_a_compressed_tar_is_read_in_few_chunks_whatever_its_length(blocks):
    total = 512 * blocks  # primes
    assert region._step(total, 1024) > 500_000
    assert total % region._step(total, 1024) <= 1024


@pytest.mark.parametrize("elsewhere", [False, True])
def test_any_piece_of_several_files_is_read(tmp_path, elsewhere):
    contents = [NOISE[:100_000], NOISE[200_000:200_001], NOISE[300_000:303_000]]
    root = "ram://tfzip_region" if elsewhere else str(tmp_path)
    paths = [f"{root}/{number}" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        tf.io.write_file(path, content)
    read = region.reader([storage.Local(path) for path in paths])
    wanted = [(0, 0, 100_000), (1, 0, 1), (2, 2999, 1), (0, 0, 0), (2, 3000, 0), (0, 99_871, 129), (2, 5, 127)]
    rng = np.random.default_rng(0)
    for file in rng.integers(0, 3, 50):
        start = int(rng.integers(0, len(contents[file])))
        wanted.append((int(file), start, int(rng.integers(0, len(contents[file]) - start + 1))))
    columns = [np.array(column, np.int64) for column in zip(*wanted, strict=True)]
    pieces = tf.data.Dataset.from_tensor_slices(tuple(columns)).map(read, 2, deterministic=True)
    expected = [contents[file][start : start + size] for file, start, size in wanted]
    assert list(pieces.as_numpy_iterator()) == expected


@given(st.lists(st.binary(max_size=300) | st.sampled_from([b"", NOISE[:70_000]]), max_size=8))
@settings(deadline=None, max_examples=40)
def test_the_headers_of_a_tfrecord_tell_where_its_records_lie(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("frames")
    for compression in ("", "GZIP"):
        path = folder / f"file{compression}"
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            for record in records:
                writer.write(record)
        with path.open("rb") as raw:
            frames = list(framing.frame_headers(igzip.open(raw, "rb") if compression else raw))
        content = gzip.decompress(path.read_bytes()) if compression else path.read_bytes()
        assert [content[at + 12 : at + 12 + size] for at, size in frames] == records


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.data())
def test_frames_that_end_early_are_never_fewer_in_silence(records, data):
    whole = b"".join(map(forged.frame, records))
    ends = np.cumsum([0, *(16 + len(record) for record in records)]).tolist()
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda cut: cut not in ends))
    for file in (io.BytesIO(whole[:cut]), igzip.open(io.BytesIO(gzip.compress(whole[:cut])), "rb")):
        with pytest.raises(framing.CorruptError):
            list(framing.frame_headers(file))


@pytest.mark.parametrize("values", [(3, 4), ("a", "bc")], ids=["numbers", "texts"])
def test_columns_of_any_name_are_noted_as_they_are(digits, tmp_path, values):
    """Also those that are called as other arrays might be, which are noted beside them."""
    names = ["time", "time_end", "ends time", "filenames", "places", "column time"]
    files = sorted(digits[0].rglob("*.png"))[:2]
    rows = [
        ",".join([str(file), *(f"{value}{number}" for number in range(len(names)))])
        for file, value in zip(files, values, strict=True)
    ]
    (tmp_path / "table.csv").write_text("\n".join([",".join(["filename", *names]), *rows]))
    source = open_source(str(tmp_path / "table.csv"), Options())
    expected = {name: list(column) for name, column in source.columns.items()}
    assert len({str(column) for column in expected.values()}) == len(names)
    planned.save(str(tmp_path / "items.npz"), source)
    restored = planned.restore(str(tmp_path / "items.npz"), source)
    assert {name: list(column) for name, column in restored.columns.items()} == expected
    pieces.save(str(tmp_path / "piece.npz"), pieces.items(source, np.arange(2)))
    piece = pieces.piece(source, pieces.load(str(tmp_path / "piece.npz")))
    assert {name: list(column) for name, column in piece.columns.items()} == expected
    assert list(piece.filenames) == list(source.filenames)
