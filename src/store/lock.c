/*-------------------------------------------------------------------------
 *
 * store/lock.c
 *	  The lock on the claim.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/store/private.h"

/*
 * locks of this process: a transaction has few directories, and seldom more
 * than one directory
 */
#define MAX_LOCKS		16

/* attempts to lock a claim that is replaced meanwhile */
#define MAX_ATTEMPTS	10

/* A lock on a claim.  An entry without references is free. */
typedef struct ClaimLock
{
	dev_t		device;
	uint64		inode;
	int			fd;
	int			references;		/* number of stores that have the lock */
} ClaimLock;

static ClaimLock locks[MAX_LOCKS];

/*
 * Looks at the claim.  FILE_OK only if the claim is a regular file of our
 * user.
 */
static FileResult
look_at_claim(int private, FileLook *look)
{
	if (store_look_at_file(private, CLAIM_NAME, look) != 0)
		return vanished_or_failed(errno, "could not stat claim");
	if (!S_ISREG(look->mode) || look->owner != geteuid())
		return fail(EPERM, "could not trust claim");
	return come_to(FILE_OK);
}

/*
 * Returns whether both looks saw one claim.  The mode is compared, because a
 * FIFO that takes the place of a removed claim may get the same inode number.
 */
static bool
is_same_claim(const FileLook *a, const FileLook *b)
{
	return a->identity.inode == b->identity.inode && a->volume.device == b->volume.device &&
		a->mode == b->mode;
}

static bool
is_lock_on(const ClaimLock *lock, const FileLook *claim)
{
	return lock->references > 0 && lock->inode == claim->identity.inode &&
		lock->device == claim->volume.device;
}

/* Returns the lock that this process has on the claim, else a free entry, else NULL. */
static ClaimLock *
find_lock(const FileLook *claim)
{
	ClaimLock  *found = NULL;

	for (int i = 0; i < MAX_LOCKS; i++)
	{
		if (is_lock_on(&locks[i], claim))
			return &locks[i];
		if (locks[i].references == 0)
			found = &locks[i];
	}
	return found;
}

