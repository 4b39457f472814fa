/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers: what the processor's RDRAND gives, and nothing else.
 *
 *   A1. No number is ever made up: without RDRAND, or if it fails, the machine goes off, loudly.
 *   A2. A word that equals the one before it was not random (some processors repeat one word for
 *       ever after a sleep): with 64 bits that does not happen by chance.
 * Source: Intel SDM volume 1, 7.3.17, for the ten tries, too. */

#include "cpu.h"
#include "kernel.h"

#define CPUID_1_ECX_RDRAND (1u << 30)
#define TRIES 10

static uint64_t random_last;

static bool rdrand(uint64_t *word)
{
    bool is_valid;
    __asm__ volatile("rdrand %0" : "=r"(*word), "=@ccc"(is_valid));
    return is_valid;
}

static uint64_t random_word(void)
{
    for (uint32_t tries = 0; tries < TRIES; tries++) {
        uint64_t word;
        if (!rdrand(&word) || word == random_last)
            continue;
        random_last = word;
        return word;
    }
    panic("RDRAND gives no random numbers");
}

void random_init(void)
{
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_RDRAND))
        machine_off("the processor has no RDRAND (QEMU: -cpu ...,+rdrand)");
    random_word();
    random_word();
}

void random_fill(void *to, size_t size)
{
    char *at = to;
    while (size > 0) {
        uint64_t word = random_word();
        size_t part = size < sizeof(word) ? size : sizeof(word);
        memcpy(at, &word, part);
        at += part;
        size -= part;
    }
}
