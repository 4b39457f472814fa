/* SPDX-License-Identifier: Apache-2.0 */
/* What a device can do, and an open file. A device without an operation answers EINVAL. */

#ifndef DEVICE_H
#define DEVICE_H

#include "kernel.h"

struct file {
    const struct device *device; /* NULL: free */
    uint64_t position;
    uint32_t flags; /* O_NONBLOCK, O_ACCMODE */
};

/* `to` and `from` were checked: the program can write, or read, `size` bytes there. An operation
 * returns bytes, or -errno; -EAGAIN makes read() and write() wait, unless O_NONBLOCK is set. */
struct device {
    const char *path;
    uint32_t mode; /* S_IFCHR | permissions */
    bool (*exists)(void);        /* on this machine; NULL: always */
    int64_t (*open)(struct file *file);
    int64_t (*read)(struct file *file, void *to, uint64_t size, uint64_t offset);
    int64_t (*write)(struct file *file, const void *from, uint64_t size, uint64_t offset);
    int64_t (*truncate)(uint64_t size);
    uint64_t (*size)(void);      /* NULL: a stream, which cannot be sought */
    uint32_t (*poll)(void);      /* POLLIN, POLLOUT, ...; NULL: always both */
    int64_t (*ioctl)(uint64_t request, void *argument); /* as large as the request says */
    int64_t (*mmap)(uint64_t size, uint64_t offset);    /* the physical address of what is there */
};

struct file *file_get(uint64_t fd); /* NULL: none */
int64_t file_new(const struct device *device, uint64_t flags);
int64_t file_open(const char *path, uint64_t flags);
int64_t file_close(uint64_t fd);
int64_t file_read(uint64_t fd, uint64_t va, uint64_t size, const uint64_t *offset);
int64_t file_write(uint64_t fd, uint64_t va, uint64_t size, const uint64_t *offset);
int64_t file_seek(uint64_t fd, int64_t offset, uint64_t whence);
int64_t file_stat(const struct device *device, uint64_t va);
const struct device *device_find(const char *path);
uint32_t file_poll(const struct file *file);

#define FILES_MAX 32
extern struct file files[FILES_MAX];

/* ---- poll.c */
int64_t poll_poll(uint64_t va, uint64_t count, int64_t timeout_ms);
void epoll_forget(uint32_t fd); /* it is closed */
int64_t epoll_create(uint64_t flags);
int64_t epoll_control(uint64_t epoll_fd, uint64_t operation, uint64_t fd, uint64_t event_va);
int64_t epoll_wait(uint64_t epoll_fd, uint64_t events_va, uint64_t most, int64_t timeout_ms);

#endif
