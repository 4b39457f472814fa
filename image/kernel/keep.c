/* SPDX-License-Identifier: Apache-2.0 */
/* The facts that outlive a restart. They lie in .keep, which nobody clears.
 *
 * Each change ends with keep_seal(). Dying in between, by a fault in the kernel itself, leaves a
 * checksum that is wrong: then nothing in this memory can be believed, and the machine ends. */

#include "kernel.h"

__attribute__((section(".keep"), aligned(8))) struct keep keep;

_Static_assert((sizeof(struct keep) - sizeof(uint64_t)) % 8 == 0, "whole words");

static uint64_t keep_sum(void)
{
    return checksum_words(0x6b656570, (const char *)&keep + sizeof(keep.checksum),
                          sizeof(keep) - sizeof(keep.checksum));
}

void keep_seal(void)
{
    keep.checksum = keep_sum();
}

void keep_check(void)
{
    if (keep.checksum != keep_sum())
        machine_off("the facts kept across restarts are damaged");
}
