"""The founding example: a network from a paper, and the platform's `lenet` that must be the same one.

`Net`, `criterion`, `optimizer` and the step below are the example as it was given, with the three lines it lacks: the
import of `torch.nn.functional`, `net = Net()` and labels.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # first line that was missing
import torch.optim as optim

from tests.training.given import LENET_LAYERS, Json, document
from tests.training.loops import made_loop
from training import optimizers
from training.losses import criterion as loss_of
from training.models.catalogue import network
from training.spec import TrainSpec, load

pytestmark = pytest.mark.slow


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


BY_NAME: Json = {"kind": "catalogue", "name": "lenet"}
BY_LAYERS: Json = {"kind": "layers", "layers": LENET_LAYERS}


def ours(model: Json, weights_of: nn.Module) -> tuple[TrainSpec, nn.Sequential]:
    """The platform's network of a spec, given the weights of the example's."""
    spec = load(document(model=model))
    assert isinstance(spec, TrainSpec)
    made = network(spec.model, (3, 32, 32), 10)
    with torch.no_grad():
        for mine, theirs in zip(made.parameters(), weights_of.parameters(), strict=True):
            mine.copy_(theirs)
    return spec, made


def flat(tensors: object) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in tensors])  # type: ignore[attr-defined]  # parameters or gradients


@pytest.mark.parametrize("model", [BY_NAME, BY_LAYERS], ids=["by name", "by layers"])
def test_lenet_is_the_founding_network_in_loss_gradients_and_step(model: Json) -> None:
    torch.manual_seed(0)
    net = Net()  # second line that was missing
    spec, made = ours(model, net)
    assert sum(parameter.numel() for parameter in made.parameters()) == 62_006
    my_optimizer = optimizers.build(spec.train.optimizer, made.parameters())
    my_criterion = loss_of(spec.train.loss.name, spec.task)

    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for _ in range(3):  # the first step has no momentum yet
        inputs = torch.randn(1, 3, 32, 32)
        labels = torch.randint(0, 10, (1,))  # third line that was missing
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, labels)
        loss.backward()

        my_optimizer.zero_grad()
        my_loss = my_criterion(made(inputs), labels)
        my_loss.backward()
        assert my_loss.item() == pytest.approx(loss.item(), abs=1e-6)
        gradients = flat(parameter.grad for parameter in net.parameters())
        assert torch.allclose(flat(parameter.grad for parameter in made.parameters()), gradients, rtol=0, atol=1e-6)

        optimizer.step()
        my_optimizer.step()
        assert torch.allclose(flat(made.parameters()), flat(net.parameters()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", [BY_NAME, BY_LAYERS], ids=["by name", "by layers"])
def test_the_loop_does_the_founding_step(model: Json) -> None:
    torch.manual_seed(1)
    net = Net()
    spec, made = ours(model, net)
    inputs, labels = torch.randn(1, 3, 32, 32), torch.randint(0, 10, (1,))
    made_loop(spec, made, inputs, labels, batch_size=1, epochs=1).run()

    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    nn.CrossEntropyLoss()(net(inputs), labels).backward()
    optimizer.step()
    assert torch.allclose(flat(made.parameters()), flat(net.parameters()), rtol=0, atol=1e-6)


def test_plain_gradient_descent_is_momentum_0_on_the_whole_batch() -> None:
    torch.manual_seed(2)
    net = Net()
    before = copy.deepcopy(net)
    inputs, labels = torch.randn(12, 3, 32, 32), torch.from_numpy(np.arange(12) % 10)
    spec, made = ours(BY_NAME, net)
    plain = spec.train.optimizer.model_copy(update={"lr": 0.1, "momentum": 0.0})
    made_loop(spec, made, inputs, labels, optimizer=plain, batch_size=1_000_000, epochs=3).run()

    for _ in range(3):  # w ← w − lr · gradient of the mean loss, and nothing else
        net.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    assert torch.allclose(flat(made.parameters()), flat(net.parameters()), rtol=0, atol=1e-6)
    assert not torch.allclose(flat(before.parameters()), flat(net.parameters()), atol=1e-3)
