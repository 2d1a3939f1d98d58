/*-------------------------------------------------------------------------
 *
 * text/json_build.c
 *	  Builds and reads small JSONB objects.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "src/text/json_build.h"

static void
push_key(JsonBuilder *json, const char *key)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = pstrdup(key);
	value.val.string.len = strlen(key);
	compat_push_jsonb(&json->state, WJB_KEY, &value);
}

static void
make_text(JsonbValue *value, const char *text)
{
	if (text == NULL)
	{
		value->type = jbvNull;
		return;
	}
	value->type = jbvString;
	value->val.string.val = pstrdup(text);
	value->val.string.len = strlen(text);
}

static void
push_numeric(JsonBuilder *json, Datum number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = DatumGetNumeric(number);
	compat_push_jsonb(&json->state, WJB_VALUE, &value);
}

void
json_begin(JsonBuilder *json)
{
	memset(json, 0, sizeof(*json));
	compat_push_jsonb(&json->state, WJB_BEGIN_OBJECT, NULL);
}

Jsonb *
json_end(JsonBuilder *json)
{
	compat_push_jsonb(&json->state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(json->state.result);
}

void
json_add_text(JsonBuilder *json, const char *key, const char *text)
{
	JsonbValue	value;

	push_key(json, key);
	make_text(&value, text);
	compat_push_jsonb(&json->state, WJB_VALUE, &value);
}

void
json_add_boolean(JsonBuilder *json, const char *key, bool truth)
{
	JsonbValue	value;

	push_key(json, key);
	value.type = jbvBool;
	value.val.boolean = truth;
	compat_push_jsonb(&json->state, WJB_VALUE, &value);
}

void
json_add_integer(JsonBuilder *json, const char *key, int64 number)
{
	push_key(json, key);
	push_numeric(json, NumericGetDatum(int64_to_numeric(number)));
}

void
json_add_decimal(JsonBuilder *json, const char *key, double number, int digits)
{
	char	   *text = psprintf("%.*f", digits, number);

	push_key(json, key);
	push_numeric(json, DirectFunctionCall3(numeric_in, CStringGetDatum(text),
										   ObjectIdGetDatum(InvalidOid),
										   Int32GetDatum(-1)));
}

/* Adds the object or array `object` as an element or value, part by part. */
static void
push_container(JsonBuilder *json, Jsonb *object)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	value;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
		compat_push_jsonb(&json->state, token,
						  token < WJB_BEGIN_ARRAY ? &value : NULL);
}

void
json_add_jsonb(JsonBuilder *json, const char *key, Jsonb *object)
{
	push_key(json, key);
	push_container(json, object);
}

void
json_begin_array(JsonBuilder *json, const char *key)
{
	push_key(json, key);
	compat_push_jsonb(&json->state, WJB_BEGIN_ARRAY, NULL);
}

void
json_add_element(JsonBuilder *json, const char *text)
{
	JsonbValue	value;

	make_text(&value, text);
	compat_push_jsonb(&json->state, WJB_ELEM, &value);
}

void
json_add_object_element(JsonBuilder *json, Jsonb *object)
{
	push_container(json, object);
}

void
json_end_array(JsonBuilder *json)
{
	compat_push_jsonb(&json->state, WJB_END_ARRAY, NULL);
}

void
json_add_list(JsonBuilder *json, const char *key, const List *list)
{
	json_begin_array(json, key);
	foreach_ptr(const char, text, list)
		json_add_element(json, text);
	json_end_array(json);
}

/* Returns the value of `key`, which may use `buffer`; NULL if the object has no value of this type there. */
static JsonbValue *
find_value(Jsonb *object, const char *key, enum jbvType type, JsonbValue *buffer)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, key, strlen(key), buffer);

	return value != NULL && value->type == type ? value : NULL;
}

char *
json_get_text(Jsonb *object, const char *key)
{
	JsonbValue	buffer;
	JsonbValue *value = find_value(object, key, jbvString, &buffer);

	return value ? pnstrdup(value->val.string.val, value->val.string.len) : NULL;
}

int
json_get_integer(Jsonb *object, const char *key, int fallback)
{
	JsonbValue	buffer;
	JsonbValue *value = find_value(object, key, jbvNumeric, &buffer);

	return value ? DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(value->val.numeric))) : fallback;
}

bool
json_get_boolean(Jsonb *object, const char *key, bool fallback)
{
	JsonbValue	buffer;
	JsonbValue *value = find_value(object, key, jbvBool, &buffer);

	return value ? value->val.boolean : fallback;
}
