import csv
import hashlib
import io
import json
import sys
import tempfile
import uuid
import zipfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

import indexed
import numpy as np
import peaks
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tfzip
from tfzip import naming, storage
from tfzip.errors import CorruptError, FilenameNotFoundError, UsageError
from tfzip.index import COLUMNS, METADATA_FIELDS, Index, hash_filename, save_part, write_index
from tfzip.record import Failure, Location
from tfzip.write import ShardWriter

WRITTEN_COLUMNS = [name for name in COLUMNS if name != "shard"]
TEXTS = ("filename", "prediction", "truth_text")

FLOAT = st.floats(width=32)
NAME = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).map(str.encode),
    st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name),
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).map(str.encode)
ROW = st.fixed_dictionaries(
    {
        "filename": NAME,
        "prediction": TEXT,
        "truth_text": TEXT | NAME,
        "offset": st.integers(0, 2**63 - 1),
        "size": st.integers(0, 2**63 - 1),
        "start": st.integers(0, 2**31 - 1),
        "label": st.integers(-1, 2**31 - 1),
        "confidence": FLOAT,
        "margin": FLOAT,
        "entropy": FLOAT,
        "truth": st.integers(-1, 2**31 - 1),
        "nonfinite": st.booleans(),
        "scores": st.lists(FLOAT, min_size=3, max_size=3),
    }
)
PARTS = st.lists(st.lists(ROW, max_size=6), min_size=1, max_size=4)


def row(filename, **values):
    return {
        "filename": filename,
        "prediction": b"cat",
        "truth_text": b"",
        "offset": 0,
        "size": 100,
        "start": 0,
        "label": 0,
        "confidence": 0.5,
        "margin": 0.25,
        "entropy": 0.125,
        "truth": -1,
        "nonfinite": False,
        "scores": [0.5, 0.25, 0.25],
        **values,
    }


def write(folder, parts, *, failures=(), labels=("cat", "dog"), classes=3, path=None):
    """Parts as lists of rows -> the path of their index."""
    paths = []
    for shard, rows in enumerate(parts):
        paths.append(str(Path(folder) / f"rows-{shard}.npz"))
        columns = {name: np.array([r[name] for r in rows], COLUMNS[name]) for name in WRITTEN_COLUMNS}
        columns["scores"] = np.array([r["scores"] for r in rows], np.float32).reshape(len(rows), classes)
        save_part(paths[-1], columns, {name: [r[name] for r in rows] for name in TEXTS})
    features = {"prediction/scores": {"dtype": "float", "shape": [classes]}} if classes else {}
    counts = {"records": sum(map(len, parts)), "failures": len(failures)}
    shards = [{"records": len(rows)} for rows in parts]
    manifest = {"shards": shards, "counts": counts, "features": features, "größe": "日本"}
    path = path or str(Path(folder) / "index.zip")
    write_index(path, manifest, labels, "feature {}\n", paths, failures)
    return path


def expected_columns(parts):
    rows = [(shard, r) for shard, rows in enumerate(parts) for r in rows]
    columns = {name: np.array([r[name] for _, r in rows], COLUMNS[name]) for name in WRITTEN_COLUMNS}
    columns["shard"] = np.array([shard for shard, _ in rows], np.int32)
    columns["scores"] = np.array([r["scores"] for _, r in rows], np.float32).reshape(-1, 3)
    return columns


def metadata(path):
    """metadata.csv, as anyone's program reads it."""
    with zipfile.ZipFile(path) as archive:
        return list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode(), newline="")))


def data_start(path, info):
    """Where an entry's data begin in the zip, by its local header (APPNOTE.TXT 4.3.7)."""
    header = Path(path).read_bytes()[info.header_offset : info.header_offset + 30]
    assert header[:4] == b"PK\3\4"
    return info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


EMPTY_PARTS = [[], [row(b"a"), row(b"b")], [], [row(b"c")], []]


