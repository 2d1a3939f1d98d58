/*-------------------------------------------------------------------------
 *
 * store/copy.c
 *	  A reliable copy of a file on another file system.
 *
 * The cheapest way is tried first: shared extents (FICLONE), then
 * copy_file_range(), then read and write.  A way may fail for reasons that
 * differ between file systems and kernels; then the next way is tried.
 * copy_file_range() may also return 0, "end of file", in the middle of a file;
 * so only read() decides about the end.
 *
 * The copy is then fsynced, dropped from the page cache, and compared with the
 * original byte by byte.  The comparison costs no more than two checksums, and
 * can miss nothing.  If pages cannot be dropped (tmpfs), or the device has a
 * cache of its own, then the comparison reads from that memory.
 *
 * No function of this file allocates memory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "src/store/private.h"

/* a divisor of COPY_CHUNK */
#define BUFFER_SIZE		(256 * 1024)

/* bytes after which the disk begins to write a copy */
#define FLUSH_BYTES		(32 * 1024 * 1024)

/* bytes of the names, and of a value, of extended attributes: the limit of Linux */
#define ATTRIBUTES_MAX	(64 * 1024)

#define PERMISSIONS		(S_IRWXU | S_IRWXG | S_IRWXO)

/*
 * static, because the buffers are too large for the stack; a process copies
 * one file at a time
 */
static char buffer_a[BUFFER_SIZE];
static char buffer_b[BUFFER_SIZE];

typedef struct Copying
{
	int			from;
	int			to;
	CopyStop	stop;
	bool		by_hand;		/* copy_file_range() has refused */
	int64		flushing_from;	/* begin of the bytes that the disk writes, */
	int64		flushing_to;	/* and their end */
} Copying;


/* ----------------------------------------------------------------- content --- */

