/* SPDX-License-Identifier: Apache-2.0 */
/* Who offers what to whom in this library, grouped by the file that has it.
 *
 *   U1. A life ends in one place, crash_end(), and the next one begins in one, snapshot_restore():
 *       the whole of Unikraft's writable memory is what it was when the snapshot was taken.
 *   U2. What outlives that lies in `apart`, and nothing else does.
 *   U3. What Xen holds for us and memory does not show (ports, mapped grants) is closed and
 *       unmapped in between, as Linux does when a process ends: machine_reset().
 *   U4. No change in Unikraft's sources; what is taken over is taken over by its events, its
 *       tables, and the linker (Makefile.uk).
 * Functions return 0 or -errno where they can fail. */

#ifndef TARDIGRADE_H
#define TARDIGRADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uk/arch/lcpu.h>
#include <uk/arch/limits.h>
#include <uk/config.h>

#define NORETURN __attribute__((noreturn))
#define PRINTF(place, first) __attribute__((format(printf, place, first)))

/* ---- apart.c */
#define REGION_SIZE ((size_t)CONFIG_LIBTARDIGRADE_REGION_MIB << 20)
#define CRASH_SLOT_OFFSET 0x3000 /* persist/layout.py */
#define CRASH_SLOT_SIZE 0x1000
#define STACK_PAGES 8
#ifdef CONFIG_PLAT_XEN
#define GRANT_SLOTS CONFIG_LIBTARDIGRADE_GRANTS
#else
#define GRANT_SLOTS 0
#endif

struct grant { uint32_t handle, check; }; /* both 0: not mapped */

struct facts {
    uint64_t checksum; /* of all that follows, but the grants, which have their own */
    uint64_t restarts; /* lives that have ended since power-on */
    uint64_t failed_starts;
    uint64_t quick_deaths;
    uint64_t snapshot; /* its first chunk; 0: there is none */
    uint64_t snapshot_checksum;
    uint64_t first_port; /* of those that are the program's; 0: not known yet */
    uint64_t is_ending;  /* crash_end() has begun, and the next life has not */
    uint64_t ended_ns;   /* when it did */
    struct grant grants[GRANT_SLOTS];
};
struct apart {
    union {
        struct facts keep;
        char pages[__PAGE_SIZE * 2];
    };
    char stack[STACK_PAGES * __PAGE_SIZE]; /* where no life's stack is */
    char window[GRANT_SLOTS][__PAGE_SIZE]; /* where pages of other domains are mapped */
    char region[REGION_SIZE];
};
extern struct apart apart;
#define keep apart.keep
struct place_note { char magic[16]; uint64_t size; const void *address; };
extern const struct place_note place_note; /* of the region: tools/boot/place.py */
void keep_seal(void);
bool keep_is_whole(void);

/* ---- ../kernel/checksum.c */
uint32_t checksum_crc32(uint32_t crc, const void *data, size_t size);
uint64_t checksum_words(uint64_t sum, const void *data, size_t size);

/* ---- region.c */
int region_write(uint64_t offset, const void *data, size_t size);
int region_read(uint64_t offset, void *to, size_t size);

/* ---- crash.c */
void crash_begin(void); /* a life begins: what the last one has said is read */
void crash_has_served(void); /* it waits for requests: no failed start */
size_t crash_read(void *to, size_t size, uint64_t offset);
int crash_write(const void *from, size_t size, uint64_t offset);
int crash_truncate(size_t size);
size_t crash_size(void);
NORETURN void crash_end(const struct __regs *regs, const char *text, ...) PRINTF(2, 3);
NORETURN void crash_end_cleanly(void);
void say(const char *text, ...) PRINTF(1, 2); /* a line on the console */
NORETURN void panic_at(const char *file, uint32_t line, const char *text, ...) PRINTF(3, 4);

/* ---- snapshot.c */
bool snapshot_exists(void);
const char *snapshot_take(void); /* "taken", in each later life "restored"; "off": no memory */
NORETURN void snapshot_restore(void);

/* ---- context.S */
struct context { uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip; };
int context_save(struct context *context); /* 0; then 1 whenever it is resumed */
NORETURN void context_resume(const struct context *context);
NORETURN void context_call_on(void *stack_top, void (*function)(void));

/* ---- xen.c and evtchn.c, or kvm.c: the machine */
void machine_init(void);
void machine_before_snapshot(void);
void machine_reset(void); /* U3, with interrupts off */
void machine_delay(uint64_t ns);
bool machine_wait(int64_t timeout_ns); /* negative: without end; whether there is a port */
void machine_watchdog(uint64_t ns); /* of running time, outside of waits; 0: none */

/* ---- evtchn.c: only on Xen */
#define PORTS_MAX 1024u /* NR_EVS of plat/xen/events.c */
int64_t port_bind_virq(uint32_t virq);
int64_t port_bind(uint32_t domid, uint32_t port);
int port_unbind(uint32_t port);
int port_notify(uint32_t port);
uint32_t port_pending(uint32_t *ports, uint32_t most);
void ports_init(void);
void ports_take_stock(void);
void ports_reset(void);

/* ---- grant.c: only on Xen */
void *grant_map(uint32_t domid, uint32_t ref, int *error);
int grant_unmap(void *page);
void grant_reset(void);

/* ---- privcmd.c: only on Xen */
int64_t xen_hypercall(unsigned long number, const unsigned long *arguments);

#endif
