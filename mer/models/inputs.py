"""The per-clip normalisation of merveil's networks: zero flow at 0 and every clip of equal strength."""

import torch

CUT = 4.0  # of the normalised flow


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """[..., h, w, c] -> [..., c, h, w], as two transpositions, which ONNX has for any number of axes."""
    return images.transpose(-1, -2).transpose(-2, -3)


def flow_normalised(images: torch.Tensor) -> torch.Tensor:
    """Images [..., h, w, c] minus each channel's median, over its root mean square, cut at 4; same shape.

    The published byte maps put zero flow at any grey value, so a clip is its own reference. Differentiable,
    except in the place of the median; of operations that ONNX has.
    """
    flat = images.flatten(-3, -2)
    count = flat.shape[-2]
    upper = flat.topk(count // 2 + 1, dim=-2).values  # the median is the last, or the mean of the last two
    middle = upper[..., -1:, :] if count % 2 else (upper[..., -1:, :] + upper[..., -2:-1, :]) / 2
    flat = flat - middle
    scale = flat.square().mean(-2, keepdim=True).sqrt()
    flat = (flat / scale.clamp_min(1e-6)).clamp(-CUT, CUT)
    return flat.unflatten(-2, images.shape[-3:-1])
