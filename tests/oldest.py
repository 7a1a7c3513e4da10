"""Constraints for pip: the oldest version of each package that pyproject.toml allows, for `make oldest`."""

import re
from pathlib import Path

text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
project = text[text.index("[project]") : text.index("[tool.")]
for name, version in sorted(set(re.findall(r'"([a-z0-9-]+)>=([0-9.]+)"', project))):
    print(f"{name}=={version}")
