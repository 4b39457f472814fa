/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: descriptors, and the few devices behind them. There is no file system.
 *
 * Knows nothing of what devices do. Change with: README.md, which lists them. */

#include "device.h"
#include "linux.h"

#define INODE_FIRST 2

PROGRAM_STATE struct file files[FILES_MAX];

/* ---- the devices that need no file of their own */

static int64_t console_device_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file, (void)to, (void)size, (void)offset;
    return 0;
}

static int64_t console_device_write(struct file *file, const void *from, uint64_t size,
                                    uint64_t offset)
{
    (void)file, (void)offset;
    size = size < PAGE_SIZE ? size : PAGE_SIZE; /* no tick comes meanwhile */
    console_write(from, size);
    return (int64_t)size;
}

static int64_t null_write(struct file *file, const void *from, uint64_t size, uint64_t offset)
{
    (void)file, (void)from, (void)offset;
    return (int64_t)size;
}

static int64_t random_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    random_fill(to, size);
    return (int64_t)size;
}

static const struct device console_device = {
    .path = "/dev/console", .mode = S_IFCHR | 0600,
    .read = console_device_read, .write = console_device_write,
};
static const struct device null_device = {
    .path = "/dev/null", .mode = S_IFCHR | 0666, .read = console_device_read, .write = null_write,
};
static const struct device random_device = {
    .path = "/dev/urandom", .mode = S_IFCHR | 0444, .read = random_read,
};

static const struct device *const devices[] = {
    &console_device, &null_device, &random_device, &region_device, &crash_device,
    &snapshot_device, &channel_device, &drill_device, &evtchn_device, &gntdev_device,
    &xenbus_device, &privcmd_device,
};

const struct device *device_find(const char *path)
{
    for (uint32_t index = 0; index < COUNT(devices); index++)
        if (strcmp(devices[index]->path, path) == 0)
            return !devices[index]->exists || devices[index]->exists() ? devices[index] : NULL;
    return NULL;
}

/* ---- descriptors */

void file_init(void)
{
    for (uint32_t fd = 0; fd < 3; fd++)
        files[fd] = (struct file){.device = &console_device, .flags = 2};
}

struct file *file_get(uint64_t fd)
{
    return fd < FILES_MAX && files[fd].device ? &files[fd] : NULL;
}

int64_t file_new(const struct device *device, uint64_t flags)
{
    for (uint32_t fd = 0; fd < FILES_MAX; fd++) {
        if (files[fd].device)
            continue;
        files[fd] = (struct file){.device = device, .flags = (uint32_t)flags};
        return fd;
    }
    return -EMFILE;
}

int64_t file_open(const char *path, uint64_t flags)
{
    const struct device *device = device_find(path);
    if (!device)
        return flags & O_CREAT ? -EROFS : -ENOENT;
    if (flags & O_DIRECTORY)
        return -ENOTDIR;
    int64_t fd = file_new(device, flags);
    if (fd < 0 || !device->open)
        return fd;
    int64_t result = device->open(&files[fd]);
    if (result < 0)
        files[fd].device = NULL;
    return result < 0 ? result : fd;
}

int64_t file_close(uint64_t fd)
{
    struct file *file = file_get(fd);
    if (!file)
        return -EBADF;
    file->device = NULL;
    epoll_forget((uint32_t)fd);
    return 0;
}

/* At `offset` if there is one (pread), else at the file's position, which moves. A device that has
 * nothing now, or no room, is waited for. */
static int64_t transfer(struct file *file, uint64_t va, uint64_t size, const uint64_t *offset,
                        bool is_write)
{
    const struct device *device = file->device;
    if (is_write ? !device->write : !device->read)
        return -EINVAL;
    if (offset && !device->size)
        return -ESPIPE;
    if (is_write ? !user_can_read(va, size) : !user_can_write(va, size))
        return -EFAULT;
    for (;;) {
        uint64_t at = offset ? *offset : file->position;
        int64_t count = is_write ? device->write(file, (const void *)va, size, at)
                                 : device->read(file, (void *)va, size, at);
        if (count > 0 && !offset && device->size)
            file->position += (uint64_t)count;
        if (count != -EAGAIN || file->flags & O_NONBLOCK)
            return count;
        clock_wait(UINT64_MAX);
    }
}

int64_t file_read(uint64_t fd, uint64_t va, uint64_t size, const uint64_t *offset)
{
    struct file *file = file_get(fd);
    return file ? transfer(file, va, size, offset, false) : -EBADF;
}

int64_t file_write(uint64_t fd, uint64_t va, uint64_t size, const uint64_t *offset)
{
    struct file *file = file_get(fd);
    bool is_writable = file && (file->flags & O_ACCMODE) != O_RDONLY;
    return is_writable ? transfer(file, va, size, offset, true) : -EBADF;
}

int64_t file_seek(uint64_t fd, int64_t offset, uint64_t whence)
{
    struct file *file = file_get(fd);
    if (!file)
        return -EBADF;
    if (!file->device->size)
        return -ESPIPE;
    int64_t base = whence == SEEK_SET ? 0
                   : whence == SEEK_CUR ? (int64_t)file->position
                   : whence == SEEK_END ? (int64_t)file->device->size() : -1;
    if (base < 0 || offset < -base || offset > INT64_MAX - base)
        return -EINVAL;
    file->position = (uint64_t)(base + offset);
    return base + offset;
}

int64_t file_stat(const struct device *device, uint64_t va)
{
    if (!user_can_write(va, sizeof(struct stat)))
        return -EFAULT;
    struct stat stat = {.dev = 1, .nlink = 1, .blksize = PAGE_SIZE, .mode = device->mode};
    for (uint32_t index = 0; index < COUNT(devices); index++)
        if (devices[index] == device)
            stat.ino = stat.rdev = INODE_FIRST + index;
    stat.size = device->size ? (int64_t)device->size() : 0;
    memcpy((void *)va, &stat, sizeof(stat));
    return 0;
}

uint32_t file_poll(const struct file *file)
{
    return file->device->poll ? file->device->poll() : POLLIN | POLLOUT;
}
