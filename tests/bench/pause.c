/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode pause: does a single operation now and then cost the server much more than usual?
 *
 * The samples are SERVER CPU time of mixed operations in a store of D domains, not wall-clock
 * time: that tells a collector's or allocator's pause from the scheduling of the machine. What the
 * server does on its own between two operations counts for the next one.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES_MAX	(1 << 20)
#define SETTLE_US	100000	/* after populating */
#define BETWEEN_US	20	/* the server goes to sleep, and its CPU is accounted */

static void one_operation(struct conn *conn, unsigned long number, int domains, char *names)
{
	int domid = 1 + any_below(domains);
	uint32_t tx_id;
	size_t size;

	switch (number % 4) {
	case 0:
		xs_list(conn, "/local/domain", names, &size);
		break;
	case 1:
		xs_write(conn, 0, "262144", "/local/domain/%d/memory/target", domid);
		break;
	case 2:
		xs_path(conn, XS_READ, 0, "/local/domain/%d/name", domid);
		break;
	case 3:
		tx_id = xs_start(conn);
		xs_write(conn, tx_id, "x", "/local/domain/%d/name", domid);
		xs_commit(conn, tx_id);
		break;
	}
}

int mode_pause(const char *mode)
{
	struct meter meter = { 0 };
	int domains = atoi(options.domains), domid;
	unsigned over_1ms = 0, over_10ms = 0;
	unsigned long number;
	struct conn *conn;
	char *names;
	uint64_t end, before, cpu_ns;

	if (strcmp(mode, "pause"))
		return 0;
	if (!options.server_pid || domains < 1)
		die("pause needs -P and -D");
	conn = conn_open();
	names = malloc(NAMES_MAX);
	for (domid = 1; domid <= domains; domid++)
		domain_populate(conn, domid);
	usleep(SETTLE_US);
	meter_start(&meter);
	before = server_cpu_ns();
	for (number = 0, end = end_ns(); now_ns() < end || !number; number++) {
		one_operation(conn, number, domains, names);
		usleep(BETWEEN_US);
		cpu_ns = server_cpu_ns() - before;
		before += cpu_ns;
		over_1ms += cpu_ns > 1000000;
		over_10ms += cpu_ns > 10000000;
		meter_add(&meter, cpu_ns);
	}
	meter_report(&meter, "pause-cpu", 1, ",\"D\":%d,\"over_1ms\":%u,\"over_10ms\":%u", domains,
		     over_1ms, over_10ms);
	free(names);
	conn_close(conn);
	return 1;
}
