/* SPDX-License-Identifier: Apache-2.0 */
/* What of Linux's x86-64 binary interface the program may use: numbers and structures, from the
 * System V ABI and the manual pages, sections 2. */

#ifndef LINUX_H
#define LINUX_H

#include <stdint.h>

enum {
    EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EACCES = 13,
    EFAULT = 14, EBUSY = 16, EEXIST = 17, ENODEV = 19, ENOTDIR = 20, EINVAL = 22, EMFILE = 24,
    ENOTTY = 25, ENOSPC = 28, ESPIPE = 29, EROFS = 30, EPIPE = 32, ERANGE = 34, ENOSYS = 38,
    ETIMEDOUT = 110,
};

enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_stat = 4, SYS_fstat = 5, SYS_lstat = 6,
    SYS_poll = 7, SYS_lseek = 8, SYS_mmap = 9, SYS_mprotect = 10, SYS_munmap = 11, SYS_brk = 12,
    SYS_rt_sigaction = 13, SYS_rt_sigprocmask = 14, SYS_ioctl = 16, SYS_pread64 = 17,
    SYS_pwrite64 = 18, SYS_writev = 20, SYS_access = 21, SYS_sched_yield = 24, SYS_mremap = 25,
    SYS_madvise = 28, SYS_nanosleep = 35, SYS_setitimer = 38, SYS_getpid = 39,
    SYS_exit = 60, SYS_kill = 62, SYS_uname = 63, SYS_fcntl = 72, SYS_flock = 73,
    SYS_ftruncate = 77, SYS_getcwd = 79, SYS_readlink = 89, SYS_getrlimit = 97,
    SYS_sysinfo = 99, SYS_getuid = 102, SYS_getgid = 104, SYS_geteuid = 107, SYS_getegid = 108,
    SYS_sigaltstack = 131, SYS_arch_prctl = 158, SYS_gettid = 186, SYS_time = 201,
    SYS_futex = 202, SYS_set_tid_address = 218, SYS_clock_gettime = 228,
    SYS_clock_getres = 229, SYS_clock_nanosleep = 230, SYS_exit_group = 231,
    SYS_epoll_wait = 232, SYS_epoll_ctl = 233, SYS_tgkill = 234, SYS_openat = 257,
    SYS_newfstatat = 262, SYS_readlinkat = 267, SYS_set_robust_list = 273,
    SYS_epoll_pwait = 281, SYS_epoll_create1 = 291, SYS_pipe2 = 293, SYS_prlimit64 = 302,
    SYS_getrandom = 318,
    SYS_rseq = 334,
};

#define O_ACCMODE 3u
#define O_RDONLY 0u
#define O_CREAT 0x40u
#define O_NONBLOCK 0x800u
#define O_DIRECTORY 0x10000u
#define O_CLOEXEC 0x80000u

#define S_IFCHR 0020000u

enum { SEEK_SET = 0, SEEK_CUR = 1, SEEK_END = 2 };
enum { F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4 };
enum { PROT_WRITE = 2, PROT_EXEC = 4 };
enum { MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16, POLLNVAL = 32 };
enum { EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3 };
enum { SIGILL = 4, SIGTRAP = 5, SIGFPE = 8, SIGSEGV = 11, SIGPROF = 27 };
enum { SS_DISABLE = 2 };
enum { ITIMER_PROF = 2 };
enum { CLOCK_REALTIME = 0, CLOCK_REALTIME_COARSE = 5, TIMER_ABSTIME = 1 };
enum { ARCH_SET_FS = 0x1002 };
enum { FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_COMMAND_MASK = 0x7f };
enum { AT_EMPTY_PATH = 0x1000 };
enum { RLIMIT_STACK = 3, RLIMIT_NOFILE = 7 };
#define TCGETS 0x5401u
#define FIONBIO 0x5421u
#define FIOCLEX 0x5451u
/* Of /dev/xen: the letter of the device, a number, the size of the argument. Names and structures
 * are those of Linux's include/uapi/xen and include/xen/xenbus_dev.h. */
#define IOCTL(letter, number, size) ((size) << 16 | (letter) << 8 | (number))
#define IOCTL_SIZE(request) ((request) >> 16 & 0x3fff)
#define IOCTL_EVTCHN_BIND_VIRQ IOCTL('E', 0, 4)
#define IOCTL_EVTCHN_BIND_INTERDOMAIN IOCTL('E', 1, 8)
#define IOCTL_EVTCHN_UNBIND IOCTL('E', 3, 4)
#define IOCTL_EVTCHN_NOTIFY IOCTL('E', 4, 4)
#define IOCTL_EVTCHN_RESET IOCTL('E', 5, 0)
#define IOCTL_GNTDEV_MAP_GRANT_REF IOCTL('G', 0, 24)
#define IOCTL_GNTDEV_UNMAP_GRANT_REF IOCTL('G', 1, 16)
#define IOCTL_XENBUS_BACKEND_EVTCHN IOCTL('B', 0, 0)
#define IOCTL_PRIVCMD_HYPERCALL IOCTL('P', 0, 48)
#define RLIM_INFINITY (~0ull)
#define SA_ONSTACK 0x08000000u

/* the auxiliary vector */
enum {
    AT_NULL = 0, AT_PHDR = 3, AT_PHENT = 4, AT_PHNUM = 5, AT_PAGESZ = 6, AT_ENTRY = 9, AT_UID = 11,
    AT_EUID = 12, AT_GID = 13, AT_EGID = 14, AT_HWCAP = 16, AT_CLKTCK = 17,
    AT_SECURE = 23, AT_RANDOM = 25,
};

struct timespec { int64_t seconds, nanoseconds; };
struct timeval { int64_t seconds, microseconds; };
struct itimerval { struct timeval interval, value; };
struct pollfd { int32_t fd; int16_t events, revents; };
struct epoll_event { uint32_t events; uint64_t data; } __attribute__((packed));
struct iovec { uint64_t base, size; };
struct stack { uint64_t va; int32_t flags, pad; uint64_t size; };
struct stat {
    uint64_t dev, ino, nlink;
    uint32_t mode, uid, gid, pad;
    uint64_t rdev;
    int64_t size, blksize, blocks;
    struct timespec atime, mtime, ctime;
    int64_t reserved[3];
};
struct sysinfo {
    int64_t uptime;
    uint64_t loads[3], total_ram, free_ram, shared_ram, buffer_ram, total_swap, free_swap;
    uint16_t processes, pad;
    uint64_t total_high, free_high;
    uint32_t unit;
};
struct utsname {
    char sysname[65], nodename[65], release[65], version[65], machine[65], domain[65];
};
struct rlimit { uint64_t current, most; };

_Static_assert(sizeof(struct stat) == 144, "struct stat");
_Static_assert(sizeof(struct sysinfo) == 112, "struct sysinfo");
_Static_assert(sizeof(struct epoll_event) == 12, "struct epoll_event");

#endif
