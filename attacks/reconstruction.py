"""How good a rebuilt flow image is: correlation, PSNR, SSIM, endpoint error, retrieval; always against nulls.

Images are float [n, h, w, c]; flow channels are signed and no photographs, so no metric here rests on a
network trained on photographs (docs/attacks.md).
Assumes: truth and guess are in one and the same, publicly known, scale.
"""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.extras import need

Floats = NDArray[np.float64]


def _centred(x: Floats) -> Floats:
    """Per image and channel: mean taken out, length one; a flat channel becomes all zeros."""
    flat = np.asarray(x, dtype=np.float64)
    flat = flat - flat.mean(axis=(-3, -2), keepdims=True)
    length = np.sqrt((flat**2).sum(axis=(-3, -2), keepdims=True))
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-9)


def ncc(guess: Floats, truth: Floats) -> Floats:
    """Normalised cross-correlation per channel [..., c] of images [..., h, w, c], in [-1, 1]."""
    return np.asarray((_centred(guess) * _centred(truth)).sum(axis=(-3, -2)))


def ncc_matrix(guess: Floats, truth: Floats) -> Floats:
    """Mean NCC over channels, every guess [n,...] with every truth [m,...] -> [n, m]."""
    a, b = _centred(guess), _centred(truth)
    c = a.shape[-1]
    return np.asarray(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T) / c


def psnr(guess: Floats, truth: Floats, data_range: float) -> Floats:
    """Peak signal-to-noise ratio in dB per image [n]; an exact copy gives infinity."""
    error = ((np.asarray(guess, np.float64) - truth) ** 2).mean(axis=(-3, -2, -1))
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(data_range**2 / error))


def ssim(guess: Floats, truth: Floats, data_range: float, window: int = 7) -> Floats:
    """Structural similarity per channel [n, c], uniform 7x7 window, sample covariance.

    Source: Wang et al. 2004 with the constants K1 = .01, K2 = .03, the uniform-window form that
    scikit-image computes (a test compares the two).
    """
    ndimage = need("scipy.ndimage", "attacks")
    a, b = np.asarray(guess, np.float64), np.asarray(truth, np.float64)
    size = (1, window, window, 1)
    norm = window**2 / (window**2 - 1.0)

    def mean(x: Floats) -> Floats:
        return np.asarray(ndimage.uniform_filter(x, size=size))

    ma, mb = mean(a), mean(b)
    va, vb, vab = (norm * (mean(p) - q) for p, q in ((a * a, ma * ma), (b * b, mb * mb), (a * b, ma * mb)))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = ((2 * ma * mb + c1) * (2 * vab + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    pad = (window - 1) // 2
    return np.asarray(value[:, pad:-pad, pad:-pad, :].mean(axis=(1, 2)))


def relative_endpoint_error(guess: Floats, truth: Floats, flow: tuple[int, int]) -> Floats:
    """Endpoint error over that of the zero field, per image [n]; `flow` = channels of v and u.

    Both fields have their own mean taken out (a stored min-max map has lost its zero), so 0 is exact, 1 is
    as bad as guessing no motion at all. An image without motion gives NaN.
    """
    index = list(flow)
    a, b = (np.asarray(x, np.float64)[..., index] for x in (guess, truth))
    a, b = a - a.mean(axis=(1, 2), keepdims=True), b - b.mean(axis=(1, 2), keepdims=True)
    error = np.sqrt(((a - b) ** 2).sum(-1)).mean(axis=(1, 2))
    zero = np.sqrt((b**2).sum(-1)).mean(axis=(1, 2))
    return np.divide(error, zero, out=np.full_like(error, np.nan), where=zero > 1e-9)


def match(guess: Floats, truth: Floats) -> NDArray[np.int64]:
    """For every truth the guess assigned to it, by the best total NCC (Hungarian method).

    Matching lifts chance, so nulls must go through it too. Needs at least as many guesses as truths.
    """
    if len(guess) < len(truth):
        raise ValueError(f"{len(guess)} guesses cannot be matched to {len(truth)} images")
    solve = need("scipy.optimize", "attacks").linear_sum_assignment
    rows, columns = solve(-ncc_matrix(truth, guess))
    return np.asarray(columns[np.argsort(rows)], dtype=np.int64)


def ranks(guess: Floats, gallery: Floats, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank (1 = best) of the true clip `index[i]` among `gallery`, sorted by NCC with guess i.

    Ties are broken against the attacker, so a flat guess has the last rank.
    """
    table = ncc_matrix(guess, gallery)
    own = table[np.arange(len(guess)), index]
    return np.asarray((table >= own[:, None] - 1e-12).sum(axis=1), dtype=np.int64)


def null_gain(guess: Floats, truth: Floats, nulls: dict[str, Floats]) -> tuple[Floats, dict[str, float]]:
    """Per image: mean NCC minus that of the best null; and the mean NCC of every null by name.

    nulls: name -> images [n,h,w,c] or one image [1,h,w,c]. The best null is chosen by its mean over all
    images, once, and not image by image, which would be unfair to the attack.
    """
    own = ncc(guess, truth).mean(axis=-1)
    tried = {k: ncc(np.broadcast_to(v, truth.shape), truth).mean(axis=-1) for k, v in nulls.items()}
    means = {k: float(v.mean()) for k, v in tried.items()}
    best = max(means, key=lambda k: means[k])
    return np.asarray(own - tried[best]), means
