/*-------------------------------------------------------------------------
 *
 * store/store.h
 *	  One upload directory, on a disk or in a bucket: outcomes; no SQL, no
 *	  ERROR.
 *
 * The functions work on one file of the directory: they look at the file,
 * capture the file into the trash, put it back, or destroy it.
 *
 * A FileStore is an open upload directory: a directory of this machine, or a
 * bucket of an S3-compatible server.  Callers see paths relative to the upload
 * directory ("2024/05/a.mp3") and outcomes, never a descriptor, an inode or a
 * request: driver_list.h has the functions that each kind of upload directory
 * provides.
 *
 * No function raises an ERROR, uses SPI or reads a setting.  A failure is an
 * outcome or an errno, and store_error_text() has the words for the failure.
 *
 * "Commit-safe" means that the commit callback may call the function, where an
 * ERROR would be a PANIC: the function does not allocate memory.  The promise
 * holds for a directory of this machine, after store_set_durable(store,
 * false).  For a bucket, the commit callback calls only store_acts_at_commit()
 * and store_close().
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
 *	 the trash are made when they are needed, with mode 0700.  A folder of the
 *	 trash is trusted only if the server's OS user owns the folder and nobody
 *	 else may write to it; else the outcome is FILE_FAILED with EPERM ("could
 *	 not trust directory").
 *
 * - the folder of the last file is held open, so callers should sort their
 *	 files by path.
 *
 * - an open store counts as seven descriptors of the server's limit; four more
 *	 with a backup directory; one more for io_uring; and, while the store is
 *	 durable, up to 32 more for folders that wait for store_sync().  An ERROR
 *	 does not give descriptors back: close the store in a PG_FINALLY or in a
 *	 callback.
 *
 * In a bucket captured files stay at their place, hidden, and the trash of a
 * run holds lists of these files: see bucket/bucket.h and bucket/manifest.c.
 * A bucket counts as a descriptor for each request that may be under way, and
 * some more.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_H
#define AUDIO_CLEANUP_STORE_H

/* our only name below the upload directory; hidden, so never walked */
#define STORE_PRIVATE_DIR	".audio_cleanup"
#define STORE_TRASH_DIR		"trash"

/* longest relative path that is handled, terminating NUL included (PATH_MAX) */
#define STORE_PATH_MAX		4096

typedef struct FileStore FileStore;

/*
 * The identity of a file: two looks with equal identities saw one and the same
 * file.  Times are nanoseconds since the Unix epoch, PG_INT64_MIN or
 * PG_INT64_MAX for a time beyond the range.  A rename changes ctime, so ctime
 * is compared only before a file is captured.
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
	uint32		nlink;			/* number of links, not part of the identity;
								 * the unlink of a file with several links
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
	FILE_REPLACED,				/* there is another file; that file was left,
								 * or put back, at its place */
	FILE_OCCUPIED,				/* put back: the name of the file, or of a
								 * folder on the way, is taken again */
	FILE_NO_SPACE,				/* capture: the trash cannot take the file:
								 * ENOSPC or EDQUOT; or EXDEV, if a file
								 * system does not rename from one folder into
								 * another, as between project quotas; nothing
								 * changed */
	FILE_FAILED					/* anything else: see errnum; nothing changed
								 * unless said otherwise */
} FileOutcome;

typedef struct FileResult
{
	FileOutcome outcome;
	int			errnum;			/* errno if outcome is FILE_FAILED or
								 * FILE_NO_SPACE, else 0 */
	const char *failure;		/* static text, such as "could not rename
								 * file", for "%s: %s" with
								 * store_error_text(); NULL if there was no
								 * failure */
} FileResult;

typedef enum FilePlace
{
	PLACE_NOWHERE,				/* neither at its own place nor in the trash */
	PLACE_UPLOAD,				/* at its own place, identity matches */
	PLACE_TRASH,				/* in the run's trash, identity matches */
	PLACE_OTHER,				/* another file is at its place, and the trash
								 * does not have the file */
	PLACE_UNFINISHED,			/* a capture was killed half-way: a call of
								 * store_locate() with `mend` must follow */
	PLACE_UNKNOWN				/* could not be told: see errnum */
} FilePlace;

