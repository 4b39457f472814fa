/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls that CPython makes. Others: ENOSYS, and one line in the log for each number.
 *
 * Numbers and meanings are Linux's (linux.h); every address that comes from the program is
 * checked before it is used. Knows nothing of devices: file.c, poll.c, memory.c and signal.c do
 * the work. */

#include "cpu.h"
#include "device.h"
#include "linux.h"
#include "pv.h"
#include "trap.h"

#define NUMBERS 512
#define NS_PER_SECOND 1000000000ull
#define RFLAGS_CLEARED 0x47700 /* at entry: TF, IF, DF, IOPL, NT, AC */

struct frame *syscall_frame;

extern void syscall_entry(void); /* trapentry.S */

void syscall_init(void)
{
    if (pv_is_on)
        return; /* pvtrap.c */
    wrmsr(MSR_STAR, (uint64_t)SELECTOR_KERNEL_CODE << 32 |
                    (uint64_t)(SELECTOR_KERNEL_DATA | 3) << 48);
    wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
    wrmsr(MSR_SYSCALL_MASK, RFLAGS_CLEARED);
}

/* Copy an answer out. */
static int64_t put(uint64_t va, const void *from, size_t size)
{
    if (!user_can_write(va, size))
        return -EFAULT;
    memcpy((void *)va, from, size);
    return 0;
}

/* ---- time */

static int64_t clock_get(uint64_t id, uint64_t va)
{
    uint64_t ns = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE ? clock_wall() : clock_now();
    struct timespec time = {(int64_t)(ns / NS_PER_SECOND), (int64_t)(ns % NS_PER_SECOND)};
    return put(va, &time, sizeof(time));
}

static int64_t clock_resolution(uint64_t va)
{
    struct timespec time = {0, 1};
    return va ? put(va, &time, sizeof(time)) : 0;
}

static int64_t sleep_until(uint64_t va, bool is_wall_time, bool is_absolute)
{
    if (!user_can_read(va, sizeof(struct timespec)))
        return -EFAULT;
    const struct timespec *time = (const struct timespec *)va;
    if (time->seconds < 0 || (uint64_t)time->nanoseconds >= NS_PER_SECOND)
        return -EINVAL;
    uint64_t ns = (uint64_t)time->seconds * NS_PER_SECOND + (uint64_t)time->nanoseconds;
    uint64_t begun = is_wall_time ? clock_wall() : clock_now();
    uint64_t until = clock_now() + (!is_absolute ? ns : ns > begun ? ns - begun : 0);
    while (clock_now() < until)
        clock_wait(until);
    return 0;
}

static int64_t set_timer(uint64_t which, uint64_t new_va, uint64_t old_va)
{
    const struct itimerval none = {0};
    if (which != ITIMER_PROF)
        return -EINVAL;
    if (!user_can_read(new_va, sizeof(struct itimerval)))
        return -EFAULT;
    const struct itimerval *timer = (const struct itimerval *)new_va;
    watchdog_set((uint64_t)timer->value.seconds * NS_PER_SECOND +
                 (uint64_t)timer->value.microseconds * 1000);
    return old_va ? put(old_va, &none, sizeof(none)) : 0;
}

/* ---- files */

static int64_t sys_open(uint64_t path_va, uint64_t flags)
{
    char path[64];
    return user_string(path_va, path, sizeof(path)) ? file_open(path, flags) : -ENOENT;
}

static int64_t sys_stat(uint64_t path_va, uint64_t va)
{
    char path[64];
    if (!user_string(path_va, path, sizeof(path)))
        return -ENOENT;
    const struct device *device = device_find(path);
    return device ? file_stat(device, va) : -ENOENT;
}

static int64_t sys_fstat(uint64_t fd, uint64_t va)
{
    const struct file *file = file_get(fd);
    return file ? file_stat(file->device, va) : -EBADF;
}

static int64_t sys_newfstatat(uint64_t fd, uint64_t path_va, uint64_t va, uint64_t flags)
{
    char first[1];
    if (flags & AT_EMPTY_PATH && user_string(path_va, first, sizeof(first)))
        return sys_fstat(fd, va);
    return sys_stat(path_va, va);
}

static int64_t sys_writev(uint64_t fd, uint64_t va, uint64_t count)
{
    if (count > 64 || !user_can_read(va, count * sizeof(struct iovec)))
        return -EINVAL;
    const struct iovec *parts = (const struct iovec *)va;
    int64_t total = 0;
    for (uint64_t index = 0; index < count; index++) {
        int64_t written = file_write(fd, parts[index].base, parts[index].size, NULL);
        if (written < 0)
            return total ? total : written;
        total += written;
    }
    return total;
}

static int64_t sys_fcntl(uint64_t fd, uint64_t command, uint64_t argument)
{
    struct file *file = file_get(fd);
    if (!file)
        return -EBADF;
    switch (command) {
    case F_GETFD: return 1; /* FD_CLOEXEC: there is no exec */
    case F_SETFD: return 0;
    case F_GETFL: return file->flags & (O_ACCMODE | O_NONBLOCK);
    case F_SETFL:
        file->flags = (file->flags & ~O_NONBLOCK) | ((uint32_t)argument & O_NONBLOCK);
        return 0;
    default: return -EINVAL;
    }
}

