/*-------------------------------------------------------------------------
 *
 * store/bucket/xml.c
 *	  Reads the answers of an S3-compatible server, piece by piece.
 *
 * A page of a list is read element by element, and no tree is built; only the
 * small document of a service that gives keys becomes a tree.  All other
 * documents of the protocol have one form: a root, below it either values or
 * entries, and below an entry its values.  The server may be anybody's:
 *
 * - a document type is refused, and so every entity except the five of XML
 *	 itself; nothing is ever loaded from anywhere;
 * - a document, a text and the depth of elements have a limit;
 * - names come in the URL encoding that we ask for ("encoding-type=url"),
 *	 because XML has no way to write a control character.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <libxml/parser.h>
#include <libxml/uri.h>

#include "src/pg/curl.h"
#include "src/store/bucket/xml.h"

#define MAX_DOCUMENT	(32 * 1024 * 1024)
#define MAX_TEXT		8192
#define MAX_DEPTH		8

/* libxml2 loads nothing, and writes no errors to the standard error of the server */
#define OPTIONS			(XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)

/* limit for the entries, more than any server lists on a page */
#define MAX_ENTRIES		10000

struct AnswerReader
{
	BucketAnswer *answer;
	xmlParserCtxtPtr parser;
	size_t		read;
	int			depth;			/* 1 in the root */
	bool		is_error;		/* the root is <Error> */
	bool		is_encoded;		/* the server says that names are encoded */
	bool		failed;
	BucketEntry *entry;			/* entry being read, or NULL */
	int			room;			/* number of entries for which there is memory */
	size_t		length;			/* of `text` */
	char		text[MAX_TEXT];
};

static bool
is(const xmlChar * name, const char *word)
{
	return strcmp((const char *) name, word) == 0;
}

/* Gives up.  Stopping the parser makes libxml2 report an error, too. */
static void
refuse(AnswerReader *reader)
{
	reader->failed = true;
	xmlStopParser(reader->parser);
}

/*
 * Decodes %XX in place, and "+", which some servers (AWS, MinIO) write for a
 * blank; a plus itself is %2B.  A text with %00 stays as it is, because no name
 * has a NUL.
 */
static void
decode(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if (*c == '+')
			*c = ' ';
	if (strstr(text, "%00") == NULL)
		(void) xmlURIUnescapeString(text, 0, text);
}

/* Adds an empty entry to the answer.  Returns NULL, and gives up, if there is no room. */
static BucketEntry *
add_entry(AnswerReader *reader)
{
	BucketAnswer *answer = reader->answer;
	BucketEntry *entries;

	if (answer->n_entries == reader->room)
	{
		int			room = Max(reader->room * 2, 64);

		if (answer->n_entries >= MAX_ENTRIES ||
			(entries = realloc(answer->entries, sizeof(BucketEntry) * room)) == NULL)
		{
			refuse(reader);
			return NULL;
		}
		answer->entries = entries;
		reader->room = room;
	}
	entries = &answer->entries[answer->n_entries++];
	memset(entries, 0, sizeof(*entries));
	return entries;
}

/*
 * Returns whether an entry of this name must have a date.  An upload without a
 * date is passed over.
 */
static bool
is_dated(const xmlChar * name)
{
	return is(name, "Contents") || is(name, "Version") || is(name, "DeleteMarker") || is(name, "Part");
}

/*
 * Returns whether an answer of S3 may have this root.  A page of a proxy may be
 * XML, too, and must not be taken for an empty list.
 */
static bool
is_result(const xmlChar * name)
{
	static const char result[] = "Result";
	size_t		length = strlen((const char *) name);

	return is(name, "VersioningConfiguration") ||
		(length > strlen(result) && is(name + length - strlen(result), result));
}

static void
begin_element(void *arg, const xmlChar * name, const xmlChar * prefix, const xmlChar * uri,
			  int n_namespaces, const xmlChar * *namespaces, int n_attributes, int n_defaulted,
			  const xmlChar * *attributes)
{
	AnswerReader *reader = arg;

	reader->length = 0;
	if (++reader->depth > MAX_DEPTH)
		refuse(reader);
	else if (reader->depth == 1)
	{
		reader->is_error = is(name, "Error");
		if (!reader->is_error && !is_result(name))
			refuse(reader);
	}
	else if (reader->depth == 2 &&
			 (is_dated(name) || is(name, "Upload") || is(name, "CommonPrefixes") || is(name, "Deleted") ||
			  (is(name, "Error") && !reader->is_error)))
	{
		reader->entry = add_entry(reader);
		if (reader->entry != NULL)
		{
			reader->entry->is_dated = is_dated(name);
			reader->entry->is_marker = is(name, "DeleteMarker");
			reader->entry->is_prefix = is(name, "CommonPrefixes");
			/* the entry has this code until its real code is read */
			if (is(name, "Error"))
				strlcpy(reader->entry->code, "Error", sizeof(reader->entry->code));
			/* a part has no name of its own */
			if (is(name, "Part") && (reader->entry->key = strdup("")) == NULL)
				refuse(reader);
		}
	}
}

