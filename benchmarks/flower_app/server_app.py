"""The server's side."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    model = {"weights": Array(np.zeros((config["features"], 3))), "bias": Array(np.zeros(3))}
    nodes = config["nodes"]
    strategy = FedAvg(
        fraction_evaluate=config["evaluate"],
        min_train_nodes=nodes,
        min_available_nodes=nodes,
        min_evaluate_nodes=nodes,
    )
    times = [time.time()]
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model),
        num_rounds=config["num-server-rounds"],
        evaluate_fn=lambda number, arrays: times.append(time.time()),
    )
    scores = {r: m["accuracy"] for r, m in result.evaluate_metrics_clientapp.items()}
    arrays = {name: result.arrays[name].numpy().tolist() for name in result.arrays}
    found = {"times": times[1:], "accuracy": scores, "arrays": arrays}
    Path(config["out"]).write_text(json.dumps(found))
