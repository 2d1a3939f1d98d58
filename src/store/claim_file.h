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
 * The claim is a small file, or an object of a bucket, in the private folder
 * that names the owner of the upload directory.  Sets `text` to the text of
 * the claim, NUL-terminated, and "" if there is no claim.  FILE_OK,
 * FILE_VANISHED (there is no claim), FILE_FAILED.  Commit-safe.
 */
extern FileResult store_read_claim(FileStore *store, char text[STORE_CLAIM_MAX]);

/*
 * Writes the claim `text`, durably.  Without `replace`, an existing claim is
 * left alone: FILE_OCCUPIED.  FILE_OK; FILE_OCCUPIED, FILE_NO_SPACE or
 * FILE_FAILED, and then the old claim, if any, is still there.  Commit-safe.
 */
extern FileResult store_write_claim(FileStore *store, const char *text, bool replace);

#endif							/* AUDIO_CLEANUP_CLAIM_FILE_H */
