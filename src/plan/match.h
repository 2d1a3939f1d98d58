/*-------------------------------------------------------------------------
 *
 * plan/match.h
 *	  Which of these files do the registered sources refer to?
 *
 * A match is fed with paths, run once against the sources, and then asked.
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
#include "src/sources/sources.h"

typedef struct KeyRules KeyRules;

typedef struct Match Match;

typedef enum MatchMode
{
	MATCH_PROTECT,				/* every row protects */
	MATCH_JUDGE,				/* failed sessions condemn instead */
	MATCH_JUDGE_LOCKED			/* only those whose row could be locked do */
} MatchMode;

/*
 * Begins a match without files, in the current memory context; its tuplestores
 * spill to disk beyond work_mem.
 */
extern Match *match_begin(const KeyRules *rules);

/* Sets the grace of restored files: hours for orphans, days for files of failed sessions. */
extern void match_set_grace(Match *match, int orphan_hours, int session_days);

/* Sets the claim of the directory, a UUID or NULL: only runs of that claim set files aside. */
extern void match_set_claim(Match *match, const char *claim);

/* Frees the match and all that it has written to disk. */
extern void match_end(Match *match);

/* Returns a match of the same files that has not been run, and ends `match`. */
extern Match *match_begin_again(Match *match);

/* Adds the file at `path`, which must be valid in the database's encoding. */
extern void match_add(Match *match, const char *path);

/* Returns the number of the files that were added. */
extern int64 match_count(const Match *match);

/*
 * Reads the (checked) sources and decides, once only.  A file that is spoken
 * for is set aside unless `with_spoken_for`: it is pending in cleanup_files,
 * or about to be restored, or was restored less than a retention ago.  Once
 * only.  Needs SPI.
 */
extern void match_run(Match *match, const Extension *extension, List *sources,
					  MatchMode mode, TimestampTz failed_before, bool with_spoken_for);

/* Files that some row refers to, be it of a failed session. */
extern int64 match_count_referenced(const Match *match);

/* Rows read of all sources. */
extern int64 match_count_rows(const Match *match);

/* The figures of one source. */
typedef struct MatchCounts
{
	int64		rows;
	int64		files;			/* the source refers to them */
	int64		protected_files;	/* by rows that are no (judged) failed
									 * session */
} MatchCounts;

/* Sets *counts to what was read of the source with this number. */
extern void match_count_source(const Match *match, int number, MatchCounts *counts);

/* Returns why our own tables keep a file, a static text for people; NULL if nothing keeps it. */
extern const char *match_why_kept(const Match *match, int64 file);

/* Returns whether the file is condemned already; not known after `with_spoken_for`. */
extern bool match_is_pending(const Match *match, int64 file);

typedef void (*MatchSink) (int64 file, const char *path, void *arg);

/* Files that no row at all refers to, in the order in which they were added. */
extern void match_unreferenced(Match *match, MatchSink sink, void *arg);

/*
 * Returns why the file is needed, a static text for people: a row that is no
 * (judged) failed session refers to the file, or the file is held.  Returns
 * NULL if it is not needed.
 */
extern const char *match_why_needed(const Match *match, int64 file);

/* Marks a file; returns whether this was the first time. */
extern bool match_mark(Match *match, int64 file);

typedef void (*MatchFailedSink) (int64 file, const char *path, const Source *source,
								 const char *session, bool strict, void *arg);

/*
 * Files that judged failed sessions refer to and nobody else does, by source,
 * session and path; a file comes once for each such session, with `strict` if
 * that names the file to the letter.  Needs SPI.
 */
extern void match_failed(Match *match, const Extension *extension,
						 MatchFailedSink sink, void *arg);

#endif							/* AUDIO_CLEANUP_MATCH_H */
