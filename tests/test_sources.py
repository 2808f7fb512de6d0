from __future__ import annotations

import os
import pathlib
import socket
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tfzip import sources
from tfzip.errors import SourceError, UsageError
from tfzip.options import Options
from tfzip.sources.folder import is_glob


def open_source(path, labels):
    return sources.open_source(path, Options(source_labels=labels))


def fill(root, files) -> None:
    """Write files by their names (bytes or str) below a local folder."""
    root = os.fsencode(root)
    for name, content in files.items():
        path = os.path.join(root, os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def contents(*names) -> dict:
    """A content of its own for each name, and a size of its own."""
    return {name: f"{i}:".encode() + os.fsencode(name) * (i + 1) for i, name in enumerate(names)}


def read_all(source) -> list[tuple[bytes, bytes]]:
    """Filename and bytes at each position, as the graph reads them."""
    read = source.reader()
    dataset = tf.data.Dataset.range(len(source.filenames)).map(read, 2, deterministic=True)
    return [(element["filename"], element["encoded"]) for element in dataset.as_numpy_iterator()]


def assert_holds(source, files) -> None:
    """The source lists these files and no others, in the order of their bytes, and reads each one's own content."""
    expected = sorted((os.fsencode(name), content) for name, content in files.items())
    assert list(source.filenames) == [name for name, _ in expected]
    assert source.sizes.tolist() == [len(content) for _, content in expected]
    assert source.sizes.dtype == np.int64
    assert len({content for _, content in expected}) == len(expected)
    assert read_all(source) == expected


NESTED = contents(
    "z.jpg", "a/1.jpg", "a/b/c/deep.png", "a/b.jpg", "B/1.jpg", "b/1.jpg", "b-c/1.gif", "b/10.jpg", "b/2.jpg"
)


# Folders.


def test_names_are_below_the_folder_with_slashes_and_sorted_by_bytes(tmp_path):
    fill(tmp_path, NESTED)
    source = open_source(tmp_path, "none")
    assert_holds(source, NESTED)
    names = list(source.filenames)
    assert names.index(b"B/1.jpg") < names.index(b"a/1.jpg") < names.index(b"b-c/1.gif") < names.index(b"b/1.jpg")
    assert names.index(b"b/10.jpg") < names.index(b"b/2.jpg")
    assert source.kind == "folder"
    assert source.ignored == 0
    assert source.truths is None


@pytest.mark.parametrize("shape", ["path", "text", "slash", "relative", "here", "dots"])
def test_names_do_not_depend_on_how_the_folder_is_written(tmp_path, monkeypatch, shape):
    fill(tmp_path, {f"photos/{name}": content for name, content in NESTED.items()})
    folder = tmp_path / "photos"
    monkeypatch.chdir(folder if shape == "here" else tmp_path)
    given = {
        "path": folder,
        "text": str(folder),
        "slash": f"{folder}/",
        "relative": "photos",
        "here": ".",
        "dots": "photos/../photos",
    }[shape]
    assert_holds(open_source(given, "none"), NESTED)


def test_the_suffix_tells_images_in_any_case_and_others_are_counted(tmp_path):
    images = contents("1.jpg", "2.JPG", "3.JpEg", "4.jpeg", "5.png", "6.PNG", "7.gif", "8.bmp", "9.webp", "10.Jfif")
    unreadable = contents("scan.tif", "phone.HEIC", "new.avif")  # they fail by name later, and do not vanish
    others = contents(
        "notes.txt",
        ".DS_Store",
        "Thumbs.db",
        "jpg",
        ".jpg",
        "1.jpg.txt",
        "1.jpg~",
        "2.jpgx",
        "x.mp4",
        "d/README",
        "d/.png",
    )
    fill(tmp_path, images | unreadable | others)
    source = open_source(tmp_path, "none")
    assert sorted(source.filenames) == sorted(os.fsencode(name) for name in images | unreadable)
    assert source.ignored == len(others)


@pytest.mark.parametrize("other", ["a zip", "an empty file"])
def test_images_beside_an_index_zip_of_something_else_are_a_folder_of_images(tmp_path, other):
    fill(tmp_path, NESTED)
    (tmp_path / "index.zip").touch()
    if other == "a zip":
        with zipfile.ZipFile(tmp_path / "index.zip", "w") as archive:
            archive.writestr("index.html", "an album")
    source = open_source(tmp_path, "none")
    assert_holds(source, NESTED)
    assert source.ignored == 1


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    fill(tmp_path, contents("album.jpg/1.png", "album.jpg/notes.txt"))
    source = open_source(tmp_path, "none")
    assert list(source.filenames) == [b"album.jpg/1.png"]
    assert source.ignored == 1


def test_empty_folders_and_empty_files_do_no_harm(tmp_path):
    (tmp_path / "empty" / "within").mkdir(parents=True)
    fill(tmp_path, {"nothing.jpg": b"", "something.jpg": b"x"})
    assert_holds(open_source(tmp_path, "none"), {"nothing.jpg": b"", "something.jpg": b"x"})


ODD_NAMES = contents(
    b"caf\xc3\xa9.jpg",
    b"caf\xe9.jpg",
    b"\xff\xfe/\x80.png",
    b"two\nlines.jpg",
    b"new\n/line.jpg",
    b"tab\tand space .jpg",
    b"quote'\".jpg",
    b"percent%20.jpg",
    b"back\\slash.jpg",
    b"star*[1]?.jpg",
    b"\xf0\x9f\x90\x88.jpg",
    b"-dash.jpg",
    b"~home.jpg",
    b"$HOME.jpg",
)


def test_names_may_be_any_bytes_that_a_file_can_have(tmp_path):
    fill(tmp_path, ODD_NAMES)
    assert_holds(open_source(tmp_path, "none"), ODD_NAMES)


@pytest.mark.parametrize("name", [b"caf\xe9", b"new\nline", b"star*[1]?", "mïne".encode(), b"sp ace"])
def test_the_folder_itself_may_be_named_anything(tmp_path, name):
    folder = os.path.join(os.fsencode(tmp_path), name)
    fill(folder, NESTED)
    assert_holds(open_source(os.fsdecode(folder), "none"), NESTED)


def test_links_to_files_and_folders_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", contents("1.jpg", "cats/2.jpg"))
    fill(tmp_path / "photos", contents("3.jpg"))
    (tmp_path / "photos" / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "elsewhere" / "cats")
    source = open_source(tmp_path / "photos", "none")
    assert list(source.filenames) == [b"3.jpg", b"again/2.jpg", b"linked.jpg", b"more/2.jpg"]
    found = dict(read_all(source))
    assert found[b"linked.jpg"] == (tmp_path / "elsewhere" / "1.jpg").read_bytes()
    assert found[b"again/2.jpg"] == found[b"more/2.jpg"] == (tmp_path / "elsewhere" / "cats" / "2.jpg").read_bytes()
    assert source.sizes.tolist() == [len(content) for _, content in read_all(source)]


def test_links_that_go_round_in_a_circle_are_not_followed(tmp_path):
    files = contents("1.jpg", "a/2.jpg", "a/b/3.jpg")
    fill(tmp_path, files)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "here").symlink_to(".")
    (tmp_path / "a" / "b" / "parent").symlink_to("..")
    assert_holds(open_source(tmp_path, "none"), files)


