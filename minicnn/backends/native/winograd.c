// The Winograd algorithm for 3 × 3 kernels in steps of 1, with 4/9 of the multiplications; what it
// is, and where its matrices come from, is told in backends/numpy/winograd.py:
//
//   V = (B⊗B) x     U = (G⊗G) K     y = (A⊗A) (V U)     for T tiles of 2 × 2
//
// The transformations take a tile's 16 numbers of a register's width of channels at a time, which
// stay in registers; so each reads and writes its array once. V and V U of a unit of work, some 200
// tiles, stay in the last-level cache. The floor is the products' 2 · 16 · T · C/G · O operations.
// On one core of an AMD EPYC (Zen 5, AVX-512) AlexNet's conv3, 4 and 5 reach two thirds of that; a
// layer takes 0.65 to 0.7 of the time of conv.c's product. Channels are a multiple of a register's
// width. A NaN or an infinity among the pixels that a tile sees reaches all four of its outputs.

#include "native.h"
#include "product.h"

// t = M s for a matrix that maps 4 to 4, 2 to 4, 4 to 2 or 3 to 4, along one axis.
#define B4(s, t) t[0] = s[0] - s[2], t[1] = s[1] + s[2], t[2] = s[2] - s[1], t[3] = s[1] - s[3]
#define A4(s, t) t[0] = s[0] + s[1] + s[2], t[1] = s[1] - s[2] - s[3]
#define AT(s, t) t[0] = s[0], t[1] = s[0] + s[1], t[2] = s[0] - s[1], t[3] = -s[1]
#define G3(s, t) t[0] = s[0], t[1] = half * (s[0] + s[1] + s[2]), t[2] = half * (s[0] - s[1] + s[2]), t[3] = s[2]
#define GT(s, t) t[0] = s[0] + half * (s[1] + s[2]), t[1] = half * (s[1] - s[2]), t[2] = half * (s[1] + s[2]) + s[3]

// The same along both axes: of `from` numbers each to `to` numbers each.
#define BOTH(MAP, from, to, s, t)                                          \
    vec mid_[from][to], up_[from], out_[to];                               \
    for (int i = 0; i < from; ++i) MAP(s[i], mid_[i]);                     \
    for (int j = 0; j < to; ++j) {                                         \
        for (int i = 0; i < from; ++i) up_[i] = mid_[i][j];                \
        MAP(up_, out_);                                                    \
        for (int i = 0; i < to; ++i) t[i][j] = out_[i];                    \
    }

static const real half = 0.5;

// U: (3, 3, rows, columns) -> (G, 16, rows', columns'), a unit for each row of a group. Groups
// divide the columns of K and, `turned`, the rows of Kᵀ, whose places are turned around too.
KERNEL void kernels(Index first, Index last, const real *restrict k, real *restrict u, Index rows, Index columns,
                    Index groups, Index turned) {
    const Index own_rows = turned ? rows / groups : rows, own = turned ? columns : columns / groups;
    for (Index unit = first; unit < last; ++unit) {
        const Index group = unit / own_rows, row = unit % own_rows;
        const real *from = k + (turned ? unit * columns : row * columns + group * own);
        real *to = u + (group * 16 * own_rows + row) * own;
        for (Index c = 0; c < own; c += WIDTH) {
            vec s[3][3], t[4][4];
            for (int i = 0; i < 3; ++i)
                for (int j = 0; j < 3; ++j)
                    s[i][j] = load(from + (turned ? 8 - i * 3 - j : i * 3 + j) * rows * columns + c);
            BOTH(G3, 3, 4, s, t)
            for (int i = 0; i < 16; ++i) store(to + i * own_rows * own + c, t[i / 4][i % 4]);
        }
    }
}

// dK = (G⊗G)ᵀ dU: (G, 16, C/G, O/G) -> (3, 3, C/G, O), a unit for each row of a group.
KERNEL void kernels_back(Index first, Index last, const real *restrict u, real *restrict k, Index rows, Index columns,
                         Index groups) {
    const Index own = columns / groups;
    for (Index unit = first; unit < last; ++unit) {
        const Index group = unit / rows, row = unit % rows;
        for (Index c = 0; c < own; c += WIDTH) {
            vec s[4][4], t[3][3];
            for (int i = 0; i < 16; ++i) s[i / 4][i % 4] = load(u + ((group * 16 + i) * rows + row) * own + c);
            BOTH(GT, 4, 3, s, t)
            for (int i = 0; i < 9; ++i) store(k + (i * rows + row) * columns + group * own + c, t[i / 3][i % 3]);
        }
    }
}

