// The Winograd algorithm for kernels of 3 × 3 and 5 × 5 in steps of 1; what it is, and where its
// matrices come from, is told in backends/numpy/winograd.py:
//
//   V = (B⊗B) x     U = (G⊗G) K     y = (A⊗A) (V U)     for T tiles of M × M outputs
//
// A tile sees `side` = M + K − 1 pixels across, and its side² products (T, C) (C, O) take the place
// of M² · K²: 16 of 36 for tiles of 2 × 2 and kernels of 3 × 3, 36 of 144 for tiles of 4 × 4, and
// 36 of 100 for tiles of 2 × 2 and kernels of 5 × 5. The latter two have the points 0, 1, −1, 2,
// −1/2 and ∞, with which they lose least of those that were tried: over 48 channels their error in
// float32 is 1.5e-6 of the largest result, where the plain product's is 3e-7, and the first one's
// no larger.
//
// The transformations take a tile's numbers of a register's width of channels at a time, and each
// reads and writes its array once. V and V U of a unit of work, some 200 tiles, stay in the
// last-level cache. The floor is the products' 2 · side² · T · C/G · O operations, of which
// AlexNet's conv3, 4 and 5 in tiles of 2 × 2 reach two thirds on one core of an AMD EPYC (Zen 5,
// AVX-512). Channels are a multiple of a register's width. A NaN or an infinity among the pixels
// that a tile sees reaches all of its outputs.

#include "native.h"
#include "product.h"

enum { SIDE = 6 };  // of the largest tile of x
enum Map { SEEN, MADE, BACK, KERNEL_TO, KERNEL_BACK };  // B, Aᵀ, A, G, Gᵀ

// Tiles of m × m outputs, for kernels of size × size
typedef struct {
    int m, size;
} Form;

// Do something with f as one of the forms that there are, which the compiler then knows.
#define WITH_FORM(m_, size_, DO)                          \
    if ((size_) == 5) { const Form f = {2, 5}; DO; }      \
    else if ((m_) == 4) { const Form f = {4, 3}; DO; }    \
    else { const Form f = {2, 3}; DO; }

INLINE int side_of(Form f) { return f.m + f.size - 1; }

// t = M s along one axis, in tiles that see 4 pixels
INLINE void along_4(enum Map map, const vec *s, vec *t) {
    const real half = 0.5;
    switch (map) {
    case SEEN: t[0] = s[0] - s[2], t[1] = s[1] + s[2], t[2] = s[2] - s[1], t[3] = s[1] - s[3]; break;
    case MADE: t[0] = s[0], t[1] = s[0] + s[1], t[2] = s[0] - s[1], t[3] = -s[1]; break;
    case BACK: t[0] = s[0] + s[1] + s[2], t[1] = s[1] - s[2] - s[3]; break;
    case KERNEL_TO:
        t[0] = s[0], t[1] = half * (s[0] + s[1] + s[2]), t[2] = half * (s[0] - s[1] + s[2]), t[3] = s[2];
        break;
    case KERNEL_BACK:
        t[0] = s[0] + half * (s[1] + s[2]), t[1] = half * (s[1] - s[2]), t[2] = half * (s[1] + s[2]) + s[3];
    }
}

// Values of a polynomial with `count` coefficients at the six points, the last of which is its
// leading coefficient: the rows of Aᵀ, and with a factor for each those of G
INLINE void values(int count, const vec *s, vec *t) {
    const vec zero = {0}, b = s[1], c = count > 2 ? s[2] : zero, d = count > 3 ? s[3] : zero, e = count > 4 ? s[4] : zero;
    const real half = 0.5;
    t[0] = s[0], t[1] = (s[0] + c + e) + (b + d), t[2] = (s[0] + c + e) - (b + d);
    t[3] = (s[0] + 4 * c + 16 * e) + (2 * b + 8 * d);
    t[4] = s[0] - half * (b - half * (c - half * (d - half * e)));
    t[5] = s[count - 1];
}

// The transpose of that
INLINE void values_back(int count, const vec *s, vec *t) {
    const vec sum = s[1] + s[2], difference = s[1] - s[2];
    const real half = 0.5;
    t[0] = s[0] + sum + s[3] + s[4], t[1] = difference + 2 * s[3] - half * s[4];
    if (count > 2) t[2] = sum + 4 * s[3] + half * half * s[4];
    if (count > 3) t[3] = difference + 8 * s[3] - half * half * half * s[4];
    if (count > 4) t[4] = sum + 16 * s[3] + half * half * half * half * s[4];
    t[count - 1] += s[5];
}

