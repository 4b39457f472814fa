/* SPDX-License-Identifier: Apache-2.0 */
/* Where lines go: a 16550 at the first serial port's place, or port 0xE9 (QEMU's isa-debugcon,
 * Xen's hvm_print_line), or nowhere.
 *
 *   C1. Writing always ends: a UART that is not there, or does not send, costs one bounded wait,
 *       once. From then on each piece gets a single look, so that it can recover.
 *   C2. The status is read once per filled FIFO, not once per character: under TCG each access to
 *       a port leaves the translated code.
 * Output is polled, so it works with interrupts off, and in crash.c. Knows nothing of input.
 * Source: PC16550D data sheet. */

#include "cpu.h"
#include "kernel.h"
#include "pv.h"

#define UART 0x3f8
#define UART_DATA (UART + 0)             /* with DIVISOR_LATCH: the divisor, low byte */
#define UART_INTERRUPT_ENABLE (UART + 1) /* with DIVISOR_LATCH: the divisor, high byte */
#define UART_FIFO (UART + 2)             /* reading it tells whether there is a FIFO */
#define UART_LINE (UART + 3)
#define UART_MODEM (UART + 4)
#define UART_STATUS (UART + 5)
#define UART_SCRATCH (UART + 7)
#define FIFO_ENABLE_AND_CLEAR 0x07
#define FIFO_WORKS 0xc0
#define LINE_8N1 0x03
#define LINE_DIVISOR_LATCH 0x80
#define MODEM_DTR_RTS 0x03
#define STATUS_EMPTY 0x20 /* of the transmitter: the FIFO takes FIFO_SIZE more */
#define FIFO_SIZE 16
#define PATIENCE 200000 /* reads of the status; 16 characters at 115200 baud take about 2000 */
#define DEBUG_PORT 0xe9
#define LOG_LINE_SIZE 256

static bool uart_is_there, uart_is_stuck;
static uint32_t uart_room, uart_fifo_size;

static void uart_init(void)
{
    outb(UART_SCRATCH, 0x5a);
    uart_is_there = inb(UART_SCRATCH) == 0x5a && inb(UART_STATUS) != 0xff;
    if (!uart_is_there)
        return;
    outb(UART_INTERRUPT_ENABLE, 0);
    outb(UART_LINE, LINE_DIVISOR_LATCH);
    outb(UART_DATA, 1); /* 115200 baud */
    outb(UART_INTERRUPT_ENABLE, 0);
    outb(UART_LINE, LINE_8N1);
    outb(UART_FIFO, FIFO_ENABLE_AND_CLEAR);
    outb(UART_MODEM, MODEM_DTR_RTS);
    uart_fifo_size = (inb(UART_FIFO) & FIFO_WORKS) == FIFO_WORKS ? FIFO_SIZE : 1;
}

/* C1. */
static bool uart_wait(void)
{
    for (uint32_t looks = uart_is_stuck ? 1 : PATIENCE; looks > 0; looks--)
        if (inb(UART_STATUS) & STATUS_EMPTY) {
            uart_is_stuck = false;
            uart_room = uart_fifo_size;
            return true;
        }
    uart_is_stuck = true;
    return false;
}

static bool uart_put(char byte)
{
    if (!uart_room && !uart_wait())
        return false;
    uart_room--;
    outb(UART_DATA, (uint8_t)byte);
    return true;
}

static void uart_write(const char *text, size_t size)
{
    for (size_t index = 0; uart_is_there && index < size; index++)
        if ((text[index] == '\n' && !uart_put('\r')) || !uart_put(text[index]))
            return; /* the rest of this piece is lost: better than a server that hangs */
}

void console_init(void)
{
    if (pv_is_on && options.console != CONSOLE_NONE)
        options.console = CONSOLE_PV; /* there are no ports */
    if (options.console == CONSOLE_UNSAID)
        options.console = xen_leaf() ? CONSOLE_E9 : CONSOLE_COM1;
    if (options.console == CONSOLE_COM1)
        uart_init();
}

void console_write(const char *text, size_t size)
{
    if (options.console == CONSOLE_COM1)
        uart_write(text, size);
    else if (options.console == CONSOLE_PV)
        pv_console_write(text, size);
    else if (options.console == CONSOLE_E9)
        for (size_t index = 0; index < size; index++)
            outb(DEBUG_PORT, (uint8_t)text[index]);
}

/* One line, cut off if it is too long. The text comes without its "\n". */
static void log_line(const char *text, __builtin_va_list list)
{
    static const char prefix[] = "[kernel] ";
    const size_t start = sizeof(prefix) - 1;
    char line[LOG_LINE_SIZE];
    memcpy(line, prefix, start);
    vformat(line + start, sizeof(line) - start, text, list);
    size_t size = strlen(line);
    line[size] = '\n'; /* in the place of the 0 */
    console_write(line, size + 1);
}

#define LOG_FUNCTION(name, level)               \
    void name(const char *text, ...)            \
    {                                           \
        if (options.log < (level))              \
            return;                             \
        __builtin_va_list list;                 \
        __builtin_va_start(list, text);         \
        log_line(text, list);                   \
        __builtin_va_end(list);                 \
    }
LOG_FUNCTION(log_error, LOG_ERROR)
LOG_FUNCTION(log_info, LOG_INFO)
LOG_FUNCTION(log_debug, LOG_DEBUG)
