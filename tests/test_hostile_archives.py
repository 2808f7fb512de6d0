"""Archives made to harm: told, and neither memory nor time taken for what they claim."""

import gzip
import io
import json
import os
import struct
import sys
import tarfile
import zlib

import forged
import numpy as np
import peaks
import pytest
import tensorflow as tf

import tfzip
from tfzip import cli, naming
from tfzip.options import Options
from tfzip.sources import open_source

IMAGES = [tf.io.encode_png(np.full((2, 3, 3), number, np.uint8)).numpy() for number in range(4)]


def model():
    return tf.function(lambda images: images[:, 0, 0, :])


def exported(source, folder, model=model):
    return tfzip.export(str(source), model(), str(folder), task="raw", scale="raw", image_size=(2, 3), quiet=True)


# Tars.


def header(name, size=0, kind=b"0", link=b"", *, raw=None):
    """A tar header; `raw` is the size as its twelve bytes."""
    info = tarfile.TarInfo("x")
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[0:100] = name[:100].ljust(100, b"\0")
    block[124:136] = b"%011o\0" % size if raw is None else raw
    block[157:257] = link[:100].ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content):
    return content + bytes(-len(content) % 512)


def member(name, content, **more):
    return header(name, len(content), **more) + padded(content)


def pax(records, kind=b"x"):
    """A pax header of these records."""
    lines = b""
    for key, value in records.items():
        line = b" %s=%s\n" % (key, value)
        length = next(n for n in range(len(line), len(line) + 25) if n == len(line) + len(str(n)))
        lines += b"%d%s" % (length, line)
    return member(b"pax", lines, kind=kind)


def long_name(name, kind=b"L"):
    return member(b"././@LongLink", name + b"\0", kind=kind)


GOOD = member(b"good.png", IMAGES[0])
END = bytes(1024)


def base256(number):
    return (number % 2**96 | (0 if number < 0 else 2**95)).to_bytes(12, "big")


TARS = {
    # Of which the archive as a whole is told to be damaged.
    "a size of 2**63": header(b"x.png", raw=base256(2**63)),
    "a size of 2**94": header(b"x.png", raw=base256(2**94)),
    "a size below zero": header(b"x.png", raw=base256(-512)),
    "a size that leads back": header(b"x.png", raw=base256(-1024)),
    "a size that is no number": header(b"x.png", raw=b"123456789abc"),
    "a size beyond the end": header(b"x.png", 1 << 30),
    "a pax header of 2 GB": header(b"pax", 2 << 30, kind=b"x"),
    "a global header of 2**60": header(b"pax", raw=base256(2**60), kind=b"g"),
    "a long name of 2 GB": header(b"long", 2 << 30, kind=b"L"),
    "a long name of 5000": long_name(b"n" * 5000 + b".png") + GOOD,
    "a long link of 5000": long_name(b"n" * 5000, kind=b"K") + header(b"x.png", kind=b"1"),
    "a pax path of 5000": pax({b"path": b"n" * 5000 + b".png"}) + GOOD,
    "a pax size below zero": pax({b"size": b"-512"}) + GOOD,
    "a pax size beyond all": pax({b"size": b"9" * 5000}) + GOOD,
    "a pax size that is no number": pax({b"size": b"1e3"}) + GOOD,
    "a pax record of no length": member(b"pax", b"0 a=b\n", kind=b"x") + GOOD,
    "a pax record that goes on": member(b"pax", b"99999999999999999999 a=b\n", kind=b"x") + GOOD,
    "a pax record without a value": member(b"pax", b"5 abc\n", kind=b"x") + GOOD,
    "a sparse map without end": header(b"x.png", kind=b"S")[:482] + b"\1" + bytes(29),
}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("case", TARS)
def test_a_tar_that_cannot_be_is_told_to_be_damaged(tmp_path, suffix, case):
    content = GOOD + TARS[case] + GOOD + END
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".tar.gz" else content)
    with pytest.raises(tfzip.BrokenSourceError, match="damaged or cut short") as caught:
        open_source(str(path), Options())
    assert str(path) in str(caught.value)


