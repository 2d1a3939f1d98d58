/*-------------------------------------------------------------------------
 *
 * store/file_ops.c
 *	  What may be done to one file of the upload directory.
 *
 * The upload directory belongs to an application that we do not trust and
 * that works while we do: between any two of our system calls a file may be
 * replaced, a directory renamed, a symlink planted.  Three rules follow.
 *
 * - Nothing is opened but directories, one component at a time, relative to
 *	 a descriptor and without following symlinks.  A path is never handed to
 *	 the kernel whole, and a file is not opened at all, so that a FIFO
 *	 cannot make us wait nor a device wake up; except to be copied, when it
 *	 was seen to be a regular file, and then without waiting.
 *
 * - A file is judged *after* the rename into the trash, where only this OS
 *	 user can reach it.  Looking at it before saves a rename, and is the only
 *	 time ctime can be compared, but proves nothing: the name may mean another
 *	 file by the time rename() is called.  What turns out to be a stranger is
 *	 put back.
 *
 * - A rename never overwrites.  The trash is ours, so there a check before a
 *	 plain rename will do where the file system knows no RENAME_NOREPLACE; in
 *	 the upload directory link() and unlink() take its place.
 *
 * Callers come with files sorted by path.  The directory of the last file is
 * therefore held open, on both sides: a flat directory costs three system
 * calls a file.  The directory so held may meanwhile have been renamed, or
 * swapped for another one, by its owner.  That is harmless: we hold that very
 * directory, whatever it is called now, so a file with the right identity in
 * it is the file that was condemned, and what we do to it might as well have
 * happened just before the directory moved.  If it was removed, a rename
 * fails with ENOENT, and the path is resolved anew.  No directory is held
 * beyond store_sync().
 *
 * With the trash on another file system a capture is a copy, and the rules
 * stay.  The file is copied where it is; then it is captured by a rename as
 * ever, into the upload directory's own trash, judged there, and only there
 * unlinked: there is no system call that unlinks this file and no other.  It
 * merely passes through, so that trash is called the passage.  The copy is
 * written under a name of its own in a directory that is ours alone, and
 * renamed when it is durable and verified; so is the one that is put back.
 * A process that is killed leaves behind at worst one such unfinished file,
 * which the next copy replaces and store_tidy() removes, or both the copy and
 * the original, and then it is the original that counts.
 *
 * Nothing in here raises an error.  Functions that file_ops.h calls
 * commit-safe, and the statics below them, use the stack and system calls
 * only; memory is allocated in store_open() and (by opendir) store_tidy().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#endif
#include <unistd.h>

#ifdef FRONTEND
#include "common/fe_memutils.h"
#endif
#include "common/int.h"
#include "src/store/copy.h"
#include "src/store/file_ops.h"
#include "src/store/file_store.h"

/* root, source, run, trash, the lock, and two on the way down a path */
#define STORE_DESCRIPTORS	7

/* the directory itself, two for the passage, and a third while copying */
#define BACKUP_DESCRIPTORS	4

/* an unfinished copy; no run is called that, and no claim */
#define COPY_NAME		"copy.new"

