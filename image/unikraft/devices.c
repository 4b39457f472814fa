/* SPDX-License-Identifier: Apache-2.0 */
/* Our devices, a file system at /dev: region, crash and snapshot, as the server knows them from our
 * own library OS (image/README.md). Unikraft's devfs cannot hold them: its devices have no size.
 *
 *   D1. A device has a size, which stat and lseek tell; what is in it is region.c's and crash.c's.
 *   D2. Reading /dev/snapshot takes the snapshot: every later life returns from that very read. */

#define _GNU_SOURCE
#include "tardigrade.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <uk/init.h>
#include <vfscore/file.h>
#include <vfscore/fs.h>
#include <vfscore/mount.h>
#include <vfscore/uio.h>
#include <vfscore/vnode.h>

#define AT "/dev"
#define CHUNK 4096
#define PRIORITY 5 /* behind vfscore's own, which mounts the root */

struct device_ops {
    const char *name;
    uint64_t (*size)(void);
    int (*read)(struct uio *uio);
    int (*write)(struct uio *uio);
    int (*truncate)(off_t size);
};

/* ---- the devices. Errors are positive numbers here, as vfscore has it. */

static uint64_t region_size(void) { return REGION_SIZE; }

static int region_device_read(struct uio *uio)
{
    if ((uint64_t)uio->uio_offset >= REGION_SIZE)
        return 0;
    uint64_t left = REGION_SIZE - (uint64_t)uio->uio_offset;
    size_t size = (uint64_t)uio->uio_resid < left ? (size_t)uio->uio_resid : left;
    return vfscore_uiomove(apart.region + uio->uio_offset, (int)size, uio);
}

static bool is_over_slot(uint64_t offset, uint64_t size)
{
    return offset < CRASH_SLOT_OFFSET + CRASH_SLOT_SIZE && offset + size > CRASH_SLOT_OFFSET;
}

static int region_device_write(struct uio *uio)
{
    uint64_t offset = (uint64_t)uio->uio_offset, size = (uint64_t)uio->uio_resid;
    if (offset > REGION_SIZE || size > REGION_SIZE - offset)
        return ENOSPC;
    if (is_over_slot(offset, size))
        return EACCES;
    for (int index = 0; index < uio->uio_iovcnt; index++) {
        const struct iovec *part = &uio->uio_iov[index];
        int result = region_write((uint64_t)uio->uio_offset, part->iov_base, part->iov_len);
        if (result)
            return -result;
        uio->uio_offset += (off_t)part->iov_len;
        uio->uio_resid -= (ssize_t)part->iov_len;
    }
    return 0;
}

static uint64_t crash_device_size(void) { return crash_size(); }

static int crash_device_read(struct uio *uio)
{
    char text[CHUNK];
    size_t size = crash_read(text, sizeof(text), (uint64_t)uio->uio_offset);
    if ((size_t)uio->uio_resid < size)
        size = (size_t)uio->uio_resid;
    return vfscore_uiomove(text, (int)size, uio);
}

static int crash_device_write(struct uio *uio)
{
    while (uio->uio_resid) {
        char text[CHUNK];
        off_t offset = uio->uio_offset;
        size_t size = uio->uio_resid < CHUNK ? (size_t)uio->uio_resid : CHUNK;
        int error = vfscore_uiomove(text, (int)size, uio);
        if (!error)
            error = -crash_write(text, size, (uint64_t)offset);
        if (error)
            return error;
    }
    return 0;
}

static int crash_device_truncate(off_t size) { return -crash_truncate((size_t)size); }

static int snapshot_device_read(struct uio *uio)
{
    const char *answer = snapshot_take();
    size_t size = strlen(answer);
    return vfscore_uiomove((void *)answer, (int)size, uio);
}

static const struct device_ops devices[] = {
    {.name = "region", .size = region_size, .read = region_device_read,
     .write = region_device_write},
    {.name = "crash", .size = crash_device_size, .read = crash_device_read,
     .write = crash_device_write, .truncate = crash_device_truncate},
    {.name = "snapshot", .read = snapshot_device_read},
};
#define DEVICES (sizeof(devices) / sizeof(*devices))

/* ---- vfscore's operations. A device's inode is its place in the table, and one more: 0 is the
 * directory. */

static const struct device_ops *device_of(const struct vnode *vnode) { return vnode->v_data; }

