import gzip
import io
import random
import tracemalloc
import zlib

import forged
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image

from tfzip import framing
from tfzip.errors import CorruptError

RECORDS = st.lists(st.one_of(st.binary(max_size=200), st.binary(min_size=4000, max_size=5000)), max_size=8)

# RFC 3720, B.4, and the check value of the catalogue of CRCs.
CRC_32C = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
    (b"", 0),
]

# Lengths and CRCs from a bitwise CRC-32C; the frame of no data is also in TensorFlow's own tests.
FRAMES = [
    (b"", "0000000000000000 29039807 d8ea82a2"),
    (b"a", "0100000000000000 0175de41 61 786ee428"),
    (b"hello", "0500000000000000 eab2043e 68656c6c6f bb1f1c19"),
    (b"\0\1\2\3", "0400000000000000 42455204 00010203 3e9dcad7"),
    (b"\xff" * 300, "2c01000000000000 f2fe5b9d" + "ff" * 300 + "fe400776"),
]

# RFC 1952 with one stored block of RFC 1951, made by hand: header, 01 LEN NLEN data, CRC-32, ISIZE.
MEMBERS = [
    (b"", "1f8b08000000000000ff 01 0000 ffff 00000000 00000000"),
    (b"a", "1f8b08000000000000ff 01 0100 feff 61 43beb7e8 01000000"),
    (b"hello", "1f8b08000000000000ff 01 0500 faff 68656c6c6f 86a61036 05000000"),
]


def unmask(masked):
    rotated = (masked - 0xA282EAD8) % 2**32
    return (rotated >> 17 | rotated << 15) % 2**32


def flips(data):
    for position in range(len(data)):
        for change in range(1, 256):
            yield data[:position] + bytes([data[position] ^ change]) + data[position + 1 :]


def or_corrupt(read):
    try:
        return read()
    except CorruptError:
        return CorruptError


def header(length):
    data = length.to_bytes(8, "little")
    return data + framing.masked_crc(data).to_bytes(4, "little")


@pytest.mark.parametrize(("data", "crc"), CRC_32C)
def test_the_masked_crc_is_the_masked_published_crc_32c(data, crc):
    assert unmask(framing.masked_crc(data)) == crc


@pytest.mark.parametrize(("data", "expected"), FRAMES)
def test_a_frame_is_these_bytes_and_these_bytes_are_that_record(data, expected):
    expected = bytes.fromhex(expected)

    assert forged.frame(data) == expected
    assert framing.unframe(expected) == (data, len(expected))
    assert framing.unframe(b"before" + expected + b"after", 6) == (data, 6 + len(expected))


@pytest.mark.parametrize(("data", "member"), MEMBERS)
def test_a_hand_made_member_inflates_to_its_data_and_a_deflated_one_is_one_member_for_zlib(data, member):
    assert framing.inflate(bytes.fromhex(member)) == data

    stream = zlib.decompressobj(31)
    assert stream.decompress(forged.member(data)) == data
    assert stream.eof
    assert stream.unused_data == b""


@pytest.mark.parametrize("data", [b"", b"a", bytes(100_000), random.Random(1).randbytes(100_000)])
def test_pythons_gzip_reads_deflated_data_and_finds_no_time_and_no_name_in_it(data):
    member = forged.member(data)

    with gzip.GzipFile(fileobj=io.BytesIO(member)) as file:
        assert file.read() == data
        assert file.mtime == 0
    assert member[:8] == b"\x1f\x8b\x08\x00" + bytes(4)
    assert gzip.decompress(member * 3) == data * 3


STORED = [
    ([], "1f8b08000000000000ff 010000ffff 00000000 00000000"),
    ([b"hello"], "1f8b08000000000000ff 000500faff 68656c6c6f 010000ffff 86a61036 05000000"),
    ([b"hel", b"", b"lo"], "1f8b08000000000000ff 000300fcff 68656c 000200fdff 6c6f 010000ffff 86a61036 05000000"),
]
"""Pieces, and the gzip member that holds them as they are: header, blocks, CRC-32 and length (RFC 1951 and 1952)."""


