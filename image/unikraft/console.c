/* SPDX-License-Identifier: Apache-2.0 */
/* A PV domain's console, for writing only. Unikraft's own waits for ever until xenconsoled takes
 * what is there; that program needs xenstore, so in a xenstore domain it comes after us.
 *
 * O1. Nothing here waits: lines that nobody takes away in time are lost.
 * Change with: image/kernel/console.c, which does the same. */

#include <stdint.h>
#include <stddef.h>

#include <common/events.h>
#include <common/hypervisor.h>
#include <uk/boot/earlytab.h>
#include <uk/console/driver.h>
#include <uk/prio.h>
#include <xen-x86/mm.h>
#include <xen-x86/setup.h>
#include <xen/io/console.h>

static struct xencons_interface *ring;
static uint32_t port;

static void put(char character)
{
    XENCONS_RING_IDX at = ring->out_prod;
    if (at - ring->out_cons >= sizeof(ring->out))
        return;
    ring->out[MASK_XENCONS_IDX(at, ring->out)] = character;
    __asm__ volatile("" : : : "memory"); /* x86 keeps the order of stores */
    ring->out_prod = at + 1;
}

static __ssz console_out(struct uk_console *device, const char *text, __sz size)
{
    (void)device;
    for (__sz index = 0; index < size; index++) {
        if (text[index] == '\n')
            put('\r');
        put(text[index]);
    }
    struct evtchn_send send = {.port = port};
    if (port)
        HYPERVISOR_event_channel_op(EVTCHNOP_send, &send);
    return (__ssz)size;
}

static __ssz console_in(struct uk_console *device, char *to, __sz size)
{
    (void)device, (void)to, (void)size;
    return 0;
}

static const struct uk_console_ops operations = {.out = console_out, .in = console_in};
static struct uk_console console;

static int console_init(struct ukplat_bootinfo *info)
{
    (void)info;
    if (!HYPERVISOR_start_info->console.domU.mfn)
        return 0;
    ring = mfn_to_virt(HYPERVISOR_start_info->console.domU.mfn);
    port = HYPERVISOR_start_info->console.domU.evtchn;
    uk_console_init(&console, "Xen", &operations, UK_CONSOLE_FLAG_STDOUT);
    uk_console_register(&console);
    return 0;
}

UK_BOOT_EARLYTAB_ENTRY(console_init, UK_PRIO_AFTER(UK_PRIO_EARLIEST));
