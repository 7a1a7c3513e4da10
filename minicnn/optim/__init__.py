"""Optimizers and learning-rate schedules."""

from .clip import clip_grad_norm
from .optimizer import SGD, Adam, AdamW, Optimizer
from .schedule import CosineLR, ReduceLROnPlateau, Schedule, StepLR

__all__ = ["SGD", "Adam", "AdamW", "CosineLR", "Optimizer", "ReduceLROnPlateau", "Schedule", "StepLR", "clip_grad_norm"]
