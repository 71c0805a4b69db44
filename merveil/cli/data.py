"""What `--data` names: an archive file, or the synthetic source."""

from pathlib import Path
from typing import TYPE_CHECKING

from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

SYNTHETIC = "synthetic"


def is_drawn(source: str) -> bool:
    """Whether this names the synthetic source and no file of that name."""
    return source.partition(":")[0] == SYNTHETIC and not Path(source).exists()


def open_data(source: str) -> "Archive":
    """Load F.npz, or make `synthetic[:subjects=24,clips=8,seed=0]`. InputError names the first fault."""
    if is_drawn(source):
        from merveil.mer.data.synthetic import parse_source, synthetic_archive

        made = parse_source(source)
        return synthetic_archive(made.subjects, made.clips, made.seed)
    if not source:
        raise InputError(
            "--data is missing: name an archive F.npz, or synthetic[:subjects=24,clips=8,seed=0]"
        )
    from merveil.mer.data.archive import load_archive

    return load_archive(source)
