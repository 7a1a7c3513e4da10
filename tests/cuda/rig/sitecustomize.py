"""Python imports this at its start, where `python tests/cuda/rig` has put this folder on PYTHONPATH: in
the program and in every process that it starts. The first import of cupy installs the rig."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class _BeforeCuPy(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "cupy":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("cupy")
        if spec is not None and spec.loader is not None:
            import rig

            rig.install()
            execute = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                execute(module)
                rig.finish(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _BeforeCuPy())
