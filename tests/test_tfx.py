"""Real TFX pipelines, with a metadata store, over what tfzip exports; and TFDV over its schema."""

import glob
import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import readers
import tensorflow as tf

import tfzip
from tfzip import demo
from tfzip.errors import UsageError
from tfzip.record import FeatureSpec, image_features, prediction_features
from tfzip.schema import joined, schema_text

if importlib.util.find_spec("tfx") is None:
    pytest.skip("TFX is not installed here: `scripts/test --tfx` runs these", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # TFX, Beam and Google's clients warn of themselves in many ways

README = Path(tfzip.__file__).parents[1] / "README.md"
STUDENT = """
import keras
import tensorflow as tf

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string), "image/class/label": tf.io.FixedLenFeature([], tf.int64)
}


def example(record):
    parsed = tf.io.parse_single_example(record, FEATURES)
    return tf.ensure_shape(tf.io.decode_png(parsed["image/encoded"], 1), (8, 8, 1)), parsed["image/class/label"]


def dataset(patterns):
    return tf.data.TFRecordDataset(tf.io.gfile.glob(patterns), "GZIP").map(example).cache().batch(32)


def run_fn(fn_args):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Conv2D(16, 3, activation="relu"),
        layers.Flatten(), layers.Dense(10, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        dataset(fn_args.train_files).shuffle(100, 0).repeat(), steps_per_epoch=fn_args.train_steps, verbose=0,
        validation_data=dataset(fn_args.eval_files), validation_steps=fn_args.eval_steps,
    )
    model.export(fn_args.serving_model_dir)
"""


@pytest.fixture(scope="module")
def folder(digits, digits_model, tmp_path_factory):
    """A folder to be in: `photos/` of 300 digits by class, none of which the model `teacher/` knows, `student.py`."""
    from keras.export import ExportArchive

    here = tmp_path_factory.mktemp("tfx")
    _, images, classes = digits
    demo.write_pngs(str(here / "photos"), images[300:600], classes[300:600])

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="examples")])
    def serve(examples):
        encoded = tf.io.parse_example(examples, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        pixels = tf.map_fn(decoded, encoded["image/encoded"], fn_output_signature=tf.TensorSpec((8, 8, 1)))
        return {"scores": digits_model(pixels)}

    def decoded(image):
        return tf.cast(tf.ensure_shape(tf.io.decode_png(image, 1), (8, 8, 1)), tf.float32)

    archive = ExportArchive()
    archive.track(digits_model)
    archive.add_endpoint("serving_default", serve)
    archive.write_out(str(here / "teacher" / "Format-Serving"), verbose=False)
    (here / "student.py").write_text(STUDENT)
    before = Path.cwd()
    os.chdir(here)
    yield here
    os.chdir(before)


def run(folder, name, *components, cache=False):
    """Run a pipeline; its metadata store."""
    from tfx import v1 as tfx

    config = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / f"{name}.db"))
    pipeline = tfx.dsl.Pipeline(
        name, str(folder / name), components=list(components), metadata_connection_config=config, enable_cache=cache
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)
    return store(folder, name)


def store(folder, name):
    from ml_metadata import MetadataStore
    from tfx import v1 as tfx

    return MetadataStore(tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / f"{name}.db")))


def imported(folder, name, kind, **properties):
    from tfx import v1 as tfx

    kind = getattr(tfx.types.standard_artifacts, kind)
    return tfx.dsl.Importer(str(folder / name), kind, custom_properties=properties).with_id(name)


def emitted(metadata, node, key="output_examples"):
    """The artifact that a node emitted last under a key."""
    (execution,) = [
        each
        for each in metadata.get_executions()
        if any(context.name.endswith(f".{node}") for context in metadata.get_contexts_by_execution(each.id))
    ][-1:]
    ids = [
        event.artifact_id
        for event in metadata.get_events_by_execution_ids([execution.id])
        if [step.key for step in event.path.steps if step.key] == [key]
    ]
    (artifact,) = metadata.get_artifacts_by_id(ids)
    return artifact


