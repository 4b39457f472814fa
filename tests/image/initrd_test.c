/* SPDX-License-Identifier: Apache-2.0 */
/* `initrd_test find NAME` prints offset and size of a file in the archive on standard input, or
 * "none"; `initrd_test SEED` damages that archive again and again, and looks for all names. */

#include "check.h"
#include <string.h>

#define ROUNDS 20000

static const char *const names[] = {"python", "a", "", "empty", "TRAILER!!!", "no such file"};

static void damage(char *archive, size_t size)
{
    for (uint64_t count = 1 + random_below(4); count > 0; count--) {
        char *at = archive + random_below(size);
        switch (random_below(4)) {
        case 0: *at = (char)random_next(); break;
        case 1: *at = "0123456789abcdefF"[random_below(17)]; break;
        case 2: *at ^= (char)(1 << random_below(8)); break;
        default: memset(at, "f0"[random_below(2)], random_below((size_t)(archive + size - at)) % 9);
        }
    }
}

static void fuzz(const char *archive, size_t size)
{
    for (int round = 0; round < ROUNDS; round++) {
        size_t kept = random_below(2) ? size : random_below(size + 1);
        char *copy = malloc(kept); /* ends where the archive ends */
        memcpy(copy, archive, kept);
        if (kept > 0)
            damage(copy, kept);
        for (size_t index = 0; index < COUNT(names); index++) {
            size_t found_size = SIZE_MAX;
            const char *found = initrd_find(copy, kept, names[index], &found_size);
            if (found == NULL)
                CHECK(found_size == SIZE_MAX);
            else
                CHECK(found >= copy && found <= copy + kept
                      && found_size <= (size_t)(copy + kept - found));
        }
        free(copy);
    }
}

int main(int argc, char **argv)
{
    size_t size, found_size;
    char *archive = read_input(&size);
    if (argc == 3) {
        const char *found = initrd_find(archive, size, argv[2], &found_size);
        if (found == NULL)
            printf("none\n");
        else
            printf("%zu %zu\n", (size_t)(found - archive), found_size);
    } else {
        CHECK(argc == 2);
        random_state = strtoull(argv[1], NULL, 0);
        fuzz(archive, size);
    }
    free(archive);
    return 0;
}
