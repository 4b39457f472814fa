/* SPDX-License-Identifier: Apache-2.0
 *
 * Modes of transactions: txn, txn-read, txn-conflict, txn-par, txn-sib. One operation is one
 * transaction that got through, with all its tries.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <string.h>

#define REQUESTS	5	/* in a transaction */
#define NAMES		50	/* that txn-par writes again and again */
#define STAGGER		6	/* rounds over which txn-sib spreads its starts */

static int key_after(int base, int i)
{
	return (base + i) % options.key_count;
}

static void write_keys(struct conn *conn, uint32_t tx_id, int base)
{
	int i;

	for (i = 0; i < REQUESTS; i++)
		xs_write(conn, tx_id, "txvalue", "/bench/k/%d/v", key_after(base, i));
}

static void read_keys(struct conn *conn, uint32_t tx_id, int base)
{
	int i;

	for (i = 0; i < REQUESTS; i++)
		xs_path(conn, XS_READ, tx_id, "/bench/k/%d/v", key_after(base, i));
}

static void mode_plain(const char *mode, void (*requests)(struct conn *, uint32_t, int))
{
	struct meter meter = { 0 };
	struct conn *conn = conn_open();
	unsigned long eagain = 0;

	make_keys(conn);
	meter_start(&meter);
	TIMED(&meter) {
		uint32_t tx_id = xs_start(conn);

		requests(conn, tx_id, any_below(options.key_count));
		eagain += !xs_commit(conn, tx_id);
	}
	meter_report(&meter, mode, 1, ",\"eagain\":%lu", eagain);
	conn_close(conn);
}

/* Somebody else writes what the first try has read; the second try is left in peace. */
static void mode_conflict(const char *mode)
{
	struct meter meter = { 0 };
	struct conn *conn = conn_open(), *other = conn_open();
	unsigned long eagain = 0;

	make_keys(conn);
	meter_start(&meter);
	TIMED(&meter) {
		int base = any_below(options.key_count), tries = 0;
		uint32_t tx_id;

		do {
			tx_id = xs_start(conn);
			xs_path(conn, XS_READ, tx_id, "/bench/k/%d/v", base);
			write_keys(conn, tx_id, base);
			if (!tries++)
				xs_write(other, 0, "other", "/bench/k/%d/v", base);
		} while (!xs_commit(conn, tx_id));
		eagain += tries - 1;
	}
	meter_report(&meter, mode, 1, ",\"eagain\":%lu", eagain);
	conn_close(conn);
	conn_close(other);
}

/* One step of a connection's transaction: start, a write, or the commit. Returns 1 for a commit
 * that got through, -1 for one that has to be tried again. */
static int step(struct conn *conn, int index, int is_sibling, long *next_job)
{
	if (conn->step < 0 && ++conn->step < 0)
		return 0;	/* not its turn yet */
	if (conn->step == 0) {
		if (!conn->job) {
			conn->job = ++*next_job;
			conn->since_ns = now_ns();
		}
		conn->tx_id = xs_start(conn);
		conn->step = 1;
	} else if (conn->step <= REQUESTS) {
		if (is_sibling)
			xs_write(conn, conn->tx_id, "v", "/bench/sib/%ld/n%d", conn->job,
				 conn->step);
		else
			xs_write(conn, conn->tx_id, "v", "/bench/tp/%d/n%ld-%d", index,
				 conn->job % NAMES, conn->step);
		conn->step++;
	} else {
		conn->step = 0;
		if (!xs_commit(conn, conn->tx_id))
			return -1;
		conn->job = 0;
		return 1;
	}
	return 0;
}

/* -c transactions at a time, interleaved request by request. txn-par: each in a directory of its
 * own. txn-sib: each makes a new child of one shared directory, as domain creation does. */
static void mode_interleaved(const char *mode, int is_sibling)
{
	struct meter meter = { 0 };
	struct conn *first = conn_open(), **conns = conn_open_many(options.conn_count);
	const char *top = is_sibling ? "/bench/sib" : "/bench/tp";
	unsigned long eagain = 0;
	long next_job = 0;
	uint64_t end;
	int i;

	xs_write(first, 0, "", "%s", top);
	for (i = 0; i < options.conn_count; i++) {
		if (is_sibling)
			conns[i]->step = -1 - i % STAGGER;
		else
			xs_write(first, 0, "", "%s/%d", top, i);
	}
	meter_start(&meter);
	for (end = end_ns(); now_ns() < end || !meter.count; )
		for (i = 0; i < options.conn_count; i++) {
			int outcome = step(conns[i], i, is_sibling, &next_job);

			if (outcome > 0)
				meter_add(&meter, now_ns() - conns[i]->since_ns);
			eagain += outcome < 0;
		}
	meter_report(&meter, mode, 1, ",\"conns\":%d,\"eagain\":%lu", options.conn_count, eagain);
	conn_close_many(conns, options.conn_count);
	xs_path(first, XS_RM, 0, "%s", top);
	conn_close(first);
}

int mode_transactions(const char *mode)
{
	if (!strcmp(mode, "txn"))
		mode_plain(mode, write_keys);
	else if (!strcmp(mode, "txn-read"))
		mode_plain(mode, read_keys);
	else if (!strcmp(mode, "txn-conflict"))
		mode_conflict(mode);
	else if (!strcmp(mode, "txn-par") || !strcmp(mode, "txn-sib"))
		mode_interleaved(mode, !strcmp(mode, "txn-sib"));
	else
		return 0;
	return 1;
}
