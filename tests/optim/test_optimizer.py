"""SGD and Adam against their formulas, written out in NumPy."""

import re
import tracemalloc

import numpy as np
import pytest

from minicnn import Tensor, nn, optim, use_backend
from minicnn.backends import numpy as fast


def fails(error, pattern, f, *args, **kwargs):
    """f raises this error, in one line."""
    with pytest.raises(error, match=pattern) as caught:
        f(*args, **kwargs)
    assert "\n" not in str(caught.value)


def parameters(dtype=np.float64):
    rng = np.random.default_rng(0)
    return [nn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in [(3, 4, 5), (7,), (1, 1), ()]]


def gradient(t, p):
    """Some gradient that depends on the step and the parameter, and is laid out in memory in another way than it."""
    return (np.sin(t + np.arange(p.size)).reshape(p.shape).T + 0.1 * p.data.T).astype(p.dtype).T


def sgd(momentum=0.0, weight_decay=0.0, nesterov=False, paper_update=False):
    def update(w, g, lr, t, state):
        v = state.get("v", np.zeros_like(w))
        if paper_update:  # v ← m·v − λ·ε·w − ε·g; w ← w + v
            state["v"] = momentum * v - weight_decay * lr * w - lr * g
            return w + state["v"]
        g = g + weight_decay * w
        state["v"] = momentum * v + g
        return w - lr * (g + momentum * state["v"] if nesterov else state["v"])

    return update


def adam(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    def update(w, g, lr, t, state):
        g = g + weight_decay * w
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
        return w - lr * (state["m"] / (1 - beta1**t)) / (np.sqrt(state["v"] / (1 - beta2**t)) + eps)

    return update


def adamw(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    """One number after the other: the decay is no part of what the moments see."""

    def update(w, g, lr, t, state):
        w = w.copy()
        m, v = (state.setdefault(name, np.zeros_like(w)) for name in "mv")
        for at in np.ndindex(w.shape):
            w[at] -= lr * weight_decay * w[at]
            m[at] = beta1 * m[at] + (1 - beta1) * g[at]
            v[at] = beta2 * v[at] + (1 - beta2) * g[at] ** 2
            w[at] -= lr * (m[at] / (1 - beta1**t)) / ((v[at] / (1 - beta2**t)) ** 0.5 + eps)
        return w

    return update


RULES = [
    (lambda p: optim.SGD(p, 0.1), sgd()),
    (lambda p: optim.SGD(p, 0.1, weight_decay=0.01), sgd(0, 0.01)),
    (lambda p: optim.SGD(p, 0.1, 0.9), sgd(0.9)),
    (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), sgd(0.9, 0.01)),
    (lambda p: optim.SGD(p, 0.1, 0.9, weight_decay=0.01, nesterov=True), sgd(0.9, 0.01, nesterov=True)),
    (lambda p: optim.SGD(p, 0.1, 0.9, weight_decay=0.01, paper_update=True), sgd(0.9, 0.01, paper_update=True)),
    (lambda p: optim.SGD(p, 0.1, weight_decay=0.01, paper_update=True), sgd(0, 0.01, paper_update=True)),
    (lambda p: optim.Adam(p), adam()),
    (lambda p: optim.Adam(p, 0.1, (0.8, 0.95), 1e-3, 0.01), adam(0.8, 0.95, 1e-3, 0.01)),
    (lambda p: optim.Adam(p, 0.1, betas=(0, 0)), adam(0, 0)),
    (lambda p: optim.AdamW(p), adamw()),
    (lambda p: optim.AdamW(p, 0.1, (0.8, 0.95), 1e-3, 0.2), adamw(0.8, 0.95, 1e-3, 0.2)),
    (lambda p: optim.AdamW(p, 0.1, weight_decay=0), adam()),
]
rules = pytest.mark.parametrize("number", range(len(RULES)))


@rules
@pytest.mark.parametrize("backend, block", [("numpy", 4), ("numpy", fast.threads.BLOCK), ("reference", None)])
def test_many_steps_follow_the_formula(number, backend, block, monkeypatch):
    """In float64, over blocks smaller than a parameter and larger, and as the lesson is written; lr changes on the
    way."""
    monkeypatch.setattr(fast.threads, "BLOCK", block)
    use_backend(backend)
    make, update = RULES[number]
    params = parameters()
    optimizer = make(params)
    expected, states, arrays = [p.data.copy() for p in params], [{} for _ in params], [p.data for p in params]
    for t in range(1, 31):
        if t == 20:
            optimizer.lr *= 0.1
        for p in params:
            p.grad = Tensor(gradient(t, p))
        held = [p.grad.data.copy() for p in params]
        optimizer.step()
        for i, g in enumerate(held):
            expected[i] = update(expected[i], g, optimizer.lr, t, states[i])
            np.testing.assert_array_equal(params[i].grad.data, g)
    for p, w, array in zip(params, expected, arrays, strict=True):
        np.testing.assert_allclose(p.data, w, rtol=1e-10, atol=1e-12)
        assert p.data is array  # in place


@rules
def test_float32_stays_float32(number):
    params = parameters(np.float32)
    optimizer = RULES[number][0](params)
    for p in params:
        p.grad = Tensor(gradient(1, p))
    optimizer.step()
    assert all(p.dtype == np.float32 for p in params)
    assert all(array.dtype == np.float32 for name, array in optimizer.state_dict().items() if "." in name)


@rules
def test_float32_follows_the_formula(number):
    make, update = RULES[number]
    params = parameters(np.float32)
    optimizer, expected, states = make(params), [p.data.astype(np.float64) for p in params], [{} for _ in params]
    for t in range(1, 11):
        for i, p in enumerate(params):
            g = gradient(t, p)
            p.grad = Tensor(g)
            expected[i] = update(expected[i], g.astype(np.float64), optimizer.lr, t, states[i])
        optimizer.step()
    for p, w in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.data, w, rtol=1e-4, atol=1e-5)