/*
 * Copies the text that was read.  Gives up if the text is too long, because a
 * part of a value would be a wrong value.
 */
static void
take_text(AnswerReader *reader, char *target, size_t size)
{
	if (strlcpy(target, reader->text, size) >= size)
		refuse(reader);
}

/* Takes a value of an entry. */
static void
take_member(AnswerReader *reader, const xmlChar * name)
{
	BucketEntry *entry = reader->entry;

	if ((is(name, "Key") || is(name, "Prefix")) && entry->key == NULL)
	{
		entry->key = strdup(reader->text);
		if (entry->key == NULL)
			refuse(reader);
	}
	else if (is(name, "VersionId") || is(name, "UploadId"))
		take_text(reader, entry->version, sizeof(entry->version));

	/*
	 * if the entry has both elements, VersionId is the version of the request
	 */
	else if (is(name, "DeleteMarkerVersionId") && entry->version[0] == '\0')
		take_text(reader, entry->version, sizeof(entry->version));
	else if (is(name, "Code"))
		libcurl_copy_printable(entry->code, sizeof(entry->code), reader->text, reader->length);
	else if (is(name, "ETag"))
		take_text(reader, entry->etag, sizeof(entry->etag));
	else if (is(name, "Size"))
		entry->size = strtoll(reader->text, NULL, 10);
	else if (is(name, "LastModified") || is(name, "Initiated"))
		entry->modified = http_parse_time(reader->text);
	else if (is(name, "IsLatest"))
		entry->is_latest = strcmp(reader->text, "true") == 0;
}

/*
 * Takes the text that says whether a list goes on.  Gives up if the text says
 * neither: a list that was taken for a whole one would lack files and versions.
 */
static void
take_truncated(AnswerReader *reader)
{
	const char *text = reader->text;

	reader->answer->truncated = pg_strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0;
	if (!reader->answer->truncated && pg_strcasecmp(text, "false") != 0 && strcmp(text, "0") != 0)
		refuse(reader);
}

/* Takes a value of the answer itself. */
static void
take_value(AnswerReader *reader, const xmlChar * name)
{
	BucketAnswer *answer = reader->answer;

	if (reader->is_error && is(name, "Code"))
		libcurl_copy_printable(answer->code, sizeof(answer->code), reader->text, reader->length);
	else if (reader->is_error && is(name, "Message"))
		libcurl_copy_printable(answer->error, sizeof(answer->error), reader->text, reader->length);
	else if (is(name, "IsTruncated"))
		take_truncated(reader);
	else if (is(name, "NextContinuationToken") || is(name, "NextPartNumberMarker"))
		take_text(reader, answer->next_token, sizeof(answer->next_token));
	else if (is(name, "NextKeyMarker"))
		take_text(reader, answer->next_key, sizeof(answer->next_key));
	else if (is(name, "NextVersionIdMarker") || is(name, "NextUploadIdMarker"))
		take_text(reader, answer->next_version, sizeof(answer->next_version));
	/* only the answer to a copy has an ETag outside of an entry */
	else if (is(name, "ETag"))
		take_text(reader, answer->etag, sizeof(answer->etag));
	else if (is(name, "EncodingType"))
		reader->is_encoded = strcmp(reader->text, "url") == 0;
	else if (is(name, "Status"))
		take_text(reader, answer->versioning, sizeof(answer->versioning));
}

static void
end_element(void *arg, const xmlChar * name, const xmlChar * prefix, const xmlChar * uri)
{
	AnswerReader *reader = arg;

	reader->text[reader->length] = '\0';
	if (reader->depth == 3 && reader->entry != NULL)
		take_member(reader, name);
	else if (reader->depth == 2 && reader->entry != NULL)
		reader->entry = NULL;
	else if (reader->depth == 2)
		take_value(reader, name);
	reader->depth--;
	reader->length = 0;
}

static void
take_characters(void *arg, const xmlChar * text, int length)
{
	AnswerReader *reader = arg;

	if (reader->length + length >= MAX_TEXT)
	{
		refuse(reader);
		return;
	}
	memcpy(reader->text + reader->length, text, length);
	reader->length += length;
}

static void
refuse_document_type(void *arg, const xmlChar * name, const xmlChar * external, const xmlChar * system)
{
	refuse(arg);
}

