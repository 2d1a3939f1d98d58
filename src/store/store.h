/*-------------------------------------------------------------------------
 *
 * store/store.h
 *	  One upload directory: outcomes; no SQL, no ERROR.
 *
 * What may be done to one file of it: look at it, capture it into the trash,
 * put it back, destroy it.
 *
 * A FileStore is an open upload directory: a directory of this machine, or a
 * bucket of an S3-compatible server.  Callers see paths relative to the upload
 * directory ("2024/05/a.mp3") and outcomes, never a descriptor, an inode or a
 * request: driver.h says what a kind of upload directory must be able to do.
 *
 * Nothing here raises an ERROR, uses SPI or reads a setting.  A failure is an
 * outcome or an errno, and store_error_text() has the words for it.
 *
 * "Commit-safe" means that the commit callback may call the function, where an
 * ERROR would be a PANIC: the function does not allocate memory.  This holds
 * for a directory of this machine, after store_set_durable(store, false); of a
 * bucket the commit callback calls only store_acts_at_commit() and
 * store_close().
 *
 * A path is relative, in its plainest form: no "." or "..", no empty
 * component, nothing in .audio_cleanup.  Any other path is FILE_FAILED with
 * EINVAL or ENAMETOOLONG.
 *
 * In a directory of this machine
 *
 * - everything happens relative to the descriptors that the store holds.  No
 *	 path is resolved from the root of the file system after store_open(), no
 *	 symlink below the directory is followed, and no mount point is crossed.  A
 *	 file on another device or mount is FILE_FAILED with EXDEV.  A file whose
 *	 folder is missing or is a symlink is FILE_VANISHED.
 *
 * - the trash is <upload_dir>/.audio_cleanup/trash/<run>/<path>, or
 *	 <backup_dir>/<owner>/<run>/<path>: see store_set_backup_dir().  Folders of
 *	 the trash are made when they are needed, with mode 0700.  They are trusted
 *	 only if they belong to the server's OS user and nobody else may write to
 *	 them; else the outcome is FILE_FAILED with EPERM ("could not trust
 *	 directory").
 *
 * - the folder of the last file is held open, so callers should come with
 *	 their files sorted by path.
 *
 * - an open store counts as seven descriptors of the server's limit; four more
 *	 with a backup directory; one more for io_uring; and, while the store is
 *	 durable, up to 32 more for folders that wait for store_sync().  An ERROR
 *	 does not give descriptors back: close the store in a PG_FINALLY or in a
 *	 callback.
 *
 * In a bucket files stay where they are, hidden, and the trash of a run holds
 * lists of them: see bucket/bucket.h and bucket/manifest.c.  A bucket counts as
 * a descriptor for each request that may be under way, and some more.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_H
#define AUDIO_CLEANUP_STORE_H

/* the one name below the upload directory that is ours; hidden, so never walked */
#define STORE_PRIVATE_DIR	".audio_cleanup"
#define STORE_TRASH_DIR		"trash"

/* longest relative path that is handled, terminating NUL included (PATH_MAX) */
#define STORE_PATH_MAX		4096

typedef struct FileStore FileStore;

/*
 * What makes a file this very file.  Times are nanoseconds since the Unix
 * epoch, PG_INT64_MIN or PG_INT64_MAX for what lies beyond.  A rename changes
 * ctime, so ctime is compared only before a file is captured.
 */
typedef struct FileIdentity
{
	uint64		inode;			/* in a bucket: a digest, see
								 * bucket/versions.c */
	int64		size;			/* bytes, st_size */
	int64		mtime_ns;
	int64		ctime_ns;
	int64		btime_ns;		/* 0 where the file system has no birth time;
								 * compared only if both are known */
	uint32		nlink;			/* not part of the identity; more than one
								 * frees nothing */
	int64		space;			/* not part of the identity: bytes that
								 * removing the last name of the file gives
								 * back, at most its size */
	bool		captured;		/* the file is known to have been captured and
								 * verified: then size and mtime identify it,
								 * because a trash that was copied, with its
								 * disk or by cp -a, has other inodes; never
								 * set for a capture */
} FileIdentity;

