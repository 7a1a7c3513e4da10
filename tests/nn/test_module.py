"""Module, Parameter, Sequential: contents, modes, state, hooks and what they print."""

import collections
import copy
import types
import weakref

import numpy as np
import pytest
from reference import fails

import minicnn
from minicnn import Tensor, nn
from minicnn import functional as F


class Block(nn.Module):
    """Parameters, a buffer, modules and other things, out of alphabetical order."""

    def __init__(self):
        self.shift = nn.Parameter(np.zeros(3, np.float32))
        self.linear = nn.Linear(3, 3)
        self.register_buffer("count", np.zeros(2, int))
        self.norm = nn.BatchNorm2d(3)
        self.note = "not a part"
        self.constant = Tensor([1.0])
        self.inner = nn.Sequential(nn.ReLU(), nn.Dropout())
        self.absent = None
        self.alpha = nn.Parameter(np.ones((1, 3), np.float32))

    def forward(self, x):
        return self.inner(self.norm(self.linear(x) + self.shift)) * self.alpha


NAMES = "shift linear.weight linear.bias count norm.gamma norm.beta norm.running_mean norm.running_var alpha".split()
BUFFERS = {"count", "norm.running_mean", "norm.running_var"}


# ------------------------------------------------------------------------------------------------------------ contents
def test_contents_come_in_the_order_of_assignment():
    block = Block()
    assert list(block.state_dict()) == NAMES
    assert [name for name, _ in block.named_parameters()] == [name for name in NAMES if name not in BUFFERS]
    assert all(a is b for a, (_, b) in zip(block.parameters(), block.named_parameters(), strict=True))
    assert list(block.children()) == [block.linear, block.norm, block.inner]
    assert list(block.named_children()) == [("linear", block.linear), ("norm", block.norm), ("inner", block.inner)]
    relu = nn.ReLU()
    assert list(nn.Sequential(relu, relu).children()) == [relu, relu]
    modules = dict(block.named_modules())
    assert list(modules) == ["", "linear", "norm", "inner", "inner.0", "inner.1"]
    assert modules[""] is block and modules["inner.1"] is block.inner[1]


# ------------------------------------------------------------------------------------------- what would be lost silently
@pytest.mark.parametrize(
    "make",
    [
        lambda m: [m],
        lambda m: (nn.ReLU(), m),
        lambda m: {"a": m},
        lambda m: {m},
        lambda m: [[], [1, {"a": (m,)}]],
    ],
)
def test_plain_containers_of_modules_or_parameters_are_refused(make):
    net = nn.Module()
    for part, words in (
        (nn.Linear(2, 2), "a Module.*nn.(ModuleList|Sequential)"),
        (nn.Parameter([1.0]), "an? (Module|Parameter).*nn.ModuleList"),
    ):
        value = make(part)
        message = fails(TypeError, words, setattr, net, "layers", value)
        assert f"Module.layers is a {type(value).__name__} that holds" in message and not hasattr(net, "layers")
        assert ("nn.Sequential(**modules)" in message) == (type(value) is dict and "a Module" in words)


def test_a_list_that_is_filled_later_is_refused_when_parameters_are_asked_for():
    net = nn.Sequential(nn.Linear(2, 2))
    net.layers = []
    assert len(list(net.parameters())) == 2
    net.layers.append(nn.Linear(2, 2))
    for ask in (net.parameters, net.state_dict, net.zero_grad, lambda: nn.Sequential(net).parameters()):
        fails(TypeError, "Sequential.layers is a list that holds a Module", lambda ask=ask: list(ask() or ()))


def test_other_things_may_be_in_lists():
    net = nn.Module()
    net.sizes, net.names, net.constants = [1, (2, 3)], {"a": "b", "c": [None]}, [Tensor([1.0])]
    assert list(net.parameters()) == [] and net.state_dict() == {}
    remove = net.register_forward_hook(nn.Sequential())  # a Module can be called: it may be a hook
    remove()


@pytest.mark.parametrize("value", [np.ones((2, 3)), Tensor(np.ones((2, 3))), 0.0, lambda: None, [1.0]])
def test_a_parameter_is_not_replaced_by_something_else(value):
    linear = nn.Linear(2, 3)
    weight = linear.weight
    message = fails(TypeError, "Linear.weight is a Parameter and would be lost", setattr, linear, "weight", value)
    assert type(value).__name__ in message and "weight.data[...] = " in message and "nn.Parameter(" in message
    assert linear.weight is weight


def test_a_parameter_may_become_another_a_module_or_none():
    linear = nn.Linear(2, 3)
    for value in (nn.Parameter(np.ones((2, 3))), nn.ReLU()):
        linear.weight = value
        assert linear.weight is value
    linear.bias = None
    assert list(linear.parameters()) == []
    linear.bias = [0.0]  # no Parameter any more


