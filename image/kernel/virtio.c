/* SPDX-License-Identifier: Apache-2.0 */
/* /dev/channel: a byte stream, port 1 of a virtio console over MMIO.
 *
 *   V1. What the device writes is read once, checked, and then used. A device that breaks the rules
 *       is reset and not spoken to again: EIO.
 *   V2. Descriptor N of a queue is always buffer N. `owned` has a bit for each that the device has.
 *   V3. The queues lie outside of .bss, since after a crash the device may write to them until
 *       virtio_init() has reset it. Nothing in them is believed before.
 *   V4. Interrupts of a data queue are asked for when the program finds it empty (full), and looked
 *       at once more after that. So none comes while there is work, and none is missed.
 *   V5. A peer that went is one end of the stream: read() answers 0, once, behind its last byte,
 *       and write() EPIPE until then. While there is no peer write() has to wait (EAGAIN).
 *   V6. A restart loses what was in the queues. Whoever speaks over the stream must begin anew.
 * Port 1 and no other, since only ports made known by control messages (MULTIPORT) say whether
 * somebody is there, and since QEMU throws away what port 0's reader does not take at once.
 * Knows nothing of what is said. Source: virtio.h. */

#include "virtio.h"
#include "cpu.h"
#include "device.h"
#include "linux.h"

#define PORT 1u
#define QUEUE_SIZE 32u /* a power of 2, at most the bits of `owned` */
#define DATA_SIZE 4096u
#define CONTROL_SIZE 64u
#define RESET_LOOKS 1000000u
#define DEVICE_OWNED __attribute__((section(".keep"), aligned(PAGE_SIZE)))

struct rings {
    struct virtio_descriptor descriptors[QUEUE_SIZE];
    struct { uint16_t flags, index, ring[QUEUE_SIZE]; } available;
    struct { uint16_t flags, index; struct virtio_used_element ring[QUEUE_SIZE]; } used
        __attribute__((aligned(4)));
};

struct queue {
    volatile struct rings *rings;
    uint8_t *buffers;
    uint32_t number, buffer_size, owned;
    uint16_t given, published, taken; /* free-running: buffers given, made known, taken back */
    bool is_input, has_interrupt;
};

static struct queue control_rx, control_tx, rx, tx;
static char *device; /* its registers */
static bool is_there;
static bool is_broken; /* or not there: a snapshot's program may have it open all the same */
static volatile bool has_changed; /* the device says so: look at its status */

static bool is_connected; /* a peer has the other end open */
static bool has_ended;    /* V5: not yet told */
static uint16_t end;      /* ... behind which of rx.taken */
static struct { uint32_t id, size, offset; } piece; /* what is left to read of one buffer */

static DEVICE_OWNED struct rings all_rings[4];
static DEVICE_OWNED uint8_t control_buffers[2][QUEUE_SIZE][CONTROL_SIZE];
static DEVICE_OWNED uint8_t data_buffers[2][QUEUE_SIZE][DATA_SIZE];

static uint32_t device_read(uint32_t offset) { return *(volatile uint32_t *)(device + offset); }

static void device_write(uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(device + offset) = value;
}

static void device_break(const char *why)
{
    if (!is_broken)
        log_error("channel: %s; it is closed for good", why);
    is_broken = true;
    device_write(MMIO_STATUS, 0);
}

/* ---- queues */

static inline void compiler_barrier(void) { __asm__ volatile("" : : : "memory"); }
static inline void full_barrier(void) { __asm__ volatile("mfence" : : : "memory"); }

static void write_address(uint32_t offset, volatile void *at)
{
    uint64_t pa = (uint64_t)at - KERNEL_BASE;
    device_write(offset, (uint32_t)pa);
    device_write(offset + 4, (uint32_t)(pa >> 32));
}

