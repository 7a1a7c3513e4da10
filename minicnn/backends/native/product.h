// The product of two matrices, of which the left one need not lie in memory as a matrix: its
// element (a, b) is left[rows[a] + columns[b]]. Convolution, the Winograd algorithm and the
// products of linear layers are made of it.
//
// A tile of R rows × V registers of the result stays in registers while b runs: it takes R numbers
// of the left matrix, each multiplied with V registers of the right one, so R + V loads for R · V
// multiply-adds, of which a core makes two in a cycle. A part of the right matrix, some rows of V
// registers, is copied together so that it stays in the first-level cache for all tiles.

#if REGISTERS == 32
#define WIDEST 4  // registers beside each other: 6 × 4 sums, 4 of the matrix, and one of the source
#else
#define WIDEST 2
#endif
#define TALLEST 10
#define SPARE (WIDEST * WIDTH)
#define DEEPEST 256  // rows of it; so many numbers are added up one after another
#define PACKED (24 << 10)  // bytes of the right-hand matrix at a time: half of the smallest cache

// R × V registers of sums: out[r] = begin + Σ_b source[rows[r] + columns[b]] · packed[b]. With no
// `begin`, the sum is added to what out[r] holds: sums of at most DEEPEST numbers are added up, so
// a gradient over a million pixels loses a few of its last bits, and not half of them. If
// `rectified`, max(sum, 0) is stored.
#define TILE(R, V)                                                                                          \
    static void tile_##R##_##V(const real *source, const Index *rows, const Index *columns, Index deep,     \
                               const real *packed, const real *begin, int rectified, real *const *out) {    \
        vec sum[R][V];                                                                                      \
        const real *from[R];                                                                                \
        _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {                                              \
            from[r] = source + rows[r];                                                                     \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v)                                            \
                sum[r][v] = begin ? load(begin + v * WIDTH) : (vec){0};                                     \
        }                                                                                                   \
        for (Index b = 0; b < deep; ++b) {                                                                  \
            const Index at = columns[b];                                                                    \
            vec right[V];                                                                                   \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) right[v] = load(packed + (b * V + v) * WIDTH);\
            _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {                                          \
                const real left = from[r][at];                                                              \
                _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) sum[r][v] += left * right[v];          \
            }                                                                                               \
        }                                                                                                   \
        _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r)                                                \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) {                                          \
                real *const to = out[r] + v * WIDTH;                                                        \
                if (!begin) sum[r][v] += load(to);                                                          \
                store(to, rectified ? positive(sum[r][v]) : sum[r][v]);                                     \
            }                                                                                               \
    }

typedef void Tile(const real *, const Index *, const Index *, Index, const real *, const real *, int, real *const *);

// By the number of registers: the tiles, and those for the last rows, of which a kernel's gradient
// has few in all, 27 if it is 3 × 3 for 3 channels. With 12 rows, whose places do not fit the 16
// registers that x86 has for them, two registers run at 129 GFLOP/s on a core of an Intel Xeon, and
// with 8 rows at 170.
#if REGISTERS == 32
TILE(8, 1) TILE(8, 2) TILE(8, 3) TILE(6, 4)
static Tile *const TILES[] = {tile_8_1, tile_8_2, tile_8_3, tile_6_4};
static const Index HEIGHTS[] = {8, 8, 8, 6};
TILE(4, 1) TILE(4, 2) TILE(3, 3) TILE(3, 4)
static Tile *const LAST_TILES[] = {tile_4_1, tile_4_2, tile_3_3, tile_3_4};
static const Index LAST_HEIGHTS[] = {4, 4, 3, 3};
#else
TILE(10, 1) TILE(6, 2)
static Tile *const TILES[] = {tile_10_1, tile_6_2};
static const Index HEIGHTS[] = {10, 6};
TILE(4, 1) TILE(3, 2)
static Tile *const LAST_TILES[] = {tile_4_1, tile_3_2};
static const Index LAST_HEIGHTS[] = {4, 3};
#endif

// A product of a matrix (height, depth), one (depth, width), and the result (height, width), and
// where things are: where the rows and columns of the left matrix begin, the rows of the right one,
// and those of the result; how far apart are numbers of a row of the right one, and of the result.
// `packed` is working memory of PACKED bytes, `spare` of height · SPARE numbers. If `rectified`, a
// ReLU follows: the result is max(…, 0).
typedef struct {
    const real *left, *right;
    real *out;
    Index height, depth, width;
    Index *rows, *columns, *with, *to;
    Index right_step, out_step;
    real *packed, *spare;
    int rectified;
} Product;

// Fewer numbers than fill a register, and zeros
INLINE vec some_of(const real *from, Index count) {
    vec v = {0};
    copy_few(&v, from, count * (Index)sizeof(real));
    return v;
}

// Copy a row of numbers that are so far apart.
INLINE void copy_row(real *to, Index to_step, const real *from, Index from_step, Index count) {
    if (to_step != 1 || from_step != 1) {
        for (Index o = 0; o < count; ++o) to[o * to_step] = from[o * from_step];
        return;
    }
    Index o = 0;
    for (; o + WIDTH <= count; o += WIDTH) store(to + o, load(from + o));
    copy_few(to + o, from + o, (count - o) * (Index)sizeof(real));
}