def test_a_dangling_link_is_listed_and_fails_when_it_is_read(tmp_path):
    fill(tmp_path, contents("1.jpg"))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    source = open_source(tmp_path, "none")
    assert list(source.filenames) == [b"1.jpg", b"gone.jpg"]
    assert source.sizes.tolist()[1] == 0
    assert source.ignored == 1
    read = source.reader()
    assert read(tf.constant(0))["encoded"] == (tmp_path / "1.jpg").read_bytes()
    with pytest.raises(tf.errors.NotFoundError, match=r"gone\.jpg"):
        read(tf.constant(1))


def test_a_link_to_itself_is_one_bad_image_and_not_the_end(tmp_path):
    fill(tmp_path, contents("1.jpg"))
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "tick.jpg").symlink_to("tock.jpg")
    (tmp_path / "tock.jpg").symlink_to("tick.jpg")
    source = open_source(tmp_path, "none")
    assert list(source.filenames) == [b"1.jpg", b"self.jpg", b"tick.jpg", b"tock.jpg"]
    with pytest.raises(tf.errors.OpError, match=r"self\.jpg"):
        source.reader()(tf.constant(1))


@pytest.mark.parametrize("pattern", ["", "*.jpg", "**"])
def test_pipes_and_sockets_are_no_images_whatever_they_are_called(tmp_path, pattern):
    fill(tmp_path, contents("1.jpg"))
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        source = open_source(tmp_path / pattern, "none")
    assert list(source.filenames) == [b"1.jpg"]


