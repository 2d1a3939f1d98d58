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
 * beyond store_sync(), nor are those that wait for their fsync.
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

/* Opens the folder at an absolute path for `folder`; -1 with errno. */
static int
open_top(const char *path, Folder *folder, FileLook *look)
{
	int			fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && store_look(fd, "", look) != 0)
	{
		store_close_quietly(fd);
		return -1;
	}
	folder->volume = look->volume;
	return fd;
}

static bool
open_root(FileStore *store, const char *path)
{
	FileLook	look = {0};

	store->root.fd = open_top(path, &store->root, &look);
	if (store->root.fd < 0)
		return false;
	/* readable alone is not enough: "." is found only by a search */
	if (faccessat(store->root.fd, ".", X_OK, AT_EACCESS) != 0)
	{
		store_close_quietly(store->root.fd);
		return false;
	}
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
local_open(const char *path)
{
	FileStore  *store;
	int			save_errno;

	if (path[0] != '/')
	{
		errno = EINVAL;
		return NULL;
	}

	store = palloc0(sizeof(FileStore));
	store->home.fd = store->backup.fd = -1;
	use_own_trash(store, &store->trash);
	use_own_trash(store, &store->passage);
	store->base.driver = &local_driver;
	store->base.durable = true;

	if (acquire_descriptors(STORE_DESCRIPTORS))
	{
		if (open_root(store, path))
			return store;
		save_errno = errno;
		release_descriptors(STORE_DESCRIPTORS);
	}
	else
		save_errno = errno;
	pfree(store);
	errno = save_errno;
	return NULL;
}

/*
 * Who closes without store_sync() will not record anything as done, so no
 * fsync is owed to him.
 */
static void
local_close(FileStore *store)
{
	store_forget_syncs(store);
	local_unlock(store);
	store_close_ring(store);
	close(store->root.fd);
	release_descriptors(STORE_DESCRIPTORS);
	if (store->backup.fd >= 0)
	{
		close(store->backup.fd);
		release_descriptors(BACKUP_DESCRIPTORS);
	}
	pfree(store);
}

static FileResult
local_set_backup_dir(FileStore *store, const char *path, const char *owner)
{
	Folder	   *backup = &store->backup;
	FileLook	look = {0};
	int			errnum = store_judge_component(owner, strlen(owner));
	int			fd;

	if (strchr(owner, '/') != NULL || path[0] != '/' || backup->fd >= 0)
		errnum = EINVAL;
	if (errnum != 0)
		return fail(errnum, "accept path");
	if (!acquire_descriptors(BACKUP_DESCRIPTORS))
		return fail(errno, "open directory");
	store->action = "open directory";
	fd = open_top(path, backup, &look);
	if (fd >= 0)
		fd = store_insist_on_trust(store, fd, &look);
	if (fd < 0)
	{
		errnum = errno;
		release_descriptors(BACKUP_DESCRIPTORS);
		return fail(errnum, store->action);
	}
	backup->fd = fd;
	backup->copies = !store_same_volume(&store->root.volume, &look.volume);
	store_leave_all(store);
	store->trash.base = backup;
	strlcpy(store->trash.path, owner, sizeof(store->trash.path));
	return come_to(FILE_OK);
}

bool
local_is_quick(const FileStore *store)
{
	return !store->trash.base->copies;
}

static int
local_check_writable(FileStore *store)
{
	return faccessat(store->root.fd, ".", W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

static int
local_space(FileStore *store, int64 *free_bytes, int64 *size_bytes)
{
	struct statvfs space;

	if (fstatvfs(store->root.fd, &space) != 0)
		return errno;
	*free_bytes = (int64) space.f_bavail * (int64) space.f_frsize;
	*size_bytes = (int64) space.f_blocks * (int64) space.f_frsize;
	return 0;
}

/* An open directory is within reach, and its trash needs no help of it. */
static int
local_reach(FileStore *store)
{
	return 0;
}

static bool
local_can_undo(FileStore *store)
{
	return true;
}

static int
local_prove(FileStore *store, bool *proven)
{
	*proven = true;
	return 0;
}

static const char *
local_error_text(FileStore *store, int errnum)
{
	return strerror(errnum);
}

/* A look is quick. */
static void
local_expect(FileStore *store, const char *const *paths, int n)
{
}

/* One after the other: a rename is quick, and a copy may take minutes. */
static void
local_capture_many(FileStore *store, int64 run_id, StoreCondemned *files, int n, bool for_good)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		StoreCondemned *file = &files[i];
		int			errnum;

		file->place = local_locate(store, run_id, file->path, file->expected, true, &errnum);
		file->result = fail(errnum, "find it");
		file->destroyed = false;
		if (file->place == PLACE_UPLOAD)
			file->result = local_capture(store, run_id, file->path, !local_is_quick(store), file->expected);
	}
}

const StoreDriver local_driver = {
	.acts_at_commit = true,
	.has_folders = true,
	.together = 1,
	.close = local_close,
	.reach = local_reach,
	.can_undo = local_can_undo,
	.prove = local_prove,
	.error_text = local_error_text,
	.check_writable = local_check_writable,
	.check_folder = local_check_folder,
	.set_backup_dir = local_set_backup_dir,
	.is_quick = local_is_quick,
	.space = local_space,
	.clock = local_clock,
	.expect = local_expect,
	.identify = local_identify,
	.capture = local_capture,
	.capture_many = local_capture_many,
	.locate = local_locate,
	.put_back = local_put_back,
	.identify_captured = local_identify_captured,
	.destroy = local_destroy,
	.destroy_many = local_destroy_many,
	.destroy_in_place = local_destroy_in_place,
	.trash_runs = local_trash_runs,
	.renumber_trash = local_renumber_trash,
	.remove_folders = local_remove_folders,
	.tidy = local_tidy,
	.sync = local_sync,
	.read_claim = local_read_claim,
	.write_claim = local_write_claim,
	.lock = local_lock,
	.unlock = local_unlock,
	.lock_holder = local_lock_holder,
	.walk_begin = local_walk_begin,
	.walk_begin_trash = local_walk_begin_trash,
	.walk_next = local_walk_next,
	.walk_failure = local_walk_failure,
	.walk_end = local_walk_end,
	.walk_why_not = local_walk_why_not
};
