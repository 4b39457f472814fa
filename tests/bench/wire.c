/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections and messages: struct xsd_sockmsg over a unix socket, without libxenstore; or over a
 * ring, whose bytes rings.c moves.
 *
 * W1. A request that must succeed and does not ends the program: a failure is never a sample.
 * W2. Watch events met while waiting for a reply are counted, not kept.
 * Knows nothing of modes and of time.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BUFFER_SIZE	(1 << 18)
#define BODY_MAX	(BUFFER_SIZE / 2 - HEADER_SIZE)	/* oxenstored does not keep to 4096 */
#define BULK_REQUESTS	32
#define CONNECT_TRIES	200
#define CONNECT_WAIT_US	5000
#define EVENTS_WAIT_MS	20000

struct header {
	uint32_t type, req_id, tx_id, size;
};
_Static_assert(sizeof(struct header) == HEADER_SIZE, "struct xsd_sockmsg");

/* ---- connections --------------------------------------------------------------------------- */

struct conn *conn_new(void)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	conn->buffer = malloc(BUFFER_SIZE);
	return conn;
}

struct conn *conn_open_socket(void)
{
	struct conn *conn = conn_new();
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int i;

	if (strlen(options.socket_path) >= sizeof(address.sun_path))
		die("%s: too long for a unix socket", options.socket_path);
	strcpy(address.sun_path, options.socket_path);
	for (i = 0; i < CONNECT_TRIES; i++) {
		conn->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (conn->fd < 0)
			die("socket");
		if (!connect(conn->fd, (void *)&address, sizeof(address)))
			return conn;
		close(conn->fd);
		usleep(CONNECT_WAIT_US);	/* a full backlog, or a server that restarts */
	}
	die("connect %s", options.socket_path);
}

/* What modes measure: a socket, or a guest of its own. */
struct conn *conn_open(void)
{
	return options.is_on_rings ? ring_open_next() : conn_open_socket();
}

struct conn **conn_open_many(int count)
{
	struct conn **conns = calloc(count, sizeof(*conns));
	int i;

	for (i = 0; i < count; i++)
		conns[i] = conn_open();
	return conns;
}

void conn_close(struct conn *conn)
{
	if (conn->ring)
		ring_close(conn);
	close(conn->fd);
	free(conn->buffer);
	free(conn);
}

void conn_close_many(struct conn **conns, int count)
{
	int i;

	for (i = 0; i < count; i++)
		conn_close(conns[i]);
	free(conns);
}

/* ---- messages ------------------------------------------------------------------------------ */

static void payload_add(struct payload *payload, const char *format, va_list args)
{
	size_t room = sizeof(payload->bytes) - payload->size;
	int length = vsnprintf(payload->bytes + payload->size, room, format, args);

	if (length < 0 || (size_t)length >= room)
		die("payload too long: %s", format);
	payload->size += length + 1;
}

/* Append a string with its NUL. */
void payload_text(struct payload *payload, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	payload_add(payload, format, args);
	va_end(args);
}

/* Append bytes without a NUL: the value of a WRITE. */
void payload_value(struct payload *payload, const char *value)
{
	size_t length = strlen(value);

	if (length > sizeof(payload->bytes) - payload->size)
		die("value too long");
	memcpy(payload->bytes + payload->size, value, length);
	payload->size += length;
}

/* One packet to `out`, which has room for MESSAGE_MAX; returns its size. */
size_t wire_put(uint8_t *out, struct conn *conn, uint32_t type, uint32_t tx_id,
		const struct payload *payload)
{
	struct header header = { type, ++conn->req_id, tx_id, payload->size };

	memcpy(out, &header, HEADER_SIZE);
	memcpy(out + HEADER_SIZE, payload->bytes, payload->size);
	return HEADER_SIZE + payload->size;
}

