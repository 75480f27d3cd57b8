"""Files: read whole within limits, written whole or not at all.  Every command reads and writes through here.

Reading     a folder, an endless device, a pipe that nobody fills and a file larger than memory are refused, with one
            line.
Writing     `atomic`: what was there stays until the new content is complete.  Links are followed, not cut; modes are
            kept, and the umask decides on those of new files; read-only files, folders and other things that are no
            files are refused.  `append`: logs, line by line, under the same rules.
"""
from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nnac.errors import UserError

if TYPE_CHECKING:
    from io import BufferedReader

TEXT_LIMIT = 64 << 20          # bytes of a file that people write: policies, experiments, manifests, listings
ENDLESS = 1 << 30              # bytes that are read of a pipe or a device, which do not say how much they hold
PIPE_WAIT_S = 10.0             # for the first byte of a pipe

_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISBLK, "a disk"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISFIFO, "a pipe"))


class FileError(UserError, OSError):
    """A file that cannot be read or written as asked; one line that begins with its name."""


def kind_of(mode: int) -> str:
    """What a file that is no plain file is, in words."""
    return next((words for test, words in _KINDS if test(mode)), "not a plain file")


def named(path: str | os.PathLike[str]) -> str:
    """``path`` as text.  FileError for names that no file can have: the empty one, which would mean the current folder,
    and those with a NUL."""
    text = os.fspath(path)
    if not text:
        raise FileError("an empty name is no file")
    if "\0" in text:
        raise FileError(f"{text.replace(chr(0), '?')}: no file has a name with a NUL character")
    return text


# ------------------------------------------------------------------------------------------------ reading

def memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 16 << 30


def real(path: str | os.PathLike[str]) -> Path:
    """The place that a name means, links followed.  FileError: a loop of them (`Path.resolve` raises RuntimeError)."""
    try:
        os.stat(named(path))
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: {reason(error)}") from None


def check_source(path: str | os.PathLike[str], limit: int | None = None) -> os.stat_result:
    """FileError where `read` could not begin: absent, a folder, an empty name, larger than ``limit`` (default: than
    half of memory)."""
    try:
        status = os.stat(named(path))
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: {reason(error)}") from None
    if stat.S_ISDIR(status.st_mode) or stat.S_ISBLK(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        raise FileError(f"{os.fspath(path)}: is {kind_of(status.st_mode)}, not a file")
    most = memory() // 2 if limit is None else limit
    if stat.S_ISREG(status.st_mode) and status.st_size > most:
        raise FileError(f"{os.fspath(path)}: {status.st_size:,} bytes are too many: at most {most:,} are read")
    return status


def check_mapped(path: str | os.PathLike[str]) -> None:
    """FileError where a library could not map a file into memory: as `check_source`, and pipes and devices, which have
    no place to go back to (the library would wait for ever for who writes into a pipe)."""
    status = check_source(path)
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{os.fspath(path)}: is {kind_of(status.st_mode)}, and is read in more than one place: "
                        f"write it to a file first")


