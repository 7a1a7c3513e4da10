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
#define TALLEST 12
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
#if REGISTERS == 32
TILE(12, 1) TILE(12, 2) TILE(8, 3) TILE(6, 4)
static Tile *const TILES[] = {tile_12_1, tile_12_2, tile_8_3, tile_6_4};
static const Index HEIGHTS[] = {12, 12, 8, 6};
#else
TILE(10, 1) TILE(6, 2)
static Tile *const TILES[] = {tile_10_1, tile_6_2};
static const Index HEIGHTS[] = {10, 6};
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

// Copy `deep` rows of the right matrix from row b on, and of each `here` numbers from `first` on,
// so that they follow each other; with zeros up to the end of a register.
INLINE void pack(const Product *p, Index b, Index deep, Index first, Index here, Index span) {
    const real *const right = p->right + first * p->right_step;
    if (p->right_step != 1) {
        // a few numbers of each column in turn, so that few lines of the cache are written to
        for (Index begin = 0; begin < deep; begin += WIDTH)
            for (Index o = 0; o < here; ++o)
                for (Index k = begin; k < least(begin + WIDTH, deep); ++k)
                    p->packed[k * span + o] = right[p->with[b + k] + o * p->right_step];
    } else {
        const Index full = here / WIDTH * WIDTH;
        for (Index k = 0; k < deep; ++k) {
            const real *const from = right + p->with[b + k];
            for (Index o = 0; o < full; o += WIDTH) {
                store(p->packed + k * span + o, load(from + o));
                __builtin_prefetch(from + span + o);
            }
            for (Index o = full; o < here; ++o) p->packed[k * span + o] = from[o];
        }
    }
    if (here < span)
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
            for (Index a = 0; a < p->height; ++a)
                for (Index o = 0; o < here; ++o) p->spare[a * span + o] = out[p->to[a] + o * p->out_step];
        for (Index b = 0; b < most(p->depth, 1); b += deepest) {
            const Index deep = least(deepest, p->depth - b);
            const int rectified = p->rectified && b + deep == p->depth;
            pack(p, b, deep, first, here, span);
            for (Index a = 0; a < p->height; a += tall) {
                Index rows[TALLEST];
                real *place[TALLEST];
                for (Index r = 0; r < tall; ++r) {
                    const Index row = least(a + r, p->height - 1);
                    rows[r] = p->rows[row];
                    place[r] = a + r > row ? rest + r * span : collect ? p->spare + row * span : out + p->to[row];
                }
                TILES[wide - 1](p->left, rows, p->columns + b, deep, p->packed, b || add ? NULL : begin, rectified,
                                place);
            }
        }
        if (collect)
            for (Index a = 0; a < p->height; ++a)
                for (Index o = 0; o < here; ++o) out[p->to[a] + o * p->out_step] = p->spare[a * span + o];
    }
}
