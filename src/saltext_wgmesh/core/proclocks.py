"""Who holds a lock, as the kernel tells it in ``/proc/locks`` (proc_locks(5)); nothing is locked to find out."""

from __future__ import annotations


def holder(text: str, device: tuple[int, int], inode: int) -> int | None:
    """The process that holds the flock(2) of a file, given by the major and minor number of its *device* and its
    *inode*; None if none does, or none that this process may see."""
    place = f"{device[0]:02x}:{device[1]:02x}:{inode}"
    lines = (line.split() for line in text.splitlines())
    return next((int(words[4]) for words in lines if words[1] == "FLOCK" and words[5] == place), None)
