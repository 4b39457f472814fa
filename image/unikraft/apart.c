/* SPDX-License-Identifier: Apache-2.0 */
/* What outlives a restart: a fixed range of memory that no snapshot holds and nothing clears.
 *
 * It is .bss: the domain's builder hands out pages of zeros, and Unikraft never clears them. In a
 * PV domain its address is also its place in the domain's pseudo-physical memory: that is how
 * tools/boot finds the region, which looks for place_note in the kernel's file. Each change of
 * `keep` ends with keep_seal(). */

#include "tardigrade.h"

__attribute__((aligned(__PAGE_SIZE))) struct apart apart;

const struct place_note place_note = {"TARDIGRADEREGION", REGION_SIZE, apart.region};

#define SEED 0x6b656570u

_Static_assert(sizeof(struct facts) <= sizeof(apart.pages), "the facts fit their pages");
_Static_assert(sizeof(struct apart) % __PAGE_SIZE == 0, "whole pages");
_Static_assert(offsetof(struct apart, region) % __PAGE_SIZE == 0, "a page begins");

static uint64_t keep_sum(void)
{
    const char *from = (const char *)&keep + sizeof(keep.checksum);
    return checksum_words(SEED, from, offsetof(struct facts, grants) - sizeof(keep.checksum));
}

void keep_seal(void)
{
    keep.checksum = keep_sum();
}

bool keep_is_whole(void)
{
    return keep.checksum == keep_sum();
}
