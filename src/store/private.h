/*-------------------------------------------------------------------------
 *
 * store/private.h
 *	  The parts of an open upload directory that the files of this folder
 *	  share: descriptors, and the rules for opening a folder below the upload
 *	  directory.
 *
 * Private to this folder: a file that includes this header works for
 * directories of this machine only.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_PRIVATE_H
#define AUDIO_CLEANUP_STORE_PRIVATE_H

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "lib/ilist.h"
#ifndef FRONTEND
#include "storage/fd.h"
#endif

#include "src/store/driver.h"

/*
 * A slot is asked for before the open() of a descriptor, and given back after
 * its close().  Outside the server the unit tests say how many slots there are.
 */
#ifdef FRONTEND
extern int	store_free_slots;
#define AcquireExternalFD() (store_free_slots > 0 && store_free_slots-- > 0)
#define ReleaseExternalFD() ((void) store_free_slots++)
#endif

/* the name of an unfinished copy; no run and no claim has this name */
#define COPY_NAME		"copy.new"

#define CLAIM_NAME		"claim"

/*
 * how a file is opened; O_NONBLOCK: so a FIFO or a lease does not make this
 * process wait
 */
#define COPY_FLAGS \
	(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* permissions and demands on the way down a path */
#define DIR_MAKE	0x01		/* create what is missing */
#define DIR_TRUST	0x02		/* every folder must be ours alone */
#define DIR_SYNC	0x04		/* fsync each folder, because its maker may
								 * not have done so */

/*
 * Where a folder lives.  The mount id, which needs Linux 5.8, distinguishes a
 * bind mount of the same file system; the device number does not.
 */
typedef struct StoreVolume
{
	dev_t		device;
	uint64		mount_id;
	bool		mount_known;
} StoreVolume;

/* The result of one look at a name. */
typedef struct FileLook
{
	mode_t		mode;
	uid_t		owner;
	gid_t		group;
	StoreVolume volume;
	FileIdentity identity;
} FileLook;

/*
 * An open folder.  The folder is kept open because the next file is probably
 * in the same folder.
 */
typedef struct Folder
{
	int			fd;				/* -1 if it is not open */
	bool		dirty;			/* an fsync is owed */
	bool		chain_synced;	/* no fsync is owed for the folders on the way */
	bool		mode_noted;		/* see store_note_mode() */
	bool		copies;			/* the files in the directory are copies: see
								 * store_is_expected() */
	bool		ours;			/* the directory is in a trash: see
								 * store_is_expected() */
	bool		access_known;	/* see store_check_folder() */
	bool		is_sticky;		/* and belongs to another user */
	int			access_errno;
	StoreVolume volume;			/* all folders below must be on this volume */
	char		path[STORE_PATH_MAX];	/* relative to the folder that it was
										 * opened from */
} Folder;

/* A place that files are captured into: a folder with a folder for each run. */
typedef struct Trash
{
	Folder	   *base;			/* the folder that `path` is relative to */
	char		path[NAME_MAX + 1]; /* of the folder */
	bool		copies;			/* captures of the present call are copies */
	Folder		run;			/* the trash of one run */
	Folder		dir;			/* a folder below `run` */
} Trash;

/* number of folders that may wait for their fsync: see store_leave() */
#define STORE_OWED	32

typedef struct OwedSync
{
	int			fd;
	dev_t		device;
	ino_t		inode;
} OwedSync;

struct FileStore
{
	StoreBase	base;
	Folder		root;			/* the upload directory */
	Folder		home;			/* a folder below root, of the last file */
	Folder		backup;			/* see store_set_backup_dir() */
	Trash		trash;			/* where captured files are */
	Trash		passage;		/* in the upload directory; a capture passes
								 * through this trash if `trash` is elsewhere */
	mode_t		mode;			/* permissions of root */
	mode_t		make_mode;		/* of folders that are made */
	struct ClaimLock *lock;		/* see store_lock(); NULL: no lock */
	struct StoreRing *ring;		/* see ring.c; NULL: not made yet */
	bool		no_ring;		/* no ring can be made */
	int			n_owed;
	OwedSync	owed[STORE_OWED];
	int			sync_errno;		/* first failure of an fsync, or 0 */
	const char *failure;		/* static text about the failure, set when a
								 * function that opens folders returns -1 or
								 * NULL: see FileResult */
};

/* A relative path, checked, and cut before its last component. */
typedef struct FilePath
{
	const char *name;			/* points into the caller's string */
	char		dir[STORE_PATH_MAX];	/* "" for the upload directory */
} FilePath;

/* One file, for a call that captures, puts back or destroys it. */
typedef struct StoreJob
{
	FileStore  *store;
	int64		run_id;			/* the run in whose trash the file is or will
								 * be */
	const FileIdentity *expected;
	FilePath	where;			/* the file's own place */
} StoreJob;

/* An open regular file to be copied. */
typedef struct OpenFile
{
	int			fd;
	FileLook	look;			/* a look at the opened file */
} OpenFile;


/* ----------
 * Results
 * ----------
 */

static inline FileResult
fail_or_no_space(int errnum, const char *failure)
{
	FileResult	result = fail(errnum, failure);

	if (errnum == ENOSPC || errnum == EDQUOT)
		result.outcome = FILE_NO_SPACE;
	return result;
}

static inline FileResult
vanished_or_failed(int errnum, const char *failure)
{
	return errnum == ENOENT ? come_to(FILE_VANISHED) : fail_or_no_space(errnum, failure);
}


/* Returns whether stop(), or NULL, says that a call is to be given up: see store_set_stop(). */
static inline bool
is_stopped(bool (*stop) (void))
{
	return stop != NULL && stop();
}


/* ----------
 * look.c
 * ----------
 */

/*
 * Looks at `name` in the folder `fd`, or with "" at `fd` itself, and fills
 * *look.  Never follows a symlink.  Opens nothing, except if statx() does not
 * tell the mount: then the call needs two descriptors more for a moment.
 * Returns 0, or -1 with errno.
 */
extern int	store_look(int fd, const char *name, FileLook *look);

/*
 * Looks as store_look() does, for a caller that does not need the mount, which
 * may stay unknown.  Opens nothing.  Returns 0, or -1 with errno.
 */
extern int	store_look_at_file(int fd, const char *name, FileLook *look);

/*
 * Returns whether both volumes are one device and, as far as the mounts are
 * known, one mount.
 */
extern bool store_same_volume(const StoreVolume *a, const StoreVolume *b);

/*
 * Returns whether `found`, a file of the folder `dir`, is the file `expected`,
 * by size and mtime if the folder has copies, else by store_same_file().
 */
extern bool store_is_expected(const Folder *dir, const FileIdentity *found,
							  const FileIdentity *expected, bool with_ctime);

/*
 * Looks at the regular file `name` in the folder `dir`, sets *found to its
 * identity, and compares *found with `expected`, unless `expected` is NULL.
 * FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR, FILE_REPLACED, FILE_FAILED.
 */
extern FileResult store_recognize(const Folder *dir, const char *name, const FileIdentity *expected,
								  bool with_ctime, FileIdentity *found);


/* ----------
 * path.c
 * ----------
 */

/* Returns 0, or an errno if a component of `len` bytes must not be part of a path. */
extern int	store_judge_component(const char *component, size_t len);

/* Checks `path`, and cuts it before its last component.  FILE_OK, or FILE_FAILED ("could not accept path"). */
extern FileResult store_split_path(const char *path, FilePath *where);

/* Fills `job`; outcomes of store_split_path(). */
extern FileResult store_begin(StoreJob *job, FileStore *store, int64 run_id, const char *path,
							  const FileIdentity *expected);


/* ----------
 * directory.c
 *
 * These functions return the descriptor of a folder, which the caller closes,
 * or a Folder that the store keeps open.  On failure each function returns -1
 * or NULL, and sets errno and store->failure.  ----------
 */

/* Calls close(fd), and keeps errno. */
extern void store_close_quietly(int fd);

/*
 * Does the work of fdopendir().  Returns NULL with errno if `fd` is -1; closes
 * a descriptor that cannot be read.
 */
extern DIR *store_open_stream(int fd);

/*
 * Opens the folder `name` (one component, or ".") in the folder `parent`, and
 * sets *look to a look at the opened folder.  ELOOP or ENOTDIR if `name` is no
 * folder, EXDEV if the folder is not on `volume`.  Does not set
 * store->failure.
 */
extern int	store_open_directory(const StoreVolume *volume, int parent, const char *name,
								 FileLook *look);

/*
 * Returns `fd`, the descriptor of a folder, if the folder is ours alone;
 * `look` is a look at that folder.  Else closes `fd`, and fails with EPERM.
 * If `fd` is -1, errno says why.
 */
extern int	store_insist_on_trust(FileStore *store, int fd, const FileLook *look);

/* Opens the folder `name` in the folder `parent`, which is `from` or lies below `from`. */
extern int	store_step_down(FileStore *store, Folder *from, int parent, const char *name, int flags);

/* Opens our private folder; with `make`, makes a missing private folder. */
extern int	store_open_private(FileStore *store, bool make);

/*
 * Opens the trash of the run `run_id`; for 0, opens the folder that has the
 * trash of each run.
 */
extern int	store_open_trash(FileStore *store, int64 run_id);

/*
 * Returns the open folder of the file `where`, at its own place; else NULL,
 * and sets *result: FILE_VANISHED, FILE_OCCUPIED (with DIR_MAKE), FILE_FAILED.
 */
extern Folder *store_reach_home(FileStore *store, const FilePath *where, int flags,
								FileResult *result);

/*
 * Returns the open folder of `trash` that has, or will have, the captured file
 * of the job; else NULL, and sets *result: FILE_VANISHED if there is no such
 * folder, FILE_NO_SPACE, FILE_FAILED.
 */
extern Folder *store_reach_trash(const StoreJob *job, Trash *trash, int flags, FileResult *result);

/*
 * Returns the open folder that a file of the folder `trash` is put back into
 * as `target`.  Makes the folder if the folder is missing.  On failure returns
 * NULL, and sets *result.
 */
extern Folder *store_reach_target(FileStore *store, const Folder *trash, const FilePath *target,
								  int flags, FileResult *result);

/*
 * Notes the mode of the folder `home` at the folder `trash`, which has the
 * captured files of `home`; `where` is one of these files.  Notes the mode
 * once.
 */
extern void store_note_mode(const Folder *home, Folder *trash, const FilePath *where);

/*
 * store_leave() closes a folder that was kept open; store_leave_all() closes
 * all such folders.  The descriptor of a dirty folder stays open, and waits
 * for an fsync together with other folders.
 */
extern void store_leave(FileStore *store, Folder *folder);
extern void store_leave_all(FileStore *store);

/*
 * Closes all folders, also folders that wait for an fsync, without the fsync.
 * Commit-safe.
 */
extern void store_forget_syncs(FileStore *store);

/* fsyncs the folder `fd`.  store_sync() returns a failure.  Keeps errno. */
extern void store_sync_directory(FileStore *store, int fd);

/* fsyncs each of the three folders that is dirty.  FILE_OK, or FILE_FAILED. */
extern FileResult store_sync_now(FileStore *store, Folder *a, Folder *b, Folder *c);


/* ----------
 * rename.c
 *
 * Both functions rename a file of one folder into another, and fail with
 * EEXIST if the new name is taken.  Each function returns 0, or -1 with errno.
 * ----------
 */

/* For a folder `trash` in which only we make names. */
extern int	store_rename_into_trash(int from, const char *from_name, int trash, const char *name);

/* For a folder `to` in which anybody may make names. */
extern int	store_rename_out_of_trash(int trash, const char *name, int to, const char *to_name);


/* ----------
 * capture.c
 * ----------
 */

/*
 * Renames the file of the job into the trash `into`, and verifies there that
 * the file is the expected file.  Sets *trash to the folder that then has the
 * file.  Outcomes: store_capture().
 */
extern FileResult store_capture_by_rename(const StoreJob *job, Trash *into, Folder **trash);

/*
 * Puts back a captured file that is not the expected file; under another name
 * if the file's own name is taken.  FILE_REPLACED; or FILE_FAILED, and the
 * file is still in the folder `trash`.
 */
extern FileResult store_return_stranger(const StoreJob *job, Folder *trash);

/*
 * Returns whether a call, with this result at its attempt `attempt` (from 1),
 * failed because a folder that was kept open has been removed, and should be
 * tried again.  Closes all folders in that case.
 */
extern bool store_is_stale(FileStore *store, const FileResult *result, int attempt);


/* ----------
 * copy.c
 *
 * These functions know descriptors only: copy_out.c and put_back.c decide
 * which files are copied, and what becomes of the files.
 * ----------
 */

/* bytes that are copied between two calls of stop() */
#define COPY_CHUNK	(1024 * 1024)

/* Returns whether the copy is to be given up: see is_stopped(). */
typedef bool (*CopyStop) (void);

/*
 * Reads `size` bytes at `offset` into `buffer`.  Returns the number of bytes
 * read, less than `size` at the end of the file only; -1 with errno.
 */
extern ssize_t copy_read(int fd, char *buffer, size_t size, int64 offset);

/* Writes `size` bytes at `offset`.  Returns 0 or an errno. */
extern int	copy_write(int fd, const char *buffer, size_t size, int64 offset);

/*
 * Makes the file `to` a copy of the file `from`: content, holes, permissions,
 * mtime, and as far as both file systems and our rights allow it owner, group,
 * extended attributes and ACLs.  `from` is open for reading, and `look` is an
 * earlier look at `from`.  `to` is empty, ours, and open for reading and
 * writing.  FILE_OK: the copy was fsynced, read back and compared.
 * FILE_NO_SPACE, FILE_FAILED (with EINTR if stop() said so): the content of
 * `to` is of no use.
 */
extern FileResult copy_make(int from, const FileLook *look, int to, CopyStop stop);

/*
 * Compares the files `a` and `b`.  FILE_OK: both hold the same `size` bytes,
 * and no more; FILE_REPLACED: they differ; FILE_FAILED, with EINTR if stop()
 * said so.
 */
extern FileResult copy_compare(int a, int b, int64 size, CopyStop stop);


/* ----------
 * copy_out.c
 * ----------
 */

/* Does the work of store_capture() by a copy. */
extern FileResult store_copy_out(const StoreJob *job);

/*
 * Opens the regular file `name` of the folder `dir` if the file is `expected`.
 * Outcomes: store_recognize().
 */
extern FileResult store_open_to_copy(const Folder *dir, const char *name,
									 const FileIdentity *expected, OpenFile *file);

/*
 * Copies `original` into the empty file `copy`, a descriptor.  FILE_OK;
 * FILE_REPLACED: the original has changed meanwhile; FILE_NO_SPACE,
 * FILE_FAILED.
 */
extern FileResult store_fill_copy(FileStore *store, const OpenFile *original, int copy);

/*
 * Makes the file COPY_NAME in the folder `workshop`, a copy of `original`.
 * FILE_OK, with its descriptor in *copy; else the outcome of
 * store_fill_copy(), and no file is left.
 */
extern FileResult store_make_copy(FileStore *store, const OpenFile *original, int workshop, int *copy);


/* ----------
 * put_back.c
 * ----------
 */

/*
 * Puts the file of the job from the trash `from` back as `target`, by a rename
 * if a rename is possible, else by a copy.  Outcomes: store_put_back().
 */
extern FileResult store_put_back_from(const StoreJob *job, Trash *from, const FilePath *target);

/*
 * Does the work of store_return_stranger() by a copy, for a file that cannot
 * be renamed back; under its own name only.
 */
extern FileResult store_copy_stranger_back(const StoreJob *job, Folder *trash);


/* ----------
 * trash.c
 * ----------
 */

/*
 * Fills `job`, and returns the open folder of the captured file; else NULL,
 * and sets *result.
 */
extern Folder *store_reach_captured(StoreJob *job, FileStore *store, int64 run_id, const char *path,
									const FileIdentity *expected, FileResult *result);


/* ----------
 * destroy.c
 * ----------
 */

/*
 * Unlinks the file `name` of the folder `dir` if the file is `expected`.  Sets
 * *freed to the bytes that the unlink gave back.  Outcomes:
 * store_destroy_in_place().
 */
extern FileResult store_unlink(Folder *dir, const char *name, const FileIdentity *expected,
							   bool with_ctime, int64 *freed);


/* The driver of directories, and its functions: see driver.h. */
extern const StoreDriver local_driver;

#define STORE_OWN(type, name, parameters, ...) extern type local_##name parameters;
#define STORE_BOTH STORE_OWN
#define STORE_WALK STORE_OWN
#define STORE_LOCAL STORE_OWN
#define STORE_BUCKET(...)
#include "src/store/driver_list.h"


/* ----------
 * ring.c
 * ----------
 */

/* A system call, and its outcome. */
typedef struct StoreCall
{
	int			fd;				/* a folder */
	const char *name;			/* to be unlinked; NULL: `fd` is to be fsynced */
	StoreFile  *file;			/* for the caller's use */
	int			errnum;			/* set when the call is over: 0 if it was done */
	bool		under_way;		/* for ring.c; false at first */
	dlist_node	node;			/* for ring.c */
} StoreCall;

/*
 * Begins the call, by io_uring if the kernel and the build have io_uring.  A
 * call that is alone is done at once.  `call` and its name must stay as they
 * are until the call is over.
 */
extern void store_begin_call(FileStore *store, StoreCall *call, bool alone);

/* Waits until these calls, which were begun, are over. */
extern void store_end_calls(FileStore *store, const StoreCall *calls, int n);

/* Waits until all calls that were begun are over.  Commit-safe. */
extern void store_settle(FileStore *store);

/*
 * Closes the ring that store_begin_call() has opened, if any.  Waits for the
 * calls that the kernel has, and does not touch their memory: the outcome of
 * these calls is lost.  Commit-safe.
 */
extern void store_close_ring(FileStore *store);

#endif							/* AUDIO_CLEANUP_STORE_PRIVATE_H */
