"""Digits, errors and residues: the passes over coefficients that are not transforms.

Every array is flat over coefficients, `count` long, a multiple of 16; residues are uint32 in [0, p). On the
wire a lane is a bit stream of its own and the 16 lanes are interleaved word by word, so that packing and
adding run at the speed of memory.
"""

from typing import Any

import numpy as np

from merveil.protocols.lattice.jit import compiled
from merveil.protocols.lattice.ring import montgomery

_BLOCK = 512  # coefficients at a time: accumulators stay in the first-level cache


@compiled
def gather(out: Any, digits: Any, offset: int, radix: int, each: int) -> None:
    """out[g, m] = sum over i < each of (digits[(g*each + i)*count + m] + offset) * radix^i, uint64.

    A digit beyond the end counts as zero, without the offset.
    """
    groups, count = out.shape
    size, base, shift = digits.shape[0], np.uint64(radix), np.int64(offset)
    for g in range(groups):
        row = out[g]
        for i in range(each - 1, -1, -1):
            start = (g * each + i) * count
            part = digits[start : min(size, start + count)] if start < size else digits[:0]
            for m in range(part.shape[0]):
                row[m] = row[m] * base + np.uint64(part[m] + shift)
            for m in range(part.shape[0], count):
                row[m] *= base


@compiled
def add_message(x: Any, message: Any, error: Any, prime: Any, negative: Any, step: Any, last: Any) -> None:
    """x += error + W * sum_g message[g] * S^g modulo p.

    step: S 2^32 mod p; last: W 2^64 mod p (Montgomery). message: below 2^31 p. error: int32, above -p.
    """
    p, inverse, c, f = np.uint32(prime), np.uint32(negative), np.uint64(step), np.uint64(last)
    acc = np.empty(_BLOCK, dtype=np.uint32)
    for start in range(0, x.shape[0], _BLOCK):
        stop = min(start + _BLOCK, x.shape[0])
        acc[:] = 0
        for g in range(message.shape[0] - 1, -1, -1):
            row = message[g, start:stop]
            for j in range(stop - start):
                acc[j] = montgomery(np.uint64(acc[j]) * c + row[j], p, inverse)
        part, noise = x[start:stop], error[start:stop]
        for j in range(stop - start):
            t = montgomery(np.uint64(acc[j]) * f, p, inverse)
            e = np.uint32(noise[j])
            t = np.uint32(t + min(e, np.uint32(e + p)))
            t = np.uint32(min(t, np.uint32(t - p)) + part[j])
            part[j] = min(t, np.uint32(t - p))


@compiled
def gaussian(out: Any, words: Any, steps: Any) -> None:
    """out = +-(steps at or below the top 63 bits), the sign from the low bit; every step is compared."""
    count = np.empty(_BLOCK, dtype=np.uint64)
    for start in range(0, out.shape[0], _BLOCK):
        stop = min(start + _BLOCK, out.shape[0])
        w = words[start:stop]
        count[:] = 0
        for k in range(steps.shape[0]):
            t = steps[k]
            for j in range(stop - start):
                count[j] += np.uint64((w[j] >> np.uint64(1)) >= t)
        for j in range(stop - start):
            sign = np.int32(w[j] & np.uint64(1))
            out[start + j] = (np.int32(count[j]) ^ -sign) + sign


