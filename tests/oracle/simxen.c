/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated Xen for Debian's xenstore servers, as an LD_PRELOAD library.
 *
 * C xenstored and oxenstored talk to the hypervisor through libxenevtchn, libxengnttab and
 * libxenctrl. Here the calls that they make become operations on a plain directory, the simulated
 * Xen directory of README.md, so that they run on any Linux machine, and fake guests are a few
 * lines in any language.
 *
 * X1. An event that the server raises is a level: dropped if nobody listens or the queue is full.
 * X2. The directory is the only state: nothing about domains is remembered between two calls.
 *
 * Environment:
 *   SIMXEN_DIR     the simulated Xen directory; without it every call aborts
 *   SIMXEN_RUNDIR  optional: stands for /var/run/xenstored and /run/xenstored, because oxenstored
 *                  has its socket path built in
 *
 * Knows nothing of xenstore. Change with: README.md, guest.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define XC_WANT_COMPAT_MAP_FOREIGN_API
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xen/sched.h>

#define PAGE_SIZE_SIM     4096
#define PORT_VIRQ_DOM_EXC 1
#define PORT_GUEST_BASE   1000
#define FIRST_RESERVED    0x7ff0
#define MIN_BACKLOG       1024
#define EVENT_BUFFER      (16 << 20)

