"""A training loop that records its run and never ends: `python torch_run.py FOLDER calm|explode`."""

import sys

import torch

import tamegrad

torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
guard = tamegrad.watch(model, optimizer, run=sys.argv[1])
step = 0
while True:
    x = torch.randn(16, 8)
    loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    if sys.argv[2] == "explode" and step >= 100:
        loss = loss * 10.0 ** min(step - 100, 36)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