/*
 * One of several files that a call looks for, captures, puts back or destroys,
 * and the outcome.
 */
typedef struct StoreFile
{
	const char *path;
	const char *as;				/* name under which the file is put back */
	const FileIdentity *expected;
	FilePlace	place;			/* set by store_capture_many() and
								 * store_locate_many(): where the file was */
	FileResult	result;			/* set */
	bool		destroyed;		/* set by store_capture_many(), with FILE_OK:
								 * the file was destroyed at its place,
								 * because there is no trash */
	int64		freed;			/* set by store_destroy_begin(), in bytes: see
								 * store_destroy() */
} StoreFile;

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
 * Returns NULL with errno set on failure: EINVAL for any other name, ENOENT,
 * ENOTDIR, EACCES, EMFILE ...
 *
 * A symlink as the last component of a path is followed, because the
 * administrator has made that symlink.  The directory must be readable and
 * searchable; store_check_writable() checks more.  Opening a bucket asks no
 * server, and fails for a wrong name only: store_reach() checks more.
 */
extern FileStore *store_open(const char *name);

/*
 * Closes all descriptors, gives the lock of the claim back (in a directory of
 * this machine), and frees the store.  NULL is allowed.  Commit-safe.
 */
extern void store_close(FileStore *store);

/*
 * Returns whether the commit callback may touch files of this store.  In a
 * bucket the callback may not: no commit waits for a network.  Commit-safe.
 */
extern bool store_acts_at_commit(const FileStore *store);

/*
 * Asks whether the upload directory can be reached, if store_open() did not
 * ask.  Returns 0 or an errno.
 */
extern int	store_reach(FileStore *store);

/*
 * Returns whether a captured file can be put back: a bucket must keep versions
 * for the undo.  Must be called after store_reach().
 */
extern bool store_can_undo(FileStore *store);

/*
 * For a store that cannot undo: sets *proven to whether the server deletes a
 * file only if the file still is the expected file.  The call tries a deletion
 * with a file of ours.  Returns 0, or an errno if the try was not possible.
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
 * of a directory that exists, that belongs to us, and that nobody else may
 * write to.  `owner` is a name, always the same for one upload directory and
 * never the name of another, so that several upload directories may share
 * `path`.  Must be called before the first file.
 *
 * If `path` is on the file system and mount of the upload directory, then a
 * capture is a rename.  Else a capture copies the file: the copy is fsynced,
 * read back and compared before the original is removed.  A file is put back
 * by such a copy, too.  A copy keeps content, permissions, mtime, and as far
 * as possible owner, group and extended attributes.  A hard link becomes a
 * file of its own.
 *
 * A copy is recognized by size and mtime, because it has neither the inode nor
 * the ctime of the original.  Size and mtime suffice.  Nobody else can put a
 * file into that folder.  A file gets its name in the folder only when the
 * file is a complete copy of the very file that was `expected`, ctime
 * included; and no other file ever has that name in that run's folder.
 *
 * FILE_OK; FILE_FAILED, with EINVAL for a wrong `path` or `owner`, or for a
 * bucket, EPERM ("could not trust directory") if the directory is not ours
 * alone, or ENOENT, ENOTDIR, ...; then the store has not changed.
 */
extern FileResult store_set_backup_dir(FileStore *store, const char *path,
									   const char *owner);

/*
 * Returns whether a capture is a rename.  If not, a capture copies the file,
 * or asks the server of a bucket, and the commit callback must not wait for
 * such a capture.  Commit-safe.
 */
extern bool store_is_quick(const FileStore *store);

/*
 * Makes the store call stop() now and then while a file is copied, the trash is
 * tidied, or a walk meets no file: other sessions may wait for what stop() does,
 * see library_should_stop().  If stop() returns true, the copy is given up, and
 * the file stays at its place: FILE_FAILED with EINTR; the rest of the trash is
 * left for the next tidying; the walk fails with EINTR.  A bucket needs no stop(): its functions look for
 * interrupts, and give up with EINTR, too.
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
 * a rule not more than store_together().  If a look takes long, all files are
 * looked at now, and the answers are remembered until the next call of
 * store_expect().  The texts of the paths must stay in their memory until that
 * call.  `n` of 0 forgets the answers.
 */
