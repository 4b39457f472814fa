/* SPDX-License-Identifier: Apache-2.0
 *
 * Time, the server's CPU time and memory, and the JSON line of a result.
 *
 * M1. Server CPU is what the scheduler has counted for all its threads (schedstat), not ticks.
 * M2. A meter counts only while it is not paused.
 * Change with: report.py, which reads the line.
 */
#define _GNU_SOURCE
#include "xsbench.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_ROOM (1 << 16)

uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* When a measurement that begins now ends. */
uint64_t end_ns(void)
{
	return now_ns() + (uint64_t)(options.seconds * 1e9);
}

/* 0 if the server's pid is not known. */
uint64_t server_cpu_ns(void)
{
	char path[320], line[128];
	uint64_t sum_ns = 0;
	struct dirent *entry;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", options.server_pid);
	if (!options.server_pid || !(tasks = opendir(path)))
		return 0;
	while ((entry = readdir(tasks))) {
		FILE *file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", options.server_pid,
			 entry->d_name);
		if (!(file = fopen(path, "r")))
			continue;
		if (fgets(line, sizeof(line), file))
			sum_ns += strtoull(line, NULL, 10);
		fclose(file);
	}
	closedir(tasks);
	return sum_ns;
}

/* 0 if the server's pid is not known. */
long server_rss_kb(void)
{
	char path[64], line[256];
	long rss_kb = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", options.server_pid);
	if (!options.server_pid || !(file = fopen(path, "r")))
		return 0;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "VmRSS:", 6))
			rss_kb = atol(line + 6);
	fclose(file);
	return rss_kb;
}

void meter_start(struct meter *meter)
{
	meter->count = 0;
	meter->wall_ns = meter->cpu_ns = 0;
	meter->wall_begin_ns = 0;
	meter_resume(meter);
}

void meter_resume(struct meter *meter)
{
	meter->cpu_begin_ns = server_cpu_ns();
	meter->wall_begin_ns = now_ns();
}

void meter_pause(struct meter *meter)
{
	if (!meter->wall_begin_ns)
		return;
	meter->wall_ns += now_ns() - meter->wall_begin_ns;
	meter->cpu_ns += server_cpu_ns() - meter->cpu_begin_ns;
	meter->wall_begin_ns = 0;
}

void meter_add(struct meter *meter, uint64_t sample_ns)
{
	if (meter->count == meter->room) {
		meter->room = meter->room ? meter->room * 2 : FIRST_ROOM;
		meter->samples_ns = realloc(meter->samples_ns,
					    meter->room * sizeof(*meter->samples_ns));
	}
	meter->samples_ns[meter->count++] = sample_ns;
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

/* Print the result; `format` adds JSON members, each behind a comma. The meter is left empty. */
void meter_report(struct meter *meter, const char *mode, double ops_per_sample,
		  const char *format, ...)
{
	double ops, seconds;
	va_list args;

	meter_pause(meter);
	if (!meter->count)
		die("%s: nothing was measured", mode);
	qsort(meter->samples_ns, meter->count, sizeof(*meter->samples_ns), compare);
	ops = meter->count * ops_per_sample;
	seconds = meter->wall_ns / 1e9;
	printf("{\"srv\":\"%s\",\"mode\":\"%s%s\",\"ops\":%.0f,\"secs\":%.3f,\"ops_s\":%.1f,",
	       options.label, options.is_on_rings ? "ring-" : "", mode, ops, seconds, ops / seconds);
	printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"cpu_us\":%.2f,\"rss_kb\":%ld",
	       meter->samples_ns[meter->count / 2] / 1e3,
	       meter->samples_ns[(size_t)(meter->count * .99)] / 1e3,
	       meter->samples_ns[meter->count - 1] / 1e3, meter->cpu_ns / 1e3 / ops,
	       server_rss_kb());
	if (options.is_lazy)
		printf(",\"lazy\":1");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	puts("}");
	fflush(stdout);
	free(meter->samples_ns);
	memset(meter, 0, sizeof(*meter));
}
