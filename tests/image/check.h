/* SPDX-License-Identifier: Apache-2.0 */
/* What every test program of the kernel's files shares: a check, a seeded stream of random numbers,
 * input, and the panic that a kernel file may call. The kernel's own string functions are named k_*
 * here (names.h), so that libc's can be asked what is right. */

#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

#define CHECK(condition, ...) \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition, ": " __VA_ARGS__))

__attribute__((format(printf, 4, 5), noreturn, unused))
static void check_failed(const char *file, int line, const char *condition, const char *text, ...)
{
    va_list list;
    va_start(list, text);
    fprintf(stderr, "%s:%d: %s", file, line, condition);
    vfprintf(stderr, text, list);
    fprintf(stderr, "\n");
    exit(1);
}

void panic_at(const char *file, uint32_t line, const char *text, ...)
{
    va_list list;
    va_start(list, text);
    fprintf(stderr, "panic at %s:%d: ", file, line);
    vfprintf(stderr, text, list);
    fprintf(stderr, "\n");
    exit(3);
}

/* splitmix64 */
static uint64_t random_state;
__attribute__((unused)) static uint64_t random_next(void)
{
    uint64_t value = random_state += 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

__attribute__((unused)) static uint64_t random_below(uint64_t limit)
{
    return random_next() % limit;
}

__attribute__((unused)) static void random_bytes(void *to, size_t size)
{
    for (size_t index = 0; index < size; index++)
        ((uint8_t *)to)[index] = (uint8_t)random_next();
}

/* All of standard input, in a block of exactly its size: a byte beyond is an error at once. */
__attribute__((unused)) static char *read_input(size_t *size)
{
    static char buffer[1 << 24];
    *size = fread(buffer, 1, sizeof(buffer), stdin);
    char *block = malloc(*size);
    for (size_t index = 0; index < *size; index++)
        block[index] = buffer[index];
    return block;
}

#endif
