/*-------------------------------------------------------------------------
 *
 * common.h
 *	  Functions for several unit tests: a directory of their own, and chance.
 *
 * A test that uses the directory defines clean_up(), which removes `base`, and
 * sets `top` for each of its cases.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_COMMON_H
#define AUDIO_CLEANUP_COMMON_H

#include <dirent.h>
#include <dlfcn.h>
#include <grp.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

#ifdef SCRATCH

#include "src/store/store.h"

static char base[PATH_MAX];		/* removed in the end */
static char top[PATH_MAX];		/* the upload directory of the current case */

static void clean_up(void);

/* Returns the absolute path of `path` below `top`; eight may be in use at a time. */
static inline const char *
at(const char *path)
{
	static char buffers[8][2 * PATH_MAX];
	static int	next = 0;
	char	   *buffer = buffers[next++ % 8];

	snprintf(buffer, sizeof(buffers[0]), "%s/%s", top, path);
	return buffer;
}

/* Removes `base`: rm knows how to remove paths that are longer than PATH_MAX. */
static inline void
remove_base(void)
{
	if (system(tap_text("rm -rf --one-file-system '%s'", base)) != 0)
		diag("%s was not removed", base);
}

/* Ends the test if a preparation of the test has failed. */
static inline void
must(bool succeeded, const char *what)
{
	if (succeeded)
		return;
	printf("Bail out! %s: %s\n", what, strerror(errno));
	clean_up();
	exit(2);
}

/*
 * Begins the test in the new directory `base`, which has this mode.  A call
 * that blocks wrongly blocks for ever: SIGALRM ends the test after `limit`
 * seconds (0: never).
 */
static inline void
begin_scratch(const char *name, mode_t mode, int limit)
{
	const char *tmp = getenv("TMPDIR");

	tap_begin();
	umask(022);
	alarm(limit);
	snprintf(base, sizeof(base), "%s/%s.XXXXXX", tmp ? tmp : "/tmp", name);
	must(mkdtemp(base) != NULL, base);
	must(chmod(base, mode) == 0, base);
}

/* Begins a case: opens a new upload directory, `top`. */
static inline FileStore *
open_fresh(const char *name)
{
	FileStore  *store;

	snprintf(top, sizeof(top), "%s/%s", base, name);
	must(mkdir(top, 0755) == 0, top);
	store = store_open(top);
	must(store != NULL, "store_open");
	return store;
}

/* Returns the identity of a file below `top`, which must be there. */
static inline FileIdentity
know(FileStore *store, const char *path)
{
	FileIdentity identity;
	FileResult	result = store_identify(store, path, false, &identity);

	errno = result.errnum;
	must(result.outcome == FILE_OK, path);
	return identity;
}

/* Checks that the result is this failure; `failure` may be NULL. */
static inline void
is_failure(FileResult result, int errnum, const char *failure, const char *text)
{
	if (!ok(result.outcome == FILE_FAILED && result.errnum == errnum &&
			(failure == NULL || strcmp(result.failure, failure) == 0), "%s", text))
		diag("outcome %d, errno %d (%s), failure %s", result.outcome,
			 result.errnum, strerror(result.errnum),
			 result.failure ? result.failure : "none");
}

/* Runs a test in a process without privileges. */
static inline void
as_nobody(void (*test) (void))
{
	pid_t		child;
	int			status = 0;

	if (geteuid() != 0)
	{
		test();
		return;
	}
	child = fork();
	if (child == 0)
	{
		must(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0,
			 "setuid");
		test();
		_exit(0);
	}
	waitpid(child, &status, 0);
	is(status, 0, "the unprivileged process ended well");
}

/* Returns the seconds since some moment. */
static inline double
seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* Writes a file below `top`. */
static inline void
put(const char *path, const char *content)
{
	FILE	   *file = fopen(at(path), "w");

	must(file != NULL, path);
	fputs(content, file);
	fclose(file);
}

/*
 * Waits until a change in the upload directory gets a later time than `path`
 * has: some file systems keep whole seconds only.
 */
static inline void
let_time_pass(const char *path)
{
	const char *probe = at("clock");
	struct stat then,
				now;

	must(stat(path, &then) == 0, "stat");
	do
	{
		usleep(20000);
		put("clock", "x");
		must(stat(probe, &now) == 0 && unlink(probe) == 0, "probe");
	} while (now.st_ctim.tv_sec == then.st_ctim.tv_sec && now.st_ctim.tv_nsec == then.st_ctim.tv_nsec);
}

static inline void
make(const char *path)
{
	must(mkdir(at(path), 0755) == 0, path);
}

static inline int
count_descriptors(void)
{
	DIR		   *dir = opendir("/proc/self/fd");
	int			count = 0;

	while (dir != NULL && readdir(dir) != NULL)
		count++;
	if (dir != NULL)
		closedir(dir);
	return count;
}

/* Runs a hook once, and not for calls of the hook itself. */
static inline void
run_hook(void (**slot) (void))
{
	void		(*function) (void) = *slot;

	*slot = NULL;
	if (function != NULL)
		function();
}

/* Sets `real` to the function of the C library that a test has interposed. */
#define REAL(name) REAL_CALLED(name, #name)
#define REAL_CALLED(name, symbol) \
	static __typeof__(&name) real; \
	if (real == NULL) \
		real = (__typeof__(&name)) dlsym(RTLD_NEXT, symbol)

/*
 * REAL() of a function that has to do with off_t: where a long has 32 bits the
 * C library has such a function twice.
 */
#if __SIZEOF_LONG__ == 4
#define REAL_LARGE(name) REAL_CALLED(name, #name "64")
#else
#define REAL_LARGE(name) REAL(name)
#endif

/* Takes the id of the mount away from what statx() has found, if wanted, and returns 0. */
static inline int
without_mount_id(struct statx *found, bool wanted)
{
#ifdef STATX_MNT_ID
	if (wanted)
		found->stx_mask &= ~STATX_MNT_ID;
#endif
	return 0;
}

#endif							/* SCRATCH */

#ifdef SEED

static uint64 random_state = SEED;

/* Returns the next number, from 0 to `below` - 1, of a series that SEED begins. */
static inline uint32
next_random(uint32 below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32) ((random_state >> 11) % below);
}

#endif							/* SEED */

#endif							/* AUDIO_CLEANUP_COMMON_H */
