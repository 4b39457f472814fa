/* SPDX-License-Identifier: Apache-2.0 */
/* The crash slot in memory, and how long the start behind a life's end waits: the same in our own
 * kernel and on Unikraft (image/unikraft/crash.c). Where the slot is stored, and when, they say.
 *
 * Format: persist/FORMAT.md. Whoever includes it has bool, the integer types, offsetof, string.h's
 * functions, checksum_crc32() and CRASH_SLOT_SIZE. */

#ifndef SLOT_H
#define SLOT_H

#define QUICK_NS 100000000ull /* a life that has served no longer than this is a quick death */
#define QUICK_FREE 20u        /* as many in a row are nothing unusual */
#define DELAY_MIN_NS 10000000ull
#define DELAY_MAX_NS 1000000000ull

struct slot {
    char magic[8];
    uint32_t crc, size;
    uint64_t restart, time_us;
    char text[CRASH_SLOT_SIZE - 32];
};
_Static_assert(sizeof(struct slot) == CRASH_SLOT_SIZE, "a page of the region");
#define SLOT_MAGIC "TARDCRSH"
#define SLOT_CRC_FROM offsetof(struct slot, size) /* what the checksum covers begins here */

static inline uint32_t slot_crc(const struct slot *slot)
{
    return checksum_crc32(0, (const char *)slot + SLOT_CRC_FROM,
                          offsetof(struct slot, text) - SLOT_CRC_FROM + slot->size);
}

static inline bool slot_is_whole(const struct slot *slot)
{
    return memcmp(slot->magic, SLOT_MAGIC, sizeof(slot->magic)) == 0 &&
           slot->size <= sizeof(slot->text) && slot_crc(slot) == slot->crc;
}

/* How many bytes of it are to be stored. */
static inline size_t slot_seal(struct slot *slot, uint64_t restart, uint64_t time_us)
{
    memcpy(slot->magic, SLOT_MAGIC, sizeof(slot->magic));
    slot->restart = restart;
    slot->time_us = time_us;
    slot->crc = slot_crc(slot);
    return offsetof(struct slot, text) + slot->size;
}

static inline size_t slot_read(const struct slot *slot, void *to, size_t size, uint64_t offset)
{
    if (offset >= slot->size)
        return 0;
    size_t count = size < slot->size - offset ? size : (size_t)(slot->size - offset);
    memcpy(to, slot->text + offset, count);
    return count;
}

/* Whether there is room. */
static inline bool slot_write(struct slot *slot, const void *from, size_t size, uint64_t offset)
{
    if (offset > slot->size || size > sizeof(slot->text) - offset)
        return false;
    memcpy(slot->text + offset, from, size);
    if (offset + size > slot->size)
        slot->size = (uint32_t)(offset + size);
    return true;
}

/* Lines below what the program has said, whose end gives way if there is no room. */
static inline void slot_add(struct slot *slot, const char *lines)
{
    size_t size = strlen(lines), most = sizeof(slot->text) - size - 1;
    if (slot->size > most)
        slot->size = (uint32_t)most;
    if (slot->size && slot->text[slot->size - 1] != '\n')
        slot->text[slot->size++] = '\n';
    memcpy(slot->text + slot->size, lines, size);
    slot->size += (uint32_t)size;
}

/* Failed starts, and lives that die as soon as they serve, make the next start wait longer. */
static inline uint64_t start_delay_ns(uint64_t failed_starts, uint64_t quick_deaths)
{
    uint64_t quick = quick_deaths > QUICK_FREE ? quick_deaths - QUICK_FREE : 0;
    uint64_t doublings = failed_starts > quick ? failed_starts : quick;
    uint64_t delay_ns = DELAY_MIN_NS << (doublings < 10 ? doublings : 10);
    return !doublings ? 0 : delay_ns < DELAY_MAX_NS ? delay_ns : DELAY_MAX_NS;
}

#endif
