/*-------------------------------------------------------------------------
 *
 * store/store.c
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
 * Nothing in here raises an error.  Functions that store.h calls
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

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#ifdef FRONTEND
#include "common/fe_memutils.h"
#endif
#include "src/store/lock.h"
#include "src/store/private.h"

/* root, home, run, trash, the lock, and two on the way down a path */
#define STORE_DESCRIPTORS	7

/* the directory itself, two for the passage, and a third while copying */
#define BACKUP_DESCRIPTORS	4

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
		store_close_quietly(store->root.fd);
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
	store->home.fd = store->backup.fd = -1;
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
	store_leave_all(store);
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
		store_close_quietly(fd);
		return errno;
	}
	fd = store_insist_on_trust(fd, &look, action);
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
	int			errnum = len == strcspn(owner, "/") ? store_judge_component(owner, len) : EINVAL;

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
	store_leave_all(store);
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
	Folder	   *folder;
	int			errnum = store_split_path(path, &where);

	if (errnum != 0)
		return errnum;
	folder = store_reach_home(store, &where, 0, &result);
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
	Folder	   *home;
	int			errnum = store_split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	home = store_reach_home(store, &where, flags, &result);
	if (home == NULL)
		return result;
	if (flags & DIR_SYNC)
		store_mark_dirty(store, home);
	return store_identify_in(home, where.name, identity);
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
