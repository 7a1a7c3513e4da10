"""DLPack on a GPU: Tensors and other libraries' arrays on the same memory, on whichever device it is."""

import gc

import numpy as np
import pytest
from reference import Foreign

from minicnn import DeviceError, Tensor, from_dlpack
from minicnn.backends import devices

H = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.T, lambda x: x[:, ::2], lambda x: x[1, 1], lambda x: x[2:]])
def test_arrays_come_and_go_without_a_copy(gpu, view):
    array = view(gpu.asarray(H))
    x = from_dlpack(Foreign(array))
    back = gpu.from_dlpack(x)
    for other in (x.data, back):
        assert isinstance(other, gpu.ndarray) and other.dtype == array.dtype
        assert (other.shape, other.strides, other.data.ptr) == (array.shape, array.strides, array.data.ptr)
    array += 1
    np.testing.assert_array_equal(x.numpy(), view(H) + 1)
    np.testing.assert_array_equal((x * 2).numpy(), 2 * (view(H) + 1))
    assert x.device == "gpu:0" and x.__dlpack_device__() == array.__dlpack_device__()


def test_nothing_is_copied_and_nobody_waits(standin):
    x = Tensor(H, device="gpu")
    standin.log.clear()
    from_dlpack(x)
    assert not standin.log


def test_the_importer_names_the_stream_it_works_on(gpu):
    foreign = Foreign(gpu.asarray(H))
    from_dlpack(foreign)
    assert foreign.asked[0]["stream"] == 1 and foreign.asked[0]["max_version"] >= (1, 0)
    x = Tensor(foreign.array)
    for stream in (None, -1, 1):
        assert x.__dlpack__(stream=stream) is not None
    with pytest.raises(ValueError, match="valid stream"):
        x.__dlpack__(stream=-2)
    with pytest.warns(UserWarning, match="Stream 0 is passed"):  # as PyTorch did once, so CuPy takes it
        assert x.__dlpack__(stream=0) is not None


def test_on_the_second_gpu(standin):
    """Whichever is the current one, the exporter's stream is that of the array's."""
    import cupy

    x = Tensor(H, device="gpu:1")
    assert x.__dlpack_device__() == (2, 1) and x.__dlpack__() is not None
    y = from_dlpack(x)
    assert y.device == "gpu:1" and y.data.data.ptr == x.data.data.ptr
    assert cupy.from_dlpack(y).device.id == 1 and cupy.cuda.Device().id == 0


def test_memory_lasts_as_long_as_it_is_used(standin):
    x = Tensor(np.zeros(1 << 20, np.float32), device="gpu")
    used = standin.gpus[0].used
    capsule = x.__dlpack__()
    del x
    gc.collect()
    assert standin.gpus[0].used == used  # a capsule is enough
    y = from_dlpack(Foreign(capsule.opened()))
    del capsule
    assert standin.gpus[0].used == used and y.numpy().sum() == 0
    del y
    assert standin.gpus[0].used == 0


def test_gradients_do_not_share_what_is_imported(gpu):
    x = Tensor(H, requires_grad=True, device="gpu")
    dy = from_dlpack(gpu.asarray(H))
    (x + 1).backward(dy)
    assert x.grad.data.data.ptr != dy.data.data.ptr
    np.testing.assert_array_equal(x.grad.numpy(), H)


def test_what_is_refused(gpu):
    x = Tensor(H, requires_grad=True, device="gpu")
    with pytest.raises(BufferError, match=r"\.detach\(\)"):
        gpu.from_dlpack(x)
    with pytest.raises(BufferError, match="backwards"):
        gpu.from_dlpack(x.detach()[::-1])
    with pytest.raises(TypeError, match="complex64"):
        from_dlpack(gpu.asarray(H.astype(np.complex64)))


def test_no_gpu_to_import_to(standin):
    with pytest.raises(DeviceError, match="'gpu:5': there are 2 GPUs"):
        from_dlpack(Foreign(devices.to_device(H, "gpu"), device=(2, 5)))


@pytest.mark.torch
def test_pytorch_shares_memory(gpu):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU here")
    x = Tensor(H, device="gpu")
    theirs = torch.from_dlpack(x)
    assert theirs.data_ptr() == x.data.data.ptr
    theirs += 1
    np.testing.assert_array_equal(from_dlpack(theirs).numpy(), H + 1)
    with pytest.raises((BufferError, TypeError), match="bfloat16"):
        from_dlpack(theirs.bfloat16())