/* O_NONBLOCK: should it be a FIFO, or leased, nobody is to wait for another */
#define COPY_FLAGS \
	(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* deeper directories of the trash are left alone by store_tidy() */
#define TIDY_MAX_DEPTH	64

/* how often a stranger's other names, and vanished directories, are tried */
#define MAX_SUFFIXES	16

/* of a folder in the trash: see note_mode() */
#define MODE_ATTRIBUTE	"user.audio_cleanup.mode"

#define MAX_ATTEMPTS	3

#define DIRECTORY_FLAGS \
	(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)

/* what may be done, or is demanded, on the way down a path */
#define DIR_MAKE	0x01		/* create what is missing */
#define DIR_TRUST	0x02		/* every directory must be ours alone */
#define DIR_SYNC	0x04		/* whoever made them may owe the fsyncs */

/* A relative path, checked, and cut before its last component. */
typedef struct FilePath
{
	const char *name;			/* points into the caller's string */
	char		dir[STORE_PATH_MAX];	/* "" for the upload directory */
} FilePath;


/* ----------
 * Results
 * ----------
 */

static FileResult
come_to(FileOutcome outcome)
{
	FileResult	result = {outcome, 0, NULL};

	return result;
}

static FileResult
fail(int errnum, const char *action)
{
	FileResult	result = {FILE_FAILED, errnum, action};

	return result;
}

static FileResult
fail_or_no_space(int errnum, const char *action)
{
	FileResult	result = fail(errnum, action);

	if (errnum == ENOSPC || errnum == EDQUOT)
		result.outcome = FILE_NO_SPACE;
	return result;
}

/* Into the trash. */
static FileResult
fail_to_rename(int errnum)
{
	FileResult	result = fail_or_no_space(errnum, "rename file");

	if (errnum == EXDEV)
		result.outcome = FILE_NO_SPACE;
	return result;
}


/* ----------
 * Looking
 * ----------
 */

/* A date before 1677 or beyond 2262 is the first or the last that there is. */
static int64
nanoseconds(int64 sec, int64 nsec)
{
	int64		result;

	if (pg_mul_s64_overflow(sec, INT64CONST(1000000000), &result) ||
		pg_add_s64_overflow(result, nsec, &result))
		return sec < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return result;
}

/* The space of a sparse file is not its size; `blocks` have 512 bytes. */
static int64
allocated(int64 size, uint64 blocks)
{
	return blocks < (uint64) size / 512 + 1 ? (int64) blocks * 512 : size;
}

/*
 * stat() for kernels and sandboxes without statx(): no birth time and no
 * mount id, so that a bind mount of the same file system goes unnoticed.
 */
static int
look_plainly(int fd, const char *name, FileLook *look)
{
	struct stat st;
	int			rc;

	rc = name[0] == '\0' ? fstat(fd, &st) :
		fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW);
	if (rc != 0)
		return -1;

	memset(look, 0, sizeof(*look));
	look->mode = st.st_mode;
	look->owner = st.st_uid;
	look->group = st.st_gid;
	look->volume.device = st.st_dev;
	look->identity.inode = st.st_ino;
	look->identity.size = st.st_size;
	look->identity.mtime_ns = nanoseconds(st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	look->identity.ctime_ns = nanoseconds(st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	look->identity.nlink = st.st_nlink;
	look->identity.space = allocated(st.st_size, st.st_blocks);
	return 0;
}

#ifdef STATX_BTIME

static void
translate_statx(const struct statx *stx, FileLook *look)
{
	memset(look, 0, sizeof(*look));
	look->mode = stx->stx_mode;
	look->owner = stx->stx_uid;
	look->group = stx->stx_gid;
	look->volume.device = makedev(stx->stx_dev_major, stx->stx_dev_minor);
#ifdef STATX_MNT_ID
	look->volume.mount_known = (stx->stx_mask & STATX_MNT_ID) != 0;
	look->volume.mount_id = look->volume.mount_known ? stx->stx_mnt_id : 0;
#endif
	look->identity.inode = stx->stx_ino;
	look->identity.size = stx->stx_size;
	look->identity.mtime_ns = nanoseconds(stx->stx_mtime.tv_sec,
										  stx->stx_mtime.tv_nsec);
	look->identity.ctime_ns = nanoseconds(stx->stx_ctime.tv_sec,
										  stx->stx_ctime.tv_nsec);
	if (stx->stx_mask & STATX_BTIME)
		look->identity.btime_ns = nanoseconds(stx->stx_btime.tv_sec,
											  stx->stx_btime.tv_nsec);
	look->identity.nlink = stx->stx_nlink;
	look->identity.space = allocated(stx->stx_size, stx->stx_blocks);
}

int
store_look(int fd, const char *name, FileLook *look)
{
	struct statx stx;
	unsigned int mask = STATX_BASIC_STATS | STATX_BTIME;
	int			flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;

#ifdef STATX_MNT_ID
	mask |= STATX_MNT_ID;
#endif
	if (name[0] == '\0')
		flags |= AT_EMPTY_PATH;
	if (statx(fd, name, flags, mask, &stx) == 0)
	{
		translate_statx(&stx, look);
		return 0;
	}

	/* EPERM: what old container sandboxes say to calls they do not know */
	if (errno != ENOSYS && errno != EINVAL && errno != EOPNOTSUPP &&
		errno != EPERM)
		return -1;
	return look_plainly(fd, name, look);
}

#else

int
store_look(int fd, const char *name, FileLook *look)
{
	return look_plainly(fd, name, look);
}

#endif							/* STATX_BTIME */

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
 * A birth time of 0 is not known and proves nothing either way: a file
 * condemned under one kernel may be looked at again under another.
 */
bool
store_same_file(const FileIdentity *a, const FileIdentity *b, bool with_ctime)
{
	if (a->inode != b->inode || a->size != b->size ||
		a->mtime_ns != b->mtime_ns)
		return false;
	if (a->btime_ns != 0 && b->btime_ns != 0 && a->btime_ns != b->btime_ns)
		return false;
	/* capturing one link changes the ctime that the others show too */
	return !with_ctime || a->ctime_ns == b->ctime_ns ||
		(a->nlink > 1 || b->nlink > 1);
}

/*
 * Identity of the regular file `name` in a held directory.  The device is not
 * compared, overlayfs shows that of a lower layer; but a file may be a mount
 * point just as a directory may.
 */
static FileResult
identify(const HeldDir *dir, const char *name, FileIdentity *identity)
{
	FileLook	look;

	if (store_look(dir->fd, name, &look) != 0)
		return errno == ENOENT ? come_to(FILE_VANISHED) :
			fail(errno, "stat file");
	if (!S_ISREG(look.mode))
		return come_to(FILE_NOT_REGULAR);
	if (!same_mount(&look.volume, dir->volume))
		return fail(EXDEV, "stat file");
	*identity = look.identity;
	return come_to(FILE_OK);
}

/* Why that will do for a copy is told at store_set_backup_dir(). */
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
 * Is the file that was found in the directory the one that we look for?  What
 * we look for by its ctime has not been captured; and outside of the trash
 * anybody can make a file of that size and time.
 */
static bool
is_expected(const HeldDir *dir, const FileIdentity *found, const FileIdentity *expected,
			bool with_ctime)
{
	if (dir->copies || (dir->ours && expected->captured && !with_ctime))
		return store_same_copy(found, expected);
	return store_same_file(found, expected, with_ctime);
}

/* identify(), and FILE_REPLACED if it is not `expected`. */
static FileResult
recognize(const HeldDir *dir, const char *name, const FileIdentity *expected,
		  bool with_ctime, FileIdentity *found)
{
	FileResult	result = identify(dir, name, found);

	if (result.outcome != FILE_OK)
		return result;
	return is_expected(dir, found, expected, with_ctime) ? result : come_to(FILE_REPLACED);
}


/* ----------
 * Paths
 * ----------
 */

/* Length of the first component of a path. */
static size_t
measure_component(const char *path)
{
	return strcspn(path, "/");
}

/*
 * errno for a component that must not be used, or 0.  ".." would lead out of
 * the directory; the empty one and "." would give a file a second name.
 */
static int
judge_component(const char *component, size_t len)
{
	if (len == 0 || (len == 1 && component[0] == '.') ||
		(len == 2 && component[0] == '.' && component[1] == '.'))
		return EINVAL;
	return len > NAME_MAX ? ENAMETOOLONG : 0;
}

/* Our own directory is no place for uploads: a claim is not to be condemned. */
static bool
is_private(const char *path)
{
	size_t		len = measure_component(path);

	/* some file systems do not tell upper from lower case */
	return len == strlen(STORE_PRIVATE_DIR) &&
		pg_strncasecmp(path, STORE_PRIVATE_DIR, len) == 0;
}

/* Returns 0 or an errno. */
static int
split_path(const char *path, FilePath *where)
{
	const char *component = path;
	size_t		len;
	int			errnum;

	if (strlen(path) >= STORE_PATH_MAX)
		return ENAMETOOLONG;
	if (is_private(path))
		return EINVAL;

	for (;;)
	{
		len = measure_component(component);
		errnum = judge_component(component, len);
		if (errnum != 0)
			return errnum;
		if (component[len] == '\0')
			break;
		component += len + 1;
	}

	where->name = component;
	len = component > path ? component - path - 1 : 0;
	memcpy(where->dir, path, len);
	where->dir[len] = '\0';
	return 0;
}


/* ----------
 * Durability
 * ----------
 */

/* Keeps errno. */
static void
sync_directory(FileStore *store, int fd)
{
	int			save_errno = errno;

	/*
	 * As in core: some file systems cannot fsync a directory, and say so by
	 * EINVAL.  There is nothing else we could do there.
	 */
	if (fsync(fd) != 0 && errno != EINVAL && store->sync_errno == 0)
		store->sync_errno = errno;
	errno = save_errno;
}

static void
mark_dirty(const FileStore *store, HeldDir *held)
{
	if (store->durable)
		held->dirty = true;
}

static void
clean(FileStore *store, HeldDir *held)
{
	if (held->fd >= 0 && held->dirty && store->durable)
		sync_directory(store, held->fd);
	held->dirty = false;
}

static void
let_go(FileStore *store, HeldDir *held)
{
	if (held->fd < 0)
		return;
	clean(store, held);
	close(held->fd);
	held->fd = -1;
}

static void
let_go_all(FileStore *store)
{
	let_go(store, &store->source);
	let_go(store, &store->trash.dir);
	let_go(store, &store->trash.run);
	let_go(store, &store->passage.dir);
	let_go(store, &store->passage.run);
}


/* ----------
 * Directories
 * ----------
 */

static void
close_quietly(int fd)
{
	int			save_errno = errno;

	close(fd);
	errno = save_errno;
}

int
store_open_directory_on(const StoreVolume *volume, int parent, const char *name,
						FileLook *look)
{
	int			fd = openat(parent, name, DIRECTORY_FLAGS);

	if (fd < 0)
		return -1;
	if (store_look(fd, "", look) != 0)
	{
		close_quietly(fd);
		return -1;
	}
	if (!store_same_volume(&look->volume, volume))
	{
		close(fd);
		errno = EXDEV;
		return -1;
	}
	return fd;
}

int
store_open_directory(const FileStore *store, int parent, const char *name,
					 FileLook *look)
{
	return store_open_directory_on(&store->volume, parent, name, look);
}

/*
 * The server's umask is no business of the application's: a directory that is
 * made again must be as open as the upload directory.  A chmod() afterwards
 * might hit another directory that was moved there; hence the umask.
 */
static int
make_directory(int parent, const char *name, mode_t mode)
{
	mode_t		save_umask = umask(0);
	int			rc = mkdirat(parent, name, mode);

	umask(save_umask);
	return rc;
}

/* Nobody else can put anything into it, or take anything out. */
static bool
is_trusted(const FileLook *look)
{
	return look->owner == geteuid() && (look->mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Pass on the descriptor of a trusted directory, close any other: EPERM. */
static int
insist_on_trust(int fd, const FileLook *look, const char **action)
{
	if (fd >= 0 && is_trusted(look))
		return fd;
	if (fd < 0 && errno != ELOOP && errno != ENOTDIR && errno != EXDEV)
		return -1;

	if (fd >= 0)
		close(fd);
	*action = "trust directory";
	errno = EPERM;
	return -1;
}

/*
 * Open the directory `name` in `parent`, one step of descend().  Returns a
 * descriptor, or -1 with errno and *action.
 */
static int
step_down(const FileStore *store, const StoreVolume *volume, int parent,
		  const char *name, int flags, bool *made, const char **action)
{
	FileLook	look;
	int			fd;

	*made = false;
	*action = "open directory";
	fd = store_open_directory_on(volume, parent, name, &look);
	if (fd < 0 && errno == ENOENT && (flags & DIR_MAKE))
	{
		mode_t		mode = (flags & DIR_TRUST) ? S_IRWXU : store->make_mode;

		if (make_directory(parent, name, mode) == 0)
			*made = true;
		else if (errno != EEXIST)
		{
			*action = "create directory";
			return -1;
		}
		fd = store_open_directory_on(volume, parent, name, &look);
	}
	if (flags & DIR_TRUST)
		fd = insist_on_trust(fd, &look, action);
	return fd;
}

int
store_open_private(const FileStore *store, bool make, const char **action)
{
	bool		made;

	return step_down(store, &store->volume, store->root.fd, STORE_PRIVATE_DIR,
					 make ? DIR_TRUST | DIR_MAKE : DIR_TRUST, &made, action);
}

/* The directory `fd`, reached from `from`, has got a new entry. */
static void
owe_sync(FileStore *store, HeldDir *from, int fd)
{
	if (fd == from->fd)
		mark_dirty(store, from);
	else if (store->durable)
		sync_directory(store, fd);	/* will not be held, so now or never */
}

/*
 * Open the directory at `path` (not empty) below `from`.  Returns a
 * descriptor, or -1 with errno and *action.
 */
static int
descend(FileStore *store, HeldDir *from, const char *path, int flags,
		const char **action)
{
	char		name[NAME_MAX + 1];
	int			fd = from->fd;

	for (;;)
	{
		size_t		len = measure_component(path);
		bool		made;
		int			child;

		memcpy(name, path, len);
		name[len] = '\0';
		child = step_down(store, from->volume, fd, name, flags, &made, action);
		if (made || (child >= 0 && (flags & DIR_SYNC)))
			owe_sync(store, from, fd);
		if (fd != from->fd)
			close_quietly(fd);
		if (child < 0 || path[len] == '\0')
			return child;
		fd = child;
		path += len + 1;
	}
}

/*
 * Have the directory at `path` below `from` open, in `held` unless it is
 * `from` itself.  Returns NULL with errno and *action on failure.
 */
static HeldDir *
hold(FileStore *store, HeldDir *held, HeldDir *from, const char *path,
	 int flags, const char **action)
{
	if (!store->durable)
		flags &= ~DIR_SYNC;
	if (path[0] == '\0')
		return from;
	if (held->fd >= 0 && strcmp(held->path, path) == 0 &&
		(held->chain_synced || !(flags & DIR_SYNC)))
		return held;

	let_go(store, held);
	held->fd = descend(store, from, path, flags, action);
	if (held->fd < 0)
		return NULL;
	held->chain_synced = (flags & DIR_SYNC) != 0;
	held->mode_noted = held->access_known = false;
	held->copies = from->copies;
	held->volume = from->volume;
	strlcpy(held->path, path, sizeof(held->path));
	return held;
}

/*
 * The directory a file belongs into.  If it is not there, or is no directory
 * any more, then the file that we knew is not there either; and if it was to
 * be made, somebody has taken its name.
 */
static HeldDir *
hold_source(FileStore *store, const FilePath *where, int flags,
			FileResult *result)
{
	const char *action;
	HeldDir    *held = hold(store, &store->source, &store->root, where->dir,
							flags, &action);

	if (held != NULL)
		return held;
	if (errno == ELOOP || errno == ENOTDIR)
		*result = come_to((flags & DIR_MAKE) ? FILE_OCCUPIED : FILE_VANISHED);
	else if (errno == ENOENT && !(flags & DIR_MAKE))
		*result = come_to(FILE_VANISHED);
	else
		*result = fail(errno, action);
	return NULL;
}

static HeldDir *
hold_run(FileStore *store, Trash *trash, int64 run_id, int flags,
		 const char **action)
{
	char		path[NAME_MAX + 32];

	snprintf(path, sizeof(path), "%s/" INT64_FORMAT, trash->path, run_id);

	/* what is held below another run's trash is of no use for this one */
	if (trash->run.fd >= 0 && strcmp(trash->run.path, path) != 0)
		let_go(store, &trash->dir);
	return hold(store, &trash->run, trash->base, path, flags, action);
}

/* Its counterpart in the trash.  FILE_VANISHED if there is none. */
static HeldDir *
hold_trash(FileStore *store, Trash *trash, int64 run_id,
		   const FilePath *where, int flags, FileResult *result)
{
	const char *action;
	HeldDir    *held;

	flags |= DIR_TRUST;
	held = hold_run(store, trash, run_id, flags, &action);
	if (held != NULL)
		held = hold(store, &trash->dir, held, where->dir, flags, &action);
	if (held != NULL)
	{
		held->ours = true;
		held->copies = trash->copies || trash->base->copies;
		return held;
	}
	if (errno == ENOENT && !(flags & DIR_MAKE))
		*result = come_to(FILE_VANISHED);
	else
		*result = fail_or_no_space(errno, action);
	return NULL;
}


/*
 * A folder of the trash is ours alone, so it cannot have the mode of the one
 * whose files it keeps; should that be gone one day, it is to be made again as
 * it was.  A file system without extended attributes forgets it.
 */
static void
note_mode(const HeldDir *source, HeldDir *trash, const FilePath *where)
{
#ifdef __linux__
	char		text[16];
	struct stat st;

	if (trash->mode_noted || where->dir[0] == '\0' || fstat(source->fd, &st) != 0)
		return;
	trash->mode_noted = true;
	snprintf(text, sizeof(text), "%o", (unsigned int) (st.st_mode & 0777));
	(void) fsetxattr(trash->fd, MODE_ATTRIBUTE, text, strlen(text), XATTR_CREATE);
#endif
}

/* What note_mode() has noted, else the mode of the upload directory. */
static mode_t
noted_mode(const FileStore *store, const HeldDir *trash)
{
#ifdef __linux__
	char		text[16];
	ssize_t		len = fgetxattr(trash->fd, MODE_ATTRIBUTE, text, sizeof(text) - 1);
	unsigned int mode;

	if (len > 0)
	{
		text[len] = '\0';
		if (sscanf(text, "%o", &mode) == 1)
			return mode & 0777;
	}
#endif
	return store->mode;
}

/* The directory that a captured file is put back into, made if need be. */
static HeldDir *
hold_target(FileStore *store, const HeldDir *trash, const FilePath *target,
			int flags, FileResult *result)
{
	HeldDir    *held;

	store->make_mode = noted_mode(store, trash);
	held = hold_source(store, target, DIR_MAKE | flags, result);
	store->make_mode = store->mode;
	return held;
}


/* ----------
 * Renaming
 * ----------
 */

/*
 * Rename unless `to_name` is taken, in one step.  -1 with errno ENOSYS if
 * that is beyond this system.
 */
static int
rename_exclusively(int from, const char *name, int to, const char *to_name)
{
#ifdef RENAME_NOREPLACE
	if (renameat2(from, name, to, to_name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EINVAL || errno == EOPNOTSUPP)
		errno = ENOSYS;
#else
	errno = ENOSYS;
#endif
	return -1;
}

/* Only we create names in the trash, so looking first is good enough. */
static int
rename_into_trash(int from, const char *from_name, int trash, const char *name)
{
	FileLook	look;

	if (rename_exclusively(from, from_name, trash, name) == 0)
		return 0;
	if (errno != ENOSYS)
		return -1;

	if (store_look(trash, name, &look) == 0)
		errno = EEXIST;
	else if (errno == ENOENT)
		return renameat(from, from_name, trash, name);
	return -1;
}

/*
 * The way back.  A directory, which cannot be linked, is renamed: that could
 * replace nothing but an empty directory.
 */
static int
rename_out_of_trash(int trash, const char *name, int to, const char *to_name)
{
	FileLook	look;

	if (rename_exclusively(trash, name, to, to_name) == 0)
		return 0;
	if (errno != ENOSYS)
		return -1;

	if (store_look(trash, name, &look) != 0)
		return -1;
	if (S_ISDIR(look.mode))
		return renameat(trash, name, to, to_name);
	if (linkat(trash, name, to, to_name, 0) != 0)
		return -1;
	return unlinkat(trash, name, 0);
}

/*
 * "<name>.audio_cleanup-<run>[-<attempt>]", the name cut where the whole would
 * become too long: something a person who searches for the file will find.
 */
static void
make_spare_name(const char *name, int64 run_id, int attempt, char *spare)
{
	char		suffix[64];
	int			room;

	if (attempt == 1)
		snprintf(suffix, sizeof(suffix), "%s-" INT64_FORMAT,
				 STORE_PRIVATE_DIR, run_id);
	else
		snprintf(suffix, sizeof(suffix), "%s-" INT64_FORMAT "-%d",
				 STORE_PRIVATE_DIR, run_id, attempt);
	room = NAME_MAX - (int) strlen(suffix);
	strlcpy(spare, name, room + 1);
	strlcat(spare, suffix, NAME_MAX + 1);
}

static FileResult copy_stranger_back(FileStore *store, const FilePath *where, HeldDir *trash);

/*
 * What was captured is somebody else's file: back with it, under another name
 * if its own was taken meanwhile, for it may be wanted and must not end in
 * the trash.  Its directory may have been removed, being empty.
 */
static FileResult
return_stranger(FileStore *store, int64 run_id, const FilePath *where,
				HeldDir *trash)
{
	char		spare[NAME_MAX + 1];
	FileResult	result = fail(EEXIST, "put back file");
	int			attempt;

	strlcpy(spare, where->name, sizeof(spare));
	for (attempt = 1; attempt <= MAX_SUFFIXES; attempt++)
	{
		HeldDir    *source = hold_source(store, where, DIR_MAKE, &result);

		if (source == NULL)
			return result.outcome == FILE_FAILED ? result :
				fail(ENOTDIR, "put back file");
		if (rename_out_of_trash(trash->fd, where->name, source->fd, spare) == 0)
		{
			mark_dirty(store, source);
			mark_dirty(store, trash);
			return come_to(FILE_REPLACED);
		}
		result = fail(errno, "put back file");
		if (errno == EEXIST)
			make_spare_name(where->name, run_id, attempt, spare);
		else if (errno == ENOENT)
			let_go(store, &store->source);
		else
			break;
	}
	return result.errnum == EXDEV ? copy_stranger_back(store, where, trash) : result;
}


/* ----------
 * Removing
 * ----------
 */

static FileResult
destroy(FileStore *store, HeldDir *dir, const char *name,
		const FileIdentity *expected, bool with_ctime, int64 *freed)
{
	FileIdentity found;
	FileResult	result;

	/* if it is gone already, an unlink of ours may not be durable yet */
	mark_dirty(store, dir);
	result = recognize(dir, name, expected, with_ctime, &found);
	if (result.outcome != FILE_OK)
		return result;
	if (unlinkat(dir->fd, name, 0) != 0)
		return errno == ENOENT ? come_to(FILE_VANISHED) :
			fail(errno, "remove file");
	*freed = store_space_of(&found);
	return come_to(FILE_OK);
}


/* ----------
 * Capture
 * ----------
 */

static FileResult
try_capture(FileStore *store, Trash *into, int64 run_id, const FilePath *where,
			const FileIdentity *expected, HeldDir **trash)
{
	FileIdentity found;
	FileResult	result;
	HeldDir    *source = hold_source(store, where, 0, &result);

	if (source == NULL)
		return result;
	result = recognize(source, where->name, expected, true, &found);
	if (result.outcome != FILE_OK)
		return result;
	*trash = hold_trash(store, into, run_id, where, DIR_MAKE, &result);
	if (*trash == NULL)
		return result;
	note_mode(source, *trash, where);
	if (rename_into_trash(source->fd, where->name, (*trash)->fd, where->name) != 0)
		return fail_to_rename(errno);
	mark_dirty(store, source);
	mark_dirty(store, *trash);
	return come_to(FILE_OK);
}

/*
 * ENOENT, from a call that was to make what is missing, comes from a held
 * directory that was removed: the tidying of another run is enough.
 */
static bool
is_stale(FileStore *store, const FileResult *result, int attempt)
{
	if (result->outcome != FILE_FAILED || result->errnum != ENOENT ||
		attempt >= MAX_ATTEMPTS)
		return false;
	let_go_all(store);
	return true;
}

/* Is what we hold now the file that was condemned?  In doubt it is not. */
static FileResult
verify_capture(FileStore *store, int64 run_id, const FilePath *where,
			   const FileIdentity *expected, HeldDir *trash)
{
	FileIdentity found;
	FileResult	result;
	FileResult	returned;

	result = recognize(trash, where->name, expected, false, &found);
	if (result.outcome == FILE_OK || result.outcome == FILE_VANISHED)
		return result;

	returned = return_stranger(store, run_id, where, trash);
	if (returned.outcome == FILE_REPLACED && result.outcome == FILE_FAILED)
		return result;
	return returned;
}

/* By a rename, into a trash on the same file system. */
static FileResult
capture(FileStore *store, Trash *into, int64 run_id, const FilePath *where,
		const FileIdentity *expected, HeldDir **trash)
{
	FileResult	result;
	int			attempt = 1;

	do
		result = try_capture(store, into, run_id, where, expected, trash);
	while (is_stale(store, &result, attempt++));

	if (result.outcome != FILE_OK)
		return result;
	return verify_capture(store, run_id, where, expected, *trash);
}


/* ----------
 * Copying
 * ----------
 */

/* An open regular file that is about to be copied. */
typedef struct OpenFile
{
	int			fd;
	FileLook	look;			/* when it was opened */
} OpenFile;

/* FILE_OK if it is still that file; else nothing is left open. */
static FileResult
open_to_copy(const HeldDir *dir, const char *name,
			 const FileIdentity *expected, OpenFile *file)
{
	FileResult	result;

	result = recognize(dir, name, expected, true, &file->look.identity);
	if (result.outcome != FILE_OK)
		return result;
	file->fd = openat(dir->fd, name, O_RDONLY | COPY_FLAGS);
	if (file->fd < 0)
		return errno == ENOENT ? come_to(FILE_VANISHED) :
			errno == ELOOP ? come_to(FILE_NOT_REGULAR) : fail(errno, "open file");

	if (store_look(file->fd, "", &file->look) != 0)
		result = fail(errno, "stat file");
	else if (!S_ISREG(file->look.mode))
		result = come_to(FILE_NOT_REGULAR);
	else if (!is_expected(dir, &file->look.identity, expected, true))
		result = come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		close(file->fd);
	return result;
}

/*
 * Has nobody touched it since it was opened?  Here ctime counts whatever the
 * number of links, and is the only thing that tells a write with the time set
 * back.
 */
static bool
is_untouched(const OpenFile *file)
{
	FileLook	now;

	return store_look(file->fd, "", &now) == 0 &&
		store_same_file(&now.identity, &file->look.identity, false) &&
		now.identity.ctime_ns == file->look.identity.ctime_ns;
}

/* Make an empty file in the workshop; a copy that was cut short makes way. */
static int
create_copy(int workshop)
{
	const int	flags = O_RDWR | O_CREAT | O_EXCL | COPY_FLAGS;
	int			fd = openat(workshop, COPY_NAME, flags, S_IRUSR | S_IWUSR);

	if (fd < 0 && errno == EEXIST && unlinkat(workshop, COPY_NAME, 0) == 0)
		fd = openat(workshop, COPY_NAME, flags, S_IRUSR | S_IWUSR);
	return fd;
}

/* Copy an open file into the empty file `copy`.  FILE_REPLACED: it changed meanwhile. */
static FileResult
fill_copy(FileStore *store, const OpenFile *original, int copy)
{
	const char *action;
	int			errnum = file_copy_make(original->fd, &original->look, copy, store->stop, &action);

	if (errnum != EINTR && !is_untouched(original))
		return come_to(FILE_REPLACED);
	return errnum != 0 ? fail_or_no_space(errnum, action) : come_to(FILE_OK);
}

/*
 * Copy a file into the workshop.  FILE_OK: the copy is complete, and open as
 * *copy.  Else nothing of it is left; FILE_REPLACED: the original changed.
 */
static FileResult
make_copy(FileStore *store, const OpenFile *original, int workshop, int *copy)
{
	FileResult	result;

	*copy = create_copy(workshop);
	if (*copy < 0)
		return fail_or_no_space(errno, "create copy of file");
	result = fill_copy(store, original, *copy);
	if (result.outcome != FILE_OK)
	{
		(void) unlinkat(workshop, COPY_NAME, 0);
		close(*copy);
	}
	return result;
}

/* The errno of an fsync of these directories that was owed, or 0. */
static int
sync_now(FileStore *store, HeldDir *a, HeldDir *b, HeldDir *c)
{
	int			earlier = store->sync_errno;
	int			errnum;

	store->sync_errno = 0;
	clean(store, a);
	clean(store, b);
	clean(store, c);
	errnum = store->sync_errno;
	if (earlier != 0)
		store->sync_errno = earlier;
	return errnum;
}

/* Is it really our copy that has that name? */
static bool
is_in_place(const HeldDir *dir, const char *name, int copy)
{
	FileLook	named;
	FileLook	opened;

	return store_look(dir->fd, name, &named) == 0 &&
		store_look(copy, "", &opened) == 0 &&
		store_same_file(&named.identity, &opened.identity, false);
}

/*
 * A copy with that name is in the trash: left by a capture that was killed
 * before it could remove the original.  Is it good?  A bad one will be
 * replaced: the original is there.
 */
static FileResult
judge_copy(FileStore *store, const HeldDir *trash, const char *name,
		   const OpenFile *original, bool *good)
{
	OpenFile	copy;
	FileResult	result = open_to_copy(trash, name, &original->look.identity, &copy);
	int			errnum;

	*good = false;
	if (result.outcome == FILE_REPLACED || result.outcome == FILE_NOT_REGULAR)
		return fail(EEXIST, "rename file");
	if (result.outcome == FILE_FAILED)
		return result;
	if (result.outcome == FILE_VANISHED)
		return come_to(FILE_OK);
	errnum = file_copy_compare(original->fd, copy.fd, original->look.identity.size,
							   store->stop, good);
	close(copy.fd);
	/* what cannot be read is as bad as what differs */
	return errnum == EINTR ? fail(EINTR, "verify copy of file") : come_to(FILE_OK);
}

/* Have the finished copy of an open file in the trash, durably. */
static FileResult
copy_into_trash(FileStore *store, HeldDir *trash, const char *name,
				const OpenFile *original, bool *made)
{
	FileLook	look;
	bool		found = store_look(trash->fd, name, &look) == 0;
	bool		good = false;
	const char *action;
	FileResult	result = {FILE_OK, 0, NULL};
	int			workshop;
	int			copy;
	int			rc;

	*made = false;
	if (found)
		result = judge_copy(store, trash, name, original, &good);
	if (result.outcome != FILE_OK || good)
		return result;

	workshop = descend(store, store->trash.base, store->trash.path, DIR_TRUST, &action);
	if (workshop < 0)
		return fail(errno, action);
	result = make_copy(store, original, workshop, &copy);
	if (result.outcome == FILE_OK)
	{
		rc = found ? renameat(workshop, COPY_NAME, trash->fd, name) :
			rename_into_trash(workshop, COPY_NAME, trash->fd, name);
		if (rc != 0)
		{
			result = fail_or_no_space(errno, "rename copy of file");
			(void) unlinkat(workshop, COPY_NAME, 0);
		}
		else if (!is_in_place(trash, name, copy))
			result = fail(EBUSY, "rename copy of file");
		else
			*made = true;
		mark_dirty(store, trash);
		close(copy);
	}
	close(workshop);
	return result;
}

/*
 * The copy is made: capture the original into the passage, to see once more,
 * and for the last time, that it is what was copied, and unlink it.  On a disk
 * without room for the passage it is unlinked where it is.
 */
static FileResult
remove_original(FileStore *store, int64 run_id, const FilePath *where,
				const FileIdentity *expected)
{
	FileResult	result = {FILE_NO_SPACE, EXDEV, NULL};
	HeldDir    *passage = NULL;
	HeldDir    *source;
	int64		freed;

	/* a file that cannot be renamed into the trash cannot pass through it */
	if (!store_is_quick(store))
		result = capture(store, &store->passage, run_id, where, expected, &passage);
	if (result.outcome == FILE_OK && unlinkat(passage->fd, where->name, 0) != 0)
	{
		result = fail(errno, "remove file");
		(void) return_stranger(store, run_id, where, passage);
	}
	if (result.outcome != FILE_NO_SPACE)
		return result;
	source = hold_source(store, where, 0, &result);
	return source == NULL ? result :
		destroy(store, source, where->name, expected, true, &freed);
}

/*
 * The original was not removed: is its copy of no use?  If something else has
 * its name by now, or nothing, then the file is not ours to keep; but a copy
 * that was found, somebody may have made who removed the original since.  If
 * it could not be removed, then it must be seen to be there.
 */
static bool
is_needless(FileStore *store, const FilePath *where, const FileIdentity *expected,
			FileOutcome outcome, bool made)
{
	FileIdentity found;
	FileResult	result;
	HeldDir    *source;

	if (outcome != FILE_FAILED)
		return made;
	source = hold_source(store, where, 0, &result);
	return source != NULL &&
		recognize(source, where->name, expected, false, &found).outcome == FILE_OK;
}

static void
discard_copy(FileStore *store, int64 run_id, const FilePath *where)
{
	FileResult	ignored;
	HeldDir    *trash = hold_trash(store, &store->trash, run_id, where, 0, &ignored);

	if (trash != NULL && unlinkat(trash->fd, where->name, 0) == 0)
		mark_dirty(store, trash);
}

static FileResult
try_copy_out(FileStore *store, int64 run_id, const FilePath *where,
			 const FileIdentity *expected, bool *made)
{
	OpenFile	original;
	FileResult	result;
	HeldDir    *trash;
	HeldDir    *source = hold_source(store, where, 0, &result);
	int			errnum;

	*made = false;
	if (source == NULL)
		return result;
	/* before gigabytes are copied in vain */
	if (faccessat(source->fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
		return fail(errno, "rename file");
	result = open_to_copy(source, where->name, expected, &original);
	if (result.outcome != FILE_OK)
		return result;
	/* whoever made the directories may not have fsynced them */
	trash = hold_trash(store, &store->trash, run_id, where, DIR_MAKE | DIR_SYNC, &result);
	if (trash != NULL)
		note_mode(source, trash, where);
	if (trash != NULL)
		result = copy_into_trash(store, trash, where->name, &original, made);
	close(original.fd);
	if (trash == NULL || result.outcome != FILE_OK)
		return result;
	mark_dirty(store, trash);
	errnum = sync_now(store, trash, &store->trash.run, store->trash.base);
	return errnum == 0 ? result : fail(errnum, "fsync directory");
}

/* Copy, then remove. */
static FileResult
capture_by_copy(FileStore *store, int64 run_id, const FilePath *where,
				const FileIdentity *expected)
{
	FileResult	result;
	bool		made;
	int			attempt = 1;

	if (!store->durable)
		return fail(EXDEV, "rename file");
	do
		result = try_copy_out(store, run_id, where, expected, &made);
	while (is_stale(store, &result, attempt++));
	if (result.outcome != FILE_OK)
		return result;

	result = remove_original(store, run_id, where, expected);
	if (result.outcome != FILE_OK &&
		is_needless(store, where, expected, result.outcome, made))
		discard_copy(store, run_id, where);
	return result;
}

FileResult
store_capture(FileStore *store, int64 run_id, const char *path,
			  const FileIdentity *expected)
{
	FileIdentity exactly = *expected;
	FilePath	where;
	HeldDir    *trash = NULL;
	int			errnum = split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	exactly.captured = false;
	if (!store_is_quick(store))
		return capture_by_copy(store, run_id, &where, &exactly);
	return capture(store, &store->trash, run_id, &where, &exactly, &trash);
}

FileResult
store_capture_by_copy(FileStore *store, int64 run_id, const char *path,
					  const FileIdentity *expected)
{
	FileIdentity exactly = *expected;
	FilePath	where;
	FileResult	result;
	int			errnum = split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	exactly.captured = false;
	store->trash.copies = true;
	result = capture_by_copy(store, run_id, &where, &exactly);
	store->trash.copies = false;
	return result;
}


/* ----------
 * Putting back
 * ----------
 */

/*
 * The name is taken; but if it is taken by the very same file, then a put
 * back by link() and unlink() was cut short, and only the latter is missing.
 */
static FileResult
settle_occupied(FileStore *store, const FilePath *where, HeldDir *trash,
				HeldDir *source, const FilePath *target, const FileIdentity *captured)
{
	FileIdentity found;
	FileResult	result;

	result = identify(source, target->name, &found);
	if (result.outcome != FILE_OK || !store_same_file(&found, captured, false))
		return come_to(FILE_OCCUPIED);
	if (unlinkat(trash->fd, where->name, 0) != 0)
		return fail(errno, "remove file");
	return come_to(FILE_OK);
}

static FileResult copy_back_from(FileStore *store, HeldDir *trash, const FilePath *where,
								 const FilePath *target, const FileIdentity *expected);

static FileResult
try_put_back(FileStore *store, Trash *from, int64 run_id, const FilePath *where,
			 const FilePath *target, const FileIdentity *expected)
{
	FileIdentity found;
	FileResult	result;
	HeldDir    *source;
	HeldDir    *trash = hold_trash(store, from, run_id, where, 0, &result);

	if (trash == NULL)
		return result;
	result = recognize(trash, where->name, expected, false, &found);
	if (result.outcome == FILE_NOT_REGULAR)
		return come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		return result;

	source = hold_target(store, trash, target, 0, &result);
	if (source == NULL)
		return result;
	if (rename_out_of_trash(trash->fd, where->name,
							source->fd, target->name) != 0)
	{
		if (errno == EXDEV && store->durable)
			return copy_back_from(store, trash, where, target, &found);
		if (errno != EEXIST)
			return fail(errno, "rename file");
		result = settle_occupied(store, where, trash, source, target, &found);
	}
	mark_dirty(store, source);
	mark_dirty(store, trash);
	return result;
}

/*
 * The name is taken.  By the original, which was never removed; or by the
 * copy of the copy that an earlier attempt has put there: then it is done, but
 * for the unlink in the trash.
 */
static FileResult
compare_occupant(FileStore *store, const HeldDir *source, const char *name,
				 const OpenFile *copy, const FileIdentity *expected)
{
	FileIdentity found;
	OpenFile	occupant;
	FileResult	result = identify(source, name, &found);
	bool		same = false;
	int			errnum;

	if (result.outcome == FILE_FAILED)
		return result;
	if (result.outcome != FILE_OK || !store_same_copy(&found, expected))
		return come_to(FILE_OCCUPIED);
	result = open_to_copy(source, name, &found, &occupant);
	if (result.outcome != FILE_OK)
		return result.outcome == FILE_FAILED ? result : come_to(FILE_OCCUPIED);
	errnum = file_copy_compare(copy->fd, occupant.fd, expected->size, store->stop, &same);
	close(occupant.fd);
	if (errnum != 0)
		return fail(errnum, "verify copy of file");
	return come_to(same ? FILE_OK : FILE_OCCUPIED);
}

/*
 * Have a copy of the copy at the file's own place, where a folder takes no
 * file from another one: it is made there, and without a name until it is
 * complete.
 */
static FileResult
copy_within_folder(FileStore *store, HeldDir *source, const char *name, const OpenFile *copy)
{
	char		path[32];
	FileResult	result;
	int			back = openat(source->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);

	if (back < 0)
		return fail(errno, "create copy of file");
	result = fill_copy(store, copy, back);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", back);
	if (result.outcome == FILE_OK &&
		linkat(AT_FDCWD, path, source->fd, name, AT_SYMLINK_FOLLOW) != 0)
		result = fail(errno, "name copy of file");
	close(back);
	return result;
}

/* Have a copy of the copy at the file's own place. */
static FileResult
copy_into_place(FileStore *store, HeldDir *source, const char *name,
				const OpenFile *copy)
{
	const char *action;
	FileResult	result;
	int			workshop = store_open_private(store, true, &action);
	int			back;

	if (workshop < 0)
		return fail(errno, action);
	result = make_copy(store, copy, workshop, &back);
	if (result.outcome == FILE_OK)
	{
		if (rename_out_of_trash(workshop, COPY_NAME, source->fd, name) != 0)
		{
			result = fail(errno, "rename copy of file");
			(void) unlinkat(workshop, COPY_NAME, 0);
		}
		close(back);
	}
	close(workshop);
	if (result.errnum == EXDEV)
		result = copy_within_folder(store, source, name, copy);
	/* put back knows no other failure */
	if (result.outcome == FILE_NO_SPACE)
		result.outcome = FILE_FAILED;
	return result;
}

/* With the copy open: put it back, durably. */
static FileResult
copy_back(FileStore *store, HeldDir *source, const FilePath *target,
		  const OpenFile *copy, const FileIdentity *expected)
{
	FileResult	result = {FILE_FAILED, EEXIST, NULL};
	FileLook	look;
	int			errnum;

	if (store_look(source->fd, target->name, &look) != 0 && errno == ENOENT)
		result = copy_into_place(store, source, target->name, copy);
	if (result.errnum == EEXIST)
		result = compare_occupant(store, source, target->name, copy, expected);
	if (result.outcome != FILE_OK)
		return result;
	mark_dirty(store, source);
	errnum = sync_now(store, source, &store->root, &store->root);
	return errnum == 0 ? result : fail(errnum, "fsync directory");
}

/* Put a file of this folder of the trash back by a copy. */
static FileResult
copy_back_from(FileStore *store, HeldDir *trash, const FilePath *where,
			   const FilePath *target, const FileIdentity *expected)
{
	OpenFile	copy;
	FileResult	result;
	HeldDir    *source;

	result = open_to_copy(trash, where->name, expected, &copy);
	if (result.outcome == FILE_NOT_REGULAR)
		return come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		return result;
	source = hold_target(store, trash, target, DIR_SYNC, &result);
	if (source != NULL)
		result = copy_back(store, source, target, &copy, expected);
	close(copy.fd);
	if (source == NULL || result.outcome != FILE_OK)
		return result;
	if (unlinkat(trash->fd, where->name, 0) != 0 && errno != ENOENT)
		return fail(errno, "remove file");
	mark_dirty(store, trash);
	return result;
}

static FileResult
try_copy_back(FileStore *store, int64 run_id, const FilePath *where,
			  const FilePath *target, const FileIdentity *expected)
{
	FileResult	result;
	HeldDir    *trash = hold_trash(store, &store->trash, run_id, where, 0, &result);

	return trash == NULL ? result : copy_back_from(store, trash, where, target, expected);
}

/* What a rename cannot put back; under its own name only. */
static FileResult
copy_stranger_back(FileStore *store, const FilePath *where, HeldDir *trash)
{
	FileIdentity found;
	FileResult	result = {FILE_FAILED, EXDEV, "put back file"};

	if (store->durable)
		result = identify(trash, where->name, &found);
	if (result.outcome == FILE_OK)
		result = copy_back_from(store, trash, where, where, &found);
	if (result.outcome == FILE_OK)
		return come_to(FILE_REPLACED);
	return result.outcome == FILE_FAILED ? result : fail(EXDEV, "put back file");
}

/*
 * A capture that was killed may have left the original in the passage, with
 * its copy in the trash or without.  Then it goes back itself, and the copy is
 * found to be needless.
 */
static FileResult
put_back_copied(FileStore *store, int64 run_id, const FilePath *where,
				const FilePath *target, const FileIdentity *expected)
{
	FileResult	original = try_put_back(store, &store->passage, run_id, where, target, expected);
	FileResult	copy;

	if (original.outcome == FILE_FAILED)
		return original;
	copy = try_copy_back(store, run_id, where, target, expected);
	if (copy.outcome == FILE_VANISHED && original.outcome != FILE_REPLACED)
		return original;
	return copy;
}

static FileResult
put_back(FileStore *store, int64 run_id, const FilePath *where,
		 const FilePath *target, const FileIdentity *expected)
{
	if (store_is_quick(store))
		return try_put_back(store, &store->trash, run_id, where, target, expected);
	return put_back_copied(store, run_id, where, target, expected);
}

FileResult
store_put_back_as(FileStore *store, int64 run_id, const char *path, const char *as,
				  const FileIdentity *expected)
{
	FilePath	where;
	FilePath	target;
	FileResult	result;
	int			errnum = split_path(path, &where);
	int			attempt = 1;

	if (errnum == 0)
		errnum = split_path(as, &target);
	if (errnum != 0)
		return fail(errnum, "accept path");

	do
		result = put_back(store, run_id, &where, &target, expected);
	while (is_stale(store, &result, attempt++));
	return result;
}

FileResult
store_put_back(FileStore *store, int64 run_id, const char *path,
			   const FileIdentity *expected)
{
	return store_put_back_as(store, run_id, path, path, expected);
}


/* ----------
 * Locating
 * ----------
 */

/*
 * Whoever renamed the file may have died before he could fsync the directory
 * it is in, or those on the way that he made.  So all that an answer relies
 * on is marked here; and an absence is an answer too.  What is found in the
 * trash is not looked for at its place: no file system that journals a rename
 * keeps one half of it, and an fsync is by far the dearest call here.
 */
static FileResult
search(FileStore *store, HeldDir *dir, const FilePath *where,
	   const FileIdentity *expected)
{
	FileIdentity found;

	mark_dirty(store, dir);
	return recognize(dir, where->name, expected, false, &found);
}

static FileResult
search_trash(FileStore *store, Trash *trash, int64 run_id, const FilePath *where,
			 const FileIdentity *expected)
{
	FileResult	result;
	HeldDir    *dir = hold_trash(store, trash, run_id, where, DIR_SYNC, &result);

	return dir == NULL ? result : search(store, dir, where, expected);
}

static FileResult
search_source(FileStore *store, const FilePath *where,
			  const FileIdentity *expected)
{
	FileResult	result;
	HeldDir    *dir = hold_source(store, where, DIR_SYNC, &result);

	return dir == NULL ? result : search(store, dir, where, expected);
}

/*
 * Another file is in the trash and none at its place: a capture died between
 * the rename and the verification.  Finish its work, for the file is wanted.
 * A directory, though, is probably ours, made for what was captured below it.
 * FILE_OCCUPIED: all of that is still to be done.
 */
static FileResult
rescue_stranger(FileStore *store, Trash *from, int64 run_id, const FilePath *where, bool mend)
{
	FileLook	look;
	FileResult	result;
	HeldDir    *trash = hold_trash(store, from, run_id, where, 0, &result);

	if (trash == NULL)
		return result;
	if (store_look(trash->fd, where->name, &look) != 0)
		return fail(errno, "stat file");
	if (S_ISDIR(look.mode))
		return come_to(FILE_VANISHED);
	return mend ? return_stranger(store, run_id, where, trash) : come_to(FILE_OCCUPIED);
}

/* What is not in the trash is here, or is not. */
static FilePlace
tell_place(FileOutcome source)
{
	switch (source)
	{
		case FILE_OK:
			return PLACE_UPLOAD;
		case FILE_VANISHED:
			return PLACE_NOWHERE;
		case FILE_REPLACED:
		case FILE_NOT_REGULAR:
			return PLACE_OTHER;
		case FILE_OCCUPIED:
			return PLACE_UNFINISHED;
		default:
			return PLACE_UNKNOWN;
	}
}

/* For a trash on the same file system: the file is in one place only. */
static FilePlace
locate(FileStore *store, Trash *in, int64 run_id, const FilePath *where,
	   const FileIdentity *expected, bool mend, int *errnum)
{
	FileResult	trash;
	FileResult	source;

	trash = search_trash(store, in, run_id, where, expected);
	*errnum = trash.errnum;
	if (trash.outcome == FILE_OK)
		return PLACE_TRASH;
	if (trash.errnum != 0)
		return PLACE_UNKNOWN;

	source = search_source(store, where, expected);
	if (trash.outcome != FILE_VANISHED && source.outcome == FILE_VANISHED)
		source = rescue_stranger(store, in, run_id, where, mend);
	*errnum = source.errnum;
	return tell_place(source.outcome);
}

/*
 * A capture was killed in the passage, which holds the original.  With the
 * copy in the trash only its unlink is missing; without, it goes back.
 */
static FilePlace
leave_passage(FileStore *store, int64 run_id, const FilePath *where,
			  const FileIdentity *expected, bool copied, int *errnum)
{
	FileResult	result;
	HeldDir    *passage;
	int64		freed;

	if (!copied)
		result = try_put_back(store, &store->passage, run_id, where, where, expected);
	else if ((passage = hold_trash(store, &store->passage, run_id, where, 0, &result)) != NULL)
		result = destroy(store, passage, where->name, expected, false, &freed);

	if (result.outcome == FILE_OK)
		return copied ? PLACE_TRASH : PLACE_UPLOAD;
	*errnum = result.errnum != 0 ? result.errnum : EEXIST;
	return PLACE_UNKNOWN;
}

/*
 * The original, wherever it is, comes before its copy; but a copy without it
 * is the file, whatever has its name by now.
 */
static FilePlace
locate_copied(FileStore *store, int64 run_id, const FilePath *where,
			  const FileIdentity *expected, bool mend, int *errnum)
{
	FileResult	copy = search_trash(store, &store->trash, run_id, where, expected);
	bool		copied = copy.outcome == FILE_OK;
	FilePlace	original;

	*errnum = copy.errnum;
	if (copy.errnum != 0)
		return PLACE_UNKNOWN;
	original = locate(store, &store->passage, run_id, where, expected, mend, errnum);
	if (original == PLACE_TRASH && !mend)
		return PLACE_UNFINISHED;
	if (original == PLACE_TRASH)
		return leave_passage(store, run_id, where, expected, copied, errnum);
	if (copied && (original == PLACE_NOWHERE || original == PLACE_OTHER))
		return PLACE_TRASH;
	return original;
}

FilePlace
store_locate(FileStore *store, int64 run_id, const char *path,
			 const FileIdentity *expected, bool mend, int *errnum)
{
	FilePath	where;

	*errnum = split_path(path, &where);
	if (*errnum != 0)
		return PLACE_UNKNOWN;
	if (!store_is_quick(store))
		return locate_copied(store, run_id, &where, expected, mend, errnum);
	return locate(store, &store->trash, run_id, &where, expected, mend, errnum);
}


/* ----------
 * Destroying
 * ----------
 */

FileResult
store_destroy(FileStore *store, int64 run_id, const char *path,
			  const FileIdentity *expected, int64 *freed)
{
	FilePath	where;
	FileResult	result;
	HeldDir    *trash;
	int			errnum = split_path(path, &where);

	*freed = 0;
	if (errnum != 0)
		return fail(errnum, "accept path");
	trash = hold_trash(store, &store->trash, run_id, &where, 0, &result);
	if (trash == NULL)
		return result;
	result = destroy(store, trash, where.name, expected, false, freed);
	if (result.outcome == FILE_NOT_REGULAR)
		return come_to(FILE_REPLACED);
	return result;
}

/*
 * The one place where a file is removed that was not captured first.  There
 * is no system call that unlinks an inode, so a file that takes its name
 * between two system calls goes in its stead; on a disk without room for a
 * directory entry that is the best there is.
 */
FileResult
store_destroy_in_place(FileStore *store, const char *path,
					   const FileIdentity *expected, int64 *freed)
{
	FilePath	where;
	FileResult	result;
	HeldDir    *source;
	int			errnum = split_path(path, &where);

	*freed = 0;
	if (errnum != 0)
		return fail(errnum, "accept path");
	source = hold_source(store, &where, 0, &result);
	if (source == NULL)
		return result;
	return destroy(store, source, where.name, expected, true, freed);
}


/* ----------
 * Looking into the trash
 * ----------
 */

int
store_open_trash(FileStore *store, int64 run_id, const StoreVolume **volume)
{
	const char *action;
	HeldDir    *held;
	FileLook	look;

	if (run_id != 0)
		held = hold_run(store, &store->trash, run_id, DIR_TRUST, &action);
	else
	{
		/* nothing is held by that name */
		int			fd = descend(store, store->trash.base, store->trash.path, DIR_TRUST, &action);

		*volume = store->trash.base->volume;
		return fd;
	}
	if (held == NULL)
		return -1;
	*volume = held->volume;
	return store_open_directory_on(held->volume, held->fd, ".", &look);
}

/* A name that hold_run() would give, and nothing else. */
static bool
parse_run(const char *name, int64 *run_id)
{
	char		again[32];
	char	   *end;

	errno = 0;
	*run_id = strtoll(name, &end, 10);
	snprintf(again, sizeof(again), INT64_FORMAT, *run_id);
	return errno == 0 && *run_id > 0 && strcmp(name, again) == 0;
}

int
store_trash_runs(FileStore *store, int64 *runs, int max)
{
	const StoreVolume *volume;
	struct dirent *entry;
	int64		run_id;
	DIR		   *dir;
	int			n = 0;
	int			fd;

	if (!AcquireExternalFD())
		return -1;
	fd = store_open_trash(store, 0, &volume);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir != NULL)
	{
		while ((entry = readdir(dir)) != NULL)
			if (parse_run(entry->d_name, &run_id) && n++ < max)
				runs[n - 1] = run_id;
		closedir(dir);
	}
	else if (fd >= 0)
		close(fd);
	else if (errno != ENOENT)
		n = -1;
	ReleaseExternalFD();
	return n;
}

int
store_renumber_trash(FileStore *store, int64 run_id, int64 as)
{
	const StoreVolume *volume;
	char		from[32];
	char		to[32];
	int			errnum = 0;
	int			fd;

	snprintf(from, sizeof(from), INT64_FORMAT, run_id);
	snprintf(to, sizeof(to), INT64_FORMAT, as);
	/* nothing may be held by a name that becomes another's */
	let_go_all(store);
	fd = store_open_trash(store, 0, &volume);
	if (fd < 0)
		return errno;
	if (rename_into_trash(fd, from, fd, to) != 0)
		errnum = errno;
	else
		sync_directory(store, fd);
	close(fd);
	return errnum;
}

FileResult
store_identify_captured(FileStore *store, int64 run_id, const char *path,
						FileIdentity *identity)
{
	FilePath	where;
	FileResult	result;
	HeldDir    *trash;
	int			errnum = split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	trash = hold_trash(store, &store->trash, run_id, &where, 0, &result);
	return trash == NULL ? result : identify(trash, where.name, identity);
}


/* ----------
 * Tidying
 * ----------
 */

static bool
may_be_directory(const struct dirent *entry)
{
	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return false;
	return entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
}

static DIR *
open_for_pruning(const FileStore *store, const StoreVolume *volume, int parent,
				 const char *name)
{
	const char *action;
	bool		made;
	int			fd = step_down(store, volume, parent, name, DIR_TRUST, &made, &action);
	DIR		   *dir;

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (dir == NULL)
		close(fd);
	return dir;
}

/*
 * Remove a directory of the trash and those below it, as far as they are
 * empty.  Errors are ignored, here and in store_tidy(): ENOTEMPTY is the
 * ordinary case, and an empty directory that stays does no harm and is met
 * again by the next tidying.  For the same reason nothing is fsynced.
 */
static void
prune(const FileStore *store, const StoreVolume *volume, int parent,
	  const char *name, int depth)
{
	struct dirent *entry;
	DIR		   *dir;

	if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return;
	if (depth >= TIDY_MAX_DEPTH || !AcquireExternalFD())
		return;

	dir = open_for_pruning(store, volume, parent, name);
	if (dir != NULL)
	{
		while ((entry = readdir(dir)) != NULL)
			if (may_be_directory(entry))
				prune(store, volume, dirfd(dir), entry->d_name, depth + 1);
		closedir(dir);
		(void) unlinkat(parent, name, AT_REMOVEDIR);
	}
	ReleaseExternalFD();
}

/* Remove an empty folder; one that holds something, or is no ordinary one, stays. */
static bool
remove_folder(FileStore *store, const char *path)
{
	FilePath	where;
	FileLook	look;
	FileResult	ignored;
	HeldDir    *parent;

	if (split_path(path, &where) != 0 || where.name[0] == '.')
		return false;
	parent = hold_source(store, &where, 0, &ignored);
	if (parent == NULL || store_look(parent->fd, where.name, &look) != 0 ||
		!S_ISDIR(look.mode) || !store_same_volume(&look.volume, &store->volume) ||
		unlinkat(parent->fd, where.name, AT_REMOVEDIR) != 0)
		return false;
	mark_dirty(store, parent);
	return true;
}

int
store_remove_folders(FileStore *store, const char *path)
{
	char		folder[STORE_PATH_MAX];
	char	   *slash;
	int			n = 0;

	if (strlen(path) >= sizeof(folder))
		return 0;
	strlcpy(folder, path, sizeof(folder));
	while (remove_folder(store, folder))
	{
		n++;
		slash = strrchr(folder, '/');
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	return n;
}

/* What a copy that was killed has left. */
static void
remove_unfinished(int workshop)
{
	FileLook	look;

	if (store_look(workshop, COPY_NAME, &look) == 0)
		(void) unlinkat(workshop, COPY_NAME, 0);
}

/* In the directory `parent`: the run, and the trash `name` itself. */
static void
tidy_trash(const FileStore *store, const StoreVolume *volume, int parent,
		   const char *name, int64 run_id)
{
	const char *action;
	bool		made;
	char		run[32];
	int			trash = step_down(store, volume, parent, name, DIR_TRUST,
								  &made, &action);

	if (trash < 0)
		return;
	snprintf(run, sizeof(run), INT64_FORMAT, run_id);
	prune(store, volume, trash, run, 0);
	remove_unfinished(trash);
	close(trash);
	(void) unlinkat(parent, name, AT_REMOVEDIR);
}

void
store_tidy(FileStore *store, int64 run_id)
{
	const char *action;
	int			private;

	let_go_all(store);
	if (store->backup.fd >= 0)
		tidy_trash(store, &store->backup_volume, store->backup.fd,
				   store->trash.path, run_id);
	private = store_open_private(store, false, &action);
	if (private < 0)
		return;
	tidy_trash(store, &store->volume, private, STORE_TRASH_DIR, run_id);
	remove_unfinished(private);
	close(private);

	/* stays while there is a claim in it */
	(void) unlinkat(store->root.fd, STORE_PRIVATE_DIR, AT_REMOVEDIR);
}


/* ----------
 * The store
 * ----------
 */

static void
release_descriptors(int count)
{
	while (count-- > 0)
		ReleaseExternalFD();
}

/* All at once, because it may do more than the commit callback allows. */
static bool
acquire_descriptors(int wanted)
{
	int			count;

	for (count = 0; count < wanted; count++)
	{
		if (!AcquireExternalFD())
		{
			release_descriptors(count);
			errno = EMFILE;
			return false;
		}
	}
	return true;
}

static bool
open_root(FileStore *store, const char *path)
{
	FileLook	look;

	store->root.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	if (store->root.fd < 0)
		return false;

	/* readable alone is not enough: "." is found only by a search */
	if (store_look(store->root.fd, "", &look) != 0 ||
		faccessat(store->root.fd, ".", X_OK, AT_EACCESS) != 0)
	{
		close_quietly(store->root.fd);
		return false;
	}
	store->volume = look.volume;
	store->mode = look.mode & (S_IRWXU | S_IRWXG | S_IRWXO | S_ISVTX);
	store->make_mode = store->mode;
	return true;
}

static void
use_own_trash(FileStore *store, Trash *trash)
{
	trash->base = &store->root;
	snprintf(trash->path, sizeof(trash->path), "%s/%s", STORE_PRIVATE_DIR, STORE_TRASH_DIR);
	trash->run.fd = trash->dir.fd = -1;
}

FileStore *
store_open(const char *path)
{
	FileStore  *store;

	if (path[0] != '/')
	{
		errno = EINVAL;
		return NULL;
	}

	store = palloc0(sizeof(FileStore));
	store->source.fd = store->backup.fd = -1;
	store->root.volume = &store->volume;
	store->backup.volume = &store->backup_volume;
	use_own_trash(store, &store->trash);
	use_own_trash(store, &store->passage);
	store->durable = true;

	if (acquire_descriptors(STORE_DESCRIPTORS))
	{
		int			save_errno;

		if (open_root(store, path))
			return store;
		save_errno = errno;
		release_descriptors(STORE_DESCRIPTORS);
		errno = save_errno;
	}
	pfree(store);
	return NULL;
}

/*
 * Who closes without store_sync() will not record anything as done, so no
 * fsync is owed to him.
 */
void
store_close(FileStore *store)
{
	if (store == NULL)
		return;
	store->durable = false;
	let_go_all(store);
	store_unlock(store);
	close(store->root.fd);
	release_descriptors(STORE_DESCRIPTORS);
	if (store->backup.fd >= 0)
	{
		close(store->backup.fd);
		release_descriptors(BACKUP_DESCRIPTORS);
	}
	pfree(store);
}

/* Returns 0 or an errno; the descriptor is in store->backup then. */
static int
open_backup(FileStore *store, const char *path, const char **action)
{
	FileLook	look;
	int			fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

	*action = "open directory";
	if (fd < 0)
		return errno;
	if (store_look(fd, "", &look) != 0)
	{
		close_quietly(fd);
		return errno;
	}
	fd = insist_on_trust(fd, &look, action);
	if (fd < 0)
		return errno;
	store->backup_volume = look.volume;
	store->backup.fd = fd;
	store->backup.copies = !store_same_volume(&store->volume, &look.volume);
	return 0;
}

FileResult
store_set_backup_dir(FileStore *store, const char *path, const char *owner)
{
	size_t		len = strlen(owner);
	const char *action;
	int			errnum = len == measure_component(owner) ? judge_component(owner, len) : EINVAL;

	if (errnum != 0 || path[0] != '/' || store->backup.fd >= 0)
		return fail(errnum != 0 ? errnum : EINVAL, "accept path");
	if (!acquire_descriptors(BACKUP_DESCRIPTORS))
		return fail(errno, "open directory");
	errnum = open_backup(store, path, &action);
	if (errnum != 0)
	{
		release_descriptors(BACKUP_DESCRIPTORS);
		return fail(errnum, action);
	}
	let_go_all(store);
	store->trash.base = &store->backup;
	strlcpy(store->trash.path, owner, sizeof(store->trash.path));
	return come_to(FILE_OK);
}

bool
store_is_quick(const FileStore *store)
{
	return !store->trash.base->copies;
}

void
store_set_stop(FileStore *store, bool (*stop) (void))
{
	store->stop = stop;
}

void
store_set_durable(FileStore *store, bool durable)
{
	store->durable = durable;
}

int
store_check_writable(FileStore *store)
{
	return faccessat(store->root.fd, ".", W_OK | X_OK, AT_EACCESS) == 0 ?
		0 : errno;
}

int
store_space(FileStore *store, int64 *free_bytes, int64 *size_bytes)
{
	struct statvfs space;

	if (fstatvfs(store->root.fd, &space) != 0)
		return errno;
	*free_bytes = (int64) space.f_bavail * (int64) space.f_frsize;
	*size_bytes = (int64) space.f_blocks * (int64) space.f_frsize;
	return 0;
}

int
store_check_folder(FileStore *store, const char *path)
{
	FilePath	where;
	FileResult	result;
	HeldDir    *folder;
	int			errnum = split_path(path, &where);

	if (errnum != 0)
		return errnum;
	folder = hold_source(store, &where, 0, &result);
	if (folder == NULL)
		return result.errnum;
	if (!folder->access_known)
	{
		folder->access_known = true;
		folder->access_errno = faccessat(folder->fd, ".", W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
	}
	return folder->access_errno;
}

static FileResult
identify_in_place(FileStore *store, const char *path, int flags, FileIdentity *identity)
{
	FilePath	where;
	FileResult	result;
	HeldDir    *source;
	int			errnum = split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	source = hold_source(store, &where, flags, &result);
	if (source == NULL)
		return result;
	if (flags & DIR_SYNC)
		mark_dirty(store, source);
	return identify(source, where.name, identity);
}

FileResult
store_identify(FileStore *store, const char *path, FileIdentity *identity)
{
	return identify_in_place(store, path, 0, identity);
}

FileResult
store_identify_durably(FileStore *store, const char *path, FileIdentity *identity)
{
	return identify_in_place(store, path, DIR_SYNC, identity);
}

int
store_sync(FileStore *store)
{
	int			errnum;

	let_go_all(store);
	clean(store, &store->backup);
	clean(store, &store->root);
	errnum = store->sync_errno;
	store->sync_errno = 0;
	return errnum;
}
