"""The folder of one result: built beside its place, then moved there whole, so none is half-written."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from merveil.mer.errors import InputError


@contextmanager
def result_folder(out: Path, force: bool) -> Iterator[Path]:
    """Give an empty folder beside `out`; when the block ends well, its files become those of `out`.

    Entering makes the parents and the folder, so an unwritable place fails before the work starts. An error
    or interrupt removes it and leaves `out` as it was. With `force`, files of the same names in an existing
    `out` are replaced one by one and others are left alone.
    Raises InputError if `out` exists without `force`, or is a file; OSError as the file system says.
    """
    check_free(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    staged.mkdir()
    try:
        yield staged
        if not out.is_dir():
            os.rename(staged, out)
        else:
            for file in sorted(staged.iterdir()):
                os.replace(file, out / file.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_free(out: Path, force: bool) -> None:
    """Raise InputError where a result may not go to `out`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, not a folder")
    if out.is_dir() and not force:
        raise InputError(f"--out {out} exists: name another folder, or --force to replace its result")