def sparse_map(blocks):
    """The header of a sparse member as GNU tar first had it, with so many blocks of its map behind it."""
    block = bytearray(header(b"sparse.png", len(IMAGES[1]), kind=b"S"))
    block[482], block[148:156] = 1, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = bytes(504) + b"\1" + bytes(7)
    return bytes(block) + more * (blocks - 1) + bytes(512) + padded(IMAGES[1])


def link_to(name, target):
    return header(name, kind=b"1", link=target)


ODD_MEMBERS = {
    # The members; which filenames they have and, of those that fail, why.
    "links to links": (
        [member(b"1.png", IMAGES[1]), *(link_to(b"%d.png" % n, b"%d.png" % (n - 1)) for n in range(2, 50))],
        {f"{n}.png": None for n in range(1, 50)},
    ),
    "links in a circle": (
        [link_to(b"a/1.png", b"a/2.png"), link_to(b"a/2.png", b"a/1.png")],
        {"a/1.png": "it is a link to a/2.png", "a/2.png": "it is a link to a/1.png"},
    ),
    "a link to itself": ([header(b"self.png", kind=b"2", link=b"self.png")], {"self.png": "it is a link to self.png"}),
    "a link to a link that fails": (
        [header(b"soft.png", kind=b"2", link=b"/etc/passwd"), link_to(b"hard.png", b"soft.png")],
        {"soft.png": "it is a link to /etc/passwd", "hard.png": "it is a link to soft.png"},
    ),
    "a sparse member": ([sparse_map(4), member(b"b.png", IMAGES[2])], {"sparse.png": "sparsely", "b.png": None}),
    "a pax sparse member": (
        [pax({b"GNU.sparse.major": b"1", b"GNU.sparse.name": b"s.png", b"GNU.sparse.realsize": b"9" * 15})
         + member(b"x", b"1\n0\n5\n".ljust(512, b"\0") + b"abcde"), member(b"after.png", IMAGES[2])],
        {"s.png": "sparsely", "after.png": None},
    ),
    "pax names and sizes": (
        [pax({b"path": "käse/1.png".encode(), b"size": b"%d" % len(IMAGES[1])}) + header(b"x", 0) + padded(IMAGES[1])],
        {"käse/1.png": None},
    ),
    "a global header": ([pax({b"comment": b"x" * 9000}, kind=b"g"), member(b"c.png", IMAGES[1])], {"c.png": None}),
    "folders, pipes and devices": (
        [header(b"%s.png" % kind, kind=kind) for kind in (b"3", b"4", b"5", b"6")] + [member(b"d.png", IMAGES[1])],
        {"d.png": None},
    ),
    "a kind that nobody knows": ([member(b"q", b"x" * 600, kind=b"Q"), member(b"e.png", IMAGES[1])], {"e.png": None}),
    "names that climb": (
        [member(b"../../etc/x.png", IMAGES[1]), member(b"/etc/y.png", IMAGES[2])],
        {"../../etc/x.png": None, "/etc/y.png": None},
    ),
    "a name of any bytes": ([member(b"\xff\xfe\x1b.png", IMAGES[1])], {"\udcff\udcfe\x1b.png": None}),
    "an empty member": ([member(b"empty.png", b"")], {"empty.png": "Input is empty"}),
}  # fmt: skip


def test_odd_members_of_a_tar_cost_only_themselves(tmp_path):
    """All in one export, of tars of which each has its own."""
    for case, (members, _) in ODD_MEMBERS.items():
        (tmp_path / f"{case}.tar").write_bytes(b"".join(members) + END)
    made = exported(tmp_path / "*.tar", tmp_path / "out")
    expected = {name: why for case in sorted(ODD_MEMBERS) for name, why in ODD_MEMBERS[case][1].items()}
    failed = {failure.filename: failure.error for failure in made.failures}
    assert [record.filename for record in made[:]] == [name for name, why in expected.items() if not why]
    assert failed.keys() == {naming.shown(name) for name, why in expected.items() if why}
    assert all(why in failed[naming.shown(name)] for name, why in expected.items() if why)
    assert tfzip.verify(made) == []