typedef enum FileOutcome
{
	FILE_OK,					/* done */
	FILE_VANISHED,				/* there is no such file (any more) */
	FILE_NOT_REGULAR,			/* a directory, symlink, fifo, ... has that
								 * name */
	FILE_REPLACED,				/* there is a file, but another one; it was
								 * left, or put back, where it was */
	FILE_OCCUPIED,				/* put back: the name of the file, or that of
								 * a folder on the way to it, is taken again */
	FILE_NO_SPACE,				/* capture: the trash cannot take the file:
								 * ENOSPC or EDQUOT; or EXDEV, where a file
								 * system does not rename from one folder into
								 * another, as between project quotas; nothing
								 * changed */
	FILE_FAILED					/* anything else: see errnum; nothing changed
								 * unless said otherwise */
} FileOutcome;

typedef struct FileResult
{
	FileOutcome outcome;
	int			errnum;			/* errno where outcome is FILE_FAILED or
								 * FILE_NO_SPACE, else 0 */
	const char *failure;		/* static text, such as "could not rename
								 * file", for "%s: %s" with
								 * store_error_text(); NULL when there was no
								 * failure */
} FileResult;

typedef enum FilePlace
{
	PLACE_NOWHERE,				/* neither at its own place nor in the trash */
	PLACE_UPLOAD,				/* at its own place, identity matches */
	PLACE_TRASH,				/* in the run's trash, identity matches */
	PLACE_OTHER,				/* another file is at its place, and the trash
								 * does not have the file */
	PLACE_UNFINISHED,			/* a capture was killed half-way: somebody is
								 * to call store_locate() with `mend` */
	PLACE_UNKNOWN				/* could not be told: see errnum */
} FilePlace;

/*
 * Returns whether `name` means a directory of this machine, and not
 * "s3://bucket/prefix".
 */
extern bool store_is_local(const char *name);

/*
 * Returns NULL, or what is wrong with the name of a bucket: a sentence for a
 * detail.  A directory of this machine is not judged.
 */
extern const char *store_judge_name(const char *name);

/*
 * Opens the upload directory `name`: an absolute path, or
 * "s3://bucket/prefix".  The store is allocated in the current memory context.
 * Returns NULL with errno set on failure: EINVAL for a name that is neither,
 * ENOENT, ENOTDIR, EACCES, EMFILE ...
 *
 * A symlink as the last component of a path is followed, because the
 * administrator made that one.  The directory must be readable and searchable;
 * store_check_writable() tells the rest.  Opening a bucket asks nothing of the
 * network, and fails for its name only: store_reach() tells the rest.
 */
extern FileStore *store_open(const char *name);

/*
 * Closes all descriptors, gives the lock of the claim back (that of a
 * directory of this machine), and frees the store.  NULL is allowed.
 * Commit-safe.
 */
extern void store_close(FileStore *store);

/*
 * Returns whether the commit callback may touch files of this store.  In a
 * bucket it may not: no commit waits for a network.  Commit-safe.
 */
extern bool store_acts_at_commit(const FileStore *store);

/* Returns whether the store has folders, so that a file may stand in the way of another one's path; a bucket has none. */
extern bool store_has_folders(const FileStore *store);

/*
 * Asks whether the upload directory can be reached, where store_open() did
 * not.  Returns 0 or an errno.
 */
extern int	store_reach(FileStore *store);

/*
 * Returns whether a captured file can be put back: a bucket must keep versions
 * for that.  Must be called after store_reach().
 */
extern bool store_can_undo(FileStore *store);

/*
 * For a store that cannot undo: sets *proven to whether a file is deleted only
 * if it still is the one that is expected.  This is tried with a file of ours.
 * Returns 0, or an errno if it could not be tried.
 */
extern int	store_prove(FileStore *store, bool *proven);

/*
 * Returns the text for people of the last call on this store that failed with
 * `errnum`.  The text is valid until the next call on the store.
 */
extern const char *store_error_text(FileStore *store, int errnum);

