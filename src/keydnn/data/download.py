"""Downloads that can be resumed, and archives that cannot reach outside their folder.

A download goes to ``<dst>.part`` and is renamed once it is whole and, where a digest is known, has it.  With a digest a broken
download is continued (HTTP Range); without one it starts anew, because the file may have changed meanwhile.
Archives are unpacked beside their place and renamed, so a folder is there with all its files or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from keydnn.domain.errors import KeyDNNError

CHUNK = 1 << 20
MOST_UNPACKED = 2 << 30  # bytes of all files of an archive
MOST_MEMBERS = 10_000
MOST_AT_ONCE = 4 << 20  # bytes
TIMEOUT_S = 60.0
_verbose = [False]


class DownloadError(KeyDNNError, RuntimeError):
    """A file could not be had, or is not the one that was promised."""


class ArchiveError(KeyDNNError, ValueError):
    """An archive is damaged, too large, or reaches outside its folder."""


def set_verbose(on: bool) -> None:
    """Whether the data set loaders tell what they download.

    Raises:
        TypeError: Not a bool.
    """
    if not isinstance(on, bool):
        raise TypeError(f"set_verbose: expected a bool, got {type(on).__name__}")
    _verbose[0] = on


def download_url(
    url: str, dst: str | os.PathLike[str], *, expected_sha256: str | None = None, verbose: bool = False, max_bytes: int | None = None
) -> Path:
    """Download a file.

    Args:
        url: http or https.
        dst: Where it shall lie; missing folders are made.  A file that is there with the expected digest is kept.
        expected_sha256: Its digest in hexadecimal.
        verbose: Whether to show progress.
        max_bytes: Give up beyond this size.

    Returns:
        ``dst``.

    Raises:
        RuntimeError: It cannot be reached, breaks off, is too large, or has another digest; nothing stands at ``dst`` then
            that did not stand there before.
        ValueError: Another kind of URL.
        OSError: It cannot be written.
    """
    target = Path(dst)
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"download_url: expected an http or https address, got {url!r}")
    if expected_sha256 is not None and target.exists() and sha256_of(target) == expected_sha256.lower():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if expected_sha256 is None:
        part.unlink(missing_ok=True)
    _fetch(url, part, max_bytes, verbose or _verbose[0])
    if expected_sha256 is not None:
        found = sha256_of(part)
        if found != expected_sha256.lower():
            part.unlink()
            raise DownloadError(f"{url}: SHA-256 is {found}, expected {expected_sha256.lower()}; the file was not kept")
    os.replace(part, target)
    return target


def sha256_of(path: Path) -> str:
    """The digest of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, part: Path, max_bytes: int | None, verbose: bool) -> None:
    """Get what is missing of ``part``."""
    import http.client
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "keydnn", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            _check_final(url, answer.geturl())
            if answer.status != 206:
                have = 0  # the server sends all of it
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdecimal() else None
            with open(part, "ab" if have else "wb") as file:
                _copy(url, answer, file, have, total, max_bytes, verbose)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is missing: the digest decides
            raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.URLError | http.client.HTTPException | ConnectionError | TimeoutError):
            raise DownloadError(f"{url}: the download failed: {error}") from error
        raise


def _check_final(url: str, final: str) -> None:
    if not final.lower().startswith(("http://", "https://")):
        raise DownloadError(f"{url}: leads to {final!r}, which is not http or https")


def _copy(url: str, answer: Any, file: IO[bytes], have: int, total: int | None, max_bytes: int | None, verbose: bool) -> None:
    if max_bytes is not None and total is not None and total > max_bytes:
        raise DownloadError(f"{url}: has {total} bytes, at most {max_bytes} are allowed")
    with _progress(url, total, verbose) as advance:
        while chunk := answer.read(CHUNK):
            have += len(chunk)
            if max_bytes is not None and have > max_bytes:
                raise DownloadError(f"{url}: has more than the {max_bytes} bytes that are allowed")
            file.write(chunk)
            advance(len(chunk))
    file.flush()
    os.fsync(file.fileno())
    if total is not None and have < total:
        raise DownloadError(f"{url}: broke off after {have} of {total} bytes; call again to go on")


