/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: the kernel's own words, and the server's arguments.
 *
 *   L1. The line is outside bytes. What is wrong with it ends up in options.error, the first one
 *       wins; the word in question then counts as not said, and all others hold: who reports the
 *       error does it on the console that the line asks for.
 *   L2. Words are separated by spaces. Between double quotes a space is part of its word; there is
 *       no way to say a double quote.
 *   L3. Behind a word "--" everything is the server's. Before it the kernel's words are its own
 *       wherever they stand; others are the server's from the first one on that begins with "--".
 *       `--event PORT`, with which Xen's init-xenstore-domain begins, is the kernel's.
 *   L4. virtio_mmio.device= is the kernel's even behind a "--": QEMU's microvm appends it to
 *       whatever it was given.
 *   L5. Of a word that is said twice the last one counts (but devices add up).
 *   L6. After cmdline_parse() the region is page-aligned, at least REGION_SIZE_MIN, and ends within
 *       PHYSICAL_MAX; the arguments lie in its text and end with NULL.
 *
 * Knows nothing of the memory that is there: region.c refuses a region that is not RAM.
 * Change with: image/README.md, the list of words. */

#include "kernel.h"

#define WATCHDOG_DEFAULT_S 30
#define WATCHDOG_MAX_S 86400
#define IRQ_MAX 255

/* 0 to 15; 16: not a digit, in no base. */
static uint64_t digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return (uint64_t)(digit - '0');
    if (digit >= 'a' && digit <= 'f')
        return (uint64_t)(digit - 'a' + 10);
    if (digit >= 'A' && digit <= 'F')
        return (uint64_t)(digit - 'A' + 10);
    return 16;
}

/* The value at *text, which goes behind it: decimal, or hexadecimal behind 0x. */
static bool parse_number(const char **text, uint64_t *value)
{
    uint64_t base = starts_with(*text, "0x") ? 16 : 10;
    const char *at = base == 16 ? *text + 2 : *text, *first = at;
    for (*value = 0; digit_value(*at) < base; at++) {
        if (__builtin_mul_overflow(*value, base, value)
            || __builtin_add_overflow(*value, digit_value(*at), value))
            return false;
    }
    *text = at;
    return at > first;
}

/* A number, and K, M or G. */
static bool parse_size(const char **text, uint64_t *value)
{
    if (!parse_number(text, value))
        return false;
    uint64_t unit = 1;
    switch (**text) {
    case 'K': unit = 1 << 10; break;
    case 'M': unit = 1 << 20; break;
    case 'G': unit = 1 << 30; break;
    default: return true;
    }
    (*text)++;
    return !__builtin_mul_overflow(*value, unit, value);
}

/* -- one function per word: takes what stands behind its "=", answers NULL or what is wrong */

static const char *parse_region(struct options *parsed, const char *text)
{
    uint64_t size, pa = REGION_DEFAULT_PA;
    bool is_number = parse_size(&text, &size);
    if (is_number && *text == '@') {
        text++;
        is_number = parse_size(&text, &pa);
    }
    if (!is_number || *text != 0)
        return "not SIZE[@ADDRESS]";
    if (size < REGION_SIZE_MIN)
        return "the region is too small";
    if (size % PAGE_SIZE != 0 || pa % PAGE_SIZE != 0)
        return "the region is not page-aligned";
    if (size > PHYSICAL_MAX || pa > PHYSICAL_MAX - size)
        return "the region ends above 4 GiB";
    parsed->region_size = size;
    parsed->region_pa = pa;
    return NULL;
}

static const char *parse_seconds(uint32_t *to, const char *text)
{
    uint64_t seconds;
    if (!parse_number(&text, &seconds) || *text != 0)
        return "not SECONDS";
    if (seconds == 0 || seconds > WATCHDOG_MAX_S)
        return "neither one second nor a day nor between";
    *to = (uint32_t)seconds;
    return NULL;
}

static const char *parse_watchdog(struct options *parsed, const char *text)
{
    return parse_seconds(&parsed->watchdog_s, text);
}

static const char *parse_xen_watchdog(struct options *parsed, const char *text)
{
    return parse_seconds(&parsed->xen_watchdog_s, text);
}

static const char *parse_event(struct options *parsed, const char *text)
{
    uint64_t port;
    if (strcmp(text, "find") == 0) {
        parsed->event_port = EVENT_FIND;
        return NULL;
    }
    if (!parse_number(&text, &port) || *text != 0 || port == 0 || port >= EVENT_FIND)
        return "not --event PORT";
    parsed->event_port = (uint32_t)port;
    return NULL;
}

static const char *parse_virtio(struct options *parsed, const char *text)
{
    uint64_t size, pa, irq;
    if (!parse_size(&text, &size) || *text++ != '@' || !parse_size(&text, &pa)
        || *text++ != ':' || !parse_number(&text, &irq) || *text != 0)
        return "not SIZE@ADDRESS:IRQ";
    if (size == 0 || size > UINT32_MAX || pa > PHYSICAL_MAX - size || irq > IRQ_MAX)
        return "no such device can be";
    if (parsed->virtio_count == COUNT(parsed->virtio))
        return "too many devices";
    uint32_t index = parsed->virtio_count++;
    parsed->virtio[index].pa = pa;
    parsed->virtio[index].size = (uint32_t)size;
    parsed->virtio[index].irq = (uint32_t)irq;
    return NULL;
}