def test_a_file_that_vanishes_after_listing_fails_alone(tmp_path):
    fill(tmp_path, contents("1.jpg", "2.jpg", "3.jpg"))
    source = open_source(tmp_path, "none")
    (tmp_path / "2.jpg").unlink()
    read = source.reader()
    dataset = tf.data.Dataset.range(3).map(read, 2, deterministic=True).ignore_errors()
    assert [element["filename"] for element in dataset.as_numpy_iterator()] == [b"1.jpg", b"3.jpg"]
    with pytest.raises(tf.errors.NotFoundError, match=r"2\.jpg"):
        read(tf.constant(1))


def test_the_reader_gives_each_position_its_own_name_and_bytes_in_any_order(tmp_path):
    files = contents(*(f"{folder}/{i}.jpg" for folder in "abc" for i in range(30)))
    fill(tmp_path, files)
    source = open_source(tmp_path, "none")
    order = np.random.default_rng(0).permutation(len(files))
    dataset = tf.data.Dataset.from_tensor_slices(order).map(source.reader(), 2, deterministic=True)
    for position, element in zip(order, dataset.as_numpy_iterator(), strict=True):
        assert element["filename"] == source.filenames[position]
        assert element["encoded"] == files[element["filename"].decode()]


def test_the_reader_works_from_another_folder_only_where_the_path_is_whole(tmp_path, monkeypatch):
    fill(tmp_path / "photos", NESTED)
    source = open_source(str(tmp_path / "photos"), "none")
    monkeypatch.chdir("/")
    assert_holds(source, NESTED)


# Globs.


def test_what_a_glob_is():
    assert all(is_glob(path) for path in ("*.jpg", "a/**", "a?.png", "[ab].gif", "gs://bucket/*/x.jpg"))
    assert not any(is_glob(path) for path in ("photos/", "a.jpg", "ram://x", ""))


GLOBS = {
    # pattern below the folder: the fixed prefix, and what is matched
    "*.jpg": ("", ["z.jpg"]),
    "*/*.jpg": ("", ["B/1.jpg", "a/1.jpg", "a/b.jpg", "b/1.jpg", "b/10.jpg", "b/2.jpg"]),
    "b/*.jpg": ("b/", ["1.jpg", "10.jpg", "2.jpg"]),
    "b/1*.jpg": ("b/", ["1.jpg", "10.jpg"]),
    "b/?.jpg": ("b/", ["1.jpg", "2.jpg"]),
    "b*/*": ("", ["b-c/1.gif", "b/1.jpg", "b/10.jpg", "b/2.jpg"]),
    "[aB]/1.jpg": ("", ["B/1.jpg", "a/1.jpg"]),
    "a/b/*/deep.png": ("a/b/", ["c/deep.png"]),
    "a/**/*.png": ("a/", ["b/c/deep.png"]),
    "a/**": ("a/", ["1.jpg", "b.jpg", "b/c/deep.png"]),
    "**/1.*": ("", ["B/1.jpg", "a/1.jpg", "b-c/1.gif", "b/1.jpg"]),
    "**/*.jpg": ("", ["B/1.jpg", "a/1.jpg", "a/b.jpg", "b/1.jpg", "b/10.jpg", "b/2.jpg", "z.jpg"]),
    "**/**/1.jpg": ("", ["B/1.jpg", "a/1.jpg", "b/1.jpg"]),
    "z.jpg": ("", ["z.jpg"]),
    "a/1.jpg": ("a/", ["1.jpg"]),
}


