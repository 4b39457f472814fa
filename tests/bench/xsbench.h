/* SPDX-License-Identifier: Apache-2.0
 *
 * xsbench: load generator for any xenstore server on a unix socket and on rings. Prototypes by
 * owning file; read in this order: wire.c, meter.c, requests.c, rings.c.
 */
#ifndef XSBENCH_H
#define XSBENCH_H

#include <stddef.h>
#include <stdint.h>

enum xs_type {
	XS_DIRECTORY = 1,
	XS_READ = 2,
	XS_GET_PERMS = 3,
	XS_WATCH = 4,
	XS_UNWATCH = 5,
	XS_TRANSACTION_START = 6,
	XS_TRANSACTION_END = 7,
	XS_INTRODUCE = 8,
	XS_RELEASE = 9,
	XS_GET_DOMAIN_PATH = 10,
	XS_WRITE = 11,
	XS_MKDIR = 12,
	XS_RM = 13,
	XS_SET_PERMS = 14,
	XS_WATCH_EVENT = 15,
	XS_ERROR = 16,
	XS_IS_DOMAIN_INTRODUCED = 17,
	XS_DIRECTORY_PART = 22,
};

#define HEADER_SIZE  16
#define PAYLOAD_MAX  4096
#define MESSAGE_MAX  (HEADER_SIZE + PAYLOAD_MAX)
#define PRINTF(f, a) __attribute__((format(printf, f, a)))

/* ---- xsbench.c: options, failure, chance -------------------------------------------------- */

struct options {
	const char *socket_path;
	const char *sim_path;	/* simulated Xen directory, or NULL */
	const char *label;
	const char *domains;	/* -D, a list of numbers */
	int server_pid;		/* 0: no CPU times */
	double seconds;
	int conn_count;
	int depth;
	int key_count;
	int watch_count;
	int does_introduce;
	int is_quick;		/* no walk through the tree */
	int is_on_rings;	/* the present mode's connections are guests on rings */
	int is_lazy;		/* guests notify only if the server may wait for it */
};
extern struct options options;

void die(const char *format, ...) PRINTF(1, 2) __attribute__((noreturn));
uint32_t any_below(uint32_t limit);

/* ---- wire.c: connections, messages -------------------------------------------------------- */

struct payload {
	uint32_t size;
	char bytes[PAYLOAD_MAX];
};

struct ring;

struct conn {
	int fd;
	struct ring *ring;	/* NULL: a socket. Else fd takes the ring's notifications */
	uint32_t req_id;
	size_t offset, unread;	/* of buffer: received, not yet parsed */
	uint8_t *buffer;
	uint32_t type, size;	/* of the message parsed last */
	uint8_t *body;
	unsigned long events;	/* watch events seen */
	/* for modes that keep many connections going */
	uint64_t since_ns;
	uint32_t tx_id;
	int step;
	long job;
};

struct conn *conn_new(void);
struct conn *conn_open_socket(void);
struct conn *conn_open(void);
struct conn **conn_open_many(int count);
void conn_close(struct conn *conn);
void conn_close_many(struct conn **conns, int count);

void payload_text(struct payload *payload, const char *format, ...) PRINTF(2, 3);
void payload_value(struct payload *payload, const char *value);
size_t wire_put(uint8_t *out, struct conn *conn, uint32_t type, uint32_t tx_id,
		const struct payload *payload);
void wire_send(struct conn *conn, const uint8_t *data, size_t size);
uint8_t *wire_room(struct conn *conn, size_t size);
void wire_receive(struct conn *conn);
void wire_receive_ready(struct conn *conn);
int wire_parse(struct conn *conn);
void wire_must(struct conn *conn, uint32_t type, uint32_t tx_id, const struct payload *payload);

void xs_path(struct conn *conn, uint32_t type, uint32_t tx_id, const char *format, ...)
	PRINTF(4, 5);
void xs_write(struct conn *conn, uint32_t tx_id, const char *value, const char *format, ...)
	PRINTF(4, 5);
void xs_watch(struct conn *conn, uint32_t type, int token, const char *format, ...)
	PRINTF(4, 5);
void xs_watch_all(struct conn **conns, int count, int watches, const char *format);
void xs_noop(struct conn *conn);
void xs_noop_all(struct conn **conns, int count);
uint32_t xs_start(struct conn *conn);
int xs_commit(struct conn *conn, uint32_t tx_id);
int xs_list(struct conn *conn, const char *path, char *names, size_t *size);

void bulk_write(struct conn *conn, const char *value, const char *format, ...) PRINTF(3, 4);
void bulk_flush(struct conn *conn);
void wait_events(struct conn **conns, int count, unsigned long wanted);

/* ---- rings.c: domains of a simulated Xen directory, connections through their rings -------- */

#define RING_LOOK_MS 50	/* how long a lost notification can delay a guest */

struct conn *rings_begin(void);
void rings_end(void);
void domain_create(int domid);
void domain_introduce(struct conn *dom0, int domid);
void domain_destroy(int domid);
struct conn *ring_open(int domid);
struct conn *ring_open_next(void);
void ring_close(struct conn *conn);
void ring_send(struct conn *conn, const uint8_t *data, size_t size);
void ring_receive(struct conn *conn);
int ring_receive_ready(struct conn *conn, int is_late);

/* ---- meter.c: time, server CPU, results --------------------------------------------------- */

struct meter {
	uint64_t *samples_ns;
	size_t count, room;
	uint64_t wall_ns, cpu_ns;		/* of finished stretches */
	uint64_t wall_begin_ns, cpu_begin_ns;	/* of the present one, 0 while paused */
};

uint64_t now_ns(void);
uint64_t end_ns(void);
uint64_t server_cpu_ns(void);
long server_rss_kb(void);
void meter_start(struct meter *meter);
void meter_resume(struct meter *meter);
void meter_pause(struct meter *meter);
void meter_add(struct meter *meter, uint64_t sample_ns);
void meter_report(struct meter *meter, const char *mode, double ops_per_sample,
		  const char *format, ...) PRINTF(4, 5);

/* Repeat the statement for options.seconds, at least once; every round is a sample. */
#define TIMED(meter) \
	for (uint64_t end_ = end_ns(), begin_; \
	     (begin_ = now_ns()) < end_ || !(meter)->count; \
	     meter_add(meter, now_ns() - begin_))

/* ---- modes, a file each ------------------------------------------------------------------- */

void make_keys(struct conn *conn);			/* requests.c */
int mode_requests(const char *mode);
int mode_streams(const char *mode);			/* streams.c */
int mode_transactions(const char *mode);		/* transactions.c */
int mode_watches(const char *mode);			/* watches.c */
int mode_sizes(const char *mode);			/* sizes.c */
int mode_domains(const char *mode);			/* domains.c */
void domain_populate(struct conn *conn, int domid);
int mode_pause(const char *mode);			/* pause.c */
int mode_guests(const char *mode);			/* guests.c */

#endif