@rules
def test_parameters_without_a_gradient_stay(number):
    a, b = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(3))
    optimizer = RULES[number][0](p for p in (a, b))
    a.grad = Tensor(np.ones(3))
    optimizer.step()
    assert (a.data != 1).all() and (b.data == 1).all()
    optimizer.zero_grad()
    assert a.grad is None
    before = a.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(a.data, before)


@rules
def test_a_run_continues_bit_for_bit_from_a_state(number):
    def steps(params, optimizer, times):
        for t in times:
            for p in params:
                p.grad = Tensor(gradient(t, p))
            optimizer.step()

    make, _ = RULES[number]
    params = parameters()
    optimizer = make(params)
    steps(params, optimizer, range(5))
    optimizer.lr = 0.03
    state = {name: array.copy() for name, array in optimizer.state_dict().items()}
    twins = [nn.Parameter(p.data.copy()) for p in params]
    twin = make(twins)
    twin.load_state_dict(state)
    assert twin.lr == 0.03
    kept = {name: array.copy() for name, array in state.items()}
    for pair in ((params, optimizer), (twins, twin)):
        steps(*pair, range(5, 10))
    for p, q in zip(params, twins, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    for name, array in twin.state_dict().items():
        np.testing.assert_array_equal(array, optimizer.state_dict()[name])
        np.testing.assert_array_equal(state[name], kept[name])  # copied, not kept


def test_the_two_forms_of_sgd_agree_until_the_rate_changes():
    """When it falls, the paper's form lets the old velocity run out, PyTorch's scales it."""
    results = []
    for paper_update in (False, True):
        p = nn.Parameter(np.ones(1))
        optimizer = optim.SGD([p], 0.1, momentum=0.9, paper_update=paper_update)
        values = []
        for t in range(4):
            p.grad = Tensor(np.full(1, 1.0 if t < 3 else 0.0))
            if t == 3:
                optimizer.lr = 0.0
            optimizer.step()
            values.append(p.data[0])
        results.append(values)
    np.testing.assert_allclose(results[0][:3], results[1][:3])
    assert results[0][3] == results[0][2]
    np.testing.assert_allclose(results[1][3] - results[1][2], -0.1 * 0.9 * (1 + 0.9 + 0.81))


def test_steps_on_a_slope():
    """Each optimizer finds the bottom of a parabola, through backward()."""
    for make in (
        lambda p: optim.SGD(p, 0.1),
        lambda p: optim.SGD(p, 0.02, 0.9, nesterov=True),
        lambda p: optim.Adam(p, 0.1),
        lambda p: optim.AdamW(p, 0.1, weight_decay=0.0),
    ):
        p = nn.Parameter(np.array([5.0, -3.0]))
        optimizer = make([p])
        for _ in range(300):
            optimizer.zero_grad()
            ((p - np.array([1.0, 2.0])) ** 2).sum().backward()
            optimizer.step()
        np.testing.assert_allclose(p.data, [1, 2], atol=1e-2)


def test_a_subclass_that_overrides_update_is_obeyed():
    """It is handed every parameter that has a gradient, with its arrays, once a step."""

    class Signs(optim.Adam):
        def update(self, parameters, group):
            seen.append([len(arrays) for arrays in parameters])
            for w, g, mean, _ in parameters:
                mean += 1
                w -= group["lr"] * np.sign(g)

    seen, params = [], [nn.Parameter(np.zeros(3)), nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(1))]
    optimizer = Signs(params, 0.5)
    params[0].grad, params[2].grad = Tensor(np.array([3.0, -2.0, 0.0])), Tensor(np.array([1.0]))
    optimizer.step()
    assert seen == [[4, 4]]
    assert [p.data.tolist() for p in params] == [[-0.5, 0.5, 0], [0, 0], [-0.5]]
    assert [optimizer.state[p]["mean"].sum() for p in params] == [3, 0, 1]


GROUPS = [
    (optim.SGD, [{"lr": 0.1}, {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.5, "nesterov": True}]),
    (optim.SGD, [{}, {"paper_update": True, "momentum": 0.9}]),
    (optim.Adam, [{}, {"lr": 0.2, "betas": (0.5, 0.75)}, {"eps": 0.1, "weight_decay": 0.3}]),
    (optim.AdamW, [{"weight_decay": 0.3}, {"lr": 0.2}]),
]