static bool queue_init(struct queue *queue, uint32_t number, bool is_input, struct rings *rings,
                       void *buffers, uint32_t buffer_size)
{
    *queue = (struct queue){.rings = rings, .buffers = buffers, .number = number,
                            .buffer_size = buffer_size, .is_input = is_input};
    memset(rings, 0, sizeof(*rings)); /* V3 */
    for (uint32_t id = 0; id < QUEUE_SIZE; id++)
        rings->descriptors[id] = (struct virtio_descriptor){
            .pa = (uint64_t)(queue->buffers + id * buffer_size) - KERNEL_BASE,
            .size = buffer_size, .flags = is_input ? DESCRIPTOR_DEVICE_WRITES : 0};
    rings->available.flags = AVAILABLE_NO_INTERRUPT;
    device_write(MMIO_QUEUE, number);
    if (device_read(MMIO_QUEUE_SIZE_MAX) < QUEUE_SIZE)
        return false;
    device_write(MMIO_QUEUE_SIZE, QUEUE_SIZE);
    write_address(MMIO_QUEUE_DESCRIPTORS, rings->descriptors);
    write_address(MMIO_QUEUE_AVAILABLE, &rings->available);
    write_address(MMIO_QUEUE_USED, &rings->used);
    compiler_barrier();
    device_write(MMIO_QUEUE_READY, 1);
    return true;
}

static uint8_t *queue_buffer(const struct queue *queue, uint32_t id)
{
    return queue->buffers + id * queue->buffer_size;
}

/* Put a buffer where the device will find it with the next queue_publish(). */
static void queue_give(struct queue *queue, uint32_t id, uint32_t size)
{
    assert(id < QUEUE_SIZE && !(queue->owned & 1u << id) && size <= queue->buffer_size);
    queue->rings->descriptors[id].size = size;
    queue->rings->available.ring[queue->given % QUEUE_SIZE] = (uint16_t)id;
    queue->given++;
    queue->owned |= 1u << id;
}

static void queue_publish(struct queue *queue)
{
    compiler_barrier(); /* x86 keeps stores in order */
    queue->rings->available.index = queue->published = queue->given;
    full_barrier(); /* our index before its flags: else both sides may sleep */
    if (!(queue->rings->used.flags & USED_NO_NOTIFY))
        device_write(MMIO_NOTIFY, queue->number);
}

/* Take back one buffer, if there is one: its id, and how many bytes the device wrote. */
static bool queue_take(struct queue *queue, uint32_t *id, uint32_t *size)
{
    uint16_t index = queue->rings->used.index;
    if (index == queue->taken || is_broken)
        return false;
    compiler_barrier();
    uint32_t at = queue->taken % QUEUE_SIZE;
    *id = queue->rings->used.ring[at].id;
    *size = queue->is_input ? queue->rings->used.ring[at].size : 0;
    if ((uint16_t)(index - queue->taken) > QUEUE_SIZE || *id >= QUEUE_SIZE ||
        !(queue->owned & 1u << *id) || *size > queue->buffer_size) {
        device_break("the device returns a buffer that it does not have");
        return false;
    }
    queue->taken++;
    queue->owned &= ~(1u << *id);
    return true;
}

/* V4. To be followed by another look at the queue. */
static void queue_interrupt(struct queue *queue, bool wanted)
{
    if (queue->has_interrupt == wanted)
        return;
    queue->has_interrupt = wanted;
    queue->rings->available.flags = wanted ? 0 : AVAILABLE_NO_INTERRUPT;
    if (wanted)
        full_barrier();
}

static void queue_give_all(struct queue *queue)
{
    for (uint32_t id = 0; id < QUEUE_SIZE; id++)
        queue_give(queue, id, queue->buffer_size);
    queue_publish(queue);
}

/* ---- control messages */

static void control_send(uint32_t port, uint16_t event, uint16_t value)
{
    uint32_t id, size;
    while (queue_take(&control_tx, &id, &size))
        ;
    if (is_broken)
        return;
    if (control_tx.owned == UINT32_MAX) {
        device_break("the device does not take control messages");
        return;
    }
    id = (uint32_t)__builtin_ctz(~control_tx.owned);
    struct virtio_control message = {port, event, value};
    memcpy(queue_buffer(&control_tx, id), &message, sizeof(message));
    queue_give(&control_tx, id, sizeof(message));
    queue_publish(&control_tx);
}

static void control_connected(bool is_open)
{
    if (is_connected && !is_open) {
        has_ended = true;
        end = rx.rings->used.index;
    }
    is_connected = is_open;
}

static void control_message(const struct virtio_control *message)
{
    if (message->port != PORT)
        return;
    log_debug("channel: control event %u, value %u", message->event, message->value);
    if (message->event == CONTROL_PORT_ADD) {
        control_send(PORT, CONTROL_PORT_READY, 1);
        control_send(PORT, CONTROL_PORT_OPEN, 1);
    } else if (message->event == CONTROL_PORT_REMOVE) {
        control_connected(false);
    } else if (message->event == CONTROL_PORT_OPEN) {
        control_connected(message->value == 1);
    }
}