// t = M s along one axis, in tiles that see 6 pixels
INLINE void along_6(enum Map map, Form f, const vec *s, vec *t) {
    const real factors[] = {(real)1 / 2, (real)1 / 6, (real)1 / 6, (real)1 / 30, (real)16 / 15, (real)1 / 2};
    switch (map) {
    case SEEN:
        t[0] = 2 * (s[0] + s[4] - 2 * s[2]) + 3 * (s[1] - s[3]);
        t[1] = 2 * (s[1] - s[4]) + 5 * s[2] + s[3];
        t[2] = 2 * (s[1] + s[4]) + s[2] - 5 * s[3];
        t[3] = 2 * (s[4] - s[2]) + s[3] - s[1];
        t[4] = 2 * (s[3] - s[1]) + s[2] - s[4];
        t[5] = 2 * (s[1] + s[5] - 2 * s[3]) + 3 * (s[2] - s[4]);
        break;
    case MADE: values(f.m, s, t); break;
    case BACK: values_back(f.m, s, t); break;
    case KERNEL_TO:
        values(f.size, s, t);
        for (int i = 0; i < 6; ++i) t[i] *= factors[i];
        break;
    case KERNEL_BACK: {
        vec scaled[6];
        for (int i = 0; i < 6; ++i) scaled[i] = factors[i] * s[i];
        values_back(f.size, scaled, t);
    }
    }
}

// t = (M⊗M) s, `from` × `from` numbers to `to` × `to`
INLINE void both(enum Map map, Form f, int from, int to, vec s[][SIDE], vec t[][SIDE]) {
    vec half_way[SIDE][SIDE];
    _Pragma("GCC unroll 6") for (int i = 0; i < from; ++i) {
        if (side_of(f) == 4) along_4(map, s[i], half_way[i]);
        else along_6(map, f, s[i], half_way[i]);
    }
    _Pragma("GCC unroll 6") for (int j = 0; j < to; ++j) {
        vec column[SIDE], out[SIDE];
        _Pragma("GCC unroll 6") for (int i = 0; i < from; ++i) column[i] = half_way[i][j];
        if (side_of(f) == 4) along_4(map, column, out);
        else along_6(map, f, column, out);
        _Pragma("GCC unroll 6") for (int i = 0; i < to; ++i) t[i][j] = out[i];
    }
}

// U: (K, K, rows, columns) -> (G, side², rows', columns'), a unit for each row of a group. Groups
// divide the columns of K and, `turned`, the rows of Kᵀ, whose places are turned around too.
INLINE void kernels_of(Form f, Index first, Index last, const real *restrict k, real *restrict u, Index rows,
                       Index columns, Index groups, Index turned) {
    const Index own_rows = turned ? rows / groups : rows, own = turned ? columns : columns / groups;
    const int size = f.size, side = side_of(f);
    for (Index unit = first; unit < last; ++unit) {
        const Index group = unit / own_rows, row = unit % own_rows;
        const real *from = k + (turned ? unit * columns : row * columns + group * own);
        real *to = u + (group * side * side * own_rows + row) * own;
        for (Index c = 0; c < own; c += WIDTH) {
            vec s[SIDE][SIDE], t[SIDE][SIDE];
            for (int i = 0; i < size * size; ++i)
                s[i / size][i % size] = load(from + (turned ? size * size - 1 - i : i) * rows * columns + c);
            both(KERNEL_TO, f, size, side, s, t);
            for (int i = 0; i < side * side; ++i) store(to + i * own_rows * own + c, t[i / side][i % side]);
        }
    }
}

KERNEL void kernels(Index first, Index last, Index m, Index size, const real *restrict k, real *restrict u, Index rows,
                    Index columns, Index groups, Index turned) {
    WITH_FORM(m, size, kernels_of(f, first, last, k, u, rows, columns, groups, turned))
}

// dK = (G⊗G)ᵀ dU: (G, side², C/G, O/G) -> (K, K, C/G, O), a unit for each row of a group.
INLINE void kernels_from(Form f, Index first, Index last, const real *restrict u, real *restrict k, Index rows,
                         Index columns, Index groups) {
    const Index own = columns / groups;
    const int size = f.size, side = side_of(f);
    for (Index unit = first; unit < last; ++unit) {
        const Index group = unit / rows, row = unit % rows;
        for (Index c = 0; c < own; c += WIDTH) {
            vec s[SIDE][SIDE], t[SIDE][SIDE];
            for (int i = 0; i < side * side; ++i)
                s[i / side][i % side] = load(u + ((group * side * side + i) * rows + row) * own + c);
            both(KERNEL_BACK, f, side, size, s, t);
            for (int i = 0; i < size * size; ++i)
                store(k + (i * rows + row) * columns + group * own + c, t[i / size][i % size]);
        }
    }
}