// What each tile sees of images (N, H, W, all), `some` channels from x on: side × side pixels, in
// steps of 2 from −top and −left on, with zeros outside; transformed, (16, T, some). The tiles are
// those of some images, rows [begin, end) of `across` each.
#define TILES_OF(NAME, MAP, SIDE)                                                                             \
    static void NAME(const real *x, real *v, Index images, Index h, Index w, Index all, Index some, Index top, \
                     Index left, Index begin, Index end, Index across) {                                      \
        const Index tiles = images * (end - begin) * across;                                                  \
        Index tile = 0;                                                                                       \
        for (Index n = 0; n < images; ++n)                                                                    \
            for (Index p = begin; p < end; ++p)                                                               \
                for (Index q = 0; q < across; ++q, ++tile) {                                                  \
                    const real *at[SIDE][SIDE];                                                               \
                    for (Index i = 0; i < SIDE; ++i)                                                          \
                        for (Index j = 0; j < SIDE; ++j) {                                                    \
                            const Index y = 2 * p - top + i, z = 2 * q - left + j;                            \
                            at[i][j] = y < 0 || y >= h || z < 0 || z >= w ? NULL : x + ((n * h + y) * w + z) * all; \
                        }                                                                                     \
                    for (Index c = 0; c < some; c += WIDTH) {                                                 \
                        vec s[SIDE][SIDE], t[4][4];                                                           \
                        for (int i = 0; i < SIDE; ++i)                                                        \
                            for (int j = 0; j < SIDE; ++j) s[i][j] = at[i][j] ? load(at[i][j] + c) : (vec){0}; \
                        BOTH(MAP, SIDE, 4, s, t)                                                              \
                        for (int i = 0; i < 16; ++i) store(v + (i * tiles + tile) * some + c, t[i / 4][i % 4]); \
                    }                                                                                         \
                }                                                                                             \
    }
TILES_OF(tiles_seen, B4, 4)
TILES_OF(tiles_made, AT, 2)

// y = (A⊗A) m + b: (16, T, some) -> images (N, H, W, all), as far as a tile of 2 × 2 is inside.
static void tiles_back(const real *m, const real *bias, real *y, Index images, Index h, Index w, Index all,
                       Index some, Index begin, Index end, Index across) {
    const Index tiles = images * (end - begin) * across;
    Index tile = 0;
    for (Index n = 0; n < images; ++n)
        for (Index p = begin; p < end; ++p)
            for (Index q = 0; q < across; ++q, ++tile)
                for (Index c = 0; c < some; c += WIDTH) {
                    vec s[4][4], t[2][2];
                    for (int i = 0; i < 16; ++i) s[i / 4][i % 4] = load(m + (i * tiles + tile) * some + c);
                    BOTH(A4, 4, 2, s, t)
                    const vec b = bias ? load(bias + c) : (vec){0};
                    for (Index i = 0; i < least(2, h - 2 * p); ++i)
                        for (Index j = 0; j < least(2, w - 2 * q); ++j)
                            store(y + ((n * h + 2 * p + i) * w + 2 * q + j) * all + c, t[i][j] + b);
                }
}

// A thread's working memory: V, V U, and what their products need. `by_c` are the places of rows of
// C numbers, `by_o` those of O.
typedef struct {
    Product product;
    real *v, *m;
    Index *counted, *by_c, *by_o;
} Room;

static Room divided(uint8_t *room, Index tiles, Index c, Index o) {
    const Index longest = most(tiles, c);
    Room r = {.counted = (Index *)(room + PACKED)};
    r.by_c = r.counted + longest, r.by_o = r.by_c + longest;
    real *const spare = (real *)(r.by_o + longest);
    r.product = (Product){.width = o, .right_step = 1, .out_step = 1, .packed = (real *)room, .spare = spare};
    r.product.to = r.product.with = r.by_o;
    r.v = spare + longest * SPARE, r.m = r.v + 16 * tiles * c;
    for (Index i = 0; i < longest; ++i) r.counted[i] = i, r.by_c[i] = i * c, r.by_o[i] = i * o;
    return r;
}

