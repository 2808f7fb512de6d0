import gc
import hashlib
import random
import subprocess
import uuid

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfzip import framing
from tfzip.write import ShardWriter

COMPRESSIONS = ["gzip", "none"]
TF_COMPRESSION = {"gzip": "GZIP", "none": ""}
FRAME = 16  # bytes that a frame adds: length, its CRC, the data's CRC
RECORDS = [b"", b"a", b"\0" * 100_000, *(random.Random(n).randbytes(5_000 * n) for n in range(12)), b"last"]


def write(path, compression, *batches):
    with ShardWriter(str(path), compression) as writer:
        for batch in batches:
            writer.write(batch)
    return writer


def members(path):
    """How many bytes each record of each member has, by the file alone."""
    with path.open("rb") as file:
        blocks = [block for _, _, block in framing.read_members(file)]
    return [[len(record) for _, record in framing.unframe_all(block)] for block in blocks]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_record_is_read_back_from_its_location_alone(tmp_path, compression):
    path = tmp_path / "shard"
    locations = write(path, compression, RECORDS).locations
    data = path.read_bytes()

    for row, record in enumerate(RECORDS):
        offset, size, start = (int(locations[name][row]) for name in ("offset", "size", "start"))
        block = data[offset : offset + size]
        if compression == "gzip":
            block = framing.inflate(block)
        assert framing.unframe(block, start)[0] == record
    assert [len(column) for column in locations.values()] == [len(RECORDS)] * 3


@settings(deadline=None, max_examples=30)
@given(
    batches=st.lists(st.lists(st.binary(max_size=50) | st.integers(0, 40_000).map(bytes), max_size=5), max_size=4),
    compression=st.sampled_from(COMPRESSIONS),
)
def test_any_records_are_read_back_in_order(tmp_path_factory, batches, compression):
    path = tmp_path_factory.mktemp("any") / "shard"
    records = [record for batch in batches for record in batch]

    writer = write(path, compression, *batches)

    with path.open("rb") as file:
        blocks = list(framing.read_blocks(file, compression))
    assert [record for _, _, block in blocks for _, record in framing.unframe_all(block)] == records
    rows = zip(*(writer.locations[name].tolist() for name in ("offset", "size", "start")), strict=True)
    assert list(rows) == [
        (offset, size, start) for offset, size, block in blocks for start, _ in framing.unframe_all(block)
    ]
    assert writer.records == len(records)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tensorflow_reads_what_is_written(tmp_path, compression):
    path = tmp_path / "shard"
    write(path, compression, RECORDS[:3], [], RECORDS[3:])

    read = tf.data.TFRecordDataset(str(path), TF_COMPRESSION[compression]).as_numpy_iterator()

    assert list(read) == RECORDS


def test_an_uncompressed_shard_is_what_tensorflow_writes(tmp_path):
    write(tmp_path / "ours", "none", RECORDS)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in RECORDS:
            writer.write(record)

    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_small_records_share_a_member_and_bare_frames_stand_alone(tmp_path, compression):
    locations = write(tmp_path / "shard", compression, [b"one", b"three", b""]).locations

    blocks = list(zip(locations["offset"].tolist(), locations["start"].tolist(), strict=True))
    in_one_member = [(0, 0), (0, 3 + FRAME), (0, 3 + 5 + 2 * FRAME)]
    bare = [(0, 0), (3 + FRAME, 0), (3 + 5 + 2 * FRAME, 0)]
    assert blocks == (bare if compression == "none" else in_one_member)


