"""PPO as stable-baselines3 does it: the policy is evaluated, not called, and clipped inside."""

from __future__ import annotations

import gymnasium
import numpy
from loops_kit import outcome, watch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

ROLLOUT, ROLLOUTS, BATCH, EPOCHS = 128, 8, 32, 4


class Follow(gymnasium.Env):
    """Shows a place in the plane; the quarter that it lies in is the right answer."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(), {}

    def show(self):
        self.place = self.np_random.uniform(-1.0, 1.0, 2).astype(numpy.float32)
        return self.place

    def step(self, action):
        right = 2 * int(self.place[0] > 0) + int(self.place[1] > 0)
        reward = 1.0 if int(action) == right else 0.0
        self.steps += 1
        return self.show(), reward, self.steps == 8, False, {}


class Progress(BaseCallback):
    """Keeps what each rollout earned, and the mean loss of the values in the training before it."""

    def __init__(self):
        super().__init__()
        self.rewards, self.value_losses = [], []

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        if "train/value_loss" in self.logger.name_to_value:
            self.value_losses.append(float(self.logger.name_to_value["train/value_loss"]))

    def _on_rollout_end(self):
        self.rewards.append(float(self.model.rollout_buffer.rewards.mean()))

    def _on_training_end(self):
        self._on_rollout_start()


def run(mode, factor, since=0):
    """Eight rollouts with 16 updates after each."""
    updates = ROLLOUT // BATCH * EPOCHS
    first = since // updates

    def rate(progress_remaining):
        rollout = round((1.0 - progress_remaining) * ROLLOUTS) - 1
        return 1e-3 * (factor if rollout >= first else 1.0)

    model = PPO(
        "MlpPolicy",
        Follow(),
        learning_rate=rate,
        n_steps=ROLLOUT,
        batch_size=BATCH,
        n_epochs=EPOCHS,
        gamma=0.5,
        seed=1,
        device="cpu",
    )
    guard = watch(mode, model.policy, model.policy.optimizer)
    progress = Progress()
    model.learn(total_timesteps=ROLLOUT * ROLLOUTS, callback=progress)
    chance = numpy.random.get_state()[1].tobytes()
    return outcome(
        {"policy": model.policy},
        {"optimizer": model.policy.optimizer},
        [loss for loss in progress.value_losses for _ in range(updates)],
        [guard],
        rewards=progress.rewards,
        numpy=chance,
        last=model.rollout_buffer.observations.tobytes(),
    )
