/*-------------------------------------------------------------------------
 *
 * plan/match.h
 *	  Finds out which files the registered sources refer to.
 *
 * A match gets the paths of files, is run once against the sources, and then
 * answers questions.  A file has a number, from 0, in the order in which the
 * files were added.  A failure to write a temporary file is an ERROR.  No
 * function needs SPI, unless its comment says so.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MATCH_H
#define AUDIO_CLEANUP_MATCH_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "src/pg/extension.h"
#include "src/settings.h"
#include "src/sources/sources.h"

typedef struct Match Match;

typedef enum MatchMode
{
	MATCH_PROTECT,				/* every row protects its files */
	MATCH_JUDGE,				/* failed sessions condemn their files instead */
	MATCH_JUDGE_LOCKED			/* only failed sessions whose row could be
								 * locked condemn */
} MatchMode;

/*
 * Begins a match with `settings`, without files, in the current memory
 * context.  `claim` is the claim of the directory, a UUID or NULL: only files
 * of runs under this claim are set aside.  Neither argument is copied.  A
 * working set that exceeds work_mem goes to disk.
 */
extern Match *match_begin(const Settings *settings, const char *claim);

/* Frees the match and its temporary files. */
extern void match_end(Match *match);

/* Returns a match of the same files that has not been run, and ends `match`. */
extern Match *match_begin_again(Match *match);

/* Adds the file at `path`, which must be valid in the database's encoding. */
extern void match_add(Match *match, const char *path);

/*
 * Sets whether a reference means all files of its name, whatever folders stand
 * before the name: see walk_has_links().  Must be called before match_run().
 */
extern void match_any_folder(Match *match, bool any_folder);

/* Returns how many files were added. */
extern int64 match_count(const Match *match);

/* Returns the sources_transactions_ended() of before match_run() has read the sources, or 0. */
extern uint64 match_transactions_ended(const Match *match);

/*
 * Tells that no row referred to any of the files when so many transactions had
 * ended.  Where nothing can have changed since, match_run() does not read the sources.
 */
extern void match_none_referred(Match *match, uint64 transactions_ended);

/*
 * Reads the checked sources, and decides about each file.  Must be called only
 * once.  A session must have failed before `failed_before` to be judged.  Unless
 * `with_spoken_for`, a file is set aside that is pending in cleanup_files, that
 * is about to be restored, or that was restored less than the grace ago.  Needs
 * SPI; any failure is an ERROR.
 */
extern void match_run(Match *match, const Extension *extension, List *sources,
					  MatchMode mode, TimestampTz failed_before, bool with_spoken_for);

/* Returns how many files a row refers to, also a row of a failed session. */
extern int64 match_count_referenced(const Match *match);

/* The figures of one source. */
typedef struct MatchCounts
{
	int64		rows;
	int64		files;			/* files that the source refers to */
	int64		protected_files;	/* files that the source protects, by rows
									 * of no judged failed session */
} MatchCounts;

/* Sets *counts to the figures of the source with this number. */
extern void match_count_source(const Match *match, int number, MatchCounts *counts);

/* Returns a static text for people that says why our own tables keep the file, or NULL. */
extern const char *match_why_kept(const Match *match, int64 file);

/*
 * Returns how many files share a name with so many files and rows of judged
 * failed sessions that they are not compared, and kept.
 */
extern int64 match_count_vague(const Match *match);

/* Returns whether the file is condemned already; false after a match with `with_spoken_for`. */
extern bool match_is_pending(const Match *match, int64 file);

/* Of a file that no row refers to, `source` and `session` are NULL. */
typedef void (*MatchSink) (int64 file, const char *path, const Source *source,
						   const char *session, bool strict, void *arg);

/*
 * Calls the sink for each file that no row refers to and that is not set aside,
 * in the order in which the files were added.
 */
extern void match_unreferenced(Match *match, MatchSink sink, void *arg);

/*
 * Returns a static text for people that says why the file is needed: a row of
 * no judged failed session refers to the file, or the file is held.  Returns
 * NULL if the file is not needed.
 */
extern const char *match_why_needed(const Match *match, int64 file);

/* Marks the file.  Returns whether it was not marked before. */
extern bool match_mark(Match *match, int64 file);

/*
 * Calls the sink for each file that judged failed sessions refer to, that no
 * other row refers to, and that is not set aside; sorted by source, session and
 * path.  A file comes once for each such session, with `strict` if the session
 * names the file to the letter.  Needs SPI; any failure is an ERROR.
 */
extern void match_failed(Match *match, const Extension *extension,
						 MatchSink sink, void *arg);

#endif							/* AUDIO_CLEANUP_MATCH_H */
