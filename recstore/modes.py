"""Who may read and write a file that takes another's place."""

from pathlib import Path


def take_mode(path: Path, beside: Path) -> None:
    """Makes the empty file `beside` with the mode of `path`, whose place it is to take, writable for its owner; nothing where
    there is no such file. Raises OSError."""
    if path.exists():
        beside.touch(mode=0o600)
        beside.chmod(path.stat().st_mode & 0o777 | 0o600)