AnswerReader *
xml_begin(BucketAnswer *answer)
{
	static xmlSAXHandler handler =
	{
		.initialized = XML_SAX2_MAGIC,
			.startElementNs = begin_element,
			.endElementNs = end_element,
			.characters = take_characters,
			.cdataBlock = take_characters,
			.internalSubset = refuse_document_type
	};
	AnswerReader *reader = calloc(1, sizeof(AnswerReader));

	if (reader == NULL)
		return NULL;
	reader->answer = answer;
	reader->parser = xmlCreatePushParserCtxt(&handler, reader, NULL, 0, NULL);
	if (reader->parser == NULL)
	{
		free(reader);
		return NULL;
	}
	(void) xmlCtxtUseOptions(reader->parser, OPTIONS);
	return reader;
}

bool
xml_read(AnswerReader *reader, const char *data, size_t length)
{
	reader->read += length;
	if (reader->read > MAX_DOCUMENT)
		reader->failed = true;
	if (!reader->failed && xmlParseChunk(reader->parser, data, (int) length, 0) != 0)
		reader->failed = true;
	return !reader->failed;
}

/*
 * Decodes the names, at the end of the document, which may say there that names
 * are encoded.  If an entry has no name, or lacks the date that every entry must
 * have, sets the error of the answer, and returns false: a file of an unknown
 * age must not be taken for an old file.
 */
static bool
finish_entries(AnswerReader *reader)
{
	BucketAnswer *answer = reader->answer;

	for (int i = 0; i < answer->n_entries; i++)
	{
		const BucketEntry *entry = &answer->entries[i];
		const char *error = entry->key == NULL ? "an entry of the answer has no name" :
		entry->is_dated && entry->modified == 0 ? "an entry of the answer has no date, or one that cannot be read" : NULL;

		if (error != NULL)
		{
			strlcpy(answer->error, error, sizeof(answer->error));
			return false;
		}
	}
	if (!reader->is_encoded)
		return true;
	for (int i = 0; i < answer->n_entries; i++)
		decode(answer->entries[i].key);
	decode(answer->next_key);
	return true;
}

bool
xml_end(AnswerReader *reader)
{
	bool		whole = !reader->failed && reader->read > 0 &&
	xmlParseChunk(reader->parser, NULL, 0, 1) == 0 && !reader->failed && finish_entries(reader);

	xmlFreeParserCtxt(reader->parser);
	free(reader);
	return whole;
}

void
xml_free_entries(BucketAnswer *answer)
{
	for (int i = 0; i < answer->n_entries; i++)
		free(answer->entries[i].key);
	free(answer->entries);
	answer->entries = NULL;
	answer->n_entries = 0;
}


/* ------------------------------------------------------------------- values --- */

/* Returns the first element of this name among `node`, what follows it, and what is in them; or NULL. */
static xmlNodePtr
find_element(xmlNodePtr node, const char *name)
{
	for (; node != NULL; node = node->next)
	{
		xmlNodePtr	found = node->type != XML_ELEMENT_NODE ? NULL :
		is(node->name, name) ? node : find_element(node->children, name);

		if (found != NULL)
			return found;
	}
	return NULL;
}

/*
 * Takes the text of the element, and overwrites the text, which may be a secret.
 * Returns false if the text has no room: a part of it would be a wrong value.
 */
static bool
take_element(xmlNodePtr element, BucketValue *value)
{
	xmlChar    *text = xmlNodeGetContent(element);

	value->found = text != NULL && strlcpy(value->value, (const char *) text, value->size) < value->size;
	if (text != NULL)
		explicit_bzero(text, strlen((const char *) text));
	xmlFree(text);
	for (xmlNodePtr node = element->children; node != NULL; node = node->next)
		if (node->content != NULL)
			explicit_bzero(node->content, strlen((const char *) node->content));
	return value->found;
}

/* Takes the values right below the element. */
static bool
take_values(xmlNodePtr parent, BucketValue *values, int n)
{
	for (xmlNodePtr node = parent->children; node != NULL; node = node->next)
		for (int i = 0; i < n && node->type == XML_ELEMENT_NODE; i++)
			if (!values[i].found && is(node->name, values[i].name) && !take_element(node, &values[i]))
				return false;
	return true;
}

bool
xml_find_values(const char *xml, const char *parent, BucketValue *values, int n)
{
	xmlDocPtr	document = xmlReadMemory(xml, (int) strlen(xml), NULL, NULL, OPTIONS);
	xmlNodePtr	element = document != NULL && xmlGetIntSubset(document) == NULL ?
	find_element(xmlDocGetRootElement(document), parent) : NULL;
	bool		done;

	for (int i = 0; i < n; i++)
	{
		values[i].found = false;
		values[i].value[0] = '\0';
	}
	done = element != NULL && take_values(element, values, n);
	xmlFreeDoc(document);
	return done;
}
