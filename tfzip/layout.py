"""The folder of an export: where each file goes, whether the folder is free, and how an export appears in it.

All work is done in `.tfzip/`; at the end everything moves to its place, the index last. So a reader never sees half an
export, and one that replaces another leaves that alone until it has finished itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfzip import dataset_info, lock, storage
from tfzip.errors import CorruptError, OutputExistsError, UsageError
from tfzip.index import INDEX, Index
from tfzip.naming import ShardName
from tfzip.read import TFX_FOLDER

RUN = "run.json"
REPORT = "report.html"
_WORK = ".tfzip"
_TFDS, _ROWS = "tfds-", "rows-"
_PLAN, _PUBLISHED = "plan.json", "published.json"
_ROWS_OF = re.compile(rf"{_ROWS}([0-9]+)\.npz")
_TFX_FOLDERS = ("Split-", TFX_FOLDER)


class Layout:
    """The folders of one export.

    Args:
        out: the folder asked for.
        kind: `flat`, all in one folder; or `tfx`, shards alone in `Split-SPLIT/`, the rest in `tfzip-SPLIT/`.
        name: of the dataset.
        split: of the data.
        compression: `gzip` or `none`.
    """

    def __init__(self, out: str, kind: str, name: str, split: str, compression: str) -> None:
        self.out = out
        self.split = split
        self._kind, self._name, self._compression = kind, name, compression
        self._shard_prefix = "" if kind == "flat" else f"Split-{split}/"
        self._home = out if kind == "flat" else storage.join(out, f"{TFX_FOLDER}{split}")
        self._work = storage.join(self._home, _WORK)

    def absolute(self) -> Layout:
        """The same, wherever a process is."""
        return Layout(storage.absolute(self.out), self._kind, self._name, self.split, self._compression)

    # Files at work.

    def work_shard(self, shard: int) -> str:
        """A shard while it is written."""
        return storage.join(self._work, f"shard-{shard:05d}")

    def work_rows(self, shard: int) -> str:
        """The rows of a finished shard."""
        return storage.join(self._work, f"{_ROWS}{shard:05d}.npz")

    @property
    def work_plan(self) -> str:
        """What the unfinished export is to be."""
        return storage.join(self._work, _PLAN)

    @property
    def work_items(self) -> str:
        """The items of a source that was listed."""
        return storage.join(self._work, "items.npz")

    @property
    def work_listing(self) -> str:
        """What is handed out to workers: the source but for its items, and which slots are whose."""
        return storage.join(self._work, "listing.json")

    def work_piece(self, shard: int) -> str:
        """The items of a shard that a worker may do."""
        return storage.join(self._work, f"items-{shard:05d}.npz")

    def work_error(self, key: str) -> str:
        """What a worker of a plan has found to be wrong."""
        return storage.join(self._work, f"error-{key}.json")

    @property
    def index(self) -> str:
        """The index of what is finished."""
        return storage.join(self._home, INDEX)

    @property
    def work_index(self) -> str:
        """The index while it is written."""
        return storage.join(self._work, INDEX)

    def keep_for_tfds(self, manifest: Mapping[str, Any]) -> dict[str, str]:
        """Write what TFDS wants to know where it waits for all else; the SHA-256 of each file."""
        files = dataset_info.files(manifest)
        for name, content in files.items():
            storage.write_whole(storage.join(self._work, _TFDS + name), content)
        return dataset_info.digests(files)

    @property
    def work_run(self) -> str:
        """run.json while the export is unfinished."""
        return storage.join(self._work, RUN)

    def shard_file(self, shard: int, shards: int) -> str:
        """A finished shard's name, below OUT."""
        return self._shard_prefix + str(ShardName(self._name, self.split, shard, shards, self._compression))

    # Life.

    def check_free(self, overwrite: bool) -> None:
        """Raise OutputExistsError if OUT holds anything that this export may neither go on with nor replace."""
        if storage.exists(self.out) and not storage.isdir(self.out):
            raise OutputExistsError(f"{self.out} is a file; give a folder")
        if self._shard_prefix:
            self._check_siblings()
        homes = {self._home, storage.join(self.out, self._shard_prefix).rstrip("/")}
        present = {name for home in homes for name in storage.listdir(home)}
        if INDEX in present and not overwrite and not self.is_published:
            raise OutputExistsError(
                f"{self.out} holds a finished export; give another folder, or --overwrite to replace it"
            )
        if present and not present & {INDEX, _WORK}:
            raise OutputExistsError(f"{self.out} is not empty and holds no export; give another folder")

    def _check_siblings(self) -> None:
        """In the tfx layout OUT holds splits, and nothing beside them."""
        other = [name for name in storage.listdir(self.out) if not name.startswith(_TFX_FOLDERS)]
        if other:
            raise OutputExistsError(f"{self.out} holds {other[0]}, no split in the tfx layout; give another folder")

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the only writer of OUT meanwhile; at the end, nothing is left that nothing could go on from.

        Raises OutputExistsError if another process is writing there, UsageError if nobody can.
        """
        made = [self._work, *(folder for folder in (self._home, self.out) if not storage.exists(folder))]
        with contextlib.ExitStack() as stack:
            stack.callback(storage.remove_empty, made)
            try:
                storage.makedirs(self._work)
                stack.enter_context(lock.held(self._work, self.out))
            except UsageError:
                raise
            except OSError as error:
                raise UsageError(f"{self.out}: cannot write there ({error.strerror})") from None
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    if not (self.is_unfinished or self.is_published):
                        self.clear()

    @property
    def published_plan(self) -> str:
        """The plan while all is in its place, or about to be, and the work folder is not tidied up."""
        return storage.join(self._work, _PUBLISHED)

    @property
    def is_unfinished(self) -> bool:
        """Whether there is an export to go on with."""
        return storage.exists(self.work_plan)

    @property
    def has_finished_shards(self) -> bool:
        """Whether that has come so far that a shard is finished."""
        return self.is_unfinished and bool(self.with_rows())

    def with_rows(self) -> set[int]:
        """The shards that have rows."""
        names = (_ROWS_OF.fullmatch(name) for name in storage.listdir(self._work))
        return {int(name[1]) for name in names if name}

    @property
    def is_published(self) -> bool:
        """Whether an export is finished, but for what `tidy_up` does."""
        return storage.exists(self.published_plan)

    def clear(self) -> None:
        """Empty the work folder; a finished export that was to be replaced stays."""
        last = (_PUBLISHED, lock.LOCK, lock.HOLDER)
        names = [_PLAN, *(name for name in storage.listdir(self._work) if name not in last), _PUBLISHED]
        storage.remove(storage.join(self._work, name) for name in names)

    def publish(self, files: Sequence[str]) -> None:
        """Move the shards, then the index, to their places; what they replace goes first.

        Cut short at any point, it can be called again.
        """
        old = self._old_files()
        storage.remove(storage.join(self._home, name) for name in (INDEX, RUN, REPORT, *dataset_info.NAMES))
        storage.remove(storage.join(self.out, file) for file in old if file not in files)
        folder = storage.join(self.out, self._shard_prefix)
        storage.makedirs(folder)
        for shard, file in enumerate(files):
            if storage.exists(self.work_shard(shard)):
                storage.rename(self.work_shard(shard), storage.join(self.out, file))
        for name in reversed(dataset_info.NAMES):
            if storage.exists(waiting := storage.join(self._work, _TFDS + name)):
                storage.rename(waiting, storage.join(self._home, name))
        storage.rename(self.work_run, storage.join(self._home, RUN))
        for synced in (folder, self._home):
            storage.sync_folder(synced)
        storage.rename(self.work_plan, self.published_plan)
        self.tidy_up()

    def tidy_up(self) -> None:
        """Do what is left once all but the index is in its place."""
        if storage.exists(self.work_index):
            storage.rename(self.work_index, storage.join(self._home, INDEX))
            storage.sync_folder(self._home)
        self.clear()

    def _old_files(self) -> list[str]:
        """The shards of the export that is replaced: those its index lists, or those named as ours would be."""
        path = storage.join(self._home, INDEX)
        try:
            files = [str(shard["file"]) for shard in Index(path).manifest["shards"]]
        except (CorruptError, KeyError, TypeError, FileNotFoundError):
            files = [
                self._shard_prefix + name
                for name in storage.listdir(storage.join(self.out, self._shard_prefix))
                if (shard := ShardName.parse(name)) and (shard.name, shard.split) == (self._name, self.split)
            ]
        return [file for file in files if ShardName.parse(file.removeprefix(self._shard_prefix))]
