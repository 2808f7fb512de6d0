import gzip
import os
import uuid

import pytest

from tfzip import storage
from tfzip.errors import UsageError


@pytest.fixture(params=["local", "ram"])
def folder(request, tmp_path):
    path = str(tmp_path / "folder") if request.param == "local" else f"ram://test-storage-{uuid.uuid4().hex}/folder"
    storage.makedirs(path)
    return path


def put(path, data=b"data"):
    with storage.open(path, "wb") as file:
        file.write(data)
    return path


def get(path):
    with storage.open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("photos", True),
        ("/photos/a.jpg", True),
        ("", True),
        ("C:/photos", True),
        ("a:b//c", True),
        ("folder/ram://x", True),
        ("ram://photos", False),
        ("gs://bucket/photos", False),
        ("s3://bucket", False),
        ("hdfs://host:1/x", False),
        ("git+ssh://host", False),
    ],
)
def test_a_path_with_a_scheme_is_remote_and_any_other_local(path, local):
    assert storage.is_local(path) is local


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("a", "b", "a/b"),
        ("a/", "b", "a/b"),
        ("/", "b", "/b"),
        ("ram://a", "b/c", "ram://a/b/c"),
        ("ram://", "a", "ram://a"),
    ],
)
def test_a_folder_and_a_name_make_a_path(folder, name, path):
    assert storage.join(folder, name) == path


@pytest.mark.parametrize("data", [b"", b"data", b"\0\r\n\xff" * 300_000])
def test_bytes_are_read_as_written(folder, data):
    path = put(storage.join(folder, "file"), data)

    assert get(path) == data


def test_any_part_of_a_file_can_be_read(folder):
    path = put(storage.join(folder, "file"), bytes(range(256)))

    with storage.open(path, "rb") as file:
        file.seek(100)
        assert file.read(3) == bytes([100, 101, 102])
        assert file.read() == bytes(range(103, 256))
        assert file.read(1) == b""


def test_text_is_utf_8_with_line_ends_kept(folder):
    path = storage.join(folder, "file.txt")
    with storage.open(path, "w") as file:
        file.write("größe\r\n日本\n🐈\r")

    assert get(path) == "größe\r\n日本\n🐈\r".encode()
    with storage.open(path, "r") as file:
        assert file.read() == "größe\r\n日本\n🐈\r"


def test_writing_a_local_file_again_replaces_it(tmp_path):
    path = put(str(tmp_path / "file"), b"a long text")

    assert get(put(path, b"short")) == b"short"


def test_a_removed_file_can_be_written_anew(folder):
    path = put(storage.join(folder, "file"), b"a long text")
    storage.remove([path])

    assert get(put(path, b"short")) == b"short"


def test_a_missing_file_cannot_be_read(folder):
    with pytest.raises(FileNotFoundError), storage.open(storage.join(folder, "none"), "rb") as file:
        file.read()


def test_files_and_folders_exist_and_others_do_not(folder):
    path = put(storage.join(folder, "file"))

    assert storage.exists(path)
    assert storage.exists(folder)
    assert not storage.exists(path + "2")
    assert not storage.exists(storage.join(folder, "none/file"))


def test_a_folder_is_one_and_a_file_is_none(folder):
    path = put(storage.join(folder, "file"))

    assert storage.isdir(folder)
    assert not storage.isdir(path)
    assert not storage.isdir(storage.join(folder, "none"))


def test_a_folder_lists_its_names_sorted(folder):
    storage.makedirs(storage.join(folder, "sub/deeper"))
    for name in ("b", "a.txt", "C", "größe", "sub/inner"):
        put(storage.join(folder, name))

    assert storage.listdir(folder) == ["C", "a.txt", "b", "größe", "sub"]
    assert storage.listdir(storage.join(folder, "sub")) == ["deeper", "inner"]
    assert storage.listdir(storage.join(folder, "sub/deeper")) == []


def test_what_is_no_folder_lists_nothing(folder):
    path = put(storage.join(folder, "file"))

    assert storage.listdir(path) == []
    assert storage.listdir(storage.join(folder, "none")) == []


def test_a_folder_is_made_with_those_above_it_and_may_be_there_already(folder):
    path = storage.join(folder, "a/b/c")
    storage.makedirs(path)
    put(storage.join(path, "file"))
    storage.makedirs(path)

    assert storage.isdir(storage.join(folder, "a/b"))
    assert storage.listdir(path) == ["file"]


