/*-------------------------------------------------------------------------
 *
 * store/private.h
 *	  What the files of this folder share of an open upload directory:
 *	  descriptors, and the rules by which a directory below it is opened.
 *
 * Private to those files.  Whatever else includes this would have to be
 * rewritten for another kind of store.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_PRIVATE_H
#define AUDIO_CLEANUP_STORE_PRIVATE_H

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifndef FRONTEND
#include "storage/fd.h"
#endif

#include "src/store/store.h"

/*
 * Outside the server nobody keeps count of descriptors.  Inside, a slot is
 * asked for before the open() and given back after the close().
 */
#ifdef FRONTEND
#define AcquireExternalFD() true
#define ReleaseExternalFD() ((void) 0)
#endif

/*
 * Where a directory lives.  The mount id tells a bind mount of the same file
 * system apart, which the device number does not; it needs Linux 5.8.
 */
typedef struct StoreVolume
{
	dev_t		device;
	uint64		mount_id;
	bool		mount_known;
} StoreVolume;

/* All that one look at a name tells. */
typedef struct FileLook
{
	mode_t		mode;
	uid_t		owner;
	gid_t		group;
	StoreVolume volume;
	FileIdentity identity;
} FileLook;

/* A directory kept open because the next file is probably in it too. */
typedef struct Folder
{
	int			fd;				/* -1 if none is held */
	bool		dirty;			/* an fsync is owed */
	bool		chain_synced;	/* none is owed for the way to it */
	bool		mode_noted;		/* of its counterpart, see note_mode() */
	bool		copies;			/* what is in it are copies: see is_expected() */
	bool		ours;			/* it is in a trash: see is_expected() */
	bool		access_known;	/* see store_check_folder() */
	int			access_errno;
	const StoreVolume *volume;	/* where it is; all below it must be there */
	char		path[STORE_PATH_MAX];	/* relative to what it was opened from */
} Folder;

/* A place that files are captured into: a folder, with one for each run. */
typedef struct Trash
{
	Folder	   *base;			/* what `path` is relative to */
	char		path[NAME_MAX + 1]; /* of the folder */
	bool		copies;			/* for now, what is in it are copies */
	Folder		run;			/* the trash of one run */
	Folder		dir;			/* a directory below run */
} Trash;

struct FileStore
{
	Folder		root;			/* the upload directory */
	Folder		home;			/* a directory below root */
	Folder		backup;			/* see store_set_backup_dir() */
	Trash		trash;			/* where captured files are */
	Trash		passage;		/* in the upload directory, what a capture
								 * passes through if the trash is elsewhere */
	StoreVolume volume;			/* of root */
	StoreVolume backup_volume;
	mode_t		mode;			/* permissions of root */
	mode_t		make_mode;		/* of directories that are made */
	bool		(*stop) (void); /* see store_set_stop(), or NULL */
	struct ClaimLock *lock;		/* see store_lock(); NULL if it has none */
	bool		durable;		/* see store_set_durable() */
	int			sync_errno;		/* first failure of an fsync, or 0 */
};

/* an unfinished copy; no run is called that, and no claim */
#define COPY_NAME		"copy.new"

