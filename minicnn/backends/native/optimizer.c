// Optimizers: the formulas are in optim/optimizer.py. A step reads each array of a parameter once
// and writes those that change once, which is the floor: in float32 20 bytes an element for SGD
// with momentum, 28 for Adam. Both move these as fast as memory gives them (parameters of 80 MB on
// two cores of an AMD EPYC, Zen 5: 54 and 58 GB/s, where a copy reaches 42); one core comes to nine
// tenths of that. Adam's root and quotient are vector instructions, and hidden behind the memory.

#include "native.h"

#include <tgmath.h>

// One launch steps all parameters: their elements are numbered one after another, those of
// parameter k from ends[k] to ends[k + 1]. at[4 k …] are the addresses of its w, its gradient g,
// and the optimizer's arrays, or 0. This is what [first, last) has of it: `count` elements, where
// the arrays point.
typedef struct {
    Index count;
    real *w, *g, *a, *b;
} Part;

INLINE Part part(Index k, const uint64_t *at, const Index *ends, Index first, Index last) {
    const uint64_t *arrays = at + 4 * k;
    Index from = most(first, ends[k]), skip = (from - ends[k]) * sizeof(real);
    return (Part){least(last, ends[k + 1]) - from, (real *)(arrays[0] + skip), (real *)(arrays[1] + skip),
                  (real *)(arrays[2] + skip), (real *)(arrays[3] + skip)};
}

INLINE void step_sgd(Index count, real *restrict w, const real *restrict g, real *restrict v, real lr, real momentum,
                     real decay, int velocity, int nesterov, int paper) {
    for (Index i = 0; i < count; ++i) {
        real step = g[i] + decay * w[i];
        if (paper) step = -lr * step;
        if (velocity) {
            v[i] = momentum * v[i] + step;
            step = nesterov ? step + momentum * v[i] : v[i];
        }
        w[i] = paper ? w[i] + step : w[i] - lr * step;
    }
}

// Stochastic gradient descent, with momentum for parameters that have a velocity
KERNEL void sgd(Index first, Index last, Index parameters, const uint64_t *at, const Index *ends, real lr,
                real momentum, real decay, Index nesterov, Index paper) {
    for (Index k = 0; k < parameters; ++k) {
        Part p = part(k, at, ends, first, last);
        step_sgd(p.count, p.w, p.g, p.a, lr, momentum, decay, at[4 * k + 2] != 0, nesterov, paper);
    }
}

INLINE void step_adam(Index count, real *restrict w, const real *restrict g, real *restrict m, real *restrict v,
                      real rate, real beta1, real rest1, real beta2, real rest2, real eps, real decay, real keep) {
    for (Index i = 0; i < count; ++i) {
        real step = g[i] + decay * w[i];
        m[i] = beta1 * m[i] + rest1 * step;
        v[i] = beta2 * v[i] + rest2 * step * step;
        w[i] = keep * w[i] - rate * m[i] / (sqrt(v[i]) + eps);
    }
}

// Adam, with the constants of AdamStep; `rest` is 1 − β, rounded once.
KERNEL void adam(Index first, Index last, Index parameters, const uint64_t *at, const Index *ends, real rate,
                 real beta1, real rest1, real beta2, real rest2, real eps, real decay, real keep) {
    for (Index k = 0; k < parameters; ++k) {
        Part p = part(k, at, ends, first, last);
        step_adam(p.count, p.w, p.g, p.a, p.b, rate, beta1, rest1, beta2, rest2, eps, decay, keep);
    }
}