def properties(artifact):
    """Its properties, custom ones too, but for those that every artifact has."""
    every = [*artifact.properties.items(), *artifact.custom_properties.items()]
    told = {name: getattr(value, value.WhichOneof("value")) for name, value in every}
    return {name: value for name, value in told.items() if name not in ("is_external", "tfx_version", "name")}


def splits(artifact):
    return json.loads(artifact.properties["split_names"].string_value)


EXAMPLES = {"payload_format": "FORMAT_TF_EXAMPLE", "file_format": "tfrecords_gzip", "span": 0, "version": 0}


def values(examples, split, key):
    """Of every record of a split: filename -> the values of a feature."""
    found = {}
    for record in tf.data.TFRecordDataset(glob.glob(f"{examples.uri}/Split-{split}/*"), "GZIP"):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        kind = features[key].WhichOneof("kind")
        found[features["image/filename"].bytes_list.value[0]] = list(getattr(features[key], kind).value)
    return found


def anomalies(metadata, node):
    """What an ExampleValidator found, by split and feature: the reasons."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    artifact = emitted(metadata, node, "anomalies")
    found = {}
    for split in splits(artifact):
        content = Path(artifact.uri, f"Split-{split}", "SchemaDiff.pb").read_bytes()
        found[split] = reasons(anomalies_pb2.Anomalies.FromString(content))
    return found


def reasons(found):
    """Of each feature that TFDV finds fault with, why."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    named = anomalies_pb2.AnomalyInfo.Type.Name
    return {name: {named(reason.type) for reason in info.reason} for name, info in found.anomaly_info.items()}


# The pipeline of the README.


@pytest.fixture(scope="module")
def pipeline_of_readme(folder):
    """What the README shows, run as it stands; its metadata store."""
    (piece,) = (piece for piece in readers.pieces() if "TfzipExport(" in piece)
    exec(piece, {})
    return store(folder, "metadata")


def test_the_pipeline_of_the_readme_trains_on_pseudo_labels(pipeline_of_readme):
    labelled, chosen = (emitted(pipeline_of_readme, node) for node in ("TfzipExport", "TfzipSelect"))
    assert properties(labelled) == {**EXAMPLES, "split_names": '["train"]'}
    assert properties(chosen) == {**EXAMPLES, "split_names": '["train", "eval"]'}
    assert anomalies(pipeline_of_readme, "ExampleValidator") == {"train": {}}
    train, held = (tfzip.open(chosen.uri, split) for split in ("train", "eval"))
    assert 0 < len(held) < len(train) < len(tfzip.open(labelled.uri, "train")) == 300
    model = emitted(pipeline_of_readme, "Trainer", "model")
    assert Path(model.uri, "Format-Serving", "saved_model.pb").exists()


# A pipeline of all that is left.

SAID = {"task": "multiclass", "scores": "probabilities"}  # what the teacher's graph does not show


@pytest.fixture(scope="module")
def others(folder, digits):
    """TFRecords of other digits, made without tfzip, in `others/`; filenames and labels in features of their own."""
    _, images, classes = digits
    (folder / "others").mkdir()
    with tf.io.TFRecordWriter(str(folder / "others" / "digits.tfrecord")) as writer:
        for number in range(700, 800):
            feature = {
                "image/encoded": bytes_feature(tf.io.encode_png(images[number]).numpy()),
                "image/filename": bytes_feature(f"{number}.png".encode()),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[500 + classes[number]])),
                "image/class/text": bytes_feature(b"a class of another set"),
                "box": tf.train.Feature(float_list=tf.train.FloatList(value=range(number % 3))),
                **({"note": bytes_feature(b"odd")} if number % 2 else {}),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return folder


@pytest.fixture(scope="module")
def plain(folder, digits_model):
    """The same, not compressed."""
    out = str(folder / "plain")
    options = {"layout": "tfx", "compression": "none", "limit": 70, "quiet": True}
    return tfzip.export(str(folder / "photos"), digits_model, out, **options)


