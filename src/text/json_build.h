/*-------------------------------------------------------------------------
 *
 * text/json_build.h
 *	  Building and reading small JSONB objects, a line a member.
 *
 * A thin layer on PostgreSQL's own pushJsonbValue(); knows no contract.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_JSON_BUILD_H
#define AUDIO_CLEANUP_JSON_BUILD_H

#include "nodes/pg_list.h"

#include "src/pg/compat.h"

typedef struct JsonBuilder
{
	JsonbInState state;
} JsonBuilder;

/* Begin and end the outermost object. */
extern void json_begin(JsonBuilder *json);
extern Jsonb *json_end(JsonBuilder *json);

/* Members of the object begun last; a NULL text becomes a JSON null. */
extern void json_add_text(JsonBuilder *json, const char *key, const char *value);
extern void json_add_boolean(JsonBuilder *json, const char *key, bool value);
extern void json_add_integer(JsonBuilder *json, const char *key, int64 value);
extern void json_add_decimal(JsonBuilder *json, const char *key, double value, int digits);
extern void json_add_jsonb(JsonBuilder *json, const char *key, Jsonb *value);

/* An array member of texts: begin, elements, end. */
extern void json_begin_array(JsonBuilder *json, const char *key);
extern void json_add_element(JsonBuilder *json, const char *value);
extern void json_add_object_element(JsonBuilder *json, Jsonb *value);
extern void json_end_array(JsonBuilder *json);

/* An array member of the texts (char *) of a list. */
extern void json_add_list(JsonBuilder *json, const char *key, const List *list);

/* Returns the integer member of an object, or `fallback`. */
extern int	json_get_integer(Jsonb *object, const char *key, int fallback);

/* Returns the boolean member of an object, or `fallback`. */
extern bool json_get_boolean(Jsonb *object, const char *key, bool fallback);

/* Returns the text of a member of an object, palloc'd; NULL if missing or no text. */
extern char *json_get_text(Jsonb *object, const char *key);

#endif							/* AUDIO_CLEANUP_JSON_BUILD_H */
