"""Names that would lead out of the folder, or that no file can have: told, and they cost only themselves."""

import os
import subprocess
import sys

import numpy as np
import pytest

import tfzip
from tfzip import cli, naming
from tfzip.below import Below, UnwritableError, check_name
from tfzip.extract import extract


def export_of(folder, names):
    """An export of one image a name; each record has a number of its own among its scores."""
    images = [np.full((2, 2, 3), number, np.uint8) for number in range(len(names))]
    scores = np.eye(len(names) + 1, dtype=np.float32)[:-1]
    return tfzip.write(iter(list(zip(scores, names, images, strict=True))), str(folder), quiet=True, batch_size=8)


def files_below(folder):
    """Every file below a folder, by its name in bytes; links are not followed."""
    root = os.fsencode(folder)
    found = {}
    for above, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(above, name), "rb") as file:
                found[os.path.relpath(os.path.join(above, name), root)] = file.read()
    return found


UNWRITABLE = {
    # On every system: the name, and a word of the reason.
    "../up.png": "out of its folder",
    "a/../../up.png": "out of its folder",
    "a/../same.png": "out of its folder",
    "..": "out of its folder",
    "./here.png": "out of its folder",
    "a/./b.png": "out of its folder",
    "/absolute.png": "empty",
    "//host/share.png": "empty",
    "a//b.png": "empty",
    "folder/": "empty",
    "metadata.csv": "is there already",
    "plain": None,
    "plain/x.png": "Not a directory",
    "x" * 256 + ".png": "too long",
    "y/" + "é" * 128: "too long",
    "first/x.png": None,
    "first": "is there already",
    "C:\\windows.png": None,
    "back\\slash.png": None,
    "\\\\host\\share.png": None,
    "CON": None,
    "aux.txt": None,
    "nul/x.png": None,
    "dot.": None,
    "space ": None,
    "Case.png": None,
    "case.png": None,
    "caf\udce9.png": None,
    "new\nline.png": None,
    "\x1b[31mred.png": None,
    "...": None,
    "~/home.png": None,
    "-rf": None,
    "$HOME.png": None,
    "x" * 255: None,
    "日本/猫.png": None,
    ".hidden": None,
}
"""On this system, which is a POSIX one with a file system that tells cases apart; None for what can be written."""


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    return export_of(tmp_path_factory.mktemp("nasty") / "out", list(UNWRITABLE))


def test_extract_writes_what_it_can_below_its_folder_and_tells_of_the_rest(nasty, tmp_path):
    target = tmp_path / "in" / "here"
    done = extract(nasty, target)
    unwritable = {name: reason for name, reason in UNWRITABLE.items() if reason}
    told = dict(done.unwritten)
    assert list(told) == list(unwritable)
    assert all(reason in told[name] for name, reason in unwritable.items())
    found = files_below(target)
    assert found.pop(b"metadata.csv").startswith(b"filename,")
    expected = {naming.to_bytes(r.filename): r.encoded for r in nasty[:] if r.filename not in unwritable}
    assert found == expected
    assert done.written == len(expected)
    assert files_below(tmp_path).keys() == {b"in/here/" + name for name in (*expected, b"metadata.csv")}


