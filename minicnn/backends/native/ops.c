// Sums, and a choice by a mask: minicnn/ops.py. Each reads its array once, which is the floor: 4
// bytes an element in float32 for sums, and 9 for masked, which writes as many as it reads.

#include "native.h"

#include "columns.h"

// Of each of some images (pixels, channels), and each block of its pixels, the sums over the
// pixels. A unit is a block; an image has so many `blocks`, of `step` pixels.
KERNEL void column_sums(Index first, Index last, Index blocks, Index pixels, Index channels, Index step,
                        const real *restrict x, double *restrict sums) {
    for (Index unit = first; unit < last; ++unit) {
        Block b = block(unit % blocks, pixels, channels, step);
        const real *at = x + unit / blocks * pixels * channels + b.begin;
        for (Index from = 0; from < channels; from += COLUMNS) {
            Layout lines = layout(channels, from);
            Index width = least(channels, lines.columns);
            double s[COLUMNS];
            for (Index c = 0; c < lines.columns; ++c) s[c] = 0;
            add_lines(SUM, lines, b.end - b.begin - from, width, at + from, at + from, 0, s, 0);
            memcpy(sums + unit * channels + from, s, (size_t)width * sizeof(double));
        }
    }
}

// The sums of the blocks of each image
KERNEL void merge_sums(Index first, Index last, Index blocks, Index channels, const double *restrict sums,
                       real *restrict y) {
    for (Index image = first; image < last; ++image)
        for (Index from = 0; from < channels; from += COLUMNS) {
            Index width = least(COLUMNS, channels - from);
            double s[COLUMNS] = {0};
            for (Index b = 0; b < blocks; ++b) {
                const double *part = sums + (image * blocks + b) * channels + from;
                for (Index c = 0; c < width; ++c) s[c] += part[c];
            }
            for (Index c = 0; c < width; ++c) y[image * channels + from + c] = (real)s[c];
        }
}

// The sum of each row, of which so many numbers are added in `real` before they are in double
KERNEL void row_sums(Index first, Index last, Index count, const real *restrict x, real *restrict y) {
    for (Index row = first; row < last; ++row) {
        const real *from = x + row * count;
        double sum = 0;
        Index i = 0;
        while (i + WIDTH <= count) {
            vec part = {0};
            for (Index end = least(count, i + LINES * WIDTH); i + WIDTH <= end; i += WIDTH) part += load(from + i);
            for (int c = 0; c < WIDTH; ++c) sum += part[c];
        }
        for (; i < count; ++i) sum += from[i];
        y[row] = (real)sum;
    }
}

// x where the mask holds, else 0
KERNEL void masked(Index first, Index last, const real *restrict x, const uint8_t *restrict mask, real *restrict y) {
    for (Index i = first; i < last; ++i) y[i] = mask[i] ? x[i] : 0;
}
