/* SPDX-License-Identifier: Apache-2.0
 *
 * What Python would have shared libraries do at run time, done without them: names of hosts,
 * services and users are unknown, and there is no module to be loaded.
 *
 * O1. glibc's name service, which loads libraries, is not in the image: these are found before it.
 * O2. Every function fails as its manual says, so that Python raises OSError or ImportError.
 *
 * The server calls none of them. Without this file the linker warns of most. */

#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-parameter" /* nothing is looked at */

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    return EAI_FAIL;
}

void freeaddrinfo(struct addrinfo *found)
{
}

int getnameinfo(const struct sockaddr *address, socklen_t size, char *host, socklen_t host_size,
                char *service, socklen_t service_size, int flags)
{
    return EAI_FAIL;
}

int gethostbyname_r(const char *name, struct hostent *buffer, char *space, size_t size,
                    struct hostent **found, int *error)
{
    *found = NULL;
    *error = NO_RECOVERY;
    return ENOENT;
}

int gethostbyaddr_r(const void *address, socklen_t address_size, int family,
                    struct hostent *buffer, char *space, size_t size, struct hostent **found,
                    int *error)
{
    *found = NULL;
    *error = NO_RECOVERY;
    return ENOENT;
}

struct servent *getservbyname(const char *name, const char *protocol)
{
    return NULL;
}

struct servent *getservbyport(int port, const char *protocol)
{
    return NULL;
}

struct protoent *getprotobyname(const char *name)
{
    return NULL;
}

int getgrouplist(const char *user, gid_t group, gid_t *groups, int *count)
{
    *count = 0;
    return -1;
}

int initgroups(const char *user, gid_t group)
{
    errno = EPERM;
    return -1;
}

char *getlogin(void)
{
    errno = ENXIO;
    return NULL;
}

/* libpython's own, from an internal header that Debian does not ship. */

typedef void (*dl_funcptr)(void);

dl_funcptr _PyImport_FindSharedFuncptr(const char *prefix, const char *name, const char *path,
                                       FILE *file);
extern const char *_PyImport_DynLoadFiletab[];

dl_funcptr _PyImport_FindSharedFuncptr(const char *prefix, const char *name, const char *path,
                                       FILE *file)
{
    PyErr_SetString(PyExc_ImportError, "no module can be loaded");
    return NULL;
}

const char *_PyImport_DynLoadFiletab[] = {NULL}; /* endings of files that are modules */
