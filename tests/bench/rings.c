/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests: domains in a simulated Xen directory, and connections through their rings.
 *
 * R1. An index of the server is read once per step; ours is kept in a local copy and published by
 *     one 32-bit store, after the bytes (req_prod), or after they were taken (rsp_cons).
 * R2. The server is notified after both. With -L as by Linux guests: of bytes only if it had taken
 *     all before, of room only if there was none; and a header is put by itself, before its body.
 * R3. Data that came without a notification are counted, and make the program fail in the end.
 * R4. A guest whose request ring is full takes replies: a server may wait for room for those.
 * Knows nothing of messages. Change with: ../oracle/README.md, which specifies the directory.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE_SIZE	4096
#define RING_SIZE	1024u
#define PORT_VIRQ	1
#define PORT_GUEST	1000
#define DOMID_MAX	32751
#define NOTIFICATIONS	16	/* taken at a time */
#define LOOKS_MAX	200	/* without anything new: the server is dead */
#define RELEASE_TRIES	20000
#define RELEASE_WAIT_US	1000

/* struct xenstore_domain_interface. */
struct page {
	uint8_t req[RING_SIZE], rsp[RING_SIZE];
	uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
	uint32_t server_features, connection, error;
};
_Static_assert(offsetof(struct page, req_cons) == 2048, "struct xenstore_domain_interface");
_Static_assert(offsetof(struct page, error) == 2072, "struct xenstore_domain_interface");

struct ring {
	struct page *page;
	uint32_t req_prod, rsp_cons;	/* ours: what we published last */
	int domid;
	int looks;			/* in vain, since the last bytes in either direction */
};

static struct {
	struct conn *dom0;	/* on the unix socket: introduces, and prepares what guests use */
	int event_fd;		/* connected to the server's event channel device */
	int last_domid;
	unsigned long missed;	/* R3 */
} rings;

/* ---- the directory ------------------------------------------------------------------------- */

PRINTF(2, 3)
static const char *sim_path(char *path, const char *format, ...)
{
	const size_t room = sizeof(((struct sockaddr_un *)0)->sun_path);
	int used = snprintf(path, room, "%s/", options.sim_path);
	va_list args;

	va_start(args, format);
	if (used < 0 || (size_t)used >= room
	    || (size_t)vsnprintf(path + used, room - used, format, args) >= room - used)
		die("%s: too long for a unix socket", options.sim_path);
	va_end(args);
	return path;
}

/* A file that appears with all its content, in place of an older one. */
static void put_file(const char *name, int domid, const void *data, size_t size)
{
	struct sockaddr_un scratch, final;
	int fd;

	sim_path(scratch.sun_path, ".%s.%d.new", name, domid);
	sim_path(final.sun_path, "%s.%d", name, domid);
	fd = open(scratch.sun_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd)
	    || rename(scratch.sun_path, final.sun_path))
		die("%s", scratch.sun_path);
}

static void raise_event(uint32_t port)
{
	while (send(rings.event_fd, &port, sizeof(port), MSG_NOSIGNAL) != sizeof(port))
		if (errno != EINTR)
			die("the server's event channel is gone");
}

void domain_create(int domid)
{
	static const uint8_t zeros[PAGE_SIZE];

	put_file("ring", domid, zeros, sizeof(zeros));
	put_file("state", domid, "running\n", 8);
}

void domain_introduce(struct conn *dom0, int domid)
{
	struct payload payload = { .size = 0 };

	payload_text(&payload, "%d", domid);
	payload_text(&payload, "%d", 1000 + domid);
	payload_text(&payload, "%d", 5);
	wire_must(dom0, XS_INTRODUCE, 0, &payload);
}

/* The domain ceases to exist; the server sees it when it looks, for which this asks it. */
void domain_destroy(int domid)
{
	struct sockaddr_un path;

	unlink(sim_path(path.sun_path, "state.%d", domid));
	raise_event(PORT_VIRQ);
}

/* ---- rings: bytes -------------------------------------------------------------------------- */

static uint32_t load(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static void publish(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);	/* before we look whether to notify */
}

