"""Components for TFX pipelines: `TfzipExport` runs a model over images, `TfzipSelect` chooses what to train on.

    labelled = TfzipExport(images="photos/", model=trainer.outputs["model"], scale="raw")
    chosen = TfzipSelect(labelled.outputs["output_examples"], min_confidence=0.9, validation=0.1)

What they emit are `Examples` as ExampleGen's, and exports too: `tfzip.open(uri, split)` opens a split of an artifact.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tfzip import schema, storage
from tfzip.errors import ModelError, UsageError
from tfzip.export import export
from tfzip.index import INDEX
from tfzip.options import SHAPE, Options
from tfzip.read import Export, has_index
from tfzip.read import open as open_export
from tfzip.rules import VALIDATION, Rules
from tfzip.select import check_validation_split, select
from tfzip.sources import Listed, open_source

try:
    from absl import logging
    from tfx.components.util import examples_utils, model_utils
    from tfx.dsl.components.base import base_component, base_driver, base_executor, executor_spec
    from tfx.orchestration.portable import base_driver as portable_driver
    from tfx.proto import example_gen_pb2
    from tfx.proto.orchestration import driver_output_pb2
    from tfx.types import artifact_utils, channel, component_spec, standard_artifacts
    from tfx.utils import path_utils
except ImportError as error:
    raise ImportError(f"TFX is missing ({error}): pip install 'tfzip[tfx]', with Python 3.10") from None

EVAL = "eval"
"""The split in which TFX's Trainer looks for what it evaluates with."""

_KERAS = (".keras", ".h5")
_LIES = {"layout": "tfx", "compression": "gzip", "overwrite": True}
"""How what is emitted lies in its folder, which is TFX's: what an execution cut short left there is in the way."""

_SCHEMA = "schema.pbtxt"
_FORMAT, _COMPRESSION = "FORMAT_TF_EXAMPLE", "tfrecords_gzip"
_NUMBERS = ("span", "version")
_SETTLED = ("layout", "compression", "overwrite", "dry_run", "predictions", "allow_partial", "engine")
"""Options that say nothing here: the artifacts have their own layout and folders, and predictions their model."""
_SETTLED_BY_EXAMPLES = (*_SETTLED, "split", "source_split")
_FILES = ("labels", "weights", "skip_in")
"""Options that name files, or an export."""
_SHAPE = tuple(name for name in SHAPE if name not in (*_SETTLED, "split"))


class TfzipExportSpec(component_spec.ComponentSpec):  # type: ignore[misc]  # TFX ships no types
    """What TfzipExport takes and gives."""

    PARAMETERS: ClassVar[Mapping[str, Any]] = {
        "images": component_spec.ExecutionParameter(type=str, optional=True),
        "options": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int, optional=True),
        "version": component_spec.ExecutionParameter(type=int, optional=True),
    }
    INPUTS: ClassVar[Mapping[str, Any]] = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
    }
    OUTPUTS: ClassVar[Mapping[str, Any]] = {
        "output_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
    }


class TfzipSelectSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """What TfzipSelect takes and gives."""

    PARAMETERS: ClassVar[Mapping[str, Any]] = {"rules": component_spec.ExecutionParameter(type=str)}
    INPUTS: ClassVar[Mapping[str, Any]] = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)
    }
    OUTPUTS: ClassVar[Mapping[str, Any]] = TfzipExportSpec.OUTPUTS


# TfzipExport.


class ExportDriver(base_driver.BaseDriver, portable_driver.BaseDriver):  # type: ignore[misc]
    """Adds to the parameters what tells one state of the images from another, so that no stale export is reused."""

    def __init__(self, metadata: Any) -> None:
        base_driver.BaseDriver.__init__(self, metadata)
        portable_driver.BaseDriver.__init__(self, metadata)

    def run(self, execution_info: Any) -> Any:
        """Give the fingerprint of images, and of other files, that are no artifact."""
        output, asked = driver_output_pb2.DriverOutput(), execution_info.exec_properties
        fingerprint = _fingerprint(asked.get("images"), json.loads(asked["options"]))
        output.exec_properties["files_fingerprint"].string_value = fingerprint
        return output


def _fingerprint(images: str | None, options: Mapping[str, Any]) -> str:
    """Of the images' names, sizes and times, or of what tells of them all, as an archive's; and of files in options."""
    told = hashlib.sha256(json.dumps([storage.status(path) for path in _files(options)]).encode())
    if images is None:
        return told.hexdigest()
    source = open_source(images, Options(**options))
    told.update(json.dumps(source.state, sort_keys=True).encode())
    if isinstance(source, Listed):
        stamps = b"" if source.stamps is None else source.stamps.tobytes()
        told.update(b"\0".join([*source.filenames, source.sizes.tobytes(), stamps]))
    return told.hexdigest()


def _files(options: Mapping[str, Any]) -> list[str]:
    """The files that options name, an export as its index."""
    paths = [options[name] for name in _FILES if isinstance(options.get(name), str)]
    return [storage.join(open_export(path).home, INDEX) if has_index(path) else path for path in paths]


