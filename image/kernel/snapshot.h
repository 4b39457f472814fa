/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot in memory: a list of index pages, each with its entries. snapshot.c takes it and goes
 * on from it; carried.c finds one that came from another domain. Change with: tools/boot/
 * snapshot.py, tests/qemu/test_snapshot.py. */

#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "kernel.h"

#define SNAPSHOT_SEED 0x736e6170
#define INDEX_ENTRIES 254

struct entry {
    uint64_t va_flags; /* of a page: flags of paging_map() in the low bits */
    uint64_t pa;       /* the copy; 0: zeros; a MAP_SHARED page: the page itself */
};
struct index {
    uint64_t next_pa; /* 0: the last */
    uint64_t count;
    uint64_t reserved[2];
    struct entry entries[INDEX_ENTRIES];
};
_Static_assert(sizeof(struct index) == PAGE_SIZE, "an index is a page");

static inline bool is_copy(const struct entry *entry)
{
    return entry->pa && !(entry->va_flags & MAP_SHARED);
}

bool snapshot_sum(uint64_t *sum); /* of that in `keep`; false if it cannot even be read */

/* ---- carried.c */
void carried_adopt(void);         /* at power-on, when all other memory is reserved: into `keep` */
void carried_publish(void);       /* the snapshot in `keep` may be taken along from now on */
void carried_withdraw(void);      /* it is no longer there */

#endif
