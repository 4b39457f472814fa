/* SPDX-License-Identifier: Apache-2.0 */
/* What machine.h needs of the host. Knows nothing of the kernel. */

#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_OFF 4 /* machine.h */

void machine_off(const char *why);
bool machine_map(uint64_t va, size_t size);
int machine_fork(void);
int machine_wait(int process);
extern uint32_t pv_is_on;

__attribute__((weak)) uint32_t pv_is_on; /* no PV domain; pvboot.c has its own */

void machine_off(const char *why)
{
    fprintf(stderr, "machine_off: %s\n", why);
    exit(EXIT_OFF);
}

bool machine_map(uint64_t va, size_t size)
{
    void *at = mmap((void *)va, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    return at == (void *)va;
}

int machine_fork(void)
{
    fflush(NULL);
    pid_t process = fork();
    if (process < 0 || (process == 0 && !freopen("/dev/null", "w", stderr)))
        abort();
    return process;
}

int machine_wait(int process)
{
    int status;
    if (waitpid(process, &status, 0) != process || !WIFEXITED(status))
        abort();
    return WEXITSTATUS(status);
}
