/*-------------------------------------------------------------------------
 *
 * store/store.c
 *	  The operations on one file of the upload directory.
 *
 * The upload directory belongs to an application that is not trusted and that
 * works at the same time: between any two of our system calls a file may be
 * replaced, a directory renamed, a symlink planted.  Three rules follow.
 *
 * - Only directories are opened, one component at a time, relative to a
 *	 descriptor and without following symlinks.  A path is never given to the
 *	 kernel whole.  A file of the application is opened only to be copied,
 *	 after it was seen to be a regular file, and without waiting: so no FIFO
 *	 can make this process wait, and no device wakes up.
 *
 * - A file is judged *after* the rename into the trash, where only this OS
 *	 user can reach it.  A look at the file before the rename saves a rename,
 *	 and is the only look that can compare ctime.  But this look proves
 *	 nothing: the name may mean another file by the time rename() is called.  A
 *	 captured file that is not the expected file is called a stranger, and is
 *	 put back.
 *
 * - A rename never overwrites.  If the file system does not know
 *	 RENAME_NOREPLACE, a check before a plain rename is enough in the trash,
 *	 which is ours alone; in the upload directory link() and unlink() take the
 *	 place of the rename.
 *
 * Callers come with files sorted by path.  The directory of the last file is
 * therefore held open, in the upload directory and in the trash: a flat
 * directory costs three system calls a file.  Meanwhile the owner of the held
 * directory may rename it, or put another directory in its place.  Such a
 * change is harmless.  The store holds that very directory, whatever its name
 * is now.  So a file in the directory with the right identity is the file that
 * was condemned, and our work on the file might as well have happened just
 * before the directory moved.  If the directory was removed, a rename fails
 * with ENOENT, and the path is resolved anew.  store_sync() closes all held
 * directories, also the directories that wait for their fsync.
 *
 * If the trash is on another file system, a capture is a copy, and the rules
 * stay.  The file is copied from its place.  Then the original is captured by
 * a rename into the upload directory's own trash, judged there, and only there
 * unlinked: no system call unlinks a file by its identity.  The original
 * merely passes through that trash, which is therefore called the passage.  A
 * copy, also the copy of a file that is put back, is written under a name of
 * its own in a directory that is ours alone, and is renamed when it is durable
 * and verified.  At worst, a process that is killed leaves behind one such
 * unfinished file, which the next copy replaces and store_tidy() removes; or
 * both the copy and the original, and then the original counts.
 *
 * No function of this file raises an error.  In a store that is not durable,
 * the functions that store.h calls commit-safe, and the statics that they
 * call, use the stack and system calls only.  Memory is allocated by
 * store_open(), by walks, by opendir() in store_trash_runs() and store_tidy(),
 * and for the ring of ring.c.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/store/private.h"

/* descriptors of root, home, run, trash, the lock, and two on the way down a path */
#define STORE_DESCRIPTORS	7

/* descriptors of the backup directory, two for the passage, and a third while copying */
#define BACKUP_DESCRIPTORS	4


/*
 * Opens the folder at an absolute path for `folder`, and sets *look to a look
 * at the opened folder.  Returns -1 with errno on failure.
 */
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

	/*
	 * a directory may be readable but not searchable: "." is found only by a
	 * search
	 */
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

	if (store_acquire_descriptors(STORE_DESCRIPTORS))
	{
		if (open_root(store, path))
			return store;
		store_release_descriptors(STORE_DESCRIPTORS);
	}
	save_errno = errno;
	pfree(store);
	errno = save_errno;
	return NULL;
}

/*
 * Closes the store without an fsync: a caller that has not called store_sync()
 * records nothing as done.
 */
void
local_close(FileStore *store)
{
	/* first of all: the calls need the folders, and are under the lock */
	store_close_ring(store);
	store_forget_syncs(store);
	local_unlock(store);
	close(store->root.fd);
	store_release_descriptors(STORE_DESCRIPTORS);
	if (store->backup.fd >= 0)
	{
		close(store->backup.fd);
		store_release_descriptors(BACKUP_DESCRIPTORS);
	}
	pfree(store);
}

FileResult
local_set_backup_dir(FileStore *store, const char *path, const char *owner)
{
	Folder	   *backup = &store->backup;
	FileLook	look = {0};
	int			errnum = store_judge_component(owner, strlen(owner));
	int			fd;

	if (strchr(owner, '/') != NULL || path[0] != '/' || backup->fd >= 0)
		errnum = EINVAL;
	if (errnum != 0)
		return fail(errnum, "could not accept path");
	if (!store_acquire_descriptors(BACKUP_DESCRIPTORS))
		return fail(errno, "could not open directory");
	store->failure = "could not open directory";
	fd = open_top(path, backup, &look);
	if (fd >= 0)
		fd = store_insist_on_trust(store, fd, &look);
	if (fd < 0)
	{
		errnum = errno;
		store_release_descriptors(BACKUP_DESCRIPTORS);
		return fail(errnum, store->failure);
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

int
local_check_writable(FileStore *store)
{
	return faccessat(store->root.fd, ".", W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

int
local_space(FileStore *store, int64 *free_bytes, int64 *size_bytes)
{
	struct statvfs space;

	if (fstatvfs(store->root.fd, &space) != 0)
		return errno;
	*free_bytes = (int64) space.f_bavail * (int64) space.f_frsize;
	*size_bytes = (int64) space.f_blocks * (int64) space.f_frsize;
	return 0;
}

void
local_locate_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	for (int i = 0; i < n; i++)
	{
		int			errnum;

		files[i].place = local_locate(store, run_id, files[i].path, files[i].expected, false, &errnum);
		files[i].result = errnum == 0 ? come_to(FILE_OK) : fail(errnum, "could not find it");
	}
}

void
local_put_back_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	for (int i = 0; i < n; i++)
		files[i].result = local_put_back_as(store, run_id, files[i].path, files[i].as, files[i].expected);
}

const StoreDriver local_driver = {
	.is_local = true,
	.together = 1,

#define STORE_OWN(type, name, ...) .name = local_##name,
#define STORE_BOTH STORE_OWN
#define STORE_WALK STORE_OWN
#define STORE_LOCAL STORE_OWN
#define STORE_BUCKET(...)
#include "src/store/driver_list.h"
};
