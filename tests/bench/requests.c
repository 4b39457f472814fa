/* SPDX-License-Identifier: Apache-2.0
 *
 * Modes of one request at a time on one connection: noop, read, write, perms, dir, mkdirrm,
 * connect.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <string.h>

#define CHILDREN 20

/* What most modes read and write: -n leaves, each in a directory of its own. */
void make_keys(struct conn *conn)
{
	int i;

	for (i = 0; i < options.key_count; i++)
		bulk_write(conn, "0123456789", "/bench/k/%d/v", i);
	for (i = 0; i < CHILDREN; i++)
		bulk_write(conn, "x", "/bench/d%d/child-%d", CHILDREN, i);
	bulk_flush(conn);
}

static void one_noop(struct conn *conn)
{
	xs_noop(conn);
}

static void one_read(struct conn *conn)
{
	xs_path(conn, XS_READ, 0, "/bench/k/%d/v", any_below(options.key_count));
}

static void one_write(struct conn *conn)
{
	xs_write(conn, 0, "abcdefghij", "/bench/k/%d/v", any_below(options.key_count));
}

static void one_perms(struct conn *conn)
{
	xs_path(conn, XS_GET_PERMS, 0, "/bench/k/%d/v", any_below(options.key_count));
}

static void one_dir(struct conn *conn)
{
	xs_path(conn, XS_DIRECTORY, 0, "/bench/d%d", CHILDREN);
}

static void one_mkdirrm(struct conn *conn)
{
	int key = any_below(options.key_count);

	xs_path(conn, XS_MKDIR, 0, "/bench/mk/%d", key);
	xs_path(conn, XS_RM, 0, "/bench/mk/%d", key);
}

static void one_connect(struct conn *conn)
{
	struct conn *other = conn_open();

	(void)conn;
	xs_noop(other);
	conn_close(other);
}

static const struct {
	const char *mode;
	void (*one)(struct conn *conn);
	int ops;
} MODES[] = {
	{ "noop", one_noop, 1 },
	{ "read", one_read, 1 },
	{ "write", one_write, 1 },
	{ "perms", one_perms, 1 },
	{ "dir", one_dir, 1 },
	{ "mkdirrm", one_mkdirrm, 2 },
	{ "connect", one_connect, 1 },
};

int mode_requests(const char *mode)
{
	struct meter meter = { 0 };
	struct conn *conn;
	size_t i;

	for (i = 0; strcmp(MODES[i].mode, mode); )
		if (++i == sizeof(MODES) / sizeof(MODES[0]))
			return 0;
	conn = conn_open();
	make_keys(conn);
	meter_start(&meter);
	TIMED(&meter)
		MODES[i].one(conn);
	if (MODES[i].one == one_dir)
		meter_report(&meter, mode, 1, ",\"children\":%d", CHILDREN);
	else
		meter_report(&meter, mode, MODES[i].ops, "%s", "");
	conn_close(conn);
	return 1;
}
