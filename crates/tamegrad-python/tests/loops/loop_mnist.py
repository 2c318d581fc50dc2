"""A convolutional network as in pytorch/examples/mnist: Adadelta, a rate that falls by epochs."""

from __future__ import annotations

import torch
from loops_kit import images, outcome, raise_rate, watch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR


class Net(nn.Module):
    """Two convolutions and two linear layers, with dropout."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(256, 32)
        self.fc2 = nn.Linear(32, 4)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = self.dropout2(x)
        return F.log_softmax(self.fc2(x), dim=1)


def run(mode, factor, since=0):
    """Four epochs of training, each followed by a test."""
    torch.manual_seed(1)
    x, y = images(1200, 12)
    train_loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x[:960], y[:960]), batch_size=32, shuffle=True
    )
    test_loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x[960:], y[960:]), batch_size=120
    )
    model = Net()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    guard = watch(mode, model, optimizer)
    losses, accuracies = [], []
    for _ in range(4):
        model.train()
        for data, target in train_loader:
            if len(losses) == since:
                raise_rate(optimizer, factor)
            optimizer.zero_grad()
            output = model(data)
            loss = F.nll_loss(output, target)
            loss.backward()
            if guard is not None:
                guard.log(loss=loss)
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        correct = 0
        with torch.no_grad():
            for data, target in test_loader:
                pred = model(data).argmax(dim=1, keepdim=True)
                correct += pred.eq(target.view_as(pred)).sum().item()
        accuracies.append(correct / 240)
        if guard is not None:
            guard.log(metric=accuracies[-1])
        scheduler.step()
    return outcome(
        {"model": model}, {"optimizer": optimizer}, losses, [guard], accuracies=accuracies
    )