extern void store_expect(FileStore *store, const char *const *paths, int n);

/*
 * Sets *identity to the identity of the regular file at `path`.  With
 * `durably`, the next store_sync() makes sure that the file stays at its place
 * after a crash, whatever process has put the file there.  FILE_OK,
 * FILE_VANISHED, FILE_NOT_REGULAR or FILE_FAILED.  Commit-safe.
 */
extern FileResult store_identify(FileStore *store, const char *path, bool durably,
								 FileIdentity *identity);

/*
 * Returns whether inode, size, mtime and birth time are equal.  With
 * `with_ctime`, the ctime of a file with a single link must be equal, too.
 */
extern bool store_same_file(const FileIdentity *a, const FileIdentity *b,
							bool with_ctime);

/*
 * Sets whether the renames and unlinks of this store are to survive a crash of
 * the system: true after store_open().  With false, no fsync is done, and no
 * fsync is owed.  False is for the commit callback, which has to be quick:
 * later another process calls store_locate() and store_sync() before it
 * records anything.  Must be called before the first file.  Commit-safe.
 */
extern void store_set_durable(FileStore *store, bool durable);

/*
 * Captures a file: renames the file at `path` into the trash of the run
 * `run_id`, if the file still is `expected`.  A look before the rename
 * compares the ctime, too; a look after the rename verifies the file without
 * its ctime.  Another file is put back; if its name was taken in that instant,
 * the file gets the name "<name>.audio_cleanup-<run>".  If the file cannot be
 * put back ("could not put back file"), the file stays in the trash, where no
 * drain destroys it, because it is not `expected`; store_locate() tries again.
 *
 * FILE_OK, FILE_VANISHED, FILE_NOT_REGULAR, FILE_REPLACED, FILE_NO_SPACE,
 * FILE_FAILED; with EEXIST if the trash has that name already, from a run of
 * the same number on another timeline.  Commit-safe.  For a bucket always
 * FILE_FAILED with ENOTSUP: store_capture_many() captures its files.
 *
 * In a store that is not quick, the copy is durable before the original is
 * touched; so a store that is not durable fails with EXDEV.  If an earlier
 * capture was killed after it finished the copy, the copy is compared again,
 * and used or replaced.
 */
extern FileResult store_capture(FileStore *store, int64 run_id, const char *path,
								const FileIdentity *expected);

/*
 * Finds `n` condemned files of the run `run_id`, mends captures that were left
 * unfinished, and captures the files that are at their place.  Sets place,
 * result and destroyed of each; for PLACE_UPLOAD, see store_capture(), for
 * PLACE_UNKNOWN, the result says why; FILE_FAILED with EINTR if the call was
 * stopped.  `for_good` says that no backup was promised.  Only with `for_good`,
 * files are destroyed at their place if there is no trash.  Without, a file
 * that cannot be renamed into the trash (FILE_NO_SPACE with EXDEV) is captured
 * by a copy, which is durable and compared before the original is unlinked at
 * its place.  Not commit-safe.
 */
extern void store_capture_many(FileStore *store, int64 run_id, StoreFile *files, int n,
							   bool for_good);

/*
 * Returns how many files one call should look at, capture or destroy, if one
 * call for several files is quicker than one call for each file; else 1.
 */
extern int	store_together(const FileStore *store);

/*
 * Returns 0 if this process may remove the file `path` from its folder, or an
 * errno (EACCES, EROFS, ...; EPERM if the folder is sticky).  Changes nothing.
 * For a bucket always 0.
 */
extern int	store_check_folder(FileStore *store, const char *path);

/*
 * Returns the present place of the file that the run `run_id` has condemned at
 * `path`.  Sets *errnum to an errno for PLACE_UNKNOWN, else to 0.
 * Commit-safe.
 *
 * If the trash has another file under the name of the condemned file, and the
 * place of the condemned file is empty, then a capture was killed before it
 * could verify the file.  With `mend` the other file is put back, and the
 * answer is PLACE_OTHER; without, nothing is done, and the answer is
 * PLACE_UNFINISHED.  If the trash has a copy, and the original is at its
 * place, the answer is PLACE_UPLOAD: the file is not captured yet.
 */