/*
 * Returns 0 if this process may write to the upload directory, so that a
 * rename could work, or an errno (EACCES, EROFS, ...).  Changes nothing.  For
 * a bucket always 0.
 */
extern int	store_check_writable(FileStore *store);

/*
 * Makes <path>/<owner> the trash of this store.  `path` is the absolute name
 * of a directory that exists, is ours, and that nobody else may write to.
 * `owner` is a name, always the same for one upload directory and never that
 * of another, so that several may share `path`.  Must be called before the
 * first file.
 *
 * If `path` is on the file system and mount of the upload directory, then a
 * capture is a rename as before.  Else a capture copies the file: the copy is
 * fsynced, read back and compared before the original is removed.  A file is
 * put back in the same way.  A copy keeps content, permissions, mtime, and as
 * far as possible owner, group and extended attributes.  A hard link becomes a
 * file of its own.
 *
 * A copy is recognized by size and mtime, because it has neither the inode nor
 * the ctime of the original.  This suffices.  Nobody else can put a file into
 * that folder.  We give a file its name there only when the file is a complete
 * copy of the very file that was `expected`, ctime included; and under that
 * name in that run's folder there has never been another one.
 *
 * FILE_OK; FILE_FAILED, with EINVAL for a wrong `path` or `owner`, or for a
 * bucket, EPERM ("could not trust directory") if the directory is not ours
 * alone, or ENOENT, ENOTDIR, ...; then the store is as it was.
 */
extern FileResult store_set_backup_dir(FileStore *store, const char *path,
									   const char *owner);

/*
 * Returns whether a capture is a rename.  If not, a capture copies the file,
 * or asks the server of a bucket, and the commit callback must not wait for
 * that.  Commit-safe.
 */
extern bool store_is_quick(const FileStore *store);

/*
 * Has stop() called now and then while a file is copied.  If it returns true,
 * the copy is given up, and the file stays where it was: FILE_FAILED with
 * EINTR.  A bucket needs no stop(): it looks for interrupts by itself, and
 * gives up with EINTR too.
 */
extern void store_set_stop(FileStore *store, bool (*stop) (void));

/*
 * Sets *free_bytes to the bytes that this process may still write to the file
 * system of the upload directory, and *size_bytes to the size of that file
 * system.  Returns 0 or an errno; ENOTSUP for a bucket.
 */
extern int	store_space(FileStore *store, int64 *free_bytes, int64 *size_bytes);

/*
 * Announces that the caller will call store_identify() for these `n` paths, as
 * a rule not more than store_together().  Where a look takes long, all files
 * are looked at now, and the answers are remembered until the next call of
 * store_expect().  The texts of the paths must stay where they are until then.
 * `n` of 0 forgets the answers.
 */
extern void store_expect(FileStore *store, const char *const *paths, int n);

/*
 * Sets *identity to the identity of the regular file at `path`.  FILE_OK,
 * FILE_VANISHED, FILE_NOT_REGULAR or FILE_FAILED.  Commit-safe.
 *
 * After store_identify_durably() the next store_sync() makes sure that the
 * file stays where it was found, whoever has put it there.
 */
extern FileResult store_identify(FileStore *store, const char *path,
								 FileIdentity *identity);
extern FileResult store_identify_durably(FileStore *store, const char *path,
										 FileIdentity *identity);

/*
 * Returns whether both have one inode, size, mtime and birth time.  With
 * `with_ctime`, a file that has but one link must also have one ctime.
 */
extern bool store_same_file(const FileIdentity *a, const FileIdentity *b,
							bool with_ctime);

/*
 * Sets whether the renames and unlinks of this store are to survive a crash of
 * the system: true after store_open().  With false, no fsync is done and none
 * is owed.  That is for the commit callback, which has to be quick, and after
 * which somebody else calls store_locate() and store_sync() before anything is
 * recorded.  Must be called before the first file.  Commit-safe.
 */
extern void store_set_durable(FileStore *store, bool durable);

