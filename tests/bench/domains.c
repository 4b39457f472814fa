/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode scale: a host with D domains of 53 nodes each, for every D of the list -D, growing.
 *
 * Each step: populate, add -w watches a domain, INTRODUCE (-i), read, write, write until the
 * watcher has the event (notify), list, create and destroy one more domain, walk (unless -q); at
 * the end RM of everything.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX	(1 << 20)
#define CREATED		30	/* leaves that a toolstack writes for a new domain */
#define CREATED_WATCHES	3
#define CREATES_MIN	3
#define RMTREE_MAX	1000	/* domains; beyond, C xenstored needs half a minute */

/* 37 leaves, 53 nodes; as below, every format takes the domid. */
static const struct {
	const char *format, *value;
} LEAVES[] = {
	{ "/local/domain/%d/vm", "/vm/0f3b2c1e-6d1a-4c9e-9f0a-0123456789ab" },
	{ "/local/domain/%d/name", "guest" },
	{ "/local/domain/%d/domid", "1" },
	{ "/local/domain/%d/cpu/0/availability", "online" },
	{ "/local/domain/%d/memory/static-max", "524288" },
	{ "/local/domain/%d/memory/target", "524288" },
	{ "/local/domain/%d/store/port", "1" },
	{ "/local/domain/%d/store/ring-ref", "1044476" },
	{ "/local/domain/%d/console/port", "2" },
	{ "/local/domain/%d/console/ring-ref", "1044475" },
	{ "/local/domain/%d/console/tty", "/dev/pts/3" },
	{ "/local/domain/%d/console/type", "xenconsoled" },
	{ "/local/domain/%d/console/limit", "1048576" },
	{ "/local/domain/%d/control/shutdown", "" },
	{ "/local/domain/%d/control/platform-feature-multiprocessor-suspend", "1" },
	{ "/local/domain/%d/device/vbd/51712/backend", "/local/domain/0/backend/vbd/1/51712" },
	{ "/local/domain/%d/device/vbd/51712/backend-id", "0" },
	{ "/local/domain/%d/device/vbd/51712/state", "1" },
	{ "/local/domain/%d/device/vbd/51712/virtual-device", "51712" },
	{ "/local/domain/%d/device/vif/0/backend", "/local/domain/0/backend/vif/1/0" },
	{ "/local/domain/%d/device/vif/0/backend-id", "0" },
	{ "/local/domain/%d/device/vif/0/state", "1" },
	{ "/local/domain/%d/device/vif/0/handle", "0" },
	{ "/local/domain/%d/device/vif/0/mac", "00:16:3e:12:34:56" },
	{ "/local/domain/0/backend/vbd/%d/51712/frontend", "/local/domain/1/device/vbd/51712" },
	{ "/local/domain/0/backend/vbd/%d/51712/frontend-id", "1" },
	{ "/local/domain/0/backend/vbd/%d/51712/params", "/dev/vg/guest-disk" },
	{ "/local/domain/0/backend/vbd/%d/51712/state", "1" },
	{ "/local/domain/0/backend/vbd/%d/51712/online", "1" },
	{ "/local/domain/0/backend/vif/%d/0/frontend", "/local/domain/1/device/vif/0" },
	{ "/local/domain/0/backend/vbd/%d/51712/mode", "w" },
	{ "/local/domain/0/backend/vbd/%d/51712/dev", "xvda" },
	{ "/local/domain/0/backend/vif/%d/0/frontend-id", "1" },
	{ "/local/domain/0/backend/vif/%d/0/state", "1" },
	{ "/local/domain/0/backend/vif/%d/0/online", "1" },
	{ "/local/domain/0/backend/vif/%d/0/mac", "00:16:3e:12:34:56" },
	{ "/local/domain/0/backend/vif/%d/0/bridge", "xenbr0" },
};
#define LEAF_COUNT (sizeof(LEAVES) / sizeof(LEAVES[0]))
_Static_assert(CREATED < LEAF_COUNT, "a created domain has the first leaves");

static const char *const WATCHED[] = {
	"/local/domain/%d/device/vbd/51712/state", "/local/domain/%d/device/vif/0/state",
	"/local/domain/%d/control/shutdown", "/local/domain/0/backend/vbd/%d",
	"/local/domain/0/backend/vif/%d", "/local/domain/%d/console",
	"/local/domain/%d/store", "/local/domain/%d/data",
};
#define WATCHED_COUNT ((int)(sizeof(WATCHED) / sizeof(WATCHED[0])))