void wire_send(struct conn *conn, const uint8_t *data, size_t size)
{
	if (conn->ring) {
		ring_send(conn, data, size);
		return;
	}
	while (size) {
		ssize_t sent = send(conn->fd, data, size, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			die("the server does not take our bytes");
		data += sent;
		size -= sent;
	}
}

/* Where the next bytes go to: room for `size` of them, behind those not yet parsed. */
uint8_t *wire_room(struct conn *conn, size_t size)
{
	if (conn->offset && (!conn->unread || conn->offset > BUFFER_SIZE / 2)) {
		memmove(conn->buffer, conn->buffer + conn->offset, conn->unread);
		conn->offset = 0;
	}
	if (size > BUFFER_SIZE - conn->offset - conn->unread)
		die("too many replies wait to be parsed");
	return conn->buffer + conn->offset + conn->unread;
}

static void receive(struct conn *conn)
{
	uint8_t *room = wire_room(conn, 1);
	ssize_t got;

	do
		got = read(conn->fd, room, conn->buffer + BUFFER_SIZE - room);
	while (got < 0 && errno == EINTR);
	if (got <= 0)
		die("the server closed the connection");
	conn->unread += got;
}

/* Wait for something and take it in; a ring may have nothing then all the same. */
void wire_receive(struct conn *conn)
{
	if (conn->ring)
		ring_receive(conn);
	else
		receive(conn);
}

/* The same where poll has said that there is something: does not wait. */
void wire_receive_ready(struct conn *conn)
{
	if (conn->ring)
		ring_receive_ready(conn, 0);
	else
		receive(conn);
}

/* Take one message out of the buffer; 0 if none is complete. Events are counted here. */
int wire_parse(struct conn *conn)
{
	struct header header;

	if (conn->unread < HEADER_SIZE)
		return 0;
	memcpy(&header, conn->buffer + conn->offset, HEADER_SIZE);
	if (header.size > BODY_MAX)
		die("a message of type %u has %u bytes", header.type, header.size);
	if (conn->unread < HEADER_SIZE + header.size)
		return 0;
	conn->type = header.type;
	conn->size = header.size;
	conn->body = conn->buffer + conn->offset + HEADER_SIZE;
	conn->offset += HEADER_SIZE + header.size;
	conn->unread -= HEADER_SIZE + header.size;
	conn->events += header.type == XS_WATCH_EVENT;
	return 1;
}

static uint32_t wait_reply(struct conn *conn)
{
	for (;;) {
		while (wire_parse(conn))
			if (conn->type != XS_WATCH_EVENT)
				return conn->type;
		wire_receive(conn);
	}
}

static void post(struct conn *conn, uint32_t type, uint32_t tx_id, const struct payload *payload)
{
	uint8_t packet[MESSAGE_MAX];

	wire_send(conn, packet, wire_put(packet, conn, type, tx_id, payload));
}

/* A request and its reply; returns the reply's type. */
static uint32_t call(struct conn *conn, uint32_t type, uint32_t tx_id,
		     const struct payload *payload)
{
	post(conn, type, tx_id, payload);
	return wait_reply(conn);
}

static void refuse_error(struct conn *conn, const char *what)
{
	if (conn->type != XS_ERROR)
		return;
	errno = 0;
	die("%s: %.*s", what, (int)conn->size, conn->body);
}

void wire_must(struct conn *conn, uint32_t type, uint32_t tx_id, const struct payload *payload)
{
	char what[PAYLOAD_MAX + 32];

	if (call(conn, type, tx_id, payload) == XS_ERROR) {
		snprintf(what, sizeof(what), "request of type %u on %s", type, payload->bytes);
		refuse_error(conn, what);
	}
}

/* ---- requests ------------------------------------------------------------------------------ */

/* A request that has one argument, a path (or a domid). */
void xs_path(struct conn *conn, uint32_t type, uint32_t tx_id, const char *format, ...)
{
	struct payload payload;
	va_list args;

	payload.size = 0;
	va_start(args, format);
	payload_add(&payload, format, args);
	va_end(args);
	wire_must(conn, type, tx_id, &payload);
}

void xs_write(struct conn *conn, uint32_t tx_id, const char *value, const char *format, ...)
{
	struct payload payload;
	va_list args;

	payload.size = 0;
	va_start(args, format);
	payload_add(&payload, format, args);
	va_end(args);
	payload_value(&payload, value);
	wire_must(conn, XS_WRITE, tx_id, &payload);
}

/* WATCH or UNWATCH. */
void xs_watch(struct conn *conn, uint32_t type, int token, const char *format, ...)
{
	struct payload payload;
	va_list args;

	payload.size = 0;
	va_start(args, format);
	payload_add(&payload, format, args);
	va_end(args);
	payload_text(&payload, "t%d", token);
	wire_must(conn, type, 0, &payload);
}

/* The cheapest request. Also a way to swallow events that are due. */
void xs_noop(struct conn *conn)
{
	xs_path(conn, XS_GET_DOMAIN_PATH, 0, "0");
}

/* One on every connection at the same time: a server that looks at all connections before it
 * serves one would need minutes for thousands of them one by one. */
void xs_noop_all(struct conn **conns, int count)
{
	struct payload payload = { .size = 2, .bytes = "0" };
	int i;

	for (i = 0; i < count; i++)
		post(conns[i], XS_GET_DOMAIN_PATH, 0, &payload);
	for (i = 0; i < count; i++) {
		wait_reply(conns[i]);
		refuse_error(conns[i], "GET_DOMAIN_PATH");
	}
}

/* Watches 0 to `watches` - 1 on paths that the number makes different, in the same way. */
void xs_watch_all(struct conn **conns, int count, int watches, const char *format)
{
	struct payload payload;
	int first, i;

	for (first = 0; first < watches; first += count) {
		for (i = first; i < watches && i < first + count; i++) {
			payload.size = 0;
			payload_text(&payload, format, i);
			payload_text(&payload, "t%d", i);
			post(conns[i % count], XS_WATCH, 0, &payload);
		}
		for (i = first; i < watches && i < first + count; i++) {
			wait_reply(conns[i % count]);
			refuse_error(conns[i % count], "WATCH");
		}
	}
}

uint32_t xs_start(struct conn *conn)
{
	xs_path(conn, XS_TRANSACTION_START, 0, "%s", "");
	return strtoul((char *)conn->body, NULL, 10);
}

/* Returns whether the transaction was committed; a conflict (EAGAIN) is 0. */
int xs_commit(struct conn *conn, uint32_t tx_id)
{
	struct payload payload = { .size = 2, .bytes = "T" };

	if (call(conn, XS_TRANSACTION_END, tx_id, &payload) != XS_ERROR)
		return 1;
	if (strcmp((char *)conn->body, "EAGAIN"))
		refuse_error(conn, "commit");
	return 0;
}

/* DIRECTORY as libxenstore does it, with DIRECTORY_PART for what one message does not hold.
 * Returns the number of children, -1 if there is no such node; names are NUL-terminated. */
int xs_list(struct conn *conn, const char *path, char *names, size_t *size)
{
	struct payload payload = { .size = 0 };
	size_t i, head;
	int count = 0;

	payload_text(&payload, "%s", path);
	*size = 0;
	if (call(conn, XS_DIRECTORY, 0, &payload) != XS_ERROR) {
		memcpy(names, conn->body, conn->size);
		*size = conn->size;
	} else if (!strcmp((char *)conn->body, "E2BIG")) {
		do {
			payload.size = 0;
			payload_text(&payload, "%s", path);
			payload_text(&payload, "%zu", *size);
			wire_must(conn, XS_DIRECTORY_PART, 0, &payload);
			head = strlen((char *)conn->body) + 1;	/* the generation */
			memcpy(names + *size, conn->body + head, conn->size - head);
			*size += conn->size - head;
		} while (*size < 2 || names[*size - 1] || names[*size - 2]);
		(*size)--;
	} else {
		return -1;
	}
	for (i = 0; i < *size; i++)
		count += !names[i];
	return count;
}

/* ---- many at once -------------------------------------------------------------------------- */

static struct {
	uint8_t bytes[BULK_REQUESTS * MESSAGE_MAX];
	size_t size;
	int count;
} bulk;

/* A WRITE that is sent together with others; not in a transaction. */
void bulk_write(struct conn *conn, const char *value, const char *format, ...)
{
	struct payload payload;
	va_list args;

	payload.size = 0;
	va_start(args, format);
	payload_add(&payload, format, args);
	va_end(args);
	payload_value(&payload, value);
	bulk.size += wire_put(bulk.bytes + bulk.size, conn, XS_WRITE, 0, &payload);
	if (++bulk.count == BULK_REQUESTS)
		bulk_flush(conn);
}

void bulk_flush(struct conn *conn)
{
	wire_send(conn, bulk.bytes, bulk.size);
	bulk.size = 0;
	for (; bulk.count; bulk.count--) {
		wait_reply(conn);
		refuse_error(conn, "WRITE");
	}
}

static unsigned long count_events(struct conn **conns, int count)
{
	unsigned long events = 0;
	int i;

	for (i = 0; i < count; i++) {
		while (wire_parse(conns[i]))
			;
		events += conns[i]->events;
	}
	return events;
}

/* Wait until the connections have seen `wanted` events in all. */
void wait_events(struct conn **conns, int count, unsigned long wanted)
{
	struct pollfd polled[count];
	int i;

	for (i = 0; i < count; i++)
		polled[i] = (struct pollfd){ .fd = conns[i]->fd, .events = POLLIN };
	while (count_events(conns, count) < wanted) {
		if (poll(polled, count, EVENTS_WAIT_MS) <= 0)
			die("events lost: %lu of %lu came", count_events(conns, count), wanted);
		for (i = 0; i < count; i++)
			if (polled[i].revents)
				wire_receive_ready(conns[i]);
	}
}
