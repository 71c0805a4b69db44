"""The node's side in the older form, which Flower's own SecAgg+ needs."""

from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp

from flower_app.task import accuracy, counted, fit, load


class Client(NumPyClient):
    def __init__(self, train, test):
        self.train, self.test = train, test

    def fit(self, parameters, config):
        weights, bias, loss = fit(*parameters, *self.train)
        return [weights, bias], len(self.train[1]), {"train_loss": loss}

    def evaluate(self, parameters, config):
        return 0.0, len(self.test[1]), {"accuracy": accuracy(*parameters, *self.test)}


def client_fn(context):
    node = context.node_config
    return Client(
        *load(node["partition-id"], node["num-partitions"], context.run_config["features"])
    ).to_client()


app = ClientApp(client_fn=client_fn, mods=[counted, secaggplus_mod])
