import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfzip.errors import UsageError
from tfzip.options import Options

INVALID = {
    "task": ["", "Multiclass", "segmentation", None],
    "scores": ["", "softmax", None],
    "scale": ["", "0..1", "RAW"],
    "resize": ["", "fit"],
    "interpolation": ["", "linear", "BILINEAR"],
    "exif_orientation": ["", "auto", True],
    "alpha": ["", "keep", "grey"],
    "source_labels": ["", "folders", True],
    "layout": ["", "tfds"],
    "compression": ["", "zlib", "GZIP", None],
    "on_error": ["", "ignore"],
    "name": ["", "my-set", "my set", "a/b", "größe", "a\n"],
    "split": ["", "train-1", "train.1", "..", "a\n"],
    "threshold": [-0.01, 1.01, float("nan"), float("inf")],
    "min_score": [-0.01, 1.01, float("nan"), "0.5"],
    "image_size": [
        "",
        "224",
        "224x",
        "x224",
        "0x224",
        "224x0",
        "-1x5",
        "224*224",
        "2.5x3",
        "224x224x3",
        " 1x1",
        "1x1\n",
    ],
    "max_pixels": [0, -1, 1.5, 1e9, True, "10", None],
    "shards": [0, -1, 1.5, True, "4"],
    "shard_size": ["", "0", 0, -1, "-1MB", "MB", "ten MB", "1TB", "1 M B", "1e6", "1.MB.", "inf", "nan", "1MB\n"],
    "shard_records": [0, -1, 2.0, True, "10"],
    "limit": [0, -1, 0.5, True, "10"],
    "batch_size": [0, -1, 1.5, "", "Auto", "many", True],
    "parallel": [0, -1, 1.5, "", "all", True],
    "image": ["", "jpeg", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:-5", "jpeg:9.5", "jpg:90", "png:9", "webp", "JPEG:90"],
    "shuffle": [-1, 1.5, "1", "yes"],
    "max_failures": ["", "-1", -1, 1.5, "%", "-1%", "101%", "100.1%", "5 %", "five", "5%%", "5%\n", "nan%"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in INVALID.items() for value in values])
def test_an_invalid_value_is_refused_by_the_name_of_its_option(name, value):
    with pytest.raises(UsageError, match=re.escape("--" + name.replace("_", "-")) + r"\b"):
        Options(**{name: value})


def test_one_module_to_import_is_not_taken_for_its_letters():
    with pytest.raises(UsageError, match="--import 'my_layers'"):
        Options(imports="my_layers")


@pytest.mark.parametrize("size", [(0, 224), (224, 0), (-1, 5)])
def test_an_image_size_of_no_pixels_is_refused_as_a_tuple_too(size):
    with pytest.raises(UsageError, match="--image-size"):
        Options(image_size=size)


def test_every_option_with_a_choice_tells_the_choices():
    with pytest.raises(UsageError, match="auto, probabilities or logits"):
        Options(scores="softmax")
    with pytest.raises(UsageError, match="gzip or none"):
        Options(compression="zip")


def test_preprocess_and_scale_exclude_each_other():
    with pytest.raises(UsageError, match=r"--preprocess and --scale"):
        Options(preprocess="package.module:function", scale="unit")

    assert Options(preprocess="package.module:function").scale == "auto"


def test_the_defaults_are_those_of_the_design():
    options = Options()

    assert (options.name, options.split, options.layout, options.compression) == ("images", "train", "flat", "gzip")
    assert (options.shard_bytes, options.shard_records, options.shards) == (128_000_000, 10_000, None)
    assert (options.task, options.threshold, options.scores, options.scale) == ("auto", 0.5, "auto", "auto")
    assert (options.resize, options.interpolation, options.size) == ("stretch", "bilinear", None)
    assert (options.source_labels, options.image, options.shuffle, options.limit) == ("none", "keep", None, None)
    assert (options.batch_size, options.parallel) == ("auto", "auto")
    assert (options.on_error, options.allowed_failures(10)) == ("quarantine", None)
    assert not any((options.overwrite, options.dry_run, options.trust_model, options.quiet))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, 1),
        (5_000, 5_000),
        ("5000", 5_000),
        ("7B", 7),
        ("128MB", 128_000_000),
        ("128 MB", 128_000_000),
        ("128mb", 128_000_000),
        ("64KB", 64_000),
        ("2GB", 2_000_000_000),
        ("1.5GB", 1_500_000_000),
        (".5MB", 500_000),
        ("1KiB", 1_024),
        ("1MiB", 1_048_576),
        ("1GiB", 1_073_741_824),
        ("0.1MB", 100_000),
        ("0.29KB", 290),
    ],
)
def test_a_size_of_shards_is_so_many_bytes(size, expected):
    assert Options(shard_size=size).shard_bytes == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, None), ("224x192", (224, 192)), ("1X2", (1, 2)), ((5, 7), (5, 7))],
)
def test_an_image_size_is_height_and_width(size, expected):
    assert Options(image_size=size).size == expected


@pytest.mark.parametrize(
    ("image", "reencode", "keeps"),
    [
        ("keep", None, True),
        ("none", None, False),
        ("png", ("png", 0), True),
        ("jpeg:1", ("jpeg", 1), True),
        ("jpeg:90", ("jpeg", 90), True),
        ("jpeg:100", ("jpeg", 100), True),
    ],
)
def test_the_image_is_kept_or_encoded_anew_or_left_out(image, reencode, keeps):
    options = Options(image=image)

    assert options.reencode == reencode
    assert options.keeps_image is keeps


@pytest.mark.parametrize(
    ("allowed", "images", "expected"),
    [
        (None, 100, None),
        (0, 100, 0),
        ("0", 100, 0),
        (7, 100, 7),
        ("7", 100, 7),
        ("200", 100, 200),
        ("0%", 100, 0),
        ("5%", 1000, 50),
        ("5%", 10, 0),
        ("50%", 3, 1),
        ("0.1%", 1000, 1),
        (".5%", 200, 1),
        ("100%", 17, 17),
        ("5%", 0, 0),
    ],
)
def test_so_many_images_may_fail(allowed, images, expected):
    assert Options(max_failures=allowed).allowed_failures(images) == expected


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 100), st.integers(0, 10**6) | st.integers(1, 1000).map(lambda hundreds: 100 * hundreds))
def test_a_percentage_of_images_may_fail_to_the_image(percent, images):
    assert Options(max_failures=f"{percent}%").allowed_failures(images) == percent * images // 100


def test_every_percentage_of_a_hundred_images_is_that_many():
    allowed = [Options(max_failures=f"{percent}%").allowed_failures(100) for percent in range(101)]

    assert allowed == list(range(101))


@pytest.mark.parametrize("seed", [0, 1, 2**70])
def test_a_seed_is_any_whole_number_from_zero(seed):
    assert Options(shuffle=seed).shuffle == seed


@pytest.mark.parametrize("threshold", [0, 0.0, 0.5, 1, 1.0])
def test_a_threshold_is_from_zero_to_one(threshold):
    assert Options(threshold=threshold).threshold == threshold
