"""DLPack: memory shared with other libraries, for as long as anyone uses it, and written to by nobody who should not."""

import weakref

import numpy as np
import pytest
from cases import CASES, FUNCTIONS
from numpy.lib.stride_tricks import as_strided
from reference import Foreign, fails

from minicnn import DeviceError, Tensor, from_dlpack, nn, optim
from minicnn import functional as F
from minicnn.backends import numpy as fast
from minicnn.tensor import apply

since_2_1, since_2_2 = (
    pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < version, reason=reason)
    for version, reason in (
        ("2.1.0", "before 2.1, NumPy has no DLPack of 2023"),
        ("2.2.0", "before 2.2, NumPy takes all that it imports to be read-only"),
    )
)


ARRAYS = {
    "float64": np.arange(6.0).reshape(2, 3), "float32": np.ones(4, np.float32), "float16": np.ones(4, np.float16),
    "uint8": np.arange(256, dtype=np.uint8), "int64": np.array([-(2**62)]), "flags": np.array([True, False]),
    "transposed": np.arange(6.0).reshape(2, 3).T, "gaps": np.arange(12.0)[1::3], "repeated": as_strided(np.arange(3.0), (2, 3), (0, 8)),
    "a number": np.array(2.5), "nothing": np.zeros((0, 3), np.float32),
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- shared
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_and_go_without_a_copy(name):
    array = ARRAYS[name]
    x = from_dlpack(Foreign(array))
    back = np.from_dlpack(Tensor(array))
    for other in (x.data, back):
        np.testing.assert_array_equal(other, array, strict=True)
        assert other.strides == array.strides or not array.size
        assert np.shares_memory(other, array) or not array.size
    assert x.device == "cpu" and not x.requires_grad and x.grad_fn is None


@since_2_1
def test_the_protocol_is_numpys():
    x, array = Tensor([1.0, 2.0]), np.ones(2)
    assert x.__dlpack_device__() == array.__dlpack_device__() == (1, 0)
    assert "versioned" in repr(x.__dlpack__(max_version=(1, 0))) and "versioned" not in repr(x.__dlpack__())
    assert not np.shares_memory(np.from_dlpack(x, copy=True), x.data)
    fails((BufferError, ValueError), "device", lambda: x.__dlpack__(dl_device=(2, 0)))  # ValueError before NumPy 2.4
    with pytest.raises(TypeError):
        x.__dlpack__(nonsense=1)
    foreign = Foreign(array)
    from_dlpack(foreign)
    assert foreign.asked[0]["max_version"] >= (1, 0)  # so that it may say that it is read-only


def test_a_parameter_of_what_cannot_be_written_is_a_copy():
    """As JAX's arrays cannot."""
    array = np.ones((2, 1), np.float32)
    array.flags.writeable = False
    p = nn.Parameter(array)
    p.grad = Tensor(np.ones((2, 1), np.float32))
    optim.SGD([p], 0.5).step()
    assert p.data.tolist() == [[0.5], [0.5]] and array.tolist() == [[1], [1]]


def test_what_has_no_memory_or_another_sign():
    class Tensors(Foreign):
        def __dlpack_device__(self):
            raise ValueError("no memory")

    class Negated(Foreign):
        def is_neg(self):
            return True

    fails(DeviceError, "from_dlpack: no memory", from_dlpack, Tensors(np.ones(2)))
    fails(BufferError, "resolve_neg", from_dlpack, Negated(np.ones(2)))


@since_2_1
def test_read_only_arrays_stay_read_only():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = from_dlpack(array)
    assert not x.data.flags.writeable and not np.from_dlpack(x).flags.writeable
    fails(BufferError, "readonly", x.__dlpack__)  # the protocol of before 2023 cannot tell


# -------------------------------------------------------------------------------------------------------- not shareable
def test_what_requires_a_gradient_is_not_exported():
    x = Tensor([1.0, 2.0], requires_grad=True)
    for t in (x, x * 2):
        fails(BufferError, r"requires a gradient.*\.detach\(\)", np.from_dlpack, t)
        assert np.shares_memory(np.from_dlpack(t.detach()), t.data)


def test_arrays_that_run_backwards_are_not_exported():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for t in (x[::-1], x[:, ::-1]):
        fails(BufferError, "backwards.*copy", np.from_dlpack, t)
    assert from_dlpack(np.arange(3)[::-1]).data.tolist() == [2, 1, 0]


def test_what_is_not_imported():
    for data in ([1.0], 1.0, None, np.float64(1), memoryview(b"ab")):
        fails(TypeError, f"knows DLPack, not {type(data).__name__}", from_dlpack, data)
    fails(TypeError, "real numbers or booleans, not complex128", from_dlpack, np.array([1j]))
    for array in (np.array(["a"]), np.arange(3, dtype=">f4")):
        fails(BufferError, "DLPack only supports", from_dlpack, array)
    fails(DeviceError, r"kind 8\) is on neither a CPU nor an NVIDIA GPU", from_dlpack, Foreign(np.ones(2), (8, 0)))


def test_a_gpu_array_where_no_gpu_is(monkeypatch):
    def missing(number):
        raise DeviceError(f"there is no {number}")

    monkeypatch.setattr("minicnn.backends.cuda.devices._probe", missing)
    for kind in (2, 13):
        fails(DeviceError, "'gpu:0': there is no 0", from_dlpack, Foreign(np.ones(2), (kind, 0)))


@pytest.mark.parametrize("error", [RuntimeError, TypeError, NotImplementedError])
def test_a_dtype_that_numpy_lacks(monkeypatch, error):
    """As bfloat16, of which there is none without PyTorch."""

    def unsupported(x):
        raise error("Unsupported dtype\nin DLTensor.")

    monkeypatch.setattr(np, "from_dlpack", unsupported)
    foreign = Foreign(np.ones(2))
    fails(BufferError, "from_dlpack of Foreign: Unsupported dtype$", from_dlpack, foreign)
    foreign.dtype = "bfloat16"
    fails(BufferError, "from_dlpack of bfloat16: Unsupported dtype$", from_dlpack, foreign)


# --------------------------------------------------------------------------------------------------------------- memory
LARGE = (fast.memory.LARGE // 4, 4)  # of bytes, which fast.memory.empty recycles


IMPORTERS = {
    "NumPy": np.from_dlpack,
    "minicnn": from_dlpack,
    "PyTorch": lambda x: pytest.importorskip("torch").from_dlpack(x),
    "a capsule that nobody opens": lambda x: x.__dlpack__(),
}


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[1:, ::2], lambda x: x.T])
def test_exported_memory_is_recycled_when_its_importer_lets_it_go(memory, importer, view):
    x = Tensor(fast.memory.empty(LARGE, np.uint8))
    first = x.data.ctypes.data
    other = IMPORTERS[importer](view(x))
    del x
    assert memory.lent_bytes == fast.memory.LARGE and not memory.idle_bytes
    del other
    assert memory.lent_bytes == 0 and fast.memory.empty(LARGE, np.uint8).ctypes.data == first


