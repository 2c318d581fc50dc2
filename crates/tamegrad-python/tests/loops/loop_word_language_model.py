"""A word-level language model as in pytorch/examples: an LSTM whose state is carried along."""

from __future__ import annotations

import io
import math

import torch
from loops_kit import markov_text, outcome, raise_rate, watch
from torch import nn

VOCABULARY, BPTT, EPOCHS = 24, 8, 4


class RNNModel(nn.Module):
    """Container module with an encoder, a recurrent module, and a decoder."""

    def __init__(self, rnn_type, ntoken, ninp, nhid, nlayers, dropout=0.2):
        super().__init__()
        self.ntoken, self.nhid, self.nlayers, self.rnn_type = ntoken, nhid, nlayers, rnn_type
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        if rnn_type == "LSTM":
            self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout)
        else:
            self.rnn = nn.RNN(ninp, nhid, nlayers, nonlinearity="tanh", dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, input, hidden):
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        decoded = self.decoder(self.drop(output)).view(-1, self.ntoken)
        return nn.functional.log_softmax(decoded, dim=1), hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        zeros = weight.new_zeros(self.nlayers, bsz, self.nhid)
        return (zeros, zeros.clone()) if self.rnn_type == "LSTM" else zeros


def repackage_hidden(h):
    """Wraps hidden states in new tensors, to detach them from their history."""
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


def batchify(data, bsz):
    """Columns of text beside each other."""
    nbatch = data.size(0) // bsz
    return data[: nbatch * bsz].view(bsz, -1).t().contiguous()


def get_batch(source, i):
    """A piece of the columns, and what follows each of its words."""
    seq_len = min(BPTT, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)


def run(mode, factor, since=0, rnn_type="LSTM", update="by hand"):
    """Trains for some epochs, saves the whole model when it got better, tests the saved one."""
    torch.manual_seed(1111)
    text = markov_text(16 * 30 * BPTT + 400, VOCABULARY)
    train_data, val_data = batchify(text[400:], 16), batchify(text[:400], 10)
    lr, clip = (20.0 if rnn_type == "LSTM" else 5.0), 0.25
    model = RNNModel(rnn_type, VOCABULARY, 24, 24, 2)
    criterion = nn.NLLLoss()
    optimizer = None if update == "by hand" else torch.optim.SGD(model.parameters(), lr=lr)
    guard = watch(mode, model, optimizer)
    losses, val_losses, files = [], [], []

    def evaluate(model, data_source):
        model.eval()
        total_loss = 0.0
        hidden = model.init_hidden(10)
        with torch.no_grad():
            for i in range(0, data_source.size(0) - 1, BPTT):
                data, targets = get_batch(data_source, i)
                output, hidden = model(data, hidden)
                hidden = repackage_hidden(hidden)
                total_loss += len(data) * criterion(output, targets).item()
        return total_loss / (len(data_source) - 1)

    def train():
        nonlocal lr
        model.train()
        hidden = model.init_hidden(16)
        for i in range(0, train_data.size(0) - 1, BPTT):
            if len(losses) == since:
                lr *= factor
                if optimizer is not None:
                    raise_rate(optimizer, factor)
            data, targets = get_batch(train_data, i)
            model.zero_grad()
            hidden = repackage_hidden(hidden)
            output, hidden = model(data, hidden)
            loss = criterion(output, targets)
            loss.backward()
            if optimizer is not None:
                if guard is not None:
                    guard.log(loss=loss)
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
            else:
                # `clip_grad_norm` helps prevent the exploding gradient problem in RNNs / LSTMs.
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                if guard is None or guard.step(loss=loss):
                    for p in model.parameters():
                        p.data.add_(p.grad, alpha=-lr)
            losses.append(loss.item())

    best_val_loss = None
    for _ in range(EPOCHS):
        train()
        val_loss = evaluate(model, val_data)
        val_losses.append(val_loss)
        if not best_val_loss or val_loss < best_val_loss:
            f = io.BytesIO()
            torch.save(model, f)
            files.append(f)
            best_val_loss = val_loss
        else:
            # Anneal the learning rate if no improvement has been seen in the validation dataset.
            lr /= 4.0
            if optimizer is not None:
                for group in optimizer.param_groups:
                    group["lr"] /= 4.0

    files[-1].seek(0)
    best = torch.load(files[-1], weights_only=False)
    best.rnn.flatten_parameters()
    test_loss = evaluate(best, val_data)
    assert test_loss == best_val_loss or not math.isfinite(test_loss)
    optimizers = {} if optimizer is None else {"optimizer": optimizer}
    made = outcome(
        {"model": model, "best": best}, optimizers, losses, [guard], lr=lr, val=val_losses
    )
    made.files = [f.getvalue() for f in files]
    return made