/*
 * Captures a file: renames the file at `path` into the trash of the run
 * `run_id`, if it still is `expected`.  The file is looked at before the
 * rename, with its ctime, and verified after the rename, without.  Another
 * file is put back; if the name was taken in that instant, it is put beside,
 * as "<name>.audio_cleanup-<run>".  If even that fails ("could not put back
 * file"), the file stays in the trash, where nobody destroys it, because it is
 * not `expected`; store_locate() tries again.
 *
 * FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR, FILE_REPLACED, FILE_NO_SPACE,
 * FILE_FAILED; with EEXIST, the trash has that name already, from a run of the
 * same number on another timeline.  Commit-safe.
 *
 * In a store that is not quick, the copy is durable before the original is
 * touched; so a store that is not durable fails with EXDEV.  If an earlier
 * capture finished the copy, but was killed then, the copy is compared again,
 * and used or replaced.
 */
extern FileResult store_capture(FileStore *store, int64 run_id, const char *path,
								const FileIdentity *expected);

/* A condemned file that is to be captured, and the outcome. */
typedef struct StoreCondemned
{
	const char *path;
	const FileIdentity *expected;
	FilePlace	place;			/* set: where the file was, see store_locate() */
	FileResult	result;			/* set: for PLACE_UPLOAD, see store_capture();
								 * for PLACE_UNKNOWN, why */
	bool		destroyed;		/* set: with FILE_OK, the file was destroyed
								 * at its place, because there is no trash */
} StoreCondemned;

/*
 * Finds `n` condemned files of the run `run_id`, mends captures that were left
 * unfinished, and captures the files that are at their place.  Sets place,
 * result and destroyed of each; FILE_FAILED with EINTR if the call was stopped.
 * Where there is no trash, files are destroyed at their place, but only with
 * `for_good`: no backup was promised.  Not commit-safe.
 */
extern void store_capture_many(FileStore *store, int64 run_id, StoreCondemned *files, int n,
							   bool for_good);

/*
 * Returns how many files one call should look at, capture or destroy, where
 * that is quicker than one call for each file; else 1.
 */
extern int	store_together(const FileStore *store);

/*
 * Does the work of store_capture() by a copy, which is durable and compared
 * before the original is unlinked at its place: for a file that cannot be
 * renamed into the trash (FILE_NO_SPACE with EXDEV).  The store must be
 * durable.
 */
extern FileResult store_capture_by_copy(FileStore *store, int64 run_id, const char *path,
										const FileIdentity *expected);

/*
 * Returns 0 if this process may remove names from the folder of the file
 * `path`, or an errno (EACCES, EROFS, ...).  Changes nothing.  For a bucket
 * always 0.
 */
extern int	store_check_folder(FileStore *store, const char *path);

/*
 * Returns where the file is now that the run `run_id` has condemned at `path`.
 * Sets *errnum to an errno for PLACE_UNKNOWN, else to 0.  Commit-safe.
 *
 * If the trash has another file under the name of this one, and the place of
 * this one is empty, then a capture was killed before it could verify the
 * file.  With `mend` the other file is put back, and the answer is PLACE_OTHER;
 * without, nothing is done, and the answer is PLACE_UNFINISHED.  If a copy is
 * in the trash and the original at its place, the answer is PLACE_UPLOAD: the
 * file is not captured yet.
 */
extern FilePlace store_locate(FileStore *store, int64 run_id, const char *path,
							  const FileIdentity *expected, bool mend, int *errnum);

/* A file that is looked for, and what is found: see store_locate(). */
typedef struct StoreLocated
{
	const char *path;
	const FileIdentity *expected;
	FilePlace	place;			/* set */
	int			errnum;			/* set */
} StoreLocated;

/*
 * Sets the places where the `n` files of the run `run_id` are now.  Mends nothing.
 * Several files are looked for at a time, where that is quicker.  Not commit-safe.
 */
extern void store_locate_many(FileStore *store, int64 run_id, StoreLocated *files, int n);

/*
 * Puts a captured file back to its own place; never overwrites.  Missing
 * folders on the way are made, see store_put_back_as().  Fails where the file
 * system knows neither RENAME_NOREPLACE nor hard links.
 * FILE_OK, FILE_VANISHED (not in the trash), FILE_OCCUPIED, FILE_REPLACED
 * (the file in the trash is not `expected`), FILE_FAILED.  Commit-safe.
 */