def test_what_climbs_out_of_a_tar_climbs_out_of_no_folder(tmp_path, capsys):
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD + member(b"../../etc/x.png", IMAGES[1]) + member(b"/tmp/tfzip-y.png", IMAGES[2]) + END)
    made = exported(path, tmp_path / "a" / "b" / "out")
    assert cli.main(["extract", made.path, "--to", str(tmp_path / "a" / "b" / "to")]) == 1
    assert "2 images not written" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "a" / "b" / "to")) == ["good.png", "metadata.csv"]
    assert not (tmp_path / "etc").exists()
    assert not os.path.exists("/tmp/tfzip-y.png")


# Zips.


def zipped(members, path, *, count=None, directory=None, behind=b""):
    """A zip of Raws by name, end to end; `directory` changes what it says of each: place, and whatever Raw has.

    Where there is to be something behind each member, that is where its sizes and CRC should be.
    """
    body, listed, places = io.BytesIO(), io.BytesIO(), {}
    for name, raw in members:
        sizes = (raw.crc, len(raw.data), raw.size)
        places[name] = body.tell()
        sizes = [0 if behind else min(number, 0xFFFFFFFF) for number in sizes]
        flags = 8 if behind else 0
        body.write(struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, raw.method, 0, 33, *sizes, len(name), 0))
        body.write(name + raw.data + behind)
    for name, raw in members:
        place, stored, size = (directory or {}).get(name, lambda *told: told)(places[name], len(raw.data), raw.size)
        numbers, long = [size, stored, place], b""
        if max(numbers) > 0xFFFFFFFF:
            long = struct.pack("<2H3Q", 1, 24, *numbers)
            size = stored = place = 0xFFFFFFFF
        common = (b"PK\1\2", 45, 45, 0, raw.method, 0, 33, raw.crc, stored, size, len(name), len(long))
        listed.write(struct.pack("<4s6H3L5H2L", *common, 0, 0, 0, 0, place) + name + long)
    count = len(members) if count is None else count
    begin, size = body.tell(), len(listed.getvalue())
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, begin, 0)
    path.write_bytes(body.getvalue() + listed.getvalue() + end)
    return path


def deflated(content):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return forged.Raw(packer.compress(content) + packer.flush(), size=len(content), crc=zlib.crc32(content))


WRONG = {
    # What the directory says of a member that lies at a place, is stored in so many bytes, and has a size.
    "beyond the end": lambda _, stored, size: (1 << 30, stored, size),
    "at 2**63": lambda _, stored, size: (2**63, stored, size),
    "in the directory": lambda place, stored, size: (place + 10_000_000, stored, size),
    "longer than the archive": lambda place, _, size: (place, 1 << 30, size),
    "of 2**63 bytes": lambda place, stored, _: (place, stored, 2**63),
    "of a terabyte": lambda place, stored, _: (place, stored, 1 << 40),
    "of no place": lambda place, stored, size: (place + 1, stored, size),
    "longer than it says": lambda place, stored, size: (place, stored, size - 9),
    "shorter than it says": lambda place, stored, size: (place, stored, size + 9),
}


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_members_of_a_zip_that_cannot_be_fail_alone(tmp_path, large):
    """Large ones are inflated in another way."""
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    image = tf.io.encode_png(noise).numpy() if large else IMAGES[1]
    directory = {f"{case}.png".encode(): change for case, change in WRONG.items()}
    members = [(name, deflated(image)) for name in (b"first.png", *directory, b"last.png")]
    made = exported(zipped(members, tmp_path / "x.zip", directory=directory), tmp_path / "out")
    assert [(record.filename, record.encoded) for record in made[:]] == [("first.png", image), ("last.png", image)]
    assert [(failure.filename, failure.stage) for failure in made.failures] == [
        (f"{case}.png", "read") for case in WRONG
    ]