// What a convolution is: sizes of the images and of the outputs, where the window begins, and how
// the work is cut: into units of `few` images, or of one of an image's bands of rows of tiles; and
// for a sum, into shares.
typedef struct {
    Index n, h, w, c, oh, ow, o, top, left, groups, few, bands, shares;
} Shape;

// A unit's images, its rows of tiles, and all of its tiles.
typedef struct {
    Index image, images, begin, end, across, tiles;
} Unit;

static Unit unit_of(const Shape *s, Index number) {
    const Index image = number / s->bands * s->few, images = least(s->few, s->n - image), band = number % s->bands;
    const Index down = (s->oh + 1) / 2, begin = down * band / s->bands, end = down * (band + 1) / s->bands;
    const Index across = (s->ow + 1) / 2;
    return (Unit){image, images, begin, end, across, images * (end - begin) * across};
}

static Room room_of(const Shape *s, uint8_t *room) {
    const Index rows = (s->oh + 1) / 2 / s->bands + 1;
    return divided(room, s->few * rows * ((s->ow + 1) / 2), s->c / s->groups, s->o / s->groups);
}

// V of a unit's images x (N, H, W, C), for one of the groups.
static void transformed(const Shape *s, const Unit *u, Index group, const real *x, real *v) {
    const Index c = s->c / s->groups;
    tiles_seen(x + u->image * s->h * s->w * s->c + group * c, v, u->images, s->h, s->w, s->c, c, s->top, s->left,
               u->begin, u->end, u->across);
}

// y = (A⊗A) (V U) + b of images x (N, H, W, C), with u (G, 16, C/G, O/G).
KERNEL void convolve(Index first, Index last, const real *x, const real *u, const real *bias, real *y,
                     const Index *shape, uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index c = s->c / s->groups, o = s->o / s->groups;
    const Room r = room_of(s, room);
    for (Index number = first; number < last; ++number) {
        const Unit unit = unit_of(s, number);
        for (Index g = 0; g < s->groups; ++g) {
            transformed(s, &unit, g, x, r.v);
            Product p = r.product;
            p.height = unit.tiles, p.rows = r.by_c, p.depth = c, p.columns = r.counted;
            for (Index i = 0; i < 16; ++i) {
                p.left = r.v + i * unit.tiles * c, p.right = u + (g * 16 + i) * c * o, p.out = r.m + i * unit.tiles * o;
                multiply(&p, NULL, 0);
            }
            tiles_back(r.m, bias ? bias + g * o : NULL, y + unit.image * s->oh * s->ow * s->o + g * o, unit.images,
                       s->oh, s->ow, s->o, o, unit.begin, unit.end, unit.across);
        }
    }
}

// dU = Vᵀ dM, (G, 16, C/G, O/G), a sum for each share of the units.
KERNEL void convolve_weight(Index first, Index last, const real *x, const real *dy, real *sums, const Index *shape,
                            uint8_t *room) {
    const Shape *s = (const Shape *)shape;
    const Index c = s->c / s->groups, o = s->o / s->groups, units = (s->n + s->few - 1) / s->few * s->bands;
    const Room r = room_of(s, room);
    for (Index share = first; share < last; ++share) {
        const Index begin = units * share / s->shares, end = units * (share + 1) / s->shares;
        for (Index number = begin; number < end; ++number) {
            const Unit unit = unit_of(s, number);
            for (Index g = 0; g < s->groups; ++g) {
                transformed(s, &unit, g, x, r.v);
                tiles_made(dy + unit.image * s->oh * s->ow * s->o + g * o, r.m, unit.images, s->oh, s->ow, s->o, o, 0, 0,
                           unit.begin, unit.end, unit.across);
                Product p = r.product;
                p.height = c, p.rows = r.counted, p.depth = unit.tiles, p.columns = r.by_c;
                for (Index i = 0; i < 16; ++i) {
                    p.left = r.v + i * unit.tiles * c, p.right = r.m + i * unit.tiles * o;
                    p.out = sums + ((share * s->groups + g) * 16 + i) * c * o;
                    multiply(&p, NULL, number > begin);
                }
            }
        }
    }
}
