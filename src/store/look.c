/*-------------------------------------------------------------------------
 *
 * store/look.c
 *	  Looks at a name in a folder, and at the clock of the file system.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/int.h"
#include "src/store/private.h"

/* A file that exists for the moment in which it tells the time of the file system. */
#define CLOCK_NAME ".audio_cleanup.clock.%d"

/* Returns the time in nanoseconds since 1970; for a date before 1677 or after 2262, the first or the last such time. */
static int64
nanoseconds(int64 sec, int64 nsec)
{
	int64		result;

	if (pg_mul_s64_overflow(sec, INT64CONST(1000000000), &result) ||
		pg_add_s64_overflow(result, nsec, &result))
		return sec < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return result;
}

/*
 * Does the work of statx() by stat(), for kernels and sandboxes without
 * statx().  stat() tells no birth time and no mount id.
 */
static int
stat_as_statx(int fd, const char *name, struct statx *stx)
{
	struct stat st;
	int			rc = name[0] == '\0' ? fstat(fd, &st) : fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW);

	if (rc != 0)
		return -1;
	*stx = (struct statx)
	{
		.stx_mode = st.st_mode,.stx_uid = st.st_uid,.stx_gid = st.st_gid,
			.stx_dev_major = major(st.st_dev),.stx_dev_minor = minor(st.st_dev),
			.stx_ino = st.st_ino,.stx_nlink = st.st_nlink,
			.stx_size = st.st_size,.stx_blocks = st.st_blocks,
			.stx_mtime =
		{
			.tv_sec = st.st_mtim.tv_sec,.tv_nsec = st.st_mtim.tv_nsec
		},
			.stx_ctime =
		{
			.tv_sec = st.st_ctim.tv_sec,.tv_nsec = st.st_ctim.tv_nsec
		}
	};
	return 0;
}

static int
look_by_statx(int fd, const char *name, struct statx *stx)
{
	unsigned int mask = STATX_BASIC_STATS | STATX_BTIME;
	int			flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;

#ifdef STATX_MNT_ID
	mask |= STATX_MNT_ID;
#endif
	if (name[0] == '\0')
		flags |= AT_EMPTY_PATH;
	if (statx(fd, name, flags, mask, stx) == 0)
		return 0;

	/* old container sandboxes return EPERM for unknown system calls */
	if (errno != ENOSYS && errno != EINVAL && errno != EOPNOTSUPP && errno != EPERM)
		return -1;
	return stat_as_statx(fd, name, stx);
}

/*
 * Reads what /proc says of a descriptor into `info`, with a zero at the end.
 * Returns false with errno.
 */
static bool
read_fdinfo(int fd, char *info, size_t size)
{
	char		path[64];
	int			file;
	ssize_t		n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	do
		n = read(file, info, size - 1);
	while (n < 0 && errno == EINTR);
	store_close_quietly(file);
	info[Max(n, 0)] = '\0';
	return n >= 0;
}

/*
 * Sets the mount of a volume for kernels before 5.8, whose statx() does not
 * tell the mount: else a bind mount of the same file system would go
 * unnoticed.  Without /proc the mount stays unknown.  Returns 0, or -1 with
 * errno.
 */
static int
find_mount(int fd, const char *name, StoreVolume *volume)
{
	int			file = name[0] == '\0' ? fd : openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char		info[512];
	bool		told;

	if (file < 0)
		return -1;
	told = read_fdinfo(file, info, sizeof(info));
	if (file != fd)
		store_close_quietly(file);
	if (told)
	{
		const char *found = strstr(info, "mnt_id:");

		volume->mount_known = found != NULL;
		volume->mount_id = found ? strtoul(found + strlen("mnt_id:"), NULL, 10) : 0;
	}
	return told || errno == ENOENT || errno == EACCES ? 0 : -1;
}

int
store_look_at_file(int fd, const char *name, FileLook *look)
{
	struct statx stx;

	if (look_by_statx(fd, name, &stx) != 0)
		return -1;
	memset(look, 0, sizeof(*look));
	look->mode = stx.stx_mode;
	look->owner = stx.stx_uid;
	look->group = stx.stx_gid;
	look->volume.device = makedev(stx.stx_dev_major, stx.stx_dev_minor);
#ifdef STATX_MNT_ID
	/* an emulated kernel may claim to know the number, but give 0 */
	look->volume.mount_known = (stx.stx_mask & STATX_MNT_ID) != 0 && stx.stx_mnt_id != 0;
	look->volume.mount_id = look->volume.mount_known ? stx.stx_mnt_id : 0;
#endif
	look->identity.inode = stx.stx_ino;
	look->identity.size = stx.stx_size;
	look->identity.mtime_ns = nanoseconds(stx.stx_mtime.tv_sec, stx.stx_mtime.tv_nsec);
	look->identity.ctime_ns = nanoseconds(stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec);
	if (stx.stx_mask & STATX_BTIME)
		look->identity.btime_ns = nanoseconds(stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec);
	look->identity.nlink = stx.stx_nlink;
	/* a sparse file takes less than its size; a block has 512 bytes */
	look->identity.space = stx.stx_blocks < stx.stx_size / 512 + 1 ? stx.stx_blocks * 512 : stx.stx_size;
	return 0;
}

