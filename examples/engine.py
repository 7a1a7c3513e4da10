"""An engine in forty lines: what a framework like this one does, without anything that makes it
fast, safe or complete. It needs NumPy only; minicnn does not use it.

    python examples/engine.py

A Value is a number y that knows how it was made. For each Value x that y was computed from,
`parents` holds x and a function from dy to what y contributes to dx. Here dx means dL/dx, and L is
the one number that is differentiated. These functions are all the calculus there is: one line for
each operation.

backward() begins with dL/dL = 1 and goes through the Values from the result back to the inputs. A
Value comes after everything that was computed from it, so it has received its whole gradient before
it hands it on. Where a Value was used twice, two gradients arrive and add up: the chain rule in
several variables.

The same class serves arrays of equal shapes, element by element. Only the operations that mix or
repeat elements are new. (minicnn/functional/linear.py derives the gradients of matmul.)

What minicnn/autograd.py adds to this: no recursion, so that a chain of 100,000 operations is no
problem; memory that is given back while the pass goes on; hooks that are called when a gradient is
complete; and second derivatives, because there a backward pass is made of operations that are
recorded themselves.
"""

import numpy as np


class Value:
    def __init__(self, data, parents=()):
        self.data, self.parents, self.grad = data, parents, 0.0

    def __add__(self, other):
        return Value(self.data + other.data, [(self, lambda dy: dy), (other, lambda dy: dy)])

    def __mul__(self, other):
        parents = [(self, lambda dy: dy * other.data), (other, lambda dy: dy * self.data)]
        return Value(self.data * other.data, parents)

    def relu(self):
        return Value(np.maximum(self.data, 0), [(self, lambda dy: dy * (self.data > 0))])

    def backward(self):
        order, seen = [], set()

        def visit(value):  # parents go before what was computed from them
            if value not in seen:
                seen.add(value)
                for parent, _ in value.parents:
                    visit(parent)
                order.append(value)

        visit(self)
        self.grad = 1.0
        for value in reversed(order):
            for parent, part in value.parents:
                parent.grad = parent.grad + part(value.grad)


# ------------------------------------------------------------- arrays: operations that mix elements
def matmul(x, w):
    """(N, in), (in, out) -> (N, out)"""
    return Value(x.data @ w.data, [(x, lambda dy: dy @ w.data.T), (w, lambda dy: x.data.T @ dy)])


def add_to_rows(x, b):
    """(N, out), (out,) -> (N, out): b is used N times, so its gradients add up"""
    return Value(x.data + b.data, [(x, lambda dy: dy), (b, lambda dy: dy.sum(axis=0))])


def mean(x):
    """Any shape -> one number"""
    return Value(x.data.mean(), [(x, lambda dy: np.full(x.data.shape, dy / x.data.size))])


# ---------------------------------------------------------------------------------- both, in action
def loss_of(parameters, x, target):
    """How far a network of one hidden layer is from its target: the mean squared error."""
    w1, b1, w2, b2 = parameters
    hidden = add_to_rows(matmul(x, w1), b1).relu()  # (N, 16)
    error = add_to_rows(matmul(hidden, w2), b2) + Value(-target)  # (N, 1)
    return mean(error * error)


def main():
    x, w, b = Value(2.0), Value(-3.0), Value(10.0)
    y = (x * w + b) * x  # = w x² + b x, so that dy/dx = 2 w x + b, dy/dw = x² and dy/db = x
    y.backward()
    print(f"y = {y.data:g}, dy/dx = {x.grad:g}, dy/dw = {w.grad:g}, dy/db = {b.grad:g}")

    rng = np.random.default_rng(0)
    x = np.linspace(-2, 2, 64).reshape(64, 1)
    shapes = (1, 16), (16,), (16, 1), (1,)
    parameters = [Value(rng.normal(0, 0.5, shape)) for shape in shapes]
    for step in range(501):
        loss = loss_of(parameters, Value(x), np.sin(2 * x))
        for parameter in parameters:
            parameter.grad = 0.0  # backward() adds to it
        loss.backward()
        for parameter in parameters:
            parameter.data = parameter.data - 0.05 * parameter.grad
        if step % 100 == 0:
            print(f"step {step}: loss {loss.data:.4f}")


if __name__ == "__main__":
    main()
