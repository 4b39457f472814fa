/* SPDX-License-Identifier: Apache-2.0 */
/* getrandom(): what the processor's RDRAND gives, and nothing else. lib-musl's own is tied to an
 * option that is no more; Unikraft's ukrandom does not start where there is no RDSEED, besides.
 * No number is ever made up: without RDRAND Python does not start.
 * Change with: image/kernel/random.c, whose rules these are. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define TRIES 10 /* Intel SDM volume 1, 7.3.17 */

static bool rdrand(uint64_t *word)
{
    bool is_valid;
    __asm__ volatile("rdrand %0" : "=r"(*word), "=@ccc"(is_valid));
    return is_valid;
}

/* A word that equals the one before it was not random: some processors repeat one for ever. */
static bool next(uint64_t *word)
{
    static uint64_t last;
    for (int tries = 0; tries < TRIES; tries++) {
        if (rdrand(word) && *word != last) {
            last = *word;
            return true;
        }
    }
    return false;
}

static bool has_rdrand(void)
{
    uint32_t eax = 1, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ecx & 1u << 30;
}

ssize_t getrandom(void *to, size_t size, unsigned flags)
{
    (void)flags;
    char *at = to;
    for (size_t left = size; left;) {
        uint64_t word;
        if (!has_rdrand() || !next(&word)) {
            errno = EIO;
            return -1;
        }
        size_t part = left < sizeof(word) ? left : sizeof(word);
        memcpy(at, &word, part);
        at += part;
        left -= part;
    }
    return (ssize_t)size;
}