def test_a_step_by_hand_that_would_lose_a_parameter():
    linear = nn.Linear(2, 3)
    linear(Tensor([[1.0, 2.0]])).sum().backward()
    weight, before = linear.weight, linear.weight.data.copy()

    def augmented():
        with minicnn.no_grad():
            linear.weight -= 0.1 * linear.weight.grad

    def assigned():
        with minicnn.no_grad():
            linear.weight = linear.weight - 0.1 * linear.weight.grad

    fails(TypeError, r"optim\.SGD", augmented)
    fails(TypeError, "Linear.weight is a Parameter and would be lost, replaced by a Tensor", assigned)
    assert linear.weight is weight
    np.testing.assert_array_equal(weight.data, before)
    linear.weight.data -= 0.1 * linear.weight.grad.data
    np.testing.assert_allclose(weight.data, before - 0.1 * weight.grad.data)


def test_parameters_may_be_replaced_added_and_removed():
    block = Block()
    block.shift = None
    block.late = nn.Parameter(np.ones(1, np.float32))
    block.count = np.ones(4)
    del block.inner
    assert list(block.state_dict()) == [*NAMES[1:], "late"] and block.state_dict()["count"].shape == (4,)


def test_a_shared_parameter_counts_once():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    net = nn.Sequential(a, b, a)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    net(Tensor(x)).sum().backward()
    w, ones = a.weight.data, np.ones((2, 3), np.float32)  # y = ((x w + c) w + d) w + c
    first, second = x @ w + a.bias.data, (x @ w + a.bias.data) @ w + b.bias.data
    expected = second.T @ ones + first.T @ (ones @ w.T) + x.T @ (ones @ w.T @ w.T)
    np.testing.assert_allclose(a.weight.grad.data, expected, rtol=1e-4)
    net.zero_grad()
    assert a.weight.grad is None


def test_parameters():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    p = nn.Parameter(array)
    assert p.data is array and p.requires_grad and p.grad_fn is None and isinstance(p, Tensor)
    assert nn.Parameter(array.T).data.flags.c_contiguous and nn.Parameter([1.0]).dtype == np.float32
    assert nn.Parameter(np.ones(2)).dtype == np.float64
    for scalar in (np.array(2.0), 2.0, np.float32(2)):
        assert nn.Parameter(scalar).shape == ()
    fails(TypeError, "floating", nn.Parameter, np.ones(2, int))
    assert type(p * 2) is Tensor


def test_modules_must_define_forward():
    fails(NotImplementedError, "Block2 does not define forward", type("Block2", (nn.Module,), {})(), 1)


# --------------------------------------------------------------------------------------------------------------- modes
def test_train_and_eval_reach_every_module():
    block = Block()
    assert all(module.training for _, module in block.named_modules())
    assert block.eval() is block and not any(module.training for _, module in block.named_modules())
    assert block.inner.train() is block.inner and block.inner[1].training and not block.norm.training
    block.train(False)
    assert not block.inner[1].training
    assert Block().training