def test_results_are_on_recycled_memory_and_may_be_exported(memory):
    x = Tensor(np.full((1 << 19,), -1.0, np.float32))
    other = np.from_dlpack(F.relu(x))
    for _ in range(4):
        F.relu(x + 3)
    assert not other.any()


def test_imported_memory_is_kept_alive_and_never_recycled(memory):
    class Array(np.ndarray):
        """One that can be watched."""

    array = np.ones(1 << 19, np.float32).view(Array)
    address, alive = array.ctypes.data, weakref.ref(array)
    x = from_dlpack(array)
    del array
    y = F.relu(x[1:] * 2)
    assert alive() is not None and x.data[0] == 1
    del x
    blocks = [block for blocks in memory.idle.values() for block in blocks]
    assert blocks and alive() is None
    assert not any(block.ctypes.data <= address < block.ctypes.data + block.nbytes for block in blocks)
    assert (y.data == 2).all()


def imported(array):
    """As a Tensor, by way of DLPack, to which nobody can write without an error."""
    x = from_dlpack(Foreign(array.copy()))
    x.data.flags.writeable = False
    return x


@pytest.mark.parametrize("name", CASES)
def test_no_operation_writes_to_what_is_imported(name):
    settings, inputs = CASES[name]
    xs = [imported(x) for x in inputs]
    for x in xs:
        x.requires_grad = True
    y = apply(FUNCTIONS[name](*settings), *xs)
    dy = imported(np.random.default_rng(0).standard_normal(y.shape))
    for _ in range(2):  # the second time .grad is there already
        y.backward(dy, retain_graph=True)
    for x in xs:
        assert not np.shares_memory(x.grad.data, dy.data) and x.grad.data.flags.writeable