extern FileResult store_put_back(FileStore *store, int64 run_id, const char *path,
								 const FileIdentity *expected);

/*
 * Does the work of store_put_back(), but puts the file to the path `as`.
 * Folders that are made again get the mode of the folder that the file was
 * captured in, where that mode is known.
 */
extern FileResult store_put_back_as(FileStore *store, int64 run_id, const char *path,
									const char *as, const FileIdentity *expected);

/* A captured file that is to be put back under the name `as`, and what has become of it. */
typedef struct StoreReturned
{
	const char *path;
	const char *as;
	const FileIdentity *expected;
	FileResult	result;			/* set: see store_put_back() */
} StoreReturned;

/*
 * Puts `n` captured files of the run `run_id` back, several at a time, where
 * that is quicker.  Each has its own result.  Not commit-safe.
 */
extern void store_put_back_many(FileStore *store, int64 run_id, StoreReturned *files, int n);

/*
 * Fills `runs` with the ids of at most `max` runs that have a folder in the
 * trash.  Returns how many such runs there are; -1 with errno if that cannot
 * be told.
 */
extern int	store_trash_runs(FileStore *store, int64 *runs, int max);

/*
 * Gives the trash of the run `run_id` another number, `as`, which has no trash
 * yet.  Returns 0 or an errno; ENOTSUP for a bucket.
 */
extern int	store_renumber_trash(FileStore *store, int64 run_id, int64 as);

/*
 * By its rows, no file of the run `run_id` lies in the trash any more, nor will
 * one: removes what the store remembers of the run, where that is more than its
 * files in the trash.  With `look` only if there are none indeed: files of a
 * recovered database may have lost their rows.  What cannot be removed now
 * stays until the next call.  Not commit-safe.
 */
extern void store_forget_run(FileStore *store, int64 run_id, bool look);

/*
 * Sets *identity to the identity of the file that the run `run_id` captured
 * from `path`.  FILE_OK, FILE_VANISHED (the trash does not have the file),
 * FILE_NOT_REGULAR or FILE_FAILED.
 */
extern FileResult store_identify_captured(FileStore *store, int64 run_id, const char *path,
										  FileIdentity *identity);

/*
 * Returns whether both have one size and one mtime.  A file system or an
 * archive that knows whole seconds only may have cut the mtime of `found`.
 */
extern bool store_same_copy(const FileIdentity *found, const FileIdentity *expected);

/* Returns the bytes that destroying this file gives back: 0 while the file has another link. */
extern int64 store_space_of(const FileIdentity *identity);

/*
 * Removes the folder `path`, relative to the upload directory, if it is empty,
 * and then the folders above it that have become empty.  Mount points,
 * subvolumes and what is no folder stay.  Returns how many folders were
 * removed; 0 for a bucket, which has none.  Commit-safe.
 */
extern int	store_remove_folders(FileStore *store, const char *path);

/*
 * Unlinks a captured file for good.  Sets *freed to the bytes given back to
 * the file system: see store_space_of().
 * FILE_OK, FILE_VANISHED, FILE_REPLACED, FILE_FAILED.  Commit-safe.
 */
extern FileResult store_destroy(FileStore *store, int64 run_id, const char *path,
								const FileIdentity *expected, int64 *freed);

/* A captured file that is to be destroyed, and the outcome. */
typedef struct StoreDoomed
{
	const char *path;
	const FileIdentity *expected;
	FileResult	result;			/* set: see store_destroy() */
	int64		freed;			/* set, in bytes: see store_destroy() */
} StoreDoomed;

/*
 * Destroys `n` captured files of the run `run_id`, several at a time where
 * that is possible (io_uring, or the requests of a bucket); files of one
 * folder should stand side by side.  Each file is looked at before its unlink,
 * as by store_destroy(), and has its own result.  All unlinks are over when
 * the call returns, and an interrupt has to wait so long.  Not commit-safe.
 */
extern void store_destroy_many(FileStore *store, int64 run_id, StoreDoomed *files, int n);

