"""One process per device. A second opener is refused by PCIe; on USB it crashes the first one (edgetpu#237).

The lock is a flock, held by the process that opened the device and by the children it gives the descriptor to: it is
free when the last of them is gone, however they ended. Containers that share a device must share the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path

from .errors import BusyError


def lock_folder() -> Path:
    """Where all users of this machine find the same files."""
    shared = Path("/run/lock")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


class DeviceLock:
    """Holds a device from its making to `release`. Raises BusyError, which names the owner."""

    def __init__(self, device: str, folder: Path | None = None) -> None:
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", device).strip("_")
        self.path = (folder or lock_folder()) / f"dgdm-tpu-{name}.lock"
        self.fd = _open(self.path)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self.fd, 20, 0).decode(errors="replace").strip()
            os.close(self.fd)
            raise BusyError(
                f"{device} belongs to process {owner or 'unknown'}, or to a child of it: one process per device"
            ) from None
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give it up; may be called twice. A child that holds the descriptor goes on holding it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def is_locked(device: str, folder: Path | None = None) -> str | None:
    """Who holds a device, in words, or None."""
    try:
        DeviceLock(device, folder).release()
    except BusyError as error:
        return str(error)
    return None


def _open(path: Path) -> int:
    try:
        # without O_CREAT: a folder with the sticky bit lets nobody "create" another user's file
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.fchmod(fd, 0o666)  # whatever the umask: others must be able to ask
        return fd