@pytest.mark.parametrize("side", [5, 200], ids=["small", "large"])
def test_a_member_of_a_zip_of_which_all_is_wrong_alike_fails(tmp_path, side):
    """TensorFlow takes a stream that is cut short for whole, and the CRC and size behind it for more of its bytes.

    So fewer than nine bytes may be missing unseen, where all that is said of them is forged.
    """
    image = tf.io.encode_png(np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)).numpy()
    parts, end, crc = range(0, len(image), 60_000), stored(b"", last=True), zlib.crc32(image)
    packed = b"".join(stored(image[start : start + 60_000]) for start in parts)
    wrong = {b"cut %d.png" % cut: forged.Raw(packed[:-cut], size=len(image), crc=crc) for cut in range(9, 20)}
    wrong |= {b"%d.png" % more: forged.Raw(packed + end, size=len(image) + more, crc=crc) for more in (-9, -1, 1, 9)}
    wrong |= {b"crc.png": forged.Raw(packed + end, size=len(image), crc=crc ^ 1)}
    good = {b"good.png": forged.Raw(packed + end, size=len(image), crc=crc)}
    made = exported(zipped([*good.items(), *wrong.items()], tmp_path / "x.zip"), tmp_path / "out")
    assert [(record.filename, record.encoded) for record in made[:]] == [("good.png", image)]
    assert [(failure.filename.encode(), failure.stage) for failure in made.failures] == [(n, "read") for n in wrong]


def test_members_that_share_their_bytes_are_not_read_again_and_again(tmp_path):
    """As in https://www.usenix.org/conference/woot19/presentation/fifield, where one holds another."""
    raw = deflated(IMAGES[1])
    members, behind = [(b"%d.png" % number, raw) for number in range(50)], b"PK\7\x08" + raw.crc.to_bytes(4, "little")
    longer = {name: lambda place, stored, size: (place, 2 * stored + 44, size) for name, _ in members[10:30]}
    path = zipped(members, tmp_path / "x.zip", directory=longer, behind=behind)
    source = open_source(str(path), Options())
    assert source.filenames == [b"%d.png" % number for number in (*range(11), *range(31, 50))]
    assert {failure.error for failure in source.rejected} == {"it shares bytes with another member"}


@pytest.mark.parametrize("change", [-8, -1, 1, 8])
def test_a_streamed_member_ends_where_its_crc_stands(tmp_path, change):
    raw = deflated(IMAGES[1])
    members, behind = [(b"%d.png" % number, raw) for number in range(3)], raw.crc.to_bytes(4, "little") + bytes(8)
    wrong = {b"1.png": lambda place, stored, size: (place, stored + change, size)}
    path = zipped(members, tmp_path / "x.zip", directory=wrong, behind=behind)
    assert open_source(str(path), Options()).filenames == [b"0.png", b"2.png"]


@pytest.mark.parametrize("told", [b"b.png.png", b"a.png", b"longer.png.png"])
def test_a_member_of_two_names_is_under_neither(tmp_path, told):
    """One in the directory, and one where it lies; both have the same length, or not."""
    path = zipped([(b"good.png", deflated(IMAGES[0])), (b"a.png.png", deflated(IMAGES[1]))], tmp_path / "x.zip")
    content, place = path.read_bytes(), path.read_bytes().rindex(b"a.png.png")
    directory = bytearray(content[:place] + told + content[place + 9 :])
    directory[place - 18 : place - 16] = len(told).to_bytes(2, "little")
    end = len(directory) - 22
    size = int.from_bytes(directory[end + 12 : end + 16], "little") + len(told) - 9
    directory[end + 12 : end + 16] = size.to_bytes(4, "little")
    path.write_bytes(directory)
    source = open_source(str(path), Options())
    assert source.filenames == [b"good.png"]
    assert [(failure.filename, failure.stage) for failure in source.rejected] == [(told.decode(), "read")]
    assert "stands before it" in source.rejected[0].error


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_a_deflated_member_is_not_taken_for_a_stored_one(tmp_path, both):
    """Neither where only the directory says so, nor where both do, but the sizes differ: stored ones have no other."""
    path = zipped([(b"good.png", deflated(IMAGES[0])), (b"bad.png", deflated(IMAGES[1]))], tmp_path / "x.zip")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2") + 10] = 0
    if both:
        content[content.rindex(b"PK\3\4") + 8] = 0
    path.write_bytes(content)
    source = open_source(str(path), Options())
    assert source.filenames == [b"good.png"]
    assert [failure.filename for failure in source.rejected] == ["bad.png"]