// Make the rows of a block of WIDTH × WIDTH numbers its columns. A step puts the numbers of rows i
// and i + WIDTH/2 in turns into rows 2i and 2i + 1: the highest bit of a number's row moves to the
// end of its column, and that of its column to the end of its row.
INLINE void turn(vec *block) {
    ints low, high;
    for (Index u = 0; u < WIDTH; ++u) {
        low[u] = (integer)(u / 2 + u % 2 * WIDTH);
        high[u] = (integer)(low[u] + WIDTH / 2);
    }
    _Pragma("GCC unroll 4") for (Index step = 1; step < WIDTH; step *= 2) {
        vec next[WIDTH];
        _Pragma("GCC unroll 16") for (Index i = 0; i < WIDTH / 2; ++i) {
            next[2 * i] = chosen(block[i], block[i + WIDTH / 2], low);
            next[2 * i + 1] = chosen(block[i], block[i + WIDTH / 2], high);
        }
        _Pragma("GCC unroll 16") for (Index i = 0; i < WIDTH; ++i) block[i] = next[i];
    }
}

// Copy `deep` rows of the right matrix from row b on, and of each `here` numbers from `first` on,
// so that they follow each other; with zeros up to the end of a register.
INLINE void pack(const Product *p, Index b, Index deep, Index first, Index here, Index span) {
    const real *const right = p->right + first * p->right_step;
    if (p->right_step != 1) {
        // a few numbers of each column in turn, so that few lines of the cache are written to
        for (Index begin = 0; begin < deep; begin += WIDTH) {
            const Index end = least(begin + WIDTH, deep), *const with = p->with + b;
            Index o = 0;
            // the numbers of a column follow each other (places in a column never decrease)
            if (end - begin == WIDTH && with[end - 1] - with[begin] == WIDTH - 1)
                for (; o + WIDTH <= here; o += WIDTH) {
                    vec block[WIDTH];
                    _Pragma("GCC unroll 16") for (Index u = 0; u < WIDTH; ++u)
                        block[u] = load(right + with[begin] + (o + u) * p->right_step);
                    turn(block);
                    _Pragma("GCC unroll 16") for (Index u = 0; u < WIDTH; ++u)
                        store(p->packed + (begin + u) * span + o, block[u]);
                }
            for (; o < here; ++o)
                for (Index k = begin; k < end; ++k)
                    p->packed[k * span + o] = right[with[k] + o * p->right_step];
        }
    } else {
        const Index full = here / WIDTH * WIDTH, end = deep ? p->with[b + deep - 1] + here : 0;
        ints rest;
        for (Index u = 0; u < WIDTH; ++u) rest[u] = full + u < here ? -1 : 0;
        for (Index k = 0; k < deep; ++k) {
            const real *const from = right + p->with[b + k];
            for (Index o = 0; o < full; o += WIDTH) {
                store(p->packed + k * span + o, load(from + o));
                __builtin_prefetch(from + span + o);
            }
            // a whole register, which is quicker, as long as the last row ends behind it
            if (full < here)
                store(p->packed + k * span + full, p->with[b + k] + full + WIDTH <= end
                                                       ? where(rest, load(from + full))
                                                       : some_of(from + full, here - full));
        }
    }
    if (here < span && p->right_step != 1)
        for (Index k = 0; k < deep; ++k)
            for (Index o = here; o < span; ++o) p->packed[k * span + o] = 0;
}

// out[to[a]…] = bias + Σ_b left[rows[a] + columns[b]] · right[with[b]…]; or, if `add`, that is
// added to what is there. Numbers of the result that are apart, or do not fill registers, are
// collected in `spare` first.
static void multiply(const Product *p, const real *bias, int add) {
    const Index registers = (p->width + WIDTH - 1) / WIDTH, blocks = (registers + WIDEST - 1) / WIDEST;
    const Index widest = blocks ? (registers + blocks - 1) / blocks * WIDTH : 1;
    real rest[TALLEST * SPARE], begin[SPARE];
    for (Index first = 0; first < p->width; first += widest) {
        const Index here = least(widest, p->width - first), wide = (here + WIDTH - 1) / WIDTH, span = wide * WIDTH;
        const Index tall = HEIGHTS[wide - 1], deepest = least(DEEPEST, PACKED / (Index)sizeof(real) / span);
        const int collect = here < span || p->out_step != 1;
        real *const out = p->out + first * p->out_step;
        for (Index o = 0; o < span; ++o) begin[o] = bias && o < here ? bias[first + o] : 0;
        if (collect && add)
            for (Index a = 0; a < p->height; ++a) copy_row(p->spare + a * span, 1, out + p->to[a], p->out_step, here);
        for (Index b = 0; b < most(p->depth, 1); b += deepest) {
            const Index deep = least(deepest, p->depth - b);
            const int rectified = p->rectified && b + deep == p->depth;
            // Rows that follow each other already are not copied.
            const real *packed = p->packed;
            if (here == span && p->right_step == 1 && deep > 0 &&
                p->with[b + deep - 1] - p->with[b] == (deep - 1) * span)
                packed = p->right + first + p->with[b];
            else
                pack(p, b, deep, first, here, span);
            for (Index a = 0; a < p->height; a += tall) {
                Index rows[TALLEST];
                real *place[TALLEST];
                for (Index r = 0; r < tall; ++r) {
                    const Index row = least(a + r, p->height - 1);
                    rows[r] = p->rows[row];
                    place[r] = a + r > row ? rest + r * span : collect ? p->spare + row * span : out + p->to[row];
                }
                const int is_last = p->height - a <= LAST_HEIGHTS[wide - 1];
                Tile *const tile = is_last ? LAST_TILES[wide - 1] : TILES[wide - 1];
                tile(p->left, rows, p->columns + b, deep, packed, b || add ? NULL : begin, rectified, place);
            }
        }
        if (collect)
            for (Index a = 0; a < p->height; ++a) copy_row(out + p->to[a], p->out_step, p->spare + a * span, 1, here);
    }
}
