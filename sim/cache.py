"""Folders that are made once, kept by the hash of what they were made from, and shared by all processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pullback.sim.toolchain import cache_directory

__all__ = ["digest", "once"]


def digest(kind: str, *parts: str) -> str:
    """Name of a folder: ``kind`` and a hash of all parts. Parts are not confused by being joined differently."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(f"{len(part)}:".encode() + part.encode())
    return f"{kind}-{hasher.hexdigest()[:24]}"


@contextmanager
def _locked(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """One process or thread at a time; the lock goes with its holder, however that ends."""
    import fcntl

    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def once(name: str, fill: Callable[[Path], None], *, waits: Callable[[], None] = lambda: None) -> Path:
    """The folder ``name`` of the cache, filled by ``fill`` if it is not there yet.

    It is filled beside its place and then renamed: it is there whole or not at all, and an exception (Ctrl-C
    too) leaves nothing. If another process is at it, ``waits`` is called and its work is awaited and used.
    """
    cache = cache_directory()
    folder = cache / name
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{name}.lock", waits):
        if folder.exists():
            return folder
        for left in cache.glob(f"building-{name}-*"):  # by a build that was killed: the lock is ours now
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"building-{name}-", dir=cache))
        try:
            fill(work)
            os.rename(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder
