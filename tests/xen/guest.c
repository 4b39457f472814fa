// SPDX-License-Identifier: Apache-2.0
/* The only program of a test guest: its init. It talks to xenstore through the kernel's own ring
 * (/dev/xen/xenbus), checks every answer and every watch event, and says so on the console. As
 * `traffic in-dom0` it is no init, but a program of dom0. With `power-off` on the kernel's command
 * line it ends the guest after some rounds; with `slow` it rests between them; with `devices` it
 * uses those that it has, too (devices.c), and leaves the processor to those that negotiate them
 * between two rounds.
 *
 * T1. One request at a time; what it writes is never written before, so an old value shows.
 * T2. The next event must be for the next change that it has made, in order, and there is one for
 *     each: one too many is DUPLICATE, one too few is LOST.
 * T3. Every line it prints begins with GUEST; a complaint has BAD in it.
 * Cannot show: what happens to requests that overlap. Change with: dom0/lib.sh. */
#include "devices.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { XS_DIRECTORY = 1, XS_READ = 2, XS_WATCH = 4, XS_TRANSACTION_START = 6,
       XS_TRANSACTION_END = 7, XS_WRITE = 11, XS_MKDIR = 12, XS_RM = 13, XS_WATCH_EVENT = 15,
       XS_ERROR = 16 };

#define BASE "data/t"           /* relative: in the guest's home, where it may write */
#define SLOTS 8                 /* values written in turn */
#define LARGE 1800              /* a value larger than the ring */
#define PAYLOAD_MAX 4096
#define EXPECTED_MAX 16         /* changes whose events are outstanding */
#define REPORT_EVERY 100        /* requests between two lines */
#define ANSWER_S 120            /* a server that is silent for so long has lost the request */
#define EVENT_S 30
#define REST_S 2
#define REST_US 50000           /* with devices */

struct header { uint32_t type, req_id, tx_id, len; };

static int device;
static unsigned long requests, events, conflicts, complaints;
static long worst_us;
static char expected[EXPECTED_MAX][32];
static unsigned int expected_first, expected_end;

static void complain(const char *format, ...)
{
    va_list arguments;

    complaints++;
    printf("GUEST BAD ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" (request %lu)\n", requests);
}

static long now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Whether something can be read within so many seconds. */
static int wait_readable(int seconds)
{
    struct pollfd one = { .fd = device, .events = POLLIN };

    return poll(&one, 1, seconds * 1000) > 0;
}

static void read_all(void *to, size_t size)
{
    for (size_t done = 0; done < size; ) {
        ssize_t got = read(device, (char *)to + done, size - done);

        if (got > 0)
            done += got;
        else if (got < 0 && errno != EINTR && errno != EAGAIN) {
            complain("reading xenbus: %s", strerror(errno));
            sleep(1);
        }
    }
}

static void write_all(const void *from, size_t size)
{
    for (size_t done = 0; done < size; ) {
        ssize_t put = write(device, (const char *)from + done, size - done);

        if (put > 0)
            done += put;
        else if (put < 0 && errno != EINTR && errno != EAGAIN) {
            complain("writing xenbus: %s", strerror(errno));
            sleep(1);
        }
    }
}

/* A change of `path` was made: its event is to come. */
static void expect(const char *path)
{
    if (expected_end - expected_first >= EXPECTED_MAX) {
        complain("no events any more");
        expected_first = expected_end;
    }
    snprintf(expected[expected_end++ % EXPECTED_MAX], sizeof(expected[0]), "%s", path);
}

/* An event has come: it must be that of the oldest change whose event is outstanding. */
static void take_event(const char *path)
{
    events++;
    if (expected_first == expected_end) {
        complain("DUPLICATE event %s", path);
        return;
    }
    if (strcmp(path, expected[expected_first % EXPECTED_MAX])) {
        complain("LOST or DUPLICATE event: %s has come, %s was next", path,
                 expected[expected_first % EXPECTED_MAX]);
        for (unsigned int i = expected_first; i != expected_end; i++)
            if (!strcmp(path, expected[i % EXPECTED_MAX])) {
                expected_first = i + 1;
                return;
            }
        return;
    }
    expected_first++;
}

/* Read one packet; its type. An event is taken note of. */
static uint32_t read_packet(char *payload, size_t *size)
{
    struct header header;

    read_all(&header, sizeof(header));
    if (header.len > PAYLOAD_MAX) {
        complain("a packet of %u bytes", header.len);
        exit(1);
    }
    read_all(payload, header.len);
    payload[header.len] = 0;
    *size = header.len;
    if (header.type == XS_WATCH_EVENT)
        take_event(payload);
    return header.type;
}

/* One request; the answer's payload and size, or -1 with the error's name in `answer`. */
static int ask(uint32_t type, uint32_t tx_id, const char *payload, size_t size, char *answer)
{
    struct header header = { type, 0, tx_id, size };
    static char message[sizeof(header) + PAYLOAD_MAX];
    long began_us = now_us();
    size_t got;
    uint32_t kind;

    requests++;
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), payload, size);
    write_all(message, sizeof(header) + size);
    do {
        if (!wait_readable(ANSWER_S))
            complain("LOST answer to type %u", type);
        kind = read_packet(answer, &got);
    } while (kind == XS_WATCH_EVENT);
    if (now_us() - began_us > worst_us)
        worst_us = now_us() - began_us;
    if (kind != type && kind != XS_ERROR)
        complain("an answer of type %u to one of type %u", kind, type);
    return kind == XS_ERROR ? -1 : (int)got;
}

/* As ask(), but an error is a complaint. */
static int must(uint32_t type, uint32_t tx_id, const char *payload, size_t size, char *answer)
{
    int got = ask(type, tx_id, payload, size, answer);

    if (got < 0)
        complain("type %u of %s: %s", type, payload, answer);
    return got;
}

/* All events that are outstanding must come. */
static void await_events(void)
{
    static char payload[PAYLOAD_MAX + 1];
    size_t size;

    while (expected_first != expected_end) {
        if (!wait_readable(EVENT_S)) {
            complain("LOST event %s", expected[expected_first % EXPECTED_MAX]);
            expected_first = expected_end;
            return;
        }
        if (read_packet(payload, &size) != XS_WATCH_EVENT)
            complain("DUPLICATE answer");
    }
}

static void write_value(uint32_t tx_id, const char *path, const char *value, size_t size)
{
    static char payload[PAYLOAD_MAX], answer[PAYLOAD_MAX + 1];
    size_t length = strlen(path) + 1;

    memcpy(payload, path, length);
    memcpy(payload + length, value, size);
    must(XS_WRITE, tx_id, payload, length + size, answer);
}

/* Write a value that was never there, see its event, read it back. */
static void round_of(unsigned long number)
{
    static char value[PAYLOAD_MAX], answer[PAYLOAD_MAX + 1];
    size_t size = number % 16 == 0 ? LARGE : 24;
    char path[32];
    int got;

    snprintf(path, sizeof(path), BASE "/k%lu", number % SLOTS);
    for (size_t i = 0; i < size; i++)
        value[i] = 'a' + (number + i) % 26;
    value[snprintf(value, 20, "%lu", number)] = '.';
    expect(path);
    write_value(0, path, value, size);
    got = must(XS_READ, 0, path, strlen(path) + 1, answer);
    if (got != (int)size || memcmp(answer, value, size))
        complain("MISMATCH of %s: %d bytes, %.20s", path, got, answer);
    await_events();
}

/* Count one up in a transaction, again and again until nobody is in the way. */
static void count_up(unsigned long number)
{
    static char answer[PAYLOAD_MAX + 1];
    char value[24];

    for (;;) {
        uint32_t tx_id;

        if (must(XS_TRANSACTION_START, 0, "", 1, answer) < 0)
            return;
        tx_id = strtoul(answer, NULL, 10);
        must(XS_READ, tx_id, BASE "/total", sizeof(BASE "/total"), answer);
        if (strtoul(answer, NULL, 10) != number - 1)
            complain("MISMATCH of the total: %s where %lu belongs", answer, number - 1);
        snprintf(value, sizeof(value), "%lu", number);
        write_value(tx_id, BASE "/total", value, strlen(value));
        expect(BASE "/total");  /* before the END: its event may come in front of the answer */
        if (ask(XS_TRANSACTION_END, tx_id, "T", 2, answer) >= 0)
            break;
        expected_end--;
        if (strcmp(answer, "EAGAIN"))
            complain("the end of a transaction: %s", answer);
        conflicts++;
    }
    await_events();
}

/* Make and remove a node; the directory must list what is there. */
static void come_and_go(void)
{
    static char answer[PAYLOAD_MAX + 1];
    int got, names = 0;

    expect(BASE "/tmp");
    must(XS_MKDIR, 0, BASE "/tmp", sizeof(BASE "/tmp"), answer);
    got = must(XS_DIRECTORY, 0, BASE, sizeof(BASE), answer);
    for (int i = 0; i < got; i++)
        names += !answer[i];
    if (names != SLOTS + 2)
        complain("MISMATCH: %d names in the directory", names);
    expect(BASE "/tmp");
    must(XS_RM, 0, BASE "/tmp", sizeof(BASE "/tmp"), answer);
    await_events();
}

static void open_device(int is_init)
{
    if (is_init) {
        mkdir("/dev", 0755);
        mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    }
    for (int trial = 0; (device = open("/dev/xen/xenbus", O_RDWR)) < 0; trial++) {
        if (trial == 600)
            complain("/dev/xen/xenbus: %s", strerror(errno));
        usleep(100000);
    }
}

int main(int argc, char **argv)
{
    static char answer[PAYLOAD_MAX + 1];
    const char *argument = argc > 1 ? argv[1] : "";
    int has_devices = !strcmp(argument, "devices");
    unsigned long reported = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    open_device(strcmp(argument, "in-dom0"));
    if (has_devices)
        devices_run();
    must(XS_READ, 0, "domid", 6, answer);
    printf("GUEST UP domid=%s\n", answer);
    ask(XS_RM, 0, BASE, sizeof(BASE), answer);
    write_value(0, BASE "/total", "0", 1);
    expect(BASE);  /* a watch fires once at the beginning */
    must(XS_WATCH, 0, BASE "\0token", sizeof(BASE "\0token"), answer);
    await_events();
    for (unsigned long number = 0; number < SLOTS; number++)
        round_of(number);
    if (!strcmp(argument, "power-off"))
        reboot(RB_POWER_OFF);
    for (unsigned long number = 1; ; number++) {
        round_of(number + SLOTS);
        count_up(number);
        if (!strcmp(argument, "slow"))
            sleep(REST_S);
        if (number % 8 == 0)
            come_and_go();
        if (has_devices)
            usleep(REST_US);
        if (requests >= reported + REPORT_EVERY) {
            reported = requests;
            printf("GUEST TRAFFIC requests=%lu rounds=%lu events=%lu conflicts=%lu bad=%lu "
                   "worst_ms=%ld\n", requests, number, events, conflicts, complaints,
                   worst_us / 1000);
            worst_us = 0;
        }
    }
}