ssize_t
copy_read(int fd, char *buffer, size_t size, int64 offset)
{
	size_t		done = 0;

	while (done < size)
	{
		ssize_t		n = pread(fd, buffer + done, size - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

int
copy_write(int fd, const char *buffer, size_t size, int64 offset)
{
	while (size > 0)
	{
		ssize_t		n = pwrite(fd, buffer, size, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return ENOSPC;		/* as in core */
		buffer += n;
		size -= n;
		offset += n;
	}
	return 0;
}

/*
 * Copies at most `size` bytes at `offset`.  Returns the number of bytes
 * copied; 0 at the end of the file; -1 with errno.
 */
static ssize_t
copy_some(Copying *copying, int64 offset, size_t size)
{
	off64_t		in = offset;
	off64_t		out = offset;
	ssize_t		n;

	if (!copying->by_hand)
	{
		n = copy_file_range(copying->from, &in, copying->to, &out, size, 0);
		if (n > 0 || (n < 0 && (errno == EINTR || errno == ENOSPC || errno == EDQUOT)))
			return n;
		/* EXDEV, EINVAL, ENOSYS, EOPNOTSUPP, EPERM of a sandbox, ... */
		copying->by_hand = true;
	}
	n = copy_read(copying->from, buffer_a, Min(size, BUFFER_SIZE), offset);
	if (n <= 0)
		return n;
	errno = copy_write(copying->to, buffer_a, n, offset);
	return errno == 0 ? n : -1;
}

/* Calls sync_file_range().  Returns 0 or an errno, but 0 where the system or the file system lacks that call. */
static int
flush(int fd, int64 from, int64 to, unsigned int flags)
{
	if (from == to || sync_file_range(fd, from, to - from, flags) == 0)
		return 0;
	return errno == EIO || errno == ENOSPC || errno == EDQUOT ? errno : 0;
}

/*
 * Makes the disk write what was copied up to `end`, while the next bytes are
 * copied.  Else the fsync of a large copy would have to write all of it, and
 * would serve no stop() for that time.  Returns 0 or an errno.
 */
static int
flush_behind(Copying *copying, int64 end)
{
	int64		from = copying->flushing_from;
	int64		to = copying->flushing_to;
	int			errnum;

	if (end - to < FLUSH_BYTES)
		return 0;
	copying->flushing_from = to;
	copying->flushing_to = end;
	errnum = flush(copying->to, to, end, SYNC_FILE_RANGE_WRITE);
	return errnum != 0 ? errnum :
		flush(copying->to, from, to, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

/* Copies the bytes from `offset` to `end`.  Returns 0 or an errno. */
static int
copy_range(Copying *copying, int64 offset, int64 end)
{
	while (offset < end)
	{
		ssize_t		n;
		int			errnum;

		/* copy_some() may copy fewer bytes than the caller asks for */
		if (is_stopped(copying->stop))
			return EINTR;
		n = copy_some(copying, offset, Min(end - offset, COPY_CHUNK));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return EIO;			/* the file has become shorter */
		offset += n;
		errnum = flush_behind(copying, offset);
		if (errnum != 0)
			return errnum;
	}
	return 0;
}

/*
 * Sets *from and *to to the next stretch of data at or after `offset`.
 * Returns false if only a hole follows.  A file system that does not tell
 * holes has one stretch.
 */
static bool
find_data(int fd, int64 offset, int64 size, int64 *from, int64 *to)
{
	int64		data = lseek(fd, offset, SEEK_DATA);
	int64		hole;

	*from = offset;
	*to = size;
	if (data < 0)
		return errno != ENXIO;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole > data)
	{
		*from = data;
		*to = Min(hole, size);
	}
	return *from < size;
}

/* Copies `size` bytes, and keeps the holes.  Returns 0 or an errno. */
static int
copy_content(int from, int to, int64 size, CopyStop stop)
{
	Copying		copying = {from, to, stop, false, 0, 0};
	int64		offset = 0;
	int64		start;
	int64		end;

	/* FICLONE lets both files share their blocks */
	if (size == 0 || ioctl(to, FICLONE, from) == 0)
		return 0;
	if (ftruncate(to, size) != 0)
		return errno;
	while (offset < size && find_data(from, offset, size, &start, &end))
	{
		int			errnum = copy_range(&copying, start, end);

		if (errnum != 0)
			return errnum;
		offset = end;
	}
	return 0;
}


/* -------------------------------------------------------------- attributes --- */

/*
 * Returns whether an attribute is left out because the other file system does
 * not know the attribute, or this process may not set it.
 */
static bool
is_forgivable(int errnum)
{
	return errnum == EOPNOTSUPP || errnum == EPERM ||
		errnum == EACCES || errnum == EINVAL || errnum == ENODATA ||
		errnum == ERANGE || errnum == E2BIG || errnum == ENOSYS;
}

/* Returns whether an attribute is copied: "security." and "trusted." belong to the system. */
static bool
is_kept(const char *name)
{
	return strncmp(name, "user.", 5) == 0 || strncmp(name, "system.", 7) == 0;
}

/* Returns 0 or an errno. */
static int
copy_attribute(int from, int to, const char *name)
{
	ssize_t		size = fgetxattr(from, name, buffer_b, ATTRIBUTES_MAX);

	if (size < 0 || fsetxattr(to, name, buffer_b, size, 0) != 0)
		return is_forgivable(errno) ? 0 : errno;
	return 0;
}

/* Copies extended attributes, and so the access control lists of POSIX and NFS.  Returns 0 or an errno. */
static int
copy_attributes(int from, int to)
{
	ssize_t		size = flistxattr(from, buffer_a, ATTRIBUTES_MAX);
	const char *name;

	if (size < 0)
		return is_forgivable(errno) ? 0 : errno;
	for (name = buffer_a; name < buffer_a + size; name += strlen(name) + 1)
	{
		int			errnum = is_kept(name) ? copy_attribute(from, to, name) : 0;

		if (errnum != 0)
			return errnum;
	}
	return 0;
}

/*
 * Copies owner, group and permissions.  Returns 0 or an errno.  Only root may
 * give files away, but a group that this process belongs to can be kept.  A
 * copy that gets this process's user as its owner must be readable for that
 * user, or the copy could not be put back.  Set-user-ID and similar
 * permissions are left out, because the owner may change.
 */
static int
copy_permissions(const FileLook *look, int to)
{
	mode_t		mode = look->mode & PERMISSIONS;

	if (fchown(to, look->owner, look->group) != 0)
	{
		if (fchown(to, -1, look->group) != 0 && !is_forgivable(errno))
			return errno;
		mode |= S_IRUSR;
	}
	return fchmod(to, mode) != 0 ? errno : 0;
}

/*
 * Copies mtime.  Returns 0 or an errno.  Must be called last, because all
 * other calls change mtime.  The copy is recognized by its mtime, so a file
 * system that keeps the mtime only roughly is an error (EOPNOTSUPP).
 */
static int
copy_time(const FileLook *look, int to)
{
	FileLook	copied;
	const int64 second = INT64CONST(1000000000);
	int64		mtime = look->identity.mtime_ns;
	struct timespec times[2] = {{0}};

	times[0].tv_nsec = UTIME_OMIT;
	times[1].tv_nsec = mtime % second;
	times[1].tv_sec = mtime / second;
	if (times[1].tv_nsec < 0)	/* before 1970 */
	{
		times[1].tv_nsec += second;
		times[1].tv_sec--;
	}
	if (futimens(to, times) != 0 || store_look(to, "", &copied) != 0)
		return errno;
	return copied.identity.mtime_ns == mtime ? 0 : EOPNOTSUPP;
}


/* --------------------------------------------------------------- comparing --- */

FileResult
copy_compare(int a, int b, int64 size, CopyStop stop)
{
	const char *failure = "could not verify copy of file";
	int64		offset = 0;

	/* the last read must find the end of both files */
	while (offset <= size)
	{
		ssize_t		n;
		ssize_t		m;

		if (offset % COPY_CHUNK == 0 && is_stopped(stop))
			return fail(EINTR, failure);
		n = copy_read(a, buffer_a, BUFFER_SIZE, offset);
		m = n < 0 ? -1 : copy_read(b, buffer_b, BUFFER_SIZE, offset);
		if (m < 0)
			return fail(errno, failure);
		if (m != n || memcmp(buffer_a, buffer_b, n) != 0)
			return come_to(FILE_REPLACED);
		offset += n;
		if (n < BUFFER_SIZE)
			break;
	}
	return come_to(offset == size ? FILE_OK : FILE_REPLACED);
}

/* Compares the copy with the original.  FILE_OK or FILE_FAILED: EIO if the files differ. */
static FileResult
verify(int from, int to, int64 size, CopyStop stop)
{
	FileResult	result;

	/* without its pages in memory the copy is read from the disk */
	(void) posix_fadvise(to, 0, 0, POSIX_FADV_DONTNEED);
	result = copy_compare(from, to, size, stop);
	(void) posix_fadvise(to, 0, 0, POSIX_FADV_DONTNEED);
	return result.outcome == FILE_REPLACED ? fail(EIO, "could not verify copy of file") : result;
}

FileResult
copy_make(int from, const FileLook *look, int to, CopyStop stop)
{
	int64		size = look->identity.size;
	int			errnum;

	if ((errnum = copy_content(from, to, size, stop)) != 0)
		return fail_or_no_space(errnum, "could not copy file");
	if ((errnum = copy_permissions(look, to)) != 0 || (errnum = copy_attributes(from, to)) != 0)
		return fail_or_no_space(errnum, "could not copy the attributes of file");
	if ((errnum = copy_time(look, to)) != 0)
		return fail_or_no_space(errnum, "could not keep the time of file");
	if (fsync(to) != 0)
		return fail_or_no_space(errno, "could not fsync copy of file");
	return verify(from, to, size, stop);
}
