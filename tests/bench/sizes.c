/* SPDX-License-Identifier: Apache-2.0
 *
 * Modes that grow the store: load (-n leaves, 100 in a directory), big-dir (one directory of -n
 * children). They leave their nodes behind.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <stdlib.h>
#include <string.h>

#define PER_DIRECTORY	100
#define TX_WRITES	5
#define NAMES_MAX	(1 << 20)

static void one_load_txn(struct conn *conn)
{
	uint32_t tx_id = xs_start(conn);
	int i;

	for (i = 0; i < TX_WRITES; i++) {
		int key = any_below(options.key_count);

		xs_write(conn, tx_id, "t", "/load/%d/%d", key / PER_DIRECTORY, key % PER_DIRECTORY);
	}
	xs_commit(conn, tx_id);
}

static void mode_load(void)
{
	struct meter meter = { 0 };
	struct conn *conn = conn_open();
	long rss0_kb = server_rss_kb();
	int i;

	meter_start(&meter);
	for (i = 0; i < options.key_count; i++) {
		uint64_t begin = now_ns();

		bulk_write(conn, "0123456789", "/load/%d/%d", i / PER_DIRECTORY, i % PER_DIRECTORY);
		meter_add(&meter, now_ns() - begin);
	}
	bulk_flush(conn);
	meter_report(&meter, "load", 1, ",\"nodes\":%d,\"rss0_kb\":%ld", options.key_count, rss0_kb);
	meter_start(&meter);
	TIMED(&meter) {
		i = any_below(options.key_count);
		xs_path(conn, XS_READ, 0, "/load/%d/%d", i / PER_DIRECTORY, i % PER_DIRECTORY);
	}
	meter_report(&meter, "load-read", 1, ",\"nodes\":%d", options.key_count);
	meter_start(&meter);
	TIMED(&meter) {
		i = any_below(options.key_count);
		xs_write(conn, 0, "9876543210", "/load/%d/%d", i / PER_DIRECTORY,
			 i % PER_DIRECTORY);
	}
	meter_report(&meter, "load-write", 1, ",\"nodes\":%d", options.key_count);
	meter_start(&meter);
	TIMED(&meter)
		one_load_txn(conn);
	meter_report(&meter, "load-txn", 1, ",\"nodes\":%d", options.key_count);
	conn_close(conn);
}

static void create_children(struct conn *conn)
{
	struct meter meter = { 0 };
	int i;

	meter_start(&meter);
	for (i = 0; i < options.key_count; i++) {
		uint64_t begin = now_ns();

		xs_write(conn, 0, "", "/big/%d", 10000 + i);
		meter_add(&meter, now_ns() - begin);
	}
	meter_report(&meter, "bigdir-create", 1, ",\"children\":%d", options.key_count);
}

static void mode_bigdir(void)
{
	struct meter meter = { 0 };
	struct conn *conn = conn_open();
	char *names = malloc(NAMES_MAX);
	size_t size;
	uint64_t begin;

	create_children(conn);
	meter_start(&meter);
	TIMED(&meter)
		if (xs_list(conn, "/big", names, &size) != options.key_count)
			die("not all children are listed");
	meter_report(&meter, "bigdir-list", 1, ",\"children\":%d", options.key_count);
	meter_start(&meter);
	TIMED(&meter) {
		xs_path(conn, XS_MKDIR, 0, "/big/new");
		xs_path(conn, XS_RM, 0, "/big/new");
	}
	meter_report(&meter, "bigdir-mkdirrm", 2, ",\"children\":%d", options.key_count);
	meter_start(&meter);
	TIMED(&meter)
		xs_path(conn, XS_READ, 0, "/big/%d", 10000 + any_below(options.key_count));
	meter_report(&meter, "bigdir-read", 1, ",\"children\":%d", options.key_count);
	meter_start(&meter);
	begin = now_ns();
	xs_path(conn, XS_RM, 0, "/big");
	meter_add(&meter, now_ns() - begin);
	meter_report(&meter, "bigdir-rmtree", 1, ",\"children\":%d", options.key_count);
	free(names);
	conn_close(conn);
}

int mode_sizes(const char *mode)
{
	if (!strcmp(mode, "load"))
		mode_load();
	else if (!strcmp(mode, "big-dir"))
		mode_bigdir();
	else
		return 0;
	return 1;
}