def grouped(make, settings):
    """(an optimizer with groups, one optimizer for each group, the parameters of both)"""
    ours, theirs = parameters(), parameters()
    parts = [slice(i, i + 1) for i in range(len(settings) - 1)] + [slice(len(settings) - 1, None)]
    whole = make([{"params": iter(ours[part]), **group} for part, group in zip(parts, settings, strict=True)], lr=0.05)
    return (
        whole,
        [make(theirs[part], **{"lr": 0.05, **group}) for part, group in zip(parts, settings, strict=True)],
        ours,
        theirs,
    )


def step_with_gradients(params, *optimizers, t):
    for p in params:
        p.grad = Tensor(gradient(t, p))
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.parametrize("make, settings", GROUPS)
def test_a_group_is_moved_as_by_an_optimizer_of_its_own(make, settings):
    """Through all steps, of which one has other rates, and by an optimizer that goes on from the state of the first."""
    whole, alone, ours, theirs = grouped(make, settings)
    assert whole.params == ours and [group["lr"] for group in whole.param_groups] == [one.lr for one in alone]
    for t in range(1, 9):
        if t == 3:
            for group, one in zip(whole.param_groups, alone, strict=True):
                group["lr"] = one.lr = one.lr / 10
        if t == 6:
            state = {name: array.copy() for name, array in whole.state_dict().items()}
            whole, _, twins, _ = grouped(make, settings)
            for p, q in zip(twins, ours, strict=True):
                p.data[...] = q.data
            whole.load_state_dict(state)
            ours = twins
        step_with_gradients(ours, whole, t=t)
        step_with_gradients(theirs, *alone, t=t)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    assert [group["lr"] for group in whole.param_groups] == [one.lr for one in alone]


@pytest.mark.torch
def test_pytorch_has_the_same_groups():
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in ours]
    mine, other = (
        module.SGD(
            [{"params": p[:2], "weight_decay": 0.1}, {"params": p[2:], "lr": 0.2, "momentum": 0.5}],
            lr=0.1,
            momentum=0.9,
        )
        for module, p in ((optim, ours), (torch.optim, theirs))
    )
    for t in range(5):
        for p, q in zip(ours, theirs, strict=True):
            g = gradient(t, p)
            p.grad, q.grad = Tensor(g), torch.tensor(g.copy())
        mine.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(mine.param_groups, other.param_groups, strict=True):
        assert all(ours[name] == theirs[name] for name in ("lr", "momentum", "weight_decay", "nesterov"))


def test_the_rate_of_several_groups():
    a, b = nn.Parameter(np.ones(1)), nn.Parameter(np.ones(1))
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], lr=0.1)
    optimizer.lr = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2] and optimizer.lr == 0.2
    optimizer.param_groups[1]["lr"] = 0.3
    assert optimizer.lr == 0.2
    with pytest.raises(ValueError, match=r"rates differ, \[0.2, 0.3\].*param_groups"):
        optimizer.lr = 0.1
    assert optimizer.state_dict()["lr"].tolist() == [0.2, 0.3]
    assert optim.SGD([{"params": [a]}], lr=0.1).state_dict()["lr"].shape == ()


def test_a_state_from_before_there_were_groups():
    p = nn.Parameter(np.ones(2))
    optimizer = optim.SGD([p], 0.1, momentum=0.9)
    optimizer.load_state_dict({"lr": np.array(0.5), "steps": np.array(7), "velocity.0": np.array([1.0, 2.0])})
    p.grad = Tensor(np.zeros(2))
    optimizer.step()
    assert (optimizer.lr, optimizer.steps) == (0.5, 8)
    np.testing.assert_allclose(p.data, 1 - 0.5 * 0.9 * np.array([1.0, 2.0]))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_state_brings_the_settings_along(groups):
    def make(settings):
        params = parameters()[:groups]
        return Odd([{"params": [p], **group} for p, group in zip(params, settings[:groups], strict=True)])

    class Odd(optim.Adam):
        def __init__(self, params, name="fast", rows=((1,), (2, 3)), nesterov=False):
            super().__init__(params)
            for group in self.param_groups:
                group |= {"name": name, "rows": rows, "nesterov": nesterov}
            self.defaults |= {"name": name, "rows": rows, "nesterov": nesterov}

    source = make([{"lr": 0.5, "betas": (0.5, 0.25)}, {"eps": 0.125, "weight_decay": 2}])
    source.param_groups[-1]["nesterov"] = True
    target = make([{}, {}])
    target.load_state_dict(source.state_dict())
    for ours, theirs in zip(target.param_groups, source.param_groups, strict=True):
        assert {**ours, "params": 0} == {**theirs, "params": 0}
        assert all(type(ours[name]) is type(theirs[name]) for name in ("lr", "betas", "nesterov", "name"))
    bad = {**source.state_dict(), "eps": source.state_dict()["eps"] - 1}
    fails(ValueError, "eps must be a finite number from 0", make([{}, {}]).load_state_dict, bad)
    target = make([{}, {}])
    for name in ("lr", "steps", "mean.0"):
        fails(ValueError, "Odd", target.load_state_dict, {k: v for k, v in bad.items() if k != name})
    fails(ValueError, "eps", target.load_state_dict, bad)
    fails(ValueError, "name is unexpected", target.load_state_dict, {**source.state_dict(), "name": 1})
    assert target.lr == 1e-3 and target.steps == 0