@pytest.fixture(scope="module")
def sparse(others, digits_files):
    """Of the others the first, in a split of Examples whose other split holds none; and a model in one file."""
    records = tf.data.TFRecordDataset(str(others / "others" / "digits.tfrecord")).take(9)
    for split, count in (("train", 9), ("eval", 0)):
        (others / "sparse" / f"Split-{split}").mkdir(parents=True)
        with tf.io.TFRecordWriter(
            str(others / "sparse" / f"Split-{split}" / "data-00000-of-00001.gz"), "GZIP"
        ) as writer:
            for record in records.take(count):
                writer.write(record.numpy())
    shutil.copy(digits_files["keras"], others / "digits.keras")
    return others


def bytes_feature(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


@pytest.fixture(scope="module")
def elsewhere(folder, digits_model):
    """An export in the tfx layout, made without TFX."""
    out = str(folder / "elsewhere")
    return tfzip.export(str(folder / "photos"), digits_model, out, layout="tfx", shards=2, limit=70, quiet=True)


@pytest.fixture(scope="module")
def pipeline(sparse, elsewhere, plain):
    """Export, validation, selection, training, the next round; BulkInferrer; other Examples as source; a refusal."""
    from tfx import v1 as tfx

    from tfzip.interop.tfx import TfzipExport, TfzipSelect

    folder, parts, proto = sparse, tfx.components, tfx.proto
    teacher = imported(folder, "teacher", "Model")
    model = teacher.outputs["result"]
    labelled = TfzipExport(Path("photos"), model=model, span=7, source_labels="folder", **SAID)
    images = labelled.outputs["output_examples"]
    statistics = parts.StatisticsGen(images)
    schema = parts.ImportSchemaGen(labelled.outputs["schema"].future()[0].uri + "/schema.pbtxt")
    validator = parts.ExampleValidator(statistics.outputs["statistics"], schema.outputs["schema"])
    chosen = TfzipSelect(images, min_confidence=0.5, per_class=25, validation=0.2)
    student = parts.Trainer(
        module_file=str(folder / "student.py"), examples=chosen.outputs["output_examples"],
        train_args=proto.TrainArgs(num_steps=300), eval_args=proto.EvalArgs(num_steps=1),
    )  # fmt: skip
    again = TfzipExport(examples=images, model=student.outputs["model"]).with_id("again")

    columns = proto.PredictOutput(output_columns=[proto.PredictOutputCol(output_key="scores", output_column="bulk")])
    spec = proto.OutputExampleSpec(output_columns_spec=[proto.OutputColumnsSpec(predict_output=columns)])
    bulk = parts.BulkInferrer(images, model, output_example_spec=spec)

    generated = parts.ImportExampleGen(str(folder / "others"))
    given = TfzipExport(examples=generated.outputs["examples"], model=model, **SAID).with_id("given")
    seen = parts.StatisticsGen(given.outputs["output_examples"]).with_id("seen")
    fine = parts.ExampleValidator(seen.outputs["statistics"], given.outputs["schema"]).with_id("fine")
    both = TfzipSelect(given.outputs["output_examples"], soft=True).with_id("both")

    shown = {"Importer": tfx.dsl.Importer, "Examples": tfx.types.standard_artifacts.Examples}
    found = eval(readers.reading("TFX").replace("labelled", elsewhere.path), shown).with_id("found")
    counted = parts.StatisticsGen(found.outputs["result"]).with_id("counted")

    kind = tfx.types.standard_artifacts.Examples
    few = tfx.dsl.Importer(str(folder / "sparse"), kind, properties={"split_names": '["train", "eval"]'}).with_id("few")
    network = imported(folder, "digits.keras", "Model")
    filled = TfzipExport(examples=few.outputs["result"], model=network.outputs["result"]).with_id("filled")
    bare = tfx.dsl.Importer(plain.path, kind, properties={"split_names": '["train"]'}).with_id("bare")
    packed = TfzipSelect(bare.outputs["result"], min_confidence=0.1).with_id("packed")

    blessing = imported(folder, "refused", "ModelBlessing", blessed=0)
    photos = tfx.dsl.experimental.RuntimeParameter("photos", str, "photos")
    refused = TfzipExport(photos, model=model, model_blessing=blessing.outputs["result"], **SAID).with_id("unblessed")
    nothing = TfzipSelect(refused.outputs["output_examples"], validation=0.2).with_id("nothing")
    return run(
        folder, "pipeline", teacher, labelled, statistics, schema, validator, chosen, student, again, bulk,
        generated, given, seen, fine, both, found, counted, few, network,
        filled, bare, packed, blessing, refused, nothing,
    )  # fmt: skip


def test_the_examples_of_an_export_have_their_properties_schema_and_index(pipeline, folder):
    examples = emitted(pipeline, "TfzipExport")
    assert properties(examples) == {**EXAMPLES, "span": 7, "split_names": '["train"]'}
    assert sorted(os.listdir(examples.uri)) == ["Split-train", "tfzip-train"]
    assert all(name.endswith(".gz") for name in os.listdir(Path(examples.uri, "Split-train")))
    export = tfzip.open(examples.uri, "train")
    assert not tfzip.verify(export)
    wanted = {path.relative_to(folder / "photos").as_posix(): path for path in (folder / "photos").rglob("*.png")}
    assert {record.filename: record.encoded for record in export[:]} == {
        name: path.read_bytes() for name, path in wanted.items()
    }
    schema = Path(emitted(pipeline, "TfzipExport", "schema").uri, "schema.pbtxt").read_text()
    assert schema == Path(emitted(pipeline, "ImportSchemaGen", "schema").uri, "schema.pbtxt").read_text()


def test_statistics_are_of_every_record_and_show_no_anomaly(pipeline):
    import tensorflow_data_validation as tfdv

    statistics = emitted(pipeline, "StatisticsGen", "statistics")
    (found,) = tfdv.load_stats_binary(f"{statistics.uri}/Split-train/FeatureStats.pb").datasets
    assert found.num_examples == 300
    assert anomalies(pipeline, "ExampleValidator") == {"train": {}}


def test_an_export_made_elsewhere_is_an_artifact_too(pipeline, elsewhere):
    import tensorflow_data_validation as tfdv

    statistics = emitted(pipeline, "counted", "statistics")
    (found,) = tfdv.load_stats_binary(f"{statistics.uri}/Split-train/FeatureStats.pb").datasets
    assert found.num_examples == len(elsewhere) == 70


def test_what_is_selected_is_two_splits_of_one_artifact(pipeline):
    labelled, chosen = emitted(pipeline, "TfzipExport"), emitted(pipeline, "TfzipSelect")
    assert properties(chosen) == {**EXAMPLES, "span": 7, "split_names": '["train", "eval"]'}
    assert sorted(os.listdir(chosen.uri)) == ["Split-eval", "Split-train", "tfzip-eval", "tfzip-train"]
    said = {record.filename: record.prediction for record in tfzip.open(labelled.uri, "train")[:]}
    names = []
    for split in ("train", "eval"):
        export = tfzip.open(chosen.uri, split)
        assert not tfzip.verify(export)
        for record in export[:]:
            names.append(record.filename)
            assert record.target.label == said[record.filename].label
            assert record.target.confidence == said[record.filename].confidence >= 0.5
    assert len(names) == len(set(names)) > 150
    labels = [said[name].label for name in names]
    assert max(np.bincount(labels)) <= 25


def test_trainer_learns_from_the_pseudo_labels(pipeline):
    """Its model labels the same images in the next round, and is right far more often than by chance."""
    first, again = (tfzip.open(emitted(pipeline, node).uri, "train") for node in ("TfzipExport", "again"))
    assert again.manifest["model"]["sha256"] != first.manifest["model"]["sha256"]
    assert len(again) == 300
    assert tfzip.evaluate(again).accuracy > 0.7


def difference(ours, theirs, names, their_names):
    return np.subtract([ours[name] for name in names], [theirs[name] for name in their_names])


def test_bulk_inferrer_says_the_same(pipeline):
    ours = values(emitted(pipeline, "TfzipExport"), "train", "prediction/scores")
    theirs = values(emitted(pipeline, "BulkInferrer"), "train", "bulk")
    assert len(ours) == len(theirs) == 300
    assert len({tuple(row) for row in ours.values()}) == 300
    assert np.ptp(list(ours.values()), axis=0).min() > 0.5
    names = list(ours)
    assert np.abs(difference(ours, theirs, names, names)).max() < 1e-5
    assert np.abs(difference(ours, theirs, names, [names[1], names[0], *names[2:]])).max() > 1e-5


def test_examples_of_several_splits_are_exported_each_to_its_own(pipeline, digits):
    given, generated = emitted(pipeline, "given"), emitted(pipeline, "ImportExampleGen", "examples")
    assert splits(given) == splits(generated) == ["train", "eval"]
    _, _, classes = digits
    names = []
    for split in ("train", "eval"):
        export = tfzip.open(given.uri, split)
        kept = {name.decode(): image[0] for name, image in values(generated, split, "image/encoded").items()}
        assert {record.filename: record.encoded for record in export[:]} == kept
        assert 0 < len(kept) < 100
        names += kept
        right = [record.prediction.label == classes[int(record.filename.removesuffix(".png"))] for record in export[:]]
        assert np.mean(right) > 0.7
    assert sorted(names) == [f"{number}.png" for number in range(700, 800)]
    assert anomalies(pipeline, "fine") == {"train": {}, "eval": {}}


def test_every_split_is_selected_from(pipeline):
    given, both = emitted(pipeline, "given"), emitted(pipeline, "both")
    assert splits(both) == splits(given)
    for split in ("train", "eval"):
        chosen = tfzip.open(both.uri, split)
        assert len(chosen) == len(tfzip.open(given.uri, split))
        np.testing.assert_allclose([record.target.scores.sum() for record in chosen[:]], 1, atol=1e-5)


def test_a_split_without_records_is_left_out(pipeline):
    filled = emitted(pipeline, "filled")
    assert splits(filled) == ["train"]
    assert len(tfzip.open(filled.uri)) == 9


def test_what_is_selected_is_compressed_as_its_property_says(pipeline, plain):
    packed = emitted(pipeline, "packed")
    assert properties(packed) == {**EXAMPLES, "split_names": '["train"]'}
    assert len(values(packed, "train", "image/class/label")) == len(plain) == 70


def test_a_model_that_is_not_blessed_exports_nothing(pipeline):
    assert Path(emitted(pipeline, "unblessed", "schema").uri, "schema.pbtxt").read_text() == ""
    for node in ("unblessed", "nothing"):
        examples = emitted(pipeline, node)
        assert splits(examples) == []
        assert not os.path.exists(examples.uri) or not os.listdir(examples.uri)


def test_results_are_reused_until_an_image_or_a_file_changes(folder, tmp_path):
    from tfzip.interop.tfx import TfzipExport

    photos, more = tmp_path / "photos", next((folder / "photos" / "4").iterdir())
    names, digits = tmp_path / "names.txt", [str(digit) for digit in range(10)]
    names.write_text("\n".join(digits))
    shutil.copytree(folder / "photos" / "3", photos)
    found = []
    renamed = "\n".join(["zero", *digits[1:]])
    for change in (lambda: None, lambda: None, lambda: shutil.copy(more, photos), lambda: names.write_text(renamed)):
        change()
        teacher = imported(folder, "teacher", "Model")
        labelled = TfzipExport(str(photos), model=teacher.outputs["result"], labels=names, **SAID)
        found.append(emitted(run(tmp_path, "cached", teacher, labelled, cache=True), "TfzipExport"))
    assert found[0].id == found[1].id
    assert len({each.id for each in found}) == 3
    one, other, last = (tfzip.open(each.uri) for each in found[1:])
    assert len(other) == len(one) + 1
    assert last.labels == ["zero", *other.labels[1:]]


# What the components refuse.


def test_what_is_misspelt_or_missing_is_told_when_the_pipeline_is_defined(folder):
    from tfzip.interop.tfx import TfzipExport, TfzipSelect

    model = imported(folder, "teacher", "Model").outputs["result"]
    examples = imported(folder, "others", "Examples").outputs["result"]
    wrong = {
        "there is no 'sclae' to give here; there are .*scale": lambda: TfzipExport("photos", model=model, sclae="raw"),
        "there is no 'layout' to give here": lambda: TfzipExport("photos", model=model, layout="flat"),
        "there is no 'split' to give here": lambda: TfzipExport(examples=examples, model=model, split="train"),
        "--scale 'row': use auto, raw": lambda: TfzipExport("photos", model=model, scale="row"),
        "keeps its parameters as text": lambda: TfzipExport("photos", model=model, preprocess=tf.abs),
        "give images, or examples": lambda: TfzipExport("photos", examples, model),
        "give a model": lambda: TfzipExport("photos"),
        "there is no 'min_confidense' to give here": lambda: TfzipSelect(examples, min_confidense=0.5),
        "--min-confidence 2: give a number from 0 to 1": lambda: TfzipSelect(examples, min_confidence=2),
        "--validation-split eval has no effect": lambda: TfzipSelect(examples, validation_split="eval"),
        "--shard-records 0": lambda: TfzipSelect(examples, shard_records=0),
    }
    for message, define in wrong.items():
        with pytest.raises(UsageError, match=message):
            define()


def artifact(kind, folder, splits=(), **properties):
    from tfx import v1 as tfx

    made = getattr(tfx.types.standard_artifacts, kind)()
    made.uri = str(folder)
    if splits:
        made.splits = list(splits)
    for name, value in properties.items():
        made.set_string_custom_property(name, value)
    return [made]


def test_what_does_not_fit_is_told_when_the_pipeline_runs(folder, tmp_path):
    from tfzip.interop.tfx import ExportExecutor, SelectExecutor

    out = {"output_examples": artifact("Examples", tmp_path / "out"), "schema": artifact("Schema", tmp_path / "schema")}
    teacher = artifact("Model", folder / "teacher")

    def export(examples, model=teacher):
        ExportExecutor().Do({"examples": examples, "model": model}, out, {"options": "{}"})

    with pytest.raises(UsageError, match="are FORMAT_PROTO in tfrecords_gzip, not FORMAT_TF_EXAMPLE"):
        export(artifact("Examples", tmp_path, ["train"], payload_format="FORMAT_PROTO"))
    with pytest.raises(UsageError, match="FORMAT_TF_EXAMPLE in FILE_FORMAT_PARQUET, not"):
        export(artifact("Examples", tmp_path, ["train"], file_format="FILE_FORMAT_PARQUET"))
    with pytest.raises(UsageError, match="no SavedModel there, nor one"):
        export(artifact("Examples", tmp_path, ["train"]), artifact("Model", tmp_path))
    rules = json.dumps({"validation": 0.1, "validation_split": "eval"})
    with pytest.raises(UsageError, match="has the splits train, eval already"):
        SelectExecutor().Do({"examples": artifact("Examples", tmp_path, ["train", "eval"])}, out, {"rules": rules})
    with pytest.raises(UsageError, match="no such folder"):
        SelectExecutor().Do({"examples": artifact("Examples", tmp_path / "no", ["train"])}, out, {"rules": "{}"})


@pytest.mark.usefixtures("folder")
def test_a_model_may_be_a_keras_file_or_lie_in_the_artifact_itself(digits_files, tmp_path):
    from tfzip.interop.tfx import ExportExecutor

    shutil.copytree(digits_files["saved_model"], tmp_path / "imported")
    (tmp_path / "trained" / "Format-Serving").mkdir(parents=True)
    shutil.copy(digits_files["keras"], tmp_path / "trained" / "Format-Serving" / "model.keras")
    for name in ("imported", "trained"):
        out = {key: artifact(kind, tmp_path / f"{name} {key}") for key, kind in EMITTED.items()}
        asked = {"images": "photos", "options": json.dumps({"limit": 5})}
        ExportExecutor().Do({"model": artifact("Model", tmp_path / name)}, out, asked)
        assert len(tfzip.open(tmp_path / f"{name} output_examples")) == 5


EMITTED = {"output_examples": "Examples", "schema": "Schema"}


# The schema, as TFDV judges by it.


def brightness(pixels):
    return tf.reduce_mean(pixels, (1, 2, 3)) / 255


def boxes(pixels):
    count = tf.shape(pixels)[0]
    return {
        "detection_boxes": tf.tile([[[0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 0.5, 0.5]]], (count, 1, 1)),
        "detection_scores": brightness(pixels)[:, None] * [[2.0, 1.0]],
        "detection_classes": tf.tile([[1.0, 2.0]], (count, 1)),
    }


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
OWN = {"image_size": "8x8", "scale": "raw"}
CASES = {
    "multiclass": ("photos", "digits", {"source_labels": "folder", "labels": list("0123456789")}),
    "multiclass of unknown truth": ("photos", "digits", {"source_labels": "folder", "labels": DIGITS}),
    "multiclass without names": ("photos", "digits", {}),
    "binary": (
        "photos",
        lambda x: tf.sigmoid(9 * brightness(x) - 3),
        {**OWN, "task": "binary", "scores": "probabilities"},
    ),
    "multilabel": ("photos", "digits", {"task": "multilabel", "scores": "probabilities", "threshold": 0.9}),
    "detection": ("photos", boxes, {**OWN, "task": "detection"}),
    "detection of nothing": ("photos", boxes, {**OWN, "task": "detection", "min_score": 1.0}),
    "raw": ("photos", "digits", {"task": "raw"}),
    "another output": (
        "photos",
        lambda x: {"scores": tf.nn.softmax(x[:, 0, :, 0]), "rows": x[:, :2, :, 0]},
        {**OWN, "task": "multiclass", "scores": "probabilities", "output": "scores"},
    ),
    "no images": ("photos", "digits", {"image": "none"}),
    "a table": ("table.csv", "digits", {"root": "photos"}),
    "a TFRecord": ("tfrecord:others/*", "digits", {}),
}


@pytest.fixture(scope="module", params=CASES)
def exported(request, others, digits_model, tmp_path_factory):
    source, model, options = CASES[request.param]
    rows = "".join(
        f"{path.relative_to('photos')},3,{number}.5,a note\n" for number, path in enumerate(Path("photos/3").iterdir())
    )
    (others / "table.csv").write_text(f"filename,label,weight,note\n{rows}")
    out = tmp_path_factory.mktemp("exported") / "out"
    return tfzip.export(source, digits_model if model == "digits" else model, str(out), quiet=True, limit=60, **options)


def faults(export, records=None):
    """What TFDV finds wrong with records, all of an export if none are given, by the export's own schema."""
    import tensorflow_data_validation as tfdv
    from google.protobuf import text_format
    from tensorflow_data_validation.statistics import stats_impl
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.coders import example_coder

    schema = text_format.Parse(export._index.text("schema.pbtxt"), schema_pb2.Schema())
    records = serialized(export) if records is None else records
    batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(records)
    return reasons(tfdv.validate_statistics(stats_impl.generate_statistics_in_memory(batch), schema))


def serialized(export):
    return [record for block in export.serialized() for record in block]


def test_tfdv_finds_nothing_wrong_with_an_export(exported):
    assert faults(exported) == {}


@pytest.mark.parametrize("rules", [{}, {"soft": True}], ids=str)
@pytest.mark.parametrize("exported", ["multiclass", "multiclass without names", "a TFRecord"], indirect=True)
def test_tfdv_finds_nothing_wrong_with_what_is_selected(exported, rules, tmp_path):
    knows = bool((exported.metadata["truth"] >= 0).any())
    assert faults(tfzip.select(exported, tmp_path, use_truth=knows, **rules)) == {}


def first(kind, value):
    def change(features, key):
        getattr(features[key], kind).value[0] = value

    return change


def remove(features, key):
    del features[key]


BROKEN = {
    "a label beyond the last": ("prediction/label", first("int64_list", 10), "INT_TYPE_BIG_INT"),
    "a label below the first": ("prediction/label", first("int64_list", -1), "INT_TYPE_SMALL_INT"),
    "a truth beyond the last": ("truth/label", first("int64_list", 10), "INT_TYPE_BIG_INT"),
    "a score above one": ("prediction/scores", first("float_list", 1.5), "FLOAT_TYPE_BIG_FLOAT"),
    "a score below zero": ("prediction/scores", first("float_list", -0.5), "FLOAT_TYPE_SMALL_FLOAT"),
    "a score that is no number": ("prediction/scores", first("float_list", np.nan), "FLOAT_TYPE_HAS_NAN"),
    "a confidence that is no number": ("prediction/confidence", first("float_list", np.nan), "FLOAT_TYPE_HAS_NAN"),
    "an unknown class": ("prediction/text", first("bytes_list", b"ten"), "ENUM_TYPE_UNEXPECTED_STRING_VALUES"),
    "a pseudo-label beyond the last": ("image/class/label", first("int64_list", 10), "INT_TYPE_BIG_INT"),
    "a feature missing": ("image/filename", remove, "FEATURE_TYPE_LOW_FRACTION_PRESENT"),
    "scores missing": ("prediction/scores", lambda f, key: f[key].float_list.value.pop(), "INVALID_FEATURE_SHAPE"),
}


@pytest.mark.parametrize("exported", ["multiclass"], indirect=True)
@pytest.mark.parametrize("broken", BROKEN)
def test_tfdv_names_what_is_wrong_with_one_record(exported, broken, tmp_path):
    key, change, reason = BROKEN[broken]
    judged = tfzip.select(exported, tmp_path) if key.startswith("image/class/") else exported
    records = serialized(judged)
    example = tf.train.Example.FromString(records[7])
    change(example.features.feature, key)
    records[7] = example.SerializeToString()
    found = faults(judged, records)
    assert set(found) == {key}
    assert reason in found[key]


@pytest.mark.parametrize("exported", ["multiclass"], indirect=True)
def test_tfdv_names_a_feature_that_no_record_has_and_one_that_is_new(exported):
    examples = [tf.train.Example.FromString(record) for record in serialized(exported)]
    for example in examples:
        features = example.features.feature
        features["image/name"].CopyFrom(features["image/filename"])
        del features["image/filename"]
    found = faults(exported, [example.SerializeToString() for example in examples])
    assert found == {"image/filename": {"SCHEMA_MISSING_COLUMN"}, "image/name": {"SCHEMA_NEW_COLUMN"}}


def test_one_schema_for_several_splits_says_only_what_is_so_in_all():
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    features = image_features(images=True, truth=False) | prediction_features("multiclass", 10)
    more = features | {"extra/note": FeatureSpec("bytes", ()), "image/width": FeatureSpec("int64", (None,))}
    one, other = (schema_text(each, DIGITS) for each in (features, more))
    assert joined([one, one]) == one
    found = text_format.Parse(joined([one, other]), schema_pb2.Schema())
    assert [feature.name for feature in found.feature] == sorted(more)
    loose = [feature for feature in found.feature if not feature.HasField("presence")]
    assert [(each.name, each.type) for each in loose] == [
        ("extra/note", schema_pb2.BYTES),
        ("image/width", schema_pb2.INT),
    ]


def test_what_the_readme_of_the_schemas_shows_works(folder, digits_model, capsys):
    text = (README.parent / "schemas" / "README.md").read_text()
    (piece,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    tfzip.export("photos", digits_model, str(folder / "labelled"), quiet=True, shards=2)
    exec(piece, {})
    assert capsys.readouterr().out.splitlines()[-1] == "{}"
