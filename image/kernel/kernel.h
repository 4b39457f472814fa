/* SPDX-License-Identifier: Apache-2.0 */
/* The table of contents: every function that one file offers to the others, grouped by file in the
 * order of the boot story (main.c).
 *
 * The rules of the whole kernel:
 *   K1. One processor, one program, no threads. The kernel runs with interrupts off; they come
 *       while the program runs in ring 3, and in clock_wait().
 *   K2. No initialised writable data (kernel.lds refuses it). Clearing .bss is a complete reset, so
 *       a restart takes the same way as power-on. What must outlive it is in keep.c, checked.
 *   K3. Nothing is both writable and executable. The kernel's code, the initrd and the snapshot are
 *       mapped read-only; the region can be written by region.c alone.
 *   K4. Everything that can go wrong ends in crash.c, which says why, and starts again.
 * Functions return 0 or -errno where they can fail for the program's sake; panic() is for our own
 * mistakes. An address is physical (pa), the kernel's pointer, or the program's (va). */

#ifndef KERNEL_H
#define KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define NORETURN __attribute__((noreturn))
#define PRINTF(text, first) __attribute__((format(printf, text, first)))
/* What the kernel knows of the program, and a snapshot must hold beside the program's own pages. */
#define PROGRAM_STATE __attribute__((section(".bss.program")))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct frame;   /* trap.h: the program's registers, as traps and system calls save them */
struct device;  /* device.h */
struct file;    /* device.h */

/* ---- string.c */
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);
size_t strnlen(const char *text, size_t most);
int strcmp(const char *left, const char *right);
bool starts_with(const char *text, const char *prefix);

/* ---- checksum.c */
uint32_t checksum_crc32(uint32_t crc, const void *data, size_t size); /* as zlib's crc32() */
uint64_t checksum_words(uint64_t sum, const void *data, size_t size); /* fast; size % 8 == 0 */

/* ---- printf.c: %s %u %x with width, 0, l, z. Always terminates; returns the length
 * that the whole text would have. */
int format(char *to, size_t size, const char *text, ...) PRINTF(3, 4);
int vformat(char *to, size_t size, const char *text, __builtin_va_list list);

/* ---- cmdline.c: the words in front of "--"; README.md lists them */
#define EVENT_FIND UINT32_MAX /* it has to be found by trying */
struct options {
    uint64_t region_pa, region_size; /* bytes */
    uint32_t watchdog_s;
    enum { CONSOLE_UNSAID, CONSOLE_NONE, CONSOLE_COM1, CONSOLE_E9, CONSOLE_PV } console;
    enum { LOG_ERROR, LOG_INFO, LOG_DEBUG } log;
    bool snapshot, drill;
    struct { uint64_t pa; uint32_t size, irq; } virtio[8];
    uint32_t virtio_count;
    uint32_t xen_watchdog_s; /* 0: no */
    uint32_t event_port;     /* of dom0's own ring; 0: unknown; or EVENT_FIND */
    char *arguments[64]; /* of the server, in `text`; ends with NULL */
    uint32_t argument_count;
    char text[COMMAND_LINE_SIZE];
    char error[128]; /* what was wrong with the line; empty: nothing */
};
void cmdline_parse(struct options *options, const char *line);
extern struct options options;

/* ---- console.c */
void console_init(void);
void console_write(const char *text, size_t size);
void log_error(const char *text, ...) PRINTF(1, 2);
void log_info(const char *text, ...) PRINTF(1, 2);
void log_debug(const char *text, ...) PRINTF(1, 2);

