"""Losses: functions of outputs and targets."""

from tangrams.nn.losses.rescaled_square import rescaled_square_loss

__all__ = ["rescaled_square_loss"]