KERNEL void kernels_back(Index first, Index last, Index m, Index size, const real *restrict u, real *restrict k,
                         Index rows, Index columns, Index groups) {
    WITH_FORM(m, size, kernels_from(f, first, last, u, k, rows, columns, groups))
}

// What each tile sees of images (N, H, W, all), `some` channels from x on: across × across pixels,
// in steps of M from −top and −left on, with zeros outside; transformed, (side², T, some). The
// tiles are those of some images, rows [begin, end) of `wide` each.
INLINE void tiles_of(enum Map map, Form f, const real *x, real *v, Index images, Index h, Index w, Index all,
                     Index some, Index top, Index left, Index begin, Index end, Index wide) {
    const int side = side_of(f), across = map == SEEN ? side : f.m;
    const Index tiles = images * (end - begin) * wide;
    Index tile = 0;
    for (Index n = 0; n < images; ++n)
        for (Index p = begin; p < end; ++p)
            for (Index q = 0; q < wide; ++q, ++tile) {
                const real *at[SIDE][SIDE];
                for (int i = 0; i < across; ++i)
                    for (int j = 0; j < across; ++j) {
                        const Index y = f.m * p - top + i, z = f.m * q - left + j;
                        at[i][j] = y < 0 || y >= h || z < 0 || z >= w ? NULL : x + ((n * h + y) * w + z) * all;
                    }
                for (Index c = 0; c < some; c += WIDTH) {
                    vec s[SIDE][SIDE], t[SIDE][SIDE];
                    _Pragma("GCC unroll 6") for (int i = 0; i < across; ++i)
                        _Pragma("GCC unroll 6") for (int j = 0; j < across; ++j)
                            s[i][j] = at[i][j] ? load(at[i][j] + c) : (vec){0};
                    both(map, f, across, side, s, t);
                    _Pragma("GCC unroll 6") for (int i = 0; i < side; ++i)
                        _Pragma("GCC unroll 6") for (int j = 0; j < side; ++j)
                            store(v + ((i * side + j) * tiles + tile) * some + c, t[i][j]);
                }
            }
}

// y = (A⊗A) m + b: (side², T, some) -> images (N, H, W, all), as far as a tile is inside; or, if
// `rectified`, the maximum of that and 0.
INLINE void tiles_back(Form f, const real *m, const real *bias, Index rectified, real *y, Index images, Index h,
                       Index w, Index all, Index some, Index begin, Index end, Index wide) {
    const int side = side_of(f);
    const Index tiles = images * (end - begin) * wide;
    Index tile = 0;
    for (Index n = 0; n < images; ++n)
        for (Index p = begin; p < end; ++p)
            for (Index q = 0; q < wide; ++q, ++tile)
                for (Index c = 0; c < some; c += WIDTH) {
                    vec s[SIDE][SIDE], t[SIDE][SIDE];
                    _Pragma("GCC unroll 6") for (int i = 0; i < side; ++i)
                        _Pragma("GCC unroll 6") for (int j = 0; j < side; ++j)
                            s[i][j] = load(m + ((i * side + j) * tiles + tile) * some + c);
                    both(BACK, f, side, f.m, s, t);
                    const vec b = bias ? load(bias + c) : (vec){0};
                    for (Index i = 0; i < least(f.m, h - f.m * p); ++i)
                        for (Index j = 0; j < least(f.m, w - f.m * q); ++j) {
                            const vec sum = t[i][j] + b;
                            real *const to = y + ((n * h + f.m * p + i) * w + f.m * q + j) * all + c;
                            store(to, rectified ? positive(sum) : sum);
                        }
                }
}

// A thread's working memory: V, V U, and what their products need. `by_c` are the places of rows of
// C numbers, `by_o` those of O.
typedef struct {
    Product product;
    real *v, *m;
    Index *counted, *by_c, *by_o;
} Room;

static Room divided(uint8_t *room, Index products, Index tiles, Index c, Index o) {
    const Index longest = most(tiles, c);
    Room r = {.counted = (Index *)(room + PACKED)};
    r.by_c = r.counted + longest, r.by_o = r.by_c + longest;
    real *const spare = (real *)(r.by_o + longest);
    r.product = (Product){.width = o, .right_step = 1, .out_step = 1, .packed = (real *)room, .spare = spare};
    r.product.to = r.product.with = r.by_o;
    r.v = spare + longest * SPARE, r.m = r.v + products * tiles * c;
    for (Index i = 0; i < longest; ++i) r.counted[i] = i, r.by_c[i] = i * c, r.by_o[i] = i * o;
    return r;
}

// What a convolution is: sizes of the images, of the outputs, of a tile's outputs and of the
// kernel, where the window begins, and how the work is cut: into units of `few` images, or of one
// of an image's bands of rows of tiles; and for a sum, into shares.
typedef struct {
    Index n, h, w, c, oh, ow, o, m, size, top, left, groups, few, bands, shares;
} Shape;

