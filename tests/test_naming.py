from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfzip import naming
from tfzip.errors import UsageError
from tfzip.naming import ShardName

NAMES = st.text("abcxyzABCXYZ0189_", min_size=1, max_size=12)


@st.composite
def shard_names(draw):
    shards = draw(st.one_of(st.integers(1, 12), st.integers(99_990, 100_010), st.integers(1, 10**9)))
    shard = draw(st.integers(0, shards - 1))
    return ShardName(draw(NAMES), draw(NAMES), shard, shards, draw(st.sampled_from(["gzip", "none"])))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (ShardName("images", "train", 0, 4, "gzip"), "images-train.tfrecord-00000-of-00004.gz"),
        (ShardName("images", "train", 3, 4, "none"), "images-train.tfrecord-00003-of-00004"),
        (ShardName("My_set2", "test_1", 99999, 100000, "gzip"), "My_set2-test_1.tfrecord-99999-of-100000.gz"),
        (ShardName("a", "b", 123456, 1234567, "none"), "a-b.tfrecord-123456-of-1234567"),
    ],
)
def test_these_parts_make_this_name_and_this_name_has_these_parts(parts, text):
    assert str(parts) == text
    assert ShardName.parse(text) == parts


@settings(deadline=None, max_examples=200)
@given(shard_names())
def test_parse_undoes_format(name):
    assert ShardName.parse(str(name)) == name


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        st.from_regex(r"[a-z-]{1,3}-[a-z.]{1,3}\.tfrecord-[0-9]{4,7}-of-[0-9]{4,7}(\.gz|\.zip|)\n?", fullmatch=True),
        st.text(max_size=30),
    )
)
def test_format_undoes_parse_whatever_parses(text):
    parsed = ShardName.parse(text)

    assert parsed is None or str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "index.zip",
        "images-train.tfrecord",
        "images-train.tfrecord.gz",
        "images-train.tfrecord-00000-of-00004.GZ",
        "images-train.tfrecord-00000-of-00004.zip",
        "images-train.tfrecord-00000-of-00004.gz.gz",
        "images-train.tfrecord-00000-of-00004.gz\n",
        "images-train.tfrecord-00000-of-00004 ",
        " images-train.tfrecord-00000-of-00004",
        "images-train.tfrecord-0000-of-0004",
        "images-train.tfrecord-000000-of-000004",
        "images-train.tfrecord-00000-of-000004",
        "images-train.tfrecord-000000-of-100000",
        "images-train.tfrecord-00004-of-00004",
        "images-train.tfrecord-00005-of-00004",
        "images-train.tfrecord-00000-of-00000",
        "images-train.tfrecord--0001-of-00004",
        "images-train.tfrecord-00000-of-?????",
        "images-train.tfrecord-٠٠٠٠٠-of-٠٠٠٠٤",  # noqa: RUF001 - digits, though not ASCII's
        "images-train.TFRECORD-00000-of-00004",
        "images-train-tfrecord-00000-of-00004",
        "images-train_tfrecord-00000-of-00004",
        "my-images-train.tfrecord-00000-of-00004",
        "images.train.tfrecord-00000-of-00004",
        "images.tfrecord-00000-of-00004",
        "-train.tfrecord-00000-of-00004",
        "images-.tfrecord-00000-of-00004",
        "imäges-train.tfrecord-00000-of-00004",
        "out/images-train.tfrecord-00000-of-00004",
    ],
)
def test_no_other_name_parses(text):
    assert ShardName.parse(text) is None


@pytest.mark.parametrize("value", ["images", "a", "0", "_0", "My_Set_2"])
def test_letters_digits_and_underscores_make_a_name(value):
    assert naming.check_name("name", value) == value


@pytest.mark.parametrize("option", ["name", "split"])
@pytest.mark.parametrize("value", ["", "_", "a-b", "a b", "a.b", "a/b", "..", "ä", "a\n", "a\0", "٣"])
def test_any_other_name_is_refused_by_its_option(option, value):
    with pytest.raises(UsageError, match=f"--{option}"):
        naming.check_name(option, value)


@pytest.mark.parametrize("option", ["split", "validation-split"])
def test_no_split_is_called_as_tfds_calls_all_of_them(option):
    with pytest.raises(UsageError, match=f"--{option} all"):
        naming.check_name(option, "all")
    assert naming.check_name("name", "all") == "all"


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_filename_survives_as_a_string(filename):
    assert naming.to_bytes(naming.to_str(filename)) == filename


@pytest.mark.parametrize("text", ["cats/1.jpg", "größe/日本.png", "🐈", "a\nb", ""])
def test_a_utf_8_filename_is_its_text(text):
    assert naming.to_str(text.encode()) == text
    assert naming.to_bytes(text) == text.encode()
    assert naming.to_text(text.encode()) == text


@pytest.mark.parametrize(
    ("filename", "text"),
    [
        (b"caf\xe9.jpg", "caf%E9.jpg"),
        (b"a b/\xff\x00.png", "a b/%FF%00.png"),
        (b"100%\xff", "100%25%FF"),
        ("ä".encode() + b"\xc3", "%C3%A4%C3"),
        (b"\xed\xa0\x80", "%ED%A0%80"),  # a surrogate: no UTF-8
    ],
)
def test_a_filename_that_is_not_utf_8_is_percent_escaped_as_text(filename, text):
    assert naming.to_text(filename) == text


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=20))
def test_as_text_every_filename_is_utf_8_and_an_escaped_one_can_be_unescaped(filename):
    text = naming.to_text(filename)

    assert filename == text.encode() or (text.isascii() and unquote_to_bytes(text) == filename)
