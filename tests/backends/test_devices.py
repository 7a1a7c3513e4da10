"""minicnn/backends/devices.py: where arrays are, by name."""

import importlib

import numpy as np
import pytest
from reference import refuses

from minicnn import DeviceError
from minicnn.backends import devices


def test_names_of_devices():
    assert devices.open_device("cpu") == "cpu"
    for name in ("tpu", "", "cpu:0", "gpu:x", "gpu:-1", "gpu0", "GPU"):
        with refuses(DeviceError, "unknown device", "'cpu', 'gpu' or 'gpu:N'"):
            devices.open_device(name)


def test_a_gpu_without_cupy_says_what_to_install(monkeypatch):
    def missing(name, *args, real=importlib.import_module):
        if name != "cupy":
            return real(name, *args)
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("gpu", "gpu:0", "gpu:1"):
        with refuses(DeviceError, f"'{name}'", "CuPy, which is not installed: pip install", "cuda13", "'cpu'"):
            devices.open_device(name)
        with refuses(DeviceError, "CuPy"):
            devices.to_device(np.ones(2), name)


def test_arrays_of_the_host_stay_where_they_are():
    x = np.ones(2)
    assert devices.device_of(x) == "cpu" and devices.to_device(x, "cpu") is x
    with refuses(DeviceError, "unknown device"):
        devices.to_device(x, "tpu")
    for function in (devices.describe_device, devices.synchronize):
        assert function("cpu") in ("the host", None)
    with refuses(DeviceError, "memory_stats", "other than the host"):
        devices.memory_stats("cpu")


def test_cuda_is_called_gpu_here():
    for name in ("cuda", "cuda:0"):
        with refuses(DeviceError, f"unknown device '{name}': here it is called 'gpu'"):
            devices.open_device(name)


@pytest.mark.parametrize("device", [3, None, ["cpu"], np.ones(2), b"cpu"])
def test_what_is_no_name_of_a_device(device):
    with refuses(DeviceError, "device must be 'cpu', 'gpu' or 'gpu:N', not "):
        devices.open_device(device)
    assert not devices.is_available(device)


def test_the_host_has_no_memory_statistics():
    with refuses(DeviceError, "memory_stats() is for devices other than the host", "not 'cpu'"):
        devices.memory_stats("cpu")
