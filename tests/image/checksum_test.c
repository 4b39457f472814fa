/* SPDX-License-Identifier: Apache-2.0 */
/* `checksum_test SEED SPLIT` prints of standard input: its CRC-32, the same in two pieces, and its
 * sum of words. Who knows what is right is test_kernel.py. */

#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    size_t size, split = strtoull(argv[2], NULL, 0);
    const char *data = read_input(&size);
    CHECK(split <= size);
    uint32_t first = checksum_crc32(0, data, split);
    printf("%u %u ", checksum_crc32(0, data, size),
           checksum_crc32(first, data + split, size - split));
    printf("%lu\n", checksum_words(strtoull(argv[1], NULL, 0), data, size));
    return 0;
}