static const char *const REMOVED[] = {
	"/local/domain/%d", "/local/domain/0/backend/vbd/%d", "/local/domain/0/backend/vif/%d",
};

struct scale {
	struct conn *conn, **watchers;
	char *names;
	int domains;
	char label[80];		/* parameters of the step, as JSON members */
};

void domain_populate(struct conn *conn, int domid)
{
	size_t i;

	for (i = 0; i < LEAF_COUNT; i++)
		bulk_write(conn, LEAVES[i].value, LEAVES[i].format, domid);
	bulk_flush(conn);
}

static void set_perms(struct conn *conn, uint32_t tx_id, int domid, const char *format,
		      const char *more)
{
	struct payload payload = { .size = 0 };

	payload_text(&payload, format, domid);
	payload_text(&payload, "n%d", domid);
	if (more)
		payload_text(&payload, "%s", more);
	wire_must(conn, XS_SET_PERMS, tx_id, &payload);
}

static void add_watch(struct scale *scale, int watcher, int token, const char *format, int domid)
{
	xs_watch(scale->watchers[watcher % options.conn_count], XS_WATCH, token, format, domid);
}

/* Domains first..scale->domains come into being. */
static void grow(struct scale *scale, int first)
{
	struct meter meter = { 0 };
	uint64_t begin;
	int domid, i;

	meter_start(&meter);
	for (domid = first; domid <= scale->domains; domid++) {
		begin = now_ns();
		domain_populate(scale->conn, domid);
		meter_add(&meter, now_ns() - begin);
	}
	meter_report(&meter, "sc-populate", 1, "%s", scale->label);
	if (options.watch_count) {
		meter_start(&meter);
		for (domid = first; domid <= scale->domains; domid++)
			for (i = 0; i < options.watch_count; i++) {
				begin = now_ns();
				add_watch(scale, domid + i, i, WATCHED[i % WATCHED_COUNT], domid);
				meter_add(&meter, now_ns() - begin);
			}
		meter_report(&meter, "sc-addwatch", 1, "%s", scale->label);
	}
	if (options.does_introduce) {
		meter_start(&meter);
		for (domid = first; domid <= scale->domains; domid++) {
			begin = now_ns();
			domain_introduce(scale->conn, domid);
			meter_add(&meter, now_ns() - begin);
		}
		meter_report(&meter, "sc-introduce", 1, "%s", scale->label);
	}
	for (i = 0; i < options.conn_count; i++) {
		xs_noop(scale->watchers[i]);
		scale->watchers[i]->events = 0;
	}
}

static void measure_requests(struct scale *scale)
{
	struct meter meter = { 0 };
	unsigned long wanted = 0;
	size_t size;
	int i;

	meter_start(&meter);
	TIMED(&meter)
		xs_path(scale->conn, XS_READ, 0, "/local/domain/%d/device/vif/0/mac",
			1 + any_below(scale->domains));
	meter_report(&meter, "sc-read", 1, "%s", scale->label);
	meter_start(&meter);
	TIMED(&meter)
		xs_write(scale->conn, 0, "262144", "/local/domain/%d/memory/target",
			 1 + any_below(scale->domains));
	meter_report(&meter, "sc-write", 1, "%s", scale->label);
	if (options.watch_count) {
		for (i = 0; i < options.conn_count; i++)
			wanted += scale->watchers[i]->events;
		meter_start(&meter);
		TIMED(&meter) {
			xs_write(scale->conn, 0, "4", "/local/domain/%d/device/vbd/51712/state",
				 1 + any_below(scale->domains));
			wait_events(scale->watchers, options.conn_count, ++wanted);
		}
		meter_report(&meter, "sc-notify", 1, "%s", scale->label);
	}
	meter_start(&meter);
	TIMED(&meter)
		xs_list(scale->conn, "/local/domain", scale->names, &size);
	meter_report(&meter, "sc-ls", 1, "%s", scale->label);
}

/* A transaction of 30 writes and 2 set_perms, 3 watches, INTRODUCE. Returns the tries lost. */
static unsigned long create_domain(struct scale *scale, int domid)
{
	struct conn *conn = scale->conn;
	unsigned long eagain = 0;
	uint32_t tx_id;
	int i;

	for (;; eagain++) {
		tx_id = xs_start(conn);
		for (i = 0; i < CREATED; i++)
			xs_write(conn, tx_id, LEAVES[i].value, LEAVES[i].format, domid);
		set_perms(conn, tx_id, domid, "/local/domain/%d", NULL);
		set_perms(conn, tx_id, domid, "/local/domain/%d/device/vbd/51712", "r0");
		if (xs_commit(conn, tx_id))
			break;
	}
	for (i = 0; i < CREATED_WATCHES; i++)
		add_watch(scale, i, 1000 + i, WATCHED[i], domid);
	if (options.does_introduce)
		domain_introduce(conn, domid);
	return eagain;
}