/* The function that we stand in front of. */
#define NEXT(name) \
	({ static __typeof__(name) *next_; \
	   if (!next_) \
		   next_ = dlsym(RTLD_NEXT, #name); \
	   next_; })

/* Handles are opaque to the callers: any non-NULL pointer will do. */
static int event_fd = -1;
static char grant_handle, control_handle;

/* ---- the directory ---------------------------------------------------- */

/* Returns buf, holding a path in the simulated Xen directory. */
__attribute__((format(printf, 3, 4)))
static const char *sim_path(char *buf, size_t size, const char *format, ...)
{
	const char *dir = getenv("SIMXEN_DIR");
	va_list args;
	size_t used;

	if (!dir || strlen(dir) + 32 > size) {
		fprintf(stderr, "simxen: SIMXEN_DIR is not set, or too long\n");
		abort();
	}
	used = snprintf(buf, size, "%s/", dir);
	va_start(args, format);
	vsnprintf(buf + used, size - used, format, args);
	va_end(args);
	return buf;
}

/* Open ring.<domid>, creating it or extending it to one page when needed. */
static int open_ring(unsigned int domid)
{
	char path[256];
	int fd;

	sim_path(path, sizeof(path), "ring.%u", domid);
	fd = NEXT(open)(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return -1;
	if (lseek(fd, 0, SEEK_END) < PAGE_SIZE_SIM && ftruncate(fd, PAGE_SIZE_SIM)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void *map_ring(unsigned int domid)
{
	int fd = open_ring(domid);
	void *page;

	if (fd < 0)
		return NULL;
	page = mmap(NULL, PAGE_SIZE_SIM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return page == MAP_FAILED ? NULL : page;
}

enum domain_state { DEAD, RUNNING, SHUTDOWN, CRASHED, DYING };

static enum domain_state domain_state(unsigned int domid)
{
	char path[256], text[32] = "";
	FILE *file;

	if (domid == 0)
		return RUNNING;
	if (domid >= FIRST_RESERVED)
		return DEAD;
	file = fopen(sim_path(path, sizeof(path), "state.%u", domid), "r");
	if (!file)
		return DEAD;
	if (!fgets(text, sizeof(text), file))
		text[0] = 0;
	fclose(file);
	text[strcspn(text, " \t\r\n")] = 0;
	if (!strcmp(text, "running"))
		return RUNNING;
	if (!strcmp(text, "shutdown"))
		return SHUTDOWN;
	if (!strcmp(text, "crashed"))
		return CRASHED;
	if (!strcmp(text, "dying"))
		return DYING;
	return DEAD;
}

/* ---- event channels --------------------------------------------------- */

/* Notifications that guests have not read yet are counted against our send buffer, those of all
 * guests together: when it is full, a guest without any would lose its own. */
static void enlarge_send_buffer(void)
{
	int size = EVENT_BUFFER;

	if (setsockopt(event_fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		setsockopt(event_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[256];

	if (strlen(sim_path(path, sizeof(path), "evtchn.sock")) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(address.sun_path, path);
	NEXT(unlink)(path);
	event_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (event_fd < 0 || NEXT(bind)(event_fd, (void *)&address, sizeof(address)))
		return NULL;
	enlarge_send_buffer();
	return (void *)&event_fd;
}

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd, unsigned int flags)
{
	event_fd = fd;
	return (void *)&event_fd;
}

int xenevtchn_close(xenevtchn_handle *handle)
{
	return close(event_fd);
}

int xenevtchn_fd(xenevtchn_handle *handle)
{
	return event_fd;
}

int xenevtchn_notify(xenevtchn_handle *handle, evtchn_port_t port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[256];

	if (port < PORT_GUEST_BASE)
		return 0;
	sim_path(path, sizeof(path), "guest.%u", port - PORT_GUEST_BASE);
	if (strlen(path) < sizeof(address.sun_path)) {
		strcpy(address.sun_path, path);
		/* No listener, or a full queue: the event is already pending. */
		(void)!sendto(event_fd, "!", 1, MSG_DONTWAIT, (void *)&address, sizeof(address));
	}
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *handle, uint32_t domid,
						     evtchn_port_t remote_port)
{
	return PORT_GUEST_BASE + domid;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *handle, unsigned int virq)
{
	return PORT_VIRQ_DOM_EXC;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *handle)
{
	uint32_t port;

	if (recv(event_fd, &port, sizeof(port), MSG_DONTWAIT) != sizeof(port))
		return -1;
	return port;
}

int xenevtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_unbind(xenevtchn_handle *handle, evtchn_port_t port)
{
	return 0;
}

/* ---- grants and foreign mappings -------------------------------------- */

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned int flags)
{
	return (void *)&grant_handle;
}

int xengnttab_close(xengnttab_handle *handle)
{
	return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *handle, uint32_t count)
{
	return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *handle, uint32_t domid, uint32_t ref, int prot)
{
	return map_ring(domid);
}

int xengnttab_unmap(xengnttab_handle *handle, void *start, uint32_t count)
{
	return munmap(start, (size_t)count * PAGE_SIZE_SIM);
}

void *xc_map_foreign_range(xc_interface *xch, uint32_t domid, int size, int prot,
			   unsigned long frame)
{
	return map_ring(domid);
}

/* ---- domain information ----------------------------------------------- */

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger,
				unsigned int flags)
{
	return (void *)&control_handle;
}

int xc_interface_close(xc_interface *xch)
{
	return 0;
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
	enum domain_state state = domain_state(first);

	if (!max || state == DEAD)
		return 0;
	memset(info, 0, sizeof(*info));
	info->domid = first;
	info->running = state == RUNNING;
	info->shutdown = state == SHUTDOWN;
	info->crashed = state == CRASHED;
	info->dying = state == DYING;
	return 1;
}

int xc_domain_getinfolist(xc_interface *xch, uint32_t first, unsigned int max,
			  xc_domaininfo_t *info)
{
	enum domain_state state = domain_state(first);

	if (!max || state == DEAD)
		return 0;
	memset(info, 0, sizeof(*info));
	info->domain = first;
	if (state == RUNNING)
		info->flags = XEN_DOMINF_running;
	else if (state == SHUTDOWN)
		info->flags = XEN_DOMINF_shutdown;
	else if (state == CRASHED)
		info->flags = XEN_DOMINF_shutdown | (SHUTDOWN_crash << XEN_DOMINF_shutdownshift);
	else
		info->flags = XEN_DOMINF_dying;
	return 1;
}

const xc_error *xc_get_last_error(xc_interface *xch)
{
	static xc_error error = { .code = XC_INVALID_PARAM, .message = "no such domain" };

	return &error;
}

const char *xc_error_code_to_desc(int code)
{
	return "simulated hypervisor error";
}

/* ---- libc calls that name a fixed path -------------------------------- */

static int is_below(const char *path, const char *dir)
{
	size_t length = strlen(dir);

	return !strncmp(path, dir, length) && (path[length] == '/' || !path[length]);
}

static const char *redirect(const char *path, char *buf, size_t size)
{
	static const char *const fixed[] = { "/var/run/xenstored", "/run/xenstored" };
	const char *rundir = getenv("SIMXEN_RUNDIR");
	unsigned int i;

	for (i = 0; path && rundir && i < 2; i++)
		if (is_below(path, fixed[i])) {
			snprintf(buf, size, "%s%s", rundir, path + strlen(fixed[i]));
			return buf;
		}
	return path;
}

/* The port of dom0's own ring: any number, bind_interdomain() ignores it. */
static int open_xsd_port(void)
{
	int fd = memfd_create("xsd_port", MFD_CLOEXEC);

	if (fd >= 0 && (write(fd, "1", 1) != 1 || lseek(fd, 0, SEEK_SET)))
		return -1;
	return fd;
}

static int redirected_open(const char *path, int flags, mode_t mode)
{
	char buf[256];

	if (path && !strcmp(path, "/proc/xen/xsd_kva"))
		return open_ring(0);
	if (path && !strcmp(path, "/proc/xen/xsd_port"))
		return open_xsd_port();
	return openat(AT_FDCWD, redirect(path, buf, sizeof(buf)), flags, mode);
}

#define DEFINE_OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list args; \
		mode_t mode; \
		va_start(args, flags); \
		mode = va_arg(args, mode_t); \
		va_end(args); \
		return redirected_open(path, flags, mode); \
	}
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

int unlink(const char *path)
{
	char buf[256];

	return NEXT(unlink)(redirect(path, buf, sizeof(buf)));
}

int mkdir(const char *path, mode_t mode)
{
	char buf[256];

	return NEXT(mkdir)(redirect(path, buf, sizeof(buf)), mode);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_un redirected;
	const char *path;
	char buf[256];

	if (address->sa_family == AF_UNIX && length <= sizeof(redirected)) {
		memset(&redirected, 0, sizeof(redirected));
		memcpy(&redirected, address, length);
		path = redirect(redirected.sun_path, buf, sizeof(buf));
		if (path == buf && strlen(buf) < sizeof(redirected.sun_path)) {
			strcpy(redirected.sun_path, buf);
			return NEXT(bind)(fd, (void *)&redirected, sizeof(redirected));
		}
	}
	return NEXT(bind)(fd, address, length);
}

/* Both servers listen with a backlog of 1: too small for a connection burst. */
int listen(int fd, int backlog)
{
	return NEXT(listen)(fd, backlog < MIN_BACKLOG ? MIN_BACKLOG : backlog);
}

/* oxenstored insists on RLIMIT_NOFILE = nr_open, which needs privilege. */
int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	int result = NEXT(setrlimit)(resource, limit);

	return result && errno == EPERM ? 0 : result;
}
