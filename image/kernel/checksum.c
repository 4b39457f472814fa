/* SPDX-License-Identifier: Apache-2.0 */
/* Two checksums: CRC-32, which files that others read carry, and a fast one for our own memory.
 *
 *   C1. checksum_crc32(crc, ...) is zlib's crc32(): 0 begins, and a result goes on with more bytes.
 *   C2. checksum_words(sum, ...) is XXH64 with the seed `sum`, of a size that is a multiple of 8.
 *       A sum taken as the next part's seed covers both parts and their order; it is not the sum
 *       of both in one piece.
 *   C3. No table is computed at run time (kernel.h K2).
 *
 * Neither resists an author of collisions: they find accidents.
 * Knows nothing of what it sums. Change with: persist/layout.py for the crash slot's CRC-32. */

#include "kernel.h"

static const uint32_t crc32_table[16] = { /* of half a byte */
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

uint32_t checksum_crc32(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    crc = ~crc;
    for (size_t index = 0; index < size; index++) {
        crc = crc >> 4 ^ crc32_table[(crc ^ at[index]) & 15];
        crc = crc >> 4 ^ crc32_table[(crc ^ at[index] >> 4) & 15];
    }
    return ~crc;
}

/* XXH64's constants, under its own names. */
#define PRIME_1 0x9e3779b185ebca87u
#define PRIME_2 0xc2b2ae3d27d4eb4fu
#define PRIME_3 0x165667b19e3779f9u
#define PRIME_4 0x85ebca77c2b2ae63u
#define PRIME_5 0x27d4eb2f165667c5u
#define LANES 4

typedef uint64_t __attribute__((may_alias, aligned(1))) word;

static inline uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static inline uint64_t take(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t merge(uint64_t sum, uint64_t lane)
{
    return (sum ^ take(0, lane)) * PRIME_1 + PRIME_4;
}

/* Four lanes, because each step of one waits for its multiplication. */
static uint64_t sum_lanes(uint64_t seed, const word *at, size_t count)
{
    uint64_t a = seed + PRIME_1 + PRIME_2, b = seed + PRIME_2, c = seed, d = seed - PRIME_1;
    for (const word *end = at + count; at < end; at += LANES) {
        a = take(a, at[0]);
        b = take(b, at[1]);
        c = take(c, at[2]);
        d = take(d, at[3]);
    }
    uint64_t sum = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    return merge(merge(merge(merge(sum, a), b), c), d);
}

uint64_t checksum_words(uint64_t sum, const void *data, size_t size)
{
    assert(size % 8 == 0);
    const word *at = data;
    size_t count = size / 8, in_lanes = count / LANES * LANES;
    sum = in_lanes > 0 ? sum_lanes(sum, at, in_lanes) : sum + PRIME_5;
    sum += size;
    for (size_t index = in_lanes; index < count; index++)
        sum = rotate(sum ^ take(0, at[index]), 27) * PRIME_1 + PRIME_4;
    sum = (sum ^ sum >> 33) * PRIME_2;
    sum = (sum ^ sum >> 29) * PRIME_3;
    return sum ^ sum >> 32;
}