class ExportExecutor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Exports the images, or every split of the Examples."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 - TFX's name
        """Write the artifacts; as BulkInferrer, nothing for a model that is not blessed."""
        given, model, blessing = (_only(input_dict, key) for key in ("examples", "model", "model_blessing"))
        made: dict[str, Export] = {}
        if blessing is None or model_utils.is_model_blessed(blessing):
            made = _exported(given, model, _only(output_dict, "output_examples").uri, exec_properties)
        else:
            logging.info("The model at %s was not blessed: nothing is exported", model.uri)
        asked = {name: exec_properties[name] for name in _NUMBERS if exec_properties.get(name) is not None}
        _describe(output_dict, made, _numbers(given) | asked)


def _exported(given: Any, model: Any, out: str, asked: Mapping[str, Any]) -> dict[str, Export]:
    """An export of every split."""
    options = {"quiet": True, **json.loads(asked["options"]), **_LIES}
    path, made = _model_path(model), {}
    for source, more in [(asked["images"], {})] if given is None else _splits(given):
        written = export(source, path, out, **options, **more)
        assert written is not None  # not a dry run
        made[written.split] = written
    return made


def _splits(given: Any) -> list[tuple[str, dict[str, str]]]:
    """Every split of Examples as a source, and the options that go with it."""
    kinds = examples_utils.get_payload_format_string(given), examples_utils.get_file_format(given)
    if kinds != (_FORMAT, _COMPRESSION):
        raise UsageError(f"{given.uri}: its Examples are {' in '.join(kinds)}, not {_FORMAT} in {_COMPRESSION}")
    found: list[tuple[str, dict[str, str]]] = []
    for split in given.splits:
        (pattern,) = examples_utils.get_split_file_patterns([given], split)
        if has_index(given.uri, split):  # by tfzip: then its images, filenames and truth are known
            found.append((given.uri, {"split": split, "source_split": split}))
        elif _holds_records(pattern):
            found.append((f"tfrecord:{pattern}", {"split": split}))
        else:
            logging.warning("The split %s of %s holds no records: it is left out", split, given.uri)
    return found


def _holds_records(pattern: str) -> bool:
    """Whether there is one: of few records ExampleGen may put none into a split."""
    files = storage.glob(pattern)
    return bool(files) and next(iter(tf.data.TFRecordDataset(files, "GZIP").take(1)), None) is not None


def _model_path(model: Any) -> str:
    """The SavedModel for serving, as Trainer leaves it; else the one below the artifact's folder, or a Keras file."""
    if model.uri.endswith(_KERAS):
        return str(model.uri)
    is_old = path_utils.is_old_model_artifact(model)
    serving = path_utils.serving_model_path(model.uri, is_old)
    for folder in (serving, model.uri, path_utils.eval_model_path(model.uri, is_old)):
        names = sorted(storage.listdir(folder))
        files = [name for name in names if name.endswith(_KERAS)]
        if "saved_model.pb" in names or len(files) == 1:
            return folder if "saved_model.pb" in names else os.path.join(folder, files[0])
    raise ModelError(f"{model.uri}: no SavedModel there, nor one .keras or .h5 file, nor in Format-Serving below")


class TfzipExport(base_component.BaseComponent):  # type: ignore[misc]
    """Runs a model over images, and emits them with their filenames and predictions.

    `outputs["output_examples"]` are Examples in the tfx layout of an export: shards in `Split-SPLIT/`, the index beside
    them in `tfzip-SPLIT/`. `outputs["schema"]` is their Schema, which ExampleValidator or Trainer may take.

    Args:
        images: a folder, or whatever else is a source of `tfzip export`; changed images are noticed when results are
            cached.
        examples: Examples with images, instead of `images`; each split is exported to one of the same name.
        model: a Model, as Trainer emits it.
        model_blessing: a ModelBlessing; if the model is not blessed, there is no split, as with BulkInferrer.
        span: of the Examples emitted; None for that of `examples`, or 0.
        version: likewise.
        **options: those of `tfzip.export`: `scale="raw"`, `labels="names.txt"`, `source_labels="folder"`, ...

    Raises UsageError where the options are wrong, when the pipeline is defined.
    """

    SPEC_CLASS = TfzipExportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ExportExecutor)
    DRIVER_CLASS = ExportDriver

    def __init__(
        self,
        images: Any = None,
        examples: Any = None,
        model: Any = None,
        model_blessing: Any = None,
        span: int | None = None,
        version: int | None = None,
        **options: Any,
    ) -> None:
        if (images is None) == (examples is None):
            raise UsageError("TfzipExport: give images, or examples")
        if model is None:
            raise UsageError("TfzipExport: give a model, as trainer.outputs['model']")
        settled = _SETTLED_BY_EXAMPLES if images is None else _SETTLED
        spec = TfzipExportSpec(
            images=os.fspath(images) if isinstance(images, os.PathLike) else images,
            examples=examples,
            model=model,
            model_blessing=model_blessing,
            span=span,
            version=version,
            options=_checked(options, settled),
            **_channels(),
        )
        super().__init__(spec=spec)