@compiled
def pack_lanes(out: Any, x: Any, bits: int, lanes: int) -> None:
    """out: zeros, rows of lanes. x: rows of lanes, each below 2^bits. Both flat."""
    for t in range(x.shape[0] // lanes):
        at = t * bits
        w, s = at >> 5, np.uint64(at & 31)
        row, low = x[t * lanes : (t + 1) * lanes], out[w * lanes : (w + 1) * lanes]
        for lane in range(lanes):
            low[lane] |= np.uint32(np.uint64(row[lane]) << s)
        if (at & 31) + bits > 32:
            high = out[(w + 1) * lanes : (w + 2) * lanes]
            for lane in range(lanes):
                high[lane] = np.uint32((np.uint64(row[lane]) << s) >> np.uint64(32))


@compiled
def largest_lanes(data: Any, positions: int, bits: int, lanes: int) -> Any:
    """(largest residue, padding bits or-ed together) of packed residues; data is flat."""
    mask, last = np.uint32((1 << bits) - 1), data.shape[0] // lanes - 1
    top = np.zeros(lanes, dtype=np.uint32)
    for t in range(positions):
        at = t * bits
        w, s = at >> 5, np.uint64(at & 31)
        n = min(w + 1, last)
        low, high = data[w * lanes : (w + 1) * lanes], data[n * lanes : (n + 1) * lanes]
        for lane in range(lanes):
            both = (np.uint64(high[lane]) << np.uint64(32)) | np.uint64(low[lane])
            top[lane] = max(top[lane], np.uint32(both >> s) & mask)
    used = np.uint64(positions * bits - 32 * last)
    spare = np.uint64(0)
    for lane in range(lanes):
        spare |= np.uint64(data[last * lanes + lane]) >> used
    return top.max(), spare


@compiled
def add_lanes(total: Any, data: Any, bits: int, prime: Any, lanes: int) -> None:
    """total += the packed residues, modulo p; both flat."""
    p, mask, last = np.uint32(prime), np.uint32((1 << bits) - 1), data.shape[0] // lanes - 1
    for t in range(total.shape[0] // lanes):
        at = t * bits
        w, s = at >> 5, np.uint64(at & 31)
        n = min(w + 1, last)
        low, high = data[w * lanes : (w + 1) * lanes], data[n * lanes : (n + 1) * lanes]
        row = total[t * lanes : (t + 1) * lanes]
        for lane in range(lanes):
            both = (np.uint64(high[lane]) << np.uint64(32)) | np.uint64(low[lane])
            v = np.uint32(row[lane] + (np.uint32(both >> s) & mask))
            row[lane] = min(v, np.uint32(v - p))


@compiled
def subtract_from(x: Any, total: Any, shift: Any, prime: Any) -> None:
    """x = total - x + shift modulo p, in place."""
    p, e = np.uint32(prime), np.uint32(shift)
    for j in range(x.shape[0]):
        t = np.uint32(total[j] - x[j] + p)
        t = np.uint32(min(t, np.uint32(t - p)) + e)
        x[j] = min(t, np.uint32(t - p))


@compiled
def split(out: Any, x: Any, primes: Any, inverses: Any, step: Any, error: Any, radix: Any) -> Any:
    """Residues to digits: out[i, m]; returns (largest |e|, largest digit, whether anything is left above).

    x: (rows, count). inverses[i, j]: p_j^-1 modulo p_i, j < i. step: W, error: E, radix: R, all below 2^31.
    Garner's mixed radix, then words of 32 bits, divided by W once and by R for each digit.
    """
    rows, count = x.shape
    mixed, words = np.empty(rows, dtype=np.uint64), np.empty(rows, dtype=np.uint64)
    low, w, r = np.uint64(0xFFFFFFFF), np.uint64(step), np.uint64(radix)
    worst, highest, left = np.int64(0), np.uint64(0), False
    for m in range(count):
        for i in range(rows):
            p, v = primes[i], np.uint64(x[i, m])
            for j in range(i):
                v = (v + p - mixed[j] % p) * inverses[i, j] % p
            mixed[i] = v
        words[:] = 0
        for i in range(rows - 1, -1, -1):
            carry = mixed[i]
            for k in range(rows):
                t = words[k] * primes[i] + carry
                words[k], carry = t & low, t >> np.uint64(32)
        e = np.uint64(0)
        for k in range(rows - 1, -1, -1):
            t = (e << np.uint64(32)) | words[k]
            words[k] = t // w
            e = t - words[k] * w
        worst = max(worst, abs(np.int64(e) - np.int64(error)))
        size = rows
        for i in range(out.shape[0]):
            while size > 0 and words[size - 1] == 0:
                size -= 1
            d = np.uint64(0)
            for k in range(size - 1, -1, -1):
                t = (d << np.uint64(32)) | words[k]
                words[k] = t // r
                d = t - words[k] * r
            out[i, m] = np.int64(d)
            highest = max(highest, d)
        for k in range(size):
            left = left or words[k] != 0
    return worst, np.int64(highest), left
