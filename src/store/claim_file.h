/*-------------------------------------------------------------------------
 *
 * store/claim_file.h
 *	  The claim in the private directory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CLAIM_FILE_H
#define AUDIO_CLEANUP_CLAIM_FILE_H

#include "src/store/store.h"

/* longest text of a claim */
#define STORE_CLAIM_MAX	1024

/*
 * The claim: a small file in the private directory that names the owner of
 * the upload directory.  Reading yields its text, NUL-terminated: FILE_OK,
 * FILE_VANISHED (there is none), FILE_FAILED.
 */
extern FileResult store_read_claim(FileStore *store, char text[STORE_CLAIM_MAX]);

/*
 * Writes the claim, durably.  Without `replace` an existing one is left alone:
 * FILE_OCCUPIED.  Commit-safe.  FILE_OK, FILE_NO_SPACE, FILE_FAILED; then the
 * old one, if any, is still there.
 */
extern FileResult store_write_claim(FileStore *store, const char *text, bool replace);


#endif							/* AUDIO_CLEANUP_CLAIM_FILE_H */