@pytest.mark.parametrize("name", [b"", b"\0.png", b"/", b".", b"..", b"./"])
def test_a_member_of_a_zip_without_a_name_is_no_image(tmp_path, name):
    path = zipped([(b"good.png", deflated(IMAGES[0])), (name, deflated(IMAGES[1]))], tmp_path / "x.zip")
    assert open_source(str(path), Options()).filenames == [b"good.png"]


def test_a_zip_that_claims_a_billion_members_is_read_as_it_is(tmp_path):
    path = zipped([(b"good.png", deflated(IMAGES[0]))], tmp_path / "x.zip", count=0xFFFE)
    assert open_source(str(path), Options()).filenames == [b"good.png"]


# Others.


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_that_is_replaced_while_it_is_read_is_told(tmp_path, suffix):
    """By one of the same size, whose members lie elsewhere: after the listing, when the model is traced."""
    first, second = [(b"1.png", IMAGES[1]), (b"2.png", IMAGES[2])], [(b"2.png", IMAGES[2]), (b"1.png", IMAGES[1])]
    path, other = (sidecars(tmp_path / files[0][0].decode(), suffix, files, level=0) for files in (first, second))
    assert path.stat().st_size == other.stat().st_size

    @tf.autograph.experimental.do_not_convert
    def replacing(images):
        if other.exists():
            os.replace(other, path)
        return images[:, 0, 0, :]

    with pytest.raises(tfzip.BrokenSourceError, match="changed while it was read"):
        exported(path, tmp_path / "out", model=lambda: tf.function(replacing))
    assert not other.exists()
    assert not (tmp_path / "out" / "index.zip").exists()


# What lies beside the images.


def sidecars(tmp_path, suffix, files, level=9):
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        return zipped([(name, deflated(content)) for name, content in files], path)
    content = b"".join(member(name, content) for name, content in files) + END
    path.write_bytes(gzip.compress(content, level) if suffix == ".tar.gz" else content)
    return path


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b"\xff", b"{"])
def test_json_that_is_none_is_told(tmp_path, suffix, text):
    path = sidecars(tmp_path, suffix, [(b"a.png", IMAGES[0]), (b"a.json", text)])
    with pytest.raises(tfzip.BrokenSourceError, match=r"a\.png: the \.json beside it"):
        open_source(str(path), Options())


def test_json_of_very_many_fields_is_told(tmp_path):
    fields = json.dumps({f"field {number}": 1 for number in range(5000)}).encode()
    path = sidecars(tmp_path, ".tar", [(b"a.png", IMAGES[0]), (b"a.json", fields)])
    with pytest.raises(tfzip.BrokenSourceError, match="5000 fields"):
        open_source(str(path), Options())


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_sidecars_out_of_proportion_are_told(tmp_path, suffix):
    blank = b"{}" + b" " * ((1 << 20) - 2)
    files = [(b"%d.json" % number, blank) for number in range(120)]
    path = sidecars(tmp_path, suffix, [(b"1.png", IMAGES[0]), *files])
    with pytest.raises(tfzip.BrokenSourceError, match="out of proportion"):
        open_source(str(path), Options())


def test_links_to_one_sidecar_are_out_of_proportion_too(tmp_path):
    links = b"".join(link_to(b"%d.json" % number, b"0.json") for number in range(1, 400))
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD + member(b"0.json", b"{}" + b" " * ((1 << 20) - 2)) + links + END)
    with pytest.raises(tfzip.BrokenSourceError, match="out of proportion"):
        open_source(str(path), Options())


# Memory, in a real process.