def read(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """All bytes of a file, pipe or device, at most ``limit`` (default: half of memory).  FileError: one line."""
    status = check_source(path, limit)
    regular = stat.S_ISREG(status.st_mode)
    most = memory() // 2 if limit is None else limit
    most = most if regular and status.st_size else min(most, ENDLESS)
    data = read_first(path, most + 1)
    if len(data) > most:
        what = "holds" if regular else f"is {kind_of(status.st_mode)} that gives"
        raise FileError(f"{os.fspath(path)}: {what} more than {most:,} bytes")
    return data


def read_first(path: str | os.PathLike[str], count: int) -> bytes:
    """The first ``count`` bytes of a file, pipe or device, or all that it has.  FileError: one line."""
    status = check_source(path, sys.maxsize)
    try:
        with open_pipe(path) if stat.S_ISFIFO(status.st_mode) else open(path, "rb") as file:
            if stat.S_ISREG(status.st_mode) and status.st_size:
                return file.read(min(count, status.st_size + 1))          # room for all of it is taken at once
            # what has no size (a device, a file under /proc) may end anywhere, or nowhere
            pieces, size = [], 0
            while size < count and (piece := file.read(min(1 << 20, count - size))):
                pieces.append(piece)
                size += len(piece)
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: {reason(error)}") from None
    return b"".join(pieces)


def open_pipe(path: str | os.PathLike[str]) -> BufferedReader:
    """A named pipe, opened once somebody writes into it; FileError if nobody does: to wait for ever helps no one."""
    import select

    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not select.select([handle], [], [], PIPE_WAIT_S)[0]:
        os.close(handle)
        raise FileError(f"{os.fspath(path)}: a pipe into which nobody writes")
    os.set_blocking(handle, True)
    return open(handle, "rb")


def read_text(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> str:
    """A file of UTF-8 text (a byte order mark is dropped).  FileError: one line, with the place of a byte that is not
    UTF-8."""
    data = read(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(f"{os.fspath(path)}:{line}: not text in UTF-8 (byte {error.start} is "
                        f"{data[error.start]:#04x})") from None


def reason(error: OSError) -> str:
    """Why an operation failed, in the words that people know."""
    words = {errno.ENOENT: "no such file", errno.ENOTDIR: "a part of its path is no folder",
             errno.EISDIR: "is a folder, not a file",
             errno.ELOOP: "a loop of symbolic links", errno.EACCES: "not allowed", errno.EPERM: "not allowed",
             errno.ENXIO: "nobody reads there"}
    return words.get(error.errno or 0, error.strerror or str(error))


# ------------------------------------------------------------------------------------------------ writing

def same(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether two names mean one file: by whatever links, or because writing the one would make the other."""
    try:
        return os.path.samefile(a, b)
    except (OSError, ValueError):
        pass
    try:
        return os.path.realpath(a) == os.path.realpath(b)
    except (OSError, ValueError):
        return False


def clash(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> str | None:
    """The first of ``inputs`` that writing ``output`` would destroy; devices and pipes are not destroyed by writing."""
    for path in inputs:
        if same(output, path) and (not os.path.exists(output) or os.path.isfile(output)):
            return os.fspath(path)
    return None


def check_destination(path: str | os.PathLike[str]) -> os.stat_result | None:
    """FileError where `atomic` would be refused: better before hours of work than after.  Answers what is there now,
    None for nothing."""
    name = named(path)
    try:
        status = os.stat(name)
    except FileNotFoundError:
        folder = Path(os.path.realpath(name)).parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise FileError(f"{name}: {folder} is no folder") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise FileError(f"{name}: the folder {folder} is not writable") from None
        if name.endswith(("/", os.sep)):
            raise FileError(f"{name}: is the name of a folder, not of a file") from None
        return None
    except OSError as error:
        raise FileError(f"{name}: {reason(error)}") from None
    if stat.S_ISDIR(status.st_mode) or stat.S_ISBLK(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        raise FileError(f"{name}: is {kind_of(status.st_mode)}, not a file")
    # root may write everything: the mode is what was meant
    if not status.st_mode & 0o222 or not os.access(name, os.W_OK):
        raise FileError(f"{name}: is read-only; nothing was written")
    return status


@contextmanager
def atomic(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file; on success its content is that of ``path``, in one step; on an error ``path`` is as it
    was.

    A process killed half-way leaves ``path`` as it was (and a ``.tmp`` file that nothing reads).  Symbolic links are
    followed; a file with several names (hard links) keeps them, and is therefore written in place once the content is
    complete; so are devices and pipes. FileError: see the module; OSError names ``path``.
    """
    status = check_destination(path)
    in_place = status is not None and (status.st_nlink > 1 or not stat.S_ISREG(status.st_mode))
    target = Path(path) if in_place else Path(os.path.realpath(path))
    temporary: str | None = None
    try:
        if in_place:
            import tempfile

            handle, temporary = tempfile.mkstemp(suffix=".tmp")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = _beside(target)
        with os.fdopen(handle, mode + ("+" if in_place else ""), encoding=None if "b" in mode else "utf-8",
                       newline=None if "b" in mode else "") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
            if in_place:
                _copy(out.fileno(), target)
        if not in_place:
            if status is not None:
                _like(temporary, status)
            os.replace(temporary, target)
            temporary = None
    except OSError as error:
        if error.filename in (None, temporary, str(target)) or error.filename == os.fspath(path):
            raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
        raise
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def append(path: str | os.PathLike[str]) -> IO[bytes]:
    """A log, open to be added to; its folder is made.  FileError: it is no plain file, or cannot be written."""
    status = check_destination(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise FileError(f"{os.fspath(path)}: is {kind_of(status.st_mode)}, not a file")
    try:
        Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
        return open(path, "ab")
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: {reason(error)}") from None


def _beside(target: Path) -> tuple[int, str]:
    """A new file in the folder of ``target``, with the mode that the umask leaves."""
    for _ in range(100):
        name = str(target.parent / f"{target.name[:80]}.{os.urandom(4).hex()}.tmp")
        with suppress(FileExistsError):
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666), name
    raise FileExistsError(errno.EEXIST, "no name is free for a temporary file", str(target))


def _like(name: str, status: os.stat_result) -> None:
    """Give a new file the owner and mode of the one whose place it takes."""
    if hasattr(os, "chown") and (status.st_uid, status.st_gid) != (os.stat(name).st_uid, os.stat(name).st_gid):
        with suppress(OSError):
            os.chown(name, status.st_uid, status.st_gid)
    os.chmod(name, stat.S_IMODE(status.st_mode))


def _copy(handle: int, target: Path) -> None:
    """The content of an open file into one that is there already."""
    # a pipe that nobody reads is an error, not a wait
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    into = os.open(target, flags)
    try:
        os.set_blocking(into, True)
        regular = stat.S_ISREG(os.fstat(into).st_mode)
        os.lseek(handle, 0, os.SEEK_SET)
        written = 0
        while piece := os.read(handle, 1 << 20):
            view = memoryview(piece)
            while view:
                n = os.write(into, view)
                view, written = view[n:], written + n
        if regular:
            os.ftruncate(into, written)
    finally:
        os.close(into)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text in UTF-8 as the content of ``path``, line ends as they are in it."""
    with atomic(path, "w") as out:
        out.write(text)
