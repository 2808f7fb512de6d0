"""Sources that break off, odd names in them, and calls that are wrong: told in a line or two, and never lost."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import peaks
import pytest
import tensorflow as tf
from sources_made import example, ints, pictures_of, texts, write_tar, write_tfrecord

import tfzip
from tfzip.errors import BrokenSourceError, SourceError, UsageError
from tfzip.options import Options
from tfzip.sources import open_source


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few"), 12)


@pytest.fixture
def export(digits_model, tmp_path):
    """Exports with the digits' model into a folder that must not be there after an error."""

    def run(source, **options):
        return tfzip.export(source, digits_model, str(tmp_path / "out"), quiet=True, **options)

    return run


def failed(export, source, words, error=BrokenSourceError, **options):
    """The error that an export ends with; it must say these words, in two lines at most."""
    with pytest.raises(error) as caught:
        export(source, **options)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert len(message.splitlines()) <= 2
    return caught.value


def assert_nothing_left(tmp_path):
    assert not (tmp_path / "out").exists()


def pairs_of(few):
    return list(zip(few.names, few.encoded, strict=True))


# Sources that die half way.


@pytest.mark.parametrize("items", [1, 5, 63, 64, 65, 200])
def test_what_a_generator_raises_ends_the_export_with_its_error(few, export, tmp_path, items):
    def broken():
        for number in range(items):
            yield f"{number}.png", few.encoded[0]
        raise ConnectionError("the camera is gone")

    error = failed(export, broken(), ["the iterable", "ConnectionError", "the camera is gone"], batch_size=8)
    assert isinstance(error.__cause__, ConnectionError)
    assert_nothing_left(tmp_path)


def test_what_a_generator_raises_before_its_first_item_is_its_error_too(export, tmp_path):
    def broken():
        raise ConnectionError("the camera is gone")
        yield

    error = failed(export, broken(), ["the iterable", "ConnectionError", "the camera is gone"])
    assert isinstance(error.__cause__, ConnectionError)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("items", [0, 5, 11])
def test_a_dataset_that_raises_ends_the_export_with_its_error(few, export, tmp_path, items):
    def fragile(name, image):
        with tf.control_dependencies([tf.debugging.Assert(name != few.names[items], ["spilled coffee"])]):
            return {"filename": name, "image": image}

    dataset = tf.data.Dataset.from_tensor_slices((few.names, few.encoded)).map(fragile)
    failed(export, dataset, ["the dataset", "spilled coffee"], batch_size=2)
    assert_nothing_left(tmp_path)


def test_a_sequence_that_gives_fewer_items_than_its_length_is_broken(few, export, tmp_path):
    class Short(list):
        def __len__(self):
            return super().__len__() + 1

    failed(export, Short(pairs_of(few)), ["the iterable", "12 of its 13"])
    assert_nothing_left(tmp_path)


def records_of(few):
    return [example(image__encoded=texts(content), number=ints(i)) for i, content in enumerate(few.encoded)]


def damaged(path, change):
    path.write_bytes(change(path.read_bytes()))


def frame_places(records):
    """Where a file may be cut in its last record: inside the length, its CRC, the data, the data's CRC."""
    last = sum(16 + len(record) for record in records[:-1])
    return {"length": last + 3, "length's CRC": last + 10, "data": last + 40, "CRC": last + 16 + len(records[-1]) - 2}


@pytest.mark.parametrize("place", ["length", "length's CRC", "data", "CRC"])
@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("options", [{}, {"shuffle": 1}], ids=str)
def test_a_tfrecord_that_is_cut_inside_a_record_is_broken(few, export, tmp_path, place, compression, options):
    records = records_of(few)
    path = tmp_path / "old.tfrecord"
    write_tfrecord(path, records)
    cut = path.read_bytes()[: frame_places(records)[place]]
    path.write_bytes(gzip.compress(cut) if compression else cut)
    failed(export, f"tfrecord:{path}", [str(path), "damaged or cut short"], **options)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("left", [5, 11, 300, -1, -4, -9])
