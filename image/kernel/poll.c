/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting: poll and epoll, level-triggered, over the devices' own poll().
 *
 * All epoll descriptors share one list of interests: a program has one loop. With the first wait
 * it has begun to serve (crash.c). Times are in ms as the program gives them, ns inside. */

#include "device.h"
#include "linux.h"

#define INTERESTS_MAX 64
#define NS_PER_MS 1000000ull

struct interest {
    bool is_used;
    uint32_t epoll_fd, fd, events;
    uint64_t data;
};

PROGRAM_STATE static struct interest interests[INTERESTS_MAX];

static uint32_t epoll_poll(void) { return 0; } /* an epoll descriptor in a poll set: never ready */

static const struct device epoll_device = {.path = "", .mode = 0600, .poll = epoll_poll};

static uint64_t deadline_of(int64_t timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_now() + (uint64_t)timeout_ms * NS_PER_MS;
}

/* ---- poll */

static int64_t poll_once(struct pollfd *set, uint64_t count)
{
    int64_t ready = 0;
    for (uint64_t index = 0; index < count; index++) {
        set[index].revents = 0;
        if (set[index].fd < 0)
            continue;
        const struct file *file = file_get((uint64_t)set[index].fd);
        uint32_t wanted = (uint16_t)set[index].events | POLLERR | POLLHUP;
        set[index].revents = (int16_t)(file ? file_poll(file) & wanted : POLLNVAL);
        ready += set[index].revents != 0;
    }
    return ready;
}

int64_t poll_poll(uint64_t va, uint64_t count, int64_t timeout_ms)
{
    if (count > FILES_MAX)
        return -EINVAL;
    if (!user_can_write(va, count * sizeof(struct pollfd)))
        return -EFAULT;
    uint64_t deadline = deadline_of(timeout_ms);
    int64_t ready;
    while ((ready = poll_once((struct pollfd *)va, count)) == 0 && clock_now() < deadline)
        clock_wait(deadline);
    return ready;
}

/* ---- epoll */

static bool is_epoll(uint64_t fd)
{
    const struct file *file = file_get(fd);
    return file && file->device == &epoll_device;
}

static struct interest *interest_of(uint64_t epoll_fd, uint64_t fd)
{
    for (uint32_t index = 0; index < INTERESTS_MAX; index++)
        if (interests[index].is_used && interests[index].epoll_fd == epoll_fd &&
            interests[index].fd == fd)
            return &interests[index];
    return NULL;
}

int64_t epoll_create(uint64_t flags)
{
    return flags & ~(uint64_t)O_CLOEXEC ? -EINVAL : file_new(&epoll_device, 0);
}

void epoll_forget(uint32_t fd)
{
    for (uint32_t index = 0; index < INTERESTS_MAX; index++)
        if (interests[index].fd == fd || interests[index].epoll_fd == fd)
            interests[index].is_used = false;
}

static int64_t epoll_add(uint64_t epoll_fd, uint64_t fd, const struct epoll_event *event)
{
    for (uint32_t index = 0; index < INTERESTS_MAX; index++) {
        if (interests[index].is_used)
            continue;
        interests[index] = (struct interest){true, (uint32_t)epoll_fd, (uint32_t)fd,
                                             event->events, event->data};
        return 0;
    }
    return -ENOSPC;
}

int64_t epoll_control(uint64_t epoll_fd, uint64_t operation, uint64_t fd, uint64_t event_va)
{
    if (!is_epoll(epoll_fd) || !file_get(fd))
        return -EBADF;
    if (is_epoll(fd))
        return -EINVAL;
    struct interest *interest = interest_of(epoll_fd, fd);
    if (operation == EPOLL_CTL_DEL) {
        if (!interest)
            return -ENOENT;
        interest->is_used = false;
        return 0;
    }
    if (!user_can_read(event_va, sizeof(struct epoll_event)))
        return -EFAULT;
    const struct epoll_event *event = (const struct epoll_event *)event_va;
    if (operation == EPOLL_CTL_ADD)
        return interest ? -EEXIST : epoll_add(epoll_fd, fd, event);
    if (operation != EPOLL_CTL_MOD)
        return -EINVAL;
    if (!interest)
        return -ENOENT;
    interest->events = event->events;
    interest->data = event->data;
    return 0;
}

static int64_t epoll_once(uint64_t epoll_fd, struct epoll_event *to, uint64_t most)
{
    uint64_t ready = 0;
    for (uint32_t index = 0; index < INTERESTS_MAX && ready < most; index++) {
        const struct interest *interest = &interests[index];
        if (!interest->is_used || interest->epoll_fd != epoll_fd)
            continue;
        uint32_t events = file_poll(&files[interest->fd]) & (interest->events | POLLERR | POLLHUP);
        if (events)
            to[ready++] = (struct epoll_event){events, interest->data};
    }
    return (int64_t)ready;
}

int64_t epoll_wait(uint64_t epoll_fd, uint64_t events_va, uint64_t most, int64_t timeout_ms)
{
    if (!is_epoll(epoll_fd))
        return -EBADF;
    if (most == 0 || most > UINT32_MAX)
        return -EINVAL;
    uint64_t room = most < INTERESTS_MAX ? most : INTERESTS_MAX;
    if (!user_can_write(events_va, room * sizeof(struct epoll_event)))
        return -EFAULT;
    crash_has_served();
    uint64_t deadline = deadline_of(timeout_ms);
    int64_t ready;
    while ((ready = epoll_once(epoll_fd, (struct epoll_event *)events_va, room)) == 0 &&
           clock_now() < deadline)
        clock_wait(deadline);
    return ready;
}
