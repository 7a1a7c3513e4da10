"""The commands on the pages about the programs run as they stand there, one after the other, in a folder that has what
they name: FOLDER and SOURCE of photographs, DIR of CIFAR-10. Networks are small, and epochs and ablations are few."""

import re
import shlex
import shutil

import frameworks
import numpy as np
import pytest
from programs import EXAMPLES, run_program, write_cifar10
from support import onnx_format  # noqa: F401 (before the layers are made narrow)

COMMAND = re.compile(r"^    python examples/(\S+\.py)([^#\n]*)", re.MULTILINE)
FEW = {
    "alexnet/train.py": ["--epochs", "2"], "cuda_convnet/train.py": ["--epochs", "1", "--no-verify"],
    "ablations/run.py": ["--images", "40", "--epochs", "1", "--seeds", "1", "--no-verify"],
}  # fmt: skip


def commands(page):
    found = COMMAND.findall((EXAMPLES / page).read_text(encoding="utf-8"))
    return [(program, shlex.split(rest.partition(">")[0])) for program, rest in found if "gpu" not in rest]


def succeeds(program, arguments):
    result = run_program(program, *arguments, *FEW.get(program, []))
    assert result.status == 0, f"{program} {arguments}: {result.err}"
    return result


def test_alexnet_s_page(run, photos, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    photos().rename("SOURCE")
    shutil.copytree("SOURCE", "FOLDER")
    shutil.copytree("SOURCE/val/cat", "photos")
    shutil.copy("SOURCE/val/cat/0.jpg", "photo.jpg")
    page, converting = commands("alexnet/README.md"), 0
    for program, arguments in page:
        if program == "alexnet/convert.py":  # see the next test
            shutil.copy("runs/photos/best.safetensors", "alexnet.safetensors")
            converting += 1
            continue
        result = succeeds(program, arguments)
        assert result.out, program
    assert len(page) >= 12 and converting == 3


def test_what_alexnet_s_page_converts(monkeypatch, tmp_path):
    pytest.importorskip("onnx")
    frameworks.narrow(monkeypatch)
    monkeypatch.chdir(tmp_path)
    np.savez("alexnet.npz", **frameworks.weights(frameworks.CAFFE))
    (tmp_path / "synset_words.txt").write_text("".join(f"n{k:08} word {k}\n" for k in range(frameworks.CLASSES)))
    for program, arguments in commands("alexnet/README.md"):
        if program == "alexnet/convert.py":  # from a .npz, for which there need be no PyTorch
            (tmp_path / arguments[1]).unlink(missing_ok=True)
            succeeds(program, [name.replace("alexnet.pth", "alexnet.npz") for name in arguments])
    assert {"alexnet.safetensors", "best.safetensors", "alexnet.onnx"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["cuda_convnet/README.md", "ablations/README.md"])
def test_the_pages_about_cifar10(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path / "DIR", count=20)
    assert len(commands(page)) == 2
    for number, (program, arguments) in enumerate(commands(page)):
        succeeds(program, [*arguments, "--out", f"out{number}"])