def test_a_file_moves_and_replaces_another(folder):
    source, target = put(storage.join(folder, "source"), b"new"), put(storage.join(folder, "target"), b"old")

    storage.rename(source, target)

    assert get(target) == b"new"
    assert storage.listdir(folder) == ["target"]


def test_a_file_moves_to_another_folder(folder):
    storage.makedirs(storage.join(folder, "sub"))
    target = storage.join(folder, "sub/target")

    storage.rename(put(storage.join(folder, "source")), target)

    assert get(target) == b"data"
    assert storage.listdir(folder) == ["sub"]


def test_files_and_whole_folders_are_removed_and_missing_ones_do_not_matter(folder):
    storage.makedirs(storage.join(folder, "tree/deeper"))
    paths = [put(storage.join(folder, name)) for name in ("file", "tree/one", "tree/deeper/two", "stays")]

    storage.remove([paths[0], storage.join(folder, "none"), storage.join(folder, "tree")])

    assert storage.listdir(folder) == ["stays"]
    assert not storage.exists(paths[1])
    assert not storage.exists(paths[2])
    storage.remove([])


def test_a_file_is_copied_from_the_disk(folder, tmp_path):
    data = os.urandom(3_000_000)
    source, path = tmp_path / "source", storage.join(folder, "copy")
    source.write_bytes(data)

    storage.copy_from_local(str(source), path)

    assert get(path) == data
    assert source.read_bytes() == data


def test_a_file_is_had_on_the_disk_as_long_as_it_is_needed(folder):
    data = os.urandom(3_000_000)
    path = put(storage.join(folder, "images.zip"), data)

    local = storage.Local(path)

    with open(local.path, "rb") as file:
        assert file.read() == data
    assert local.path.endswith("images.zip")
    assert (local.path == path) == storage.is_local(path)
    there = local.path
    del local
    assert os.path.exists(there) == storage.is_local(path)
    assert get(path) == data


def test_a_file_is_read_by_what_reads_files(folder):
    path, data = storage.join(folder, "file.gz"), os.urandom(100_000)
    with storage.open(path, "wb") as raw, gzip.open(raw, "wb") as file:
        file.write(data)

    with storage.open(path, "rb") as raw, gzip.open(raw, "rb") as file:
        assert file.read(77) == data[:77]
        assert file.read() == data[77:]
    with storage.open(path, "rb") as raw:
        assert (raw.readable(), raw.writable(), raw.seekable()) == (True, False, True)
        raw.seek(-8, os.SEEK_END)
        end = raw.tell()
        assert len(raw.read()) == 8
        assert raw.tell() == end + 8


def test_text_is_read_line_by_line(folder):
    put(storage.join(folder, "file.txt"), "größe\r\n日本\n".encode())

    with storage.open(storage.join(folder, "file.txt"), "r") as file:
        assert list(file) == ["größe\r\n", "日本\n"]


def test_what_a_file_system_raises_is_an_os_error_that_names_the_path(folder):
    storage.makedirs(storage.join(folder, "sub"))

    for path, mode in (("none", "rb"), ("sub", "rb"), ("sub", "wb")):
        with pytest.raises(OSError) as caught, storage.open(storage.join(folder, path), mode) as file:  # noqa: PT011
            file.read() if mode == "rb" else file.write(b"x")
        assert caught.value.filename == storage.join(folder, path)
        assert caught.value.strerror
        assert "\n" not in caught.value.strerror


@pytest.mark.parametrize("use", [storage.exists, storage.makedirs, storage.glob, storage.status])
def test_a_file_system_that_tensorflow_lacks_is_told_by_its_path(use):
    with pytest.raises(UsageError, match=r"^nowhere://a/b: TensorFlow reaches no nowhere://"):
        use("nowhere://a/b")


def test_removing_a_link_leaves_what_it_leads_to(tmp_path):
    put(str(tmp_path / "file"))
    (tmp_path / "folder").mkdir()
    put(str(tmp_path / "folder/inner"))
    for name, target in (("to_file", "file"), ("to_folder", "folder"), ("to_nothing", "none")):
        (tmp_path / name).symlink_to(target)

    storage.remove(str(tmp_path / name) for name in ("to_file", "to_folder", "to_nothing"))

    assert storage.listdir(str(tmp_path)) == ["file", "folder"]
    assert storage.listdir(str(tmp_path / "folder")) == ["inner"]


def test_a_link_that_leads_nowhere_exists(tmp_path):
    (tmp_path / "link").symlink_to("none")

    assert storage.exists(str(tmp_path / "link"))