# TfzipSelect.


class SelectExecutor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Selects from every split."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 - TFX's name
        """Write the artifacts; nothing where nothing was exported."""
        given, out = _only(input_dict, "examples"), _only(output_dict, "output_examples").uri
        rules, made = json.loads(exec_properties["rules"]), {}
        if rules.get("validation") and len(given.splits) > 1:
            raise UsageError(
                f"{given.uri} has the splits {', '.join(given.splits)} already, each of which is selected from; "
                "validation would make one more: leave it out"
            )
        for split in given.splits:
            with open_export(given.uri, split) as source:
                made[split] = select(source, out, **rules, **_LIES)
        if rules.get("validation") and made:
            made[rules["validation_split"]] = open_export(out, rules["validation_split"])
        _describe(output_dict, made, _numbers(given))


class TfzipSelect(base_component.BaseComponent):  # type: ignore[misc]
    """Chooses what to train on from what TfzipExport emits: pseudo-labels, in `image/class/*` of Examples.

    Each split is selected from. With `validation=0.1` a tenth of the only split becomes the split `eval`, which
    Trainer evaluates with (`validation_split` gives it another name). `outputs["output_examples"]` and
    `outputs["schema"]` are as those of TfzipExport.

    Args:
        examples: the Examples that TfzipExport or TfzipSelect emits.
        **rules: those of `tfzip.select`: `min_confidence=0.9`, `per_class=1000`, `soft=True`, `validation=0.1`, ...

    Raises UsageError where the rules are wrong, when the pipeline is defined.
    """

    SPEC_CLASS = TfzipSelectSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(SelectExecutor)

    def __init__(self, examples: Any, **rules: Any) -> None:
        shape = {name: rules.pop(name) for name in _SHAPE if name in rules}
        held = rules.pop("validation_split", None)
        _check_names("TfzipSelect", rules, [*_names(Rules), *_SHAPE, "validation_split"])
        Options(**shape)
        check_validation_split(Rules(**rules), held or VALIDATION)
        if rules.get("validation"):
            shape["validation_split"] = held or EVAL
        asked = _as_text("TfzipSelect", {**rules, **shape})
        super().__init__(spec=TfzipSelectSpec(examples=examples, rules=asked, **_channels()))


# Of both.


def _channels() -> dict[str, Any]:
    """What is emitted."""
    kinds = {"output_examples": standard_artifacts.Examples, "schema": standard_artifacts.Schema}
    return {key: channel.Channel(type=kind) for key, kind in kinds.items()}


def _checked(options: Mapping[str, Any], settled: Sequence[str]) -> str:
    """Options of an export as a pipeline keeps them; UsageError unless there are such, of values that fit."""
    _check_names("TfzipExport", options, [name for name in _names(Options) if name not in settled])
    Options(**options)
    return _as_text("TfzipExport", options)


def _names(fields: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(fields)]


def _check_names(component: str, asked: Iterable[str], known: Sequence[str]) -> None:
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"{component}: there is no {unknown[0]!r} to give here; there are {', '.join(known)}")


def _as_text(component: str, asked: Mapping[str, Any]) -> str:
    """As JSON, which a pipeline keeps."""
    try:
        return json.dumps(asked, default=os.fspath, sort_keys=True)
    except TypeError as error:
        raise UsageError(f"{component}: a pipeline keeps its parameters as text ({error}); give names") from None


def _only(artifacts: Mapping[str, Any], key: str) -> Any:
    """The one artifact of a key; None where there is none."""
    return artifact_utils.get_single_instance(artifacts[key]) if artifacts.get(key) else None


def _numbers(given: Any) -> dict[str, int]:
    """Span and version of Examples: properties, or custom ones as ExampleGen has them; 0 if there are none."""
    if given is None:
        return dict.fromkeys(_NUMBERS, 0)
    return {name: getattr(given, name) or given.get_int_custom_property(name) for name in _NUMBERS}


def _describe(output_dict: Any, made: Mapping[str, Export], numbers: Mapping[str, int]) -> None:
    """Set the properties of what was made, and write its schema."""
    examples, described = (_only(output_dict, key) for key in ("output_examples", "schema"))
    examples.splits = list(made)
    examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.Value(_FORMAT))
    examples_utils.set_file_format(examples, _COMPRESSION)
    for name, value in numbers.items():
        setattr(examples, name, value)
        examples.set_int_custom_property(name, value)
    for split, each in made.items():
        logging.info("Split %s: %d records, %d failures, in %s", split, len(each), len(each.failures), each.path)
    texts = [each._index.text(_SCHEMA) for each in made.values()]
    storage.makedirs(described.uri)
    storage.write_whole(storage.join(described.uri, _SCHEMA), schema.joined(texts).encode())
