/*
 * fault_shim.c: the disk fails, or the process dies, at a chosen system call.
 *
 * Loaded into a server by LD_PRELOAD.  The file $FAULT_CONTROL, if it is
 * there, holds a line, or several, of which the first that fits counts:
 *
 *		CALL ACTION NTH [ERRNO [NAME]]
 *
 * CALL is renameat2, unlinkat, rmdir (unlinkat of a directory), mkdirat, statx,
 * fsync (of anything below $FAULT_DIRECTORY or /dev/shm/audio_cleanup*),
 * copy_file_range, or pwrite (to the same).  It strikes at the NTH call
 * of each process since the line was written, 0 meaning every one; with NAME,
 * only calls on this name are counted.  ACTION is
 *
 *		kill		SIGKILL before the call
 *		killafter	SIGKILL after it
 *		errno		the call is not made and fails with ERRNO
 *		hold		the process waits until the control file is gone
 *		slow		the call is made after ERRNO milliseconds
 *
 * A kill removes the control file first, so that it strikes once.  For each
 * strike a byte is appended to $FAULT_CONTROL.fired.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name)) next_symbol(#name))

typedef struct Fault
{
	char		call[32];
	char		action[32];
	int			nth;
	int			errnum;
	char		name[256];
} Fault;

static char last_line[512];
static int	calls;

static void *
next_symbol(const char *name)
{
	void	   *symbol = dlsym(RTLD_NEXT, name);

	if (symbol == NULL)
		abort();
	return symbol;
}

/* Reads the line for this call on this name. */
static int
read_control(const char *call, const char *name, Fault *fault)
{
	const char *path = getenv("FAULT_CONTROL");
	char		line[512];
	char	   *rest;
	ssize_t		n;
	int			fd;

	if (path == NULL || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	line[n] = '\0';
	if (strcmp(line, last_line) != 0)
	{
		strcpy(last_line, line);
		calls = 0;
	}
	for (char *one = strtok_r(line, "\n", &rest); one != NULL; one = strtok_r(NULL, "\n", &rest))
	{
		memset(fault, 0, sizeof(*fault));
		if (sscanf(one, "%31s %31s %d %d %255s", fault->call, fault->action, &fault->nth,
				   &fault->errnum, fault->name) >= 3 &&
			strcmp(fault->call, call) == 0 &&
			(fault->name[0] == '\0' || strcmp(fault->name, name) == 0))
			return 1;
	}
	return 0;
}

static void
note_strike(void)
{
	char		path[PATH_MAX];
	int			fd;

	snprintf(path, sizeof(path), "%s.fired", getenv("FAULT_CONTROL"));
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "x", 1) != 1)
		abort();
	close(fd);
}

static void
die_now(void)
{
	if (unlink(getenv("FAULT_CONTROL")) != 0)
		abort();
	note_strike();
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* Does it strike now?  Keeps errno. */
static int
strikes(const char *call, const char *name, Fault *fault)
{
	int			save_errno = errno;
	int			now = read_control(call, name, fault) && (++calls == fault->nth || fault->nth == 0);

	errno = save_errno;
	return now;
}

/* Before the call: true if it is to fail with errno. */
static int
before(const Fault *fault)
{
	if (strcmp(fault->action, "kill") == 0)
		die_now();
	if (strcmp(fault->action, "hold") == 0)
	{
		note_strike();
		while (access(getenv("FAULT_CONTROL"), F_OK) == 0)
			usleep(10000);
	}
	if (strcmp(fault->action, "slow") == 0)
	{
		note_strike();
		usleep(1000 * fault->errnum);
	}
	if (strcmp(fault->action, "errno") != 0)
		return 0;
	note_strike();
	errno = fault->errnum;
	return 1;
}

static int
after(const Fault *fault, int rc)
{
	if (strcmp(fault->action, "killafter") == 0)
		die_now();
	return rc;
}

#define INTERPOSE(call, name, really) \
	do { \
		Fault		fault; \
		if (!strikes(call, name, &fault)) \
			return really; \
		if (before(&fault)) \
			return -1; \
		return after(&fault, really); \
	} while (0)

int
renameat2(int from, const char *name, int to, const char *to_name, unsigned int flags)
{
	INTERPOSE("renameat2", name, NEXT(renameat2) (from, name, to, to_name, flags));
}

int
unlinkat(int fd, const char *name, int flags)
{
	INTERPOSE((flags & AT_REMOVEDIR) ? "rmdir" : "unlinkat", name,
			  NEXT(unlinkat) (fd, name, flags));
}

/* Here every unlink is a call that can fail: there is no io_uring (see src/store/ring.c), by its -errno. */
int
io_uring_queue_init(unsigned int entries, void *ring, unsigned int flags)
{
	return -ENOSYS;
}

int
mkdirat(int fd, const char *name, mode_t mode)
{
	INTERPOSE("mkdirat", name, NEXT(mkdirat) (fd, name, mode));
}

int
statx(int fd, const char *restrict name, int flags, unsigned int mask, struct statx *restrict buffer)
{
	INTERPOSE("statx", name, NEXT(statx) (fd, name, flags, mask, buffer));
}

/* The server's own files are not meant. */
static int
is_below_directory(int fd)
{
	const char *directory = getenv("FAULT_DIRECTORY");
	char		link[64];
	char		path[PATH_MAX];
	ssize_t		n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0 || directory == NULL)
		return 0;
	path[n] = '\0';
	return strncmp(path, directory, strlen(directory)) == 0 ||
		strncmp(path, "/dev/shm/audio_cleanup", strlen("/dev/shm/audio_cleanup")) == 0;
}

int
fsync(int fd)
{
	if (!is_below_directory(fd))
		return NEXT(fsync) (fd);
	INTERPOSE("fsync", "", NEXT(fsync) (fd));
}

ssize_t
copy_file_range(int in, off64_t * in_offset, int out, off64_t * out_offset, size_t size, unsigned int flags)
{
	INTERPOSE("copy_file_range", "", NEXT(copy_file_range) (in, in_offset, out, out_offset, size, flags));
}

ssize_t
pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
	if (!is_below_directory(fd))
		return NEXT(pwrite) (fd, buffer, size, offset);
	INTERPOSE("pwrite", "", NEXT(pwrite) (fd, buffer, size, offset));
}