extern FilePlace store_locate(FileStore *store, int64 run_id, const char *path,
							  const FileIdentity *expected, bool mend, int *errnum);

/*
 * Sets the present places of the `n` files of the run `run_id`, and for
 * PLACE_UNKNOWN a result that says why.  Mends nothing.  Looks for several files at a time if this is quicker.  Not
 * commit-safe.
 */
extern void store_locate_many(FileStore *store, int64 run_id, StoreFile *files, int n);

/*
 * Puts a captured file back to its own place; never overwrites.  Missing
 * folders on the way are made, see store_put_back_as().  Fails if the file
 * system knows neither RENAME_NOREPLACE nor hard links.  FILE_OK,
 * FILE_VANISHED (not in the trash), FILE_OCCUPIED, FILE_REPLACED (the file in
 * the trash is not `expected`), FILE_FAILED.  Commit-safe.
 */
extern FileResult store_put_back(FileStore *store, int64 run_id, const char *path,
								 const FileIdentity *expected);

/*
 * Does the work of store_put_back(), but puts the file to the path `as`.
 * Folders that are made again get the mode of the folder in which the file was
 * captured, if that mode is known.
 */
extern FileResult store_put_back_as(FileStore *store, int64 run_id, const char *path,
									const char *as, const FileIdentity *expected);

/*
 * Puts `n` captured files of the run `run_id` back, several at a time if this
 * is quicker.  Each file has its own result.  Not commit-safe.
 */
extern void store_put_back_many(FileStore *store, int64 run_id, StoreFile *files, int n);

/*
 * Fills `runs` with the ids of at most `max` runs that have a folder in the
 * trash.  Returns the number of such runs; -1 with errno if the runs cannot be
 * listed.
 */
extern int	store_trash_runs(FileStore *store, int64 *runs, int max);

/*
 * Gives the trash of the run `run_id` another number, `as`, which has no trash
 * yet.  Returns 0 or an errno.
 */
extern int	store_renumber_trash(FileStore *store, int64 run_id, int64 as);

/*
 * Removes what the store remembers of the run `run_id` besides the files in
 * the trash.  Must be called when, by the rows, no file of the run lies or
 * will lie in the trash.  With `look`, first looks whether the trash is empty:
 * files of a recovered database may have lost their rows.  A part that cannot
 * be removed now stays until the next call.  Not commit-safe.
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
 * Returns whether size and mtime are equal.  A file system or an archive that
 * knows whole seconds only may have cut the mtime of `found`.
 */
extern bool store_same_copy(const FileIdentity *found, const FileIdentity *expected);

/* Returns the bytes that destroying this file gives back: 0 while the file has another link. */
extern int64 store_space_of(const FileIdentity *identity);

/*
 * Removes the folder `path`, relative to the upload directory, if the folder
 * is empty, and then the folders above that have become empty.  Mount points
 * and subvolumes stay, and so does anything that is no folder.  Returns the
 * number of folders that were removed; 0 for a bucket, which has no folders.
 * Commit-safe.
 */
extern int	store_remove_folders(FileStore *store, const char *path);

/*
 * Unlinks a captured file for good.  Sets *freed to the bytes given back to
 * the file system: see store_space_of().
 * FILE_OK, FILE_VANISHED, FILE_REPLACED, FILE_FAILED.  Commit-safe.  For a
 * bucket always FILE_FAILED with ENOTSUP: store_destroy_begin() destroys its
 * files.
 */
extern FileResult store_destroy(FileStore *store, int64 run_id, const char *path,
								const FileIdentity *expected, int64 *freed);

/* limit for the files of a directory that are destroyed at a time */
#define STORE_TOGETHER	512

/* Files whose destruction has begun. */
typedef struct StoreUnlinks StoreUnlinks;

/*
 * Destroys `n` captured files of the run `run_id`, several at a time if
 * possible (io_uring, or the requests of a bucket); files of one folder should
 * stand side by side.  Each file is looked at before its unlink, as by
 * store_destroy(), and has its own result.
 *
 * store_destroy_begin() may return before the unlinks are over, so that other
 * work can be done meanwhile, or the next files be begun.  `files`, with all
 * that it points to, must stay as it is until store_destroy_end() returns;
 * then all unlinks are over, and the results are set.  store_sync(),
 * store_unlock() and store_close() wait for unlinks that have begun, and an
 * interrupt has to wait so long.  Not commit-safe.
 */