@pytest.mark.parametrize("pattern", GLOBS)
@pytest.mark.parametrize("where", ["whole", "relative"])
def test_names_of_a_glob_are_below_its_fixed_prefix(tmp_path, monkeypatch, pattern, where):
    fill(tmp_path, NESTED)
    monkeypatch.chdir(tmp_path)
    prefix, names = GLOBS[pattern]
    source = open_source(str(tmp_path / pattern) if where == "whole" else pattern, "none")
    assert_holds(source, {name: NESTED[prefix + name] for name in names})


def test_a_glob_has_the_same_suffix_rule_and_counts(tmp_path):
    fill(tmp_path, contents("1.JPG", "2.png", "notes.txt", "d/3.jpg", "d/x.csv"))
    source = open_source(str(tmp_path / "**"), "none")
    assert list(source.filenames) == [b"1.JPG", b"2.png", b"d/3.jpg"]
    assert source.ignored == 2


def test_names_that_a_glob_finds_may_be_any_bytes(tmp_path):
    fill(tmp_path, ODD_NAMES)
    assert_holds(open_source(str(tmp_path / "**"), "none"), ODD_NAMES)


def test_a_glob_may_itself_hold_bytes_that_are_not_utf8(tmp_path):
    files = contents(b"caf\xe9/1.jpg", b"caf\xe9/2.jpg", b"tea/3.jpg")
    fill(tmp_path, files)
    pattern = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9/*.jpg"))
    assert_holds(open_source(pattern, "none"), {name[5:]: files[name] for name in (b"caf\xe9/1.jpg", b"caf\xe9/2.jpg")})


def test_a_glob_lists_dangling_links_too(tmp_path):
    fill(tmp_path, contents("1.jpg"))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = open_source(str(tmp_path / "*.jpg"), "none")
    assert list(source.filenames) == [b"1.jpg", b"gone.jpg"]
    assert source.sizes.tolist()[1] == 0


def test_a_glob_finds_an_image_once_though_links_go_round_in_a_circle(tmp_path):
    files = contents("a/1.jpg", "a/b/2.jpg")
    fill(tmp_path, files)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    assert_holds(open_source(str(tmp_path / "**" / "*.jpg"), "none"), files)


@pytest.mark.parametrize("name", ["photo[1].jpg", "what?.jpg", "star*.jpg"])
def test_a_file_that_is_there_is_that_file_though_its_name_looks_like_a_glob(tmp_path, name):
    files = contents(name)
    fill(tmp_path, files)
    assert_holds(open_source(str(tmp_path / name), "none"), files)


# Truths.


def test_the_first_folder_is_the_truth(tmp_path):
    fill(tmp_path, contents("cat/1.jpg", "cat/old/2.jpg", "dög/cat/3.jpg", b"b\xffd/4.jpg", "loose.jpg", "notes.txt"))
    source = open_source(tmp_path, "folder")
    assert dict(zip(source.filenames, source.truths, strict=True)) == {
        b"cat/1.jpg": b"cat",
        b"cat/old/2.jpg": b"cat",
        "dög/cat/3.jpg".encode(): "dög".encode(),
        b"b\xffd/4.jpg": b"b\xffd",
        b"loose.jpg": b"",
    }


def test_the_truths_of_a_glob_are_the_first_folders_below_its_prefix(tmp_path):
    fill(tmp_path, contents("set/cat/1.jpg", "set/dog/new/2.jpg", "set/3.jpg"))
    for pattern in ("set/**", "set/**/*.jpg"):
        source = open_source(str(tmp_path / pattern), "folder")
        assert list(source.filenames) == [b"3.jpg", b"cat/1.jpg", b"dog/new/2.jpg"]
        assert list(source.truths) == [b"", b"cat", b"dog"]


def test_no_truths_are_told_unless_asked_for(tmp_path):
    fill(tmp_path, contents("cat/1.jpg"))
    assert open_source(tmp_path, "none").truths is None


# Elsewhere than on the local disk.


# No name begins with that of a folder beside it: TensorFlow's ram:// would list the rest of it as one more file.
REMOTE = contents("z.jpg", "cat/1.jpg", "cat/old/deep.PNG", "Dog/10.jpg", "Dog/2.jpg", "Dog/käse .gif")