static int64_t sys_ioctl(uint64_t fd, uint64_t request, uint64_t va)
{
    struct file *file = file_get(fd);
    if (!file)
        return -EBADF;
    if (request == FIOCLEX)
        return 0;
    if (request != FIONBIO && file->device->ioctl) {
        uint64_t size = IOCTL_SIZE(request);
        return user_can_write(va, size) ? file->device->ioctl(request, (void *)va) : -EFAULT;
    }
    if (request != FIONBIO)
        return -ENOTTY; /* also to TCGETS: nothing here is a terminal */
    if (!user_can_read(va, sizeof(int)))
        return -EFAULT;
    file->flags = (file->flags & ~O_NONBLOCK) | (*(const int *)va ? O_NONBLOCK : 0);
    return 0;
}

static int64_t sys_ftruncate(uint64_t fd, uint64_t size)
{
    const struct file *file = file_get(fd);
    if (!file)
        return -EBADF;
    return file->device->truncate ? file->device->truncate(size) : -EINVAL;
}

/* Memory of the program's own, or what a device has at an offset. */
static int64_t sys_mmap(const struct frame *frame)
{
    uint64_t size = frame->rsi, prot = frame->rdx, flags = frame->r10, offset = frame->r9;
    if (flags & MAP_ANONYMOUS)
        return memory_mmap(size, prot, flags);
    const struct file *file = file_get(frame->r8);
    if (!file)
        return -EBADF;
    if (!file->device->mmap)
        return -ENODEV;
    if (flags & (MAP_PRIVATE | MAP_FIXED) || size == 0 || size % PAGE_SIZE || offset % PAGE_SIZE)
        return -EINVAL;
    int64_t pa = file->device->mmap(size, offset);
    return pa < 0 ? pa : memory_share((uint64_t)pa, size, prot);
}

/* ---- the machine, as far as the C library asks for it */

static int64_t sys_sysinfo(uint64_t va)
{
    struct sysinfo info = {
        .uptime = (int64_t)(clock_now() / NS_PER_SECOND), .unit = 1, .processes = 1,
        .total_ram = page_total_count() * PAGE_SIZE, .free_ram = page_free_count() * PAGE_SIZE,
    };
    return put(va, &info, sizeof(info));
}

static int64_t sys_uname(uint64_t va)
{
    struct utsname name = {"Linux", "tardigrade", "6.1.0", "tardigrade", "x86_64", ""};
    return put(va, &name, sizeof(name));
}

static int64_t sys_getrlimit(uint64_t which, uint64_t va)
{
    uint64_t limit = which == RLIMIT_STACK ? STACK_SIZE
                     : which == RLIMIT_NOFILE ? FILES_MAX : RLIM_INFINITY;
    struct rlimit answer = {limit, limit};
    return va ? put(va, &answer, sizeof(answer)) : 0;
}

static int64_t sys_getrandom(uint64_t va, uint64_t size)
{
    if (!user_can_write(va, size))
        return -EFAULT;
    random_fill((void *)va, size);
    return (int64_t)size;
}

static int64_t sys_arch_prctl(uint64_t code, uint64_t va)
{
    if (code != ARCH_SET_FS || va >= USER_END)
        return -EINVAL;
    program_set_fs_base(va);
    return 0;
}

/* One thread: nobody could wake a waiter, and nobody waits to be woken. */
static int64_t sys_futex(uint64_t operation)
{
    switch (operation & FUTEX_COMMAND_MASK) {
    case FUTEX_WAKE: return 0;
    case FUTEX_WAIT: return -ETIMEDOUT;
    default: return -ENOSYS;
    }
}

/* ---- signals and the end */

static int64_t sys_sigaction(uint64_t signal, uint64_t new_va, uint64_t old_va)
{
    if (signal == 0 || signal >= SIGNALS)
        return -EINVAL;
    struct action *action = &signals.actions[signal];
    if (new_va && !user_can_read(new_va, sizeof(*action)))
        return -EFAULT;
    struct action wanted = new_va ? *(const struct action *)new_va : *action;
    if (old_va && put(old_va, action, sizeof(*action)))
        return -EFAULT;
    *action = wanted;
    return 0;
}

static int64_t sys_sigaltstack(uint64_t new_va, uint64_t old_va)
{
    struct stack old = {signals.stack_va, signals.stack_size ? 0 : SS_DISABLE, 0,
                        signals.stack_size};
    if (new_va) {
        if (!user_can_read(new_va, sizeof(struct stack)))
            return -EFAULT;
        const struct stack *wanted = (const struct stack *)new_va;
        bool is_off = wanted->flags & SS_DISABLE;
        signals.stack_va = is_off ? 0 : wanted->va;
        signals.stack_size = is_off ? 0 : wanted->size;
    }
    return old_va ? put(old_va, &old, sizeof(old)) : 0;
}

