"""What the emotion words of a data set are called, and which of three classes each is.

Three classes are those of the MEGC 2019 composite (See, Yap, Li, Hong, Wang 2019): negative, positive,
surprise. Sets that the composite does not hold follow its rule; docs/datasets.md states the source of each.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from merveil.mer.data.meta import CLASSES
from merveil.mer.errors import InputError

MODES = ("3", "native")
NEGATIVE, POSITIVE, SURPRISE = 0, 1, 2
SPELLINGS: Mapping[str, str] = {  # of the files at hand -> the word used here
    "happy": "happiness", "sad": "sadness", "angry": "anger", "other": "others", "surprised": "surprise",
    "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "repressed": "repression",
    "ne": "negative", "po": "positive", "sur": "surprise", "su": "surprise",
}  # fmt: skip


@dataclass(frozen=True)
class Emotions:
    """native: the words of a set, in the order of its labels. three: word -> class; a word not in it is left
    out of the three-class task. excluded: (subject, clip) left out of it by name."""

    native: tuple[str, ...]
    three: Mapping[str, int]
    excluded: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    def classes(self, mode: str) -> tuple[str, ...]:
        return CLASSES if check_mode(mode) == "3" else self.native

    def read(self, cell: str) -> list[str]:
        """The set's own words in one cell; several where the sheet gives several. InputError: unknown."""
        words = [SPELLINGS.get(w, w) for w in re.split(r"[\s,;/+&|]+", cell.strip().lower()) if w]
        unknown = [w for w in words if w not in self.native]
        if unknown or not words:
            said = f"unknown emotion {cell!r}" if cell.strip() else "the emotion is blank"
            raise InputError(f"{said}: this set has {', '.join(self.native)}")
        return list(dict.fromkeys(words))

    def label(self, words: list[str], mode: str, subject: str, clip: str) -> int | str:
        """The class of a clip, or the reason why the task leaves it out."""
        if check_mode(mode) == "native":
            return self.native.index(words[0]) if len(words) == 1 else f"several emotions ({'+'.join(words)})"
        if (subject, clip) in self.excluded:
            return "not in the MEGC 2019 list"
        outside = [w for w in words if w not in self.three]
        if outside:
            return f"'{outside[0]}' is none of three classes"
        found = {self.three[w] for w in words}
        return found.pop() if len(found) == 1 else f"several classes ({'+'.join(words)})"


def check_mode(mode: str) -> str:
    if mode not in MODES:
        raise InputError(f"unknown classes {mode!r}: choose one of {', '.join(MODES)}")
    return mode
