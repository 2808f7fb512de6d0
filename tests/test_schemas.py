"""What is written is what the schemas say."""

import csv
import importlib.resources
import io
import json
import zipfile

import jsonschema
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import tfzip


def schema(name):
    return json.loads((importlib.resources.files("tfzip.schemas") / name).read_text())


@pytest.fixture(
    scope="module",
    params=[
        {"source_labels": "folder", "shards": 2},
        {"compression": "none", "image": "none", "shuffle": 3, "limit": 100, "layout": "tfx"},
        {"image": "jpeg:80", "limit": 50, "task": "multilabel", "scores": "probabilities", "threshold": 0.2},
        {"limit": 50, "task": "raw", "scale": "unit", "exif_orientation": "apply", "alpha": "white"},
    ],
    ids=str,
)
def exported(request, digits, digits_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    return tfzip.export(str(digits[0]), digits_model, str(out), quiet=True, **request.param)


def entry(export, name):
    with zipfile.ZipFile(export._index.path) as archive:
        return archive.read(name).decode()


def test_the_manifest_fits_its_schema(exported):
    jsonschema.Draft202012Validator(schema("manifest.schema.json")).validate(
        json.loads(entry(exported, "manifest.json"))
    )


def test_the_manifest_schema_refuses_what_is_not_in_it(exported):
    validator = jsonschema.Draft202012Validator(schema("manifest.schema.json"))
    manifest = json.loads(entry(exported, "manifest.json"))
    for change in ({"host": "here"}, {"format_version": 2}, {"task": "guess"}, {"shards": []}):
        assert not validator.is_valid({**manifest, **change})
    for key in manifest:
        assert not validator.is_valid({name: value for name, value in manifest.items() if name != key})


def test_nothing_in_the_manifest_tells_when_or_where(exported, tmp_path):
    import platform

    text = entry(exported, "manifest.json")
    assert exported.path not in text
    assert str(tmp_path.parent) not in text
    assert len(platform.node()) < 3 or f'"{platform.node()}"' not in text


def test_the_table_fits_its_schema(exported):
    fields = schema("metadata.schema.json")["fields"]
    rows = list(csv.DictReader(io.StringIO(entry(exported, "metadata.csv"))))
    assert rows
    assert list(rows[0]) == [field["name"] for field in fields]
    types = {"string": str, "number": float, "integer": int}
    for row in rows:
        for field in fields:
            value, constraints = row[field["name"]], field.get("constraints", {})
            assert value or not constraints.get("required"), field["name"]
            if value:
                assert types[field["type"]](value) is not None
                assert float(value) >= constraints["minimum"] if "minimum" in constraints else True
    assert len({row["filename"] for row in rows}) == len(rows)


def test_the_metadata_schema_describes_every_feature_of_every_record(exported):
    described = text_format.Parse(entry(exported, "schema.pbtxt"), schema_pb2.Schema())
    features = {feature.name: feature for feature in described.feature}
    compression = "GZIP" if exported.manifest["compression"] == "gzip" else ""
    kinds = {"bytes_list": schema_pb2.BYTES, "int64_list": schema_pb2.INT, "float_list": schema_pb2.FLOAT}
    for serialized in tf.data.TFRecordDataset(exported.shards, compression):
        example = tf.train.Example.FromString(serialized.numpy()).features.feature
        assert set(example) == set(features)
        for name, value in example.items():
            kind = value.WhichOneof("kind")
            values, feature = getattr(value, kind).value, features[name]
            assert feature.type == kinds[kind]
            if feature.HasField("shape"):
                length = 1
                for dim in feature.shape.dim:
                    length *= dim.size
                assert len(values) == length, name
            if feature.HasField("int_domain"):
                assert feature.int_domain.HasField("max")
                assert all(feature.int_domain.min <= v <= feature.int_domain.max for v in values), name
            if feature.HasField("float_domain"):
                assert all(0 <= v <= 1 for v in values), name
            if feature.HasField("string_domain"):
                assert {v.decode() for v in values} <= set(feature.string_domain.value), name


def domains(export):
    described = text_format.Parse(entry(export, "schema.pbtxt"), schema_pb2.Schema())
    return {feature.name: feature.WhichOneof("domain_info") for feature in described.feature}


def test_what_is_selected_may_be_what_a_prediction_may_be(digits, digits_model, tmp_path):
    export = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True, limit=100)
    selected = tfzip.select(export, tmp_path / "selected", min_confidence=0.3, soft=True)
    found = domains(selected)
    for name in ("label", "confidence", "scores"):
        assert found[f"image/class/{name}"] == found[f"prediction/{name}"] is not None
    assert not tfzip.verify(selected)


def test_classes_that_a_tfrecord_brought_may_be_any(digits, digits_model, tmp_path):
    """Its labels are of other classes than the model's."""
    examples = []
    for number, image in enumerate(sorted((digits[0] / "0").iterdir())[:20]):
        features = {
            "image/encoded": {"bytes_list": {"value": [image.read_bytes()]}},
            "image/class/label": {"int64_list": {"value": [990 + number]}},
        }
        example = tf.train.Example()
        for name, value in features.items():
            example.features.feature[name].CopyFrom(tf.train.Feature(**value))
        examples.append(example.SerializeToString())
    with tf.io.TFRecordWriter(str(tmp_path / "known.tfrecord")) as writer:
        for example in examples:
            writer.write(example)
    out = tfzip.export(f"tfrecord:{tmp_path}/known.tfrecord", digits_model, str(tmp_path / "out"), quiet=True)
    assert out[0].target is None
    found = domains(out)
    assert found["prediction/label"] == "int_domain"
    assert found["image/class/label"] is None
    assert not tfzip.verify(out)