KB_32 = 32 * 1024
HALF = KB_32 // 2 - FRAME  # two frames of it fill a member exactly


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1], [[1]]),
        ([0], [[0]]),
        ([0] * 2048, [[0] * 2048]),
        ([0] * 2049, [[0] * 2048, [0]]),
        ([HALF, HALF], [[HALF, HALF]]),
        ([HALF, HALF + 1], [[HALF], [HALF + 1]]),
        ([HALF, HALF, 0], [[HALF, HALF], [0]]),
        ([HALF + 1, HALF, HALF], [[HALF + 1], [HALF, HALF]]),
        ([KB_32 - FRAME], [[KB_32 - FRAME]]),
        ([KB_32 - FRAME, 0], [[KB_32 - FRAME], [0]]),
        ([0, KB_32 - FRAME], [[0], [KB_32 - FRAME]]),
        ([KB_32 - 2 * FRAME, 0], [[KB_32 - 2 * FRAME, 0]]),
        ([KB_32], [[KB_32]]),
        ([KB_32, KB_32], [[KB_32], [KB_32]]),
        ([1, KB_32, 1, 1], [[1], [KB_32], [1, 1]]),
        ([1, 200_000, 1], [[1], [200_000], [1]]),
        ([1_000_000, 1_000_000], [[1_000_000], [1_000_000]]),
        ([10_000] * 7, [[10_000] * 3, [10_000] * 3, [10_000]]),
    ],
)
def test_a_member_holds_as_many_records_as_fit_in_32_kb_or_one_larger(tmp_path, sizes, expected):
    path = tmp_path / "shard"
    records = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]

    write(path, "gzip", records)

    assert members(path) == expected


def test_members_do_not_depend_on_how_records_come_in_batches(tmp_path):
    records = [bytes([n]) * (700 * n) for n in range(60)]
    whole = write(tmp_path / "whole", "gzip", records)
    pieces = write(tmp_path / "pieces", "gzip", *([record] for record in records))
    lazy = write(tmp_path / "lazy", "gzip", iter(records))

    assert whole.sha256 == pieces.sha256 == lazy.sha256
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()
    assert len(members(tmp_path / "whole")) > 10


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("records", [[], [b""], RECORDS])
def test_count_size_and_sha256_are_those_of_the_file(tmp_path, compression, records):
    path = tmp_path / "shard"
    writer = write(path, compression, records)
    data = path.read_bytes()

    assert writer.records == len(records)
    assert writer.bytes == len(data)
    assert writer.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("batches", [[], [[]]])
def test_an_empty_shard_has_no_records_for_tensorflow(tmp_path, compression, batches):
    path = tmp_path / "shard"
    writer = write(path, compression, *batches)

    assert list(tf.data.TFRecordDataset(str(path), TF_COMPRESSION[compression])) == []
    assert {name: column.tolist() for name, column in writer.locations.items()} == {
        "offset": [],
        "size": [],
        "start": [],
    }


@pytest.mark.parametrize("records", [[], [b""], RECORDS])
def test_the_real_gzip_finds_a_shard_whole(tmp_path, records):
    path = tmp_path / "shard.gz"
    write(path, "gzip", records)

    assert subprocess.run(["gzip", "-t", path], capture_output=True, check=True).stderr == b""
    unzipped = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout
    assert [record for _, record in framing.unframe_all(unzipped)] == records


def test_an_error_while_writing_is_passed_on_and_closes_the_file(tmp_path):
    def failing():
        yield b"a record"
        raise RuntimeError("the source died")

    writer = ShardWriter(str(tmp_path / "shard"), "gzip")
    with pytest.raises(RuntimeError, match="the source died"), writer:
        writer.write(failing())

    assert (tmp_path / "shard").read_bytes() == b""
    del writer
    gc.collect()  # a file that is still open would warn, which is an error here


def test_the_next_write_tells_what_went_wrong_in_the_one_before(tmp_path):
    writer = ShardWriter(str(tmp_path / "shard"), "none")
    writer.write(["no bytes"])
    with pytest.raises(TypeError), writer:
        writer.write([b"a record"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_shard_in_a_remote_file_system_has_the_same_bytes(tmp_path, compression):
    remote = f"ram://test-write-{uuid.uuid4().hex}/shard"
    local = write(tmp_path / "shard", compression, RECORDS)
    assert write(remote, compression, RECORDS).sha256 == local.sha256

    with tf.io.gfile.GFile(remote, "rb") as file:
        assert file.read() == (tmp_path / "shard").read_bytes()