def test_a_compressed_tfrecord_that_is_cut_is_broken(few, export, tmp_path, left):
    source = write_tfrecord(tmp_path / "old.tfrecord", records_of(few), "GZIP")
    damaged(tmp_path / "old.tfrecord", lambda content: content[:left])
    failed(export, source, ["old.tfrecord", "damaged or cut short"])
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("record", [0, 6, 11])
@pytest.mark.parametrize("options", [{}, {"shuffle": 1}], ids=str)
def test_a_flipped_bit_of_a_record_is_never_passed_on(few, export, tmp_path, record, options):
    records = records_of(few)
    source = write_tfrecord(tmp_path / "old.tfrecord", records)
    place = sum(16 + len(earlier) for earlier in records[:record]) + 12 + 30
    damaged(tmp_path / "old.tfrecord", lambda c: c[:place] + bytes([c[place] ^ 1]) + c[place + 1 :])
    with pytest.raises(BrokenSourceError):
        export(source, **options)
    assert_nothing_left(tmp_path)


def tar_of(few, path):
    files = [(name, content * 40) for name, content in pairs_of(few)]
    return write_tar(path, files, "w:gz" if path.suffix == ".gz" else "w")


def header_of(path, member):
    with tarfile.open(path) as tar:
        return tar.getmembers()[member].offset