def test_training_writes_to_parameters_only():
    images, labels = (
        imported(np.random.default_rng(0).random((128, 12, 12, 3), np.float32)),
        imported(np.arange(128) % 5),
    )
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(800, 5))
    state = {name: imported(array).data for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    assert all((array != state[name]).any() for name, array in net.state_dict().items())


@since_2_2
def test_a_parameter_on_imported_memory_is_learned_there():
    weights = np.ones((2, 1), np.float32)
    layer = nn.Linear(2, 1)
    layer.weight = nn.Parameter(from_dlpack(weights).data)
    layer(Tensor([[1.0, 2.0]])).sum().backward()
    optim.SGD(layer.parameters(), 0.5).step()
    assert weights.tolist() == [[0.5], [0.0]]


# -------------------------------------------------------------------------------------------------------------- PyTorch
@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.torch
@pytest.mark.parametrize("name", ARRAYS)
def test_pytorch_shares_memory(torch, name):
    array = ARRAYS[name].copy()
    theirs = torch.from_dlpack(Tensor(array))
    assert theirs.data_ptr() == array.ctypes.data or not array.size
    back = from_dlpack(theirs)
    np.testing.assert_array_equal(back.data, array, strict=True)
    assert np.shares_memory(back.data, array) or not array.size
    if array.size:
        theirs.view(-1)[0] = 0
        assert array.flat[0] == 0 == back.data.flat[0]


@pytest.mark.torch
def test_pytorchs_tensors_that_cannot_be_shared(torch):
    x = torch.ones(2, requires_grad=True)
    fails(BufferError, r"gradient.*detach\(\)", from_dlpack, x)
    assert from_dlpack(x.detach()).data.tolist() == [1, 1]
    fails(BufferError, "from_dlpack of torch.bfloat16: Unsupported dtype", from_dlpack, x.detach().bfloat16())
    fails(TypeError, "not complex64", from_dlpack, x.detach().to(torch.complex64))
    fails(BufferError, "gradient", torch.from_dlpack, Tensor([1.0], requires_grad=True))
    fails(BufferError, "backwards", torch.from_dlpack, Tensor([1.0, 2.0])[::-1])


@pytest.mark.torch
def test_a_gradient_through_both(torch):
    """A layer of PyTorch's inside a network of ours: arrays cross, each side differentiates its own part."""
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x * x
    theirs = torch.from_dlpack(y.detach()).requires_grad_()
    (theirs**3).sum().backward()
    y.backward(from_dlpack(theirs.grad))
    np.testing.assert_allclose(x.grad.data, 6 * x.data**5)


def test_an_array_that_must_not_be_shared():
    fails(
        BufferError,
        "^from_dlpack of float32: this Tensor requires a gradient",
        from_dlpack,
        nn.Parameter(np.ones(2, "f4")),
    )
    fails(TypeError, "^from_dlpack takes real numbers or booleans, not complex64$", from_dlpack, np.ones(2, "c8"))