def test_converting_to_another_dtype_or_device():
    block = Block()
    values = {name: array.copy() for name, array in block.state_dict().items()}
    parameters = list(block.parameters())
    block(Tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert block.astype(np.float64) is block and block.to("cpu") is block
    for name, array in block.state_dict().items():
        assert array.dtype == (int if name == "count" else np.float64)
        if "running" not in name:
            np.testing.assert_array_equal(array, values[name])
    assert all(
        a is b and a.grad.dtype == np.float64 and a.requires_grad
        for a, b in zip(block.parameters(), parameters, strict=True)
    )
    assert block(Tensor(np.ones((2, 3)))).dtype == np.float64
    fails(RuntimeError, "tpu", block.to, "tpu")


# --------------------------------------------------------------------------------------------------------------- state
def test_the_state_is_live_and_can_be_loaded_in_place():
    block, other = Block(), Block()
    block.norm.running_mean += 5
    state = block.state_dict()
    assert state["shift"] is block.shift.data and state["count"] is block.count
    arrays = {name: array for name, array in other.state_dict().items()}
    other.load_state_dict(state)
    for name, array in other.state_dict().items():
        assert array is arrays[name] and not np.shares_memory(array, state[name])
        np.testing.assert_array_equal(array, state[name])
    other.load_state_dict({name: array.astype(np.float64) for name, array in state.items()})
    assert other.shift.dtype == np.float32
    other.load_state_dict(other.state_dict())


def test_a_state_that_does_not_fit_is_listed_and_nothing_written():
    block = Block()
    before = {name: array.copy() for name, array in block.state_dict().items()}
    bad = {name: array + 1 for name, array in before.items() if name not in ("shift", "norm.running_var")}
    bad |= {"linear.weight": np.ones((3, 4)), "alpha": np.ones(3), "extra": np.ones(1), "linear.scale": np.ones(1)}
    message = fails(ValueError, "Block", block.load_state_dict, bad)
    for name in ("shift", "norm.running_var", "linear.weight", "alpha", "extra", "linear.scale"):
        assert name in message
    for part in ("missing", "unexpected", "(3, 4)", "(3, 3)", "(1, 3)"):
        assert part in message
    assert "linear.bias" not in message and "count" not in message
    message = fails(ValueError, "alpha", block.load_state_dict, bad, strict=False)
    assert "missing" not in message and "unexpected" not in message
    for name, array in block.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    block.load_state_dict({"shift": np.full(3, 2.0), "extra": np.ones(1)}, strict=False)
    assert block.shift.data.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(block.alpha.data, before["alpha"])


def test_modules_can_be_copied():
    block = Block()
    twin = copy.deepcopy(block)
    assert list(twin.state_dict()) == NAMES and all(
        a is not b for a, b in zip(twin.parameters(), block.parameters(), strict=True)
    )
    block.shift.data += 1
    block.norm.running_mean += 1
    assert not twin.shift.data.any() and not twin.norm.running_mean.any()
    twin(Tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert twin.alpha.grad is not None and block.alpha.grad is None
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    twin = copy.deepcopy(nn.Sequential(a, b))
    assert twin[0].weight is twin[1].weight is not a.weight


# --------------------------------------------------------------------------------------------------------------- hooks
def test_forward_hooks():
    seen = []
    linear = nn.Linear(2, 3)
    remove = linear.register_forward_hook(lambda *args: seen.append(("a", *args)))
    linear.register_forward_hook(lambda *args: seen.append(("b", *args)))
    x = Tensor([[1.0, 2.0]])
    y = nn.Sequential(linear)(x)
    assert [e[0] for e in seen] == ["a", "b"]
    assert all(e[1] is linear and len(e[2]) == 1 and e[2][0] is x and e[3] is y for e in seen)
    remove()
    linear(x)
    assert [e[0] for e in seen] == ["a", "b", "b"]
    nn.Linear(2, 3)(x)  # hooks belong to one module
    assert len(seen) == 3


def test_each_registration_of_a_hook_is_removed_by_itself():
    seen = []
    relu, hook = nn.ReLU(), lambda *args: seen.append(1)
    remove, _ = relu.register_forward_hook(hook), relu.register_forward_hook(hook)
    remove()
    relu(Tensor([1.0]))
    assert seen == [1]


# ---------------------------------------------------------------------------------------------------------- inspection
def test_repr():
    assert repr(Block()) == "\n".join(
        [
            "Block(  # 24 parameters",
            "  (linear): Linear(3, 3)  # 12 parameters",
            "  (norm): BatchNorm2d(3, eps=1e-05, momentum=0.1)  # 6 parameters",
            "  (inner): Sequential(",
            "    (0): ReLU()",
            "    (1): Dropout(p=0.5)",
            "  )",
            ")",
        ]
    )
    assert repr(nn.Linear(1000, 10, bias=False)) == "Linear(1000, 10, bias=False)  # 10,000 parameters"


def network():
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(128, 10))


def rows(table):
    """Lines of a summary, with runs of two spaces and more taken for columns."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.split("\n")]


def test_summary():
    net = network()
    net[4].eval()
    state, grads = minicnn.random.random_state(), [p.grad for p in net.parameters()]
    table = rows(net.summary((2, 16, 16, 3)))
    assert table[1][1:] == ["2 × 8 × 8 × 8", "224", f"{2 * 2 * 8 * 8 * 8 * 27:,}"] and "Conv2d" in table[1][0]
    shapes = "2 × 8 × 8 × 8", "2 × 8 × 8 × 8", "2 × 4 × 4 × 8", "2 × 128", "2 × 128", "2 × 10"
    assert tuple(row[1] for row in table[1:-1]) == shapes
    assert table[6][1:] == ["2 × 10", "1,290", f"{2 * 2 * 10 * 128:,}"]
    assert table[-1] == ["total", "1,514", f"{2 * 2 * 512 * 27 + 2 * 2 * 1280:,}"]
    assert len({len(line) for line in net.summary((1, 16, 16, 3)).split("\n")}) == 1  # columns are aligned
    assert net.training and not net[4].training and not any(module._hooks for _, module in net.named_modules())
    assert minicnn.random.random_state() == state and [p.grad for p in net.parameters()] == grads
    fails(ValueError, ".", net.summary, (2, 16, 16, 4))
    assert net.training and not net[4].training and not any(module._hooks for _, module in net.named_modules())


def test_groups_divide_the_operations():
    table = rows(nn.Sequential(nn.Conv2d(4, 6, (3, 5), groups=2)).summary((1, 8, 8, 4)))
    assert table[1][1:] == ["1 × 6 × 4 × 6", f"{3 * 5 * 2 * 6 + 6}", f"{2 * 6 * 4 * 6 * 3 * 5 * 2:,}"]


def total(net, shape):
    return int(rows(net.summary(shape))[-1][1].replace(",", ""))


def test_the_summarys_total_is_the_number_of_parameters():
    relu, linear = nn.ReLU(), nn.Linear(3, 3)
    assert len(rows(nn.Sequential(relu, linear, relu).summary((1, 3)))) == 5  # header, three layers, total
    assert total(nn.Sequential(linear, relu, linear), (1, 3)) == 12
    assert total(Block(), (2, 3)) == 24
    assert total(linear, (1, 3)) == 12
    assert rows(nn.Sequential(linear, linear).summary((1, 3)))[-1][2] == str(2 * 2 * 9)  # the work is done twice
    double = nn.Sequential(nn.Linear(2, 2)).astype(np.float64)
    assert total(double, (1, 2)) == 6


def test_options_reach_forward():
    class Scaled(nn.Module):
        def forward(self, x, by=1):
            return x * by

    assert Scaled()(Tensor([2.0]), by=3).item() == 6


# ---------------------------------------------------------------------------------------------------------- Sequential
def test_sequential():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), head=nn.Linear(3, 1))
    assert [name for name, _ in net.named_children()] == ["0", "1", "head"] and len(net) == 3
    assert isinstance(net[1], nn.ReLU) and net[-1] is net.head
    x = Tensor([[1.0, -2.0]])
    np.testing.assert_array_equal(net(x).data, net.head(F.relu(net[0](x))).data)
    assert nn.Sequential()(x) is x and len(nn.Sequential()) == 0
    assert list(net.state_dict()) == ["0.weight", "0.bias", "head.weight", "head.bias"]
    with pytest.raises(IndexError):
        net[3]
    fails(TypeError, "1 is", nn.Sequential, nn.ReLU(), F.relu)
    fails(TypeError, "head", nn.Sequential, head=nn.ReLU)
    for name in ("forward", "training", "parameters"):
        fails(ValueError, name, nn.Sequential, **{name: nn.ReLU()})


def test_a_slice_of_a_sequential_is_a_sequential():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    for part in (net[:2], net[-3:-1]):
        assert isinstance(part, nn.Sequential) and len(part) == 2 and part[0] is net[0] and part[1] is net[1]


@pytest.mark.parametrize("modules", [[nn.ReLU()], (nn.ReLU(), nn.Linear(2, 2))])
def test_a_sequential_of_a_list(modules):
    fails(TypeError, rf"0 is a {type(modules).__name__}: write Sequential\(\*modules\)", nn.Sequential, modules)
    named = {str(i): module for i, module in enumerate(modules)}
    fails(TypeError, r"0 is a dict: write Sequential\(\*\*modules\)", nn.Sequential, named)


# ---------------------------------------------------------------------------------------------------------- ModuleList
def test_module_list():
    class Net(nn.Module):
        def __init__(self):
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
            self.head = nn.Linear(3, 1)

        def forward(self, x):
            for layer in self.layers:
                x = F.relu(layer(x))
            return self.head(x)

    net = Net()
    assert net.layers.append(nn.Linear(3, 3)) is net.layers and len(net.layers) == 3
    names = [f"layers.{i}.{name}" for i in range(3) for name in ("weight", "bias")]
    assert list(net.state_dict()) == [*names, "head.weight", "head.bias"]
    assert list(net.layers) == list(net.layers.children()) == [net.layers[0], net.layers[1], net.layers[-1]]
    part = net.layers[1:]
    assert isinstance(part, nn.ModuleList) and list(part) == [net.layers[1], net.layers[2]]
    net(Tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert not any(layer.training for layer in net.eval().layers)
    assert total(net, (1, 3)) == 3 * 12 + 4
    assert repr(nn.ModuleList([nn.ReLU()])) == "ModuleList(\n  (0): ReLU()\n)"
    with pytest.raises(IndexError):
        net.layers[3]


def test_a_module_list_is_made_of_modules():
    assert len(nn.ModuleList()) == 0 and list(nn.ModuleList()) == []
    fails(TypeError, "ModuleList is made of Modules, not of a function", nn.ModuleList, [F.relu])
    fails(TypeError, "not of a list", nn.ModuleList().append, [nn.ReLU()])
    fails(NotImplementedError, "ModuleList does not define forward", nn.ModuleList([nn.ReLU()]), 1)


def test_an_error_names_the_layer_by_its_place():
    class Block(nn.Module):
        def __init__(self):
            self.conv1, self.body = nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Linear(5, 2))

        def forward(self, x):
            return self.body(self.conv1(x))

    net = nn.Sequential(block=Block(), last=nn.Flatten())
    for channels, words in (
        (4, r"^block\.conv1 \(Conv2d\): conv2d: x of shape"),
        (3, r"^block\.body\.1 \(Linear\): linear"),
    ):
        fails(ValueError, words, net, Tensor(np.ones((1, 8, 8, channels), np.float32)))
    fails(ValueError, "^conv2d: x of shape", net[0].conv1, Tensor(np.ones((1, 8, 8, 4), np.float32)))


def test_a_state_with_other_numbers():
    """Nothing is written, though the first array would fit."""
    layer = nn.Linear(2, 1)
    before = {name: array.copy() for name, array in layer.state_dict().items()}
    for bad, words in (
        (np.ones(1, np.int32), "bias is int32"),
        (np.ones(1, complex), "bias is complex128, not float32"),
        (np.array(["a"]), "bias is <U1"),
        (np.array([-1e300]), r"bias holds -1e\+300, which is infinite in float32$"),
    ):
        fails(ValueError, words, layer.load_state_dict, {"weight": np.ones((2, 1)), "bias": bad})
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    fails(TypeError, "pair", layer.load_state_dict, (before, {}))
    largest = float(np.finfo(np.float32).max)
    for good, expected in ((np.inf, np.inf), (-np.inf, -np.inf), (np.nan, np.nan), (largest * (1 + 1e-9), largest)):
        layer.load_state_dict({"weight": np.ones((2, 1)), "bias": np.array([good])})
        np.testing.assert_array_equal(layer.bias.data, np.float32([expected]))


@pytest.mark.parametrize("given", [None, 3, "photo.jpg", [Tensor([1.0, 2.0])]])
def test_an_input_that_is_no_tensor(given):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean()

    fails(TypeError, r"^0 \(Linear\): linear: x must be a Tensor, not ", nn.Sequential(nn.Linear(2, 1)), given)
    words = rf"^0 \(Mean\): the input is a {type(given).__name__}, not a Tensor: .* has no attribute 'mean'$"
    with pytest.raises(TypeError, match=words) as caught:
        nn.Sequential(Mean(), nn.ReLU())(given)
    assert isinstance(caught.value.__cause__, AttributeError)  # with the line that asked for it


def test_an_attribute_that_something_else_lacks():
    """Of a Tensor, of another input, or of what no input is, Python's own error remains."""

    class Looks(nn.Module):
        def forward(self, *inputs):
            return inputs[-1].colour if inputs else self.colour

    for inputs in ((), (Tensor([1.0]),), (Tensor([1.0]), None)):
        fails(AttributeError, "has no attribute 'colour'", Looks(), *inputs)


def test_layers_are_exchanged_by_number():
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 2))
    net[-1] = nn.Linear(4, 7)
    assert net.fc.weight.shape == (4, 7) and list(net.state_dict())[2:] == ["fc.weight", "fc.bias"]
    fails(TypeError, "made of Modules, not of a ndarray", net.__setitem__, 0, np.ones(2))
    with pytest.raises(IndexError):
        net[2] = nn.ReLU()


