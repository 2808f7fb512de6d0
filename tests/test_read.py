"""A finished export, read."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip.framing import MEMBER_BYTES


@pytest.fixture(scope="module", params=["gzip", "none"])
def export(request, digits, digits_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("read") / "out"
    return tfzip.export(
        str(digits[0]), digits_model, str(out), quiet=True, source_labels="folder", shards=3, shuffle=1,
        compression=request.param,
    )  # fmt: skip


@pytest.fixture
def copy(export, tmp_path):
    """A copy of the export that a test may damage."""
    shutil.copytree(export.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_by_position_by_filename_and_by_slice_give_the_same_records(export):
    assert len(export) == 1797
    records = export[:]
    assert len({record.filename for record in records}) == 1797
    for row in (0, 1, 599, 600, 1796):
        for key in (row, row - 1797, np.int64(row), records[row].filename, records[row].filename.encode()):
            assert export[key].encoded == records[row].encoded
            assert export[key].filename == records[row].filename
    assert [r.filename for r in export[10:20]] == [r.filename for r in records[10:20]]
    assert [r.filename for r in export[20:10:-3]] == [r.filename for r in records[20:10:-3]]
    assert [r.filename for r in export.__getitems__([5, 5, 2])] == [records[row].filename for row in (5, 5, 2)]


def test_what_is_not_there_is_said_to_be_missing(export):
    for row in (1797, -1798):
        with pytest.raises(IndexError, match="1797 records"):
            export[row]
    with pytest.raises(tfzip.FilenameNotFoundError, match=r"no record of 'nobody\.png'"):
        export["nobody.png"]
    with pytest.raises(KeyError):
        export["nobody.png"]
    with pytest.raises(TypeError):
        export[1.5]
    assert "nobody.png" not in export
    assert 5 not in export
    assert "0/0000.png" in export
    assert b"0/0000.png" in export


def test_the_columns_are_those_of_the_records(export):
    metadata = export.metadata
    assert list(metadata) == [
        "filename", "shard", "offset", "size", "start", "label", "confidence", "margin", "entropy", "truth",
        "nonfinite", "scores",
    ]  # fmt: skip
    with pytest.raises(KeyError, match="no column 'colour'"):
        metadata["colour"]
    records = export[:]
    scores = np.array([record.prediction.scores for record in records], np.float64)
    ordered = np.sort(scores, axis=1)
    assert metadata["filename"].tolist() == [record.filename for record in records]
    np.testing.assert_array_equal(metadata["label"], [record.prediction.label for record in records])
    np.testing.assert_array_equal(metadata["truth"], [record.truth.label for record in records])
    np.testing.assert_array_equal(metadata["scores"], scores.astype(np.float32))
    np.testing.assert_allclose(metadata["confidence"], ordered[:, -1], atol=1e-6)
    np.testing.assert_allclose(metadata["margin"], ordered[:, -1] - ordered[:, -2], atol=1e-6)
    np.testing.assert_allclose(metadata["entropy"], -(scores * np.log(scores + 1e-30)).sum(axis=1), atol=1e-4)
    assert isinstance(metadata["confidence"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        metadata["confidence"][0] = 1


def test_a_record_knows_all_about_its_image(export, digits):
    folder, _, classes = digits
    for record in export[::100]:
        number = int(record.filename.partition("/")[2].removesuffix(".png"))
        assert record.truth == tfzip.Truth(int(classes[number]), str(classes[number]))
        assert (record.format, record.height, record.width) == ("png", 8, 8)
        assert record.encoded == (folder / record.filename).read_bytes()
        assert record.prediction.text == str(record.prediction.label)
        assert record.prediction.confidence == record.prediction.scores.max()
    positions = {record.filename: record.source_id for record in export[:]}
    assert [positions[name] for name in sorted(positions)] == [str(number) for number in range(1797)]


def test_small_records_share_members_and_none_is_larger_than_it_may_be(export):
    if export.manifest["compression"] != "gzip":
        pytest.skip("members are of gzip")
    metadata = export.metadata
    members = set(zip(metadata["shard"].tolist(), metadata["offset"].tolist(), strict=True))
    assert len(members) < 1797 / 40
    assert metadata["start"].max() < MEMBER_BYTES


def test_the_dataset_is_parsed_and_in_order(export):
    names = [example["image/filename"].numpy().decode() for example in export.dataset()]
    assert names == export.metadata["filename"].tolist()
    batches = list(export.dataset(batch_size=100))
    assert len(batches) == 18
    np.testing.assert_array_equal(
        np.concatenate([batch["prediction/scores"] for batch in batches]), export.metadata["scores"]
    )
    assert batches[0]["truth/label"].dtype == tf.int64
    assert export.dataset().element_spec["prediction/scores"].shape == (10,)


def test_a_model_trains_on_the_dataset_as_it_is(export):
    import keras

    def pair(batch):
        images = tf.map_fn(lambda b: tf.io.decode_png(b, 1), batch["image/encoded"], fn_output_signature=tf.uint8)
        return tf.ensure_shape(images, (None, 8, 8, 1)), batch["prediction/label"]

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(export.dataset(batch_size=64).map(pair), epochs=4, shuffle=False, verbose=0)
    assert model.evaluate(export.dataset(batch_size=64).map(pair), verbose=0)[1] > 0.8


def test_a_folder_that_holds_no_export_is_told_so(tmp_path):
    with pytest.raises(tfzip.NotAnExportError, match="no such folder"):
        tfzip.open(str(tmp_path / "nowhere"))
    with pytest.raises(tfzip.NotAnExportError, match=r"no index\.zip"):
        tfzip.open(str(tmp_path))


def test_a_file_of_an_export_is_told_to_be_no_folder(export):
    for path in (f"{export.path}/index.zip", export.shards[0]):
        with pytest.raises(tfzip.NotAnExportError, match="is a file: give the folder"):
            tfzip.open(path)


def test_an_unknown_split_is_told(export):
    assert tfzip.open(export.path, "train").split == "train"
    with pytest.raises(tfzip.NotAnExportError, match="holds the split 'train', not 'test'"):
        tfzip.open(export.path, split="test")


def test_a_newer_format_is_told(copy):
    change_entry(
        copy / "index.zip", "manifest.json", lambda text: text.replace('"format_version": 1', '"format_version": 9')
    )
    with pytest.raises(tfzip.UsageError, match="format version 9"):
        tfzip.open(str(copy))


def change_entry(path, name, change):
    """Replace a text entry of a zip; the others are copied."""
    with zipfile.ZipFile(path) as archive:
        entries = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries.items():
            archive.writestr(info, change(data.decode()).encode() if info.filename == name else data)


# verify


def problems(folder):
    with tfzip.open(str(folder)) as opened:
        return tfzip.verify(opened)


def test_a_whole_export_has_no_problems(export):
    assert tfzip.verify(export) == []


def test_any_flipped_bit_of_a_shard_is_found_by_verify(export, copy):
    shard = copy / export.manifest["shards"][1]["file"]
    whole = shard.read_bytes()
    for position in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        shard.write_bytes(damaged)
        found = problems(copy)
        assert found, position
        assert all(shard.name in line for line in found)


def test_a_damaged_record_is_never_returned(export, copy):
    shard = copy / export.manifest["shards"][0]["file"]
    whole, records, refused = shard.read_bytes(), export[:600], 0
    for position in np.linspace(0, len(whole) - 1, 25).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        shard.write_bytes(damaged)
        with tfzip.open(str(copy)) as opened:
            for row in range(len(records)):
                try:
                    encoded = opened[row].encoded
                except tfzip.CorruptError as error:
                    encoded, said = records[row].encoded, str(error)
                    refused += shard.name in said and f"record {row}" in said
                assert encoded == records[row].encoded
    assert refused >= 25


def test_reading_on_over_damage_is_an_error_of_ours(export, copy):
    shard = copy / export.manifest["shards"][2]["file"]
    shard.write_bytes(shard.read_bytes()[:-30])
    with tfzip.open(str(copy)) as opened, pytest.raises(tfzip.CorruptError, match="tfzip verify"):
        list(opened)


@pytest.mark.parametrize("what", ["missing", "empty", "cut", "longer", "swapped"])
def test_a_shard_that_is_not_as_written_is_found(export, copy, what):
    first, second = (copy / export.manifest["shards"][number]["file"] for number in (0, 1))
    whole = first.read_bytes()
    if what == "missing":
        first.unlink()
    elif what == "swapped":
        first.write_bytes(second.read_bytes())
        second.write_bytes(whole)
    else:
        first.write_bytes({"empty": b"", "cut": whole[:-1], "longer": whole + whole[:99]}[what])
    found = problems(copy)
    assert any(first.name in line for line in found)
    assert what != "swapped" or any(second.name in line for line in found)


@pytest.mark.parametrize("entry", ["labels.txt", "metadata.csv", "columns/label.npy", "lookup/row.npy", "schema.pbtxt"])
def test_any_damaged_entry_of_the_index_is_found(copy, entry):
    path = copy / "index.zip"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(entry)
    whole = bytearray(path.read_bytes())
    start = whole.index(entry.encode()) + len(entry)
    whole[start + 20 + info.compress_size // 2] ^= 4  # behind the zip64 or padding field
    path.write_bytes(whole)
    try:
        found = problems(copy)
    except tfzip.CorruptError as error:
        found = [str(error)]
    assert found
    assert any("index.zip" in line for line in found)


@pytest.mark.parametrize(
    ("entry", "change", "said"),
    [
        ("metadata.csv", lambda text: text.replace("0/0000.png", "0/0001.png"), "metadata.csv"),
        ("metadata.csv", lambda text: text[: text[:-1].rindex("\n") + 1], "1796 rows"),
        ("metadata.csv", lambda text: text.replace(",0.", ",0.1", 1), "metadata.csv"),
        ("failures.csv", lambda text: text + "ghost.png,read,vanished\n", "failures.csv"),
        ("manifest.json", lambda text: text.replace('"records": 1797', '"records": 1796'), "1797 images"),
        ("labels.txt", lambda text: text.replace("3", "8"), "labels.txt"),
    ],
)
def test_an_index_that_contradicts_itself_is_found(copy, entry, change, said):
    change_entry(copy / "index.zip", entry, change)
    try:
        found = problems(copy)
    except tfzip.CorruptError as error:
        found = [str(error)]
    assert any(said in line for line in found)


def test_a_truncated_index_is_an_error_of_ours(copy):
    whole = (copy / "index.zip").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 15).astype(int):
        (copy / "index.zip").write_bytes(whole[:length])
        with pytest.raises(tfzip.CorruptError, match=r"index\.zip"):
            tfzip.open(str(copy))


def test_the_manifest_is_plain_json(export):
    assert json.loads(json.dumps(export.manifest)) == export.manifest
