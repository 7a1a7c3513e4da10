// Convolution without columns: the lesson functional/conv.py. All three maps are one product
// (product.h), of a matrix that is never made: element (a, b) of it is left[rows[a] + columns[b]].
//
//   y   pixels   × elements  @  K    y[a] = Σ_b x[pixel a + element b] K[b]
//   dK  elements × pixels    @  dy   dK[a] = Σ_b x[element a + pixel b] dy[b]
//   dx  pixels   × elements  @  Kᵀ   dx[a] = Σ_b dy[pixel a − element b] Kᵀ[b]
//
// where an element is a place (i, j) of the window and a channel. So im2col is two lists of
// offsets, as long as the matrix has rows and columns.
//
// The floor is 2 · N·OH·OW · KH·KW·C/G · O operations. The images of a unit of work, with their
// padding, stay in the second-level cache.

#include "native.h"
#include "product.h"

// What a convolution is: sizes of the image and of the output, the window, and how the work is cut:
// `few` images to a unit, or a part of the `bands` of an image's rows.
typedef struct {
    Index n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, few, bands;
} Shape;

// A thread's working memory: what a product of at most `pixels` × `elements` needs, either way
// around, and a copy of images with their padding, which has the rest.
typedef struct {
    Product product;
    real *copy;
} Room;

INLINE Room divided(uint8_t *room, Index pixels, Index elements) {
    Index *tables = (Index *)(room + PACKED);
    Room r = {.product = {.rows = tables, .to = tables + pixels, .right_step = 1, .out_step = 1, .packed = (real *)room}};
    r.product.columns = tables + 2 * pixels, r.product.with = r.product.columns + elements;
    r.product.spare = (real *)(r.product.with + elements);
    r.copy = r.product.spare + most(pixels, elements) * SPARE;
    return r;
}

// The pixels [top, bottom) × [left, right) of some images of h × w pixels, for the channels [first,
// first + some) of all: in the images themselves if they are there, else copied to `copy`, with
// zeros around the image. *row and *image are the distances between rows and images.
static const real *part(const real *x, Index images, Index h, Index w, Index all, Index first, Index some, Index top,
                        Index bottom, Index left, Index right, real *copy, Index *row, Index *image, Index *pixel) {
    if (top >= 0 && left >= 0 && bottom <= h && right <= w) {
        *row = w * all, *image = h * w * all, *pixel = all;
        return x + top * *row + left * all + first;
    }
    const Index wide = right - left, begin = most(-left, 0), end = most(begin, least(wide, w - left));
    *row = wide * some, *image = (bottom - top) * *row, *pixel = some;
    for (Index n = 0; n < images; ++n)
        for (Index y = top; y < bottom; ++y) {
            real *to = copy + n * *image + (y - top) * *row;
            const Index from = y < 0 || y >= h ? wide : begin, until = y < 0 || y >= h ? wide : end;
            memset(to, 0, least(from, wide) * some * sizeof(real));
            const real *at = x + ((n * h + y) * w + left + from) * all + first;
            if (some == all && until > from)
                memcpy(to + from * some, at, (until - from) * some * sizeof(real));
            else
                for (Index i = from; i < until; ++i, at += all)
                    for (Index k = 0; k < some; ++k) to[i * some + k] = at[k];
            if (until < wide) memset(to + until * some, 0, (wide - until) * some * sizeof(real));
        }
    return copy;
}

// im2col(x) as a product's left matrix, for the group's channels, output rows [begin, end) of some
// images: its rows are pixels, its columns elements.
static Product windows(const Shape *s, const Room *room, const real *x, Index images, Index group, Index begin,
                       Index end) {
    Product m = room->product;
    const Index c = s->c / s->groups;
    const Index top = begin * s->sh - s->top, bottom = (end - 1) * s->sh - s->top + s->dh * (s->kh - 1) + 1;
    const Index left = -s->left, right = (s->ow - 1) * s->sw - s->left + s->dw * (s->kw - 1) + 1;
    Index row, image, pixel;
    m.left = part(x, images, s->h, s->w, s->c, group * c, c, top, bottom, left, right, room->copy, &row, &image, &pixel);
    m.height = m.depth = 0, m.width = s->o / s->groups;
    for (Index n = 0; n < images; ++n)
        for (Index p = 0; p < end - begin; ++p)
            for (Index q = 0; q < s->ow; ++q, ++m.height) {
                m.rows[m.height] = n * image + p * s->sh * row + q * s->sw * pixel;
                m.to[m.height] = ((n * s->oh + begin + p) * s->ow + q) * s->o;
            }
    for (Index i = 0; i < s->kh; ++i)
        for (Index j = 0; j < s->kw; ++j)
            for (Index k = 0; k < c; ++k, ++m.depth) {
                m.columns[m.depth] = i * s->dh * row + j * s->dw * pixel + k;
                m.with[m.depth] = m.depth * s->o;
            }
    return m;
}

// y = im2col(x) @ K + b. A unit is a few images, or a band of rows of one.
KERNEL void convolve(Index first, Index last, const real *x, const real *weight, const real *bias, real *y, Index n,
                     Index h, Index w, Index c, Index oh, Index ow, Index o, Index kh, Index kw, Index sh, Index sw,
                     Index top, Index left, Index dh, Index dw, Index groups, Index few, Index bands, uint8_t *room) {
    const Shape s = {n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, few, bands};
    const Room r = divided(room, few * ow * (oh / bands + 1), kh * kw * c / groups);
    for (Index unit = first; unit < last; ++unit) {
        const Index image = unit / bands * few, images = least(few, n - image), band = unit % bands;
        for (Index g = 0; g < groups; ++g) {
            Product m = windows(&s, &r, x + image * h * w * c, images, g, oh * band / bands, oh * (band + 1) / bands);
            m.right = weight + g * m.width, m.out = y + image * oh * ow * o + g * m.width;
            multiply(&m, bias ? bias + g * m.width : NULL, 0);
        }
    }
}

