// Dropout: the lesson functional/dropout.py. The mask is drawn anew each time, by Philox 4×64 with
// 10 rounds (Salmon et al. 2011), whose numbers are those of NumPy's generator. Its blocks are
// independent of each other, so threads begin anywhere.
//
// Memory is read and written once, 8 bytes an element in float32, but the floor is the generator's:
// a block of 8 numbers takes 20 products of 64-bit words, of which a core begins one a cycle. A
// piece is drawn first, and then chosen from in vectors. On one core of an AMD EPYC (Zen 5) an
// element takes 1.1 ns, of which drawing takes 0.8.

#include "native.h"

enum { PIECE = 1024, IN_BLOCK = 8, ROUNDS = 10 };  // numbers in a piece and in a block

#if defined(__SIZEOF_INT128__)
INLINE uint64_t product(uint64_t a, uint64_t b, uint64_t *high) {
    unsigned __int128 both = (unsigned __int128)a * b;
    *high = (uint64_t)(both >> 64);
    return (uint64_t)both;
}
#else
INLINE uint64_t product(uint64_t a, uint64_t b, uint64_t *high) {
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (uint32_t)middle;
    *high = a1 * b1 + (middle >> 32) + (other >> 32);
    return a * b;
}
#endif

// The numbers of block `counter`: each word's lower half, and its upper half. The key changes from
// round to round.
INLINE void philox(uint64_t counter, const uint64_t keys[ROUNDS][2], uint32_t *numbers) {
    uint64_t x[4] = {counter, 0, 0, 0}, high0, high1;
    for (int round = 0; round < ROUNDS; ++round) {
        uint64_t low0 = product(0xD2E7470EE14C6C93, x[0], &high0), low1 = product(0xCA5A826395121157, x[2], &high1);
        x[0] = high1 ^ x[1] ^ keys[round][0], x[1] = low1, x[2] = high0 ^ x[3] ^ keys[round][1], x[3] = low0;
    }
    for (int k = 0; k < IN_BLOCK; ++k) numbers[k] = (uint32_t)(x[k / 2] >> k % 2 * 32);
}

// y = x · s where the upper 24 bits of an element's number are at least `least_kept`, else 0.
// Element 0 takes number `begin` of the generator. A unit is PIECE elements.
KERNEL void drop(Index first, Index last, Index size, const real *restrict x, real *restrict y, uint32_t least_kept,
                 real s, uint64_t seed, uint64_t draw, uint64_t begin) {
    uint64_t keys[ROUNDS][2];
    for (uint64_t round = 0; round < ROUNDS; ++round) {
        keys[round][0] = seed + round * 0x9E3779B97F4A7C15;
        keys[round][1] = draw + round * 0xBB67AE8584CAA73B;
    }
    for (Index from = first * PIECE; from < least(size, last * PIECE); from += PIECE) {
        uint32_t numbers[PIECE + IN_BLOCK];
        uint64_t number = begin + (uint64_t)from, skip = number % IN_BLOCK;
        Index count = least(PIECE, size - from);
        for (Index k = 0; k < count + (Index)skip; k += IN_BLOCK)  // NumPy's first block is number 1
            philox((number + (uint64_t)k) / IN_BLOCK + 1, keys, numbers + k);
        const uint32_t *mine = numbers + skip;
        for (Index i = 0; i < count; ++i) y[from + i] = (mine[i] >> 8 >= least_kept ? x[from + i] : 0) * s;
    }
}
