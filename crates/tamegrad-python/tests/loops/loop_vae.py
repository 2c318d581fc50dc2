"""A variational autoencoder as in pytorch/examples/vae: two summed losses, one of them exponential."""

from __future__ import annotations

import torch
from loops_kit import images, outcome, raise_rate, watch
from torch import nn
from torch.nn import functional as F


class VAE(nn.Module):
    """A linear encoder to a normal distribution, and a linear decoder."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 32)
        self.fc21 = nn.Linear(32, 6)
        self.fc22 = nn.Linear(32, 6)
        self.fc3 = nn.Linear(6, 32)
        self.fc4 = nn.Linear(32, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 64))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    """Reconstruction and KL divergence, summed over all elements and the batch."""
    bce = F.binary_cross_entropy(recon_x, x.view(-1, 64), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


def run(mode, factor, since=0):
    """Five epochs of training, each followed by a test and by samples."""
    torch.manual_seed(1)
    x, _ = images(1280, 8, noise=0.3)
    x = (x > 0.0).float()
    train_loader = torch.utils.data.DataLoader(x[:1024], batch_size=32, shuffle=True)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    guard = watch(mode, model, optimizer)
    losses, tests = [], []
    for _ in range(5):
        model.train()
        for data in train_loader:
            if len(losses) == since:
                raise_rate(optimizer, factor)
            optimizer.zero_grad()
            recon_batch, mu, logvar = model(data)
            loss = loss_function(recon_batch, data, mu, logvar)
            loss.backward()
            if guard is not None:
                guard.log(loss=loss)
            losses.append(loss.item())
            optimizer.step()
        model.eval()
        with torch.no_grad():
            recon_batch, mu, logvar = model(x[1024:])
            tests.append(loss_function(recon_batch, x[1024:], mu, logvar).item())
            tests.append(model.decode(torch.randn(4, 6)).mean().item())
    return outcome({"model": model}, {"optimizer": optimizer}, losses, [guard], tests=tests)