// dK = im2col(x)ᵀ @ dy, as a sum for each unit: a share of the images.
KERNEL void convolve_weight(Index first, Index last, const real *x, const real *dy, real *sums, Index n, Index h,
                            Index w, Index c, Index oh, Index ow, Index o, Index kh, Index kw, Index sh, Index sw,
                            Index top, Index left, Index dh, Index dw, Index groups, Index few, Index bands,
                            Index shares, uint8_t *room) {
    const Shape s = {n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups, few, bands};
    const Room r = divided(room, few * ow * (oh / bands + 1), kh * kw * c / groups);
    const Index pieces = (n + few - 1) / few * bands;
    for (Index unit = first; unit < last; ++unit)
        for (Index piece = pieces * unit / shares; piece < pieces * (unit + 1) / shares; ++piece) {
            const Index image = piece / bands * few, images = least(few, n - image), band = piece % bands;
            for (Index g = 0; g < groups; ++g) {
                const Product m = windows(&s, &r, x + image * h * w * c, images, g, oh * band / bands,
                                          oh * (band + 1) / bands);
                Product turned = m;
                turned.height = m.depth, turned.rows = m.columns, turned.to = m.with;
                turned.depth = m.height, turned.columns = m.rows, turned.with = m.to;
                turned.right = dy + image * oh * ow * o + g * m.width;
                turned.out = sums + unit * m.depth * o + g * m.width;
                multiply(&turned, NULL, piece > pieces * unit / shares);
            }
        }
}

// Kᵀ: (places, C, O) -> (places, O, C). A unit is SIDE of the O at a place: each line that is read
// goes to as many rows.
#define SIDE 16
KERNEL void transpose(Index first, Index last, const real *restrict weight, real *restrict turned, Index c, Index o) {
    const Index parts = (o + SIDE - 1) / SIDE;
    for (Index unit = first; unit < last; ++unit) {
        const Index begin = unit % parts * SIDE, some = least(SIDE, o - begin);
        const real *from = weight + unit / parts * c * o + begin;
        real *to = turned + (unit / parts * o + begin) * c;
        for (Index k = 0; k < c; ++k)
            for (Index i = 0; i < some; ++i) to[i * c + k] = from[k * o + i];
    }
}

INLINE Index floored(Index a, Index b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// dx = col2im(dy @ Kᵀ), where `turned` is Kᵀ, (KH, KW, O, C/G). A pixel (h, w) of dx gets something
// from output pixel (p, q) and place (i, j) if p·s + i·d = h + top, and likewise along the width.
// With a stride these places depend on the remainder of h + top, so pixels of a remainder are a
// product of their own. A unit is a few images, or a band of rows of one.
KERNEL void convolve_transpose(Index first, Index last, const real *dy, const real *turned, real *dx, Index n,
                               Index h, Index w, Index c, Index oh, Index ow, Index o, Index kh, Index kw, Index sh,
                               Index sw, Index top, Index left, Index dh, Index dw, Index groups, Index few,
                               Index bands, uint8_t *room) {
    const Index each = c / groups, outs = o / groups, pixels = few * w * (h / bands + 1), elements = kh * kw * outs;
    const Room r = divided(room, pixels, elements);
    for (Index unit = first; unit < last; ++unit) {
        const Index image = unit / bands * few, images = least(few, n - image), band = unit % bands;
        const Index begin = h * band / bands, end = h * (band + 1) / bands;
        if (begin == end) continue;
        const Index low = floored(begin + top - dh * (kh - 1), sh), high = floored(end - 1 + top, sh) + 1;
        const Index near = floored(left - dw * (kw - 1), sw), far = floored(w - 1 + left, sw) + 1;
        for (Index group = 0; group < groups; ++group) {
            Index row, step, pixel;
            const real *source = part(dy + image * oh * ow * o, images, oh, ow, o, group * outs, outs, low, high, near,
                                      far, r.copy, &row, &step, &pixel);
            for (Index y = 0; y < sh; ++y)
                for (Index z = 0; z < sw; ++z) {
                    Product m = r.product;
                    m.left = source, m.right = turned, m.out = dx + image * h * w * c + group * each;
                    m.height = m.depth = 0, m.width = each;
                    for (Index k = 0; k < images; ++k)
                        for (Index p = begin + (y + sh - (begin + top) % sh) % sh; p < end; p += sh)
                            for (Index q = (z + sw - left % sw) % sw; q < w; q += sw, ++m.height) {
                                m.rows[m.height] = k * step + ((p + top) / sh - low) * row +
                                                   ((q + left) / sw - near) * pixel;
                                m.to[m.height] = ((k * h + p) * w + q) * c;
                            }
                    for (Index i = 0; i < kh; ++i)
                        for (Index j = 0; j < kw; ++j)
                            if (i * dh % sh == y && j * dw % sw == z)
                                for (Index k = 0; k < outs; ++k, ++m.depth) {
                                    m.columns[m.depth] = k - i * dh / sh * row - j * dw / sw * pixel;
                                    m.with[m.depth] = ((i * kw + j) * o + group * outs + k) * each;
                                }
                    multiply(&m, NULL, 0);
                }
        }
    }
}
