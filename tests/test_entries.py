"""Where the entries of a zip lie, against what zipfile finds, and for any bytes at all."""

import io
import zipfile

import forged
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_index import row, write

from tfzip import index as index_module
from tfzip.entries import is_whole, read_entries
from tfzip.errors import CorruptError
from tfzip.index import Index

ENTRIES = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=12), st.binary(max_size=300)
)


def as_zipfile_finds(data):
    """Of every entry its method, CRC and sizes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        return {i.filename: (i.compress_type, i.CRC, i.compress_size, i.file_size) for i in infos}


def as_it_is_read(data):
    return {name: tuple(entry)[:4] for name, entry in read_entries(io.BytesIO(data)).items()}


def made(tmp_path, content):
    forged.write_zip(tmp_path / "x.zip", content)
    return (tmp_path / "x.zip").read_bytes()


@settings(deadline=None, max_examples=60)
@given(ENTRIES)
def test_entries_are_those_that_zipfile_finds(tmp_path_factory, content):
    data = made(tmp_path_factory.mktemp("zip"), content)
    found = read_entries(io.BytesIO(data))
    assert as_it_is_read(data) == as_zipfile_finds(data)
    assert not any(entry.odd for entry in found.values())
    assert all(is_whole(io.BytesIO(data), entry) for entry in found.values())


@pytest.mark.parametrize("limit", [0, 1500, 3000])
def test_an_index_beyond_the_numbers_of_32_bits_is_read(tmp_path, monkeypatch, limit):
    """With the limits lowered, zipfile writes a small index as it would one of many gigabytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(index_module, "_LARGE", limit)
    path = write(tmp_path, [[row(b"a", label=7), row(b"b", label=8)]])
    monkeypatch.undo()
    with open(path, "rb") as file:
        data = file.read()
    assert b"PK\6\6" in data
    assert as_it_is_read(data) == as_zipfile_finds(data)
    index = Index(path)
    assert index.column("label").tolist() == [7, 8]
    assert index.row(b"b") == 1
    assert index.verify_crcs() is None
    assert index.odd_entries == []
    index.close()
    for place in range(data.index(b"PK\1\2"), len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        try:
            assert as_it_is_read(changed) == as_it_is_read(data)
        except CorruptError:
            continue


WHOLE = {"manifest.json": b"{}" * 40, "columns/a.npy": bytes(64), "columns/b.npy": b"x" * 64, "empty.csv": b""}
EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=300)
@given(EDITS, st.integers(0, 10**6), st.binary(max_size=8))
@example(edits=[(311, 64)], cut=0, more=b"")  # a version that needs a newer reader
def test_a_changed_zip_is_corrupt_or_is_what_zipfile_finds(tmp_path_factory, edits, cut, more):
    whole = made(tmp_path_factory.mktemp("zip"), WHOLE)
    data = bytearray(whole)
    for place, value in edits:
        data[place % len(data)] = value
    data = bytes(data[: cut % (len(data) + 1) or None]) + more
    try:
        read = as_it_is_read(data)
    except CorruptError:
        return
    assert read == as_zipfile_finds(data) == as_zipfile_finds(whole)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda data: b"PK\3\4" + data + b"PK\5\6" + bytes(18)))
def test_any_bytes_are_a_zip_or_corrupt(data):
    try:
        as_it_is_read(data)
    except CorruptError:
        return
    as_zipfile_finds(data)


@pytest.mark.parametrize("content", [b"", b"some text" * 5000])
def test_what_an_entry_holds_is_compared_with_what_it_tells(tmp_path, content):
    data = made(tmp_path, {"x.csv": content, "x.npy": content})
    found = read_entries(io.BytesIO(data))
    for name, entry in found.items():
        for wrong in (
            entry._replace(crc=entry.crc ^ 1),
            entry._replace(size=entry.size + 1),
            entry._replace(size=entry.size - 1),
            entry._replace(stored=entry.stored + 1),
            entry._replace(begin=len(data)),
        ):
            assert not is_whole(io.BytesIO(data), wrong) or (name, content) == ("x.npy", b"")