def test_the_command_goes_on_tells_the_first_of_them_and_ends_with_1(nasty, tmp_path, capsys):
    written = sum(reason is None for reason in UNWRITABLE.values())
    assert cli.main(["extract", nasty.path, "--to", str(tmp_path / "to")]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{written} images and metadata.csv in")
    unwritten = len(UNWRITABLE) - written
    assert f"{unwritten} images not written" in shown.err
    assert "../up.png: it leads out of its folder" in shown.err
    assert f"and {unwritten - 5} more" in shown.err
    assert f"tfzip get {nasty.path} FILENAME --image FILE" in shown.err
    for character in set(shown.out + shown.err) - {"\n"}:
        assert character.isprintable()


def test_what_extract_cannot_write_get_gives(nasty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in UNWRITABLE:
        assert cli.main(["get", nasty.path, "--image", "image.png", "--", naming.typed(name)]) == 0
        assert (tmp_path / "image.png").read_bytes() == nasty[name].encoded
    assert os.listdir(tmp_path) == ["image.png"]


def test_names_with_a_nul_are_told_by_extract_and_found_by_get(tmp_path, capsys):
    export = export_of(tmp_path / "out", ["nul\0.png", "good.png"])
    done = extract(export, tmp_path / "to")
    assert done == (1, [("nul\0.png", "it holds a NUL")])
    assert sorted(os.listdir(tmp_path / "to")) == ["good.png", "metadata.csv"]
    capsys.readouterr()
    assert cli.main(["get", export.path, naming.typed("nul\0.png")]) == 0


def test_an_image_that_get_cannot_write_is_told(nasty, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", tmp_path / "nowhere" / "x.png", tmp_path / ("x" * 300)):
        assert cli.main(["get", nasty.path, "CON", "--image", str(target)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


# Windows, whose names can be tried anywhere.


WINDOWS = {
    "C:\\windows.png": False,
    "C:relative.png": False,
    "back\\slash.png": False,
    "..\\up.png": False,
    "\\\\host\\share.png": False,
    "a/stream.png:hidden": False,
    "what?.png": False,
    "star*.png": False,
    'quo"te.png': False,
    "a|b.png": False,
    "<tag>.png": False,
    "new\nline.png": False,
    "bell\x07.png": False,
    "CON": False,
    "con": False,
    "a/Con.png": False,
    "aux.txt": False,
    "aux.tar.gz": False,
    "NUL/x.png": False,
    "prn .png": False,
    "COM1": False,
    "lpt9.jpg": False,
    "com²": False,
    "CONIN$": False,
    "dot.": False,
    "dots...": False,
    "folder./x.png": False,
    "space ": False,
    "caf\udce9.png": False,
    "console.png": True,
    "auxiliary/x.png": True,
    "com10.png": True,
    "nul-1.png": True,
    ".hidden": True,
    "a b.png": True,
    "日本/猫.png": True,
    "it's (1) [2] {3} #4 %5 &6 @7 !8 ~9.png": True,
}


@pytest.mark.parametrize("name", WINDOWS)
def test_names_that_windows_takes_for_others_are_refused_there(name):
    if WINDOWS[name]:
        check_name(name, windows=True, utf8=True)
    else:
        with pytest.raises(UnwritableError):
            check_name(name, windows=True, utf8=True)


# Writing, by whatever way the system has.


@pytest.fixture(params=["by descriptor", "by path", "remote"])
def folder(request, tmp_path, monkeypatch):
    """An empty folder to write below: its path, and whether it is on the disk."""
    if request.param == "remote":
        import tensorflow as tf

        path = f"ram://below-{tmp_path.name}"
        tf.io.gfile.makedirs(path)
        return path
    if request.param == "by path":
        monkeypatch.setattr("tfzip.below._BY_DESCRIPTOR", False)
    (tmp_path / "target").mkdir()
    return str(tmp_path / "target")


def write(below, name, content=b"new"):
    with below.open(name) as file:
        file.write(content)


def test_files_are_written_with_the_folders_on_the_way(folder):
    from tfzip import storage

    with Below(folder) as below:
        for name in ("a", "b/c/d", "b/c/e", "b/f"):
            write(below, name, name.encode())
        for name in ("a", "b/c/d", "b/c/e", "b/f"):
            with storage.open(f"{folder}/{name}", "rb") as file:
                assert file.read() == name.encode()


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../b", ".", "..", "", "nul\0", "a/"])
def test_no_way_of_writing_leaves_the_folder(folder, tmp_path, name):
    with Below(folder) as below, pytest.raises(UnwritableError):
        below.open(name)
    assert files_below(tmp_path) == {}


def test_no_file_is_replaced(folder):
    with Below(folder) as below:
        write(below, "a", b"first")
        with pytest.raises(UnwritableError, match="is there already"):
            below.open("a")


def test_a_name_that_is_not_utf8_is_told_where_there_are_none(folder):
    with Below(folder) as below:
        if folder.startswith("ram:"):
            with pytest.raises(UnwritableError, match="not UTF-8"):
                below.open("caf\udce9")
        else:
            write(below, "caf\udce9")
            assert os.listdir(os.fsencode(folder)) == [b"caf\xe9"]


@pytest.mark.parametrize("way", ["by descriptor", "by path"])
def test_links_that_appear_meanwhile_are_not_followed(way, tmp_path, monkeypatch):
    if way == "by path":
        monkeypatch.setattr("tfzip.below._BY_DESCRIPTOR", False)
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "file").write_bytes(b"old")
    with Below(str(target)) as below:
        write(below, "a/first")
        (target / "folder").symlink_to(outside)
        (target / "a" / "inner").symlink_to("../../outside")
        (target / "file").symlink_to(outside / "file")
        (target / "new").symlink_to(outside / "new")
        for name in ("folder/x", "a/inner/x", "file", "new", "folder"):
            with pytest.raises(UnwritableError):
                below.open(name)
    assert files_below(outside) == {b"file": b"old"}


def test_a_target_that_is_moved_away_is_still_the_target(tmp_path):
    """Who can write beside the folder cannot turn it into a link to another while it is written."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    with Below(str(target)) as below:
        target.rename(tmp_path / "moved")
        target.symlink_to(outside)
        write(below, "a/x")
    assert files_below(outside) == {}
    assert files_below(tmp_path / "moved") == {b"a/x": b"new"}


_LIMITED = """
import resource, sys
from tfzip import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("largest", "left"), [(2000, [b"a.png", b"metadata.csv"]), (10, [])])
def test_a_full_disk_ends_it_and_leaves_no_half_of_a_file(tmp_path, largest, left):
    """As a limit on the size of a file has it."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (8, 64, 8)]
    triples = zip(np.eye(3, dtype=np.float32), ["a.png", "b/large.png", "c.png"], images, strict=True)
    export, to = tfzip.write(triples, str(tmp_path / "out"), quiet=True), tmp_path / "to"
    assert len(export["a.png"].encoded) < 2000 < len(export["b/large.png"].encoded)
    command = [sys.executable, "-c", _LIMITED, str(largest), "extract", export.path, "--to", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{to} can no longer be written: File too large; make room" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    found = files_below(to)
    assert sorted(found) == left
    assert found.get(b"a.png", export["a.png"].encoded) == export["a.png"].encoded


@pytest.mark.parametrize("name", ["a.png", "日本.png", "100%.png", "caf\udce9.png", "a\x1b%41\n.png", " ", "\x9b"])
def test_a_name_as_it_is_shown_can_be_typed(tmp_path, name):
    assert naming.typed(name).isprintable()
    export = export_of(tmp_path / "out", [name, "other.png"])
    assert export[naming.typed(name)].filename == name