@pytest.mark.parametrize("where", ["in a header", "in a member", "before a header", "in the end mark", "at the start"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_that_is_cut_is_broken(few, export, tmp_path, where, suffix):
    plain = tar_of(few, tmp_path / "whole.tar")
    header = header_of(plain, 7)
    end = header_of(plain, 11) + 512 + -(-len(few.encoded[11] * 40) // 512) * 512
    places = {"in a header": header + 100, "in a member": header + 600, "before a header": header}
    places |= {"in the end mark": end + 100, "at the start": 100}
    cut = (tmp_path / "whole.tar").read_bytes()[: places[where]]
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(gzip.compress(cut) if suffix == ".tar.gz" else cut)
    failed(export, str(path), [str(path), "damaged or cut short"])
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, 0.999])
def test_a_compressed_tar_that_is_cut_is_broken(few, export, tmp_path, left):
    path = tmp_path / "cut.tar.gz"
    tar_of(few, path)
    damaged(path, lambda content: content[: int(left * len(content))])
    failed(export, str(path), [str(path), "damaged or cut short"])
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("member", [0, 7, 11])
@pytest.mark.parametrize("junk", [b"x" * 512, b"\xff" * 512, b"\0" * 148 + b"7" * 364])
def test_a_tar_with_a_damaged_header_is_broken(few, export, tmp_path, suffix, member, junk):
    header = header_of(tar_of(few, tmp_path / "whole.tar"), member)
    whole = (tmp_path / "whole.tar").read_bytes()
    bad = whole[:header] + junk + whole[header + 512 :]
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(gzip.compress(bad) if suffix == ".tar.gz" else bad)
    failed(export, str(path), [str(path), "damaged or cut short"])
    assert_nothing_left(tmp_path)


def zip_of(few, path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in pairs_of(few):
            archive.writestr(name, content)
    return str(path)


@pytest.mark.parametrize("left", [0, 10, 0.5, 0.99, -1])
def test_a_zip_that_is_cut_is_broken(few, export, tmp_path, left):
    path = tmp_path / "cut.zip"
    zip_of(few, path)
    damaged(path, lambda content: content[: int(left * len(content)) if isinstance(left, float) else left])
    failed(export, str(path), [str(path), "damaged or cut short"])
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_fails_alone(few, export, tmp_path, compression):
    path = zip_of(few, tmp_path / "bad.zip", compression)
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[5]
    place = info.header_offset + 30 + len(info.filename) + 30
    damaged(tmp_path / "bad.zip", lambda c: c[:place] + bytes([c[place] ^ 0x55]) + c[place + 1 :])
    made = export(path)
    assert [failure.filename for failure in made.failures] == [few.names[5]]
    assert {record.filename for record in made[:]} == set(few.names) - {few.names[5]}


# Names.


ODD = ["../climbs.png", "/abs/olute.png", "./here.png", "a/../b.png", "café/猫.png", "C:\\windows.png", "a b\n.png"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_names_in_archives_are_data_and_not_paths(few, export, tmp_path, suffix):
    files = list(zip(ODD, few.encoded, strict=False))
    path = tmp_path / "in" / f"odd{suffix}"
    path.parent.mkdir()
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files:
                archive.writestr(name, content)
    else:
        write_tar(path, files, "w:gz" if suffix == ".tar.gz" else "w")
    made = export(str(path))
    expected = [(name.removeprefix("./"), content) for name, content in files]
    assert [(record.filename, record.encoded) for record in made[:]] == expected
    assert tfzip.verify(made) == []
    written = {path.name for path in tmp_path.rglob("*") if path.suffix == ".png"}
    assert written == set()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_names_in_tars_may_be_any_bytes_and_very_long(few, export, tmp_path, suffix):
    names = [b"caf\xe9.png".decode("utf-8", "surrogateescape"), "x/" * 150 + "long.png", "y" * 250 + ".png"]
    path = tmp_path / f"odd{suffix}"
    with tarfile.open(path, "w:gz" if suffix == ".tar.gz" else "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in zip(names, few.encoded, strict=False):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    records = export(str(path))[:]
    assert [(r.filename, r.encoded) for r in records] == list(zip(names, few.encoded, strict=False))


def twice(few):
    """Four images; the last has the name of the second."""
    return [*pairs_of(few)[:3], (few.names[1], few.encoded[5])]


def zip_twice(path, pairs):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in pairs[:-1]:
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(*pairs[-1])
    return str(path)


def table_twice(few, suffix):
    """Tables of four images, with an empty line before the last, which is written in another way than the second."""
    lines = [name for name, _ in twice(few)]
    lines[3] = f"./nowhere/../{lines[3]}"
    if suffix == "csv":
        lines = ["file,note", f'{lines[0]},"two\nlines"', *(f"{name},x" for name in lines[1:])]
    if suffix == "jsonl":
        lines = [json.dumps({"file": name}) for name in lines]
    path = few.folder / f"twice.{suffix}"
    path.write_text("\n".join([*lines[:-1], "", lines[-1]]))
    return str(path)


PLACES = {
    # how it is made, what is said of the first place, and of the other
    "tar": (lambda few, path: write_tar(path / "x.tar", twice(few)), "x.tar at byte {}", "x.tar at byte {}"),
    "tar.gz": (lambda few, path: write_tar(path / "x.tgz", twice(few), "w:gz"), "x.tgz at byte {}", "x.tgz at byte {}"),
    "zip": (lambda few, path: zip_twice(path / "x.zip", twice(few)), "x.zip at byte {}", "x.zip at byte {}"),
    "txt": (lambda few, _: table_twice(few, "txt"), "lines 2", " and 5 both name"),
    "csv": (lambda few, _: table_twice(few, "csv"), "lines 4", " and 7 both name"),
    "jsonl": (lambda few, _: table_twice(few, "jsonl"), "lines 2", " and 5 both name"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_filename_that_a_listing_has_twice_is_an_error_that_names_both_places(few, export, tmp_path, kind):
    make, first, other = PLACES[kind]
    source = make(few, tmp_path)
    if "byte" in first:
        data = (tmp_path / "x.tgz" if kind == "tar.gz" else tmp_path / f"x.{kind}").read_bytes()
        data = gzip.decompress(data) if kind == "tar.gz" else data
        first, other = first.format(data.index(few.encoded[1])), other.format(data.index(few.encoded[5]))
    failed(export, source, [f"{first} and ", other, few.names[1], "filenames are keys"], SourceError)
    assert_nothing_left(tmp_path)


def test_a_filename_that_two_archives_have_is_an_error_that_names_both(few, export, tmp_path):
    for number in (1, 2):
        write_tar(tmp_path / f"part-{number}.tar", pairs_of(few)[number : number + 2])
    words = [f"{tmp_path}/part-1.tar at byte ", f" and {tmp_path}/part-2.tar at byte 512", few.names[2]]
    failed(export, f"{tmp_path}/part-*.tar", words, SourceError)


def test_a_member_that_cannot_be_read_has_its_name_all_the_same(few, export, tmp_path):
    path = write_tar(tmp_path / "x.tar", pairs_of(few)[:2])
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(few.names[1])
        info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(info)
    failed(export, path, [few.names[1], "x.tar at byte 1536"], SourceError)


@pytest.mark.parametrize(
    ("compression", "options"), [("", {}), ("", {"shuffle": 1}), ("", {"batch_size": 1}), ("GZIP", {"batch_size": 3})]
)
def test_a_record_of_a_name_that_came_before_fails_and_names_both(few, export, tmp_path, compression, options):
    records = [example(image__encoded=texts(c), image__filename=texts(n.encode())) for n, c in twice(few)]
    for number, part in enumerate((records[:2], records[2:])):
        write_tfrecord(tmp_path / f"old-{number}", part, compression)
    made = export(f"tfrecord:{tmp_path}/old-*", **options)
    (failure,) = made.failures
    assert (failure.filename, failure.stage) == (few.names[1], "read")
    places = [f"record 1 of {tmp_path}/old-1", f"record 1 of {tmp_path}/old-0"]
    assert failure.error == " has the name of ".join(places) or "shuffle" in options
    assert all(place in failure.error for place in places)
    assert made.manifest["counts"] == {"images": 4, "records": 3, "failures": 1, "ignored": 0, "nonfinite": 0}
    assert tfzip.verify(made) == []


@pytest.mark.parametrize("batch", [1, pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("kind", ["pairs", "generator", "dataset", "skipping"])
def test_an_item_of_a_name_that_came_before_fails_and_names_both(few, export, digits_model, tmp_path, kind, batch):
    pairs, options = [*twice(few), *pairs_of(few)[3:], pairs_of(few)[2]], {}
    names, images = zip(*pairs, strict=True)
    sources = {"pairs": pairs, "generator": iter(pairs), "skipping": pairs}
    sources["dataset"] = tf.data.Dataset.from_tensor_slices({"filename": list(names), "image": list(images)})
    if kind == "skipping":
        tfzip.export(pairs[:1], digits_model, str(tmp_path / "earlier"), quiet=True)
        options = {"skip_in": str(tmp_path / "earlier")}
    made = export(sources[kind], batch_size=batch, **options)
    kept = [(record.filename, record.encoded) for record in made[:]]
    assert kept == pairs_of(few)[1 if kind == "skipping" else 0 :]
    places = [(2, 0), (12, 1)] if kind == "skipping" else [(3, 1), (13, 2)]
    left = " of those left" if kind == "skipping" else ""
    assert made.failures == [
        (names[name], "read", f"item {here}{left} has the name of item {first}{left}")
        for name, (here, first) in zip((1, 2), places, strict=True)
    ]
    assert tfzip.verify(made) == []


def test_files_that_a_list_names_but_that_are_not_there_fail_when_read(few, export):
    path = few.folder / "some gone.txt"
    path.write_text("\n".join([few.names[0], "gone.png", few.names[1], few.names[0].partition("/")[0]]))
    made = export(str(path))
    assert [record.filename for record in made[:]] == few.names[:2]
    assert [(f.filename, f.stage) for f in made.failures] == [
        ("gone.png", "read"),
        (few.names[0].partition("/")[0], "read"),  # a folder
    ]
    assert "gone.png" in made.failures[0].error


LISTS = {
    "windows": lambda names: b"\xef\xbb\xbf" + "\r\n".join([*names, ""]).encode(),
    "empty lines": lambda names: ("\n\n" + "\n\n".join(names) + "\n\n").encode(),
    "no last newline": lambda names: "\n".join(names).encode(),
    "dots": lambda names: "\n".join(f"./{name}" for name in names).encode(),
    "detours": lambda names: "\n".join(f"nowhere/../{name}" for name in names).encode(),
}


@pytest.mark.parametrize("form", LISTS)
def test_lists_are_read_however_they_are_written(few, form):
    path = few.folder / "list.txt"
    path.write_bytes(LISTS[form](few.names))
    assert [name.decode() for name in open_source(str(path), Options()).filenames] == few.names


def test_a_list_may_name_files_that_are_not_utf8(few, export, tmp_path):
    name = b"caf\xe9 \xff.png"
    with open(bytes(tmp_path) + b"/" + name, "wb") as file:
        file.write(few.encoded[3])
    (tmp_path / "list.txt").write_bytes(name + b"\n")
    (record,) = export(str(tmp_path / "list.txt"))[:]
    assert (record.filename.encode("utf-8", "surrogateescape"), record.encoded) == (name, few.encoded[3])


def test_a_list_of_files_outside_its_folder_names_them_below_the_folder_that_all_share(few, export, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(str(few.folder / name) for name in few.names))
    assert [record.filename for record in export(str(path))[:]] == few.names


def test_what_lies_outside_the_root_is_a_failure(few, export, tmp_path):
    (tmp_path / "other.png").write_bytes(few.encoded[0])
    path = tmp_path / "list.txt"
    path.write_text("\n".join([few.names[0], str(tmp_path / "other.png"), "../climbs.png"]))
    made = export(str(path), root=str(few.folder))
    assert [record.filename for record in made[:]] == few.names[:1]
    assert [(f.filename, f.stage) for f in made.failures] == [
        (str(tmp_path / "other.png"), "read"),
        ("../climbs.png", "read"),
    ]
    assert all(f"outside {few.folder}" in failure.error for failure in made.failures)


def test_links_that_lead_out_of_a_tar_fail_and_what_is_no_file_is_none(few, tmp_path):
    path = tmp_path / "links.tar"
    write_tar(path, pairs_of(few)[:2])
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"kind {kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    source = open_source(str(path), Options())
    assert [name.decode() for name in source.filenames] == few.names[:2]
    rejected = {failure.filename: failure.error for failure in source.rejected}
    assert rejected == dict.fromkeys(("kind 1.png", "kind 2.png"), "it is a link to /etc/passwd")


@pytest.mark.parametrize("how", [["--format=gnu"], ["--format=pax"], ["--format=ustar"]], ids=str)
def test_a_file_with_two_names_is_two_images_and_a_sparse_one_fails(few, export, tmp_path, how):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(few.encoded[0])
    (folder / "b.png").hardlink_to(folder / "a.png")
    (folder / "c.png").write_bytes(few.encoded[1])
    sparse = [] if how == ["--format=ustar"] else ["-S"]
    if sparse:
        with (folder / "d.png").open("wb") as file:
            file.write(few.encoded[2])
            file.truncate(1 << 20)
    subprocess.run(["tar", "-cf", tmp_path / "linked.tar", *how, *sparse, "-C", folder, "--sort=name", "."], check=True)
    made = export(str(tmp_path / "linked.tar"))
    expected = {"a.png": few.encoded[0], "b.png": few.encoded[0], "c.png": few.encoded[1]}
    assert {record.filename: record.encoded for record in made[:]} == expected
    assert [failure.filename for failure in made.failures] == (["d.png"] if sparse else [])


def test_what_lies_beside_an_image_is_of_its_own_archive(few, export, tmp_path):
    for suffix, word in (("png", "cat"), ("gif", "dog")):
        write_tar(tmp_path / f"s-{suffix}.tar", [(f"same.{suffix}", few.encoded[0]), ("same.cls", word.encode())])
    made = export(str(tmp_path / "s-*.tar"))
    assert {record.filename: record.truth.text for record in made[:]} == {"same.png": "cat", "same.gif": "dog"}


_PEAK = """
import sys
import keras, tfzip
from peaks import peak

layers = [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Softmax()]
model = keras.Sequential(layers)
print(peak(lambda: tfzip.export(sys.argv[1], model, sys.argv[2], scale="raw", quiet=True))[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_memory_does_not_grow_with_an_archive(few, tmp_path):
    megabytes = []
    for size in (1, 400):
        path = tmp_path / f"{size}.tar"
        write_tar(path, [("video.mp4", bytes(size << 20)), *pairs_of(few)])
        megabytes.append(int(peaks.run(_PEAK, path, tmp_path / f"{size}")[0][0]))
    assert megabytes[1] - megabytes[0] < 100


def test_members_of_a_zip_that_cannot_be_read_fail_and_say_why(few, export, tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.png", few.encoded[0])
        archive.writestr("lzma.png", few.encoded[1], zipfile.ZIP_LZMA)
        archive.writestr("bzip2.png", few.encoded[1], zipfile.ZIP_BZIP2)
        archive.writestr("secret.png", few.encoded[2])
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 8] |= 1  # what the directory says of the last: encrypted
    path.write_bytes(content)
    made = export(str(path))
    assert [record.filename for record in made[:]] == ["good.png"]
    told = {failure.filename: (failure.stage, failure.error) for failure in made.failures}
    assert set(told) == {"lzma.png", "bzip2.png", "secret.png"}
    assert {stage for stage, _ in told.values()} == {"read"}
    assert "14" in told["lzma.png"][1]
    assert "12" in told["bzip2.png"][1]
    assert "encrypted" in told["secret.png"][1]


def test_zip64_members_are_read(few, export, tmp_path):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pairs_of(few):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    records = export(str(path))[:]
    assert [(record.filename, record.encoded) for record in records] == pairs_of(few)


# Bad calls.


TABLES = {
    # file, content, options, error, what is said
    "no rows": ("a.csv", "", {}, SourceError, ["names no images"]),
    "only a heading": ("a.csv", "path,label\n", {}, SourceError, ["names no images"]),
    "an empty list": ("a.txt", "\n\r\n", {}, SourceError, ["names no images"]),
    "no usual column": ("a.csv", "one,two\n1,2\n", {}, UsageError, ["--filename-column", "one, two"]),
    "no such column": ("a.csv", "path\nx\n", {"filename_column": "id"}, UsageError, ["--filename-column 'id'", "path"]),
    "no such label": ("a.csv", "path\nx\n", {"label_column": "id"}, UsageError, ["--label-column 'id'", "path"]),
    "a short row": ("a.csv", "path,label\nx,1\ny\n", {}, SourceError, ["line 3", "1 fields", "2"]),
    "a long row": ("a.csv", "path,label\nx,1,2\n", {}, SourceError, ["line 2", "3 fields", "2"]),
    "two columns alike": ("a.csv", "path,label,path\nx,1,y\n", {}, SourceError, ["one name"]),
    "no filename": ("a.csv", "path,label\nx,1\n,2\n", {}, SourceError, ["line 3", "path"]),
    "a number": ("a.jsonl", '{"path": "x"}\n{"path": 7}\n', {}, SourceError, ["line 2", "path", "7"]),
    "a missing key": ("a.jsonl", '{"path": "x"}\n{"label": 7}\n', {}, SourceError, ["line 2", "path"]),
    "no JSON": ("a.jsonl", '{"path": "x"}\n\n{"path"\n', {}, SourceError, ["line 3"]),
    "no object": ("a.jsonl", '["x"]\n', {}, SourceError, ["line 1"]),
    "a newer kind": ("a.ndjson", "3\n", {}, SourceError, ["line 1"]),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_wrong_table_is_told_by_its_row_or_column(export, tmp_path, table):
    name, content, options, error, words = TABLES[table]
    (tmp_path / name).write_text(content)
    raised = failed(export, str(tmp_path / name), [str(tmp_path / name), *words], error, **options)
    assert type(raised) is error
    assert_nothing_left(tmp_path)


MISPLACED = {
    "folder": ["root", "filename_column", "label_column", "image_key", "filename_key", "truth_key", "source_split"],
    "list.txt": ["filename_column", "label_column", "image_key", "source_labels", "source_split"],
    "table.csv": ["image_key", "filename_key", "truth_key", "source_labels", "source_split"],
    "images.tar": ["root", "filename_column", "image_key", "source_labels"],
    "tfrecord": ["root", "label_column", "source_labels", "source_split"],
    "pairs": ["root", "filename_column", "image_key", "truth_key", "source_labels", "source_split"],
    "array": ["root", "image_key", "source_split"],
}


@pytest.fixture(scope="module")
def placed(few, tmp_path_factory):
    below = tmp_path_factory.mktemp("placed")
    (few.folder / "list.txt").write_text("\n".join(few.names))
    (few.folder / "table.csv").write_text("\n".join(["path", *few.names]))
    return {
        "folder": str(few.folder),
        "list.txt": str(few.folder / "list.txt"),
        "table.csv": str(few.folder / "table.csv"),
        "images.tar": write_tar(below / "images.tar", pairs_of(few)),
        "tfrecord": write_tfrecord(below / "old", records_of(few)),
        "pairs": pairs_of(few),
        "array": np.stack(few.pixels),
    }


@pytest.mark.parametrize(
    ("source", "option"), [(source, option) for source in MISPLACED for option in MISPLACED[source]]
)
def test_an_option_that_says_nothing_of_the_source_is_refused(placed, source, option):
    value = "folder" if option == "source_labels" else "image/encoded" if option == "image_key" else "x"
    with pytest.raises(UsageError) as caught:
        open_source(placed[source], Options(**{option: value}))
    assert f"--{option.replace('_', '-')} says nothing of" in str(caught.value)


@pytest.mark.parametrize("option", ["shuffle", "shards"])
@pytest.mark.parametrize("kind", ["pairs", "tar.gz", "dataset"])
def test_a_stream_is_neither_shuffled_nor_counted_out(few, export, tmp_path, kind, option):
    sources = {
        "pairs": lambda: pairs_of(few),
        "tar.gz": lambda: write_tar(tmp_path / "x.tar.gz", pairs_of(few), "w:gz"),
        "dataset": lambda: tf.data.Dataset.from_tensor_slices({"image": few.encoded}),
    }
    failed(export, sources[kind](), [f"--{option}", "from its start to its end"], UsageError, **{option: 3})
    assert_nothing_left(tmp_path)


CALLS = {
    "nothing": ("", {}, ["SOURCE is empty"]),
    "a number": (7, {}, ["int", "no source"]),
    "bytes": (b"photos", {}, ["bytes", "no source"]),
    "an empty iterable": ([], {}, ["gave no image"]),
    "an item that is no pair": (["a.png"], {}, ["item", "str"]),
    "a quadruple": ([("a", b"", 1, 2)], {}, ["tuple"]),
    "an item without an image": ([{"filename": "a.png"}], {}, ["item 0", "image"]),
    "float pixels": ([("a.png", np.zeros((8, 8, 1), np.float32))], {}, ["item 0", "float32[8, 8, 1]", "uint8"]),
    "float arrays": (np.zeros((3, 8, 8, 1), np.float32), {}, ["float32[3, 8, 8, 1]", "uint8"]),
    "one picture": (np.zeros((8, 8), np.uint8), {}, ["uint8[8, 8]"]),
    "an empty array": (np.zeros((0, 8, 8, 1), np.uint8), {}, ["uint8[0, 8, 8, 1]"]),
    "a dataset of tensors": (lambda: tf.data.Dataset.range(3), {}, ["dicts"]),
    "a dataset with no image": (lambda: tf.data.Dataset.from_tensors({"x": 1}), {}, ["'image'", "--image-key", "x"]),
    "a dataset of floats": (lambda: tf.data.Dataset.from_tensors({"image": 1.0}), {}, ["image", "float32"]),
    "no such file name": (
        lambda: tf.data.Dataset.from_tensors({"image": "x"}),
        {"filename_key": "id"},
        ["'id'", "--filename-key"],
    ),
    "an empty dataset": (
        lambda: tf.data.Dataset.from_tensor_slices({"image": tf.constant([], tf.string)}),
        {},
        ["the dataset gave no image"],
    ),
    "tfrecord of nothing": ("tfrecord:/nowhere/*.tfrecord", {}, ["/nowhere/*.tfrecord", "no such files"]),
    "tfds of nothing": ("tfds:no_such_data_set_at_all", {}, ["no_such_data_set_at_all", "no such data set"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_source_that_is_none_is_told_in_a_line(export, tmp_path, call):
    source, options, words = CALLS[call]
    failed(export, source() if callable(source) else source, words, UsageError, **options)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("option", "key"), [("image_key", "number"), ("image_key", "x"), ("filename_key", "number"), ("truth_key", "score")]
)
def test_a_tfrecord_without_the_feature_tells_which_it_has(export, few, tmp_path, option, key):
    records = [
        example(image__encoded=texts(c), number=ints(1), score=tf.train.Feature(float_list={"value": [0.5]}))
        for c in few.encoded
    ]
    source = write_tfrecord(tmp_path / "old", records)
    flag = "--" + option.replace("_", "-")
    failed(
        export, source, [source, repr(key), flag, "number int64", "image/encoded bytes"], UsageError, **{option: key}
    )


@pytest.mark.parametrize("content", [b"", b"not a TFRecord", b"\x1f\x8b and no more"])
def test_what_is_no_tfrecord_is_told_by_its_name(export, tmp_path, content):
    (tmp_path / "old").write_bytes(content)
    with pytest.raises((SourceError, BrokenSourceError), match="old"):
        export(f"tfrecord:{tmp_path}/old")


def test_records_that_are_no_examples_are_told(export, tmp_path):
    source = write_tfrecord(tmp_path / "old", [b"no Example"])
    failed(export, source, [source, "tf.train.Example"])


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_what_is_no_archive_is_told_by_its_name(export, tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(tfzip.TfzipError) as caught:
        export(str(path))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_archive_without_images_says_how_much_else_there_is(export, tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.txt", b"1"), ("b.csv", b"2")])
    failed(export, path, [path, "no images", "2 files"], SourceError)


def test_json_beside_an_image_that_is_none_is_told_by_its_name(export, few, tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.json", b"{"), ("a.png", few.encoded[0])])
    failed(export, path, ["a.png", ".json", "no JSON"])
