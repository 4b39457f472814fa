// SPDX-License-Identifier: Apache-2.0
/* A guest's devices: its disks, its network interface, and what is typed on its console. Their
 * drivers talk to xenstore through the kernel; here is looked at what comes of it.
 *
 * V1. Each round writes sectors that were never written so, and reads them back past all caches.
 * V2. A disk is open during a round only: a backend that wants to go finds it closed.
 * V3. Lines begin with GUEST, complaints have BAD in them, as those of guest.c.
 * Cannot show: requests of several processes at once. Change with: dom0/lib.sh. */
#define _GNU_SOURCE
#include "devices.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK 16384             /* bytes of a round; sectors have 512 */
#define PLACES 8                /* of a round, in turn */
#define REPORT_EVERY 16         /* rounds between two lines */
#define PAUSE_MS 150            /* between two looks at all devices */
#define INTERFACE "eth0"
#define ADDRESS "10.1.0.2"      /* dom0/vif.sh has the other */

struct disk {
    const char *path;
    unsigned long rounds;
    int is_there;
};

static void load_module(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0 || syscall(SYS_finit_module, file, "", 0))
        printf("GUEST BAD %s: %s\n", path, strerror(errno));
    close(file);
}

/* Write a chunk, read it back; whether the disk is there. */
static int use(struct disk *disk, int file)
{
    static uint64_t written[CHUNK / 8] __attribute__((aligned(4096)));
    static uint64_t got[CHUNK / 8] __attribute__((aligned(4096)));
    off_t place = disk->rounds % PLACES * CHUNK;

    for (unsigned int i = 0; i < CHUNK / 8; i++)
        written[i] = disk->rounds * CHUNK + i * 0x9E3779B97F4A7C15u;
    if (pwrite(file, written, CHUNK, place) != CHUNK || pread(file, got, CHUNK, place) != CHUNK)
        return 0;
    if (memcmp(written, got, CHUNK))
        printf("GUEST BAD %s: round %lu has read what it has not written\n", disk->path,
               disk->rounds);
    return 1;
}

static void look_at_disk(struct disk *disk)
{
    int file = open(disk->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    int was_there = disk->is_there;

    disk->is_there = file >= 0 && use(disk, file);
    if (disk->is_there && disk->rounds++ % REPORT_EVERY == 0)
        printf("GUEST DISK %s rounds=%lu\n", disk->path, disk->rounds);
    if (was_there && !disk->is_there) {
        printf("GUEST DISK %s is gone: %s\n", disk->path, strerror(errno));
        disk->rounds = 0;
    }
    if (file >= 0)
        close(file);
}

/* Give the interface its address, once it is there; whether it has it. The kernel answers pings. */
static int raise_interface(void)
{
    struct ifreq request = { .ifr_name = INTERFACE };
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
    int channel = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int is_up;

    address->sin_family = AF_INET;
    inet_pton(AF_INET, ADDRESS, &address->sin_addr);
    is_up = channel >= 0 && !ioctl(channel, SIOCSIFADDR, &request);
    if (is_up) {
        request.ifr_flags = IFF_UP | IFF_RUNNING;
        is_up = !ioctl(channel, SIOCSIFFLAGS, &request);
        printf("GUEST INTERFACE %s %s\n", INTERFACE, is_up ? "up" : "BAD");
    }
    close(channel);
    return is_up;
}

/* Wait a little for a line on the console, and say it. */
static void listen_to_console(void)
{
    static char line[256];
    struct pollfd one = { .fd = STDIN_FILENO, .events = POLLIN };
    ssize_t size;

    if (poll(&one, 1, PAUSE_MS) > 0 && (size = read(STDIN_FILENO, line, sizeof(line) - 1)) > 0) {
        line[size] = 0;
        line[strcspn(line, "\r\n")] = 0;
        printf("GUEST HEARD %s\n", line);
    }
}

void devices_run(void)
{
    static struct disk disks[] = { { .path = "/dev/xvda" }, { .path = "/dev/xvdb" } };
    int has_address = 0;

    if (fork())
        return;
    load_module("/xen-blkfront.ko");
    load_module("/xen-netfront.ko");
    for (;;) {
        for (unsigned int i = 0; i < sizeof(disks) / sizeof(disks[0]); i++)
            look_at_disk(&disks[i]);
        has_address = has_address || raise_interface();
        listen_to_console();
    }
}
