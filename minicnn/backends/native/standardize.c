// Standardization, as in batch normalization: the lesson functional/standardize.py. Its kernels
// read x, or x and dy, once from memory, and write y or dx once: in float32 4 bytes an element for
// moments, 8 for normalize and sums, 12 for normalize_backward. That is the floor.
//
// A unit of work of moments and sums is a block of pixels, small enough to be in the cache when it
// is read a second time (columns.h).
//
// On one core of an AMD EPYC (Zen 5, AVX-512), 65,536 pixels of 64 channels in float32: moments 40
// GB/s, normalize 35, sums 27, normalize_backward 35, where a copy that does not read what it is
// going to overwrite has 60; the two that write read y and dx first, so they move 52 and 47.

#include "native.h"

#include "columns.h"

// For each block and channel Σ x and Σ (x − m)², where m is the mean in the block
KERNEL void moments(Index first, Index last, Index pixels, Index channels, Index step, const real *restrict x,
                    double *restrict sums) {
    for (Index unit = first; unit < last; ++unit) {
        Block b = block(unit, pixels, channels, step);
        double *sum = sums + unit * 2 * channels, *squares = sum + channels;
        for (Index from = 0; from < channels; from += COLUMNS) {
            Layout lines = layout(channels, from);
            Index width = least(channels, lines.columns), size = b.end - b.begin - from;
            double s[COLUMNS] = {0}, p[COLUMNS] = {0};
            real m[COLUMNS];
            const real *at = x + b.begin + from;
            add_lines(SUM, lines, size, width, at, at, m, s, p);
            for (Index c = 0; c < lines.columns; c += width)
                for (Index k = 0; k < width; ++k) m[c + k] = s[k] / b.pixels;
            add_lines(SQUARES, lines, size, width, at, at, m, s, p);
            memcpy(sum + from, s, width * sizeof(double));
            memcpy(squares + from, p, width * sizeof(double));
        }
    }
}

// μ and σ² of each channel from those of the blocks: Σ (x − μ)² is Σ (x − m)² and n (m − μ)².
KERNEL void merge_moments(Index first, Index last, Index pixels, Index channels, Index step,
                          const double *restrict sums, real *restrict mean, real *restrict var) {
    for (; first < last; first += COLUMNS) {
        Index units = (pixels + step - 1) / step, width = least(COLUMNS, last - first);
        double mu[COLUMNS] = {0}, squares[COLUMNS] = {0};
        for (Index unit = 0; unit < units; ++unit) {
            const double *sum = sums + unit * 2 * channels + first;
            for (Index c = 0; c < width; ++c) mu[c] += sum[c];
        }
        for (Index c = 0; c < width; ++c) mu[c] /= pixels;
        for (Index unit = 0; unit < units; ++unit) {
            const double *sum = sums + unit * 2 * channels + first, *more = sum + channels;
            double n = block(unit, pixels, channels, step).pixels, part = 1 / n;
            for (Index c = 0; c < width; ++c) {
                double apart = sum[c] * part - mu[c];
                squares[c] += more[c] + n * apart * apart;
            }
        }
        for (Index c = 0; c < width; ++c) mean[first + c] = mu[c], var[first + c] = squares[c] / pixels;
    }
}

// y = (x − mean) scale + shift, for lines of so many columns
KERNEL void normalize(Index first, Index last, Index size, Index columns, const real *restrict x,
                      const real *restrict mean, const real *restrict scale, const real *restrict shift,
                      real *restrict y) {
    for (Index i = first * columns; i < least(size, last * columns); i += columns)
        for (Index c = 0, n = least(columns, size - i); c < n; ++c)
            y[i + c] = (x[i + c] - mean[c]) * scale[c] + shift[c];
}

// For each block and channel Σ (x − μ) dy and Σ dy
KERNEL void sums(Index first, Index last, Index pixels, Index channels, Index step, const real *restrict dy,
                 const real *restrict x, const real *restrict mean, double *restrict sums) {
    for (Index unit = first; unit < last; ++unit) {
        Block b = block(unit, pixels, channels, step);
        double *products = sums + unit * 2 * channels, *sum = products + channels;
        for (Index from = 0; from < channels; from += COLUMNS) {
            Layout lines = layout(channels, from);
            Index width = least(channels, lines.columns), size = b.end - b.begin - from, begin = b.begin + from;
            double s[COLUMNS] = {0}, p[COLUMNS] = {0};
            real m[COLUMNS];
            for (Index c = 0; c < lines.columns; c += width)
                for (Index k = 0; k < width; ++k) m[c + k] = mean[from + k];
            add_lines(PRODUCTS, lines, size, width, x + begin, dy + begin, m, s, p);
            memcpy(products + from, p, width * sizeof(double));
            memcpy(sum + from, s, width * sizeof(double));
        }
    }
}

// dγ and dβ of each channel from the sums of the blocks
KERNEL void merge_sums(Index first, Index last, Index units, Index channels, const double *restrict sums,
                       const real *restrict root, real *restrict dgamma, real *restrict dbeta) {
    for (; first < last; first += COLUMNS) {
        Index width = least(COLUMNS, last - first);
        double products[COLUMNS] = {0}, sum[COLUMNS] = {0};
        for (Index unit = 0; unit < units; ++unit) {
            const double *one = sums + unit * 2 * channels + first, *other = one + channels;
            for (Index c = 0; c < width; ++c) products[c] += one[c], sum[c] += other[c];
        }
        for (Index c = 0; c < width; ++c) {
            dgamma[first + c] = products[c] / root[first + c];
            dbeta[first + c] = sum[c];
        }
    }
}

// dx = (dy − offset − (x − mean) slope) scale, for lines of so many columns
KERNEL void normalize_backward(Index first, Index last, Index size, Index columns, const real *restrict dy,
                               const real *restrict x, const real *restrict mean, const real *restrict offset,
                               const real *restrict slope, const real *restrict scale, real *restrict dx) {
    for (Index i = first * columns; i < least(size, last * columns); i += columns)
        for (Index c = 0, n = least(columns, size - i); c < n; ++c)
            dx[i + c] = (dy[i + c] - offset[c] - (x[i + c] - mean[c]) * slope[c]) * scale[c];
}
