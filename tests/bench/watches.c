/* SPDX-License-Identifier: Apache-2.0
 *
 * Modes of watches: fanout (one WRITE, -w watches hear of it), watchmiss (-w watches elsewhere and
 * -c idle connections: what do other requests cost?).
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <string.h>

static void mode_fanout(const char *mode)
{
	struct meter meter = { 0 };
	struct conn *writer = conn_open(), **conns = conn_open_many(options.conn_count);
	unsigned long wanted = 0;
	int i;

	xs_write(writer, 0, "0", "/bench/fan/node");
	for (i = 0; i < options.watch_count; i++)
		xs_watch(conns[i % options.conn_count], XS_WATCH, i, "/bench/fan");
	wait_events(conns, options.conn_count, wanted += options.watch_count);
	meter_start(&meter);
	TIMED(&meter) {
		xs_write(writer, 0, "1", "/bench/fan/node");
		wait_events(conns, options.conn_count, wanted += options.watch_count);
	}
	meter_report(&meter, mode, 1, ",\"watches\":%d,\"conns\":%d", options.watch_count,
		     options.conn_count);
	conn_close_many(conns, options.conn_count);
	conn_close(writer);
}

static void report_miss(struct meter *meter, const char *mode, int ops)
{
	meter_report(meter, mode, ops, ",\"watches\":%d,\"conns\":%d", options.watch_count,
		     options.conn_count);
}

static void measure_miss(struct conn *active, struct conn **conns)
{
	struct meter meter = { 0 };

	meter_start(&meter);
	TIMED(&meter)
		xs_write(active, 0, "abcdefghij", "/bench/k/%d/v", any_below(options.key_count));
	report_miss(&meter, "watchmiss-write", 1);
	meter_start(&meter);
	TIMED(&meter)
		xs_path(active, XS_READ, 0, "/bench/k/%d/v", any_below(options.key_count));
	report_miss(&meter, "watchmiss-read", 1);
	if (!options.watch_count)
		return;
	meter_start(&meter);
	TIMED(&meter) {
		int i = any_below(options.watch_count);
		struct conn *owner = conns[i % options.conn_count];

		xs_watch(owner, XS_UNWATCH, i, "/bench/w/%d/state", i);
		xs_watch(owner, XS_WATCH, i, "/bench/w/%d/state", i);
	}
	report_miss(&meter, "rewatch", 2);
}

static void mode_watchmiss(void)
{
	struct conn *active = conn_open(), **conns = conn_open_many(options.conn_count);

	make_keys(active);
	xs_watch_all(conns, options.conn_count, options.watch_count, "/bench/w/%d/state");
	xs_noop_all(conns, options.conn_count);	/* accepted, and their first events taken */
	measure_miss(active, conns);
	conn_close_many(conns, options.conn_count);
	conn_close(active);
}

int mode_watches(const char *mode)
{
	if (!strcmp(mode, "fanout"))
		mode_fanout(mode);
	else if (!strcmp(mode, "watchmiss"))
		mode_watchmiss();
	else
		return 0;
	return 1;
}
