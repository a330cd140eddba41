"""A disk that loses at a power cut what was not synced: the folder of a store, as it might be found afterwards.

`unsynced.c` records what a program writes below the folder. From that record a cut rebuilds the folder: everything
that was synced is there; of the rest any sectors of any writes, any of the sizes, and any of the names that were made,
changed or removed in a directory that was not synced since.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SOURCE = Path(__file__).with_name("unsynced.c")
SECTORS = (512, 4096)
"""Bytes that a disk writes whole or not at all."""
_HEAD = struct.Struct("<cQQIIQ")


@dataclass
class _File:
    """A file: what is on the disk, and the changes since in their order: data at an offset, or None and a length."""

    durable: bytearray
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def lose(self, random: Random, kept: float, sector: int) -> None:
        """Keep of the changes what chance keeps."""
        for offset, data in self.pending:
            if data is None:
                if random.random() < kept:
                    _apply(self.durable, offset, None)
                continue
            begin = offset
            while begin < offset + len(data):
                end = min(begin - begin % sector + sector, offset + len(data))
                if random.random() < kept:
                    _apply(self.durable, begin, data[begin - offset : end - offset])
                begin = end
        self.pending.clear()


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


_FOLDER = _File(bytearray())
"""What the name of a folder stands for."""


@dataclass
class _Renaming:
    """A change of names that is not on the disk yet: what each name stands for after it; None is nothing."""

    names: dict[str, _File | None]
    unsynced: set[str]
    """The folders that have to be synced for it."""
    moved: tuple[str, str] | None = None
    """The former and the new name of a folder: what is in it goes with it."""


class Disk:
    """The disk under a folder.

    `names_follow_files`: whether syncing a new file also makes its name durable, as ext4, XFS and Btrfs do and POSIX
    does not promise. `lies`: whether syncs do nothing.
    """

    def __init__(self, folder: Path, scratch: Path, *, names_follow_files: bool = False, lies: bool = False) -> None:
        self.folder = folder
        self._library = build(scratch)
        self._log = scratch / "disk.log"
        self._before = scratch / "before"
        self._full = scratch / "full"
        self._names_follow_files = names_follow_files
        self._lies = lies
        self._inodes: dict[int, str] = {}

    @property
    def env(self) -> Mapping[str, str]:
        """What the environment of a program needs so that what it writes is recorded."""
        return {
            "LD_PRELOAD": str(self._library),
            "UNSYNCED_ROOT": str(self.folder),
            "UNSYNCED_LOG": str(self._log),
            "UNSYNCED_LIE": "1" if self._lies else "0",
            "UNSYNCED_FULL": str(self._full),
        }

    def begin(self) -> None:
        """Take what the folder holds now as durable. No program may be at work in it."""
        shutil.rmtree(self._before, ignore_errors=True)
        shutil.copytree(self.folder, self._before)
        self._inodes = {path.stat().st_ino: str(path) for path in self.folder.rglob("*")}
        self._log.write_bytes(b"")
        self._log.chmod(0o666)

    def fill(self) -> None:
        """Have every write fail, as on a full disk."""
        self._full.touch()

    def empty(self) -> None:
        """Make room again."""
        self._full.unlink()

    def moment(self) -> int:
        """Now, for `cut`: all that a program was told before to be synced has been."""
        return self._log.stat().st_size

    def cut(self, moment: int, random: Random) -> None:
        """Leave the folder as a power cut at a moment might have. The programs must have been killed since."""
        kept = random.choice((0.0, 0.5, 1.0, random.random()))
        names = self._names_after(moment, random, kept, random.choice(SECTORS))
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if str(path) not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, file in sorted(names.items()):
            path = Path(name)
            if file is _FOLDER:
                path.mkdir(exist_ok=True)
            elif path.parent.is_dir() and not (path.exists() and path.read_bytes() == file.durable):
                path.write_bytes(file.durable)
            else:
                continue
            self._give_to_owner(path)

    def written(self) -> dict[str, bytes]:
        """The files by their paths as the record has them if nothing is lost."""
        names = self._names_after(self.moment(), Random(), 1.0, SECTORS[0])
        return {name: bytes(file.durable) for name, file in names.items() if file is not _FOLDER}

    def _names_after(self, moment: int, random: Random, kept: float, sector: int) -> dict[str, _File]:
        """What each path stands for after a cut that keeps some of the changes that were not synced."""
        durable = {str(self.folder / path.relative_to(self._before)): path for path in self._before.rglob("*")}
        on_disk = {
            name: _FOLDER if path.is_dir() else _File(bytearray(path.read_bytes())) for name, path in durable.items()
        }
        waiting = self._replay(moment, on_disk)
        for renaming in waiting:
            if random.random() < kept:
                _rename(on_disk, renaming)
        for file in on_disk.values():
            file.lose(random, kept, sector)
        return on_disk

    def _replay(self, moment: int, on_disk: dict[str, _File]) -> list[_Renaming]:
        """Do in `on_disk` all that the record says was synced; returns the changes of names that were not."""
        seen = dict(on_disk)
        files = {inode: on_disk[name] for inode, name in self._inodes.items()}
        waiting: list[_Renaming] = []
        for op, inode, offset, path, other, data in self._records(moment):
            if op in b"WVTS":
                if inode in files:
                    self._change(files[inode], op, offset, data)
                    if op == b"S" and self._names_follow_files:
                        waiting = _settle(on_disk, waiting, os.path.dirname(path), files[inode])
            elif op == b"D":
                waiting = _settle(on_disk, waiting, path, None)
            else:
                if op == b"C":
                    files[inode] = _File(bytearray())
                renaming = _renaming(op, path, other, files.get(inode), seen)
                _rename(seen, renaming)
                waiting.append(renaming)
        return waiting

    @staticmethod
    def _change(file: _File, op: bytes, offset: int, data: bytes) -> None:
        if op in b"WV":
            file.pending.append((offset, data))
        if op == b"T":
            file.pending.append((offset, None))
        if op in b"VS":
            file.sync()

    def _records(self, moment: int) -> Iterator[tuple[bytes, int, int, str, str, bytes]]:
        record = memoryview(self._log.read_bytes())[:moment]
        at = 0
        # The last record may lie across the moment: then what it records had not happened.
        while at + _HEAD.size <= moment:
            op, inode, offset, path_length, other_length, data_length = _HEAD.unpack_from(record, at)
            path_end = at + _HEAD.size + path_length
            other_end = path_end + other_length
            if other_end + data_length > moment:
                return
            path = str(record[at + _HEAD.size : path_end], "utf-8")
            yield (
                op,
                inode,
                offset,
                path,
                str(record[path_end:other_end], "utf-8"),
                bytes(record[other_end : other_end + data_length]),
            )
            at = other_end + data_length

    def _give_to_owner(self, path: Path) -> None:
        """Give what this process has made to the owner of the folder."""
        owner = self.folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o700 if path.is_dir() else 0o600)


def _renaming(op: bytes, path: str, other: str, made: _File | None, names: Mapping[str, _File]) -> _Renaming:
    """What a record changes of the names: a file or folder that is made, a removal, a renaming, a link."""
    moved = None
    match op:
        case b"C":
            changed = {path: made}
        case b"M":
            changed = {path: _FOLDER}
        case b"U":
            changed = {path: None}
        case b"R":
            changed = {path: None, other: names.get(path)}
            moved = (path, other) if names.get(path) is _FOLDER else None
        case _:
            changed = {other: names.get(path)}
    return _Renaming(changed, {os.path.dirname(name) for name in changed}, moved)


def _rename(names: dict[str, _File], renaming: _Renaming) -> None:
    if renaming.moved is not None:
        former, new = renaming.moved
        if former in names:
            for name in [name for name in names if name.startswith(f"{former}/")]:
                names[new + name.removeprefix(former)] = names.pop(name)
    for name, file in renaming.names.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def _settle(on_disk: dict[str, _File], waiting: list[_Renaming], folder: str, file: _File | None) -> list[_Renaming]:
    """Make the changes of names in a folder durable, those of one file if it is given; returns what still waits."""
    left = []
    for renaming in waiting:
        if file is None or file in renaming.names.values():
            renaming.unsynced.discard(folder)
        if renaming.unsynced:
            left.append(renaming)
        else:
            _rename(on_disk, renaming)
    return left


def build(folder: Path) -> Path:
    """Compile the library that records. Raises `CalledProcessError` with the compiler's words if it cannot."""
    library = folder / "unsynced.so"
    if not library.exists():
        subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        library.chmod(0o755)
    return library
