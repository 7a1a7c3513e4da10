// Sums over pixels, such as of a bias's gradient and of what batch normalization needs.
//
// A unit of work is a block of pixels. It is summed by columns: a group of them in registers, a few
// lines at a time, and these sums in double. Where blocks and lines begin depends on the shape
// alone, so the number of threads changes nothing.

enum { GROUP = 4, LINES = 64, COLUMNS = 1024 };  // vectors; lines at a time; most columns

typedef struct {
    Index begin, end, pixels;  // its elements, and how many pixels they are
} Block;

INLINE Block block(Index unit, Index pixels, Index channels, Index step) {
    Index from = unit * step, to = least(from + step, pixels);
    return (Block){from * channels, to * channels, to - from};
}

// How a block lies in lines: `columns` elements every `stride`. They are the channels of several
// pixels, so that the lines consist of whole vectors, or some of the many channels of one.
typedef struct {
    Index columns, stride;
} Layout;

INLINE Layout layout(Index channels, Index from) {
    Index columns = channels;
    while (columns % WIDTH || columns < GROUP * WIDTH) columns += channels;
    if (columns <= COLUMNS) return (Layout){columns, columns};
    return (Layout){least(channels - from, COLUMNS), channels};
}

// What is summed: s += Σ y, or p += Σ (x − m)², or both s += Σ y and p += Σ (x − m) y
enum what { SUM, SQUARES, PRODUCTS };

// For `vectors` of the columns
INLINE void add_group(enum what what, int vectors, Index count, Index stride, const real *x, const real *y,
                      const real *m, double *s, double *p) {
    for (Index line = 0; line < count; line += LINES) {
        vec sum[GROUP] = {0}, product[GROUP] = {0};
        for (Index i = line; i < least(line + LINES, count); ++i)
            for (int k = 0; k < vectors; ++k) {
                Index at = i * stride + k * WIDTH;
                if (what != SQUARES) sum[k] += load(y + at);
                if (what == SUM) continue;
                vec d = load(x + at) - load(m + k * WIDTH);
                product[k] += d * (what == SQUARES ? d : load(y + at));
            }
        real sums[GROUP * WIDTH], products[GROUP * WIDTH];
        for (int k = 0; k < vectors; ++k) store(sums + k * WIDTH, sum[k]), store(products + k * WIDTH, product[k]);
        for (Index c = 0; c < vectors * WIDTH; ++c) {
            if (what != SQUARES) s[c] += sums[c];
            if (what != SUM) p[c] += products[c];
        }
    }
}

// For all columns of so many elements; then the columns of a channel are added up, and s and p
// begin with the sums of `width` channels.
INLINE void add_lines(enum what what, Layout lines, Index size, Index width, const real *restrict x,
                      const real *restrict y, const real *restrict m, double *restrict s, double *restrict p) {
    Index count = (size + lines.stride - lines.columns) / lines.stride, whole = 0;
    for (; whole + GROUP * WIDTH <= lines.columns; whole += GROUP * WIDTH)
        add_group(what, GROUP, count, lines.stride, x + whole, y + whole, m + whole, s + whole, p + whole);
    for (; whole + WIDTH <= lines.columns; whole += WIDTH)
        add_group(what, 1, count, lines.stride, x + whole, y + whole, m + whole, s + whole, p + whole);
    for (Index i = 0, at = 0; at < size; ++i, at += lines.stride)  // the rest of each line, and the last
        for (Index c = i < count ? whole : 0; c < least(lines.columns, size - at); ++c) {
            if (what != SQUARES) s[c] += y[at + c];
            if (what == SUM) continue;
            real d = x[at + c] - m[c];
            p[c] += d * (what == SQUARES ? d : y[at + c]);
        }
    for (Index from = width; from < lines.columns; from += width)
        for (Index c = 0; c < width; ++c) {
            if (what != SQUARES) s[c] += s[from + c];
            if (what != SUM) p[c] += p[from + c];
        }
}