@pytest.fixture(scope="module")
def remote():
    root = "ram://tfzip_sources/photos"
    for name, content in (REMOTE | {"cat/notes.txt": b"no image"}).items():
        tf.io.gfile.makedirs(os.path.dirname(f"{root}/{name}"))
        with tf.io.gfile.GFile(f"{root}/{name}", "wb") as file:
            file.write(content)
    return root


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_elsewhere_is_listed_and_read_alike(remote, slash):
    source = open_source(remote + slash, "none")
    assert_holds(source, REMOTE)
    assert source.ignored == 1


def test_a_glob_elsewhere_is_listed_and_read_alike(remote):
    source = open_source(f"{remote}/Dog/*.jpg", "none")
    assert_holds(source, {name: REMOTE[f"Dog/{name}"] for name in ("10.jpg", "2.jpg")})


def test_truths_elsewhere_are_the_first_folders(remote):
    source = open_source(remote, "folder")
    assert dict(zip(source.filenames, source.truths, strict=True)) == {
        name.encode(): (name.split("/")[0] if "/" in name else "").encode() for name in REMOTE
    }


@pytest.mark.parametrize("path", ["ram://nowhere", "ram://nowhere/*.jpg", "ram://nowhere/1.jpg"])
def test_nothing_elsewhere_is_told_by_its_path(path):
    with pytest.raises(SourceError) as caught:
        open_source(path, "none")
    assert path in str(caught.value)


# What is refused.


def nothing(_root):
    pass


def only_notes(root):
    fill(root, contents("photos/notes.txt", "photos/more/x.csv", "photos/.DS_Store"))


def empty(root):
    (root / "photos").mkdir()


def images(root):
    fill(root, contents("photos/1.jpg", "photos/2.png"))


ERRORS = [
    # what is there, what is asked for, labels, the error, what the message says
    (nothing, "photos", "none", SourceError, ["photos", "no such"]),
    (nothing, "photos/", "none", SourceError, ["photos", "no such"]),
    (nothing, "photos/1.jpg", "none", SourceError, ["photos/1.jpg", "no such"]),
    (images, "photo", "none", SourceError, ["photo", "no such"]),
    (empty, "photos", "none", SourceError, ["photos", "no images", "empty"]),
    (only_notes, "photos", "none", SourceError, ["photos", "no images", "3 files", ".jpg"]),
    (images, "photos/*.gif", "none", SourceError, ["photos/*.gif", "no images"]),
    (images, "photo/*.jpg", "none", SourceError, ["photo/*.jpg", "no images"]),
    (
        only_notes,
        "photos/**",
        "none",
        SourceError,
        ["photos/**", "no images", "2 files"],
    ),  # globs leave hidden files out
    (images, "photos", "folder", UsageError, ["photos", "--source-labels folder"]),
    (images, "photos/*", "folder", UsageError, ["photos/*", "--source-labels folder"]),
]


@pytest.mark.parametrize(("make", "asked", "labels", "error", "words"), ERRORS)
def test_a_source_without_images_is_told_by_its_path_and_why(tmp_path, make, asked, labels, error, words):
    make(tmp_path)
    with pytest.raises(error) as caught:
        open_source(f"{tmp_path}/{asked}", labels)
    for word in (*words, str(tmp_path)):
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_glob_that_matches_nothing_is_not_called_an_empty_folder(tmp_path):
    images(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / "photos" / "*.gif"), "none")
    assert "it is empty" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told_by_its_path(tmp_path):
    images(tmp_path)
    locked = tmp_path / "photos" / "locked"
    locked.mkdir(mode=0)
    with pytest.raises(SourceError, match=r"locked.*[Pp]ermission"):
        open_source(tmp_path, "none")


def test_a_source_may_be_a_pathlib_path(tmp_path):
    fill(tmp_path, NESTED)
    assert_holds(open_source(pathlib.Path(tmp_path), "none"), NESTED)
    assert_holds(open_source(tmp_path / "b" / "*.jpg", "none"), {n[2:]: NESTED[n] for n in NESTED if n[:2] == "b/"})