def test_groups_that_do_not_fit():
    p, q = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    good = {"params": [p]}
    for bad in ({"params": []}, {}, {"params": [p * 2]}, {"params": p * 2}, {"params": [None]}):
        fails(ValueError, "needs parameters.*leaf", optim.SGD, [good, bad], 0.1)
    for mixed in ([good, q], [q, good], [good, None]):
        fails(ValueError, "parameters or groups.*not both", optim.SGD, mixed, 0.1)
    fails(ValueError, "once", optim.SGD, [good, good], 0.1)
    fails(ValueError, "group of Adam has .*'weigth_decay'", optim.Adam, [{**good, "weigth_decay": 0.1}])
    fails(ValueError, "group of SGD has .*momentum.*'betas'", optim.SGD, [{**good, "betas": (0, 0)}], 0.1)
    for name in ("lr", "momentum", "weight_decay"):
        fails(ValueError, f"{name}.*-1", optim.SGD, [{"params": [q]}, {**good, name: -1}], 0.1)
    for name in ("lr", "eps", "weight_decay"):
        fails(ValueError, f"{name}.*-1", optim.AdamW, [{**good, name: -1}])
    fails(ValueError, "betas", optim.Adam, [{**good, "betas": (1.0, 0.5)}])
    fails(ValueError, "nesterov", optim.SGD, [{**good, "nesterov": True}], 0.1)
    frozen = nn.Parameter(np.ones(2))
    frozen.requires_grad = False
    assert len(optim.SGD([good, {"params": [frozen]}], 0.1).param_groups) == 2  # as long as one has requires_grad
    three = optim.SGD([{"params": [p]}, {"params": [q]}, {"params": [frozen]}], 0.1)
    fails(ValueError, "SGD", three.load_state_dict, optim.SGD([p, q, frozen], 0.1).state_dict())


def test_a_subclass_sees_each_group():
    """Once a step for each that has gradients; a setting of its own is one of every group."""

    class Scaled(optim.Optimizer):
        def __init__(self, params, lr, scale=1.0):
            super().__init__(params, lr, scale=scale)

        def update(self, parameters, group):
            for w, g in parameters:
                w -= group["lr"] * group["scale"] * g

    a, b, c = (nn.Parameter(np.zeros(1)) for _ in range(3))
    optimizer = Scaled([{"params": [a]}, {"params": [b], "scale": 3.0}, {"params": [c]}], 0.5)
    a.grad = b.grad = Tensor(np.ones(1))
    optimizer.step()
    assert (a.data, b.data, c.data) == (-0.5, -1.5, 0)


