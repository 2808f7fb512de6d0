import io
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tfzip import encode
from tfzip.record import ENCODED, FeatureSpec

TF_DTYPES = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
VARINT_EDGES = (127, 128, 16383, 16384, 2097151, 2097152)


# A column is a feature's spec and its value for each example of the batch; a shape of (None,) is ragged.


def protobuf(columns):
    """What Python's protobuf makes of each example of the batch."""
    batch_size = len(next(iter(columns.values()))[1])
    return [
        tf.train.Example(
            features=tf.train.Features(
                feature={key: feature(spec, values[i]) for key, (spec, values) in columns.items()}
            )
        ).SerializeToString(deterministic=True)
        for i in range(batch_size)
    ]


def in_key_order(columns):
    """The same, put together from examples of one feature each.

    Where one key begins another, protobuf's upb writes the longer first (its C++ and Python do not):
    https://github.com/protocolbuffers/protobuf/pull/26621.
    """
    singles = [protobuf({key: columns[key]}) for key in sorted(columns)]
    wholes = zip(protobuf(columns), *singles, strict=True)
    made = []
    for whole, *examples in wholes:
        entries = b"".join(tf.train.Example.FromString(one).features.SerializeToString() for one in examples)
        made.append(whole[: len(whole) - len(entries)] + entries)
    return made


def begin_each_other(keys):
    return any(second.startswith(first) for first, second in pairwise(sorted(keys)))


def feature(spec, value):
    flat = [value] if spec.shape == () else list(value)
    if spec.dtype == "bytes":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=flat))
    if spec.dtype == "int64":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=flat))
    return tf.train.Feature(float_list=tf.train.FloatList(value=flat))


def tensor(spec, values):
    if spec.shape == (None,):
        return tf.ragged.constant(values, TF_DTYPES[spec.dtype], ragged_rank=1, row_splits_dtype=tf.int64)
    return tf.reshape(tf.constant(values, TF_DTYPES[spec.dtype]), (len(values), *spec.shape))


def features_of(columns):
    return {key: (columns[key][0], tensor(*columns[key])) for key in sorted(columns)}


def eager(columns):
    return encode.serialize(features_of(columns)).numpy().tolist()


def in_graph(columns):
    """As in an export: a graph that does not know the batch size."""
    features = features_of(columns)
    specs = {key: spec for key, (spec, _) in features.items()}
    signature = {
        key: tf.RaggedTensorSpec((None, None), value.dtype, ragged_rank=1)
        if specs[key].shape == (None,)
        else tf.TensorSpec((None, *specs[key].shape), value.dtype)
        for key, (_, value) in features.items()
    }

    @tf.function(input_signature=[signature])
    def serialize(values):
        return encode.serialize({key: (specs[key], values[key]) for key in sorted(specs)})

    return serialize({key: value for key, (_, value) in features.items()}).numpy().tolist()


LENGTHS = st.sampled_from([0, 1, 100, 126, 127, 128, 129, 16_380, 16_383, 16_384, 20_000])
BYTES = st.one_of(st.binary(max_size=20), st.builds(lambda length, byte: byte * length, LENGTHS, st.binary(max_size=1)))
INTS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, 127, 128, 2**63 - 1, -(2**63)]))
FLOATS = st.floats(width=32)
VALUES = {"bytes": BYTES, "int64": INTS, "float": FLOATS}
KEYS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.sampled_from(["a", "image/encode", "image/encoded/", "image/filename", "prediction/scores", "~", "größe", "🐈"]),
    st.builds(
        lambda letter, length: letter * length, st.sampled_from("aéz"), st.sampled_from([63, 64, 127, 128, 20_000])
    ),
)


@st.composite
def column(draw, batch_size):
    dtype = draw(st.sampled_from(["bytes", "int64", "float"]))
    kind = draw(st.sampled_from(["scalar", "scalar", "vector", "ragged", "all empty"]))
    if kind == "scalar":
        shape, value = (), VALUES[dtype]
    elif kind == "vector":
        size = draw(st.sampled_from([0, 1, 2, 5, 31, 32, 40]))
        shape, value = (size,), st.lists(VALUES[dtype], min_size=size, max_size=size)
    else:
        shape, value = (None,), st.lists(VALUES[dtype], max_size=4 if kind == "ragged" else 0)
    return FeatureSpec(dtype, shape), draw(st.lists(value, min_size=batch_size, max_size=batch_size))


@st.composite
def batches(draw):
    batch_size = draw(st.integers(1, 5))
    keys = draw(st.sets(KEYS.filter(lambda key: key != ENCODED), min_size=1, max_size=6))
    columns = {key: draw(column(batch_size)) for key in sorted(keys)}
    if draw(st.booleans()):
        columns[ENCODED] = FeatureSpec("bytes"), draw(st.lists(BYTES, min_size=batch_size, max_size=batch_size))
    return columns