/*
 * Unlinks the file at its own place, if it still is `expected` (ctime
 * included): for a disk so full that the capture found no space.  Sets *freed
 * as store_destroy() does.  FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR,
 * FILE_REPLACED, FILE_FAILED; for a bucket always FILE_FAILED with ENOTSUP.
 */
extern FileResult store_destroy_in_place(FileStore *store, const char *path,
										 const FileIdentity *expected, int64 *freed);

/*
 * Sets *now_ns to the time of the file system, in nanoseconds since 1970, by a
 * file that never has a name; for a bucket to the server's time, in whole
 * seconds, of its last answer.  FILE_OK; FILE_NO_SPACE; FILE_FAILED, also
 * where the file system has no nameless files, or no server has answered yet.
 */
extern FileResult store_clock(FileStore *store, int64 *now_ns);

/* largest difference between that time and the server's with which ages can be told */
#define STORE_MAX_SKEW_SECONDS	300

/*
 * Makes the renames and unlinks done so far durable: fsyncs every folder
 * touched since the last call.  Must be called before they are recorded as
 * done.  store_locate() marks as touched, too, the folder in which it found
 * the file, or did not find the file, and the folders on the way: whoever
 * renamed the file may have died before his fsync.
 * Returns 0 or the errno of the first failure since the last call; after a
 * failure, nothing that was done since may be recorded.
 */
extern int	store_sync(FileStore *store);

/*
 * Removes the trash of the run `run_id` as far as it is empty, and the trash
 * and the private folder above it if they are empty.  Anything that is not
 * empty stays.  Reads every folder of that trash, so once a run is enough.
 */
extern void store_tidy(FileStore *store, int64 run_id);

/* What an examination of a store has found. */
typedef struct StoreFinding
{
	const char *check;			/* what was looked at, a word */
	bool		is_fine;
	const char *detail;
	const char *hint;			/* NULL: nothing is to be done */
} StoreFinding;

/*
 * Calls sink(finding, arg) for each step on the way to the upload directory,
 * up to the first step that is not fine.  Returns whether all are fine.
 * Changes nothing.  A directory of this machine has no findings.  If the call
 * was stopped, it returns false without a finding, and the caller serves the
 * interrupt.
 */
typedef void (*StoreFindingSink) (const StoreFinding *finding, void *arg);
extern bool store_examine(FileStore *store, StoreFindingSink sink, void *arg);

/*
 * Writes, deletes, puts back and destroys a file of our own in the private
 * folder, and calls sink(finding, arg) once.  Must be called after
 * store_examine(), and returns as store_examine() does.
 */
extern bool store_examine_canary(FileStore *store, StoreFindingSink sink, void *arg);

/*
 * An upload that was begun and is not completed.  Nobody can read it, no walk
 * sees it, and its parts take space.
 */
typedef struct StoreUpload
{
	const char *path;			/* that the file will have */
	const char *id;
	int64		begun_ns;		/* since 1970, by the clock of the store */
} StoreUpload;

/*
 * Calls sink(upload, arg) for each such upload below the upload directory.
 * The sink must not call the store, except by walk_why_not(), and may raise an
 * ERROR.  Returns 0; ENOTSUP for a directory of this machine, which has none;
 * or another errno, when not all of them were passed.  Not commit-safe.
 */
typedef void (*StoreUploadSink) (const StoreUpload *upload, void *arg);
extern int	store_list_uploads(FileStore *store, StoreUploadSink sink, void *arg);

/*
 * Ends the upload `id` of `path`, unless a part of it has come after
 * `quiet_since_ns` (nanoseconds since 1970).  Sets *freed to the bytes of its
 * parts.  FILE_OK; FILE_VANISHED: the upload was completed, or ended by
 * somebody; FILE_REPLACED: a part has come since; FILE_FAILED, with EBUSY if
 * somebody else works in the upload directory.  Not commit-safe.
 */
extern FileResult store_end_upload(FileStore *store, const char *path, const char *id,
								   int64 quiet_since_ns, int64 *freed);

#endif							/* AUDIO_CLEANUP_STORE_H */
