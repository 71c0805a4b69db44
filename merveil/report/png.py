"""Feature images as pictures inside the page: flow as colour, strain as brightness, PNG as a data URI.

Guarantees: no file is referred to; the bytes are a valid PNG (a test decodes them by another library).
"""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def encode(pixels: Pixels) -> bytes:
    """PNG bytes of uint8 [h, w, 3]. Source: PNG specification 1.2, colour type 2, filter 0."""
    h, w = pixels.shape[:2]
    rows = np.concatenate([np.zeros((h, 1), np.uint8), pixels.reshape(h, w * 3)], axis=1)

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def data_uri(pixels: Pixels) -> str:
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode("ascii")


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """To [-1, 1]: the median (still skin) taken out, then the largest magnitude; a flat map stays 0."""
    y = x - np.median(x)
    top = float(np.quantile(np.abs(y), 0.99))
    return np.clip(y / top, -1, 1) if top > 1e-9 else np.zeros_like(y)


def motion(image: NDArray[np.float64], channels: tuple[str, ...]) -> Pixels:
    """A feature image [h, w, c] as uint8 [h, w, 3]: hue = direction of motion, strength = distance from dark.

    Needs channels u and v; otherwise the first three channels (or the first as grey) are shown as they are.
    """
    x = np.asarray(image, dtype=np.float64)
    if not {"u", "v"} <= set(channels):
        first = np.stack([_unit(x[..., i % x.shape[-1]]) for i in range(3)], axis=-1)
        return np.asarray(np.rint((first + 1) * 127.5), dtype=np.uint8)
    u, v = _unit(x[..., channels.index("u")]), _unit(x[..., channels.index("v")])
    return _wheel(np.arctan2(v, u), np.clip(np.hypot(u, v), 0, 1))


def _wheel(angle: NDArray[np.float64], strength: NDArray[np.float64]) -> Pixels:
    """Hue from angle, value from strength: three raised cosines, each 120 degrees apart."""
    parts = [0.5 + 0.5 * np.cos(angle - k * 2 * np.pi / 3) for k in range(3)]
    colour = np.stack(parts, axis=-1) ** 0.8 * strength[..., None] ** 0.7
    return np.asarray(np.rint(255 * (0.06 + 0.94 * colour)), dtype=np.uint8)