/* ---- keep.c: the few facts that outlive a restart, under a checksum */
#define RAM_RANGES_MAX 32
struct range { uint64_t pa, size; };
struct keep {
    uint64_t checksum; /* over all that follows */
    uint64_t restarts; /* since power-on */
    uint64_t snapshot_pa; /* its first index page; 0: none */
    uint64_t snapshot_checksum;
    uint64_t tsc_hz, tsc_base, wall_base_ns, apic_hz;
    uint32_t failed_starts, quick_deaths; /* in a row: crash.c */
    uint32_t port_first; /* event channels below it are not ours: evtchn.c */
    uint32_t ram_count;
    struct range ram[RAM_RANGES_MAX];
    struct range initrd;
    struct keep_pv {
        uint64_t pool_pa;    /* of page tables */
        uint32_t pool_count, pool_kernel; /* tables; of them the kernel's half. 0: not built yet */
        uint64_t top_pa, program_top_pa;
        uint64_t tables_pa, tables_size;  /* the builder's own */
        uint64_t boot_pa, boot_size; /* kernel, initrd, all that the builder has added, the tree */
        uint64_t tree_pa;    /* pvdump.c */
        uint64_t p2m_va;     /* machine frames, in the order of pseudo-physical ones */
        uint64_t shared_info_machine, console_pa;
        uint32_t console_port, tick_port;
    } pv;
    char command_line[COMMAND_LINE_SIZE];
};
extern struct keep keep;
void keep_seal(void);        /* after every change */
void keep_check(void);       /* ends loudly if it is damaged */

/* ---- startinfo.c: what a PVH loader says: once, at power-on, into keep */
void startinfo_read(uint64_t start_info_pa);
void startinfo_add_ram(uint64_t pa, uint64_t size);

/* ---- xen.c: the domain that we are. Without Xen nothing of it does anything */
void xen_find(void);         /* first of all: hypercalls work from here on */
uint32_t xen_leaf(void);     /* of CPUID, Xen's first; 0: no Xen */
void xen_read_memory(void);  /* into keep, if the loader has not said it */
void xen_init(void);         /* shared_info */
uint64_t xen_wall_clock(void); /* ns since 1970 */
uint64_t xen_time(void);     /* ns since Xen started */
uint64_t xen_tsc_hz(void);   /* as Xen reckons */
void xen_tick(void);         /* for the hypervisor's watchdog */
void xen_shutdown(bool is_failure); /* comes back without Xen only */

/* ---- page.c: physical memory, one page at a time */
void page_init(void);
void page_reserve(uint64_t pa, uint64_t size);
bool page_is_ram(uint64_t pa, uint64_t size);
uint64_t page_alloc(void);   /* zeroed; 0 if there is none */
void page_free(uint64_t pa);
bool page_is_free(uint64_t pa);
uint64_t page_free_count(void);
uint64_t page_total_count(void);

/* ---- paging.c: the page tables */
#define MAP_WRITE 1u
#define MAP_EXECUTE 2u
#define MAP_USER 4u
#define MAP_UNCACHED 8u
#define MAP_SHARED 16u       /* not the program's own page: neither freed nor in a snapshot */
void paging_init(void);
int paging_map(uint64_t va, uint64_t pa, uint32_t flags);
uint64_t paging_unmap(uint64_t va, bool *is_shared);          /* the pa that was there, or 0 */
bool paging_protect(uint64_t va, uint32_t flags);             /* false: nothing is mapped there */
bool paging_find(uint64_t va, uint64_t *pa, uint32_t *flags); /* false: nothing is mapped there */
bool paging_next_user(uint64_t *va);  /* the first mapped page of the program at or after *va */
void paging_batch(bool is_on); /* between the two, what is mapped may not be there yet */
void paging_seal(uint64_t pa);        /* make a page read-only in the kernel's own view */
void *device_map(uint64_t pa, uint64_t size);
static inline void *direct(uint64_t pa) { return (void *)(DIRECT_BASE + pa); }

/* ---- trap.c */
void trap_init(void);
void trap_claim(uint32_t vector, void (*handler)(void)); /* of an interrupt; it need not EOI */
NORETURN void trap_return(struct frame *frame);          /* trapentry.S */

/* ---- apic.c: the local APIC's tick, and the I/O APIC */
void apic_init(void);
void apic_route(uint32_t irq, uint32_t vector);
void apic_end_of_interrupt(void);
void apic_tick_once(uint64_t ns); /* the next one then, and no other */
void apic_tick_always(void);

/* ---- clock.c: all times in ns */
void clock_init(void);
uint64_t clock_now(void);    /* since power-on; never goes back */
uint64_t clock_wall(void);   /* since 1970 */
/* Until an interrupt came, the only place where time may pass. The caller has nothing to do before
 * `until` but what an interrupt tells of. */
void clock_wait(uint64_t until);
void clock_tick(void);       /* of trap.c: a tick has come */
void clock_stir(void);       /* of trap.c: something else has */
void clock_delay(uint64_t ns);