/* What has changed: before each look at the data. Bounded, or the device could keep us here. */
static void control_take(void)
{
    uint32_t id, size, count = 0;
    while (count < QUEUE_SIZE && queue_take(&control_rx, &id, &size)) {
        struct virtio_control message = {0};
        if (size >= sizeof(message))
            memcpy(&message, queue_buffer(&control_rx, id), sizeof(message));
        control_message(&message);
        queue_give(&control_rx, id, CONTROL_SIZE);
        count++;
    }
    if (count && !is_broken)
        queue_publish(&control_rx);
    if (has_changed && !is_broken && device_read(MMIO_STATUS) & STATUS_NEEDS_RESET)
        device_break("the device asks for a reset");
    has_changed = false;
}

/* ---- the stream */

/* Buffers go back when there are enough of them: each notification leaves the translated code. The
 * device has the other half meanwhile, so that it is never without. */
static void rx_give_back(uint32_t id)
{
    queue_give(&rx, id, DATA_SIZE);
    if ((uint16_t)(rx.given - rx.published) >= QUEUE_SIZE / 2)
        queue_publish(&rx);
}

static bool rx_take(void)
{
    for (uint32_t count = 0; count < QUEUE_SIZE && piece.offset == piece.size; count++) {
        if (has_ended && rx.taken == end)
            return false;
        if (!queue_take(&rx, &piece.id, &piece.size))
            break;
        piece.offset = 0;
        if (!piece.size)
            rx_give_back(piece.id);
    }
    return piece.offset < piece.size;
}

/* V4. */
static bool queue_has(struct queue *queue, bool (*look)(void))
{
    bool has = look();
    if (!has && !queue->has_interrupt) {
        queue_interrupt(queue, true);
        has = look();
    }
    if (has)
        queue_interrupt(queue, false);
    return has;
}

static bool rx_has_data(void) { return queue_has(&rx, rx_take); }

static bool tx_take_back(void)
{
    uint32_t id, size;
    while (queue_take(&tx, &id, &size))
        ;
    return tx.owned != UINT32_MAX && !is_broken;
}

static bool tx_has_room(void) { return queue_has(&tx, tx_take_back); }

/* First in each operation, so that none of them touches a device that is not there. */
static bool channel_is_usable(void)
{
    if (!is_broken)
        control_take();
    return !is_broken;
}

static int64_t channel_open(struct file *file)
{
    (void)file;
    return is_broken ? -ENODEV : 0;
}

static int64_t channel_read(struct file *file, void *to, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    uint64_t done = 0;
    if (!channel_is_usable())
        return -EIO;
    while (done < size && rx_has_data()) {
        uint64_t left = piece.size - piece.offset;
        uint64_t part = size - done < left ? size - done : left;
        memcpy((char *)to + done, queue_buffer(&rx, piece.id) + piece.offset, part);
        done += part;
        piece.offset += (uint32_t)part;
        if (piece.offset == piece.size)
            rx_give_back(piece.id);
    }
    if (done || !size)
        return (int64_t)done;
    if (!has_ended)
        return -EAGAIN;
    has_ended = false;
    return 0;
}

static int64_t channel_write(struct file *file, const void *from, uint64_t size, uint64_t offset)
{
    (void)file, (void)offset;
    uint64_t done = 0;
    if (!channel_is_usable())
        return -EIO;
    if (has_ended)
        return -EPIPE;
    while (done < size && is_connected && tx_has_room()) {
        uint32_t id = (uint32_t)__builtin_ctz(~tx.owned);
        uint32_t part = size - done < DATA_SIZE ? (uint32_t)(size - done) : DATA_SIZE;
        memcpy(queue_buffer(&tx, id), (const char *)from + done, part);
        queue_give(&tx, id, part);
        done += part;
    }
    if (done)
        queue_publish(&tx);
    return done || !size ? (int64_t)done : -EAGAIN;
}

static uint32_t channel_poll(void)
{
    if (!channel_is_usable())
        return POLLIN | POLLOUT | POLLERR;
    if (has_ended)
        return POLLIN | POLLOUT | POLLHUP;
    return (rx_has_data() ? POLLIN : 0) | (is_connected && tx_has_room() ? POLLOUT : 0);
}

