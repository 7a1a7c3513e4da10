"""Optimizers and learning-rate schedules."""

from .optimizer import SGD, Adam, Optimizer
from .schedule import CosineLR, ReduceLROnPlateau, Schedule, StepLR

__all__ = ["SGD", "Adam", "CosineLR", "Optimizer", "ReduceLROnPlateau", "Schedule", "StepLR"]
