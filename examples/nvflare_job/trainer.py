"""An executor as one writes it for NVFlare: least squares on a client's own points, one gradient step."""

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal


def points(client: str) -> tuple[np.ndarray, np.ndarray]:
    """Made-up data of a client: 10 times its number of points, x float64 [n, 4], y float64 [n]."""
    number = int(client.rpartition("-")[2])
    rng = np.random.default_rng(number)
    x = rng.normal(0, 1, (10 * number, 4))
    return x, x @ np.array([1.0, -2.0, 0.5, 0.0]) + rng.normal(0, 0.1, len(x))


class LeastSquares(Executor):
    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        if task_name != "train":
            return make_reply(ReturnCode.TASK_UNKNOWN)
        weights = from_shareable(shareable).data["weights"]
        x, y = points(fl_ctx.get_identity_name())
        weights -= 0.3 * x.T @ (x @ weights - y) / len(y)
        dxo = DXO(DataKind.WEIGHTS, data={"weights": weights})
        dxo.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, len(y))
        return dxo.to_shareable()
