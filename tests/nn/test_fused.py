"""What nn.Sequential computes at once (functional/fused.py), and when it does not: never is anything hidden."""

import numpy as np
import pytest
from reference import fails, normal

from minicnn import AnomalyError, Tensor, detect_anomaly, nn
from minicnn import functional as F

X = Tensor(normal(2, 6, 6, 3).astype(np.float32))


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.Flatten(), nn.Linear(5, 6),
        nn.ReLU(), nn.Linear(6, 2),
    )  # fmt: skip


def ran(net, x=X):
    """The names of the operations that made the output, from the first, by each one's first parent; without those of
    shapes."""
    names, node = [], net(x).grad_fn
    while hasattr(node, "parents"):
        names.append(node.name)
        node = next((parent for parent in node.parents if hasattr(parent, "parents")), None)
    return [name for name in reversed(names) if name != "Reshape"]


FUSED = ["Conv2dReLU", "MaxPool2d", "Conv2d", "MatMul", "AddReLU", "MatMul", "Add"]
PLAIN = ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "MatMul", "Add", "ReLU", "MatMul", "Add"]


def test_a_relu_is_computed_with_the_layer_before_it():
    assert ran(network()) == FUSED
    assert ran(nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.ReLU())) == ["MatMul", "ReLU", "ReLU"]
    assert ran(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU())) == ["Conv2d", "Conv2dReLU"]
    shared = nn.Linear(3, 3)
    assert ran(nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU())) == ["MatMul", "AddReLU"] * 2


def test_the_numbers_are_those_of_the_layers_one_by_one():
    net, numbers = network(), []
    for _ in range(2):
        net(X).sum().backward()
        numbers.append([net(X).data.tobytes(), *(p.grad.data.tobytes() for p in net.parameters())])
        net.zero_grad()
        for layer in net:
            layer.register_forward_hook(lambda *_: None)
    assert ran(net) == PLAIN and numbers[0] == numbers[1]


def test_the_state_and_the_repr_have_both_layers():
    net = network()
    assert list(net.state_dict()) == [f"{i}.{name}" for i in (0, 3, 5, 7) for name in ("weight", "bias")]
    assert "(1): ReLU()" in repr(net) and [type(layer) for layer in net[:2]] == [nn.Conv2d, nn.ReLU]
    assert "1 ReLU" in net.summary(X.shape)


@pytest.mark.parametrize("place", [0, 1])
def test_a_hook_sees_its_layer(place):
    net, seen = network(), []
    remove = net[place].register_forward_hook(lambda module, inputs, y: seen.append((module, *inputs, y)))
    assert ran(net) == PLAIN[:2] + FUSED[1:]
    (module, x, y), z = seen[0], F.conv2d(X, net[0].weight, net[0].bias)
    assert module is net[place]
    np.testing.assert_array_equal(x.data, (X if place == 0 else z).data)
    np.testing.assert_array_equal(y.data, (z if place == 0 else F.relu(z)).data)
    remove()
    assert ran(net) == FUSED and len(seen) == 1


def test_a_hook_of_the_network_or_of_another_layer_changes_nothing():
    net = network()
    net.register_forward_hook(lambda *_: None)
    net[2].register_forward_hook(lambda *_: None)
    assert ran(net) == FUSED


def test_a_forward_of_ones_own_is_called():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Named(nn.Conv2d):
        pass

    class Shifted(nn.ReLU):
        def forward(self, x):
            return super().forward(x + 1)

    class Counted(nn.ReLU):
        calls = 0

        def __call__(self, x):
            Counted.calls += 1
            return super().__call__(x)

    assert ran(nn.Sequential(Named(3, 4, 3), nn.ReLU())) == ["Conv2dReLU"]
    assert ran(nn.Sequential(Doubled(3, 4, 3), nn.ReLU())) == ["Conv2d", "Mul", "ReLU"]
    assert ran(nn.Sequential(nn.Conv2d(3, 4, 3), Shifted())) == ["Conv2d", "Add", "ReLU"]
    assert ran(nn.Sequential(nn.Conv2d(3, 4, 3), Counted())) == ["Conv2d", "ReLU"] and Counted.calls == 1


def test_a_forward_that_was_put_in_its_place_is_called(monkeypatch):
    net = network()
    net[0].forward = lambda x: F.conv2d(x, net[0].weight)
    assert ran(net)[:2] == ["Conv2d", "ReLU"]
    net = network()
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: F.leaky_relu(x))
    assert ran(net)[:2] == ["Conv2d", "LeakyReLU"]


def test_the_forward_of_another_layer_is_called():
    net, other = network(), nn.Conv2d(3, 4, 3)
    net[0].forward = other.forward
    np.testing.assert_array_equal(net[:2](X).data, F.relu(other(X)).data)
    net, other = network(), nn.ReLU()
    net[1].forward = other.forward
    assert ran(net)[:2] == ["Conv2d", "ReLU"]


def test_what_watches_all_calls_sees_each_layer(monkeypatch):
    seen, call = [], nn.Module.__call__
    monkeypatch.setattr(
        nn.Module, "__call__", lambda self, *inputs: (seen.append(type(self).__name__), call(self, *inputs))[1]
    )
    network()(X)
    assert seen[:3] == ["Sequential", "Conv2d", "ReLU"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_detect_anomaly_names_the_layer():
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU())
    net.conv.bias.data[0] = -np.inf
    assert np.isfinite(net(X).data).all()
    with (
        detect_anomaly(),
        pytest.raises(AnomalyError, match=r"^conv \(Conv2d\) of Sequential: forward pass: the output"),
    ):
        net(X)


def test_an_error_names_the_layer():
    net = nn.Sequential(body=nn.Sequential(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU()))
    fails(ValueError, r"^body\.conv \(Conv2d\): conv2d: x of shape", net, Tensor(np.ones((1, 6, 6, 2), np.float32)))
    fails(TypeError, r"^body\.conv \(Conv2d\): conv2d: x must be a Tensor, not None", net, None)
    net = nn.Sequential(fc=nn.Linear(3, 4), relu=nn.ReLU())
    fails(ValueError, r"^fc \(Linear\): linear: x of shape", net, Tensor(np.ones((1, 2), np.float32)))
