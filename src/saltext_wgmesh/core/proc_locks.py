"""The holder of a file lock, read from ``/proc/locks`` (proc_locks(5)), so that no lock is taken to find out."""

from __future__ import annotations


def lock_holder(text: str, device: tuple[int, int], inode: int) -> int | None:
    """Return the process that holds the flock(2) of a file.

    *text* is that of ``/proc/locks``; *device* (major and minor number) and *inode* name the file. None if no process
    holds the lock, or none that this process may see.
    """
    # The kernel prints the device in hex and the inode in decimal.
    wanted = f"{device[0]:02x}:{device[1]:02x}:{inode}"
    entries = (line.split() for line in text.splitlines())
    return next((int(fields[4]) for fields in entries if fields[1] == "FLOCK" and fields[5] == wanted), None)
