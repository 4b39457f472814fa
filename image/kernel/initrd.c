/* SPDX-License-Identifier: Apache-2.0 */
/* One file out of a cpio archive ("newc"), by its name, in place.
 *
 *   I1. Every number of the archive is outside bytes: a header is believed once it lies within the
 *       archive, has the magic and nothing but hexadecimal digits; a name, or data, once they do.
 *   I2. What is found does not depend on anything behind it: a damaged rest is the packer's shame.
 *   I3. A name is compared up to its first NUL. Our packer makes names longer with NULs, so that
 *       the data behind them begin on a page.
 *
 * Knows nothing of directories, links and modes, nor what the file is for (program.c). */

#include "kernel.h"

/* "070701", then 13 numbers of 8 hexadecimal digits, then the name and the data, both padded so
 * that what follows begins on a multiple of 4. */
#define MAGIC "070701"
#define MAGIC_SIZE 6
#define DIGITS 8
#define NUMBERS 13
#define FILE_SIZE 6 /* index of the number */
#define NAME_SIZE 11
#define HEADER_SIZE 110
#define ALIGNMENT 4
#define END_NAME "TRAILER!!!"
_Static_assert(HEADER_SIZE == MAGIC_SIZE + NUMBERS * DIGITS, "newc");

struct entry {
    const char *name;
    const void *data;
    size_t data_size;
    size_t next; /* offset of the next header */
};

static bool parse_number(const char *digits, size_t *value)
{
    *value = 0;
    for (int index = 0; index < DIGITS; index++) {
        char digit = digits[index];
        char letter = (char)(digit | 0x20);
        if (digit >= '0' && digit <= '9') {
            *value = *value << 4 | (size_t)(digit - '0');
        } else if (letter >= 'a' && letter <= 'f') {
            *value = *value << 4 | (size_t)(letter - 'a' + 10);
        } else {
            return false;
        }
    }
    return true;
}

static size_t align(size_t offset)
{
    return (offset + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

/* A part of the archive at *offset, which goes behind it; NULL: it is not all there. No sum can
 * overflow: an offset is at most the archive's size and the padding, a number has 32 bits. */
static const char *take(const char *archive, size_t archive_size, size_t *offset, size_t size)
{
    if (*offset > archive_size || archive_size - *offset < size)
        return NULL;
    const char *part = archive + *offset;
    *offset = align(*offset + size);
    return part;
}

/* The entry whose header is at `offset`. false: there is none, or not a whole one. */
static bool parse_entry(const char *archive, size_t archive_size, size_t offset,
                        struct entry *entry)
{
    if (offset > archive_size || archive_size - offset < HEADER_SIZE)
        return false;
    const char *header = archive + offset;
    size_t numbers[NUMBERS];
    if (memcmp(header, MAGIC, MAGIC_SIZE) != 0)
        return false;
    for (size_t index = 0; index < NUMBERS; index++) {
        if (!parse_number(header + MAGIC_SIZE + index * DIGITS, &numbers[index]))
            return false;
    }
    offset += HEADER_SIZE; /* the padding comes behind the name */
    size_t name_size = numbers[NAME_SIZE];
    entry->name = take(archive, archive_size, &offset, name_size);
    if (entry->name == NULL || strnlen(entry->name, name_size) == name_size)
        return false;
    entry->data_size = numbers[FILE_SIZE];
    entry->data = take(archive, archive_size, &offset, entry->data_size);
    entry->next = offset;
    return entry->data != NULL;
}

const void *initrd_find(const void *archive, size_t archive_size, const char *name, size_t *size)
{
    struct entry entry = {.next = 0};
    while (parse_entry(archive, archive_size, entry.next, &entry)) {
        if (strcmp(entry.name, END_NAME) == 0)
            return NULL;
        if (strcmp(entry.name, name) == 0) {
            *size = entry.data_size;
            return entry.data;
        }
    }
    return NULL;
}
