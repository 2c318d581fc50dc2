"""A generative adversarial network as in pytorch/examples/dcgan: two networks against each other."""

from __future__ import annotations

import torch
from loops_kit import images, outcome, raise_rate, watch
from torch import nn

NZ, NGF, NDF, STEPS, BATCH = 8, 8, 8, 90, 32


def weights_init(m):
    """Small normal weights, as the paper has them."""
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


class Generator(nn.Module):
    """From noise to images of 16 by 16."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(NZ, NGF * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(NGF * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(NGF * 2, NGF, 4, 2, 1, bias=False),
            nn.BatchNorm2d(NGF),
            nn.ReLU(True),
            nn.ConvTranspose2d(NGF, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, input):
        return self.main(input)


class Discriminator(nn.Module):
    """From images of 16 by 16 to the probability that they are real."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, NDF, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(NDF, NDF * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(NDF * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(NDF * 2, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, input):
        return self.main(input).view(-1, 1).squeeze(1)


def run(mode, factor, since=0, guards="two"):
    """Updates D with all-real and all-fake batches, then G through D, in turn."""
    torch.manual_seed(3)
    data, _ = images(STEPS * BATCH, 16, classes=2)
    data = torch.tanh(data)
    netG, netD = Generator(), Discriminator()
    netG.apply(weights_init)
    netD.apply(weights_init)
    criterion = nn.BCELoss()
    optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
    if guards == "two":
        guardD, guardG = watch(mode, netD, optimizerD), watch(mode, netG, optimizerG)
    else:
        both = nn.ModuleDict({"D": netD, "G": netG})
        guardD = guardG = watch(mode, both, [optimizerD, optimizerG])
    losses = []
    for step, real in enumerate(data.split(BATCH)):
        if step == since:
            raise_rate(optimizerD, factor)
            raise_rate(optimizerG, factor)

        # (1) Update D network: maximize log(D(x)) + log(1 - D(G(z))).
        netD.zero_grad()
        label = torch.full((BATCH,), 1.0)
        output = netD(real)
        errD_real = criterion(output, label)
        errD_real.backward()
        noise = torch.randn(BATCH, NZ, 1, 1)
        fake = netG(noise)
        label.fill_(0.0)
        output = netD(fake.detach())
        errD_fake = criterion(output, label)
        errD_fake.backward()
        errD = errD_real + errD_fake
        if guardD is not None:
            guardD.log(loss=errD)
        optimizerD.step()

        # (2) Update G network: maximize log(D(G(z))).
        netG.zero_grad()
        label.fill_(1.0)
        output = netD(fake)
        errG = criterion(output, label)
        errG.backward()
        if guardG is not None:
            guardG.log(loss=errG)
        optimizerG.step()
        losses.append(errD.item() + errG.item())
    return outcome(
        {"netD": netD, "netG": netG},
        {"optimizerD": optimizerD, "optimizerG": optimizerG},
        losses,
        [guardD, guardG] if guards == "two" else [guardD],
    )
