// Sums over the rows of a matrix, such as a bias's gradient: Σ over all pixels of all images, for each channel. There
// are many rows and few columns, so the rows are cut into chunks, of which each block adds one up; a second launch adds
// up what the first leaves. The order of the additions is always the same.
//
//     WIDE   how many packs of columns a block takes side by side: its threads read WIDE · PACK neighbors of a row at
//            once, in BLOCK / WIDE rows

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
