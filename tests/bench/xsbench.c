/* SPDX-License-Identifier: Apache-2.0
 *
 * xsbench: options, then the modes one after the other.
 *
 * One JSON line per result on stdout; what every mode does is in README.md. Exit codes: 0 all
 * measured, 1 wrong arguments, 2 the server failed (stderr says how).
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char USAGE[] =
	"usage: xsbench -s SOCKET -m MODE[,MODE...] [-P server_pid] [-T label] [-t seconds]\n"
	"               [-c connections] [-k pipeline depth] [-n keys] [-w watches]\n"
	"               [-D domains[,domains...]] [-i (INTRODUCE)] [-q (no tree walk)]\n"
	"               [-S simulated Xen directory, for modes on rings] [-L (guests notify less)]\n";

struct options options = {
	.label = "?",
	.domains = "1,10,100,1000",
	.seconds = 1.0,
	.conn_count = 8,
	.depth = 16,
	.key_count = 1000,
	.watch_count = 4,
};

void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, error ? " (%s)\n" : "\n", strerror(error));
	exit(2);
}

/* The same sequence in every run: all servers get the same requests. */
uint32_t any_below(uint32_t limit)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % limit;
}

static int parse_options(int argc, char **argv, char **modes)
{
	int option;

	while ((option = getopt(argc, argv, "s:m:P:t:c:k:n:w:D:iqT:S:L")) != -1)
		switch (option) {
		case 's': options.socket_path = optarg; break;
		case 'm': *modes = optarg; break;
		case 'P': options.server_pid = atoi(optarg); break;
		case 't': options.seconds = atof(optarg); break;
		case 'c': options.conn_count = atoi(optarg); break;
		case 'k': options.depth = atoi(optarg); break;
		case 'n': options.key_count = atoi(optarg); break;
		case 'w': options.watch_count = atoi(optarg); break;
		case 'D': options.domains = optarg; break;
		case 'i': options.does_introduce = 1; break;
		case 'q': options.is_quick = 1; break;
		case 'S': options.sim_path = optarg; break;
		case 'L': options.is_lazy = 1; break;
		case 'T': options.label = optarg; break;
		default: return 0;
		}
	return options.socket_path && *modes && optind == argc && options.conn_count > 0
		&& options.depth > 0 && options.key_count > 0 && options.watch_count >= 0;
}

static int run_mode(const char *mode)
{
	return mode_requests(mode) || mode_streams(mode) || mode_transactions(mode)
		|| mode_watches(mode) || mode_sizes(mode) || mode_domains(mode) || mode_pause(mode)
		|| mode_guests(mode);
}

int main(int argc, char **argv)
{
	char *modes = NULL, *mode, *rest;
	struct rlimit limit;

	if (!parse_options(argc, argv, &modes)) {
		fputs(USAGE, stderr);
		return 1;
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (mode = strtok_r(modes, ",", &rest); mode; mode = strtok_r(NULL, ",", &rest))
		if (!run_mode(mode)) {
			fprintf(stderr, "xsbench: no mode %s\n", mode);
			return 1;
		}
	return 0;
}
