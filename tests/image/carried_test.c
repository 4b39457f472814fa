/* SPDX-License-Identifier: Apache-2.0 */
/* carried.c, at both ends. `carried_test publish`: a made-up snapshot in a made-up domain, which is
 * published; all of its memory is printed. `carried_test adopt [WORD] < PAGES`: another domain, with
 * PAGES behind its region; prints where the snapshot is then, or 0, and each entry of it. `WORD`
 * changes what it rests on, or the machine. */

#include "machine.h"
#include "snapshot.h"

#define MEMORY_SIZE 0x800000
#define REGION_PA 0x400000
#define REGION_SIZE 0x100000
#define INITRD_PA 0x300000
#define FIRST_PA 0x640000 /* of the snapshot in the domain that has taken it */
#define ENTRIES 400       /* two indexes */

extern char kernel_start[];
struct options options;
static char argument[] = "--watchdog";
static uint32_t leaf = 1;
static uint64_t taken_pa; /* a page that is not free */

__asm__(".data\n.balign 8\n"
        ".globl kernel_start\nkernel_start:\n.fill 512, 8, 0x1234\n"
        ".globl constants_end\nconstants_end:\n");

uint32_t xen_leaf(void) { return leaf; }
void log_error(const char *text, ...) { (void)text; }

bool page_is_ram(uint64_t pa, uint64_t size)
{
    return pa < MEMORY_SIZE && size <= MEMORY_SIZE - pa;
}

bool page_is_free(uint64_t pa) { return pa != taken_pa; }

/* As the kernel's, but for what makes it careful. */
bool snapshot_sum(uint64_t *sum)
{
    *sum = SNAPSHOT_SEED;
    for (uint64_t pa = keep.snapshot_pa; pa; pa = ((struct index *)direct(pa))->next_pa) {
        const struct index *index = direct(pa);
        *sum = checksum_words(*sum, index, PAGE_SIZE);
        for (uint64_t at = 0; at < index->count; at++)
            if (is_copy(&index->entries[at]))
                *sum = checksum_words(*sum, direct(index->entries[at].pa), PAGE_SIZE);
    }
    return true;
}

/* Every third page is zeros, every tenth shared. The copies lie in no order. */
static void make_snapshot(void)
{
    struct index *index = NULL;
    uint64_t next = FIRST_PA;
    for (uint64_t number = 0; number < ENTRIES; number++) {
        if (number % INDEX_ENTRIES == 0) {
            if (index)
                index->next_pa = next;
            index = direct(next);
            next += PAGE_SIZE;
        }
        struct entry *entry = &index->entries[index->count++];
        entry->va_flags = PROGRAM_BASE + number * PAGE_SIZE;
        if (number % 10 == 0) {
            *entry = (struct entry){entry->va_flags | MAP_SHARED, INITRD_PA};
        } else if (number % 3) {
            entry->pa = next ^ (uint64_t)PAGE_SIZE << 8;
            memset(direct(entry->pa), (int)(number % 255), PAGE_SIZE);
            next += PAGE_SIZE;
        }
    }
    keep.snapshot_pa = FIRST_PA;
    snapshot_sum(&keep.snapshot_checksum);
}

static void publish(void)
{
    make_snapshot();
    carried_publish();
    fwrite(direct(0), 1, MEMORY_SIZE, stdout);
    carried_withdraw();
    CHECK(*(uint64_t *)direct(NOTE_PA) == 0);
}

static void change(const char *word)
{
    if (strcmp(word, "arguments") == 0)
        argument[2] = 'W';
    else if (strcmp(word, "initrd") == 0)
        ((char *)direct(INITRD_PA))[keep.initrd.size - 1] ^= 1;
    else if (strcmp(word, "place") == 0)
        memcpy(direct(keep.initrd.pa += PAGE_SIZE), direct(INITRD_PA), keep.initrd.size);
    else if (strcmp(word, "kernel") == 0)
        kernel_start[77] ^= 1;
    else if (strcmp(word, "restart") == 0)
        keep.restarts = 1;
    else if (strcmp(word, "off") == 0)
        options.snapshot = false;
    else if (strcmp(word, "no-xen") == 0)
        leaf = 0;
    else if (strcmp(word, "taken") == 0)
        taken_pa = REGION_PA + REGION_SIZE + 5 * PAGE_SIZE;
    else
        CHECK(strcmp(word, "none") == 0, "%s", word);
}

static void adopt(const char *word)
{
    size_t size;
    const char *given = read_input(&size);
    memcpy(direct(REGION_PA + REGION_SIZE), given, size);
    change(word);
    carried_adopt();
    printf("%lu\n", keep.snapshot_pa);
    if (keep.snapshot_pa) { /* a restart finds it, and the next domain may have it */
        const uint64_t *note = direct(NOTE_PA);
        keep_check();
        CHECK(memcmp(note, "TARDSNAP", 8) == 0 && note[1] == keep.snapshot_pa &&
              note[2] * PAGE_SIZE == size - PAGE_SIZE && note[3] == keep.snapshot_checksum);
    }
    uint64_t sum;
    CHECK(!keep.snapshot_pa || (snapshot_sum(&sum) && sum == keep.snapshot_checksum));
    for (uint64_t pa = keep.snapshot_pa; pa; pa = ((struct index *)direct(pa))->next_pa) {
        const struct index *index = direct(pa);
        for (uint64_t at = 0; at < index->count; at++) {
            const struct entry *entry = &index->entries[at];
            CHECK(!is_copy(entry) || (entry->pa > REGION_PA + REGION_SIZE &&
                                      entry->pa < REGION_PA + REGION_SIZE + size));
            printf("%lx %d\n", entry->va_flags, entry->pa ? *(uint8_t *)direct(entry->pa) : -1);
        }
    }
}

int main(int count, char **words)
{
    CHECK(count >= 2 && machine_map(DIRECT_BASE, PHYSICAL_MAX));
    options = (struct options){.region_pa = REGION_PA, .region_size = REGION_SIZE,
                               .snapshot = true, .arguments = {argument}, .argument_count = 1};
    keep.initrd = (struct range){INITRD_PA, 4096};
    memset(direct(INITRD_PA), 'i', keep.initrd.size);
    if (strcmp(words[1], "publish") == 0)
        publish();
    else
        adopt(count > 2 ? words[2] : "none");
    return 0;
}