class _progress:
    """A bar while it is wanted; calling what it gives moves it on."""

    def __init__(self, url: str, total: int | None, shown: bool) -> None:
        self.bar: Any = None
        if shown:
            from rich.progress import Progress

            self.bar = Progress()
            self.task = self.bar.add_task(PurePosixPath(url).name, total=total)

    def __enter__(self) -> Any:
        if self.bar is None:
            return lambda n: None
        self.bar.start()
        return lambda n: self.bar.advance(self.task, n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def extract_tar(archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, max_bytes: int = MOST_UNPACKED) -> Path:
    """Unpack a tar file (plain or compressed) into a new folder.

    Only folders and plain files are made; links, devices and names that lead outside are refused.

    Args:
        archive: The file.
        folder: Must not exist, or be empty.
        max_bytes: Largest sum of the sizes of all files.

    Returns:
        ``folder``.

    Raises:
        ValueError: The archive is damaged, holds too much, or a member is refused; ``folder`` is not made then.
        OSError: A file cannot be read or written.
    """
    import lzma
    import tarfile
    import zlib

    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}-{os.urandom(6).hex()}")
    fresh.mkdir()
    try:
        with _unpacked(archive) as plain, tarfile.open(fileobj=cast(Any, _Modest(plain, archive)), mode="r:") as tar:
            left, count = max_bytes, 0
            for member in tar:
                count += 1
                if count > MOST_MEMBERS:
                    raise ArchiveError(f"{archive}: has more than {MOST_MEMBERS} members")
                left -= _unpack(tar, member, fresh, left, archive)
            while left > 0 and tar.fileobj is not None and (rest := tar.fileobj.read(CHUNK)):
                left -= len(rest)  # the checksum of a compressed file stands at its end
        os.replace(fresh, target)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those of gzip and bz2 have no number
            raise
        raise ArchiveError(f"{archive} is no readable archive, it may be damaged or truncated: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


class _Modest:
    """A file that is read in pieces: tarfile reads a header, such as that of a long name, at once, however long it says it is."""

    def __init__(self, file: IO[bytes], archive: Any) -> None:
        self._file, self._archive = file, archive
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        """At most ``MOST_AT_ONCE`` bytes."""
        if not 0 <= size <= MOST_AT_ONCE:
            raise ArchiveError(f"{self._archive} is damaged: it says that a header has {size} bytes")
        return self._file.read(size)


def _unpacked(archive: str | os.PathLike[str]) -> IO[bytes]:
    """The plain bytes of an archive that may be compressed."""
    import bz2
    import gzip
    import lzma

    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open, b"]\x00\x00\x80": lzma.open}
    with open(archive, "rb") as file:
        start = file.read(6)
    return next((opener for mark, opener in openers.items() if start.startswith(mark)), open)(archive, "rb")


def _unpack(tar: Any, member: Any, folder: Path, left: int, archive: Any) -> int:
    """Write one member; returns its size."""
    path = _inside(folder, member.name, archive)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return 0
    if not member.isreg() or path == folder:
        raise ArchiveError(f"{archive}: member {member.name!r} is no plain file or folder")
    if member.size > left:
        raise ArchiveError(f"{archive}: holds more than the bytes that are allowed")
    path.parent.mkdir(parents=True, exist_ok=True)
    source, written = tar.extractfile(member), 0
    with open(path, "xb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            file.write(chunk)
    if written != member.size:
        raise ArchiveError(f"{archive}: member {member.name!r} is cut short")
    return written


def _inside(folder: Path, name: str, archive: Any) -> Path:
    """The place of a member, which is below ``folder``."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith(("/", "\\")) or any(p == ".." or "\\" in p or ":" in p or "\0" in p for p in parts):
        raise ArchiveError(f"{archive}: member {name!r} would lie outside the folder")
    return folder.joinpath(*parts)
