"""Who else reads an export, by the README's code for each: record by record what `tfzip.open` gives."""

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import peers
import pytest
import readers
from PIL import Image

import tfzip

MEAN, DEVIATION = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
"""Of ImageNet: what Model Garden takes from the pixels, and divides them by."""


def needs(package, more=""):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is missing: pip install 'tfzip[peers]'{more}")


@pytest.fixture(scope="module")
def exports(photographs, photographs_model, tmp_path_factory):
    """Exports of each compression and layout, and the folders of their shards."""
    made = []
    for compression in ("gzip", "none"):
        for layout, below in (("flat", ""), ("tfx", "/Split-train")):
            out = str(tmp_path_factory.mktemp("out") / "labelled")
            options = {"compression": compression, "layout": layout, "shards": 3, "limit": 150}
            made.append((tfzip.export(str(photographs), photographs_model, out, quiet=True, **options), out + below))
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "name"),
    [
        ("tf.data", "tf_data"),
        pytest.param("Apache Beam", "beam", marks=needs("apache_beam")),
        pytest.param("Ray Data", "ray", marks=needs("ray")),
        pytest.param("tfrecord (PyTorch)", "tfrecord", marks=needs("tfrecord")),
    ],
)
def test_the_shards_are_read(reader, name, exports, tmp_path):
    written = readers.reading(reader)
    readings = []
    for export, folder in exports:
        compressed = export.manifest["compression"] == "gzip"
        reading = written if compressed else re.sub(r', (compression_type=)?"gzip"', "", written, flags=re.IGNORECASE)
        readings.append((reading.replace("labelled", folder), f"{folder}/*.tfrecord-*"))
    for (export, _), rows in zip(exports, peers.read(name, tmp_path, *readings), strict=True):
        wanted = [(r.filename, r.prediction.label, r.prediction.scores.tolist(), r.encoded) for r in export[:]]
        assert len({tuple(scores) for _, _, scores, _ in wanted}) > 100
        assert len({label for _, label, _, _ in wanted}) > 4
        assert sorted(rows) == sorted(wanted)


@pytest.mark.slow
@needs("ray")
def test_ray_reads_any_number_of_labels_by_the_schema(photographs, photographs_model, tmp_path):
    options = {"task": "multilabel", "threshold": 0.2, "shards": 2, "limit": 80, "quiet": True}
    export = tfzip.export(str(photographs), photographs_model, str(tmp_path / "labelled"), **options)
    wanted = [(r.filename, list(r.prediction.labels), r.prediction.scores.tolist(), r.encoded) for r in export[:]]
    assert len({len(labels) for _, labels, _, _ in wanted}) > 1
    reading = readers.reading("Ray Data").removesuffix(")") + ", tf_schema=schema)"
    (rows,) = peers.read("ray_lists", tmp_path, (reading, f"{tmp_path}/labelled/*.tfrecord-*"))
    assert sorted(rows) == sorted(wanted)


@pytest.mark.slow
@needs("official", "; pip install --no-deps tf-models-official")
def test_model_garden_trains_on_what_select_wrote(digits, digits_model, tmp_path):
    export = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "labelled"), quiet=True)
    pseudo = tfzip.select(export, str(tmp_path / "pseudo"), min_confidence=0.9)
    records = pseudo[:]
    reading = readers.reading("TF Model Garden").replace("pseudo", str(tmp_path / "pseudo"))
    given = (reading, f"{tmp_path}/pseudo/*.tfrecord-*")
    ((ids, images, labels, losses),) = peers.read("model_garden", tmp_path, given)
    assert len(set(labels)) == 10
    assert labels.tolist() == [record.target.label for record in records]
    assert ids == [features["image/source_id"].decode() for features in pseudo.dataset().as_numpy_iterator()]
    pixels = [np.asarray(Image.open(io.BytesIO(record.encoded)).convert("RGB")) for record in records]
    np.testing.assert_allclose(images * DEVIATION + MEAN, pixels, atol=1e-3)
    assert np.mean(losses[-5:]) < losses[0] / 2


def test_a_test_runs_each_row_of_the_table():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    missing = [name for name in readers.table() if f'"{name}"' not in tests]
    assert not missing