/* Returns 0 or an errno. */
static int
lock_descriptor(int fd)
{
	while (flock(fd, LOCK_EX | LOCK_NB) != 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

/*
 * Returns whether the claim can be read while it is locked.  SMB keeps
 * everybody from reading a locked file, even this process by another
 * descriptor.  A claim that nobody can read is of no use as a claim.
 */
static bool
is_readable(int private)
{
	char		c;
	bool		readable = true;
	int			fd = openat(private, CLAIM_NAME, O_RDONLY | COPY_FLAGS);

	if (fd >= 0)
	{
		readable = read(fd, &c, 1) >= 0 || errno != EACCES;
		close(fd);
	}
	return readable;
}

/* Returns whether the open file is the claim that was found, and still the claim. */
static bool
is_current(int private, int fd, const FileLook *found)
{
	FileLook	look;

	if (store_look_at_file(fd, "", &look) != 0 || !is_same_claim(&look, found))
		return false;
	return store_look_at_file(private, CLAIM_NAME, &look) == 0 && is_same_claim(&look, found);
}

/*
 * Opens the claim that was found, with `access` (O_RDONLY or O_RDWR), and locks
 * it.  Returns the descriptor, or -1 and sets *errnum: to 0 if this file system
 * has no usable locks, ESTALE if there is another claim by now, EWOULDBLOCK if
 * another process has the lock.
 */
static int
open_and_lock(int private, const FileLook *found, int access, int *errnum)
{
	int			fd = openat(private, CLAIM_NAME, access | COPY_FLAGS);

	if (fd < 0)
	{
		*errnum = errno == ENOENT || errno == ELOOP ? ESTALE : errno;
		return -1;
	}
	*errnum = lock_descriptor(fd);
	/* a process that has not noticed the new claim may lock the old claim */
	if (!is_current(private, fd, found))
		*errnum = ESTALE;
	else if (*errnum == 0 && is_readable(private))
		return fd;
	/* a file system without locks */
	else if (*errnum == ENOLCK || *errnum == EOPNOTSUPP || *errnum == ENOSYS)
		*errnum = 0;
	(void) flock(fd, LOCK_UN);
	close(fd);
	return -1;
}

/* Gives the store the lock on the claim that was found. */
static FileResult
lock_claim(FileStore *store, int private, const FileLook *found)
{
	ClaimLock  *lock = find_lock(found);

	if (lock == NULL)
		return fail(EMFILE, "could not lock claim");
	if (lock->references == 0)
	{
		int			errnum;
		int			fd = open_and_lock(private, found, O_RDONLY, &errnum);

		/* NFS gives an exclusive lock only on a file that is open for writing */
		if (fd < 0 && errnum == EBADF)
			fd = open_and_lock(private, found, O_RDWR, &errnum);
		if (fd < 0)
			return errnum == 0 ? come_to(FILE_OK) :
				errnum == EWOULDBLOCK ? come_to(FILE_OCCUPIED) : fail_or_no_space(errnum, "could not lock claim");
		lock->device = found->volume.device;
		lock->inode = found->identity.inode;
		lock->fd = fd;
	}
	lock->references++;
	store->lock = lock;
	return come_to(FILE_OK);
}

static FileResult
try_claim_lock(FileStore *store, int private)
{
	FileLook	found;
	FileResult	result = look_at_claim(private, &found);

	if (result.outcome == FILE_OK && store->lock != NULL && is_lock_on(store->lock, &found))
		return result;
	local_unlock(store);
	return result.outcome == FILE_OK ? lock_claim(store, private, &found) : result;
}

FileResult
local_lock(FileStore *store)
{
	FileResult	result;
	int			private = store_open_private(store, false);
	int			attempt = 1;

	if (private < 0)
	{
		result = vanished_or_failed(errno, store->failure);
		local_unlock(store);
		return result;
	}
	do
		result = try_claim_lock(store, private);
	while (result.errnum == ESTALE && attempt++ < MAX_ATTEMPTS);
	close(private);
	return result;
}

/*
 * The flock() is released before the close(), because a close() alone would
 * leave the lock to a child that was forked meanwhile and has not called
 * exec() yet.
 */
void
local_unlock(FileStore *store)
{
	ClaimLock  *lock = store->lock;

	store_settle(store);
	store->lock = NULL;
	if (lock == NULL || --lock->references > 0)
		return;
	(void) flock(lock->fd, LOCK_UN);
	close(lock->fd);
}


/* ----------
 * The other one's lock
 * ----------
 */

/*
 * Looks at a line of /proc/locks, such as "1: FLOCK ADVISORY WRITE 1234
 * 08:01:393 0 EOF".  (The line of a process that waits for a lock has an arrow
 * before FLOCK.)  Sets *holder to the process that has the lock on the claim;
 * or sets *likely to a process that probably has the lock, -1 if there are
 * several such processes.
 *
 * The device in the line is the device of the mounted file system.  stat() may
 * tell another device: btrfs has a device for each subvolume, overlayfs has a
 * device for each layer.  All these devices are anonymous: their major number
 * is 0.  So if both devices are anonymous, and the inodes are equal, then the
 * file is likely to be the claim.  Some process does have the lock.  So a
 * single likely process has the lock, unless the real holder cannot be seen
 * from here.  On other devices an equal inode means nothing.
 */
static void
consider_lock(const char *line, const FileLook *claim, int *holder, int *likely)
{
	unsigned int major_number;
	unsigned int minor_number;
	uint64		inode;
	int			pid;

	if (sscanf(line, "%*d: FLOCK %*s WRITE %d %x:%x:" UINT64_FORMAT,
			   &pid, &major_number, &minor_number, &inode) != 4 ||
		pid <= 0 || inode != claim->identity.inode)
		return;
	if (makedev(major_number, minor_number) == claim->volume.device)
		*holder = pid;
	else if (major_number == 0 && major(claim->volume.device) == 0)
		*likely = *likely == 0 || *likely == pid ? pid : -1;
}

int
local_lock_holder(FileStore *store)
{
	char		line[256];
	FileLook	claim;
	int			holder = 0;
	int			likely = 0;		/* see consider_lock() */
	int			private = store_open_private(store, false);
	FILE	   *list = NULL;

	if (private < 0)
		return 0;
	if (look_at_claim(private, &claim).outcome == FILE_OK)
		list = fopen("/proc/locks", "re");
	close(private);
	if (list == NULL)
		return 0;
	while (fgets(line, sizeof(line), list) != NULL)
		consider_lock(line, &claim, &holder, &likely);
	fclose(list);
	return holder != 0 ? holder : Max(likely, 0);
}