int
store_look(int fd, const char *name, FileLook *look)
{
	if (store_look_at_file(fd, name, look) != 0)
		return -1;
	return look->volume.mount_known ? 0 : find_mount(fd, name, &look->volume);
}

static bool
same_mount(const StoreVolume *a, const StoreVolume *b)
{
	return !a->mount_known || !b->mount_known || a->mount_id == b->mount_id;
}

bool
store_same_volume(const StoreVolume *a, const StoreVolume *b)
{
	return a->device == b->device && same_mount(a, b);
}

/*
 * A birth time of 0 is unknown, and proves nothing: a file that was condemned
 * under one kernel may be looked at again under another.
 */
bool
store_same_file(const FileIdentity *a, const FileIdentity *b, bool with_ctime)
{
	if (a->inode != b->inode || a->size != b->size ||
		a->mtime_ns != b->mtime_ns)
		return false;
	if (a->btime_ns != 0 && b->btime_ns != 0 && a->btime_ns != b->btime_ns)
		return false;
	/* capturing one link changes the ctime that the other links show, too */
	return !with_ctime || a->ctime_ns == b->ctime_ns ||
		(a->nlink > 1 || b->nlink > 1);
}

/* store_set_backup_dir() tells why size and mtime suffice for a copy. */
bool
store_same_copy(const FileIdentity *found, const FileIdentity *expected)
{
	const int64 second = INT64CONST(1000000000);

	if (found->size != expected->size)
		return false;
	return found->mtime_ns == expected->mtime_ns ||
		(found->mtime_ns % second == 0 &&
		 found->mtime_ns / second == expected->mtime_ns / second);
}

int64
store_space_of(const FileIdentity *identity)
{
	return identity->nlink > 1 ? 0 : identity->space;
}

/*
 * Size and mtime alone identify a file only in a trash, and only after the
 * capture: outside of the trash anybody can make a file of that size and time,
 * and a file whose ctime is compared has not been captured yet.
 */
bool
store_is_expected(const Folder *dir, const FileIdentity *found, const FileIdentity *expected,
				  bool with_ctime)
{
	if (dir->copies || (dir->ours && expected->captured && !with_ctime))
		return store_same_copy(found, expected);
	return store_same_file(found, expected, with_ctime);
}

/*
 * The mount is compared, because a file may be a mount point just as a folder
 * may; the device is not, because overlayfs shows the device of a lower layer.
 */
FileResult
store_recognize(const Folder *dir, const char *name, const FileIdentity *expected,
				bool with_ctime, FileIdentity *found)
{
	FileLook	look;

	if (store_look(dir->fd, name, &look) != 0)
		return vanished_or_failed(errno, "could not stat file");
	if (!S_ISREG(look.mode))
		return come_to(FILE_NOT_REGULAR);
	if (!same_mount(&look.volume, &dir->volume))
		return fail(EXDEV, "could not stat file");
	*found = look.identity;
	return come_to(expected == NULL || store_is_expected(dir, found, expected, with_ctime) ?
				   FILE_OK : FILE_REPLACED);
}

FileResult
local_clock(FileStore *store, int64 *now_ns)
{
	FileLook	look;
	FileResult	result = come_to(FILE_OK);
	char		name[64];
	bool		named = false;
	int			fd = openat(store->root.fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC,
							S_IRUSR | S_IWUSR);

	/*
	 * NFS, SMB, Ceph and FUSE have no nameless files, and are those that may
	 * have another clock
	 */
	if (fd < 0)
	{
		snprintf(name, sizeof(name), CLOCK_NAME, (int) getpid());
		/* a killed process of this number may have left the file */
		(void) unlinkat(store->root.fd, name, 0);
		fd = openat(store->root.fd, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, S_IRUSR | S_IWUSR);
		named = fd >= 0;
	}
	if (fd < 0)
		return fail_or_no_space(errno, "could not create temporary file");
	if (write(fd, "", 1) != 1 || store_look(fd, "", &look) != 0)
		result = fail_or_no_space(errno, "could not stat temporary file");
	else
		*now_ns = look.identity.mtime_ns;
	if (named)
		(void) unlinkat(store->root.fd, name, 0);
	close(fd);
	return result;
}
