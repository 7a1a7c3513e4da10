"""Initializers: their variances for convolution and linear shapes, their seed, the error for shapes without a fan."""

import numpy as np
import pytest
from reference import fails

import minicnn
from minicnn.nn import init

CONV, LINEAR = (3, 5, 40, 60), (300, 200)  # (KH, KW, C, O) and (in, out)
FAN_IN = {CONV: 3 * 5 * 40, LINEAR: 300}
FAN_OUT = {CONV: 3 * 5 * 60, LINEAR: 200}


@pytest.mark.parametrize("shape", [CONV, LINEAR])
@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (init.normal(), lambda shape: 0.01**2),
        (init.normal(0.5), lambda shape: 0.25),
        (init.lecun(), lambda shape: 1 / FAN_IN[shape]),
        (init.xavier(), lambda shape: 2 / (FAN_IN[shape] + FAN_OUT[shape])),
        (init.he(), lambda shape: 2 / FAN_IN[shape]),
    ],
)
def test_variances(initializer, variance, shape):
    w = initializer(shape)
    std = np.sqrt(variance(shape))
    assert w.shape == shape and w.dtype == np.float32 and w.flags.writeable and w.flags.c_contiguous
    np.testing.assert_allclose(w.std(), std, rtol=0.02)  # 60,000 numbers: 0.3% is one standard deviation
    assert abs(w.mean()) < 0.02 * std
    np.testing.assert_allclose((w.astype(float) ** 4).mean(), 3 * std**4, rtol=0.1)  # normal, not uniform
    assert abs(np.corrcoef(w.ravel()[1:], w.ravel()[:-1])[0, 1]) < 0.02


def test_a_seed_repeats_them():
    draws = []
    for seed in (1, 1, 2):
        minicnn.random.manual_seed(seed)
        draws.append([init.he()((4, 5)), init.he()((4, 5))])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0] != draws[0][1]).any() and (draws[0][0] != draws[2][0]).any()


def test_constant():
    assert init.constant(1.5)((2, 3)).tolist() == [[1.5] * 3] * 2 and init.constant(0)((2,)).dtype == np.float32


@pytest.mark.parametrize("initializer", [init.lecun(), init.xavier(), init.he()])
def test_a_weight_has_an_input_and_an_output_axis(initializer):
    for shape in [(), (3,)]:
        with pytest.raises(ValueError, match="two axes") as caught:
            initializer(shape)
        assert "\n" not in str(caught.value)
    assert init.normal()((3,)).shape == (3,)


def test_what_initializers_do_not_take():
    for make, name in ((init.constant, "value"), (init.normal, "std")):
        for given in ("a", None, [1.0], np.nan):
            fails(ValueError, f"^{make.__name__}: {name} must be a .*number.*, not ", make, given)
    fails(ValueError, "^normal: std must be a finite number from 0, not -1$", init.normal, -1)
    for initializer in (init.constant(1.0), init.normal(), init.lecun(), init.xavier(), init.he()):
        for shape in ("ab", None, 1.5):
            fails(TypeError, "^an initializer's shape must be a list, not ", initializer, shape)
        for shape in ((2, -1), (2, 1.5)):
            fails(
                ValueError,
                "^an initializer's shape: each number must be a whole number from 0, not ",
                initializer,
                shape,
            )
        fails(ValueError, "^an initializer's shape must be one that memory can hold", initializer, (10**18, 10**18))
        for shape in ((0, 3), (3, 0), (0, 0)):
            assert initializer(shape).shape == shape and initializer(list(shape)).dtype == np.float32
