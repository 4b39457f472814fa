/* SPDX-License-Identifier: Apache-2.0 */
/* What of the Virtual I/O Device specification (OASIS, version 1.1) virtio.c uses: numbers and
 * structures, in the order of the text. Little-endian, as we are. */

#ifndef VIRTIO_H
#define VIRTIO_H

#include <stdint.h>

/* 2.1 device status */
#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u

/* 2.6 split virtqueues */
#define DESCRIPTOR_DEVICE_WRITES 2u
#define AVAILABLE_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u
struct virtio_descriptor { uint64_t pa; uint32_t size; uint16_t flags, next; };
struct virtio_used_element { uint32_t id, size; };
_Static_assert(sizeof(struct virtio_descriptor) == 16, "2.6.5");
_Static_assert(sizeof(struct virtio_used_element) == 8, "2.6.8");

/* 4.2.2 virtio over MMIO: register offsets */
#define MMIO_MAGIC 0x000
#define MMIO_VERSION 0x004
#define MMIO_DEVICE_ID 0x008
#define MMIO_DEVICE_FEATURES 0x010
#define MMIO_DEVICE_FEATURES_WORD 0x014
#define MMIO_DRIVER_FEATURES 0x020
#define MMIO_DRIVER_FEATURES_WORD 0x024
#define MMIO_QUEUE 0x030
#define MMIO_QUEUE_SIZE_MAX 0x034
#define MMIO_QUEUE_SIZE 0x038
#define MMIO_QUEUE_READY 0x044
#define MMIO_NOTIFY 0x050
#define MMIO_INTERRUPT 0x060
#define MMIO_INTERRUPT_ACKNOWLEDGE 0x064
#define MMIO_STATUS 0x070
#define MMIO_QUEUE_DESCRIPTORS 0x080 /* low word, high word; and so the next two */
#define MMIO_QUEUE_AVAILABLE 0x090
#define MMIO_QUEUE_USED 0x0a0
#define MMIO_CONFIGURATION 0x100
#define MMIO_MAGIC_VALUE 0x74726976u
#define MMIO_VERSION_VALUE 2u
#define INTERRUPT_CONFIGURATION 2u

/* 5.3 console device */
#define CONSOLE_DEVICE_ID 3u
#define CONSOLE_MULTIPORT 2u /* feature, word 0 */
#define CONSOLE_PORTS_MAX (MMIO_CONFIGURATION + 4)
#define CONSOLE_CONTROL_RX 2u
#define CONSOLE_CONTROL_TX 3u
#define CONSOLE_RX(port) (2u + 2u * (port)) /* port > 0 */
#define CONSOLE_TX(port) (3u + 2u * (port))
enum { CONTROL_DEVICE_READY = 0, CONTROL_PORT_ADD = 1, CONTROL_PORT_REMOVE = 2,
       CONTROL_PORT_READY = 3, CONTROL_PORT_OPEN = 6 };
struct virtio_control { uint32_t port; uint16_t event, value; };
_Static_assert(sizeof(struct virtio_control) == 8, "5.3.6.2");

/* 6 feature bits, word 1 */
#define FEATURE_VERSION_1 1u

#endif
