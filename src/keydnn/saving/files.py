"""Writing files so that a reader finds the old contents or the new ones, never a part."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``: into a temporary file beside it, flushed to disk, then renamed over it.

    Missing parent directories are created.  A symbolic link is followed.

    Raises:
        OSError: The directory cannot be written to; what stood at ``path`` before is untouched.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".keydnn-{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:  # its mode follows the umask, as that of any new file
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):  # the rename moved it away
            temporary.unlink()
    _flush_directory(target.parent)


def _flush_directory(folder: Path) -> None:
    """Make the rename itself durable; systems that cannot open a directory do it on their own."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