extern StoreUnlinks *store_destroy_begin(FileStore *store, int64 run_id, StoreFile *files, int n);
extern void store_destroy_end(FileStore *store, StoreUnlinks *unlinks);

/*
 * Unlinks the file at its own place, if the file still is `expected` (ctime
 * included).  The function is for a disk so full that the capture found no
 * space.  Sets *freed as store_destroy() does.  FILE_OK, FILE_VANISHED,
 * FILE_NOT_REGULAR, FILE_REPLACED, FILE_FAILED; for a bucket always
 * FILE_FAILED with ENOTSUP.
 */
extern FileResult store_destroy_in_place(FileStore *store, const char *path,
										 const FileIdentity *expected, int64 *freed);

/*
 * Sets *now_ns to the time of the file system, in nanoseconds since 1970, by a
 * file that has no name, or has one for a moment if the file system has no
 * nameless files; for a bucket to the server's time, in whole seconds, of its
 * last answer.  FILE_OK; FILE_NO_SPACE; FILE_FAILED, also if no server has
 * answered yet.
 */
extern FileResult store_clock(FileStore *store, int64 *now_ns);

/* largest difference between that time and the server's with which ages can be told */
#define STORE_MAX_SKEW_SECONDS	300

/*
 * Makes the renames and unlinks done so far durable: fsyncs every folder
 * touched since the last call.  Must be called before these changes are
 * recorded as done.  store_locate() also marks folders as touched: each folder
 * in which it looked for the file, and the folders on the way, because the
 * process that renamed the file may have died before its fsync.  Returns 0 or
 * the errno of the first failure since the last call; after a failure, no
 * change since the last call may be recorded.
 */
extern int	store_sync(FileStore *store);

/*
 * Removes the trash of the run `run_id` as far as it is empty, and the trash
 * and the private folder above if these are empty.  In a backup directory the
 * folder of the owner stays.  Anything that is not empty stays.  Reads every
 * folder of that trash, so one call a run is enough.
 */
extern void store_tidy(FileStore *store, int64 run_id);

/* A finding of an examination of a store. */
typedef struct StoreFinding
{
	const char *check;			/* the thing that was looked at, a word */
	bool		is_fine;
	const char *detail;
	const char *hint;			/* NULL: nothing is to be done */
} StoreFinding;

/*
 * Calls sink(finding, arg) for each step on the way to the upload directory,
 * up to the first step that is not fine.  Returns whether all steps are fine.
 * Changes nothing.  A directory of this machine has no findings.  A call that
 * was stopped returns false without a finding, and the caller serves the
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
 * An upload that was begun and is not completed.  Nobody can read such an
 * upload, no walk sees it, and its parts take space.
 */
typedef struct StoreUpload
{
	const char *path;			/* path that the file will have */
	const char *id;
	int64		begun_ns;		/* since 1970, by the clock of the store */
} StoreUpload;

/*
 * Calls sink(upload, arg) for each such upload below the upload directory.
 * The sink must not call the store, except by walk_why_not(), and may raise an
 * ERROR.  Returns 0; ENOTSUP for a directory of this machine, which has no
 * uploads; or another errno, if some uploads were not passed on.  Not
 * commit-safe.
 */
typedef void (*StoreUploadSink) (const StoreUpload *upload, void *arg);
extern int	store_list_uploads(FileStore *store, StoreUploadSink sink, void *arg);

/*
 * Ends the upload `id` of `path`, unless a part of it has come after
 * `quiet_since_ns` (nanoseconds since 1970).  Sets *freed to the bytes of its
 * parts.  FILE_OK; FILE_VANISHED: the upload was completed, or ended by
 * another client; FILE_REPLACED: a part has come after that time; FILE_FAILED,
 * with EBUSY if another process works in the upload directory.  Not
 * commit-safe.
 */
extern FileResult store_end_upload(FileStore *store, const char *path, const char *id,
								   int64 quiet_since_ns, int64 *freed);

#endif							/* AUDIO_CLEANUP_STORE_H */