static uint32_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Produce what there is room for; returns how much that was. */
static size_t put(struct ring *ring, const uint8_t *data, size_t size)
{
	uint32_t req_cons = load(&ring->page->req_cons);
	uint32_t used = ring->req_prod - req_cons, offset = ring->req_prod % RING_SIZE;
	uint32_t count = smaller(size, RING_SIZE - used), first = smaller(count, RING_SIZE - offset);

	if (used > RING_SIZE)
		die("domain %d: req_cons is %#x, req_prod %#x", ring->domid, req_cons,
		    ring->req_prod);
	if (!count)
		return 0;
	memcpy(ring->page->req + offset, data, first);
	memcpy(ring->page->req, data + first, count - first);
	publish(&ring->page->req_prod, ring->req_prod + count);
	if (!options.is_lazy || load(&ring->page->req_cons) == ring->req_prod)
		raise_event(PORT_GUEST + ring->domid);
	ring->req_prod += count;
	ring->looks = 0;
	return count;
}

/* Consume what there is into the connection's buffer; returns how much that was. */
static size_t take(struct conn *conn)
{
	struct ring *ring = conn->ring;
	uint32_t rsp_prod = load(&ring->page->rsp_prod);
	uint32_t used = rsp_prod - ring->rsp_cons, offset = ring->rsp_cons % RING_SIZE;
	uint32_t first = smaller(used, RING_SIZE - offset);
	uint8_t *out;

	if (used > RING_SIZE)
		die("domain %d: rsp_prod is %#x, rsp_cons %#x", ring->domid, rsp_prod,
		    ring->rsp_cons);
	if (!used)
		return 0;
	out = wire_room(conn, used);
	memcpy(out, ring->page->rsp + offset, first);
	memcpy(out + first, ring->page->rsp, used - first);
	conn->unread += used;
	publish(&ring->page->rsp_cons, ring->rsp_cons + used);
	if (!options.is_lazy || load(&ring->page->rsp_prod) - ring->rsp_cons >= RING_SIZE)
		raise_event(PORT_GUEST + ring->domid);
	ring->rsp_cons += used;
	ring->looks = 0;
	return used;
}

/* ---- rings: waiting ------------------------------------------------------------------------ */

/* Take the notifications that are there, waiting for one with MSG_WAITFORONE (then for RING_LOOK_MS
 * at most). Returns whether there was any. Their number means nothing: an event is a level. */
static int take_notifications(struct conn *conn, int flags)
{
	static uint8_t bytes[NOTIFICATIONS];
	static struct iovec vectors[NOTIFICATIONS];
	static struct mmsghdr messages[NOTIFICATIONS];
	int i;

	for (i = 0; i < NOTIFICATIONS && !messages[i].msg_hdr.msg_iov; i++) {
		vectors[i] = (struct iovec){ &bytes[i], 1 };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i], .msg_iovlen = 1 };
	}
	return recvmmsg(conn->fd, messages, NOTIFICATIONS, flags, NULL) > 0;
}

/* Wait until notified. Returns 0 if that took too long: look at the ring all the same. */
static int wait_notified(struct conn *conn)
{
	if (take_notifications(conn, MSG_WAITFORONE))
		return 1;
	errno = 0;
	if (conn->ring->page->error)
		die("domain %d: the server has found error %u", conn->ring->domid,
		    conn->ring->page->error);
	if (++conn->ring->looks > LOOKS_MAX)
		die("domain %d: the server is silent", conn->ring->domid);
	return 0;
}

/* Something has come, but no notification. That may just be on its way. Taking always comes after
 * the notifications: what is in a ring and not yet taken has one that is still pending. */
static void blame(struct conn *conn)
{
	rings.missed += !take_notifications(conn, MSG_WAITFORONE);
	take(conn);
}

/* Wait for a notification, then take in what is there. That may be nothing: the notification can
 * mean that the server has taken something. Returns whether there was a notification. */
static int wait_and_take(struct conn *conn)
{
	int is_notified = wait_notified(conn);

	if (!take(conn) || is_notified)
		return is_notified;
	blame(conn);
	return 1;
}

static void send_part(struct conn *conn, const uint8_t *data, size_t size)
{
	int is_notified = 1;

	for (;;) {
		size_t count = put(conn->ring, data, size);

		if (count && !is_notified)
			blame(conn);
		data += count;
		size -= count;
		if (!size)
			return;
		is_notified = take(conn) || count || wait_and_take(conn);	/* R4 */
	}
}

void ring_send(struct conn *conn, const uint8_t *data, size_t size)
{
	size_t first = options.is_lazy ? smaller(size, HEADER_SIZE) : size;

	send_part(conn, data, first);
	if (size > first)
		send_part(conn, data + first, size - first);
}

