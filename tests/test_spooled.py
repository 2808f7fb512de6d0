"""A listing that is kept on the disk is the one that is held in memory."""

import os
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfzip.lookup import Lookup, hash_filenames
from tfzip.sources import folder, spooled

FILES = st.lists(
    st.tuples(st.binary(max_size=12), st.integers(0, 2**40), st.integers(0, 2**62)), unique_by=lambda f: f[0]
)


@given(FILES, st.integers(1, 7))
def test_files_are_sorted_in_runs_and_merged(files, run):
    assert list(spooled.in_order([*files, *files[:3]], run)) == sorted(files)


@given(FILES, st.randoms(use_true_random=False))
def test_what_is_written_down_is_had_again_by_any_rows(files, rng):
    kept = spooled.spool(files)
    names = [file[0] for file in files]
    assert list(kept.names) == names
    assert kept.sizes[:].tolist() == [file[1] for file in files]
    assert kept.stamps[:].tolist() == [file[2] for file in files]
    assert list(spooled.Folders(kept.names)) == list(map(spooled.first_folder, names))
    some = rng.choices(range(len(files)), k=5) if files else []
    for rows in ([], some, list(range(len(files)))[1:4]):
        assert kept.names.at(np.array(rows, np.int64)) == [names[row] for row in rows]
        assert [kept.names[row] for row in rows] == [names[row] for row in rows]
        assert kept.sizes[np.array(rows, np.int64)].tolist() == [files[row][1] for row in rows]
    assert kept.names[1:4] == names[1:4]


def test_the_files_of_a_listing_go_with_it():
    kept = spooled.spool([(b"a", 1, 2)])
    at = os.path.dirname(kept.sizes._path)
    assert os.path.isdir(at)
    names = kept.names
    del kept
    assert list(names) == [b"a"]
    del names
    assert not os.path.exists(at)


@pytest.fixture
def tree(tmp_path):
    """Folders whose order by their names is not that of the paths in them; a link, others, no UTF-8."""
    for name in ("a/1.png", "a.b/2.png", "a-b/3.png", "a/b/4.PNG", "z.png", "a/notes.txt", "b/5.jpg", "c/6.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    with open(os.path.join(os.fsencode(tmp_path), b"b", b"\xff.png"), "wb") as file:
        file.write(b"?")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "/**/*.png", "/**/**/*", "/?/*", "/a/1.png"])
@pytest.mark.parametrize("labels", ["none", "folder"])
def test_a_folder_is_the_same_kept_on_the_disk(tree, pattern, labels):
    listed = folder.from_glob if pattern else folder.from_folder
    labels = "none" if pattern == "/a/1.png" else labels
    held, kept = (listed(f"{tree}{pattern}", labels, spools=spools) for spools in (False, True))
    assert list(kept.filenames) == list(held.filenames) == sorted(held.filenames)
    assert kept.sizes[:].tolist() == held.sizes.tolist()
    assert kept.stamps[:].tolist() == held.stamps.tolist()
    assert (kept.ignored, kept.classes, kept.state, kept.access) == (
        held.ignored,
        held.classes,
        held.state,
        held.access,
    )
    assert labels == "none" or list(kept.truths) == held.truths


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 20))
def test_rows_that_share_a_hash_are_found(numbers, run):
    names = [b"%d" % number for number in numbers]
    with tempfile.TemporaryFile() as file:
        found = [rows.tolist() for rows in Lookup([hash_filenames(names)], len(names), file, run).shared()]
    wanted = [[row for row, name in enumerate(names) if name == each] for each in set(names)]
    assert sorted(found) == sorted(rows for rows in wanted if len(rows) > 1)
