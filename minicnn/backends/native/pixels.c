// Pixels become floats: data/pixels.py. In one pass, which is the floor: 1 byte a number is read,
// and 4 are written.

#include "native.h"

// y = x · scale − shift, for rows of so many columns, which have a scale and a shift each. In one
// loop the two would become one operation, and so round once: here the result is the lesson's, bit
// for bit.
KERNEL void normalize(Index first, Index last, Index columns, const uint8_t *restrict x, const real *restrict scale,
                      const real *restrict shift, real *restrict y) {
    for (Index i = first * columns; i < last * columns; i += columns) {
        for (Index c = 0; c < columns; ++c) y[i + c] = x[i + c] * scale[c];
        for (Index c = 0; c < columns; ++c) y[i + c] -= shift[c];
    }
}
