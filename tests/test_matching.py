"""Two exports joined by filename, against a join by hand; and indexes that are damaged."""

import tempfile
import zlib

import forged
import numpy as np
import peaks
import pytest
from forged import column, put
from hypothesis import example, given, settings
from hypothesis import strategies as st
from indexed import give_hashes, write_indexed

import tfzip
from tfzip import index
from tfzip.matching import matched

NAME = st.one_of(st.binary(min_size=1, max_size=3), st.text("ab/é", min_size=1, max_size=4).map(str.encode))
LONG = NAME.map(lambda name: b"x" * 5000 + name)
NAMES = st.lists(NAME | LONG, unique=True, max_size=12)


def by_hand(names, others):
    return [(row, others.index(name)) for row, name in enumerate(names) if name in others]


def pairs(one, other):
    rows, other_rows = matched(one, other)
    assert rows.dtype == other_rows.dtype == np.int64
    return list(zip(rows.tolist(), other_rows.tolist(), strict=True))


@settings(deadline=None, max_examples=80)
@given(NAMES, NAMES, st.sampled_from([1, 2, 5, 2**32]), st.randoms())
@example([b"a", b"b"], [], 1, None)
@example([], [b"a"], 2**32, None)
@example([b"a", b"b"], [b"c", b"b"], 1, None)
def test_the_same_images_are_found_in_the_order_of_the_one_whatever_hashes_they_share(names, more, hashes, random):
    others = [*names[::2], *(name for name in more if name not in names)]
    if random is not None:
        random.shuffle(others)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # No two filenames with one SHA-256 prefix are at hand.
        give_hashes(patch, lambda name: zlib.crc32(name) % hashes)
        with write_indexed(f"{folder}/one", names) as one, write_indexed(f"{folder}/other", others) as other:
            assert pairs(one, other) == by_hand(names, others)
            assert pairs(other, one) == by_hand(others, names)


def test_of_many_images_each_is_found(tmp_path):
    rng = np.random.default_rng(4)
    names = [b"%d/%d.png" % (number % 7, number**2) for number in range(20_000)]
    some = [[names[place] for place in rng.permutation(20_000)[:15_000]] for _ in range(2)]
    one, other = (write_indexed(tmp_path / str(i), part) for i, part in enumerate(some))
    rows = {name: row for row, name in enumerate(some[1])}
    assert pairs(one, other) == [(row, rows[name]) for row, name in enumerate(some[0]) if name in rows]
    assert len(pairs(one, other)) > 10_000


def unequal(place, step):
    """A change of one value of a column by a step."""

    def change(array):
        array[place] += np.asarray(step).astype(array.dtype)

    return column(change)


def exchanged(array):
    array[[2, 3]] = array[[3, 2]]


DAMAGE = {
    "a row outside": {"row": put(2, 40)},
    "a row far outside": {"row": put(2, 2**62)},
    "a row before the first": {"row": put(2, -1)},
    "a row twice": {"row": column(lambda array: np.concatenate([array[:3], array[:1], array[4:]]))},
    "rows exchanged": {"row": column(exchanged)},
    "a hash of another": {"hash": unequal(2, 1)},
    "hashes out of order": {"hash": column(exchanged)},
    "a hash in two places": {"hash": column(lambda array: np.concatenate([array[:5], array[:1], array[6:]]))},
    "a hash twice": {"hash": column(lambda array: np.concatenate([array[:3], array[2:3], array[4:]]))},
    "a filename outside": {"filename_end": put(-1, 10**9)},
    "filenames that end before they begin": {"filename_end": put(0, 40)},
    "a filename from before the first": {"filename_end": put(0, -5)},
    "filenames of more bytes than can be counted": {"filename_end": put(slice(0, 2), [2**63 - 1, -(2**63) + 1])},
    "a letter of a filename": {"filename": unequal(3, 1)},
}


@pytest.mark.parametrize("change", DAMAGE)
def test_a_damaged_index_is_told_and_no_image_is_missing_in_silence(tmp_path, change):
    names = [b"%d.png" % number for number in range(9)]
    whole, few = (write_indexed(tmp_path / str(count), names[:count]) for count in (8, 2))
    write_indexed(tmp_path / "damaged", names).close()
    forged.rebuilt(tmp_path / "damaged", **DAMAGE[change])
    with tfzip.open(tmp_path / "damaged") as damaged:
        for pair in ((whole, damaged), (damaged, whole), (few, damaged), (damaged, few)):
            with pytest.raises(tfzip.CorruptError, match=r"damaged/index\.zip: ") as caught:
                matched(*pair)
            assert len(str(caught.value).splitlines()) == 1


def test_two_records_of_one_filename_are_told(tmp_path):
    one = write_indexed(tmp_path / "one", [b"a", b"b"])
    twice = write_indexed(tmp_path / "twice", [b"b", b"c", b"b"])
    for pair in ((one, twice), (twice, one)):
        with pytest.raises(tfzip.CorruptError, match=r"twice/index\.zip: records have the same filename"):
            matched(*pair)


_PEAK = """
import sys, peaks, tfzip
from tfzip.matching import matched
(rows, _), megabytes = peaks.peak(matched, *map(tfzip.open, sys.argv[1:]))
print(*rows, megabytes, sep="\\t")
"""


def test_a_filename_as_long_as_the_index_may_have_takes_no_more_than_its_like(tmp_path, monkeypatch):
    names = [b"x" * 30_000_000, b"short"]
    monkeypatch.setattr(index, "_LARGEST_ROW", 1 << 30)  # another writer may not know what the reader of a table takes
    for part in ("one", "other"):
        write_indexed(tmp_path / part, names).close()
    ((*rows, megabytes),) = peaks.run(_PEAK, tmp_path / "one", tmp_path / "other")
    assert rows == ["0", "1"]
    assert int(megabytes) < 400
