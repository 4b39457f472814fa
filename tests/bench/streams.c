/* SPDX-License-Identifier: Apache-2.0
 *
 * Modes that keep many requests in flight: pipe-read, pipe-write (-k on one connection),
 * multi-read, multi-write (one on each of -c connections).
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define READY_MAX	256
#define STALLED_MS	10000

static size_t put_request(uint8_t *out, struct conn *conn, int writes)
{
	struct payload payload = { .size = 0 };

	payload_text(&payload, "/bench/k/%d/v", any_below(options.key_count));
	if (writes)
		payload_value(&payload, "abcdefghij");
	return wire_put(out, conn, writes ? XS_WRITE : XS_READ, 0, &payload);
}

static void refuse_error(struct conn *conn)
{
	if (conn->type == XS_ERROR)
		die("in a stream: %.*s", (int)conn->size, conn->body);
}

/* Refill to the depth whenever replies have come; drain at the end. */
static void pipe_requests(struct conn *conn, struct meter *meter, int writes)
{
	uint64_t *since_ns = calloc(options.depth, sizeof(*since_ns));
	uint8_t *packets = malloc((size_t)options.depth * MESSAGE_MAX);
	uint64_t end = end_ns();
	size_t head = 0, tail = 0, size;

	for (;;) {
		int is_over = head && now_ns() > end;

		for (size = 0; !is_over && head - tail < (size_t)options.depth; head++) {
			since_ns[head % options.depth] = now_ns();
			size += put_request(packets + size, conn, writes);
		}
		if (size)
			wire_send(conn, packets, size);
		if (head == tail)
			break;
		wire_receive(conn);
		while (wire_parse(conn)) {
			refuse_error(conn);
			meter_add(meter, now_ns() - since_ns[tail++ % options.depth]);
		}
	}
	free(packets);
	free(since_ns);
}

static void mode_pipe(const char *mode, int writes)
{
	struct meter meter = { 0 };
	struct conn *conn = conn_open();

	make_keys(conn);
	meter_start(&meter);
	pipe_requests(conn, &meter, writes);
	meter_report(&meter, mode, 1, ",\"depth\":%d", options.depth);
	conn_close(conn);
}

static void send_one(struct conn *conn, int writes)
{
	uint8_t packet[MESSAGE_MAX];
	size_t size = put_request(packet, conn, writes);

	conn->since_ns = now_ns();
	wire_send(conn, packet, size);
}

/* Every reply is followed by the next request on its connection, until time is over. Returns how
 * many connections have nothing more to do. */
static int serve_replies(struct conn *conn, struct meter *meter, int writes, uint64_t end)
{
	int done = 0;

	while (wire_parse(conn)) {
		uint64_t now = now_ns();

		refuse_error(conn);
		meter_add(meter, now - conn->since_ns);
		if (now < end)
			send_one(conn, writes);
		else
			done++;
	}
	return done;
}

static void serve_all(int poll_fd, struct conn **conns, struct meter *meter, int writes)
{
	struct epoll_event ready[READY_MAX];
	uint64_t end = end_ns();
	int busy = options.conn_count, waited_ms = 0, i;
	int wait_ms = options.is_on_rings ? RING_LOOK_MS : STALLED_MS;

	while (busy) {
		int count = epoll_wait(poll_fd, ready, READY_MAX, wait_ms);

		waited_ms = count > 0 ? 0 : waited_ms + wait_ms;
		if (waited_ms >= STALLED_MS)
			die("stalled: %d connections wait for replies", busy);
		for (i = 0; i < count; i++) {
			wire_receive_ready(ready[i].data.ptr);
			busy -= serve_replies(ready[i].data.ptr, meter, writes, end);
		}
		for (i = 0; count <= 0 && i < options.conn_count; i++)
			if (ring_receive_ready(conns[i], 1))
				busy -= serve_replies(conns[i], meter, writes, end);
	}
}

static void mode_multi(const char *mode, int writes)
{
	struct meter meter = { 0 };
	struct conn *first = conn_open(), **conns;
	int poll_fd = epoll_create1(EPOLL_CLOEXEC), i;

	make_keys(first);
	conns = conn_open_many(options.conn_count);
	for (i = 0; i < options.conn_count; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = conns[i] };

		if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, conns[i]->fd, &event))
			die("epoll_ctl");
	}
	xs_noop_all(conns, options.conn_count);	/* the server has accepted them */
	meter_start(&meter);
	for (i = 0; i < options.conn_count; i++)
		send_one(conns[i], writes);
	serve_all(poll_fd, conns, &meter, writes);
	meter_report(&meter, mode, 1, ",\"conns\":%d", options.conn_count);
	conn_close_many(conns, options.conn_count);
	conn_close(first);
	close(poll_fd);
}

int mode_streams(const char *mode)
{
	if (!strcmp(mode, "pipe-read") || !strcmp(mode, "pipe-write"))
		mode_pipe(mode, !strcmp(mode, "pipe-write"));
	else if (!strcmp(mode, "multi-read") || !strcmp(mode, "multi-write"))
		mode_multi(mode, !strcmp(mode, "multi-write"));
	else
		return 0;
	return 1;
}