static bool channel_exists(void) { return is_there; }

const struct device channel_device = {
    .path = "/dev/channel", .mode = S_IFCHR | 0600, .exists = channel_exists,
    .open = channel_open, .read = channel_read,
    .write = channel_write, .poll = channel_poll,
};

/* ---- finding and starting the device */

/* It ends a wait; the next look at the queues finds out why. */
static void device_interrupt(void)
{
    uint32_t reasons = device_read(MMIO_INTERRUPT);
    device_write(MMIO_INTERRUPT_ACKNOWLEDGE, reasons);
    if (reasons & INTERRUPT_CONFIGURATION)
        has_changed = true;
}

static bool device_reset(void)
{
    device_write(MMIO_STATUS, 0);
    for (uint32_t looks = 0; looks < RESET_LOOKS; looks++)
        if (device_read(MMIO_STATUS) == 0)
            return true;
    return false;
}

static uint32_t device_features(uint32_t word)
{
    device_write(MMIO_DEVICE_FEATURES_WORD, word);
    return device_read(MMIO_DEVICE_FEATURES);
}

static bool device_negotiate(void)
{
    static const uint32_t wanted[2] = {CONSOLE_MULTIPORT, FEATURE_VERSION_1};
    device_write(MMIO_STATUS, STATUS_ACKNOWLEDGE);
    device_write(MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (uint32_t word = 0; word < COUNT(wanted); word++) {
        if ((device_features(word) & wanted[word]) != wanted[word])
            return false;
        device_write(MMIO_DRIVER_FEATURES_WORD, word);
        device_write(MMIO_DRIVER_FEATURES, wanted[word]);
    }
    device_write(MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    return device_read(MMIO_STATUS) & STATUS_FEATURES_OK && device_read(CONSOLE_PORTS_MAX) > PORT;
}

static const char *device_start(void)
{
    if (!device_reset())
        return "the device cannot be reset";
    if (!device_negotiate())
        return "the device has no port 1 (QEMU: virtserialport,nr=1)";
    if (!queue_init(&control_rx, CONSOLE_CONTROL_RX, true, &all_rings[0], control_buffers[0],
                    CONTROL_SIZE) ||
        !queue_init(&control_tx, CONSOLE_CONTROL_TX, false, &all_rings[1], control_buffers[1],
                    CONTROL_SIZE) ||
        !queue_init(&rx, CONSOLE_RX(PORT), true, &all_rings[2], data_buffers[0], DATA_SIZE) ||
        !queue_init(&tx, CONSOLE_TX(PORT), false, &all_rings[3], data_buffers[1], DATA_SIZE))
        return "the device's queues are too small";
    device_write(MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
                                  STATUS_DRIVER_OK);
    queue_interrupt(&control_rx, true);
    queue_give_all(&control_rx);
    queue_give_all(&rx);
    control_send(0, CONTROL_DEVICE_READY, 1);
    return NULL;
}

static bool device_is_console(void)
{
    if (device_read(MMIO_MAGIC) != MMIO_MAGIC_VALUE ||
        device_read(MMIO_DEVICE_ID) != CONSOLE_DEVICE_ID)
        return false;
    bool is_modern = device_read(MMIO_VERSION) == MMIO_VERSION_VALUE;
    if (!is_modern)
        log_error("channel: a legacy device (QEMU: -global virtio-mmio.force-legacy=false)");
    return is_modern;
}

/* The first console on the command line. */
void virtio_init(void)
{
    for (uint32_t index = 0; index < options.virtio_count; index++) {
        if (options.virtio[index].size < CONSOLE_PORTS_MAX + 4)
            continue;
        device = device_map(options.virtio[index].pa, options.virtio[index].size);
        is_there = device_is_console();
        if (!is_there)
            continue;
        const char *why = device_start();
        if (why) {
            device_break(why);
            break;
        }
        trap_claim(VECTOR_DEVICE, device_interrupt);
        apic_route(options.virtio[index].irq, VECTOR_DEVICE);
        control_take();
        log_debug("channel: device at 0x%lx, irq %u", options.virtio[index].pa,
                  options.virtio[index].irq);
        return;
    }
    is_broken = true;
}