static int dev_lookup(struct vnode *directory, const char *name, struct vnode **found)
{
    *found = NULL;
    for (size_t index = 0; index < DEVICES; index++) {
        if (strcmp(devices[index].name, name))
            continue;
        struct vnode *vnode = NULL;
        int was_known = vfscore_vget(directory->v_mount, index + 1, &vnode);
        if (!vnode)
            return ENOMEM;
        if (!was_known) {
            vnode->v_type = VCHR;
            vnode->v_flags = 0;
            vnode->v_mode = S_IRUSR | S_IWUSR;
            vnode->v_data = (void *)&devices[index];
            vnode->v_size = devices[index].size ? (off_t)devices[index].size() : 0;
        }
        *found = vnode;
        return 0;
    }
    return ENOENT;
}

static int dev_read(struct vnode *vnode, struct vfscore_file *file, struct uio *uio, int flags)
{
    (void)file, (void)flags;
    const struct device_ops *device = device_of(vnode);
    return device && device->read ? device->read(uio) : EINVAL;
}

static int dev_write(struct vnode *vnode, struct uio *uio, int flags)
{
    (void)flags;
    const struct device_ops *device = device_of(vnode);
    return device && device->write ? device->write(uio) : EINVAL;
}

static int dev_truncate(struct vnode *vnode, off_t size)
{
    const struct device_ops *device = device_of(vnode);
    return device && device->truncate ? device->truncate(size) : EINVAL;
}

static int dev_getattr(struct vnode *vnode, struct vattr *attributes)
{
    const struct device_ops *device = device_of(vnode);
    attributes->va_nodeid = (ino_t)vnode->v_ino;
    attributes->va_mode = vnode->v_mode;
    attributes->va_size = device && device->size ? (off_t)device->size() : 0;
    return 0;
}

static int dev_readdir(struct vnode *vnode, struct vfscore_file *file, struct dirent64 *entry)
{
    (void)vnode;
    if ((size_t)file->f_offset >= DEVICES)
        return ENOENT;
    memset(entry, 0, sizeof(*entry));
    entry->d_type = DT_CHR;
    entry->d_fileno = (ino_t)file->f_offset + 1;
    strncpy(entry->d_name, devices[file->f_offset++].name, sizeof(entry->d_name) - 1);
    return 0;
}

#define NOTHING(type) ((type)vfscore_vop_nullop)
#define REFUSED(type) ((type)vfscore_vop_eperm)

static struct vnops dev_vnops = {
    .vop_open = NOTHING(vnop_open_t), .vop_close = NOTHING(vnop_close_t),
    .vop_read = dev_read, .vop_write = dev_write, .vop_seek = NOTHING(vnop_seek_t),
    .vop_ioctl = REFUSED(vnop_ioctl_t), .vop_fsync = NOTHING(vnop_fsync_t),
    .vop_readdir = dev_readdir, .vop_lookup = dev_lookup, .vop_create = REFUSED(vnop_create_t),
    .vop_remove = REFUSED(vnop_remove_t), .vop_rename = REFUSED(vnop_rename_t),
    .vop_mkdir = REFUSED(vnop_mkdir_t), .vop_rmdir = REFUSED(vnop_rmdir_t),
    .vop_getattr = dev_getattr, .vop_setattr = REFUSED(vnop_setattr_t),
    .vop_inactive = NOTHING(vnop_inactive_t), .vop_truncate = dev_truncate,
    .vop_link = REFUSED(vnop_link_t), .vop_fallocate = NOTHING(vnop_fallocate_t),
    .vop_readlink = REFUSED(vnop_readlink_t), .vop_symlink = REFUSED(vnop_symlink_t),
    .vop_poll = NOTHING(vnop_poll_t),
};

static struct vfsops dev_vfsops = {
    .vfs_mount = (vfsop_mount_t)vfscore_nullop, .vfs_unmount = (vfsop_umount_t)vfscore_nullop,
    .vfs_sync = (vfsop_sync_t)vfscore_nullop, .vfs_vget = (vfsop_vget_t)vfscore_nullop,
    .vfs_statfs = (vfsop_statfs_t)vfscore_nullop, .vfs_vnops = &dev_vnops,
};

static struct vfscore_fs_type fs_tardigrade = {.vs_name = "tardigrade", .vs_op = &dev_vfsops};
UK_FS_REGISTER(fs_tardigrade);

static int mount_devices(struct uk_init_ctx *context)
{
    (void)context;
    if (mkdir(AT, S_IRWXU) && errno != EEXIST)
        return -errno;
    return mount("", AT, "tardigrade", 0, NULL) ? -errno : 0;
}

uk_rootfs_initcall_prio(mount_devices, 0x0, PRIORITY);
