"""Neural networks: modules that own parameters, and where those parameters start."""

from . import init
from .layers import *
from .layers import __all__ as _layers
from .module import Module, ModuleList, Parameter, Sequential

__all__ = ["Module", "ModuleList", "Parameter", "Sequential", "init"]
__all__ += _layers