@pytest.mark.parametrize(("pieces", "member"), STORED)
def test_stored_data_are_these_bytes(pieces, member):
    assert b"".join(framing.store(pieces)) == bytes.fromhex(member)
    assert framing.inflate(bytes.fromhex(member)) == b"".join(pieces)


@pytest.mark.parametrize("size", [1, 0xFFFF, 0x10000, 2 * 0xFFFF, 200_000])
def test_stored_data_of_any_length_are_read_by_python_and_by_us(size):
    data = random.Random(size).randbytes(size)
    member = b"".join(framing.store([data]))
    assert gzip.decompress(member * 2) == data * 2
    assert framing.inflate(member) == data
    assert len(member) == size + 18 + 5 * (1 + -(-size // 0xFFFF))


TEXT, NOISE = b"pixels " * 20_000, random.Random(6).randbytes(140_000)


@pytest.mark.parametrize(
    ("data", "is_stored"),
    [
        (NOISE, True),
        (TEXT, False),
        (TEXT[:20_000], False),
        (NOISE[:70_000] + TEXT, False),
        (TEXT[:9_000] + NOISE, True),
    ],
    ids=["noise", "text", "a little text", "noise, then text", "a little text, then noise"],
)
def test_only_what_is_large_and_hardly_shrinks_is_stored(data, is_stored):
    member = forged.member(data)
    assert (member == b"".join(framing.store([data]))) is is_stored
    assert gzip.decompress(member) == data


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_pixels_of_photographs_are_deflated_and_their_jpegs_are_stored(name):
    pixels = load_sample_image(name)
    grey, jpeg = pixels[..., 1].tobytes(), tf.io.encode_jpeg(pixels).numpy()
    assert len(forged.member(pixels.tobytes())) < 0.9 * pixels.size
    assert len(forged.member(grey)) < 0.9 * len(grey)
    assert forged.member(jpeg) == b"".join(framing.store([jpeg]))


@pytest.mark.parametrize("level", [0, 1, 9])
def test_members_of_pythons_gzip_inflate_and_are_found_in_a_file(level):
    datas = [b"small", random.Random(2).randbytes(70_000), forged.frame(bytes(3_000_000))]
    members = [gzip.compress(data, level, mtime=0) for data in datas]

    assert [framing.inflate(member) for member in members] == datas
    found = list(framing.read_members(io.BytesIO(b"".join(members))))
    assert [data for _, _, data in found] == datas
    assert [size for _, size, _ in found] == [len(member) for member in members]
    assert [offset for offset, _, _ in found] == [sum(map(len, members[:i])) for i in range(len(members))]


def test_tensorflow_writes_the_same_frames(tmp_path):
    records = [b"", b"a", b"\0" * 1000, random.Random(3).randbytes(100_000), "größer".encode()]
    path = str(tmp_path / "tf.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)

    written = (tmp_path / "tf.tfrecord").read_bytes()
    assert b"".join(forged.frame(record) for record in records) == written
    assert [data for _, data in framing.unframe_all(written)] == records


def test_tensorflow_reads_deflated_members_as_one_gzip_file(tmp_path):
    groups = [[b"one"], [], [b"", b"two", b"three" * 20_000], [random.Random(4).randbytes(300_000)], [b"last"]]
    path = tmp_path / "members.gz"
    path.write_bytes(b"".join(forged.member(b"".join(map(forged.frame, group))) for group in groups))

    read = list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())

    assert read == [record for group in groups for record in group]


@settings(deadline=None, max_examples=100)
@given(RECORDS)
def test_unframe_all_gives_back_every_record_and_where_its_frame_begins(records):
    frames = [forged.frame(record) for record in records]

    found = list(framing.unframe_all(b"".join(frames)))

    assert found == [(sum(map(len, frames[:i])), record) for i, record in enumerate(records)]


@settings(deadline=None, max_examples=100)
@given(RECORDS)
def test_read_frames_gives_back_every_frame_and_its_place_in_the_file(records):
    frames = [forged.frame(record) for record in records]
    data = b"".join(frames)

    found = list(framing.read_frames(io.BytesIO(data)))

    assert [block for _, _, block in found] == frames
    assert all(data[offset : offset + size] == block for offset, size, block in found)
    assert found == list(framing.read_blocks(io.BytesIO(data), "none"))


@settings(deadline=None, max_examples=100)
@given(st.lists(RECORDS, max_size=5))
def test_read_members_gives_back_every_member_and_its_place_in_the_file(groups):
    datas = [b"".join(map(forged.frame, group)) for group in groups if group]
    file = b"".join(map(forged.member, datas))

    found = list(framing.read_members(io.BytesIO(file)))

    assert [data for _, _, data in found] == datas
    assert [framing.inflate(file[offset : offset + size]) for offset, size, _ in found] == datas
    assert sum(size for _, size, _ in found) == len(file)
    assert found == list(framing.read_blocks(io.BytesIO(file), "gzip"))


@pytest.mark.parametrize("distance", [*range(-10, 11), 25])
def test_a_member_may_end_anywhere_about_a_mebibyte(distance):
    random_bytes = random.Random(5).randbytes(1 << 20)
    overhead = len(gzip.compress(random_bytes[:1_040_000], 0, mtime=0)) - 1_040_000
    data = random_bytes[: (1 << 20) + distance - overhead]
    first, second = gzip.compress(data, 0, mtime=0), gzip.compress(b"second", mtime=0)
    assert len(first) == (1 << 20) + distance

    assert list(framing.read_members(io.BytesIO(first))) == [(0, len(first), data)]
    assert list(framing.read_members(io.BytesIO(first + second))) == [
        (0, len(first), data),
        (len(first), len(second), b"second"),
    ]


def test_an_empty_member_stands_alone():
    empty, full = forged.member(b""), forged.member(forged.frame(b"x"))

    assert list(framing.read_members(io.BytesIO(empty))) == [(0, len(empty), b"")]
    for file in (empty + full, full + empty, empty * 2, empty * 100_000, full + empty + full):
        with pytest.raises(CorruptError, match="is empty"):
            list(framing.read_members(io.BytesIO(file)))


def test_an_empty_file_holds_nothing():
    assert list(framing.read_members(io.BytesIO())) == []
    assert list(framing.read_frames(io.BytesIO())) == []
    assert list(framing.unframe_all(b"")) == []


def test_a_changed_byte_in_a_frame_never_gives_wrong_data():
    frame = forged.frame(b"a small record")

    for changed in flips(frame):
        assert or_corrupt(lambda changed=changed: framing.unframe(changed)) is CorruptError
        blocks = or_corrupt(lambda changed=changed: list(framing.read_frames(io.BytesIO(changed))))
        if blocks is not CorruptError:
            assert or_corrupt(lambda blocks=blocks: list(framing.unframe_all(blocks[0][2]))) is CorruptError


def test_a_changed_byte_in_a_member_never_gives_wrong_data():
    data = forged.frame(b"a small record, a small record, a small record")
    member = forged.member(data)
    outcomes = set()

    for changed in flips(member):
        outcome = or_corrupt(lambda changed=changed: framing.inflate(changed))
        assert outcome in (CorruptError, data), changed
        in_file = or_corrupt(lambda changed=changed: list(framing.read_members(io.BytesIO(changed))))
        assert in_file in (CorruptError, [(0, len(member), data)]), changed
        outcomes.add(outcome)

    assert outcomes == {CorruptError, data}  # the header's time and system change nothing


def test_a_changed_byte_in_the_first_of_two_members_never_gives_wrong_data():
    datas = [forged.frame(b"the first record"), forged.frame(b"the second record")]
    members = [forged.member(data) for data in datas]

    for changed in flips(members[0]):
        file = io.BytesIO(changed + members[1])
        outcome = or_corrupt(lambda file=file: [data for _, _, data in framing.read_members(file)])
        assert outcome in (CorruptError, datas), changed


def test_a_frame_cut_off_anywhere_is_corrupt():
    frame = forged.frame(b"a small record")

    for end in range(len(frame)):
        with pytest.raises(CorruptError):
            framing.unframe(frame[:end])
        if end:
            with pytest.raises(CorruptError):
                list(framing.unframe_all(frame[:end]))
            with pytest.raises(CorruptError):
                list(framing.read_frames(io.BytesIO(frame[:end])))


def test_a_member_cut_off_anywhere_is_corrupt():
    member = forged.member(forged.frame(b"a small record, a small record, a small record"))

    for end in range(len(member)):
        with pytest.raises(CorruptError):
            framing.inflate(member[:end])
        if end:
            with pytest.raises(CorruptError):
                list(framing.read_members(io.BytesIO(member[:end])))


def test_a_cut_off_file_gives_the_whole_members_before_the_cut_and_then_is_corrupt():
    members = [forged.member(b"first"), forged.member(b"second")]
    file = b"".join(members)

    for end in range(len(members[0]) + 1, len(file)):
        found = framing.read_members(io.BytesIO(file[:end]))
        assert next(found) == (0, len(members[0]), b"first")
        with pytest.raises(CorruptError):
            next(found)


EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3)


@pytest.mark.parametrize("compression", ["gzip", "none"])
@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=5), EDITS, st.integers(0, 10**6))
def test_a_changed_file_gives_the_first_of_its_records_and_no_other(compression, records, edits, cut):
    frames = [forged.frame(record) for record in records]
    data = bytearray(b"".join(map(forged.member, frames) if compression == "gzip" else frames))
    for place, value in edits:
        data[place % len(data)] = value
    file, found = io.BytesIO(data[: cut % (len(data) + 1) or None]), []

    def read():
        for _, _, block in framing.read_blocks(file, compression):
            found.extend(record for _, record in framing.unframe_all(block))

    or_corrupt(read)
    assert found == records[: len(found)]


