"""The server's side with Flower's SecAgg+ workflow: every node shares with every other, two thirds
rebuild."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import ServerApp

app = ServerApp()


def mean(found):
    total = sum(n for n, _ in found)
    return {"accuracy": sum(n * m["accuracy"] for n, m in found) / total}


@app.main()
def main(grid, context):
    config = context.run_config
    nodes, times, last = config["nodes"], [], {}

    def seen(number, parameters, _):
        times.append(time.time())
        last["arrays"] = [a.tolist() for a in parameters]

    strategy = FedAvg(
        fraction_evaluate=config["evaluate"],
        min_fit_clients=nodes,
        min_available_clients=nodes,
        min_evaluate_clients=nodes,
        evaluate_metrics_aggregation_fn=mean,
        evaluate_fn=seen,
        initial_parameters=ndarrays_to_parameters([np.zeros((config["features"], 3)), np.zeros(3)]),
    )
    legacy = LegacyContext(
        context=context, config=ServerConfig(num_rounds=config["num-server-rounds"]), strategy=strategy
    )
    secagg = SecAggPlusWorkflow(1.0, 2 / 3, clipping_range=8.0, max_weight=1024)
    DefaultWorkflow(fit_workflow=secagg)(grid, legacy)
    scores = dict(legacy.history.metrics_distributed.get("accuracy", []))
    arrays = dict(zip(("weights", "bias"), last["arrays"]))
    Path(config["out"]).write_text(json.dumps({"times": times, "accuracy": scores, "arrays": arrays}))
