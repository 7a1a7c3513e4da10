// ReLU and others: the lesson functional/activation.py. Each loop reads its arrays once and writes
// one, which is the floor: 8 bytes an element for rectify and logistic in float32, 9 for leak, 12
// for where_positive.

#include "native.h"

#include "exponential.h"
#include "far.h"

// max(x, 0): NaN stays, and −0 becomes 0.
KERNEL void rectify(Index first, Index last, const real *restrict x, real *restrict y) {
    for (Index i = first; i < last; ++i) y[i] = x[i] <= 0 ? 0 : x[i];
}

#define LINE ((Index)(64 / sizeof(real)))
#define AHEAD 512  // numbers

// dy where y > 0, else 0. A unit is a line of the cache. Memory is asked ahead: the processor does
// not guess well what is read of two arrays, and without this takes 1.5 times as long.
KERNEL void where_positive(Index first, Index last, const real *restrict dy, const real *restrict y, real *restrict dx,
                           Index size) {
    const int far = is_far(dx, size, WIDTH);
    const Index end = least(last * LINE, size);
    Index i = first * LINE;
    for (; i + WIDTH <= end; i += WIDTH) {
        __builtin_prefetch(dy + i + AHEAD);
        __builtin_prefetch(y + i + AHEAD);
        const vec positive = where((ints)(load(y + i) > 0), load(dy + i));
        if (far) {
            store_far(dx + i, positive);
        } else {
            __builtin_prefetch(dx + i + AHEAD, 1);
            store(dx + i, positive);
        }
    }
    for (; i < end; ++i) dx[i] = y[i] > 0 ? dy[i] : 0;
}

// x where it is positive, else slope · x
KERNEL void leak(Index first, Index last, const real *restrict x, const uint8_t *restrict positive, real slope,
                 real *restrict y) {
    for (Index i = first; i < last; ++i) y[i] = positive[i] ? x[i] : x[i] * slope;
}

// 1 / (1 + e^−x), from e = e^−|x|, which is at most 1; where x < 0 the result is e / (1 + e).
KERNEL void logistic(Index first, Index last, const real *restrict x, real *restrict y) {
    for (Index i = first; i < last; i += WIDTH) {
        vec v = i + WIDTH <= last ? load(x + i) : few(x + i, last - i);
        vec e = exponential((vec)((ints)v | (ints)all(-0.0f)));
        v = choose((ints)v < 0, e, all(1)) / (1 + e);
        if (i + WIDTH <= last)
            store(y + i, v);
        else
            for (Index c = 0; c < last - i; ++c) y[i + c] = v[c];
    }
}
