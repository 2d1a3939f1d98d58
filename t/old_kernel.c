/*
 * old_kernel.c: system calls that older kernels, sandboxes and some file
 * systems lack.
 *
 * script/test-machines loads this library into a server by LD_PRELOAD.  The
 * programs that the server starts, such as find, have all system calls: some
 * of them cannot do without statx().  $OLD_KERNEL says what the server lacks:
 *
 *		statx		statx() is unknown
 *		birth		statx() tells no birth times
 *		renameat2	renameat2() is unknown
 *		flags		renameat2() knows no flags
 *
 * The first time that the server asks for it, the file $OLD_KERNEL_ASKED is made.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char lacking[16];

/*
 * Sets what is lacking, if this is a server.  Name and environment are read
 * before the server writes its title over them.
 */
__attribute__((constructor)) static void
set_lacking(void)
{
	const char *said = getenv("OLD_KERNEL");

	if (said != NULL && strcmp(program_invocation_short_name, "postgres") == 0)
		snprintf(lacking, sizeof(lacking), "%s", said);
}

static int
lacks(const char *what)
{
	const char *mark = getenv("OLD_KERNEL_ASKED");
	static int	marked;

	if (strcmp(lacking, what) != 0)
		return 0;
	if (!marked && mark != NULL)
		close(open(mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	marked = 1;
	return 1;
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

	if (lacks("renameat2"))
	{
		errno = ENOSYS;
		return -1;
	}
	if (flags != 0 && lacks("flags"))
	{
		errno = EINVAL;
		return -1;
	}
	return next(from, name, to, to_name, flags);
}
