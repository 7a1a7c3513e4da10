"""Gradient clipping: one factor for all, whatever their size."""

import numpy as np
import pytest

from minicnn import Tensor, nn, optim


def parameters(*gradients):
    params = [nn.Parameter(np.zeros(len(g), np.float32)) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = Tensor(np.array(g, np.float32))
    return params


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_the_whole_is_at_most_so_long(scale):
    """Squares of 1e30 would overflow in float32, those of 1e-30 vanish."""
    params = parameters([3 * scale, 0], [4 * scale])
    held = [p.grad.data for p in params]
    unused = nn.Parameter(np.zeros(2, np.float32))
    norm = optim.clip_grad_norm((p for p in [*params, unused]), scale)
    assert type(norm) is float and norm == pytest.approx(5 * scale, rel=1e-6) and unused.grad is None
    np.testing.assert_allclose(params[0].grad.data, [0.6 * scale, 0], rtol=1e-6)
    np.testing.assert_allclose(params[1].grad.data, [0.8 * scale], rtol=1e-6)
    assert params[1].grad.dtype == np.float32 and not params[1].grad.requires_grad
    np.testing.assert_allclose(held[1], [4 * scale], rtol=1e-6)  # who holds a gradient keeps it


def test_float16_is_measured_and_scaled_in_float32():
    """100,000 squares of 1 overflow in float16, and a factor of 1e-5 has two digits there."""
    p = nn.Parameter(np.zeros(100_000, np.float16))
    p.grad = Tensor(np.full(100_000, 300, np.float16))
    assert optim.clip_grad_norm(p, 1.0) == pytest.approx(300 * 100_000**0.5, rel=1e-6)
    assert p.grad.dtype == np.float16
    np.testing.assert_allclose(p.grad.data, 100_000**-0.5, rtol=1e-3)


def test_what_is_short_enough_stays():
    for gradient in ([3.0, 4.0], [0.0, 0.0], []):
        (p,) = parameters(gradient)
        before = p.grad
        assert optim.clip_grad_norm(p, 5.0) == np.linalg.norm(gradient) and p.grad is before


def test_what_cannot_be_clipped():
    used_up = iter(parameters([1.0]))
    list(used_up)
    for params, max_norm, words in (
        (parameters([1.0]), 0, "max_norm.*0"), (parameters([1.0]), False, "max_norm.*not False"), (parameters([1.0]), np.nan, "max_norm"), (used_up, 1.0, "no parameter.*generator"),
        (parameters([1.0]), "1", "max_norm must be a number"), (nn.Sequential(nn.Linear(1, 1)), 1.0, r"net\.parameters\(\)"),
        (parameters([np.inf], [1.0]), 1.0, "norm is inf"), (parameters([0.0], [np.nan, 1.0]), 1.0, "norm is nan"),
        (parameters([np.nan], [1.0]), 1.0, "norm is nan"),
    ):  # fmt: skip
        before = [p.grad.data.copy() for p in params] if isinstance(params, list) else []
        error = TypeError if "net" in words else ValueError
        with pytest.raises(error, match=words), np.errstate(invalid="ignore"):
            optim.clip_grad_norm(params, max_norm)
        for p, was in zip(params, before, strict=False):
            np.testing.assert_array_equal(p.grad.data, was)


@pytest.mark.torch
def test_pytorch_clips_alike():
    torch = pytest.importorskip("torch")
    gradients = [np.random.default_rng(i).standard_normal(5).astype(np.float32) for i in range(3)]
    ours = parameters(*gradients)
    theirs = [torch.nn.Parameter(torch.zeros(5)) for _ in gradients]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.tensor(g)
    assert optim.clip_grad_norm(ours, 0.5) == pytest.approx(
        torch.nn.utils.clip_grad_norm_(theirs, 0.5).item(), rel=1e-6
    )
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-5)
