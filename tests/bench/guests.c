/* SPDX-License-Identifier: Apache-2.0
 *
 * Modes whose connections are guests on rings. ring-X is mode X of requests.c, streams.c,
 * transactions.c or watches.c with a guest for every connection; ring-big and ring-scale are here.
 *
 * ring-scale: a host with D introduced guests of 4 watches each, for every D of the list -D,
 * growing. Each step: read and write of a guest, a WRITE of dom0 until the guest that watches has
 * the event (notify), create and destroy one more domain.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <stdlib.h>
#include <string.h>

#define BIG_GUEST	2000	/* bytes of a value; node-size allows a guest about 2015 */
#define BIG_DOM0	4000	/* and a message allows anybody 4096 */
#define CREATES_MIN	3
#define KEYS_MAX	400	/* names in one directory of a guest's: node-size again */

static const char *const WATCHED[] = {	/* relative to the guest's home */
	"control/shutdown", "device", "memory/target", "data/watched",
};
#define WATCHED_COUNT ((int)(sizeof(WATCHED) / sizeof(WATCHED[0])))

static void big_values(struct conn *conn, int size)
{
	struct meter meter = { 0 };
	char *value = malloc(size + 1);

	memset(value, 'v', size);
	value[size] = 0;
	xs_write(conn, 0, value, "/bench/big");
	meter_start(&meter);
	TIMED(&meter)
		xs_path(conn, XS_READ, 0, "/bench/big");
	meter_report(&meter, "big-read", 1, ",\"bytes\":%d", size);
	meter_start(&meter);
	TIMED(&meter)
		xs_write(conn, 0, value, "/bench/big");
	meter_report(&meter, "big-write", 1, ",\"bytes\":%d", size);
	free(value);
}

/* A guest, and dom0 by its own ring: what may be larger is the privileged one's. */
static void mode_big(void)
{
	struct conn *guest = conn_open(), *dom0 = ring_open(0);

	big_values(guest, BIG_GUEST);
	big_values(dom0, BIG_DOM0);
	xs_path(dom0, XS_RM, 0, "/bench/big");
	conn_close(dom0);
	conn_close(guest);
}

struct guests {
	struct conn *dom0, *watcher;	/* the latter hears of @releaseDomain */
	struct conn **guests;		/* guests[i] is domain i + 1 */
	int count;
};

static void make_home(struct conn *dom0, int domid)
{
	struct payload payload = { .size = 0 };

	xs_path(dom0, XS_MKDIR, 0, "/local/domain/%d", domid);
	payload_text(&payload, "/local/domain/%d", domid);
	payload_text(&payload, "n%d", domid);
	wire_must(dom0, XS_SET_PERMS, 0, &payload);
}

/* C xenstored has removed what a dead domain owned; others have not. */
static void remove_home(struct conn *dom0, int domid)
{
	xs_path(dom0, XS_MKDIR, 0, "/local/domain/%d", domid);
	xs_path(dom0, XS_RM, 0, "/local/domain/%d", domid);
}

/* Guests come into being, with homes, a node and watches. */
static void grow(struct guests *all, int count)
{
	struct meter meter = { 0 };
	uint64_t begin;
	int i;

	all->guests = realloc(all->guests, count * sizeof(*all->guests));
	meter_start(&meter);
	for (; all->count < count; all->count++) {
		struct conn *guest;

		begin = now_ns();
		all->guests[all->count] = guest = ring_open_next();
		make_home(all->dom0, all->count + 1);
		xs_write(guest, 0, "1", "data/watched");
		for (i = 0; i < WATCHED_COUNT; i++)
			xs_watch(guest, XS_WATCH, i, "%s", WATCHED[i]);
		meter_add(&meter, now_ns() - begin);
	}
	meter_report(&meter, "sc-grow", 1, ",\"D\":%d", count);
	xs_noop_all(all->guests, count);	/* their first events are taken */
	for (i = 0; i < count; i++)
		all->guests[i]->events = 0;
}

static void measure_requests(struct guests *all)
{
	struct meter meter = { 0 };

	meter_start(&meter);
	TIMED(&meter)
		xs_path(all->guests[any_below(all->count)], XS_READ, 0, "data/watched");
	meter_report(&meter, "sc-read", 1, ",\"D\":%d", all->count);
	meter_start(&meter);
	TIMED(&meter)
		xs_write(all->guests[any_below(all->count)], 0, "abcdefghij", "data/key");
	meter_report(&meter, "sc-write", 1, ",\"D\":%d", all->count);
	meter_start(&meter);
	TIMED(&meter) {
		int i = any_below(all->count);

		xs_write(all->dom0, 0, "4", "/local/domain/%d/data/watched", i + 1);
		wait_events(&all->guests[i], 1, all->guests[i]->events + 1);
	}
	meter_report(&meter, "sc-notify", 1, ",\"D\":%d", all->count);
}

/* Create: ring, state, INTRODUCE. Destroy: from the death until dom0 hears of it. Homes are made
 * and removed outside of both. */
static void measure_lifecycle(struct guests *all)
{
	struct meter creating = { 0 }, destroying = { 0 };
	int domid = all->count + 1, i;
	uint64_t end = end_ns(), begin;

	for (i = 0; i < CREATES_MIN || now_ns() < end; i++) {
		meter_resume(&creating);
		begin = now_ns();
		domain_create(domid);
		domain_introduce(all->dom0, domid);
		meter_add(&creating, now_ns() - begin);
		meter_pause(&creating);
		make_home(all->dom0, domid);
		xs_noop(all->watcher);
		meter_resume(&destroying);
		begin = now_ns();
		domain_destroy(domid);
		wait_events(&all->watcher, 1, all->watcher->events + 1);
		meter_add(&destroying, now_ns() - begin);
		meter_pause(&destroying);
		remove_home(all->dom0, domid);
	}
	meter_report(&creating, "sc-create", 1, ",\"D\":%d", all->count);
	meter_report(&destroying, "sc-destroy", 1, ",\"D\":%d", all->count);
}

static void mode_scale(struct conn *dom0)
{
	struct guests all = { .dom0 = dom0, .watcher = conn_open_socket() };
	const char *list = options.domains;
	char *end;
	int count;

	xs_watch(all.watcher, XS_WATCH, 0, "@releaseDomain");
	for (;; list = end + 1) {
		count = strtol(list, &end, 10);
		if (count <= all.count || (*end && *end != ','))
			die("-D %s: expected growing numbers", options.domains);
		grow(&all, count);
		measure_requests(&all);
		measure_lifecycle(&all);
		if (!*end)
			break;
	}
	conn_close_many(all.guests, all.count);
	conn_close(all.watcher);
}

int mode_guests(const char *mode)
{
	struct conn *dom0;
	int is_known = 1, key_count = options.key_count;

	if (strncmp(mode, "ring-", 5))
		return 0;
	mode += 5;
	dom0 = rings_begin();
	options.is_on_rings = 1;
	if (key_count > KEYS_MAX)
		options.key_count = KEYS_MAX;
	if (!strcmp(mode, "big"))
		mode_big();
	else if (!strcmp(mode, "scale"))
		mode_scale(dom0);
	else
		is_known = strcmp(mode, "connect") && (mode_requests(mode) || mode_streams(mode)
			|| mode_transactions(mode) || mode_watches(mode));
	options.is_on_rings = 0;
	options.key_count = key_count;
	rings_end();
	return is_known;
}
