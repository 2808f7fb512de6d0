"""Peers that read shards, each in a process of its own, without tfzip."""

import glob
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile

import numpy as np


def read(name, folder, *readings):
    """In the parent: what the peer of that name makes of each pair of an expression and a pattern of files."""
    result = os.path.join(folder, f"{name}.pickle")
    command = [sys.executable, __file__, name, result, *(part for pair in readings for part in pair)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    with open(result, "rb") as file:
        return pickle.load(file)


def tf_data(reading, files):
    import tensorflow as tf

    records = eval(reading, {"tf": tf, "files": files}).as_numpy_iterator()
    return [of_example(tf.train.Example.FromString(record)) for record in records]


def beam(reading, files):
    import apache_beam
    import tensorflow as tf
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # DirectRunner would fetch one first

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows")
        with apache_beam.Pipeline(runner=FnApiRunner()) as pipeline:
            records = pipeline | eval(reading, {"beam": apache_beam, "files": files})
            rows = records | apache_beam.Map(tf.train.Example.FromString) | apache_beam.Map(of_example)
            rows | apache_beam.combiners.ToList() | apache_beam.Map(save, path)
        with open(path, "rb") as file:
            return pickle.load(file)


def ray(reading, files):
    return [of_values(row) for row in ray_rows(reading, files)]


def ray_lists(reading, files):
    """With labels instead of one label: by a schema, Ray makes of every value a list."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    with zipfile.ZipFile(os.path.join(os.path.dirname(files[0]), "index.zip")) as index:
        schema = text_format.Parse(index.read("schema.pbtxt"), schema_pb2.Schema())
    keys = ("image/filename", "prediction/labels", "prediction/scores", "image/encoded")
    rows = (map(row.get, keys) for row in ray_rows(reading, files, schema=schema))
    return [(filename.decode(), labels, scores, encoded) for (filename,), labels, scores, (encoded,) in rows]


def ray_rows(reading, files, **names):
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 << 20)
    return eval(reading, {"ray": ray, "files": files, **names}).take_all()


def tfrecord(reading, files):
    import tfrecord

    return [of_values(row) for file in files for row in eval(reading, {"tfrecord": tfrecord, "file": file})]


def of_example(example):
    """Filename, label, scores and image of a `tf.train.Example`."""
    feature = example.features.feature
    return (
        feature["image/filename"].bytes_list.value[0].decode(),
        feature["prediction/label"].int64_list.value[0],
        list(feature["prediction/scores"].float_list.value),
        feature["image/encoded"].bytes_list.value[0],
    )


def of_values(row):
    """The same of a row that has its values by the names of the features, as numbers, lists or arrays."""
    label, scores = (np.asarray(row[key]) for key in ("prediction/label", "prediction/scores"))
    return row["image/filename"].decode(), label.item(), scores.tolist(), row["image/encoded"]


def model_garden(reading, files):
    """In the order of the shards the ids that its decoder for boxes gives, images and labels of its reader for classes;
    and the losses of steps of training.
    """
    import tensorflow as tf
    import tf_keras
    from official.vision.configs import backbones
    from official.vision.configs import image_classification as configs
    from official.vision.dataloaders import tf_example_decoder
    from official.vision.tasks.image_classification import ImageClassificationTask

    data = eval(reading, {"DataConfig": configs.DataConfig}).replace(global_batch_size=64, aug_rand_hflip=False, seed=1)
    data = data.replace(aug_crop=False)  # a digit without its margin, or turned round, is another
    small = backbones.Backbone(type="resnet", resnet=backbones.ResNet(model_id=10))
    model = configs.ImageClassificationModel(num_classes=10, input_size=[8, 8, 3], backbone=small)
    task = ImageClassificationTask(configs.ImageClassificationTask(model=model, train_data=data))

    in_order = task.build_inputs(data.replace(is_training=False, drop_remainder=False))
    images, labels = (np.concatenate(parts) for parts in zip(*in_order.as_numpy_iterator(), strict=True))
    decoded = tf.data.TFRecordDataset(files, "GZIP").map(tf_example_decoder.TfExampleDecoder().decode)
    ids = [example["source_id"].decode() for example in decoded.as_numpy_iterator()]

    tf_keras.utils.set_random_seed(0)
    network, optimizer = task.build_model(), tf_keras.optimizers.legacy.Adam(1e-3)
    step = tf.function(lambda batch: task.train_step(batch, network, optimizer)[task.loss])
    losses = [float(step(batch)) for batch in task.build_inputs(data).take(30)]
    return ids, images, labels, losses


def save(rows, path):
    with open(path, "wb") as file:
        pickle.dump(rows, file)


if __name__ == "__main__":
    name, result, *readings = sys.argv[1:]
    pairs = zip(readings[::2], readings[1::2], strict=True)
    save([globals()[name](reading, sorted(glob.glob(pattern))) for reading, pattern in pairs], result)
