/*
 * old_kernel.c: system calls that older kernels, sandboxes and some file
 * systems lack.
 *
 * Loaded into a server by LD_PRELOAD; script/test-machines does so.  What is
 * lacking is said by $OLD_KERNEL:
 *
 *		statx		statx() is unknown
 *		birth		statx() tells no birth times
 *		renameat2	renameat2() is unknown
 *		flags		renameat2() knows no flags
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int
lacks(const char *what)
{
	const char *lacking = getenv("OLD_KERNEL");

	return lacking != NULL && strcmp(lacking, what) == 0;
}

static void *
next_symbol(const char *name)
{
	void	   *symbol = dlsym(RTLD_NEXT, name);

	if (symbol == NULL)
		abort();
	return symbol;
}

int
statx(int fd, const char *name, int flags, unsigned int mask, struct statx *result)
{
	__typeof__(&statx) next = next_symbol("statx");
	int			rc;

	if (lacks("statx"))
	{
		errno = ENOSYS;
		return -1;
	}
	rc = next(fd, name, flags, mask, result);
	if (rc == 0 && lacks("birth"))
		result->stx_mask &= ~STATX_BTIME;
	return rc;
}

int
renameat2(int from, const char *name, int to, const char *to_name, unsigned int flags)
{
	__typeof__(&renameat2) next = next_symbol("renameat2");

	if (lacks("renameat2") || (flags != 0 && lacks("flags")))
	{
		errno = lacks("renameat2") ? ENOSYS : EINVAL;
		return -1;
	}
	return next(from, name, to, to_name, flags);
}
