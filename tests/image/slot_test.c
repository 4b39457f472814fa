/* SPDX-License-Identifier: Apache-2.0 */
/* slot.h: what the slot holds behind writes anywhere, lines that are added to a text of any length,
 * damage, and how long starts wait. The text is compared with one in an array that is kept plainly. */

#include "check.h"
#include "layout.h"

#include "slot.h"

#define TEXT_MAX (CRASH_SLOT_SIZE - 32)

static struct slot slot;
static char plain[TEXT_MAX];
static size_t plain_size;

static void compare(void)
{
    static char seen[TEXT_MAX];
    CHECK(slot.size == plain_size, "%u, not %lu", slot.size, plain_size);
    CHECK(slot_read(&slot, seen, sizeof(seen), 0) == plain_size);
    CHECK(memcmp(seen, plain, plain_size) == 0);
    CHECK(slot_read(&slot, seen, 1, slot.size) == 0);
}

static void write_anywhere(void)
{
    uint64_t offset = random_below(plain_size + 3);
    size_t size = random_below(random_below(8) ? 200 : TEXT_MAX + 10);
    static char bytes[TEXT_MAX + 10];
    memset(bytes, 'a' + (int)random_below(26), size);
    bool fits = offset <= plain_size && offset + size <= TEXT_MAX;
    CHECK(slot_write(&slot, bytes, size, offset) == fits, "%lu bytes at %lu", size, offset);
    if (fits) {
        memcpy(plain + offset, bytes, size);
        plain_size = offset + size > plain_size ? offset + size : plain_size;
    }
    compare();
}

/* Whole lines below, and an end of the text that gives way. */
static void add_lines(void)
{
    char lines[300];
    size_t size = 1 + random_below(sizeof(lines) - 1);
    memset(lines, 'X', size - 1);
    lines[size - 1] = '\0';
    slot_add(&slot, lines);
    plain_size = plain_size < TEXT_MAX - size ? plain_size : TEXT_MAX - size;
    if (plain_size && plain[plain_size - 1] != '\n')
        plain[plain_size++] = '\n';
    memcpy(plain + plain_size, lines, size - 1);
    plain_size += size - 1;
    compare();
}

static void damage(void)
{
    size_t stored = slot_seal(&slot, 7, 8);
    CHECK(slot_is_whole(&slot) && stored == 32 + plain_size);
    size_t at = random_below(stored);
    ((char *)&slot)[at] ^= 1;
    CHECK(!slot_is_whole(&slot), "byte %lu", at);
    ((char *)&slot)[at] ^= 1;
    uint32_t size = slot.size;
    slot.size = TEXT_MAX + 1;
    CHECK(!slot_is_whole(&slot));
    slot.size = size;
}

static void waits(void)
{
    CHECK(start_delay_ns(0, 0) == 0 && start_delay_ns(0, QUICK_FREE) == 0);
    CHECK(start_delay_ns(1, 0) == 20000000 && start_delay_ns(0, QUICK_FREE + 1) == 20000000);
    CHECK(start_delay_ns(3, QUICK_FREE + 1) == 80000000);
    CHECK(start_delay_ns(7, 0) == DELAY_MAX_NS && start_delay_ns(1ull << 40, 0) == DELAY_MAX_NS);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    random_state = strtoull(argv[1], NULL, 0);
    waits();
    for (int round = 0; round < 3000; round++) {
        if (random_below(100) == 0) {
            plain_size = 0;
            slot.size = 0;
        }
        (random_below(6) ? write_anywhere : add_lines)();
        damage();
    }
    return 0;
}
