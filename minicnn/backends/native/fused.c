// A bias and a ReLU at once: the lesson functional/fused.py. (A convolution's are in conv.c and
// winograd.c, where the sums are still in registers.) x is read once and y written once, which is
// the floor: 8 bytes an element in float32. On two cores of an AMD EPYC (Zen 5) it takes as long as
// a copy of x.

#include "native.h"

// max(x + b, 0): NaN stays, and −0 becomes 0. A unit is a row.
KERNEL void add_rectify(Index first, Index last, const real *restrict x, const real *restrict bias, Index columns,
                        real *restrict y) {
    for (Index row = first; row < last; ++row)
        for (Index c = 0; c < columns; ++c) {
            const real sum = x[row * columns + c] + bias[c];
            y[row * columns + c] = sum <= 0 ? 0 : sum;
        }
}
