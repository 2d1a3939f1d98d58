/*-------------------------------------------------------------------------
 *
 * store/bucket/xml.h
 *	  Reads the answers of an S3-compatible server, piece by piece.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_XML_H
#define AUDIO_CLEANUP_BUCKET_XML_H

#include "src/store/bucket/http.h"

typedef struct AnswerReader AnswerReader;

/* Begins to read a document into `answer`.  Returns NULL for want of memory. */
extern AnswerReader *xml_begin(BucketAnswer *answer);

/*
 * Reads the next `length` bytes.  Returns false if the document cannot be
 * read.
 */
extern bool xml_read(AnswerReader *reader, const char *data, size_t length);

/* Ends the document, and frees the reader.  Returns whether the document was read whole. */
extern bool xml_end(AnswerReader *reader);

/* Looks for values in a document: see BucketLibrary.find_values. */
extern bool xml_find_values(const char *xml, const char *parent, BucketValue *values, int n);

/* Frees the entries of an answer. */
extern void xml_free_entries(BucketAnswer *answer);

#endif							/* AUDIO_CLEANUP_BUCKET_XML_H */
