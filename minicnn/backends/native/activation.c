// ReLU: the lesson functional/activation.py. Each loop reads its arrays once and writes one, which
// is the floor: 8 bytes an element for rectify in float32, 12 for where_positive.

#include "native.h"

// max(x, 0): NaN stays, and −0 becomes 0.
KERNEL void rectify(Index first, Index last, const real *restrict x, real *restrict y) {
    for (Index i = first; i < last; ++i) y[i] = x[i] <= 0 ? 0 : x[i];
}

// dy where y > 0, else 0
KERNEL void where_positive(Index first, Index last, const real *restrict dy, const real *restrict y,
                           real *restrict dx) {
    for (Index i = first; i < last; ++i) dx[i] = y[i] > 0 ? dy[i] : 0;
}
