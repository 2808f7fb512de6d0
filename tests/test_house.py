"""The shape of the house: imports, the public names, what start-up costs, where the schemas are."""

import ast
import importlib.resources
import json
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest
import sources_made

import tfzip
from tfzip.commands import COMMANDS

PACKAGE = Path(tfzip.__file__).parent

ORDER = [
    ["version"],
    ["colour", "defaults", "errors", "process", "interrupt"],
    ["naming", "storage"],
    ["lock", "mix", "pillow", "run", "sink", "table"],
    ["record", "policy", "calibration"],
    ["lookup", "metadata"],
    ["framing", "schema", "formats", "entries", "manifest"],
    ["dataset_info"],
    ["below", "write", "index", "exif", "headers"],
    ["bounds"],
    ["foreign", "npy"],
    ["images"],
    ["read"],
    ["thumbnails"],
    ["classes", "evaluate", "extract", "layout", "matching", "rows"],
    ["diff"],
    ["options", "progress", "labels"],
    ["rules"],
    ["selection"],
    ["select"],
    ["sources.columns", "sources.feed", "sources.region", "sources.source", "sources.spooled", "sources.tar"],
    ["sources.folder", "sources.table"],
    [
        "sources.archive",
        "sources.exported",
        "sources.planned",
        "sources.python",
        "sources.skip",
        "sources.tfds",
        "sources.tfrecord",
    ],
    ["sources.pieces"],
    ["sources"],
    ["decode", "encode", "graph", "pairing", "truth"],
    ["inputs", "parsing", "effects", "evidence", "frozen", "lite", "devices", "models.model", "straight", "unusual"],
    ["models.keras", "models.function"],
    ["models.saved_model"],
    ["models"],
    ["predictor"],
    ["tasks"],
    ["predict"],
    ["given"],
    ["join"],
    ["plan"],
    ["handout", "job"],
    ["shard", "checkpoint"],
    ["finish", "outcome"],
    ["pipeline"],
    ["duplicates", "tuning", "worker"],
    ["spread"],
    ["deep", "pseudolabel"],
    ["boxes", "describe", "figures", "gallery"],
    ["cards", "page"],
    ["report"],
    ["export", "scorecard", "verify"],
    ["terminal"],
    ["rounds"],
    ["interop"],
    ["interop.beam", "interop.tfds", "interop.tfx"],
    ["demo"],
    ["__init__"],
    ["arguments", "commands"],
    ["cli"],
    ["__main__"],
]
"""A module may import those of earlier lines."""


METHODS = {("read", "pseudolabel")}
"""What a method calls that stands for a function above it: when it is called, not when its module is imported."""

HEAVY = {
    "tensorflow", "tensorflow_datasets", "keras", "numpy", "google.protobuf", "google_crc32c", "isal", "filelock",
    "tqdm", "rich", "sklearn", "PIL", "jinja2", "tfx", "apache_beam",
}  # fmt: skip
"""All that is installed and takes its time to import."""


def modules():
    """Every module of the package, by its name below tfzip."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        if not name.startswith("schemas"):
            yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def imported(tree):
    """The modules of tfzip that a module imports, at its top or inside functions, type checking aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    known = {name for line in ORDER for name in line}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tfzip":
            base = node.module.partition(".")[2]
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in known else base or "__init__"
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.partition(".")[2] or "__init__" for alias in node.names if alias.name.startswith("tfzip")
            )


def test_imports_point_downward_only():
    rank = {name: number for number, line in enumerate(ORDER) for name in line}
    seen = set()
    for name, tree in modules():
        seen.add(name)
        for other in imported(tree):
            allowed = rank[other] < rank[name] or (name, other) in METHODS
            assert allowed, f"{name} imports {other}, which is not below it"
    assert seen == set(rank), "a module is missing from the order, or the order names one that is gone"


def test_writing_and_reading_never_meet():
    trees = dict(modules())
    assert "read" not in imported(trees["write"])
    assert "write" not in imported(trees["read"])


def test_the_public_names_are_these():
    assert tfzip.__all__ == sorted(tfzip.__all__, key=str)
    assert set(tfzip.__all__) == {
        "BrokenSourceError", "Change", "CorruptError", "DataError", "Diff", "Evaluation", "Export", "Failure",
        "FilenameNotFoundError", "ModelError", "Move", "NotAnExportError", "OutputError", "OutputExistsError",
        "Prediction", "Record", "SourceError", "Target", "TfzipError", "TooManyFailuresError", "Truth", "UsageError",
        "__version__", "diff", "evaluate", "export", "mix", "open", "report", "select", "verify", "write", "zip",
    }  # fmt: skip
    for name in tfzip.__all__:
        assert getattr(tfzip, name) is not None
    assert callable(tfzip.export)
    assert callable(tfzip.open)


def test_type_checkers_see_the_names_that_are_imported_once_asked_for():
    (seen,) = (node for node in dict(modules())["__init__"].body if isinstance(node, ast.If))
    imports = {node.module: tuple(alias.name for alias in node.names) for node in seen.body}
    assert imports == {f"tfzip.{module}": names for module, names in tfzip._MODULES.items()}