// A unit's images, its rows of tiles, and all of its tiles.
typedef struct {
    Index image, images, begin, end, across, tiles;
} Unit;

static Unit unit_of(const Shape *s, Index number) {
    const Index image = number / s->bands * s->few, images = least(s->few, s->n - image), band = number % s->bands;
    const Index down = (s->oh + s->m - 1) / s->m, begin = down * band / s->bands, end = down * (band + 1) / s->bands;
    const Index across = (s->ow + s->m - 1) / s->m;
    return (Unit){image, images, begin, end, across, images * (end - begin) * across};
}

INLINE Index products_of(const Shape *s) { return (s->m + s->size - 1) * (s->m + s->size - 1); }

static Room room_of(const Shape *s, uint8_t *room) {
    const Index rows = (s->oh + s->m - 1) / s->m / s->bands + 1, across = (s->ow + s->m - 1) / s->m;
    return divided(room, products_of(s), s->few * rows * across, s->c / s->groups, s->o / s->groups);
}

// V of a unit's images x, dM of its dy, and its y from V U, for one of the groups.
static void seen(const Shape *s, const Unit *u, Index group, const real *x, real *v) {
    const Index c = s->c / s->groups;
    x += u->image * s->h * s->w * s->c + group * c;
    WITH_FORM(s->m, s->size, tiles_of(SEEN, f, x, v, u->images, s->h, s->w, s->c, c, s->top, s->left, u->begin, u->end,
                                      u->across))
}

static void made(const Shape *s, const Unit *u, Index group, const real *dy, real *m) {
    const Index o = s->o / s->groups;
    dy += u->image * s->oh * s->ow * s->o + group * o;
    WITH_FORM(s->m, s->size, tiles_of(MADE, f, dy, m, u->images, s->oh, s->ow, s->o, o, 0, 0, u->begin, u->end, u->across))
}

static void back(const Shape *s, const Unit *u, Index group, const real *m, const real *bias, Index rectified,
                 real *y) {
    const Index o = s->o / s->groups;
    y += u->image * s->oh * s->ow * s->o + group * o;
    bias = bias ? bias + group * o : NULL;
    WITH_FORM(s->m, s->size, tiles_back(f, m, bias, rectified, y, u->images, s->oh, s->ow, s->o, o, u->begin, u->end,
                                        u->across))
}

// y = (A⊗A) (V U) + b of images x (N, H, W, C), with u (G, side², C/G, O/G); or if `rectified`, the
// maximum of that and 0.
KERNEL void convolve(Index first, Index last, const real *x, const real *u, const real *bias, Index rectified, real *y,
                     const Index *shape, uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index c = s->c / s->groups, o = s->o / s->groups, products = products_of(s);
    const Room r = room_of(s, room);
    for (Index number = first; number < last; ++number) {
        const Unit unit = unit_of(s, number);
        for (Index g = 0; g < s->groups; ++g) {
            seen(s, &unit, g, x, r.v);
            Product p = r.product;
            p.height = unit.tiles, p.rows = r.by_c, p.depth = c, p.columns = r.counted;
            for (Index i = 0; i < products; ++i) {
                p.left = r.v + i * unit.tiles * c, p.out = r.m + i * unit.tiles * o;
                p.right = u + (g * products + i) * c * o;
                multiply(&p, NULL, 0);
            }
            back(s, &unit, g, r.m, bias, rectified, y);
        }
    }
}

// dU = Vᵀ dM, (G, side², C/G, O/G), a sum for each share of the units.
KERNEL void convolve_weight(Index first, Index last, const real *x, const real *dy, real *sums, const Index *shape,
                            uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index c = s->c / s->groups, o = s->o / s->groups, units = (s->n + s->few - 1) / s->few * s->bands;
    const Index products = products_of(s);
    const Room r = room_of(s, room);
    for (Index share = first; share < last; ++share) {
        const Index begin = units * share / s->shares, end = units * (share + 1) / s->shares;
        for (Index number = begin; number < end; ++number) {
            const Unit unit = unit_of(s, number);
            for (Index g = 0; g < s->groups; ++g) {
                seen(s, &unit, g, x, r.v);
                made(s, &unit, g, dy, r.m);
                Product p = r.product;
                p.height = c, p.rows = r.counted, p.depth = unit.tiles, p.columns = r.by_c;
                for (Index i = 0; i < products; ++i) {
                    p.left = r.v + i * unit.tiles * c, p.right = r.m + i * unit.tiles * o;
                    p.out = sums + ((share * s->groups + g) * products + i) * c * o;
                    multiply(&p, NULL, number > begin);
                }
            }
        }
    }
}
