/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes and strings: what the compiler expects to exist, and what else we use of C's <string.h>.
 *
 *   S1. Nothing here becomes a call of itself. Without -ffreestanding GCC would make the loop of a
 *       memset a call of memset; these are string instructions, and tests/image looks at the code.
 *   S2. Nothing is touched outside of [to, to + size) and [from, from + size): pages beside these
 *       may be unmapped. strlen() and strcmp() trust that a text ends.
 *   S3. The direction flag is clear whenever C runs; trap entry and SYSCALL's mask see to it, too.
 *
 * The unit is 8 bytes: an emulated processor takes about as long for a `movsb` as for a `movsq`.
 * Knows nothing of address spaces: who copies from the program has checked it (memory.c). */

#include "kernel.h"

typedef uint64_t __attribute__((may_alias, aligned(1))) word;

void *memcpy(void *to, const void *from, size_t size)
{
    void *at = to;
    size_t words = size / 8, bytes = size % 8;
    __asm__ volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    /* Not below `from`, and not behind its end: the subtraction wraps for the first. */
    if ((uintptr_t)to - (uintptr_t)from >= size)
        return memcpy(to, from, size);
    char *at = (char *)to + size - 1; /* from the last byte down */
    from = (const char *)from + size - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    void *at = to;
    uint64_t value = (uint8_t)byte * 0x0101010101010101u;
    size_t words = size / 8, bytes = size % 8;
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(value) : "memory");
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
    const uint8_t *a = left, *b = right;
    while (size >= 8 && *(const word *)a == *(const word *)b) {
        a += 8;
        b += 8;
        size -= 8;
    }
    for (; size > 0; a++, b++, size--) {
        if (*a != *b)
            return *a < *b ? -1 : 1;
    }
    return 0;
}

size_t strnlen(const char *text, size_t most)
{
    size_t length = 0;
    while (length < most && text[length] != 0)
        length++;
    return length;
}

size_t strlen(const char *text)
{
    return strnlen(text, SIZE_MAX);
}

int strcmp(const char *left, const char *right)
{
    while (*left != 0 && *left == *right) {
        left++;
        right++;
    }
    return (uint8_t)*left - (uint8_t)*right;
}

bool starts_with(const char *text, const char *prefix)
{
    while (*prefix != 0) {
        if (*text++ != *prefix++)
            return false;
    }
    return true;
}
