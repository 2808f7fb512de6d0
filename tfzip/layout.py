"""The folder of an export: where each file goes, whether the folder is free, and how an export appears in it.

All work is done in `.tfzip/`; at the end everything moves to its place, the index last. So a reader never sees half an
export, and one that replaces another leaves that alone until it has finished itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfzip import storage
from tfzip.errors import CorruptError, OutputExistsError, UsageError
from tfzip.index import INDEX, Index
from tfzip.naming import ShardName
from tfzip.read import TFX_FOLDER

LAYOUTS = ("flat", "tfx")
RUN = "run.json"
_WORK = ".tfzip"
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
        self._name, self._split, self._compression = name, split, compression
        self._shard_prefix = "" if kind == "flat" else f"Split-{split}/"
        self._home = out if kind == "flat" else storage.join(out, f"{TFX_FOLDER}{split}")
        self._work = storage.join(self._home, _WORK)
        self._made: list[str] = []

    # Files at work.

    def work_shard(self, shard: int) -> str:
        """A shard while it is written."""
        return storage.join(self._work, f"shard-{shard:05d}")

    def work_rows(self, shard: int) -> str:
        """The rows of a finished shard."""
        return storage.join(self._work, f"rows-{shard:05d}.npz")

    @property
    def work_index(self) -> str:
        """The index while it is written."""
        return storage.join(self._work, INDEX)

    @property
    def work_run(self) -> str:
        """run.json while the export is unfinished."""
        return storage.join(self._work, RUN)

    def shard_file(self, shard: int, shards: int) -> str:
        """A finished shard's name, below OUT."""
        return self._shard_prefix + str(ShardName(self._name, self._split, shard, shards, self._compression))

    # Life.

    def check_free(self, overwrite: bool) -> None:
        """Raise OutputExistsError if OUT holds anything that this export may not replace."""
        if storage.exists(self.out) and not storage.isdir(self.out):
            raise OutputExistsError(f"{self.out} is a file; give a folder")
        if self._shard_prefix:
            self._check_siblings()
        homes = {self._home, storage.join(self.out, self._shard_prefix).rstrip("/")}
        present = {name for home in homes for name in storage.listdir(home)}
        if INDEX in present:
            what = "holds a finished export"
        elif _WORK in present:
            what = "holds an unfinished export, or one that is still running"
        elif present:
            raise OutputExistsError(f"{self.out} is not empty and holds no export; give another folder")
        else:
            return
        if not overwrite:
            raise OutputExistsError(f"{self.out} {what}; give another folder, or --overwrite to replace it")

    def _check_siblings(self) -> None:
        """In the tfx layout OUT holds splits, and nothing beside them."""
        other = [name for name in storage.listdir(self.out) if not name.startswith(_TFX_FOLDERS)]
        if other:
            raise OutputExistsError(f"{self.out} holds {other[0]}, no split in the tfx layout; give another folder")

    def begin(self) -> None:
        """Make an empty work folder."""
        self._made = [folder for folder in (self._home, self.out) if not storage.exists(folder)]
        try:
            storage.remove([self._work])
            storage.makedirs(self._work)
        except OSError as error:
            raise UsageError(f"{self.out}: cannot write there ({error.strerror})") from None

    def abandon(self) -> None:
        """Remove what was begun; a finished export that was to be replaced stays."""
        storage.remove([self._work])
        storage.remove(folder for folder in self._made if not storage.listdir(folder))

    def publish(self, files: Sequence[str]) -> None:
        """Move the shards, then the index, to their places; what they replace goes first."""
        old = self._old_files()
        storage.remove(storage.join(self._home, name) for name in (INDEX, RUN))
        storage.remove(storage.join(self.out, file) for file in old if file not in files)
        if self._shard_prefix:
            storage.makedirs(storage.join(self.out, self._shard_prefix))
        for shard, file in enumerate(files):
            storage.rename(self.work_shard(shard), storage.join(self.out, file))
        storage.rename(self.work_run, storage.join(self._home, RUN))
        storage.rename(self.work_index, storage.join(self._home, INDEX))
        storage.remove([self._work])

    def _old_files(self) -> list[str]:
        """The shards of the export that is replaced: those its index lists, or those named as ours would be."""
        path = storage.join(self._home, INDEX)
        try:
            files = [str(shard["file"]) for shard in Index(path).manifest["shards"]] if storage.exists(path) else []
        except (CorruptError, KeyError, TypeError):
            files = [
                self._shard_prefix + name
                for name in storage.listdir(storage.join(self.out, self._shard_prefix))
                if (shard := ShardName.parse(name)) and (shard.name, shard.split) == (self._name, self._split)
            ]
        return [file for file in files if ShardName.parse(file.removeprefix(self._shard_prefix))]