/* As after a crash of the domain: RELEASE, then its nodes are removed. */
static void destroy_domain(struct scale *scale, int domid)
{
	size_t i;

	if (options.does_introduce)
		xs_path(scale->conn, XS_RELEASE, 0, "%d", domid);
	for (i = 0; i < CREATED_WATCHES; i++)
		xs_watch(scale->watchers[i % options.conn_count], XS_UNWATCH, 1000 + i, WATCHED[i],
			 domid);
	for (i = 0; i < sizeof(REMOVED) / sizeof(REMOVED[0]); i++)
		xs_path(scale->conn, XS_RM, 0, REMOVED[i], domid);
}

static void measure_lifecycle(struct scale *scale)
{
	struct meter creating = { 0 }, destroying = { 0 };
	int domid = scale->domains + 1, i;
	unsigned long eagain = 0;
	uint64_t end = end_ns(), begin;

	for (i = 0; i < CREATES_MIN || now_ns() < end; i++) {
		meter_resume(&creating);
		begin = now_ns();
		eagain += create_domain(scale, domid);
		meter_add(&creating, now_ns() - begin);
		meter_pause(&creating);
		meter_resume(&destroying);
		begin = now_ns();
		destroy_domain(scale, domid);
		meter_add(&destroying, now_ns() - begin);
		meter_pause(&destroying);
	}
	meter_report(&creating, "sc-create", 1, "%s,\"eagain\":%lu", scale->label, eagain);
	meter_report(&destroying, "sc-destroy", 1, "%s", scale->label);
}

/* All nodes below, with their values, as xenstore-ls asks for them; returns their number. */
static unsigned long walk(struct conn *conn, const char *path)
{
	char *names = malloc(NAMES_MAX), child[1024];
	unsigned long count = 1;
	size_t size, i;

	if (xs_list(conn, path, names, &size) < 0)
		die("%s is gone", path);
	for (i = 0; i < size; i += strlen(names + i) + 1) {
		snprintf(child, sizeof(child), "%s/%s", strcmp(path, "/") ? path : "", names + i);
		xs_path(conn, XS_READ, 0, "%s", child);
		count += walk(conn, child);
	}
	free(names);
	return count;
}

static void measure_walk(struct scale *scale)
{
	struct meter meter = { 0 };
	unsigned long count;
	uint64_t begin;

	meter_start(&meter);
	begin = now_ns();
	count = walk(scale->conn, "/");
	meter_add(&meter, (now_ns() - begin) / count);
	meter_report(&meter, "sc-walk", count, "%s,\"walked\":%lu", scale->label, count);
}

static void measure_rmtree(struct scale *scale)
{
	struct meter meter = { 0 };
	uint64_t begin;

	meter_start(&meter);
	begin = now_ns();
	xs_path(scale->conn, XS_RM, 0, "/local/domain");
	meter_add(&meter, now_ns() - begin);
	meter_report(&meter, "sc-rmtree", 1, "%s", scale->label);
}

int mode_domains(const char *mode)
{
	struct scale scale = { 0 };
	const char *list = options.domains;
	char *end;
	int before;

	if (strcmp(mode, "scale"))
		return 0;
	scale.conn = conn_open();
	scale.watchers = conn_open_many(options.conn_count);
	scale.names = malloc(NAMES_MAX);
	for (;; list = end + 1) {
		before = scale.domains;
		scale.domains = strtol(list, &end, 10);
		if (scale.domains <= before || (*end && *end != ','))
			die("-D %s: expected growing numbers", options.domains);
		snprintf(scale.label, sizeof(scale.label),
			 ",\"D\":%d,\"W\":%d,\"conns\":%d,\"intro\":%d", scale.domains,
			 options.watch_count, options.conn_count, options.does_introduce);
		grow(&scale, before + 1);
		measure_requests(&scale);
		measure_lifecycle(&scale);
		if (!options.is_quick)
			measure_walk(&scale);
		if (!*end)
			break;
	}
	if (scale.domains <= RMTREE_MAX)
		measure_rmtree(&scale);
	free(scale.names);
	conn_close_many(scale.watchers, options.conn_count);
	conn_close(scale.conn);
	return 1;
}
