"""A small GPT-2 from scratch under the Trainer of Transformers, watched by the callback."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from loops_kit import markov_text, outcome, raise_rate
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tamegrad.integrations.transformers import TamegradCallback


class RateRise(TrainerCallback):
    """Raises the rate at a step, as a wrong schedule does."""

    def __init__(self, factor, since):
        self.factor, self.since = factor, since

    def on_step_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        if state.global_step == self.since:
            inner = getattr(optimizer, "optimizer", optimizer)
            raise_rate(inner, self.factor, getattr(lr_scheduler, "scheduler", lr_scheduler))


def run(mode, factor, since=0):
    """Sixty steps of two micro-batches each, with checkpoints and an evaluation."""
    torch.manual_seed(1)
    text = markov_text(60 * 2 * 8 * 16 + 512, 24)
    rows = [{"input_ids": row, "labels": row} for row in text.split(16)]
    config = GPT2Config(
        vocab_size=24,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            max_steps=60,
            learning_rate=5e-3,
            warmup_steps=6,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=30,
            save_strategy="steps",
            save_steps=30,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            logging_nan_inf_filter=False,
            seed=3,
        )
        model = GPT2LMHeadModel(config)
        guarding = TamegradCallback(mode) if mode else None
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows[32:],
            eval_dataset=rows[:32],
            callbacks=[RateRise(factor, since), *([guarding] if guarding else [])],
        )
        # What it logs goes to stdout otherwise, a line a step.
        trainer.remove_callback(transformers_printer())
        trainer.train()
        saved = sorted(path.name for path in Path(folder).iterdir())
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    evaluations = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return outcome(
        {"model": model},
        {"optimizer": optimizer},
        losses,
        [guarding.guard if guarding else None],
        norms=[e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e],
        evaluations=evaluations,
        saved=saved,
    )


def transformers_printer():
    """The callback that prints every log."""
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
