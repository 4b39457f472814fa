/* SPDX-License-Identifier: Apache-2.0 */
/* printf.c says what libc's snprintf() says: random formats and values, into buffers of every size.
 * `printf_test SEED`. */

#include "check.h"
#include <string.h>

#define ROUNDS 200000
#define SIZE_MOST 96

static char formats[64];

static void check_same(size_t size, const char *ours, int our_length, const char *theirs,
                       int their_length)
{
    CHECK(our_length == their_length, "'%s': %d, not %d", formats, our_length, their_length);
    CHECK(memcmp(ours, theirs, size) == 0, "'%s': '%s', not '%s'", formats, ours, theirs);
}

/* Both see the same buffer before, too; the block ends with the buffer. The values are evaluated
 * twice. */
#define BOTH(...) do { \
    size_t size = random_below(4) ? SIZE_MOST : random_below(SIZE_MOST); \
    char *ours = malloc(size), *theirs = malloc(size); \
    memset(ours, '?', size); \
    memset(theirs, '?', size); \
    int our_length = format(ours, size, formats, __VA_ARGS__); \
    int their_length = snprintf(theirs, size, formats, __VA_ARGS__); \
    check_same(size, ours, our_length, theirs, their_length); \
    free(ours); \
    free(theirs); \
} while (0)

/* A format of one conversion, with text around it, and a second one for a fixed %s. */
static void random_format(const char *length, char letter, bool may_be_zero_padded)
{
    char width[16] = "";
    if (random_below(2))
        snprintf(width, sizeof(width), "%d", (int)(1 + random_below(25)));
    const char *zero = may_be_zero_padded && random_below(2) ? "0" : "";
    const char *before = random_below(2) ? "a%%" : "";
    snprintf(formats, sizeof(formats), "%s%%%s%s%s%c, %%s", before, zero, width, length, letter);
}

/* Of every size, with small ones and ends of the range. */
static uint64_t random_value(void)
{
    uint64_t value = random_next() >> random_below(64);
    switch (random_below(6)) {
    case 0: return 0 - value;
    case 1: return 1ull << random_below(64);
    case 2: return (1ull << random_below(64)) - 1;
    case 3: return 0;
    default: return value;
    }
}

static void check_numbers(void)
{
    char letter = "ux"[random_below(2)];
    uint64_t value = random_value();
    switch (random_below(4)) {
    case 0:
        random_format("", letter, true);
        BOTH((unsigned)value, "text");
        return;
    case 1:
        random_format("l", letter, true);
        BOTH((unsigned long)value, "text");
        return;
    case 2:
        random_format("ll", letter, true);
        BOTH((unsigned long long)value, "text");
        return;
    default:
        random_format("z", letter, true);
        BOTH((size_t)value, "text");
    }
}

static void check_texts(void)
{
    static const char *const texts[] = {"", "x", "a longer text", "100%", NULL};
    const char *text = texts[random_below(COUNT(texts))];
    random_format("", 's', false);
    BOTH(text, "text");
}

/* What is no conversion comes out as it stands: where libc does something else, or nothing. */
static void check_others(void)
{
    char text[64];
    const char *volatile odd = "[%y] 5%";
    int length = format(text, sizeof(text), odd, 1);
    CHECK(length == 7 && strcmp(text, odd) == 0, "'%s'", text);
    odd = "%.3s %-5d";
    format(text, sizeof(text), odd, "x", 1);
    CHECK(strcmp(text, odd) == 0, "'%s'", text);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    random_state = strtoull(argv[1], NULL, 0);
    for (int round = 0; round < ROUNDS; round++) {
        check_numbers();
        if (round % 4 == 0)
            check_texts();
    }
    snprintf(formats, sizeof(formats), "%s", "%u %5u|%08x %lx %s%s %zu %s %lu %u");
    for (int round = 0; round < 1000; round++) {
        uint64_t a = random_value(), b = random_value(), c = random_value(), d = random_value();
        BOTH((unsigned)a, (unsigned)b, (unsigned)c, d, "c", "text", (size_t)c, "on the stack", b,
             (unsigned)d);
    }
    check_others();
    return 0;
}