def test_a_forward_hook_cannot_replace_the_output():
    layer = nn.ReLU()
    layer.register_forward_hook(lambda module, inputs, output: output * 2)
    fails(TypeError, "hook returned something", layer, Tensor([1.0]))


def test_modules_in_a_container_that_was_empty_at_first():
    """Nobody would put them into evaluation mode."""

    class Net(nn.Module):
        def __init__(self):
            self.layers = []
            self.layers.append(nn.Dropout())

    for use in (
        lambda net: net.eval(),
        lambda net: net.to("cpu"),
        lambda net: list(net.children()),
        lambda net: list(net.parameters()),
    ):
        fails(TypeError, "layers is a list that holds a Module", use, Net())
    for container in (frozenset([nn.ReLU()]), collections.deque([nn.ReLU()])):
        fails(
            TypeError, f"is a {type(container).__name__} that holds a Module", setattr, nn.Module(), "layers", container
        )


def test_a_buffer_is_an_array():
    """Also later: a Tensor would be saved, and not be what load_state_dict writes to."""
    fails(TypeError, "'mean' is a Tensor; a buffer is an array", nn.Module().register_buffer, "mean", Tensor([1.0]))
    fails(TypeError, "'mean' is a list", nn.Module().register_buffer, "mean", [1.0])
    layer = nn.BatchNorm2d(1)
    array = layer.running_mean
    for value in (Tensor([0.0]), 0.0, None, nn.Parameter([0.0]), nn.ReLU()):
        what = f"BatchNorm2d: the buffer 'running_mean' is a {type(value).__name__}"
        fails(TypeError, what, setattr, layer, "running_mean", value)
        assert layer.running_mean is array
    layer.running_mean = other = np.ones(1)
    assert layer.running_mean is other


