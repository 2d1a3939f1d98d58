/*-------------------------------------------------------------------------
 *
 * text/json_build.c
 *	  Builds and reads small JSONB objects.
 *
 * An object is built as JSON, which the server's jsonb_in() reads at the end.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "src/pg/compat.h"
#include "src/text/json_build.h"

/* Begins a member; or, if `key` is NULL, an element.  Puts a comma before all but the first one. */
static void
begin_member(JsonBuilder *json, const char *key)
{
	char		last = json->text.data[json->text.len - 1];

	if (last != '{' && last != '[')
		appendStringInfoChar(&json->text, ',');
	if (key == NULL)
		return;
	escape_json(&json->text, key);
	appendStringInfoChar(&json->text, ':');
}

void
json_begin(JsonBuilder *json)
{
	initStringInfo(&json->text);
	appendStringInfoChar(&json->text, '{');
}

Jsonb *
json_end(JsonBuilder *json)
{
	appendStringInfoChar(&json->text, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json->text.data)));
}

void
json_add_text(JsonBuilder *json, const char *key, const char *text)
{
	begin_member(json, key);
	if (text != NULL)
		escape_json(&json->text, text);
	else
		appendStringInfoString(&json->text, "null");
}

void
json_add_boolean(JsonBuilder *json, const char *key, bool truth)
{
	begin_member(json, key);
	appendStringInfoString(&json->text, truth ? "true" : "false");
}

void
json_add_integer(JsonBuilder *json, const char *key, int64 number)
{
	begin_member(json, key);
	appendStringInfo(&json->text, "%lld", (long long) number);
}

void
json_add_decimal(JsonBuilder *json, const char *key, double number, int digits)
{
	begin_member(json, key);
	appendStringInfo(&json->text, "%.*f", digits, number);
}

void
json_add_jsonb(JsonBuilder *json, const char *key, Jsonb *object)
{
	begin_member(json, key);
	(void) JsonbToCString(&json->text, &object->root, VARSIZE(object));
}

void
json_begin_array(JsonBuilder *json, const char *key)
{
	begin_member(json, key);
	appendStringInfoChar(&json->text, '[');
}

void
json_end_array(JsonBuilder *json)
{
	appendStringInfoChar(&json->text, ']');
}

void
json_add_list(JsonBuilder *json, const char *key, const List *list)
{
	json_begin_array(json, key);
	foreach_ptr(const char, text, list)
		json_add_text(json, NULL, text);
	json_end_array(json);
}

/* Returns the value of `key`, which may use `buffer`; NULL if the object has no value of this type there. */
static JsonbValue *
find_member(Jsonb *object, const char *key, enum jbvType type, JsonbValue *buffer)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, key, strlen(key), buffer);

	return value != NULL && value->type == type ? value : NULL;
}

char *
json_get_text(Jsonb *object, const char *key)
{
	JsonbValue	buffer;
	JsonbValue *value = find_member(object, key, jbvString, &buffer);

	return value ? pnstrdup(value->val.string.val, value->val.string.len) : NULL;
}

int
json_get_integer(Jsonb *object, const char *key, int fallback)
{
	JsonbValue	buffer;
	JsonbValue *value = find_member(object, key, jbvNumeric, &buffer);

	return value ? DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(value->val.numeric))) : fallback;
}

bool
json_get_boolean(Jsonb *object, const char *key, bool fallback)
{
	JsonbValue	buffer;
	JsonbValue *value = find_member(object, key, jbvBool, &buffer);

	return value ? value->val.boolean : fallback;
}