/* ---- watchdog.c: the program's own running time since the last sign of progress */
void watchdog_start(void);
void watchdog_set(uint64_t ns); /* setitimer(ITIMER_PROF); 0: as at the start */
void watchdog_tick(struct frame *frame);

/* ---- evtchn.c, grant.c, xenbus.c, privcmd.c: /dev/xen */
void evtchn_init(void);      /* closes the last life's ports */
void evtchn_upcall(void);    /* VECTOR_XEN */
void grant_init(void);       /* unmaps the last life's grants */
extern const struct device evtchn_device, gntdev_device, xenbus_device, privcmd_device;

/* ---- random.c */
void random_init(void);      /* refuses loudly to go on without RDRAND */
void random_fill(void *to, size_t size);

/* ---- region.c */
void region_init(void);
extern const struct device region_device, crash_device;
void region_write(uint64_t offset, const void *data, size_t size);
const void *region_at(uint64_t offset);

/* ---- initrd.c: cpio, newc */
const void *initrd_find(const void *archive, size_t archive_size, const char *name, size_t *size);

/* ---- virtio.c: a console on virtio-mmio: /dev/channel */
void virtio_init(void);
extern const struct device channel_device;

/* ---- file.c: open files (device.h); drill.c: crashes on demand */
void file_init(void);
extern const struct device drill_device;

/* ---- memory.c: the program's memory: brk, mmap, stack */
struct area { uint64_t va, end; uint32_t flags; };
struct memory { uint64_t brk_base, brk; uint32_t area_count; struct area areas[AREAS_MAX]; };
extern struct memory memory;
int memory_add(uint64_t va, uint64_t end, uint32_t flags);   /* fresh pages */
int64_t memory_brk(uint64_t wanted);
int64_t memory_mmap(uint64_t size, uint64_t prot, uint64_t flags);
int64_t memory_share(uint64_t pa, uint64_t size, uint64_t prot); /* a device's pages */
bool memory_shares(uint64_t pa);                             /* one of them */
int64_t memory_munmap(uint64_t va, uint64_t size);
int64_t memory_mprotect(uint64_t va, uint64_t size, uint64_t prot);
bool user_can_read(uint64_t va, uint64_t size);
bool user_can_write(uint64_t va, uint64_t size);
bool user_string(uint64_t va, char *to, size_t size);        /* false: no string that fits */

/* ---- program.c: the ELF file, its first stack */
NORETURN void program_start(void);

/* ---- snapshot.c */
extern const struct device snapshot_device;
void snapshot_reserve(void);         /* at a restart: its pages are not free; drops a damaged one */
void snapshot_restore(void);         /* goes on from the snapshot; returns if there is none */

/* ---- signal.c */
struct action { uint64_t handler, flags, restorer, mask; };
struct signals { struct action actions[SIGNALS]; uint64_t stack_va, stack_size; };
extern struct signals signals;
void signal_fault(struct frame *frame, uint32_t signal);     /* to its handler, else the end */
int64_t signal_raise(struct frame *frame, uint32_t signal);

/* ---- syscall.c */
void syscall_init(void);
extern struct frame *syscall_frame;                          /* of the call under way */
extern uint64_t program_fs_base;
void program_set_fs_base(uint64_t va);
void syscall_dispatch(struct frame *frame);                  /* called by trapentry.S */

/* ---- crash.c: K4. Every reason a life can have to end */
void crash_init(void);
void crash_note(const struct frame *frame, const char *text, ...) PRINTF(2, 3); /* first wins */
NORETURN void crash_end(const struct frame *frame, const char *text, ...) PRINTF(2, 3);
NORETURN void crash_restart(void);   /* bootentry.S: the same way as power-on */
NORETURN void machine_off(const char *why); /* loudly, for good: it cannot go on */
NORETURN void machine_done(const char *why); /* for good, as it was meant */
void crash_has_served(void);         /* this life has begun to serve */
bool crash_is_serving(void);
bool crash_wants_cold_start(void);
NORETURN void panic_at(const char *file, uint32_t line, const char *text, ...) PRINTF(3, 4);
#define panic(...) panic_at(__FILE__, __LINE__, __VA_ARGS__)
#define assert(condition) ((condition) ? (void)0 : panic("assertion: %s", #condition))

#endif