def test_a_buffer_of_one_number_stays_an_array():
    """What NumPy computes from an array without axes is a number, to which load_state_dict could not write."""
    net = nn.Module()
    net.register_buffer("count", np.array(0))
    net.count = net.count + 1
    assert isinstance(net.count, np.ndarray) and net.count.shape == ()
    net.load_state_dict({"count": np.array(5)})
    assert net.count == 5


# ---------------------------------------------------------------------------------------- more that would be lost
@pytest.mark.parametrize(
    "value, words",
    [
        (np.ones((5, 5), np.float32), r"an array of shape \(5, 5\) and dtype float32"),
        (np.ones(6, np.float32), r"an array of shape \(6,\) and dtype float32"),
        (np.ones((2, 3)), r"an array of shape \(2, 3\) and dtype float64"),
        (np.float32(1), r"an array of shape \(\) and dtype float32"),
        (Tensor(np.ones((2, 3), np.float32)), "a Tensor"),
        ([[1.0, 2.0, 3.0]] * 2, "a list"),
        (None, "a NoneType"),
    ],
)
def test_the_array_of_a_parameter_keeps_its_shape_and_dtype(value, words):
    linear = nn.Linear(2, 3)
    array, version = linear.weight.data, linear.weight.version[0]
    message = fails(
        TypeError, f"shape \\(2, 3\\) and dtype float32 cannot become {words}: ", setattr, linear.weight, "data", value
    )
    assert "p.data[...] = " in message and "nn.Parameter(" in message and "net.astype(" in message
    assert linear.weight.data is array and linear.weight.version[0] == version


