/* SPDX-License-Identifier: Apache-2.0 */
/* Text from a format, into a buffer.
 *
 *   F1. Never more than `size` bytes are written; the last of them is a NUL, unless size is 0.
 *   F2. What is understood: %s %u %x %%, a width, 0 in front of a number's width, l and z.
 *       Anything else comes out as it stands, and the arguments behind it are then not its own:
 *       tests/image looks for such formats in the whole kernel.
 *   F3. Nothing here can fail or panic: crash.c reports with it.
 *
 * Knows nothing of where the text goes. */

#include "kernel.h"

struct output {
    char *to;
    size_t size, length; /* bytes of the buffer; bytes of the text so far, written or not */
};

struct conversion {
    bool is_zero_padded, is_long;
    size_t width;
    char letter; /* NUL: the format ended in the middle */
};

#define DIGITS_MAX 20 /* of 2^64 in decimal */

static void put(struct output *output, char letter)
{
    if (output->length < output->size)
        output->to[output->length] = letter;
    output->length++;
}

static void put_text(struct output *output, const char *text, size_t size)
{
    for (size_t index = 0; index < size; index++)
        put(output, text[index]);
}

static void pad(struct output *output, char letter, size_t length, size_t width)
{
    for (; length < width; length++)
        put(output, letter);
}

static void put_number(struct output *output, const struct conversion *how, uint64_t value,
                       uint32_t base)
{
    char digits[DIGITS_MAX];
    size_t first = DIGITS_MAX;
    do {
        digits[--first] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value > 0);
    pad(output, how->is_zero_padded ? '0' : ' ', DIGITS_MAX - first, how->width);
    put_text(output, digits + first, DIGITS_MAX - first);
}

/* `text` is behind the '%'; returns what is behind the conversion. */
static const char *parse(const char *text, struct conversion *how)
{
    *how = (struct conversion){0};
    for (; *text == '0'; text++)
        how->is_zero_padded = true;
    for (; *text >= '0' && *text <= '9'; text++)
        how->width = how->width * 10 + (size_t)(*text - '0');
    for (; *text == 'l' || *text == 'z'; text++)
        how->is_long = true;
    how->letter = *text;
    return *text != 0 ? text + 1 : text;
}

/* The arguments are passed by address, because a va_list is used up by whom it is passed to. */
struct arguments { __builtin_va_list list; };

static uint64_t next_unsigned(const struct conversion *how, struct arguments *arguments)
{
    return how->is_long ? __builtin_va_arg(arguments->list, uint64_t)
                        : __builtin_va_arg(arguments->list, uint32_t);
}

/* false: no such conversion; no argument was taken. */
static bool put_argument(struct output *output, const struct conversion *how,
                         struct arguments *arguments)
{
    switch (how->letter) {
    case 's': {
        const char *text = __builtin_va_arg(arguments->list, const char *);
        text = text != NULL ? text : "(null)";
        pad(output, ' ', strlen(text), how->width);
        put_text(output, text, strlen(text));
        return true;
    }
    case 'u':
        put_number(output, how, next_unsigned(how, arguments), 10);
        return true;
    case 'x':
        put_number(output, how, next_unsigned(how, arguments), 16);
        return true;
    case '%':
        put(output, '%');
        return true;
    default:
        return false;
    }
}

int vformat(char *to, size_t size, const char *text, __builtin_va_list list)
{
    struct output output = {to, size, 0};
    struct arguments arguments;
    __builtin_va_copy(arguments.list, list);
    while (*text != 0) {
        if (*text != '%') {
            put(&output, *text++);
            continue;
        }
        struct conversion how;
        const char *behind = parse(text + 1, &how);
        if (!put_argument(&output, &how, &arguments))
            put_text(&output, text, (size_t)(behind - text));
        text = behind;
    }
    __builtin_va_end(arguments.list);
    if (size > 0)
        to[output.length < size ? output.length : size - 1] = 0;
    return (int)output.length;
}

int format(char *to, size_t size, const char *text, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, text);
    int length = vformat(to, size, text, list);
    __builtin_va_end(list);
    return length;
}