def test_an_index_that_could_not_be_opened_is_not_written(tmp_path):
    shard = {"records": 0, "file": f"images-train.tfrecord-{0:06}-of-200000.gz", "bytes": 20, "sha256": "0" * 64}
    for shards, labels in (([shard] * 250_000, ()), ([shard], ["a name of a class"] * 2_000_000)):
        with pytest.raises(UsageError, match="larger --shard-size or") as caught:
            write_index(str(tmp_path / "index.zip"), {"shards": shards}, labels, "", [], [])
        assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_index_whose_tables_could_not_be_read_is_not_written(tmp_path):
    most = (1 << 22) - 1 - len("1,,0.5,0,,,0,0,100,0\r\n")  # bytes of a row, but for its other cells
    whole = [row(b"1", prediction=b"|" * most), row(b"2", prediction=b'"' * (most // 2 - 1))]
    too_long = row(b"1", prediction="ä".encode() * (most // 2 + 1))
    (tmp_path / "one").mkdir()
    with_longest = Index(write(tmp_path / "one", [whole]))
    assert [len(read["prediction"]) for read in with_longest.table("metadata.csv")] == [most, most // 2 - 1]
    with_longest.close()

    failure = Failure("a", "decode", "x" * (1 << 22))
    wide = row(b"a", prediction=b"x" * 90_000)  # of which it takes no more than many
    for number, (parts, failures) in enumerate(
        (([[row(b"a"), too_long]], ()), ([[]], [failure]), ([[wide] * 1500], ()))
    ):
        path = tmp_path / f"{number}.zip"
        with pytest.raises(UsageError, match=r"(metadata|failures)\.csv.* would have [0-9]+ bytes, and ") as caught:
            write(tmp_path, parts, failures=failures, path=str(path))
        assert len(str(caught.value).splitlines()) == 1
        assert not path.exists()


@settings(deadline=None, max_examples=60)
@given(PARTS)
@example(EMPTY_PARTS)
@example([[]])
def test_every_column_and_filename_is_read_back(parts):
    with tempfile.TemporaryDirectory() as folder:
        index = Index(write(folder, parts))
        expected = expected_columns(parts)
        rows = [r for part in parts for r in part]

        assert sorted(index.column_names) == sorted(expected)
        for name, values in expected.items():
            column = index.column(name)
            assert column.dtype == values.dtype
            np.testing.assert_array_equal(column, values)
            assert isinstance(column, np.memmap) == (len(rows) > 0)
        assert len(index) == len(rows)
        assert [index.filename(i) for i in range(len(rows))] == [r["filename"] for r in rows]
        assert [index.location(i) for i in range(len(rows))] == [
            Location(shard, r["offset"], r["size"], r["start"]) for shard, part in enumerate(parts) for r in part
        ]
        index.close()


@settings(deadline=None, max_examples=40)
@given(PARTS)
@example(EMPTY_PARTS)
def test_every_filename_finds_its_row_and_no_other(parts):
    with tempfile.TemporaryDirectory() as folder:
        index = Index(write(folder, parts))
        names = [r["filename"] for part in parts for r in part]
        hashes = index.array("lookup/hash.npy").tolist()

        assert hashes == sorted(hashes)
        assert sorted(index.array("lookup/row.npy").tolist()) == list(range(len(names)))
        for name in {*names, b"nowhere"}:
            rows = [i for i, other in enumerate(names) if other == name]
            assert index.row(name) in rows if rows else index.row(name) is None
        index.close()


@settings(deadline=None, max_examples=60)
@given(PARTS)
@example(EMPTY_PARTS)
def test_metadata_csv_says_the_same_for_people(parts):
    with tempfile.TemporaryDirectory() as folder:
        rows = metadata(write(folder, parts))

        expected = [(shard, r) for shard, part in enumerate(parts) for r in part]
        assert len(rows) == len(expected)
        for read, (shard, r) in zip(rows, expected, strict=True):
            assert tuple(read) == METADATA_FIELDS
            assert r["filename"] in (read["filename"].encode(), unquote_to_bytes(read["filename"]))
            assert r["truth_text"] in (read["truth"].encode(), unquote_to_bytes(read["truth"]))
            assert read["prediction"].encode() == r["prediction"]
            assert read["label"] == ("" if r["label"] == -1 else str(r["label"]))
            assert read["nonfinite"] == ("1" if r["nonfinite"] else "")
            assert [int(read[name]) for name in ("shard", "offset", "size", "start")] == [
                shard,
                r["offset"],
                r["size"],
                r["start"],
            ]
            confidence = np.float32(read["confidence"] or "nan")
            np.testing.assert_array_equal(confidence, np.float32(r["confidence"]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (1 / 3, "0.33333334"), (1.0, "1.0"), (0.0, "0.0"), (0.99999994, "0.99999994"), (2 / 3, "0.6666667")],
)
def test_a_float_is_the_shortest_decimal_of_its_float32(tmp_path, value, text):
    (read,) = metadata(write(tmp_path, [[row(b"a", confidence=value)]]))

    assert read["confidence"] == text


@pytest.mark.parametrize(
    ("filename", "text"),
    [
        (b"cats/1.jpg", "cats/1.jpg"),
        (b"a,b.jpg", "a,b.jpg"),
        (b'the "best".jpg', 'the "best".jpg'),
        (b'"', '"'),
        (b"two\nlines.jpg", "two\nlines.jpg"),
        (b"two\r\nlines.jpg", "two\r\nlines.jpg"),
        (b"carriage\rreturn", "carriage\rreturn"),
        (b" spaces ", " spaces "),
        (b"'=1+1", "'=1+1"),
        (b"semi;colon\ttab", "semi;colon\ttab"),
        ("größe/日本 🐈.png".encode(), "größe/日本 🐈.png"),
        ("line\u2028separator".encode(), "line\u2028separator"),
        (b"100%.jpg", "100%.jpg"),
        (b"caf\xe9/1 2.jpg", "caf%E9/1 2.jpg"),
        (b"\xff,\n", "%FF%2C%0A"),
    ],
)
def test_any_filename_survives_metadata_csv(tmp_path, filename, text):
    path = write(
        tmp_path,
        [[row(filename), row(b"next")]],
        failures=[Failure(naming.to_str(filename), "decode", 'no "image", this')],
    )

    assert [r["filename"] for r in metadata(path)] == [text, "next"]
    index = Index(path)
    assert [r["filename"] for r in index.table("metadata.csv")] == [text, "next"]
    assert list(index.table("failures.csv")) == [
        {"filename": text, "stage": "decode", "error": 'no "image", this'},
    ]
    assert index.row(filename) == 0
    index.close()


def test_an_unknown_label_is_an_empty_cell(tmp_path):
    rows = metadata(write(tmp_path, [[row(b"a", label=-1), row(b"b", label=0, truth_text=b"wolf")]]))

    assert [(r["label"], r["truth"]) for r in rows] == [("", ""), ("0", "wolf")]


def test_arrays_lie_in_the_zip_as_they_are_at_multiples_of_64(tmp_path):
    path = write(tmp_path, [[row(b"a"), row("größe".encode())], [], [row(b"c")]])
    index = Index(path)
    with zipfile.ZipFile(path) as archive:
        entries = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        assert {info.filename for info in entries} >= {
            *(f"columns/{name}.npy" for name in COLUMNS),
            "columns/scores.npy",
            "lookup/hash.npy",
            "lookup/row.npy",
        }
        for info in entries:
            assert info.compress_type == zipfile.ZIP_STORED
            assert data_start(path, info) % 64 == 0
            loaded = np.load(io.BytesIO(archive.read(info)), allow_pickle=False)
            mapped = index.array(info.filename)
            assert isinstance(mapped, np.memmap)
            assert mapped.offset % 64 == 0
            assert not mapped.flags.writeable
            assert mapped.dtype == loaded.dtype
            np.testing.assert_array_equal(mapped, loaded)
    index.close()


def test_arrays_stay_readable_after_closing(tmp_path):
    index = Index(write(tmp_path, [[row(b"a", label=7)]]))
    labels = index.column("label")
    index.close()

    assert labels.tolist() == [7]


def test_numpy_loads_the_arrays_of_an_index_without_rows(tmp_path):
    path = write(tmp_path, [[], []])
    with zipfile.ZipFile(path) as archive:
        for name, dtype in COLUMNS.items():
            loaded = np.load(io.BytesIO(archive.read(f"columns/{name}.npy")))
            assert loaded.dtype == dtype
            assert loaded.shape == (0,)
        assert np.load(io.BytesIO(archive.read("columns/scores.npy"))).shape == (0, 3)


@pytest.mark.parametrize(("classes", "kept"), [(0, False), (1, True), (128, True), (129, False)])
def test_scores_of_up_to_128_classes_are_in_the_index(tmp_path, classes, kept):
    scores = [value / 2 for value in range(classes)]
    index = Index(write(tmp_path, [[row(b"a", scores=scores)]], classes=classes))

    assert ("scores" in index.column_names) is kept
    if kept:
        assert index.column("scores").tolist() == [scores]
    index.close()


@pytest.mark.parametrize(
    ("filename", "digest"),
    [
        # FIPS 180-2, B.1 and B.2, and the well-known digest of nothing.
        (b"abc", "ba7816bf8f01cfea"),
        (b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8"),
        (b"", "e3b0c44298fc1c14"),
    ],
)
def test_a_filenames_hash_is_the_first_8_bytes_of_its_sha_256(filename, digest):
    assert hash_filename(filename).to_bytes(8, "little").hex() == digest


@given(st.binary(max_size=50))
@settings(deadline=None, max_examples=50)
def test_the_hash_of_any_filename_is_that_of_hashlib(filename):
    assert hash_filename(filename).to_bytes(8, "little") == hashlib.sha256(filename).digest()[:8]


def serialized(filename):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[filename]))
    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    digits = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"0"]))
    features = {
        "image/filename": feature,
        "image/format": digits,
        "image/source_id": digits,
        "image/height": number,
        "image/width": number,
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_export(folder, filenames):
    """The least export there can be: one shard of records that hold their filenames."""
    shard = "images-train.tfrecord-00000-of-00001.gz"
    with ShardWriter(str(folder / shard), "gzip") as writer:
        writer.write(serialized(name) for name in filenames)
    numbers = dict.fromkeys(
        ("label", "confidence", "margin", "entropy", "truth", "nonfinite"), np.zeros(len(filenames))
    )
    texts = dict.fromkeys(("prediction", "truth_text"), [b""] * len(filenames))
    part = str(folder / "rows.npz")
    save_part(part, {**numbers, **writer.locations}, {"filename": filenames, **texts})
    dtypes = {"filename": "bytes", "format": "bytes", "source_id": "bytes", "height": "int64", "width": "int64"}
    manifest = {
        "format_version": 1,
        "tfzip_version": "",
        "name": "images",
        "split": "train",
        "layout": "flat",
        "compression": "gzip",
        "counts": {"images": len(filenames), "records": len(filenames), "failures": 0, "ignored": 0, "nonfinite": 0},
        "source": {"kind": "items", "labels": "none"},
        "task": "raw",
        "threshold": None,
        "min_score": None,
        "labels": {"names": [], "from": "none"},
        "pixels": None,
        "image": "none",
        "formats": ["png"],
        "tfds": {},
        "image_key": "image/encoded",
        "model": {
            **dict.fromkeys(("name", "format", "input", "takes"), "x"),
            **dict.fromkeys(("sha256", "signature", "output", "scores")),
        },
        "batch_size": 1,
        "parallel": 1,
        "shuffle": None,
        "limit": None,
        "features": {f"image/{name}": {"dtype": dtype, "shape": []} for name, dtype in dtypes.items()},
        "shards": [{"file": shard, "records": writer.records, "bytes": writer.bytes, "sha256": writer.sha256}],
    }
    write_index(str(folder / "index.zip"), manifest, [], "", [part], [])


def test_rows_that_share_a_hash_are_told_apart_by_the_filename(tmp_path, monkeypatch):
    names = [b"a.jpg", b"b.jpg", b"c.jpg", b"d.jpg", b"\xff.jpg"]
    # No two filenames with one SHA-256 prefix are at hand.
    indexed.give_hashes(monkeypatch, lambda name: 2**63 + 5 if name < b"d" or name == b"no" else 7)
    write_export(tmp_path, names)

    index = Index(str(tmp_path / "index.zip"))
    assert [index.row(name) for name in names] == [0, 1, 2, 3, 4]
    assert index.row(b"no") is None
    index.close()
    with tfzip.open(str(tmp_path)) as export:
        assert [export[name].filename.encode("utf-8", "surrogateescape") for name in names] == names
        assert all(name in export for name in names)
        assert b"no" not in export
        with pytest.raises(FilenameNotFoundError, match="no"):
            export[b"no"]


@pytest.mark.parametrize("high", [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_hashes_of_all_64_bits_are_found(tmp_path, monkeypatch, high):
    indexed.give_hashes(monkeypatch, lambda name: high if name == b"wanted" else 2**62)
    index = Index(write(tmp_path, [[row(b"a"), row(b"wanted"), row(b"b")]]))

    assert index.row(b"wanted") == 1
    index.close()


@settings(deadline=None, max_examples=15)
@given(PARTS)
def test_the_same_rows_make_the_same_bytes(parts):
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        assert Path(write(first, parts)).read_bytes() == Path(write(second, parts)).read_bytes()


def test_the_zip_holds_no_time_and_the_entries_of_the_design(tmp_path):
    path = write(tmp_path, [[row(b"a")]])
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.testzip() is None

    assert names >= {"manifest.json", "metadata.csv", "failures.csv", "labels.txt", "schema.pbtxt"}
    assert len(names) == len(zipfile.ZipFile(path).namelist())


def test_texts_are_read_back(tmp_path):
    failures = [Failure("a.jpg", "decode", "not an image"), Failure("\udcff", "read", "größer,\n2 lines")]
    index = Index(write(tmp_path, [[row(b"a")]], failures=failures, labels=["Kätzchen", "dog, big"]))

    assert index.manifest["größe"] == "日本"
    assert index.text("labels.txt") == "Kätzchen\ndog, big\n"
    assert index.text("schema.pbtxt") == "feature {}\n"
    assert list(index.table("failures.csv")) == [
        {"filename": "a.jpg", "stage": "decode", "error": "not an image"},
        {"filename": "%FF", "stage": "read", "error": "größer,\n2 lines"},
    ]
    index.close()


def test_an_index_without_failures_or_labels_has_empty_lists(tmp_path):
    index = Index(write(tmp_path, [[row(b"a")]], labels=[]))

    assert index.text("failures.csv").splitlines() == ["filename,stage,error"]
    assert index.text("labels.txt") == ""
    index.close()


_PEAK = """
import sys, numpy, peaks
from tfzip import index

folder, parts = sys.argv[1], int(sys.argv[2])
rows = 10_000
columns = {name: numpy.zeros(rows, dtype) for name, dtype in index.COLUMNS.items() if name != "shard"}
columns["scores"] = numpy.zeros((rows, 10), numpy.float32)
paths = []
for shard in range(parts):
    names = [b"%d/%d.jpg" % (shard, number) for number in range(rows)]
    paths.append(f"{folder}/{shard}.npz")
    index.save_part(paths[-1], columns, {"filename": names, "prediction": names, "truth_text": names})
features = {"prediction/scores": {"dtype": "float", "shape": [10]}}
manifest = {"shards": [{"records": rows}] * parts, "features": features}
_, megabytes = peaks.peak(index.write_index, f"{folder}/index.zip", manifest, [], "", paths, [])
print(megabytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_an_index_of_ten_times_as_many_rows_takes_no_more_memory(tmp_path):
    (few,), (many,) = (peaks.run(_PEAK, tmp_path, parts)[0] for parts in (60, 600))
    assert int(many) - int(few) < 20  # its arrays alone have 800


def test_an_index_in_a_remote_file_system_is_the_same(tmp_path):
    remote = f"ram://test-index-{uuid.uuid4().hex}/index.zip"
    parts = [[row(b"a", label=3)], [], [row(b"b", label=4)]]
    local = write(tmp_path, parts)
    write(tmp_path, parts, path=remote)

    with storage.open(remote, "rb") as file:
        assert file.read() == Path(local).read_bytes()
    index = Index(remote)
    assert index.column("label").tolist() == [3, 4]
    assert index.row(b"b") == 1
    index.close()


def test_a_part_in_a_remote_file_system_is_written_and_read_there(tmp_path):
    remote = f"ram://test-index-{uuid.uuid4().hex}/rows.npz"
    columns = {name: np.array([3, 4], COLUMNS[name]) for name in WRITTEN_COLUMNS}
    save_part(remote, columns, {name: [b"a", b"b"] for name in TEXTS})
    path = str(tmp_path / "index.zip")

    write_index(path, {"shards": [{"records": 2}], "features": {}}, [], "", [remote], [])

    index = Index(path)
    assert index.column("label").tolist() == [3, 4]
    assert [index.filename(0), index.filename(1)] == [b"a", b"b"]
    index.close()


def test_what_is_no_zip_is_corrupt(tmp_path):
    for name, data in (("empty", b""), ("junk", b"junk" * 100)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorruptError, match=name):
            Index(str(tmp_path / name))
    with pytest.raises(CorruptError, match="nothing"):
        Index(str(tmp_path / "nothing"))


def test_an_index_cut_off_anywhere_is_corrupt(tmp_path):
    data = Path(write(tmp_path, [[row(b"a")]])).read_bytes()
    cut = tmp_path / "cut.zip"

    for end in range(0, len(data), 97):
        cut.write_bytes(data[:end])
        with pytest.raises(CorruptError):
            Index(str(cut))


def rewrite(path, changes):
    """Replace entries of a zip; a change to None leaves the entry out."""
    with zipfile.ZipFile(path) as archive:
        entries = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries.items():
            changed = changes.get(info.filename, data)
            if changed is not None:
                archive.writestr(info.filename, changed, zipfile.ZIP_STORED)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "entry",
    [
        None,
        b"",
        b"junk",
        npy(np.arange(4))[:-1],
        npy(np.arange(4)) + b"more",
        npy(np.array([{}], object)),
        npy(np.arange(4)).replace(b"(4,)", b"(-4,)"),
        npy(np.arange(4)).replace(b"(4,)", b"(9**9,)"),
        b"\x93NUMPY\x03\x00" + npy(np.arange(4))[8:],
        b"\x93NUMPY\x01\x00\xff\xff{",
    ],
)
def test_a_forged_array_is_corrupt_and_named(tmp_path, entry):
    path = write(tmp_path, [[row(b"a")]])
    rewrite(path, {"columns/label.npy": entry})
    index = Index(path)

    with pytest.raises(CorruptError, match=r"columns/label\.npy"):
        index.column("label")
    assert index.column("offset").tolist() == [0]
    index.close()


@pytest.mark.parametrize("manifest", [None, b"", b"{", b"\xff", b"[" * 10])
def test_a_damaged_manifest_is_corrupt_and_named(tmp_path, manifest):
    path = write(tmp_path, [[row(b"a")]])
    rewrite(path, {"manifest.json": manifest})

    with pytest.raises(CorruptError, match=r"manifest\.json"):
        Index(path)


def test_a_compressed_array_is_corrupt(tmp_path):
    path = str(tmp_path / "index.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({}))
        archive.writestr("columns/label.npy", npy(np.arange(1000)))
    index = Index(path)

    with pytest.raises(CorruptError, match="compressed"):
        index.column("label")
    index.close()


def test_a_changed_byte_is_found_by_the_crcs(tmp_path):
    path = write(tmp_path, [[row(b"a", label=7)]])
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("columns/label.npy")
    data = bytearray(Path(path).read_bytes())
    data[data_start(path, info) + info.file_size - 1] ^= 1
    whole, changed = Index(path), tmp_path / "changed.zip"
    changed.write_bytes(data)
    damaged = Index(str(changed))

    assert whole.verify_crcs() is None
    assert "columns/label.npy" in damaged.verify_crcs()
    whole.close()
    damaged.close()
