"""Files a user keeps are written beside their place and renamed, so that none is ever half-written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def writing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`; on success sync it and rename it to `path`.

    Any error (or interrupt) inside the block removes the temporary file and leaves `path` as it was.
    Raises OSError as the file system does: folder missing or unwritable, disk full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    with writing(path) as file:
        file.write(text.encode())