@pytest.mark.parametrize("rest", [b"\0", b"junk", bytes(20), forged.member(b"another")])
def test_more_than_one_member_is_not_one_member(rest):
    with pytest.raises(CorruptError):
        framing.inflate(forged.member(b"data") + rest)


@pytest.mark.parametrize("rest", [b"\0", b"junk", bytes(20), b"\x1f\x8b"])
def test_junk_after_the_members_of_a_file_is_corrupt(rest):
    with pytest.raises(CorruptError):
        list(framing.read_members(io.BytesIO(forged.member(b"data") + rest)))


@pytest.mark.parametrize("data", [b"", b"junk", b"\x1f\x8b", zlib.compress(b"data"), bytes(1000)])
def test_what_is_no_member_is_corrupt(data):
    with pytest.raises(CorruptError):
        framing.inflate(data)


@pytest.mark.parametrize("start", [-1, -17, 18, 10**30])
def test_a_place_outside_the_data_is_corrupt(start):
    with pytest.raises(CorruptError):
        framing.unframe(forged.frame(b"x"), start)


@pytest.mark.parametrize("length", [3, 1 << 33, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_forged_length_is_corrupt_and_takes_no_memory(length):
    forged = header(length) + b"\0"
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            framing.unframe(forged)
        with pytest.raises(CorruptError):
            list(framing.read_frames(io.BytesIO(forged)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_are_corrupt(data):
    for read in (
        lambda: framing.unframe(data),
        lambda: framing.inflate(data),
        lambda: list(framing.unframe_all(data)),
        lambda: list(framing.read_frames(io.BytesIO(data))),
        lambda: list(framing.frame_headers(io.BytesIO(data))),
        lambda: list(framing.read_members(io.BytesIO(data))),
    ):
        or_corrupt(read)