void ring_receive(struct conn *conn)
{
	wait_and_take(conn);
}

/* The same without waiting: poll has said that a notification is there, or that nothing came for
 * so long (is_late) that we look all the same. Returns whether there were bytes. */
int ring_receive_ready(struct conn *conn, int is_late)
{
	int is_notified = take_notifications(conn, MSG_DONTWAIT), is_new = take(conn) > 0;

	if (is_new && is_late && !is_notified)
		blame(conn);
	return is_new;
}

/* ---- guests -------------------------------------------------------------------------------- */

/* Attach to a domain's ring where it stands. */
struct conn *ring_open(int domid)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval look = { .tv_usec = RING_LOOK_MS * 1000 };
	struct conn *conn = conn_new();
	struct ring *ring = calloc(1, sizeof(*ring));
	char path[sizeof(address.sun_path)];
	int fd;

	fd = open(sim_path(path, "ring.%d", domid), O_RDWR | O_CLOEXEC);
	ring->page = fd < 0 ? MAP_FAILED
		: mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring->page == MAP_FAILED)
		die("%s", path);
	close(fd);
	ring->domid = domid;
	unlink(sim_path(address.sun_path, "guest.%d", domid));
	conn->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (conn->fd < 0 || bind(conn->fd, (void *)&address, sizeof(address))
	    || setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &look, sizeof(look)))
		die("%s", address.sun_path);
	ring->req_prod = load(&ring->page->req_prod);
	publish(&ring->page->rsp_cons, ring->rsp_cons = load(&ring->page->rsp_prod));
	conn->ring = ring;
	return conn;
}

/* A new domain, introduced. What -c asks for are as many of these. */
struct conn *ring_open_next(void)
{
	struct conn *conn;

	if (++rings.last_domid > DOMID_MAX)
		die("too many domains");
	domain_create(rings.last_domid);
	conn = ring_open(rings.last_domid);
	domain_introduce(rings.dom0, rings.last_domid);
	return conn;
}

/* The domain lives on until rings_end(). */
void ring_close(struct conn *conn)
{
	struct sockaddr_un path;

	munmap(conn->ring->page, PAGE_SIZE);
	unlink(sim_path(path.sun_path, "guest.%d", conn->ring->domid));
	free(conn->ring);
}

/* What all guests may use: /bench, open to everybody, as is what is made below it. */
static void make_commons(struct conn *dom0)
{
	struct payload payload = { .size = 0 };

	xs_path(dom0, XS_MKDIR, 0, "/bench");
	xs_path(dom0, XS_RM, 0, "/bench");	/* what others have left there is not open */
	xs_path(dom0, XS_MKDIR, 0, "/bench");
	payload_text(&payload, "/bench");
	payload_text(&payload, "b0");
	wire_must(dom0, XS_SET_PERMS, 0, &payload);
}

struct conn *rings_begin(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	errno = 0;
	if (!options.sim_path)
		die("a ring needs -S");
	memset(&rings, 0, sizeof(rings));
	rings.dom0 = conn_open_socket();
	make_commons(rings.dom0);	/* a server that answers has its event channels too */
	sim_path(address.sun_path, "evtchn.sock");
	rings.event_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (rings.event_fd < 0 || connect(rings.event_fd, (void *)&address, sizeof(address)))
		die("connect %s", address.sun_path);
	return rings.dom0;
}

/* All domains die, and the server has seen it: their numbers can be used again. */
void rings_end(void)
{
	struct sockaddr_un path;
	int domid, tries;

	for (domid = 1; domid <= rings.last_domid; domid++)
		unlink(sim_path(path.sun_path, "state.%d", domid));
	raise_event(PORT_VIRQ);
	for (tries = 0; domid-- > 1; )
		for (;;) {
			xs_path(rings.dom0, XS_IS_DOMAIN_INTRODUCED, 0, "%d", domid);
			if (*rings.dom0->body == 'F')
				break;
			if (++tries > RELEASE_TRIES)
				die("domain %d is dead, but still introduced", domid);
			usleep(RELEASE_WAIT_US);
		}
	for (domid = 1; domid <= rings.last_domid; domid++)
		unlink(sim_path(path.sun_path, "ring.%d", domid));
	conn_close(rings.dom0);
	close(rings.event_fd);
	errno = 0;
	if (rings.missed)
		die("%lu times data were in a ring, but no notification", rings.missed);
}