def test_a_parameter_may_be_given_another_array_like_its_own():
    linear = nn.Linear(2, 3)
    linear.weight.data = array = np.ones((2, 3), np.float32)
    assert linear.weight.data is array
    scale = nn.Parameter(2.0)
    scale.data = scale.data - np.float32(0.5)  # a number, to which no optimizer could write
    assert isinstance(scale.data, np.ndarray) and scale.data == 1.5
    scale.grad = Tensor(np.float32(1))
    minicnn.optim.SGD([scale], lr=1.0).step()
    assert scale.data == 0.5


@pytest.mark.parametrize("write", [lambda p: p.data.__isub__(1), lambda p: np.zeros_like(p.data)])
def test_a_backward_pass_that_reads_an_overwritten_parameter_says_so(write):
    linear = nn.Linear(2, 3)
    y = linear(Tensor(np.ones((1, 2), np.float32), requires_grad=True)).sum()
    linear.weight.data = write(linear.weight)
    fails(RuntimeError, "was overwritten since", y.backward)


def test_a_parameter_is_made_of_an_array():
    fails(TypeError, r"write nn.Parameter\(tensor.data\)", nn.Parameter, Tensor([1.0]))


@pytest.mark.parametrize("value", [np.ones(3), Tensor([1.0]), F.relu, [], 0])
def test_a_module_is_not_replaced_by_something_else(value):
    net = nn.Sequential(fc=nn.Linear(2, 3))
    message = fails(TypeError, "Sequential.fc is a Module and would be lost", setattr, net, "fc", value)
    assert f"a {type(value).__name__}: assign a Module, or None" in message and isinstance(net.fc, nn.Linear)


def test_a_module_may_become_another_a_parameter_or_none():
    net = nn.Module()
    for value in (nn.ReLU(), nn.Linear(2, 3), nn.Parameter([1.0]), nn.ReLU(), None, [1]):
        net.part = value
        assert net.part is value


@pytest.mark.parametrize(
    "make",
    [
        lambda m: {"a": m}.values(),
        lambda m: {"a": m}.items(),
        lambda m: {m: "a"}.keys(),
        lambda m: collections.UserDict(a=m),
        lambda m: collections.UserList([m]),
        lambda m: types.MappingProxyType({"a": [m]}),
        lambda m: np.array([[m, None]], object),
        lambda m: [np.array([m], object)],
    ],
)
def test_other_containers_of_modules_are_refused(make):
    value = make(nn.ReLU())
    message = fails(
        TypeError, "that holds a Module: .*nn.(ModuleList|Sequential)", setattr, nn.Module(), "layers", value
    )
    assert f"Module.layers is a {type(value).__name__} " in message