ONE_ORDER = batches().filter(lambda columns: not begin_each_other(columns))

# The next two are the same promise; outside a graph it is cheap to try many batches.


@settings(deadline=None, max_examples=120)
@given(ONE_ORDER)
def test_serialized_examples_equal_those_of_protobuf(columns):
    assert eager(columns) == protobuf(columns)


@settings(deadline=None, max_examples=25)
@given(ONE_ORDER)
def test_serialized_examples_equal_those_of_protobuf_in_a_graph(columns):
    assert in_graph(columns) == protobuf(columns)


NAME = (FeatureSpec("bytes"), [b"cats/1.jpg", b"", b"dogs/2.jpg"])
SCORES = (FeatureSpec("float", (3,)), [[0.5, 0.25, 0.25], [1.0, 0.0, -0.0], [float("nan"), float("inf"), -1e-45]])
LABELS = (FeatureSpec("int64", (None,)), [[], [-1, 2**40], [7]])
TEXTS = (FeatureSpec("bytes", (None,)), [[b"a"], [], [b"b", b""]])
IMAGE = (FeatureSpec("bytes"), [b"image", b"", b"\xff" * 300])


@pytest.mark.parametrize(
    "columns",
    [
        {"image/filename": NAME},
        {"prediction/scores": SCORES},
        {"prediction/labels": LABELS},
        {"prediction/texts": TEXTS},
        {ENCODED: IMAGE, "a": NAME},
        {ENCODED: IMAGE, "z": NAME},
        {ENCODED: IMAGE, "image/encoda": NAME, "image/encodef": SCORES},
        {ENCODED: IMAGE, "a": NAME, "b": SCORES, "y": TEXTS, "z": LABELS},
        {"a": NAME, "b": SCORES, "y": TEXTS, "z": LABELS},
        {ENCODED: IMAGE, "Ä": NAME, "ÿ": SCORES, "日本": TEXTS, "🐈": LABELS, "\uffff": NAME},
        {ENCODED: IMAGE, "k" * 127: NAME, "l" * 128: SCORES, "m" * 20_000: LABELS},
        {"none": (FeatureSpec("float", (0,)), [[], [], []]), "empty": (FeatureSpec("bytes", (None,)), [[], [], []])},
        {"boxes": (FeatureSpec("float", (2, 2)), [np.arange(4) + i for i in range(3)]), ENCODED: IMAGE},
    ],
    ids=lambda columns: ",".join(key[:15] for key in columns),
)
@pytest.mark.parametrize("run", [eager, in_graph])
def test_these_batches_equal_those_of_protobuf(run, columns):
    flat = {
        key: (spec, [np.ravel(v) if spec.shape == (2, 2) else v for v in vs]) for key, (spec, vs) in columns.items()
    }

    assert run(columns) == protobuf(flat)


@pytest.mark.parametrize("run", [eager, in_graph])
def test_keys_that_begin_one_another_are_in_order_too(run):
    columns = {ENCODED: IMAGE, "image/encode": NAME, "image/encoded/": SCORES, "image": LABELS, "i": TEXTS}

    assert begin_each_other(columns)
    assert run(columns) == in_key_order(columns)


@settings(deadline=None, max_examples=40)
@given(batches())
def test_serialized_examples_have_their_keys_in_order(columns):
    assert eager(columns) == in_key_order(columns)


@pytest.mark.parametrize("edge", VARINT_EDGES)
@pytest.mark.parametrize("run", [eager, in_graph])
def test_an_image_of_a_length_at_a_varints_edge_equals_protobufs(run, edge):
    columns = {
        ENCODED: (FeatureSpec("bytes"), [b"\xff" * edge, b"", b"x"]),
        "image/filename": (FeatureSpec("bytes"), [b"1", b"2", b"3"]),
    }

    assert run(columns) == protobuf(columns)


@pytest.mark.parametrize("edge", VARINT_EDGES)
def test_every_header_around_an_image_passes_a_varints_edge_as_protobufs_does(edge):
    # Five lengths enclose the image: list, feature, map entry, features; the whole reaches the edge first.
    step = 1 if edge < 100_000 else 7
    sizes = range(max(0, edge - 70), edge + 2, step)
    columns = {
        ENCODED: (FeatureSpec("bytes"), [b"\xff" * size for size in sizes]),
        "image/filename": (FeatureSpec("bytes"), [b"name"] * len(sizes)),
    }

    assert eager(columns) == protobuf(columns)


@pytest.mark.parametrize("edge", VARINT_EDGES[:4])
def test_every_header_around_another_feature_passes_a_varints_edge_as_protobufs_does(edge):
    sizes = range(max(0, edge - 70), edge + 2)
    columns = {"image/text": (FeatureSpec("bytes"), [b"\xff" * size for size in sizes])}

    assert eager(columns) == protobuf(columns)