@pytest.mark.parametrize("first", ["pass", "tfzip.export, tfzip.read", "from tfzip import *"])
def test_the_functions_stay_functions_when_their_modules_are_imported(first):
    names = sorted(set(tfzip.__all__) & {name for name, _ in modules()})
    assert names == ["diff", "evaluate", "export", "mix", "report", "select", "verify", "write"]
    code = f"import tfzip, types\n{first}\nimport tfzip.read, {', '.join(f'tfzip.{name}' for name in names)}\n"
    code += f"for name in {names}: assert isinstance(getattr(tfzip, name), types.FunctionType), name\n"
    code += "from tfzip import export, read\nassert export is tfzip.export\n"
    code += "assert isinstance(read, types.ModuleType) and isinstance(tfzip.read, types.ModuleType)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_are_there_for_whoever_looks_before_they_are_imported():
    code = "import tfzip\nassert set(tfzip.__all__) <= set(dir(tfzip))\n"
    code += "from tfzip import *\nassert export is tfzip.export and Record is tfzip.Record\n"
    code += "assert not hasattr(tfzip, 'exports')"
    subprocess.run([sys.executable, "-c", code], check=True)
    told = pydoc.render_doc(tfzip, renderer=pydoc.plaintext)
    for name in set(tfzip.__all__) - {"__version__"}:
        assert f"    class {name}(" in told or f"    {name}(" in told, name


def test_what_is_pickled_is_found_again_by_who_imported_nothing():
    values = [tfzip.Failure("a.png", "decode", "no image"), tfzip.UsageError("wrong"), tfzip.export, tfzip.Record]
    code = f"import pickle; values = pickle.loads({pickle.dumps(values)!r})\n"
    code += "import tfzip; assert values[0].filename == 'a.png' and values[2:] == [tfzip.export, tfzip.Record]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("asked", [None, [], *([name] for name in COMMANDS)], ids=str)
def test_importing_tfzip_or_asking_for_help_imports_nothing_that_takes_its_time(asked):
    code = "import sys, tfzip\n"
    if asked is not None:
        code += f"import tfzip.cli\ntry: tfzip.cli.main({[*asked, '--help']})\nexcept SystemExit: pass\n"
    code += "loaded = {name.split('.')[0] for name in sys.modules} | set(sys.modules)\n"
    code += f"assert not {HEAVY} & loaded, {HEAVY} & loaded"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_reading_an_export_does_not_import_tensorflow(digits, digits_model, tmp_path):
    out = tmp_path / "out"
    tfzip.export(str(digits[0]), digits_model, str(out), quiet=True, limit=20)
    code = f"""
import sys, tfzip
from tfzip import cli
export = tfzip.open({str(out)!r})
assert export["0/0000.png"].format == "png" and not tfzip.verify(export)
for command in (["inspect"], ["verify"], ["get", "0/0000.png"], ["extract", "--to", {str(tmp_path / "to")!r}],
                ["diff", {str(out)!r}]):
    assert cli.main([command[0], {str(out)!r}, *command[1:]]) == 0
assert not {{"tensorflow", "rich"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_nothing_asks_for_beam_ray_or_tfx_by_itself(digits, digits_files, tmp_path):
    """Nor does what tfzip imports, TFDS among it: whether they are installed or not."""
    prepared = sources_made.tfds(sources_made.pictures_of(digits, tmp_path / "in", 20), tmp_path)
    code = f"""
import sys
asked = []
class Asked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("apache_beam", "ray", "tfx", "tfx_bsl", "tfrecord", "official"):
            asked.append(name)
sys.meta_path.insert(0, Asked())
import tfzip
export = tfzip.export({prepared.source()!r}, {digits_files["keras"]!r}, {str(tmp_path / "out")!r}, quiet=True)
assert len(tfzip.select(export, {str(tmp_path / "chosen")!r}, min_confidence=0.1)) == len(export) == 20
assert len(list(export.pseudo_labels(min_confidence=0.1))) == len(list(export.dataset())) == len(export[:]) == 20
assert not tfzip.verify(export) and "tensorflow_datasets" in sys.modules
assert not asked, asked
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_schemas_are_packaged():
    folder = importlib.resources.files("tfzip.schemas")
    for name in ("manifest.schema.json", "metadata.schema.json"):
        assert json.loads((folder / name).read_text())["title"]


def test_every_error_is_on_one_side_of_the_tree():
    """The caller's mistake or the data's fault; but for a disk, which is neither."""
    from tfzip import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TfzipError)]
    for kind in kinds:
        if kind in (errors.TfzipError, errors.OutputError):
            continue
        assert issubclass(kind, errors.UsageError) != issubclass(kind, errors.DataError)
        assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1)
        assert kind.__name__ in errors.__doc__


def test_the_tfx_components_name_the_pip_command_where_tfx_is_missing():
    code = "import sys, tfzip; sys.modules['tfx'] = None\n"
    code += "try: import tfzip.interop.tfx\nexcept ImportError as error: print(error)"
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "pip install 'tfzip[tfx]'" in told
    assert told.count("\n") == 1