_PEAKS = """
import os, sys
import tensorflow as tf
import tfzip
from peaks import peak

def attempt(path):
    model = tf.function(lambda images: images[:, 0, 0, :])
    options = {"task": "raw", "scale": "raw", "image_size": (2, 3), "batch_size": 8, "quiet": True}
    try:
        made = tfzip.export(path, model, path + "-out", **options)
        return f"{len(made)} records, {len(made.failures)} failures"
    except tfzip.TfzipError as error:
        return type(error).__name__

for path in sys.argv[1:]:
    print(os.path.basename(path), *peak(attempt, path), sep="\\t")
"""


def stored(data, last=False):
    """Bytes as a deflate block that does not compress."""
    return bytes([last]) + struct.pack("<2H", len(data), len(data) ^ 0xFFFF) + data


def gz_around(before, gigabytes, behind):
    """A whole gzip file of bytes, so many GiB of zeros, and bytes; its CRC is right."""
    crc, block = zlib.crc32(before), bytes(1 << 24)
    for _ in range(int(64 * gigabytes)):
        crc = zlib.crc32(block, crc)
    deflate = stored(before) + forged.zeros(gigabytes) + stored(behind, last=True)
    size = (len(before) + int(gigabytes * 2**30) + len(behind)) % 2**32
    return forged.gzip_member(deflate) + struct.pack("<2L", zlib.crc32(behind, crc), size)


HONEST, LYING = forged.Raw(forged.zeros(2), size=2 << 30), forged.Raw(forged.zeros(2), size=1000)
LARGE = 5 / 16  # GiB, which are more than an image may have
OTHER = member(b"other.png", IMAGES[1])

BOMBS = {
    # What it holds; what comes of it.
    "honest.zip": ([(b"x.png", HONEST)], "1 records, 1 failures"),
    "lying.zip": ([(b"%d.png" % number, LYING) for number in range(4)], "1 records, 4 failures"),
    "many.zip": ([(b"%d.png" % number, deflated(bytes(50 << 20))) for number in range(4)], "1 records, 4 failures"),
    "beside.zip": ([(b"good.cls", HONEST)], "1 records, 0 failures"),
    "beside, lying.zip": ([(b"good.cls", LYING)], "BrokenSourceError"),
    "image.tar.gz": (
        gz_around(GOOD + header(b"x.png", int(LARGE * 2**30)), LARGE, OTHER + END),
        "2 records, 1 failures",
    ),
    "pax.tar.gz": (
        gz_around(GOOD + header(b"pax", int(LARGE * 2**30), kind=b"x"), LARGE, OTHER + END),
        "BrokenSourceError",
    ),
    "claims.tar.gz": (gzip.compress(GOOD + header(b"x.png", raw=base256(2**62)) + END), "BrokenSourceError"),
    "sparse.tar.gz": (gzip.compress(GOOD + sparse_map(200_000) + OTHER + END), "2 records, 1 failures"),
    "names.tar.gz": (
        gzip.compress((long_name(b"n" * 4000 + b".png") + header(b"x")) * 20_000 + END),
        "BrokenSourceError",
    ),
    "members.tar.gz": (gzip.compress(GOOD + header(b"n.txt") * 50_000 + OTHER + END), "2 records, 0 failures"),
}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_bombs_fail_and_take_little_memory(tmp_path):
    """Each takes little more than the same export with a small broken image in its place."""
    (tmp_path / "good.tar").write_bytes(GOOD + member(b"x.png", b"none") + END)
    for name, (content, _) in BOMBS.items():
        if name.endswith(".zip"):
            zipped([(b"good.png", deflated(IMAGES[0])), *content], tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
    good, *bombs = peaks.run(_PEAKS, *(tmp_path / name for name in ("good.tar", *BOMBS)))
    assert good[:2] == ["good.tar", "1 records, 1 failures"]
    assert {name: said for name, said, _ in bombs} == {name: expected for name, (_, expected) in BOMBS.items()}
    for name, _, megabytes in bombs:
        assert int(megabytes) - int(good[2]) < 200, name
