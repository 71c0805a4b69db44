"""Three blurred clusters, a slice for each node, and a softmax regression on them."""

from pathlib import Path

import numpy as np


def load(partition, partitions, features):
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.2 / np.sqrt(features), (3, features))
    labels = rng.integers(0, 3, 200 * partitions)
    x = centres[labels] + rng.normal(0, 1, (len(labels), features))
    mine = np.arange(len(labels)) % partitions == partition
    cut = 20 + 10 * (partition % 5)  # nodes differ in size
    x, labels = x[mine], labels[mine]
    return (x[:-100][:cut], labels[:-100][:cut]), (x[-100:], labels[-100:])


def fit(weights, bias, x, y, steps=20, rate=0.1):
    target = np.eye(3)[y]
    for _ in range(steps):
        scores = x @ weights + bias
        scores -= scores.max(1, keepdims=True)
        p = np.exp(scores)
        p /= p.sum(1, keepdims=True)
        weights = weights - rate * x.T @ (p - target) / len(y)
        bias = bias - rate * (p - target).mean(0)
    return weights, bias, float(-np.log((p * target).sum(1) + 1e-12).mean())


def accuracy(weights, bias, x, y):
    return float(((x @ weights + bias).argmax(1) == y).mean())


def counted(message, context, call_next):
    """A mod that notes the bytes of this node's replies to training messages."""
    reply = call_next(message, context)
    if message.metadata.message_type.startswith("train") and reply.has_content():
        size = sum(record.count_bytes() for record in reply.content.values())
        with (Path(context.node_config["merveil-home"]) / "bytes.txt").open("a") as out:
            out.write(f"{context.run_id} {size}\n")
    return reply
