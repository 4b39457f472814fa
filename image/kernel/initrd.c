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

/* A number at `digits`; UINT64_MAX, which no bound lets through: it is none. */
static uint64_t number(const char *digits)
{
    uint64_t value = 0;
    for (int index = 0; index < DIGITS; index++) {
        char digit = digits[index], letter = (char)(digit | 0x20);
        bool is_letter = letter >= 'a' && letter <= 'f';
        if (!is_letter && (digit < '0' || digit > '9'))
            return UINT64_MAX;
        value = value << 4 | (uint64_t)(is_letter ? letter - 'a' + 10 : digit - '0');
    }
    return value;
}

static uint64_t align(uint64_t offset) { return (offset + ALIGNMENT - 1) & -(uint64_t)ALIGNMENT; }

const void *initrd_find(const void *archive, size_t archive_size, const char *name, size_t *size)
{
    const char *header = archive;
    for (uint64_t left = archive_size; left >= HEADER_SIZE && !memcmp(header, MAGIC, MAGIC_SIZE);) {
        uint64_t data_size = number(header + MAGIC_SIZE + FILE_SIZE * DIGITS);
        uint64_t name_size = number(header + MAGIC_SIZE + NAME_SIZE * DIGITS);
        const char *this_name = header + HEADER_SIZE;
        if (name_size > left - HEADER_SIZE || strnlen(this_name, name_size) == name_size)
            return NULL;
        uint64_t data = align(HEADER_SIZE + name_size);
        if (data > left || data_size > left - data || strcmp(this_name, END_NAME) == 0)
            return NULL;
        if (strcmp(this_name, name) == 0) {
            *size = data_size;
            return header + data;
        }
        uint64_t next = align(data + data_size) < left ? align(data + data_size) : left;
        header += next;
        left -= next;
    }
    return NULL;
}
