"""Optical strain: how much the skin stretches and shears, from the gradient of the flow."""

import numpy as np
from numpy.typing import NDArray


def optical_strain(flow: NDArray[np.floating]) -> NDArray[np.float32]:
    """|eps| = sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2), the norm of the symmetric strain tensor.

    flow: [h, w, 2], u then v, pixels; result: float32 [h, w], pixels a pixel (no unit), never negative.
    Exact for fields linear in x and y, borders included (central differences inside, one-sided at the
    border). u = a x, v = b y gives sqrt(a^2 + b^2); a rotation gives 0, which the variant of some
    published code, with (u_y^2 + v_x^2) / 2, does not.
    Source: Shreve et al. 2009; Liong et al. 2014 (optical strain features for micro-expressions).
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or min(flow.shape[:2]) < 2:
        raise ValueError(f"a flow field is [h, w, 2] with h, w >= 2, not {list(flow.shape)}")
    field = np.asarray(flow, dtype=np.float32)
    u_y, u_x = np.gradient(field[..., 0])
    v_y, v_x = np.gradient(field[..., 1])
    return np.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2).astype(np.float32)