def test_a_container_that_holds_itself():
    net = nn.Module()
    net.around = around = []
    around += [around, {"again": around}, [1], [1]]
    assert list(net.parameters()) == []
    around.append(nn.ReLU())
    fails(TypeError, "Module.around is a list that holds a Module", net.eval)


def test_a_tensor_to_be_trained_is_a_parameter():
    net, leaf = nn.Module(), Tensor([1.0], requires_grad=True)
    message = fails(TypeError, "Module.w is a Tensor that requires a gradient: ", setattr, net, "w", leaf)
    assert "nn.Parameter(array)" in message and ".detach()" in message and not hasattr(net, "w")
    message = fails(
        TypeError, "Module.w is a list that holds a Tensor that requires a gradient", setattr, net, "w", [leaf]
    )
    assert "give each nn.Parameter an attribute" in message
    net.computed, net.constant, net.detached = leaf * 2, Tensor([1.0]), leaf.detach()
    frozen = nn.Parameter([1.0])
    frozen.requires_grad, net.frozen = False, frozen
    assert list(net.parameters()) == [frozen]


@pytest.mark.parametrize(
    "value, part",
    [
        (nn.Linear(2, 2), "Module"),
        ([nn.ReLU()], "Module"),
        (nn.Parameter([1.0]), "Parameter"),
        (Tensor([1.0], requires_grad=True), "Tensor that requires a gradient"),
    ],
)
def test_parts_that_belong_to_the_class_are_refused(value, part):
    words = f"Net.layers is or holds a {part} and belongs to the class: .*self.layers = "
    fails(TypeError, words, type, "Net", (nn.Module,), {"layers": value})
    type("Net", (nn.Module,), {"sizes": [1, 2], "kind": nn.ReLU, "constant": Tensor([1.0])})


def test_no_module_is_inside_itself():
    outer, inner = nn.Module(), nn.Module()
    outer.inner = nn.Sequential(inner)
    for part in (inner, outer.inner, outer):
        words = f"a {type(part).__name__} cannot have as its part a Module that it is a part of itself: .*weakref"
        fails(TypeError, words, setattr, part, "outer", outer)
    fails(TypeError, "weakref", outer.inner.append, outer)
    assert [name for name, _ in outer.named_modules()] == ["", "inner", "inner.0"]
    inner.outer = weakref.ref(outer)
    assert inner.outer() is outer


# ------------------------------------------------------------------------------------------- lists that are changed
@pytest.mark.parametrize("kind", [nn.ModuleList, lambda modules: nn.Sequential(*modules)])
def test_modules_by_number_are_edited_as_a_list_is(kind):
    relus = [nn.ReLU() for _ in range(9)]
    net, model = kind(relus[:4]), relus[:4]
    edits = [
        lambda a: a.__setitem__(1, relus[4]),
        lambda a: a.__setitem__(-1, relus[5]),
        lambda a: a.insert(1, relus[6]),
        lambda a: a.insert(-1, relus[7]),
        lambda a: a.__delitem__(0),
        lambda a: a.extend(relus[:2]),
        lambda a: a.append(relus[8]),
        lambda a: a.__setitem__(slice(1, 3), [relus[2]]),
        lambda a: a.__delitem__(slice(None, None, 2)),
        lambda a: a.__iadd__(m for m in relus[4:6]),
        lambda a: a.__setitem__(0, a[0]),
    ]
    for edit in edits:
        edit(model), edit(net)
        assert list(net) == model and len(net) == len(model)
        assert [name for name, _ in net.named_children()] == [str(i) for i in range(len(model))]
    for index in ((), (0,), (-2,)):
        assert net.pop(*index) is model.pop(*index) and list(net) == model
    assert net.insert(0, relus[0]) is net.append(relus[1]) is net.extend([]) is net


def test_an_edit_that_fails_changes_nothing():
    net = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
    before = list(net.named_children())
    for edit in (
        lambda: net.__setitem__(0, np.ones(2)),
        lambda: net.__setitem__(slice(0, 1), [nn.ReLU(), F.relu]),
        lambda: net.extend([nn.ReLU(), nn.ReLU]),
        lambda: net.insert(0, None),
    ):
        fails(TypeError, "ModuleList is made of Modules, not of a [a-zA-Z]+$", edit)
    fails(TypeError, "not of a list; extend takes several", net.append, [nn.ReLU()])
    for edit in (lambda: net.__setitem__(2, nn.ReLU()), lambda: net.__delitem__(2), lambda: net.pop(2)):
        fails(IndexError, "range", edit)
    assert list(net.named_children()) == before