def test_adamw_shrinks_what_has_no_gradient_by_the_decay_alone():
    """Adam's decay passes through the moments instead, and makes a step of lr of it."""
    for make, expected in ((optim.AdamW, 2 * (1 - 0.1 * 0.5)), (optim.Adam, 2 - 0.1)):
        p = nn.Parameter(np.full(1, 2.0))
        optimizer = make([p], 0.1, weight_decay=0.5)
        p.grad = Tensor(np.zeros(1))
        optimizer.step()
        np.testing.assert_allclose(p.data, expected, rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("options", [{}, dict(lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_pytorch_takes_the_same_steps(name, options):
    torch = pytest.importorskip("torch")
    params = parameters()
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in params]
    ours, other = getattr(optim, name)(params, **options), getattr(torch.optim, name)(theirs, **options)
    for t in range(1, 21):
        for p, q in zip(params, theirs, strict=True):
            g = gradient(t, p)
            p.grad, q.grad = Tensor(g), torch.tensor(g.copy())
        ours.step()
        other.step()
    for p, q in zip(params, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr(fast.threads, "BLOCK", 8)
    before, results = fast.threads.get_num_threads(), []
    try:
        for threads in (1, 3):
            fast.threads.set_num_threads(threads)
            params = parameters()
            optimizer = optim.Adam(params, 0.1)
            for t in range(5):
                for p in params:
                    p.grad = Tensor(gradient(t, p))
                optimizer.step()
            results.append([p.data for p in params])
    finally:
        fast.threads.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


@rules
def test_a_step_needs_no_memory_of_a_parameters_size(number):
    p = nn.Parameter(np.ones(100_000))
    p.grad = Tensor(np.ones(100_000))
    optimizer = RULES[number][0]([p])
    optimizer.step()
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < p.data.nbytes / 4


@rules
def test_frozen_parameters_stay(number):
    p, frozen = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    frozen.requires_grad = False
    optimizer = RULES[number][0]([p, frozen])
    (p * frozen).sum().backward()
    optimizer.step()
    assert (p.data != 1).all() and (frozen.data == 1).all()


def test_a_step_is_noticed_by_a_backward_pass_that_comes_too_late():
    linear = nn.Linear(2, 2)
    for write_again in (False, True):
        loss = (linear.weight**2).sum()
        loss.backward(retain_graph=True)
        optim.SGD(linear.parameters(), 0.1).step()
        if write_again:
            linear.load_state_dict(linear.state_dict())
        fails(RuntimeError, "overwritten", loss.backward)


def test_state_names():
    params = parameters()
    own = ["lr", "momentum", "weight_decay", "nesterov", "paper_update", "steps"]
    assert list(optim.SGD(params, 0.1).state_dict()) == own
    state = optim.SGD(params, 0.1, 0.9).state_dict()
    assert list(state) == [*own, *(f"velocity.{i}" for i in range(4))]
    assert all(state[f"velocity.{i}"].shape == p.shape for i, p in enumerate(params))
    assert len(optim.Adam(params).state_dict()) == 5 + 2 * 4
    assert float(state["lr"]) == 0.1 and int(state["steps"]) == 0


def test_states_of_another_optimizer():
    params = parameters()
    optimizer = optim.SGD(params, 0.1, 0.9)
    good = optimizer.state_dict()
    for bad in (
        optim.SGD(params, 0.1).state_dict(),
        optim.Adam(params).state_dict(),
        optim.SGD(params[:2], 0.1, 0.9).state_dict(),
        {**good, "lr": np.array(9.0), "velocity.0": np.ones((5, 4, 3))},
        {**good, "lr": np.array(9.0), "velocity.1": np.ones(1)},
        {**good, "velocity.4": np.ones(1)},
        {**good, "steps": np.array(1.5)},
        {**good, "steps": np.array(-1)},
        {**good, "missed": np.array([0, 0, -1, 0])},
        {**good, "velocity.0": np.ones(good["velocity.0"].shape, np.int32)},
        {},
    ):
        fails(ValueError, "SGD", optimizer.load_state_dict, bad)
    assert optimizer.lr == 0.1 and not any(v.any() for name, v in good.items() if "velocity" in name)


@pytest.mark.parametrize(
    "make, bad, words",
    [
        (optim.SGD, {"steps": 1e30}, "steps is 1e"),
        (optim.SGD, {"steps": np.array(10**30)}, "steps is object"),
        (optim.SGD, {"steps": "3"}, "steps is <U1"),
        (optim.SGD, {"steps": np.array(2), "missed": np.array([0, 3, 0, 0])}, "of 2 steps 3 were missed"),
        (optim.SGD, {"lr": np.inf}, "lr must be a finite number from 0, not inf"),
        (optim.SGD, {"lr": np.nan}, "lr must .* not nan"),
        (optim.SGD, {"lr": -1}, "lr must .* not -1"),
        (optim.SGD, {"lr": "0.1"}, "lr is <U3"),
        (optim.SGD, {"lr": [0.1, 0.2]}, r"lr has shape \(2,\), not \(\)"),
        (optim.SGD, {"momentum": np.inf}, "momentum must .* not inf"),
        (optim.SGD, {"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum"),
        (optim.SGD, {"nesterov": 0.5}, "nesterov is False or True, not 0.5"),
        (optim.SGD, {"weight_decay": None}, "weight_decay is object, not a kind of number$"),
        (optim.Adam, {"mean.1": None}, r"mean.1 has shape \(\), not"),
        (optim.SGD, {3: 1}, "3 is unexpected"),
        (optim.Adam, {"betas": [0.9, 1.0]}, r"betas\[1\] must .* below 1, not 1.0"),
        (optim.Adam, {"betas": 0.9}, r"betas has shape \(\), not \(2,\)"),
        (optim.Adam, {"eps": -1e-8}, "eps must .* not -1e-08"),
    ],
)
def test_states_that_do_not_fit_change_nothing(make, bad, words):
    options = {"lr": 0.1} | ({"momentum": 0.9} if make is optim.SGD else {})
    params = parameters()
    optimizer = make(params, **options)
    step_with_gradients(params, optimizer, t=1)
    before = {name: array.copy() for name, array in optimizer.state_dict().items()}
    other = make(parameters(), **options)
    step_with_gradients(other.params, other, other, t=5)
    fails(ValueError, words, optimizer.load_state_dict, {**other.state_dict(), **bad})
    after = optimizer.state_dict()
    assert after.keys() == before.keys() and all(np.array_equal(after[name], before[name]) for name in before)


def test_a_state_beyond_the_range_of_float32():
    """It changes nothing; infinities that the state has itself are taken."""
    optimizer = optim.SGD(parameters(np.float32), 0.1, 0.9)
    state = {**optimizer.state_dict(), "lr": np.array(9.0)}
    for bad in (1e300, -1e39):
        words = rf"velocity\.1 holds {re.escape(str(bad))}, which is infinite in float32$"
        fails(ValueError, words, optimizer.load_state_dict, {**state, "velocity.1": np.full(7, bad)})
    assert optimizer.lr == 0.1 and not optimizer.state_dict()["velocity.1"].any()
    optimizer.load_state_dict({**state, "velocity.1": np.full(7, -np.inf)})
    assert optimizer.lr == 9.0 and (optimizer.state_dict()["velocity.1"] == -np.inf).all()


def test_a_setting_may_be_a_whole_number():
    optimizer = optim.SGD(parameters(), 0.1)
    optimizer.load_state_dict(optim.SGD(parameters(), 1).state_dict())
    assert optimizer.lr == 1


@pytest.mark.parametrize("state", [[("lr", 0.1)], ("lr",), None, 3, np.ones(2)])
def test_what_is_no_state(state):
    words = rf"^a state is a dict, as state_dict\(\) returns, not a {type(state).__name__}$"
    fails(ValueError, words, optim.SGD(parameters(), 0.1).load_state_dict, state)


def test_arguments_that_do_not_fit():
    p = nn.Parameter(np.ones(2))
    for params in ([], [p * 2], p, [np.ones(2)], [p, None], iter([])):
        fails(ValueError, "needs parameters.*leaf", optim.SGD, params, 0.1)
    fails(ValueError, "requires_grad|requires a gradient", optim.SGD, [Tensor([1.0])], 0.1)
    fails(ValueError, "once", optim.SGD, [p, p], 0.1)
    fails(ValueError, "contiguous", optim.SGD, [p, Tensor(np.ones((2, 3)).T, requires_grad=True)], 0.1)
    for name in ("lr", "momentum", "weight_decay"):
        for bad in (-0.1, np.nan, np.inf, None, "0.1"):
            fails(ValueError, f"{name}.*{bad}", optim.SGD, [p], **{"lr": 0.1, name: bad})
    for make in (optim.Adam, optim.AdamW):
        for name in ("lr", "eps", "weight_decay"):
            fails(ValueError, f"{name}.*-1", make, [p], **{name: -1})
        for betas in ((-0.1, 0.9), (0.9, 1.0), (1.0, 0.9), (0.9, -0.1), 0.9, None, (0.9, None), (0.9,), (0.1,) * 3):
            fails(ValueError, "betas", make, [p], betas=betas)
        fails(ValueError, r"^betas\[0\] must be a number from 0, below 1, not 1.0$", make, [p], betas=(1.0, 0.9))
    fails(ValueError, "nesterov.*momentum", optim.SGD, [p], 0.1, nesterov=True)
    for name in ("nesterov", "paper_update"):
        for bad in (0.5, "no", None, 2, np.ones(2)):
            fails(ValueError, f"{name} is False or True, not ", optim.SGD, [p], 0.1, 0.9, **{name: bad})
    optim.SGD([p], 1, 1.5, nesterov=1), optim.SGD([p], np.float32(0.5), np.float16(0.5), nesterov=np.True_)
    fails(ValueError, "nesterov", optim.SGD, [p], 0.1, 0.9, nesterov=True, paper_update=True)
    assert optim.SGD([p], 0).lr == 0
    for optimizer in (optim.SGD([p], 0.0, 0, weight_decay=0), optim.Adam([p], 0, eps=0)):
        optimizer.step()  # 0 is allowed everywhere
    assert optim.Adam([p]).lr == optim.AdamW([p]).lr == 1e-3
    p.grad = Tensor(np.ones(2))
    fails(NotImplementedError, "Optimizer does not define update", optim.Optimizer([p], 0.1).step)
    for bad in (Tensor(np.ones((2, 1))), Tensor(np.ones((3, 3))), Tensor(1.0), np.ones(2), 0.5):
        p.grad = bad
        fails(ValueError, r"gradient.*\(2,\)", optim.SGD([nn.Parameter(np.ones(1)), p], 0.1).step)
    assert p.data.tolist() == [1, 1]
    p = nn.Parameter(np.eye(2))
    optimizer = optim.SGD([p], 0.1)
    p.data, p.grad = p.data.T, Tensor(np.ones((2, 2)))
    fails(ValueError, "contiguous", optimizer.step)


def test_an_array_replaced_by_one_that_is_not_contiguous():
    p = nn.Parameter(np.ones((2, 3)))
    optimizer = optim.SGD([p], 0.1)
    p.data, p.grad = np.ones((3, 2)).T, Tensor(np.ones((2, 3)))
    fails(ValueError, "contiguous", optimizer.step)


def test_pytorchs_order_of_arguments_is_an_error():
    fails(TypeError, "positional", optim.SGD, [nn.Parameter(np.ones(1))], 0.1, 0.9, 0.0, 5e-4)  # dampening


def ready(*values):
    """Parameters that have a gradient of 1."""
    params = [nn.Parameter(np.array(value)) for value in values]
    for p in params:
        p.grad = Tensor(np.ones(p.shape))
    return params


def test_a_group_of_one_tensor():
    p, q = ready([1.0, 2.0], [3.0])
    optimizer = optim.SGD([{"params": p}, {"params": q, "lr": 0.5}], 1.0)
    optimizer.step()
    assert (p.data.tolist(), q.data.tolist()) == ([0, 1], [2.5])


@pytest.mark.parametrize("backend", [None, "reference"])
def test_momentum_that_is_set_on_the_way(backend):
    p, q = ready([1.0], [1.0])
    use_backend(backend)
    optimizer = optim.SGD([{"params": [p]}, {"params": [q], "momentum": 0.9}], 0.5)
    optimizer.step()
    optimizer.param_groups[1]["momentum"] = 0.0
    optimizer.step()  # without the velocity, as with an optimizer that never had one
    assert (p.data.tolist(), q.data.tolist(), optimizer.steps) == ([0], [0], 2)
    optimizer.param_groups[0]["momentum"] = 0.9
    fails(ValueError, "'velocity'.*SGD.*make a new optimizer", optimizer.step)
    assert (p.data.tolist(), q.data.tolist(), optimizer.steps) == ([0], [0], 2)


@pytest.mark.parametrize(
    "name, bad", [("lr", None), ("lr", np.nan), ("lr", np.inf), ("lr", -1.0), ("weight_decay", None), ("momentum", "a")]
)
def test_settings_that_are_spoilt_on_the_way(name, bad):
    p, q = ready([1.0], [1.0])
    optimizer = optim.SGD([{"params": [p]}, {"params": [q]}], 0.5, 0.9)
    optimizer.param_groups[1][name] = bad
    fails(ValueError, f"{name} must be a finite number from 0, not {bad!r}", optimizer.step)
    assert p.data.tolist() == [1] and optimizer.steps == 0 and p.version == [0]


def test_groups_that_are_added():
    """They are moved as if they had been there, and what does not fit is not added."""
    p, q, r = ready([1.0], [1.0], [1.0])
    optimizer = optim.SGD([p], 0.5, momentum=0.5)
    optimizer.step()
    optimizer.add_param_group({"params": q, "lr": 1.0})
    optimizer.step()
    assert (p.data.tolist(), q.data.tolist()) == ([1 - 0.5 - 0.75], [0])
    assert optimizer.params == [p, q] and list(optimizer.state_dict())[-2:] == ["velocity.0", "velocity.1"]
    for bad, words in (
        ({"params": q}, "once"),
        ({"params": [r, r]}, "once"),
        ({"params": r, "lr": -1}, "lr"),
        ({"params": r, "betas": 1}, "betas"),
        ({"params": r, 3: 1}, "not 3"),
        ({}, "needs parameters"),
        (r, "dict with 'params', not a Parameter"),
        ([r], "dict with 'params', not a list"),
    ):
        fails(ValueError, words, optimizer.add_param_group, bad)
    assert optimizer.params == list(optimizer.state) == [p, q]
    optimizer.zero_grad()
    assert p.grad is q.grad is None


def test_groups_that_are_changed_by_hand():
    """A parameter keeps its state wherever it goes; one that has none is named, and nothing moves."""
    p, q, r = ready([1.0], [1.0, 1.0], [1.0])
    optimizer = optim.SGD([p, q], 0.5, momentum=0.5)
    (group,) = optimizer.param_groups
    optimizer.step()
    group["params"] = [q, p]
    optimizer.step()
    assert (p.data.tolist(), q.data.tolist()) == ([-0.25], [-0.25, -0.25])
    group["params"] = [q]
    optimizer.step()
    assert (p.data.tolist(), q.data.tolist()) == ([-0.25], [-1.125, -1.125])
    group["params"] = [q, r]
    for function in (optimizer.step, optimizer.state_dict):
        fails(ValueError, r"shape \(1,\).*param_groups.*add_param_group", function)
    group["params"] = [q, q]
    fails(ValueError, "once", optimizer.step)
    group["params"] = q
    fails(ValueError, "needs parameters", optimizer.step)
    group["params"] = [q]
    optimizer.param_groups.append({"params": [r]})
    fails(ValueError, "no 'lr'.*add_param_group", optimizer.step)
    assert (q.data.tolist(), r.data.tolist(), optimizer.steps) == ([-1.125, -1.125], [1], 3)


def test_only_a_parameter_that_has_moved_counts_as_overwritten():
    class Broken(optim.SGD):
        def update(self, parameters, group):
            if group["lr"] == 0.5:
                raise OSError("no device")
            super().update(parameters, group)

    p, q = ready([1.0], [1.0])
    fails(OSError, "no device", Broken([{"params": p, "lr": 0.1}, {"params": q}], 0.5).step)
    assert (p.version, q.version) == ([1], [0])


def test_a_schedule_that_was_made_for_fewer_groups():
    p, q = ready([1.0], [1.0])
    optimizer = optim.SGD([p], 0.5)
    schedule = optim.StepLR(optimizer, 1)
    optimizer.add_param_group({"params": q})
    fails(ValueError, "schedule made for 1 groups.*2 now", schedule.step)


def test_how_it_looks():
    p, q = ready([1.0], [2.0])
    text = repr(optim.SGD([{"params": [p], "lr": 0.5}, {"params": [q]}], 0.1))
    assert text == (
        "SGD(1 parameters, lr=0.5, momentum=0.0, weight_decay=0.0, nesterov=False, paper_update=False; "
        "1 parameters, lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False, paper_update=False)"
    )


def test_only_parts_of_parameters_are_updated():
    """As distributed.Sharded asks for: of the first one half, of the second nothing, of the others all."""
    params, before = parameters(), [p.data.copy() for p in parameters()]
    optimizer, whole = (optim.SGD(each, 0.1, momentum=0.9) for each in (params, parameters()))
    first, second = params[:2]

    def only(p, arrays):
        if p is first:
            return [tuple(array.reshape(-1)[30:] for array in arrays)]
        return [] if p is second else [arrays]

    optimizer.only = only
    for each in optimizer, whole:
        for p in each.params:
            p.grad = Tensor(np.ones_like(p.data))
        each.step()
    wanted = [p.data for p in whole.params]
    np.testing.assert_array_equal(first.data.reshape(-1)[:30], before[0].reshape(-1)[:30])
    np.testing.assert_array_equal(first.data.reshape(-1)[30:], wanted[0].reshape(-1)[30:])
    np.testing.assert_array_equal(second.data, before[1])
    for p, expected in zip(params[2:], wanted[2:], strict=True):
        np.testing.assert_array_equal(p.data, expected)


@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW])
def test_a_parameter_that_joins_late_begins_at_its_first_step(make):
    """A step of lr, whether it was added later or had no gradient at first; also in a state."""
    (early,), (late, frozen) = ready([1.0]), (nn.Parameter(np.zeros(1)), nn.Parameter(np.zeros(1)))
    optimizer = make([early, frozen], 0.1, weight_decay=0.0)
    for _ in range(100):
        optimizer.step()
    optimizer.add_param_group({"params": late})
    other = make(
        [{"params": [nn.Parameter(np.zeros(1)) for _ in range(2)]}, {"params": nn.Parameter(np.zeros(1))}], 0.1
    )
    other.load_state_dict(optimizer.state_dict())
    assert optimizer.state_dict()["missed"].tolist() == [0, 100, 100]
    for one in (optimizer, other):
        for p in one.params:
            p.data[...], p.grad = 0, Tensor(np.ones(1))
        one.step()
        for p in one.params[1:]:
            np.testing.assert_allclose(p.data, -0.1, rtol=1e-6)
    assert "missed" not in optim.SGD([early], 0.1).state_dict()


def test_every_parameter_that_moves_counts_as_overwritten():
    p, q = ready([1.0], [1.0])
    loss = (p * q).sum()
    loss.backward(retain_graph=True)
    optim.SGD([p, q], 0.1).step()
    assert (p.version, q.version) == ([1], [1])


def test_settings_are_set_in_groups():
    (p,) = ready([1.0])
    for optimizer, name in ((optim.SGD([p], 0.1), "momentum"), (optim.Adam([p]), "betas")):
        fails(AttributeError, rf"{name}: set group\['{name}'\] of each of param_groups", setattr, optimizer, name, 0.5)
    optimizer.lr = 0.5
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_arrays_of_another_kind_than_the_parameter_are_refused():
    """As they are when the network was moved to a GPU after its optimizer was made."""

    class Elsewhere(np.ndarray):
        pass

    (p,) = ready([1.0])
    optimizer = optim.SGD([p], 0.5, 0.9)
    optimizer.state[p]["velocity"] = optimizer.state[p]["velocity"].view(Elsewhere)
    fails(
        ValueError,
        "is on cpu, its gradient or the optimizer's arrays .*: make the optimizer after net.to",
        optimizer.step,
    )
    assert p.data.tolist() == [1]


def test_settings_become_pythons_numbers():
    """float64's would make the steps of float32 parameters float64."""
    p = nn.Parameter(np.ones(2, np.float32))
    sgd = optim.SGD([p], np.float64(0.5), np.array(0.25), weight_decay=np.float64(0))
    adam = optim.Adam([p], np.float64(0.5), [np.float64(0.5), 0], eps=Tensor(1.0), weight_decay=np.float32(0.5))
    assert repr(sgd).startswith("SGD(1 parameters, lr=0.5, momentum=0.25, weight_decay=0.0,")
    assert repr(adam) == "Adam(1 parameters, lr=0.5, betas=(0.5, 0), eps=1.0, weight_decay=0.5)"
    sgd.lr = np.float64(0.125)
    assert type(sgd.lr) is float
    for value in (-1, np.nan, "1", None):
        with pytest.raises(ValueError, match=r"^lr must be a finite number from 0, not "):
            sgd.lr = value
    assert sgd.lr == 0.125


def test_what_are_no_parameters():
    p = nn.Parameter(np.ones(2))
    for given in (3, None, "ab"):
        with pytest.raises(TypeError, match=r"^SGD: params must be a list, not "):
            optim.SGD(given, 0.1)
        with pytest.raises(TypeError, match=r"^a group's 'params' must be a list, not "):
            optim.SGD([{"params": given}], 0.1)
    words = r"^Adam: an optimizer needs parameters: .* gives them, not \[1, 2\]$"
    with pytest.raises(ValueError, match=words):
        optim.Adam([1, 2])
    words = "^nesterov needs a momentum above 0, .* here momentum=0.0 and paper_update=False$"
    with pytest.raises(ValueError, match=words):
        optim.SGD([p], 0.1, nesterov=True)
