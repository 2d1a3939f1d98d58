/*-------------------------------------------------------------------------
 *
 * show/missing.h
 *	  Which rows refer to files that are not there?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MISSING_H
#define AUDIO_CLEANUP_MISSING_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

/*
 * Put a row (source, status, file_references, missing, examples) into `result`
 * for each source and status.  ERROR if the directory or a source cannot be
 * read whole.  Changes nothing; works on a standby.
 */
extern void missing_files(Tuplestorestate *result, TupleDesc desc);

#endif							/* AUDIO_CLEANUP_MISSING_H */
