/*-------------------------------------------------------------------------
 *
 * text/json_build.h
 *	  Builds and reads small JSONB objects, with one call for each member.
 *
 * The functions know nothing about the meaning of an object.  Results are
 * allocated in the current memory context.  None of these functions needs SPI.
 * A text that is too long for JSONB is an ERROR.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_JSON_BUILD_H
#define AUDIO_CLEANUP_JSON_BUILD_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct JsonBuilder
{
	StringInfoData text;		/* the JSON so far */
} JsonBuilder;

/*
 * json_begin() begins the outermost object.  json_end() ends that object, and
 * returns it.
 */
extern void json_begin(JsonBuilder *json);
extern Jsonb *json_end(JsonBuilder *json);

/*
 * These functions add the member `key` to the object; or, if `key` is NULL, an
 * element to the array that was begun last.  A NULL text becomes a JSON null.
 */
extern void json_add_text(JsonBuilder *json, const char *key, const char *value);
extern void json_add_boolean(JsonBuilder *json, const char *key, bool value);
extern void json_add_integer(JsonBuilder *json, const char *key, int64 value);
extern void json_add_decimal(JsonBuilder *json, const char *key, double value, int digits);
extern void json_add_jsonb(JsonBuilder *json, const char *key, Jsonb *value);

/* json_begin_array() begins an array as the member `key`, and json_end_array() ends the array. */
extern void json_begin_array(JsonBuilder *json, const char *key);
extern void json_end_array(JsonBuilder *json);

/* Adds an array of the texts in `list`, a List of char *, as the member `key`. */
extern void json_add_list(JsonBuilder *json, const char *key, const List *list);

/*
 * Returns the integer member `key` of `object`, or `fallback` if there is no
 * such member or no such number.
 */
extern int	json_get_integer(Jsonb *object, const char *key, int fallback);

/*
 * Returns the boolean member `key` of `object`, or `fallback` if there is no
 * such member or no boolean.
 */
extern bool json_get_boolean(Jsonb *object, const char *key, bool fallback);

/*
 * Returns the text of the member `key` of `object`, palloc'd, or NULL if
 * there is no such member or no text.
 */
extern char *json_get_text(Jsonb *object, const char *key);

#endif							/* AUDIO_CLEANUP_JSON_BUILD_H */
