"""The same program on both devices, one argument apart: training, checkpoints, seeds, a second GPU, memory."""

import numpy as np
import pytest
from networks import OPTIMIZERS, small_network, train

import minicnn
from minicnn import DeviceError, Tensor, grad, manual_seed, optim, use_backend
from minicnn import functional as F
from minicnn.backends.devices import device_of, to_device

IMAGES = np.random.default_rng(0).standard_normal((6, 15, 15, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same(name, gpu):
    nets = {device: small_network().to(device) for device in ("cpu", "gpu")}
    losses = {}
    for device, net in nets.items():
        manual_seed(5)  # the dropout masks are the same numbers on both
        losses[device] = train(net, OPTIMIZERS[name](net.parameters()), IMAGES, LABELS, 4)
    np.testing.assert_allclose(losses["gpu"], losses["cpu"], rtol=1e-4)
    there = nets["gpu"].state_dict()
    for key, here in nets["cpu"].state_dict().items():
        assert device_of(there[key]) == "gpu:0"
        np.testing.assert_allclose(to_device(there[key], "cpu"), here, rtol=1e-3, atol=2e-4)
    for net in nets.values():
        net.eval()
    here, there = (nets[device](Tensor(IMAGES, device=device)) for device in nets)
    np.testing.assert_allclose(there.numpy(), here.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("base", [optim.SGD, optim.Adam, optim.AdamW])
def test_a_users_update_is_obeyed_there_too(base, gpu):
    """A subclass that overrides update has the last word, and may call what it overrides."""

    class Mine(base):
        def update(self, parameters, group):
            handed.append([type(array) for arrays in parameters for array in arrays])
            super().update([(w, g * 0.0, *state) for w, g, *state in parameters], group)
            for w, g, *_ in parameters:
                w -= np.sign(g)

    handed, params = [], [Tensor(np.full(n, 5.0), requires_grad=True, device="gpu") for n in (3, 2)]
    optimizer = Mine(params, lr=0.1, weight_decay=0.0)
    for p in params:
        p.grad = Tensor(np.arange(-1.0, p.size - 1), device="gpu")
    optimizer.step()
    assert len(handed) == 1 and set(handed[0]) == {gpu.ndarray}
    assert [p.numpy().tolist() for p in params] == [[6, 5, 4], [6, 5]]


def test_the_reference_and_cuda_by_name_agree_there(gpu):
    """As the lessons are written they run on the GPU's arrays, too."""
    x = np.random.default_rng(1).standard_normal((4, 7)).astype(np.float32)
    found = {}
    for name in (None, "cuda", "reference", "numpy"):
        tensor = Tensor(x, requires_grad=True, device="gpu")
        with use_backend(name):
            y = F.local_response_norm(F.relu(tensor), 3, alpha=1.0)
            y.sum().backward()
        assert y.device == tensor.grad.device == "gpu:0"
        found[name] = np.stack([y.numpy(), tensor.grad.numpy()])
    for name in found:
        np.testing.assert_allclose(found[name], found[None], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["cuda"], found[None])
    np.testing.assert_array_equal(found["numpy"], found[None])  # which is for the arrays of a CPU


def test_moving_there_and_back(gpu):
    x = Tensor(IMAGES, requires_grad=True)
    y = x.to("gpu")
    assert y.device == "gpu:0" and y.to("gpu") is y and y.to("cpu").device == "cpu"
    (y * 2).sum().backward()
    assert x.grad.device == "cpu" and (x.grad.data == 2).all()
    y = x.detach().to("gpu")
    y.requires_grad = True
    (g,) = grad((y * y).sum(), y)
    assert g.device == "gpu:0"
    np.testing.assert_allclose(g.numpy(), 2 * IMAGES)
    assert repr(Tensor([1.0, 2.0], device="gpu")) == "Tensor([1., 2.], dtype=float32, device='gpu:0')"
    assert float(Tensor(3.0, device="gpu")) == 3.0


@pytest.mark.parametrize("index", [None, ..., (), (None, ...)])
def test_a_number_is_indexed(index, gpu):
    x = Tensor(2.0, requires_grad=True, device="gpu")
    (x[index] * 3).sum().backward()
    assert x.grad.shape == () and x.grad.item() == 3


def test_a_second_gpu(gpu):
    if gpu.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("this machine has one GPU")
    net = small_network().to("gpu:1")
    train(net, OPTIMIZERS["momentum"](net.parameters()), IMAGES, LABELS, 1)
    assert all(p.device == p.grad.device == "gpu:1" for p in net.parameters())
    x = Tensor([1.0, 2.0], device="gpu:1")
    assert ((x + 1) * x).max().device == "gpu:1" and (x > 1).device == "gpu:1"
    with pytest.raises(DeviceError, match=r"Add: gpu:1 and gpu:0 do not mix.*\.to\('gpu:1'\)"):
        x + x.to("gpu")
    with pytest.raises(DeviceError, match="Mul: gpu:1 and cpu do not mix"):
        x * np.ones(2, np.float32)
    assert gpu.cuda.runtime.getDevice() == 0


def test_arrays_of_two_devices_do_not_mix(gpu):
    here, there = Tensor(np.ones(2, np.float32)), Tensor(np.ones(2, np.float32), device="gpu")
    for a, b, line in (
        (here, there, r"Add: cpu and gpu:0 do not mix: move one with \.to\('cpu'\)"),
        (there, here, r"Add: gpu:0 and cpu do not mix: move one with \.to\('gpu:0'\)"),
        (there, np.ones(2, np.float32), "Add: gpu:0 and cpu"),  # a host array is not moved in silence
    ):
        with pytest.raises(DeviceError, match=line):
            a + b
    assert (there * 2.0).device == (2 - there).device == (there > 0).device == "gpu:0"  # a number is everywhere


def test_a_gpu_that_is_not_there(gpu):
    n = gpu.cuda.runtime.getDeviceCount()
    with pytest.raises(DeviceError, match=f"'gpu:{n}': there (is one GPU|are {n} GPUs), numbered from 0"):
        Tensor([1.0], device=f"gpu:{n}")


def test_memory_stats(gpu):
    before = minicnn.memory_stats()
    x = Tensor(np.zeros((1 << 20,), np.float32), device="gpu")
    after = minicnn.memory_stats("gpu:0")
    assert after["used"] - before["used"] >= 4 << 20 and x.device == "gpu:0"
    assert after["reserved"] >= after["used"] and 0 < after["free"] <= after["total"]
    del x
    assert minicnn.memory_stats()["used"] == before["used"]


def test_labels_there_are_not_waited_for(gpu):
    logits = Tensor(np.zeros((3, 4), np.float32), requires_grad=True, device="gpu")
    losses = F.cross_entropy(logits, Tensor(np.array([0, 4, -1]), device="gpu"), reduction="none")
    losses.sum().backward()
    assert np.isnan(losses.numpy()).tolist() == [False, True, True]
    assert np.isnan(logits.grad.numpy()).any(axis=1).tolist() == [False, True, True]
    with pytest.raises(ValueError, match="labels run from 0 to 4"):
        F.cross_entropy(logits, [0, 1, 4])
