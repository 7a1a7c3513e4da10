// The product of two matrices, of which the left one need not lie in memory as a matrix: its element
// (a, b) is source[rows[a] + columns[b]]. convolution and the Winograd algorithm are made of it.
//
// A tile of R rows × V registers of the result stays in registers while b runs: it takes R numbers of
// the left matrix, each multiplied with V registers of the right one, so R + V loads for R · V
// multiply-adds, of which a core makes two in a cycle. A part of the right matrix, DEEP rows of V
// registers, is copied together so that it stays in the first-level cache for all tiles.

#if REGISTERS == 32
#define WIDEST 4  // registers beside each other: 6 × 4 sums, 4 of the matrix, and one of the source
#else
#define WIDEST 2
#endif
#define TALLEST 12
#define SPARE (WIDEST * WIDTH)
#define PACKED (24 << 10)  // bytes of the right-hand matrix at a time: half of the smallest cache

// R × V registers of sums: out[r] = begin + Σ_b source[rows[r] + columns[b]] · packed[b]. With no
// `begin`, the sums go on from what out[r] holds.
#define TILE(R, V)                                                                                  \
    static void tile_##R##_##V(const real *source, const Index *rows, const Index *columns, Index deep, \
                               const real *packed, const real *begin, real *const *out) {           \
        vec sum[R][V];                                                                              \
        const real *from[R];                                                                        \
        _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {                                      \
            from[r] = source + rows[r];                                                             \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v)                                    \
                sum[r][v] = load((begin ? begin : out[r]) + v * WIDTH);                             \
        }                                                                                           \
        for (Index b = 0; b < deep; ++b) {                                                          \
            const Index at = columns[b];                                                            \
            vec right[V];                                                                           \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v)                                    \
                right[v] = load(packed + (b * V + v) * WIDTH);                                      \
            _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {                                  \
                const real left = from[r][at];                                                      \
                _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) sum[r][v] += left * right[v];  \
            }                                                                                       \
        }                                                                                           \
        _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r)                                        \
            _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) store(out[r] + v * WIDTH, sum[r][v]); \
    }

typedef void Tile(const real *, const Index *, const Index *, Index, const real *, const real *, real *const *);
#if REGISTERS == 32
TILE(12, 1) TILE(12, 2) TILE(8, 3) TILE(6, 4)
static Tile *const TILES[] = {tile_12_1, tile_12_2, tile_8_3, tile_6_4};
static const Index HEIGHTS[] = {12, 12, 8, 6};
#else
TILE(10, 1) TILE(6, 2)
static Tile *const TILES[] = {tile_10_1, tile_6_2};
static const Index HEIGHTS[] = {10, 6};
#endif

// A matrix of A rows and B columns, never made, and where things are that belong to its rows and
// columns: the product's rows, and the rows of the matrix on the right.
typedef struct {
    const real *source;
    Index height, depth;
    Index *rows, *columns, *to, *with;
} Gathered;

// out[to[a]…] = bias + Σ_b source[rows[a] + columns[b]] · right[with[b]…], `width` numbers in each
// row; or, if `add`, that is added to what is there. `packed` is working memory of PACKED bytes, and
// `spare` of g->height · SPARE numbers, for a last part of the width that does not fill its registers.
static void product(const Gathered *g, const real *right, const real *bias, real *out, Index width, int add,
                    real *packed, real *spare) {
    const Index registers = (width + WIDTH - 1) / WIDTH, blocks = (registers + WIDEST - 1) / WIDEST;
    if (!width) return;
    const Index most_wide = (registers + blocks - 1) / blocks;
    real rest[TALLEST * WIDEST * WIDTH], begin[WIDEST * WIDTH];
    for (Index first = 0; first < width; first += most_wide * WIDTH) {
        const Index wide = least(most_wide, (width - first + WIDTH - 1) / WIDTH), span = wide * WIDTH;
        const Index here = least(span, width - first), tall = HEIGHTS[wide - 1];
        const Index deepest = PACKED / (Index)sizeof(real) / span;
        for (Index o = 0; o < span; ++o) begin[o] = bias && o < here ? bias[first + o] : 0;
        if (here < span && add)
            for (Index a = 0; a < g->height; ++a)
                memcpy(spare + a * span, out + g->to[a] + first, here * sizeof(real));
        for (Index b = 0; b < most(g->depth, 1); b += deepest) {
            const Index deep = least(deepest, g->depth - b);
            for (Index k = 0; k < deep; ++k) {
                memcpy(packed + k * span, right + g->with[b + k] + first, here * sizeof(real));
                for (Index o = here; o < span; ++o) packed[k * span + o] = 0;
            }
            const int begins = b == 0 && !add;
            for (Index a = 0; a < g->height; a += tall) {
                Index rows[TALLEST];
                real *place[TALLEST];
                for (Index r = 0; r < tall; ++r) {
                    const Index row = least(a + r, g->height - 1);
                    rows[r] = g->rows[row];
                    place[r] = a + r > row ? rest + r * span : here < span ? spare + row * span
                                                                           : out + g->to[row] + first;
                }
                TILES[wide - 1](g->source, rows, g->columns + b, deep, packed, begins ? begin : NULL, place);
            }
        }
        if (here < span)
            for (Index a = 0; a < g->height; ++a)
                memcpy(out + g->to[a] + first, spare + a * span, here * sizeof(real));
    }
}
