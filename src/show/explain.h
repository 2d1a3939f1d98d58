/*-------------------------------------------------------------------------
 *
 * show/explain.h
 *	  Why is this one file kept, or condemned?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_EXPLAIN_H
#define AUDIO_CLEANUP_EXPLAIN_H

#include "utils/jsonb.h"

/*
 * `file` is a path relative to the upload directory, or an absolute one
 * below it.  Returns an object; see cleanup_explain() in the README.
 */
extern Jsonb *explain_file(const char *file);

#endif							/* AUDIO_CLEANUP_EXPLAIN_H */
