"""A federated PyTorch loop as one writes it by hand, with its mean made secure by two lines.

    python examples/pytorch_loop.py

Eight clients hold slices of a two-spirals set. All parties live in this process, so it shows the interface
and the cost and protects nobody; over a network use `client_session` (examples/https_service.py) or
`merveil site`.
"""

import torch

from merveil import SecureAggregator

torch.manual_seed(0)
torch.set_num_threads(1)  # the networks are tiny


def spirals(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.rand(n) * 6
    y = torch.randint(0, 2, (n,))
    turn = angle + 3.1416 * y
    return torch.stack([turn.cos(), turn.sin()], 1) * angle[:, None] + 0.1 * torch.randn(n, 2), y


def train(state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """A client's update: its own weights after local training, minus the ones it started from."""
    net.load_state_dict(state)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    for _ in range(10):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return {name: value.detach() - state[name] for name, value in net.state_dict().items()}


net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
clients = [spirals(60 + 10 * i) for i in range(8)]
test_x, test_y = spirals(500)
state = {name: value.clone() for name, value in net.state_dict().items()}
aggregator = SecureAggregator("secagg+", clip=1.0, bits=20)  # new

for round_ in range(12):
    updates = [train(state, x, y) for x, y in clients]
    # before: mean = {k: sum(len(c[1]) * u[k] for c, u in zip(clients, updates)) / total for k in state}
    mean = aggregator.mean(updates, weights=[len(y) for _, y in clients], drop={round_ % 8: "MASKED"})  # new
    state = {name: value + mean.value[name] for name, value in state.items()}

net.load_state_dict(state)
score = float((net(test_x).argmax(1) == test_y).float().mean())
print(f"accuracy {score:.3f} after 12 rounds, each without one client that dropped out in mid-round")
assert score > 0.8 and len(mean.survivors) == 7
