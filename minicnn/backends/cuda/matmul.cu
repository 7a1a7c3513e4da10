// The product of two matrices, out = a b, by kernels of our own: (M, K), (K, N) -> (M, N). This is
// only a lesson: in training, cuBLAS makes the products, which products.py calls; the end of this
// file says what cuBLAS does besides. The lesson is how often an element is fetched from memory.
//
//     TILE   the side of a square of elements with one thread for each: TILE² = BLOCK

// One thread for each element of out: a row of a times a column of b.
extern "C" __global__ void matmul_naive(const real* a, const real* b, real* out, Index m, Index k,
                                        Index n) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= m * n) return;
    Index row = i / n, column = i % n;
    real sum = 0;
    for (Index s = 0; s < k; ++s) sum += a[row * k + s] * b[s * n + column];
    out[i] = sum;
}

// How often is an element fetched? Each of the M·N threads fetches K elements of a and K of b, two
// for each product that it adds up:
//
//     2 M N K
//
// An element of a is fetched N times, once for each column of out, and one of b M times.
//
// What changes: a block makes TILE × TILE elements of out, and takes the K products of each in
// steps of TILE. For one step it needs a tile of a and a tile of b. Each thread fetches one element
// of each, leaves it in shared memory, waits for the others, and then uses TILE elements of either
// tile:
//
//                              b   . . 0 0 . .     M = 4, K = 6, N = 6, TILE = 2: the block
//                                  . . 0 0 . .     of the # in out takes three steps, with
//                                  . . 1 1 . .     tiles 0 of a and b, then 1, then 2
//                                  . . 1 1 . .
//                                  . . 2 2 . .
//                                  . . 2 2 . .
//
//              a   . . . . . . out . . . . . .
//                  . . . . . .     . . . . . .
//                  0 0 1 1 2 2     . . # # . .
//                  0 0 1 1 2 2     . . # # . .
//
// Why: what one thread has fetched, TILE threads use. There are M/TILE · N/TILE blocks, and K/TILE
// steps in each, which fetch TILE² elements twice:
//
//     M/TILE · N/TILE · K/TILE · 2 TILE²  =  2 M N K / TILE
//
// An element of a is now fetched N/TILE times, one of b M/TILE times. For AlexNet's fc6 with 128
// images, M = 128, K = 9216, N = 4096, that is 38.7 GB of floats for the naive kernel, 2.4 GB with
// TILE = 16, and 0.16 GB if each were fetched and written once. (Not all of it comes from the GPU's
// memory, because its caches help both kernels.)
//
// In CUDA's own words, i is threadIdx.x / TILE, j is threadIdx.x % TILE, sum is a local variable,
// and __syncthreads() is called where a TOGETHER ends: the first time so that the tiles are
// complete before they are used, the second time so that they have been used before the next ones
// are written over them.
KERNEL void matmul_tiled(const real* __restrict__ a, const real* __restrict__ b,
                         real* __restrict__ out, Index tiles, Index m, Index k, Index n) {
    static_assert(TILE * TILE == BLOCK, "a tile has one number for each thread of a block");
    FOR_EACH_BLOCK(tile, tiles) {
        __shared__ real of_a[TILE][TILE], of_b[TILE][TILE];
        Index across = (n + TILE - 1) / TILE;  // tiles side by side in out
        Index top = tile / across * TILE, left = tile % across * TILE;
        Own<real> sum = {};
        // equivalent (<): one step more adds zeros
        for (Index step = 0; step < k; step += TILE) {
            TOGETHER(t) {
                int i = t / TILE, j = t % TILE;  // beyond the matrices, zeros
                // equivalent (<, 0): what is beyond m is not written, and beyond k the other is 0
                of_a[i][j] = top + i < m && step + j < k ? a[(top + i) * k + step + j] : 0;
                // equivalent (<, 0): what is beyond n is not written, and beyond k the other is 0
                of_b[i][j] = step + i < k && left + j < n ? b[(step + i) * n + left + j] : 0;
            }
            TOGETHER(t) {
                int i = t / TILE, j = t % TILE;
                for (int s = 0; s < TILE; ++s) sum[t] += of_a[i][s] * of_b[s][j];
            }
        }
        TOGETHER(t) {
            Index row = top + t / TILE, column = left + t % TILE;
            if (row < m && column < n) out[row * n + column] = sum[t];
        }
    }
}

// Why cuBLAS: here each product still takes two elements from shared memory, which is quicker than
// the GPU's memory, but not as quick as arithmetic. The next step is the same once more: a thread
// that makes 8 × 8 elements of out in registers takes 16 elements for 64 products. Then the next
// tiles can be fetched while these are used, other shapes want other tiles, and for TF32 there are
// instructions that multiply whole tiles. All that is written for each GPU anew, and cuBLAS is
// where NVIDIA has done so: fc6's product takes it 204 µs on an H200, 92% of the GPU's speed in
// fp32, and 67 µs in TF32 (benchmarks/results/gpu.md). The call is, in products.product,
//
//     cublas.gemmEx(handle, how_b, how_a, n, m, k, one, b.data.ptr, kind, row_b,
//                   a.data.ptr, kind, row_a, zero, out.data.ptr, kind, row_out, compute, …)
//
// with b first, because cuBLAS is column-major: to it these are their transposes, and it is asked
// for outᵀ = bᵀ aᵀ.
