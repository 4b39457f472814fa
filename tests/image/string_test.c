/* SPDX-License-Identifier: Apache-2.0 */
/* string.c does what libc does, and touches no byte beyond: random sizes and places, in memory
 * between two pages that cannot be touched. `string_test SEED`. */

#include "names.h"
#include "check.h"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef strlen
#undef strnlen
#undef strcmp
#include <string.h>
#include <sys/mman.h>

#define ROUNDS 40000
#define SIZE (2 * PAGE_SIZE)
#define DIRECTION_FLAG 0x400

static uint8_t *ours, *theirs; /* the same bytes: one for string.c, one for libc */

static uint8_t *guarded(void)
{
    uint8_t *base = mmap(NULL, SIZE + 2 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    CHECK(mprotect(base + PAGE_SIZE, SIZE, PROT_READ | PROT_WRITE) == 0);
    return base + PAGE_SIZE;
}

/* A part of the memory; one in four touches an end. Small ones mostly. */
static size_t random_part(size_t size)
{
    uint64_t where = random_below(8);
    return where == 0 ? 0 : where == 1 ? SIZE - size : random_below(SIZE - size + 1);
}

static size_t random_size(void)
{
    return random_below(8) == 0 ? random_below(SIZE + 1) : random_below(70);
}

static void check_same(const char *what, size_t to, size_t from, size_t size)
{
    CHECK(memcmp(ours, theirs, SIZE) == 0, "%s(%zu, %zu, %zu)", what, to, from, size);
    CHECK(!(__builtin_ia32_readeflags_u64() & DIRECTION_FLAG), "%s", what);
}

static void check_writes(void)
{
    size_t size = random_size(), to = random_part(size), from = random_part(size);
    if (random_below(2) && size > 0) { /* close by: overlapping */
        from = to + random_below(2 * size) - size;
        if (from > SIZE - size)
            from = to;
    }
    CHECK(k_memmove(ours + to, ours + from, size) == ours + to);
    memmove(theirs + to, theirs + from, size);
    check_same("memmove", to, from, size);

    int byte = (int)random_next();
    to = random_part(size);
    CHECK(k_memset(ours + to, byte, size) == ours + to);
    memset(theirs + to, byte, size);
    check_same("memset", to, 0, size);

    if (to + size <= from || from + size <= to) {
        CHECK(k_memcpy(ours + to, ours + from, size) == ours + to);
        memcpy(theirs + to, theirs + from, size);
        check_same("memcpy", to, from, size);
    }
    uint8_t fresh = (uint8_t)random_next();
    to = random_part(1);
    ours[to] = theirs[to] = fresh;
}

static int sign(int value) { return (value > 0) - (value < 0); }

static void check_compare(void)
{
    size_t size = random_size(), left = random_part(size), right = random_part(size);
    memcpy(theirs + right, ours + left, size);
    if (size > 0 && random_below(4) > 0)
        theirs[right + random_below(size)] = (uint8_t)random_next();
    int found = k_memcmp(ours + left, theirs + right, size);
    CHECK(sign(found) == sign(memcmp(ours + left, theirs + right, size)), "memcmp %zu", size);
    memcpy(theirs, ours, SIZE);
}

/* Texts that end with the memory's last byte, of an alphabet with the sign bit in it. */
static void check_texts(void)
{
    size_t size = 1 + random_below(40);
    char *left = (char *)ours + SIZE - size, *right = (char *)theirs + SIZE - size;
    for (size_t index = 0; index < size; index++) {
        left[index] = "ab\xc3"[random_below(3)];
        right[index] = random_below(10) ? left[index] : "ab\xc3"[random_below(3)];
    }
    size_t shorter = random_below(size);
    CHECK(k_strnlen(left, size) == size);
    left[size - 1] = right[size - 1] = right[random_below(2) ? shorter : size - 1] = 0;
    size_t length = strlen(right);
    CHECK(k_strlen(right) == length);
    CHECK(k_strnlen(right, shorter) == (length < shorter ? length : shorter));
    CHECK(sign(k_strcmp(left, right)) == sign(strcmp(left, right)), "'%s' '%s'", left, right);
    CHECK(starts_with(left, right) == (strncmp(left, right, length) == 0), "%s, %s", left, right);
    memcpy(theirs, ours, SIZE);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    random_state = strtoull(argv[1], NULL, 0);
    ours = guarded();
    theirs = guarded();
    random_bytes(ours, SIZE);
    memcpy(theirs, ours, SIZE);
    for (int round = 0; round < ROUNDS; round++) {
        check_writes();
        check_compare();
        check_texts();
    }
    return 0;
}
