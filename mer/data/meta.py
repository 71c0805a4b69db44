"""What the pixels of an archive mean: the JSON string `meta`, format 1."""

import json
from dataclasses import dataclass
from typing import Any

from merveil.mer.errors import InputError

FORMAT = 1
CHANNELS = ("strain", "v", "u")
CLASSES = ("negative", "positive", "surprise")


@dataclass(frozen=True)
class Meta:
    """Names of channels (last axis of x) and classes (labels 0..K-1), and how the maps were made."""

    format: int = FORMAT
    channels: tuple[str, ...] = CHANNELS
    classes: tuple[str, ...] = CLASSES
    flow: str = "unknown"
    normalisation: str = "unknown"
    apex: str = "unknown"

    def __post_init__(self) -> None:
        if type(self.format) is not int or self.format != FORMAT:
            raise InputError(f"meta has format {self.format!r}; this version reads format {FORMAT}")
        object.__setattr__(self, "channels", _names("channels", self.channels, 1))
        object.__setattr__(self, "classes", _names("classes", self.classes, 2))
        for key in ("flow", "normalisation", "apex"):
            if not isinstance(getattr(self, key), str):
                raise InputError(f"meta: {key} must be text, not {getattr(self, key)!r}")

    def to_json(self) -> str:
        """The canonical JSON string that an archive holds."""
        return json.dumps(
            {
                "format": self.format,
                "channels": list(self.channels),
                "classes": list(self.classes),
                "flow": self.flow,
                "normalisation": self.normalisation,
                "apex": self.apex,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Meta":
        """Parse and validate: format, channels and classes must be there; unknown keys are left alone."""
        try:
            value: Any = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"meta is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise InputError(f"meta must be a JSON object, not {type(value).__name__}")
        missing = [key for key in ("format", "channels", "classes") if key not in value]
        if missing:
            raise InputError(f"meta lacks {', '.join(missing)}; format {FORMAT} needs them")
        known = ("format", "channels", "classes", "flow", "normalisation", "apex")
        return cls(**{key: value[key] for key in known if key in value})


def _names(what: str, value: Any, least: int) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise InputError(f"meta: {what} must be a list of names, not {value!r}")
    names = tuple(value)
    if len(names) < least:
        raise InputError(f"meta: {what} has {len(names)} names; at least {least} are needed")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise InputError(f"meta: {what} has an empty or repeated name: {', '.join(map(repr, names))}")
    return names
