// Sums over the rows of a matrix, such as a bias's gradient: Σ over all pixels of all images, for
// each channel.

// (rows, columns) -> (columns,): one thread for each column.
extern "C" __global__ void column_sums_naive(const real* x, real* sums, Index rows, Index columns) {
    Index column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    real sum = 0;
    for (Index row = 0; row < rows; ++row) sum += x[row * columns + column];
    sums[column] = sum;
}

// What changes: the rows are cut into chunks, of which each block adds one up, several rows at a
// time; a second launch adds up what the first leaves. Why: there are many rows and few columns. At
// AlexNet's conv1, with 96 channels, 96 naive threads would each add up 387,200 elements, and an
// H200 has room for 270,336 threads. The first launch of the two reads at 70% of the speed of its
// memory (benchmarks/results/gpu.md). There are two launches, and not one in which blocks add to
// the same sum when they happen to be ready, so that the order of the additions is always the same,
// and so are the last bits. The sums are shorter, too, and rounding errors smaller.
//
//     WIDE   how many packs of columns a block takes side by side: its threads read WIDE · PACK
//            neighbors of a row at once, in BLOCK / WIDE rows

// (rows, columns) -> (⌈rows / chunk⌉, columns). `count` blocks, of which `across` are side by side.
KERNEL void column_sums(const real* __restrict__ x, real* __restrict__ sums, Index count, Index across, Index rows,
                        Index columns, Index chunk) {
    FOR_EACH_BLOCK(b, count) {
        __shared__ Pack<real> part[BLOCK];
        Index first = b / across * chunk;
        int many = min(rows - first, chunk);
        TOGETHER(t) {
            Index column = (b % across * WIDE + t % WIDE) * PACK;
            Pack<real> sum = {};
            // equivalent (<): what is read beyond the last column is written nowhere
            if (t < BLOCK / WIDE * WIDE && column < columns) {  // the last threads may be too few for a row
                UNROLL(4)  // so that four rows are under way at once
                for (int row = t / WIDE; row < many; row += BLOCK / WIDE) {
                    Pack<real> a = load(x + (first + row) * columns + column);
                    for (int u = 0; u < PACK; ++u) sum.at[u] += a.at[u];
                }
            }
            part[t] = sum;  // 0 for a thread that has no column
        }
        TOGETHER(t) {
            Index column = (b % across * WIDE + t % WIDE) * PACK;
            if (t < WIDE && column < columns) {
                Pack<real> sum = part[t];
                for (int other = t + WIDE; other < BLOCK; other += WIDE)
                    for (int u = 0; u < PACK; ++u) sum.at[u] += part[other].at[u];
                store(sums + b / across * columns + column, sum);
            }
        }
    }
}
