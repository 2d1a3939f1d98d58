/*
 * t/statx_shim.c
 *
 * A library for LD_PRELOAD that lets a file system look like another one, by
 * numbers in files that the environment names.  A file that is not there means
 * that nothing is changed.
 *
 *	CLOCK_OF_FILES		statx() tells times that are so many seconds later
 *	CLOCK_OF_SERVER		clock_gettime() does
 *	SUBVOLUME			statx() tells of the inode with this number that it is
 *						on another device, and not on another mount
 *	NO_NAMELESS			if its number is not 0, openat() makes no file without
 *						a name, as over NFS
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

static long
number_of(const char *variable)
{
	int			save_errno = errno;
	const char *name = getenv(variable);
	FILE	   *file = name != NULL ? fopen(name, "re") : NULL;
	long		number = 0;

	if (file != NULL)
	{
		if (fscanf(file, "%ld", &number) != 1)
			number = 0;
		fclose(file);
	}
	errno = save_errno;
	return number;
}

int
statx(int fd, const char *restrict name, int flags, unsigned int mask, struct statx *restrict buffer)
{
	__typeof__(&statx) really = (__typeof__(&statx)) dlsym(RTLD_NEXT, "statx");
	int			rc = really(fd, name, flags, mask, buffer);

	if (rc == 0)
	{
		buffer->stx_mtime.tv_sec += number_of("CLOCK_OF_FILES");
		if (buffer->stx_ino == (unsigned long) number_of("SUBVOLUME"))
			buffer->stx_dev_minor++;
	}
	return rc;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	__typeof__(&clock_gettime) really = (__typeof__(&clock_gettime)) dlsym(RTLD_NEXT, "clock_gettime");
	int			rc = really(clock, now);

	if (rc == 0 && clock == CLOCK_REALTIME)
		now->tv_sec += number_of("CLOCK_OF_SERVER");
	return rc;
}

int
openat(int fd, const char *name, int flags,...)
{
	__typeof__(&openat) really = (__typeof__(&openat)) dlsym(RTLD_NEXT, "openat");
	bool		nameless = (flags & O_TMPFILE) == O_TMPFILE;
	va_list		arguments;
	mode_t		mode = 0;

	va_start(arguments, flags);
	if (nameless || (flags & O_CREAT) != 0)
		mode = va_arg(arguments, mode_t);
	va_end(arguments);
	if (nameless && number_of("NO_NAMELESS") != 0)
	{
		errno = EOPNOTSUPP;
		return -1;
	}
	return really(fd, name, flags, mode);
}