/* Before it serves, 2 says that its arguments are wrong, which no restart can mend, and 0 that it
 * had only to say something (--help). Afterwards there is no end that is meant. */
static NORETURN void sys_exit(uint64_t status)
{
    if ((status & 0xff) == 2 && !crash_is_serving())
        machine_off("the server refuses its arguments");
    if ((status & 0xff) == 0 && !crash_is_serving())
        machine_done("the server has ended on purpose");
    crash_end(NULL, "exit status %lu", status & 0xff);
}

static int64_t sys_unknown(uint64_t number)
{
    static uint64_t told[NUMBERS / 64];
    if (number < NUMBERS && !(told[number / 64] >> (number % 64) & 1)) {
        told[number / 64] |= 1ull << (number % 64);
        log_info("system call %lu is not there", number);
    }
    return -ENOSYS;
}

/* ---- the table */

static int64_t call(struct frame *frame, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    switch (frame->error) {
    case SYS_read: return file_read(a, b, c, NULL);
    case SYS_write: return file_write(a, b, c, NULL);
    case SYS_pread64: return file_read(a, b, c, &d);
    case SYS_pwrite64: return file_write(a, b, c, &d);
    case SYS_writev: return sys_writev(a, b, c);
    case SYS_openat: return sys_open(b, c);
    case SYS_close: return file_close(a);
    case SYS_stat: case SYS_lstat: return sys_stat(a, b);
    case SYS_fstat: return sys_fstat(a, b);
    case SYS_newfstatat: return sys_newfstatat(a, b, c, d);
    case SYS_lseek: return file_seek(a, (int64_t)b, c);
    case SYS_fcntl: return sys_fcntl(a, b, c);
    case SYS_ioctl: return sys_ioctl(a, b, c);
    case SYS_ftruncate: return sys_ftruncate(a, b);
    case SYS_flock: return file_get(a) ? 0 : -EBADF;
    case SYS_access: case SYS_readlink: case SYS_readlinkat: return -ENOENT;
    case SYS_getcwd: return b < 2 ? -ERANGE : put(a, "/", 2) ? -EFAULT : 2;

    case SYS_poll: return poll_poll(a, b, (int32_t)c);
    case SYS_epoll_create1: return epoll_create(a);
    case SYS_epoll_ctl: return epoll_control(a, b, c, d);
    case SYS_epoll_wait: case SYS_epoll_pwait: return epoll_wait(a, b, c, (int32_t)d);

    case SYS_brk: return memory_brk(a);
    case SYS_mmap: return sys_mmap(frame);
    case SYS_munmap: return memory_munmap(a, b);
    case SYS_mprotect: return memory_mprotect(a, b, c);
    case SYS_madvise: return 0;
    case SYS_mremap: return -ENOMEM; /* realloc() then copies */

    case SYS_clock_gettime: return clock_get(a, b);
    case SYS_clock_getres: return clock_resolution(b);
    case SYS_time: return (int64_t)(clock_wall() / NS_PER_SECOND);
    case SYS_nanosleep: return sleep_until(a, false, false);
    case SYS_clock_nanosleep: return sleep_until(c, a == CLOCK_REALTIME, b & TIMER_ABSTIME);
    case SYS_setitimer: return set_timer(a, b, c);

    case SYS_rt_sigaction: return sys_sigaction(a, b, c);
    case SYS_rt_sigprocmask: return c ? put(c, &(uint64_t){0}, sizeof(uint64_t)) : 0;
    case SYS_sigaltstack: return sys_sigaltstack(a, b);
    case SYS_kill: return signal_raise(frame, (uint32_t)b);
    case SYS_tgkill: return signal_raise(frame, (uint32_t)c);
    case SYS_exit: case SYS_exit_group: sys_exit(a);

    case SYS_getpid: case SYS_gettid: case SYS_set_tid_address: return 1;
    case SYS_getuid: case SYS_getgid: case SYS_geteuid: case SYS_getegid: return 0;
    case SYS_sched_yield: case SYS_set_robust_list: return 0;
    case SYS_futex: return sys_futex(b);
    case SYS_arch_prctl: return sys_arch_prctl(a, b);
    case SYS_getrandom: return sys_getrandom(a, b);
    case SYS_sysinfo: return sys_sysinfo(a);
    case SYS_uname: return sys_uname(a);
    case SYS_getrlimit: return sys_getrlimit(a, b);
    case SYS_prlimit64: return sys_getrlimit(b, d);
    case SYS_rseq: case SYS_pipe2: return -ENOSYS; /* asked for, and done without */
    default: return sys_unknown(frame->error);
    }
}

void syscall_dispatch(struct frame *frame)
{
    syscall_frame = frame;
    int64_t result = call(frame, frame->rdi, frame->rsi, frame->rdx, frame->r10);
    frame->rax = (uint64_t)result;
}
