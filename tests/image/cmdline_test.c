/* SPDX-License-Identifier: Apache-2.0 */
/* `cmdline_test` prints what cmdline.c makes of the line on standard input, as lines "name value";
 * `cmdline_test SEED` has it read lines of rubbish, and checks what holds of all (L6). */

#include "check.h"
#include <string.h>

#define ROUNDS 100000

static struct options *parsed; /* on the heap: its end is watched */

static void print(void)
{
    printf("region 0x%lx@0x%lx\n", parsed->region_size, parsed->region_pa);
    printf("watchdog %u\n", parsed->watchdog_s);
    printf("console %s\n", (const char *[]){"unsaid", "none", "com1", "e9"}[parsed->console]);
    printf("log %s\n", (const char *[]){"error", "info", "debug"}[parsed->log]);
    printf("snapshot %d\n", parsed->snapshot);
    printf("drill %d\n", parsed->drill);
    printf("xen-watchdog %u\n", parsed->xen_watchdog_s);
    printf("event %u\n", parsed->event_port);
    for (uint32_t index = 0; index < parsed->virtio_count; index++)
        printf("virtio 0x%x@0x%lx:%u\n", parsed->virtio[index].size, parsed->virtio[index].pa,
               parsed->virtio[index].irq);
    for (char **argument = parsed->arguments; *argument != NULL; argument++)
        printf("argument %s\n", *argument);
    printf("error %s\n", parsed->error);
}

static void check_result(void)
{
    uint64_t size = parsed->region_size, pa = parsed->region_pa;
    CHECK(size >= REGION_SIZE_MIN && size % PAGE_SIZE == 0 && pa % PAGE_SIZE == 0);
    CHECK(size <= PHYSICAL_MAX && pa <= PHYSICAL_MAX - size);
    CHECK(parsed->watchdog_s > 0);
    CHECK(parsed->console <= CONSOLE_E9 && parsed->log <= LOG_DEBUG);
    CHECK(parsed->virtio_count <= COUNT(parsed->virtio));
    CHECK(parsed->argument_count < COUNT(parsed->arguments));
    CHECK(parsed->arguments[parsed->argument_count] == NULL);
    for (uint32_t index = 0; index < parsed->argument_count; index++) {
        const char *argument = parsed->arguments[index];
        CHECK(argument >= parsed->text && argument < parsed->text + sizeof(parsed->text));
        CHECK(argument + strlen(argument) < parsed->text + sizeof(parsed->text));
        CHECK(!starts_with(argument, "virtio_mmio.device="));
    }
    CHECK(memchr(parsed->error, 0, sizeof(parsed->error)) != NULL);
}

static const char *const pieces[] = {
    "region=", "console=", "watchdog=", "snapshot=", "log=", "drill=", "virtio_mmio.device=", "--",
    "--event", "--event", " 7 ", "xen-watchdog=", "--x", "@", ":", "0x", "16M", "1G", "4G", "0x1000", "512@0xfeb00000:5", "com1", "e9",
    "none", "on", "off", "info", "30", "18446744073709551615", "\"", "\"\"", " ", " ", " ", " ",
    "\t", "=", "unknown", "K",
};

/* Pieces of good lines and random bytes, in a block that ends with the line. */
static char *random_line(void)
{
    static char line[3 * COMMAND_LINE_SIZE];
    size_t size = 0, limit = random_below(20) ? random_below(200) : random_below(4000);
    while (size < limit) {
        const char *piece = pieces[random_below(COUNT(pieces))];
        if (random_below(12) == 0)
            line[size++] = (char)(1 + random_below(255));
        else
            size += (size_t)snprintf(line + size, sizeof(line) - size, "%s", piece);
    }
    line[size] = 0;
    char *exact = malloc(size + 1);
    return memcpy(exact, line, size + 1);
}

static void fuzz(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        char *line = random_line();
        memset(parsed, 0xa5, sizeof(*parsed));
        cmdline_parse(parsed, line);
        check_result();
        free(line);
    }
}

int main(int argc, char **argv)
{
    parsed = malloc(sizeof(*parsed));
    if (argc == 2) {
        random_state = strtoull(argv[1], NULL, 0);
        fuzz();
    } else {
        size_t size;
        char *line = read_input(&size); /* with a NUL at its end */
        CHECK(size > 0 && line[size - 1] == 0);
        cmdline_parse(parsed, line);
        check_result();
        print();
        free(line);
    }
    free(parsed);
    return 0;
}