/* O_NONBLOCK: should it be a FIFO, or leased, nobody is to wait for another */
#define COPY_FLAGS \
	(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* the claim; O_NONBLOCK: should it be a FIFO, nobody is to wait for its other end */
#define CLAIM_NAME		"claim"
#define CLAIM_FLAGS		(O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)

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

/* An open regular file that is about to be copied. */
typedef struct OpenFile
{
	int			fd;
	FileLook	look;			/* when it was opened */
} OpenFile;

/* Results */

static inline FileResult
come_to(FileOutcome outcome)
{
	FileResult	result = {outcome, 0, NULL};

	return result;
}

static inline FileResult
fail(int errnum, const char *action)
{
	FileResult	result = {FILE_FAILED, errnum, action};

	return result;
}

static inline FileResult
fail_or_no_space(int errnum, const char *action)
{
	FileResult	result = fail(errnum, action);

	if (errnum == ENOSPC || errnum == EDQUOT)
		result.outcome = FILE_NO_SPACE;
	return result;
}

static inline FileResult
vanished_or_failed(int errnum, const char *action)
{
	return errnum == ENOENT ? come_to(FILE_VANISHED) : fail_or_no_space(errnum, action);
}

/*
 * Look at `name` in the directory `fd`, or with "" at the directory itself.
 * Never follows a symlink, opens nothing.  Returns 0, or -1 with errno.
 */
extern int	store_look(int fd, const char *name, FileLook *look);

/*
 * Open the directory `name` in the directory `parent` (not a path: one
 * component, or "."), and look at it.  Returns a descriptor, or -1 with errno:
 * ELOOP or ENOTDIR if it is anything but a directory, EXDEV if something else
 * is mounted there.
 */
extern int	store_open_directory(const FileStore *store, int parent,
								 const char *name, FileLook *look);

/*
 * Open the trash of a run, or with 0 the folder with all of them, for reading.
 * Returns a descriptor, or -1 with errno; *volume becomes where it is.
 */
extern int	store_open_trash(FileStore *store, int64 run_id, const StoreVolume **volume);

/* store_open_directory() on any volume. */
extern int	store_open_directory_on(const StoreVolume *volume, int parent,
									const char *name, FileLook *look);

/*
 * Open our private directory, making it if `make`.  Returns a descriptor, or
 * -1 with errno and *action (static text): EPERM if it is not to be trusted.
 */
extern int	store_open_private(const FileStore *store, bool make, const char **action);

/* Is this a directory of the store's own file system and mount? */
extern bool store_same_volume(const StoreVolume *a, const StoreVolume *b);

/* look.c */
extern FileResult store_identify_in(const Folder *dir, const char *name, FileIdentity *identity);
extern bool store_is_expected(const Folder *dir, const FileIdentity *found, const FileIdentity *expected, bool with_ctime);
extern FileResult store_recognize(const Folder *dir, const char *name, const FileIdentity *expected, bool with_ctime, FileIdentity *found);

/* path.c */
extern int	store_judge_component(const char *component, size_t len);
extern int	store_split_path(const char *path, FilePath *where);

/* directory.c */
extern void store_sync_directory(FileStore *store, int fd);
extern void store_mark_dirty(const FileStore *store, Folder *folder);
extern void store_leave(FileStore *store, Folder *folder);
extern void store_leave_all(FileStore *store);
extern void store_close_quietly(int fd);
extern int	store_insist_on_trust(int fd, const FileLook *look, const char **action);
extern int	store_step_down(const FileStore *store, const StoreVolume *volume, int parent, const char *name, int flags, bool *made, const char **action);
extern int	store_descend(FileStore *store, Folder *from, const char *path, int flags, const char **action);
extern Folder *store_reach_home(FileStore *store, const FilePath *where, int flags, FileResult *result);
extern Folder *store_reach_run(FileStore *store, Trash *trash, int64 run_id, int flags, const char **action);
extern Folder *store_reach_trash(FileStore *store, Trash *trash, int64 run_id, const FilePath *where, int flags, FileResult *result);
extern void store_note_mode(const Folder *home, Folder *trash, const FilePath *where);
extern Folder *store_reach_target(FileStore *store, const Folder *trash, const FilePath *target, int flags, FileResult *result);
extern int	store_sync_now(FileStore *store, Folder *a, Folder *b, Folder *c);

/* rename.c */
extern int	store_rename_into_trash(int from, const char *from_name, int trash, const char *name);
extern int	store_rename_out_of_trash(int trash, const char *name, int to, const char *to_name);

/* capture.c */
extern FileResult store_return_stranger(FileStore *store, int64 run_id, const FilePath *where, Folder *trash);
extern bool store_is_stale(FileStore *store, const FileResult *result, int attempt);
extern FileResult store_capture_by_rename(FileStore *store, Trash *into, int64 run_id, const FilePath *where, const FileIdentity *expected, Folder **trash);

/* copy_out.c */
extern FileResult store_open_to_copy(const Folder *dir, const char *name, const FileIdentity *expected, OpenFile *file);
extern FileResult store_fill_copy(FileStore *store, const OpenFile *original, int copy);
extern FileResult store_make_copy(FileStore *store, const OpenFile *original, int workshop, int *copy);
extern FileResult store_copy_out(FileStore *store, int64 run_id, const FilePath *where, const FileIdentity *expected);

/* put_back.c */
extern FileResult store_try_put_back(FileStore *store, Trash *from, int64 run_id, const FilePath *where, const FilePath *target, const FileIdentity *expected);
extern FileResult store_copy_stranger_back(FileStore *store, const FilePath *where, Folder *trash);

/* trash.c */
extern FileResult store_unlink(FileStore *store, Folder *dir, const char *name, const FileIdentity *expected, bool with_ctime, int64 *freed);

#endif							/* AUDIO_CLEANUP_STORE_PRIVATE_H */
