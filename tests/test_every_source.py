"""The same images through every source: the same filenames, bytes and predictions."""

import cProfile
import inspect

import numpy as np
import pytest
import tensorflow as tf
from conftest import operations
from sources_made import ITERABLES, SOURCES, pictures_of

import tfzip
from tfzip import naming, pipeline
from tfzip.job import prepare
from tfzip.options import Options
from tfzip.sources import open_source

GRAPHS = [name for name in SOURCES if name not in ITERABLES]


@pytest.fixture(scope="session")
def some(digits, tmp_path_factory):
    """Sixty digits, and the cases made of them."""
    return _Made(pictures_of(digits, tmp_path_factory.mktemp("some"), 60), tmp_path_factory)


@pytest.fixture(scope="session")
def many(digits, tmp_path_factory):
    return _Made(pictures_of(digits, tmp_path_factory.mktemp("many"), 400), tmp_path_factory)


class _Made:
    """Cases of the same pictures, each made when first asked for."""

    def __init__(self, pictures, folders):
        self.pictures, self._folders, self._cases = pictures, folders, {}

    def __getitem__(self, name):
        if name not in self._cases:
            self._cases[name] = SOURCES[name](self.pictures, self._folders.mktemp("source"))
        return self._cases[name]


@pytest.fixture(scope="session")
def scores(some, digits_model, tmp_path_factory):
    """The scores of each picture, from an export of the folder; they differ."""
    out = tmp_path_factory.mktemp("folder") / "out"
    export = tfzip.export(str(some.pictures.folder), digits_model, str(out), quiet=True)
    table = np.array([export[name].prediction.scores for name in some.pictures.names])
    assert len(np.unique(table.argmax(axis=1))) == 10
    assert len(np.unique(table.round(4), axis=0)) > 40
    return table


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_images_through_every_source(some, scores, digits_model, tmp_path, name):
    case, pictures = some[name], some.pictures
    options = {"shard_records": 25, "batch_size": 7, **case.options}
    export = tfzip.export(case.source(), digits_model, str(tmp_path / "out"), quiet=True, **options)
    order = list(case.order or range(len(pictures.names)))
    records = export[:]
    if "shuffle" in options:
        assert [record.filename for record in records] != case.names
        records.sort(key=lambda record: case.names.index(record.filename))
    assert [record.filename for record in records] == case.names
    np.testing.assert_allclose([record.prediction.scores for record in records], scores[order], atol=1e-5)
    for record, i in zip(records, order, strict=True):
        if case.pixels:
            np.testing.assert_array_equal(tf.io.decode_png(record.encoded), pictures.pixels[i])
        else:
            assert record.encoded == pictures.encoded[i]
        assert (record.truth and tuple(record.truth)) == (case.truths and case.truths[i])
        assert {column: record.extra[column] for column in case.extra} == {
            column: values[i] for column, (_, values) in case.extra.items()
        }
    for column, (dtype, _) in case.extra.items():
        assert export.features[f"extra/{column}"] == (dtype, ())
    assert {key for key in export.features if key.startswith("extra/")} == {f"extra/{column}" for column in case.extra}
    assert len(export.shards) > 2
    assert export.failures == []
    assert tfzip.verify(export) == []


def job_of(case, model, **options):
    settings = Options(**{**case.options, **options})
    return prepare(open_source(case.source(), settings), model, settings)


@pytest.mark.parametrize("name", GRAPHS)
def test_no_python_function_runs_inside_the_graph_of_any_source(some, digits_model, name):
    found = operations(pipeline.Stages(job_of(some[name], digits_model), only_usual=True).dataset())
    assert {"MatMul", "DecodeImage", "EncodeProto"} <= found
    assert not {operation for operation in found if "PyFunc" in operation}


@pytest.mark.parametrize("name", ITERABLES)
def test_only_iterables_bring_python_into_the_graph(some, digits_model, name):
    found = operations(pipeline.Stages(job_of(some[name], digits_model), only_usual=True).dataset())
    assert {operation for operation in found if "PyFunc" in operation}


def calls_of_last_batches(outcomes):
    """How many Python functions are called for each batch, from the second on."""
    next(outcomes)
    counts, more = [], True
    while more:
        profile = cProfile.Profile()
        with profile:
            more = next(outcomes, None)
        counts.append(sum(entry.callcount for entry in profile.getstats() if inspect.iscode(entry.code)))
    return counts[:-1]


LAST = {"batch_size": 190}  # of 400: batches of 190, 190 and 20


QUICK = ("folder", "tar.gz", "tfrecord", "dataset")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in GRAPHS])
def test_no_source_does_anything_in_python_for_each_image(many, digits_model, name):
    full, rest = calls_of_last_batches(pipeline.outcomes(job_of(many[name], digits_model, **LAST)))
    assert abs(full - rest) < 0.1 * 170


def test_what_is_done_in_python_for_each_image_would_be_counted(many, digits_model):
    outcomes = pipeline.outcomes(job_of(many["folder"], digits_model, **LAST))
    by_hand = ([naming.to_str(name) for name in outcome.rows["filename"]] for outcome in outcomes)
    full, rest = calls_of_last_batches(by_hand)
    assert abs(full - rest - 170) < 0.1 * 170