def test_names_that_are_no_numbers_stay():
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 1), relu=nn.ReLU(), fc=nn.Linear(4, 2))
    del net[1]
    net.append(nn.ReLU()).insert(0, nn.Identity())
    assert [name for name, _ in net.named_children()] == ["0", "conv", "fc", "3"]
    assert list(net.state_dict()) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]


def test_a_summary_that_fails_shows_how_far_it_got():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(5, 3)))
    with pytest.raises(ValueError) as caught:
        net.summary((1, 8, 8, 3))
    first, empty, title, *table = str(caught.value).split("\n")
    assert first.startswith("2.1 (Linear): linear: x of shape (1, 144) does not fit a weight of shape (5, 3)")
    assert empty == "" and title == "the layers before it:"
    assert [row[0] for row in rows("\n".join(table))] == ["layer", "0 Conv2d", "1 ReLU", "2.0 Flatten"]
    message = fails(ValueError, r"^0 \(Conv2d\)", net.summary, (1, 8, 8, 4))
    assert "\n" not in message


@pytest.mark.parametrize("kind", [nn.Sequential, lambda *modules: nn.ModuleList(modules)])
def test_places_in_a_container(kind):
    layers = kind(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    name = type(layers).__name__
    assert type(layers[-1]) is nn.Sigmoid and type(layers[np.int64(1)]) is nn.Tanh and len(layers[1:]) == 2
    assert type(layers[:2]) is type(layers)
    edits = (layers.__getitem__, layers.__delitem__, lambda i: layers.__setitem__(i, nn.ReLU()))
    for edit in edits:
        for index in (3, -4):
            fails(IndexError, f"^{name} index {index} is out of range: there are 3, 0 to 2$", edit, index)
        for index in (1.0, "1", None, (1,), [1]):
            fails(TypeError, f"^{name} index must be an integer, not ", edit, index)
        fails(TypeError, rf"^{name} index slice\('a', None, None\): ", edit, slice("a", None)) if edit is not edits[
            2
        ] else None
    fails(IndexError, "^pop: index 3 is out of range", layers.pop, 3)
    fails(TypeError, "^pop: index must be an integer, not slice", layers.pop, slice(0, 1))
    fails(ValueError, "^insert: index must be a whole number, not 'a'$", layers.insert, "a", nn.ReLU())
    fails(TypeError, "^extend: modules must be a list, not ReLU", layers.extend, nn.ReLU())
    fails(
        TypeError,
        rf"^{name}: modules for slice\(0, 1, None\) must be a list, not 3$",
        layers.__setitem__,
        slice(0, 1),
        3,
    )
    words = rf"^{name} index slice\(None, None, 2\): attempt to assign"
    fails(ValueError, words, layers.__setitem__, slice(None, None, 2), [nn.ReLU()])
    assert [type(layer) for layer in layers] == [nn.ReLU, nn.Tanh, nn.Sigmoid]


def test_settings_of_modules_that_do_not_fit():
    net = nn.Sequential(nn.Linear(2, 3))
    fails(ValueError, "^train: mode is False or True, not 'no'$", net.train, "no")
    fails(ValueError, "^load_state_dict: strict is False or True, not 2$", net.load_state_dict, net.state_dict(), 2)
    for dtype in (int, "bool"):
        fails(
            TypeError,
            "^astype: dtype must be a floating-point one for parameters, not (<class 'int'>|'bool')$",
            net.astype,
            dtype,
        )
    fails(TypeError, "^astype: dtype must be one of real numbers", net.astype, "float33")
    assert net.astype("f8") is net and net[0].weight.dtype == np.float64
    fails(TypeError, "^register_forward_hook: hook must be callable, not 3$", net.register_forward_hook, 3)
    fails(TypeError, "^register_buffer: name must be a string, not 3$", net.register_buffer, 3, np.ones(2))
    for shape in (None, "ab", 1.5):
        fails(TypeError, "^summary: input_shape must be a list, not ", net.summary, shape)
    fails(ValueError, "^summary: input_shape: each number must be a whole number from 0, not -1$", net.summary, (1, -1))
    assert "Linear" in net.summary(np.int64(2)) and "Linear" in net.summary([1, 2])
    fails(TypeError, "^a Parameter is made of an array, not a Tensor of shape", nn.Parameter, Tensor([1.0]))
    for given in ([[1.0], [2.0, 3.0]], "a", Tensor([[1.0]] * 2, requires_grad=True)):
        state = {**net.state_dict(), "0.weight": given}
        fails(ValueError, "^this state does not fit Sequential: 0.weight (is|has) .*, not ", net.load_state_dict, state)
    fails(TypeError, "^Sequential is made of Modules; 0 is an array of shape", nn.Sequential, np.ones((2, 2)))
