"""Finding a GPU: one line for each way in which it can be missing, and never a silent fallback."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import standin as stand_in
import train
from support import options

import minicnn
from minicnn import DeviceError, Tensor
from minicnn import functional as F
from minicnn.backends import devices
from minicnn.backends.cuda import products
from minicnn.backends.cuda.devices import INSTALL, Upload

ROOT = Path(__file__).resolve().parents[2]
SAYS = {  # absence: what the line holds: what is wrong, and what to do
    "no CuPy": r"needs CuPy, which is not installed: pip install 'cupy-cuda13x\[ctk\]>=14,<15'.*or use device 'cpu'",
    "broken CuPy": r"CuPy cannot be imported \(ImportError: libstdc\+\+.*\): install it again, pip install 'cupy-cuda13x\[ctk\]>=14,<15'",
    "incomplete CuPy": r"CuPy is not whole \(No module named 'cuda.pathfinder'\): pip install",
    "two wheels": r"cupy-cuda12x and cupy-cuda13x are installed over each other: pip uninstall cupy-cuda12x cupy-cuda13x",
    "no driver": r"no NVIDIA driver \(libcuda.so.1 was not found\): install one, or use device 'cpu'",
    "driver too old": r"driver is for CUDA 12.4, but the installed CuPy needs 13.2: update .* 'cupy-cuda12x\[ctk\]>=14,<15'",
    "no GPU": r"the driver sees no GPU: look at nvidia-smi, CUDA_VISIBLE_DEVICES",
    "driver mismatch": r"the NVIDIA driver and its library are of different versions: restart",
    "no NVRTC": r"CUDA's library NVRTC cannot be used \(Failure finding .*\): pip install",
    "no cuBLAS": r"CUDA's library cuBLAS cannot be used \(Failure finding .*\): pip install",
    "no memory left": r"the GPU has no memory left; other programs use it \(see nvidia-smi\)",
}


def test_the_versions_to_install_are_those_of_the_extras():
    wanted = re.findall(r'"(cupy-cuda1[23]x\[ctk\][^"]*)"', (ROOT / "pyproject.toml").read_text())
    assert len(wanted) == 2 and all(f"'{what}'" in INSTALL for what in wanted)


def test_every_absence_has_its_line():
    assert set(SAYS) | {"too little memory"} == set(stand_in.absences.ABSENCES)


@pytest.mark.parametrize("absence", SAYS)
def test_what_is_missing_is_said_in_one_line(absence, standin):
    with stand_in.absences.ABSENCES[absence](standin):
        for use in (
            lambda: devices.open_device("gpu"),
            lambda: Tensor([1.0], device="gpu:0"),
            lambda: minicnn.memory_stats(),
        ):
            with pytest.raises(DeviceError, match=SAYS[absence]) as caught:
                use()
            message = str(caught.value)
            assert "\n" not in message and message.startswith("device 'gpu") and len(message) < 400
        assert Tensor([1.0]).device == "cpu"  # which goes on as ever


@pytest.mark.parametrize("absence", SAYS)
def test_a_program_ends_in_one_line_and_status_2(absence, standin, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--device", "gpu"])
    with stand_in.absences.ABSENCES[absence](standin):
        status = options.command(train.main)
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and list(tmp_path.iterdir()) == []
    assert re.fullmatch(rf"train.py: device 'gpu': .*{SAYS[absence]}.*\n", err)


def test_running_out_of_memory_says_what_to_lower(standin):
    with stand_in.absences.ABSENCES["too little memory"](standin):
        x = Tensor(np.zeros((1 << 19,), np.float32), device="gpu")
        with pytest.raises(
            DeviceError, match=r"gpu:0 is out of memory: 0\.0 of its 0\.0 GiB.*smaller batches"
        ) as caught:
            [F.relu(x) for _ in range(4)]  # held until the list would be whole
        assert "\n" not in str(caught.value)
        assert F.relu(Tensor([1.0], device="gpu")).item() == 1  # and it goes on
        del x


def test_a_gpu_is_looked_for_once(standin, monkeypatch):
    assert devices.open_device("gpu") == devices.open_device("gpu:0") == "gpu:0"
    standin.status = 100
    assert devices.open_device("gpu") == "gpu:0"
    with pytest.raises(DeviceError, match="'gpu:1': the driver sees no GPU"):
        devices.open_device("gpu:1")


def test_what_a_gpu_is_like(gpu):
    assert re.fullmatch(r".+, \d+\.\d GiB", devices.describe_device("gpu"))
    assert products.has_tf32("gpu") in (True, False)


def test_an_upload_ends_when_its_copies_have(standin):
    """What they copy from goes back to a pool as soon as nobody holds it, and is written to again."""
    upload = Upload("gpu")
    batch = upload.empty((4,), np.uint8)
    batch[:] = 7
    _, (there,) = upload.send(batch)
    upload.close()
    assert not upload.sent and standin.log.waits and there.get().tolist() == [7] * 4


def test_synchronize(gpu):
    minicnn.synchronize("cpu")
    minicnn.synchronize()
    minicnn.synchronize("gpu:0")


def test_a_constant_has_no_axes(gpu):
    there = devices.to_device(np.zeros((3, 2), np.float32), "gpu")
    number = devices.constant(2.5, np.float32, there)
    assert number.shape == () and number.dtype == np.float32 and number.get() == 2.5


def test_gradients_are_added_where_they_are(standin):
    """Those of a Tensor on a GPU that is not the current one."""
    x = Tensor(np.ones(3, np.float32), device="gpu:1", requires_grad=True)
    (x + x * 2).to("gpu:0").sum().backward()
    assert x.grad.device == "gpu:1" and x.grad.numpy().tolist() == [3, 3, 3]
