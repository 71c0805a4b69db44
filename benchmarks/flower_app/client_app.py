"""The node's side."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_app.task import accuracy, counted, fit, load

app = ClientApp(mods=[counted])


def data(context):
    node = context.node_config
    return load(node["partition-id"], node["num-partitions"], context.run_config["features"])


@app.train()
def train(message: Message, context: Context) -> Message:
    (x, y), _ = data(context)
    arrays = message.content["arrays"]
    weights, bias, loss = fit(arrays["weights"].numpy(), arrays["bias"].numpy(), x, y)
    model = ArrayRecord({"weights": Array(weights), "bias": Array(bias)})
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(y)})
    return Message(RecordDict({"arrays": model, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    _, (x, y) = data(context)
    arrays = message.content["arrays"]
    found = accuracy(arrays["weights"].numpy(), arrays["bias"].numpy(), x, y)
    metrics = MetricRecord({"accuracy": found, "num-examples": len(y)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