@pytest.mark.parametrize("dtype", [tf.int32, tf.uint8, tf.int64])
def test_integers_of_any_width_are_serialized_as_int64(dtype):
    values = {"height": (FeatureSpec("int64"), tf.constant([0, 127, 100], dtype))}

    assert encode.serialize(values).numpy().tolist() == protobuf({"height": (FeatureSpec("int64"), [0, 127, 100])})


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_floats_of_any_width_are_serialized_as_float32(dtype):
    values = {"scores": (FeatureSpec("float", (2,)), tf.constant([[0.5, -2.0]], dtype))}

    assert encode.serialize(values).numpy().tolist() == protobuf({"scores": (FeatureSpec("float", (2,)), [[0.5, -2]])})


def test_tensorflow_parses_what_is_serialized():
    columns = {ENCODED: IMAGE, "image/filename": NAME, "prediction/labels": LABELS, "prediction/scores": SCORES}

    parsed = tf.io.parse_example(
        encode.serialize(features_of(columns)),
        {
            ENCODED: tf.io.FixedLenFeature((), tf.string),
            "image/filename": tf.io.FixedLenFeature((), tf.string),
            "prediction/labels": tf.io.RaggedFeature(tf.int64),
            "prediction/scores": tf.io.FixedLenFeature((3,), tf.float32),
        },
    )

    assert parsed[ENCODED].numpy().tolist() == IMAGE[1]
    assert parsed["image/filename"].numpy().tolist() == NAME[1]
    assert parsed["prediction/labels"].to_list() == LABELS[1]
    np.testing.assert_array_equal(parsed["prediction/scores"], np.float32(SCORES[1]))


PNG = b"\x89PNG\r\n\x1a\n"
JXL = b"\x00\x00\x00\x0cJXL \r\n\x87\n"

FORMATS = [
    (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "jpeg"),
    (b"\xff\xd8\xff\xe1\x00\x10Exif\x00", "jpeg"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"\xff\xd8", ""),
    (b"\xff\xd8\xfe\xff", ""),
    (PNG + b"\x00\x00\x00\rIHDR", "png"),
    (PNG, "png"),
    (PNG[:-1], ""),
    (PNG[1:], ""),
    (b"GIF87a\x01\x00\x01\x00", "gif"),
    (b"GIF89a\x01\x00\x01\x00", "gif"),
    (b"GIF", ""),
    (b"gif89a\x01\x00\x01\x00", ""),
    (b"BM\x3a\x00\x00\x00\x00\x00\x00\x00\x36\x00", "bmp"),
    (b"B", ""),
    (b"RIFF\x24\x00\x00\x00WEBPVP8 \x18\x00", "webp"),
    (b"RIFF\x3f\x3f\x3f\x3fWEBP", "webp"),
    (b"RIFF\xff\xff\xff\xffWEBP", "webp"),
    (b"RIFF\x24\x00\x00\x00WEB", ""),
    (b"RIFF\x24\x00\x00\x00WAVEfmt ", ""),
    (b"RIFF\x24\x00\x00\x00", ""),
    (b"\xff\x0a\xfa\x1f", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"\xff", ""),
    (JXL + b"\x00\x00\x00\x14ftyp", "jxl"),
    (JXL, "jxl"),
    (JXL[:-1], ""),
    (b"", ""),
    (b"\x00", ""),
    (b"\x00" * 100, ""),
    (b"?" * 100, ""),
    (b" \xff\xd8\xff", ""),
    (b"II*\x00\x08\x00\x00\x00", "tiff"),
    (b"MM\x00*\x00\x00\x00\x08", "tiff"),
    (b"II+\x00\x08\x00\x00\x00", "tiff"),
    (b"II\x00*", ""),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51\x00\x2f", "jp2"),
    (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", "avif"),
    (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "heic"),
    (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00", "heic"),
    (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", ""),
    (b"\x93NUMPY\x01\x00v\x00", "npy"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ""),
]


@pytest.mark.parametrize(("encoded", "expected"), FORMATS)
def test_the_format_is_what_the_bytes_begin_with(encoded, expected):
    assert encode.image_format(tf.constant([encoded])).numpy().tolist() == [expected.encode()]


def test_the_formats_of_a_batch_are_told_one_by_one_in_a_graph():
    formats = tf.function(encode.image_format, input_signature=[tf.TensorSpec((None,), tf.string)])

    told = formats(tf.constant([encoded for encoded, _ in FORMATS])).numpy().tolist()

    assert told == [expected.encode() for _, expected in FORMATS]


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp", "webp", "tiff"])
def test_what_another_encoder_makes_is_of_its_format(name):
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (200, 100, 50)).save(file, name)

    assert encode.image_format(tf.constant([file.getvalue()])).numpy().tolist() == [name.encode()]
