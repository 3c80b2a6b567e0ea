"""Removes a folder that other users may change meanwhile. Standard library only, because the keeper uses it too.

No path below the folder is ever followed: directories are opened by descriptor without following links, checked, and
flattened (what is deep is renamed up to the top), so that neither a deep tree nor a link created at the right moment
can redirect the removal. Every call is bounded in time.
"""

import os
import stat
import time
from pathlib import Path

REMOVE_TIMEOUT = 3.0
"""Seconds after which a folder is left that keeps being filled, or that cannot be removed."""

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LOOKED_AT = getattr(os, "O_PATH", os.O_RDONLY)


def remove_tree(folder: Path, timeout: float = REMOVE_TIMEOUT) -> bool:
    """Remove ``folder`` and everything in it, also read-only files. Blocking and bounded; never raises.

    Return whether it is gone. Files of other users and mounts are left. ``folder`` itself must be a directory of our
    user, or lie where only our user can write. The path to it is trusted.
    """
    try:
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # it can be entered and not listed, as the folder of sessions
        try:
            parent = os.open(folder.parent, _LOOKED_AT | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
    except OSError:
        return not os.path.lexists(folder)
    try:
        return _remove(parent, folder.name, time.monotonic() + timeout)
    except OSError:
        return False
    finally:
        os.close(parent)


def _remove(parent: int, name: str, deadline: float) -> bool:
    try:
        before = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(before.st_mode) or not (before.st_uid == os.geteuid() or _is_ours_alone(parent)):
        return False
    top = _opened(parent, name)
    if top is None:
        return False
    try:
        while time.monotonic() < deadline:
            if _emptied(top, deadline):
                try:
                    os.rmdir(name, dir_fd=parent)
                except FileNotFoundError:
                    return True
                except OSError:  # something has come meanwhile, or it was renamed
                    time.sleep(0.01)
                    continue
                return True
            time.sleep(0.01)  # a process in its last moment may still be writing
        return False
    finally:
        os.close(top)


def _is_ours_alone(directory: int) -> bool:
    """Return whether only our user could have written into the directory."""
    seen = os.fstat(directory)
    return seen.st_uid == os.geteuid() and not seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _emptied(top: int, deadline: float) -> bool:
    """Remove the contents of ``top``. Return whether all of it could be removed."""
    stuck: set[str] = set()
    moved = 0
    while names := [name for name in os.listdir(top) if name not in stuck]:
        for name in names:
            if time.monotonic() > deadline:
                return False
            if _unlinked(top, name):
                continue
            directory = _opened(top, name)
            if directory is None:
                stuck.add(name)
                continue
            try:
                moved = _lifted(directory, top, moved, deadline)
                os.rmdir(name, dir_fd=top)
            except FileNotFoundError:
                continue
            except OSError:
                stuck.add(name)
            finally:
                os.close(directory)
    return not stuck


def _lifted(directory: int, top: int, moved: int, deadline: float) -> int:
    """Unlink the files of ``directory``, and rename its subdirectories up to ``top``."""
    for name in os.listdir(directory):
        if time.monotonic() > deadline:
            break
        if _unlinked(directory, name):
            continue
        _opened_and_closed(directory, name)  # a directory that we may not write cannot be renamed
        while True:
            moved += 1
            try:
                os.rename(name, f".{moved}", src_dir_fd=directory, dst_dir_fd=top)
            except OSError as error:
                if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)) or error.errno == 39:
                    continue
            break
    return moved


def _unlinked(directory: int, name: str) -> bool:
    """Unlink anything but a directory. Return whether it is gone."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _opened_and_closed(directory: int, name: str) -> None:
    opened = _opened(directory, name)
    if opened is not None:
        os.close(opened)


def _opened(directory: int, name: str) -> int | None:
    """A directory, made accessible to its owner where it is ours and is not; None for what is no directory or closed.

    The mode is changed through the descriptor, so that it is the inode that was looked at whatever the name is now.
    """
    try:
        looked_at = os.open(name, _LOOKED_AT | _DIRECTORY, dir_fd=directory)
    except OSError:
        return None
    try:
        seen = os.fstat(looked_at)
        if seen.st_uid == os.geteuid() and seen.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            Path(f"/proc/self/fd/{looked_at}").chmod(stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=looked_at)
    except OSError:
        return None
    finally:
        os.close(looked_at)