/* -- words */

#define VIRTIO_NAME "virtio_mmio.device="

static const struct {
    const char *name;
    const char *(*parse)(struct options *parsed, const char *text);
} known[] = {
    {"region=", parse_region}, {"watchdog=", parse_watchdog},
    {"xen-watchdog=", parse_xen_watchdog}, {VIRTIO_NAME, parse_virtio},
};

static const struct { const char *word; size_t offset; uint8_t value; } choices[] = {
    {"console=none", offsetof(struct options, console), CONSOLE_NONE},
    {"console=com1", offsetof(struct options, console), CONSOLE_COM1},
    {"console=e9", offsetof(struct options, console), CONSOLE_E9},
    {"log=error", offsetof(struct options, log), LOG_ERROR},
    {"log=info", offsetof(struct options, log), LOG_INFO},
    {"log=debug", offsetof(struct options, log), LOG_DEBUG},
    {"snapshot=off", offsetof(struct options, snapshot), false},
    {"snapshot=on", offsetof(struct options, snapshot), true},
    {"drill=off", offsetof(struct options, drill), false},
    {"drill=on", offsetof(struct options, drill), true},
};

static bool take_choice(struct options *parsed, const char *word)
{
    for (size_t index = 0; index < COUNT(choices); index++)
        if (strcmp(word, choices[index].word) == 0) {
            *((uint8_t *)parsed + choices[index].offset) = choices[index].value;
            return true;
        }
    return false;
}

/* The index in `known`, or COUNT(known). */
static size_t find_word(const char *word)
{
    size_t index = 0;
    while (index < COUNT(known) && !starts_with(word, known[index].name))
        index++;
    return index;
}

static void refuse(struct options *parsed, const char *why, const char *word)
{
    if (parsed->error[0] == 0)
        format(parsed->error, sizeof(parsed->error), "%s: %s", why, word);
}

static bool is_space(char letter)
{
    return letter == ' ' || (letter >= '\t' && letter <= '\r');
}

/* The next word at *text, which goes behind it; without its quotes, in place, terminated. NULL: no
 * more. *is_open: its quotes do not end. */
static char *next_word(char **text, bool *is_open)
{
    char *from = *text;
    while (is_space(*from))
        from++;
    if (*from == 0)
        return NULL;
    char *word = from, *to = from;
    *is_open = false;
    for (; *from != 0 && (*is_open || !is_space(*from)); from++) {
        if (*from == '"') {
            *is_open = !*is_open;
        } else {
            *to++ = *from;
        }
    }
    *text = *from != 0 ? from + 1 : from; /* before `to`, which may be there, is written */
    *to = 0;
    return word;
}

static const char *add_argument(struct options *parsed, char *word)
{
    if (parsed->argument_count + 1 == COUNT(parsed->arguments)) { /* the last one is NULL */
        return "too many arguments";
    }
    parsed->arguments[parsed->argument_count++] = word;
    return NULL;
}

static void set_defaults(struct options *parsed)
{
    memset(parsed, 0, sizeof(*parsed));
    parsed->region_pa = REGION_DEFAULT_PA;
    parsed->region_size = REGION_DEFAULT_SIZE;
    parsed->watchdog_s = WATCHDOG_DEFAULT_S;
    parsed->log = LOG_INFO;
    parsed->snapshot = true;
}

enum place { KERNELS, MIXED, SERVERS }; /* whose words come: L3 */

static const char *take_word(struct options *parsed, char *word, enum place *place)
{
    size_t index = find_word(word);
    if (index < COUNT(known) && (*place != SERVERS || starts_with(word, VIRTIO_NAME)))
        return known[index].parse(parsed, word + strlen(known[index].name));
    if (*place != SERVERS && take_choice(parsed, word))
        return NULL;
    if (*place != SERVERS && strcmp(word, "--") == 0) {
        *place = SERVERS;
        return NULL;
    }
    if (*place == KERNELS && starts_with(word, "--"))
        *place = MIXED;
    return *place == KERNELS ? "unknown word" : add_argument(parsed, word);
}

void cmdline_parse(struct options *parsed, const char *line)
{
    set_defaults(parsed);
    size_t size = strnlen(line, COMMAND_LINE_SIZE);
    if (size == COMMAND_LINE_SIZE) { /* no word of it: who knows which one is cut off */
        _Static_assert(COMMAND_LINE_SIZE == 2048, "the text below");
        refuse(parsed, "the command line is too long", "more than 2047 bytes");
        return;
    }
    memcpy(parsed->text, line, size); /* a NUL is behind it */
    char *text = parsed->text, *word;
    enum place place = KERNELS;
    bool is_open, is_event = false;
    while ((word = next_word(&text, &is_open)) != NULL) {
        const char *why = NULL;
        if (is_open) {
            why = "the quotes do not end";
        } else if (is_event) {
            is_event = false;
            why = parse_event(parsed, word);
        } else if (place != SERVERS && strcmp(word, "--event") == 0) {
            is_event = true;
        } else {
            why = take_word(parsed, word, &place);
        }
        if (why != NULL)
            refuse(parsed, why, word);
    }
    if (is_event)
        refuse(parsed, "no port", "--event");
}
