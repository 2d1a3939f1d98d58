/*-------------------------------------------------------------------------
 *
 * store/bucket/xml.c
 *	  Reads the answers of an S3-compatible server, piece by piece.
 *
 * A page of a list is read element by element, and no tree is built.  All
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

#include "src/pg/curl.h"
#include "src/store/bucket/xml.h"

#define MAX_DOCUMENT	(32 * 1024 * 1024)
#define MAX_TEXT		8192
#define MAX_DEPTH		8

/* from libxml2 2.12 on, the handler of errors may not change an error */
#if LIBXML_VERSION < 21200
#define XML_ERROR xmlError
#else
#define XML_ERROR const xmlError
#endif

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

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * Decodes %XX in place, and "+", which some servers (AWS, MinIO) write for a
 * blank; a plus itself is %2B.  %00 stays as it is, because no name has a NUL.
 */
static void
decode(char *text)
{
	char	   *to = text;

	for (; *text != '\0'; text++)
	{
		int			high = *text == '%' ? hex(text[1]) : -1;
		int			low = high >= 0 ? hex(text[2]) : -1;

		if (low >= 0 && (high > 0 || low > 0))
		{
			*to++ = (char) (high << 4 | low);
			text += 2;
		}
		else if (*text == '+')
			*to++ = ' ';
		else
			*to++ = *text;
	}
	*to = '\0';
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

/*
 * xml_end() reports errors; libxml2 must not write errors to the standard
 * error of the server.
 */
static void
keep_quiet(void *arg, XML_ERROR * error)
{
}

/* Returns a parser that calls these functions, or NULL for want of memory. */
static xmlParserCtxtPtr
make_parser(xmlSAXHandler * handler, void *arg)
{
	xmlParserCtxtPtr parser = xmlCreatePushParserCtxt(handler, arg, NULL, 0, NULL);

	if (parser != NULL)
		(void) xmlCtxtUseOptions(parser, XML_PARSE_NONET);
	return parser;
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
			.internalSubset = refuse_document_type,
			.serror = keep_quiet
	};
	AnswerReader *reader = calloc(1, sizeof(AnswerReader));

	if (reader == NULL)
		return NULL;
	reader->answer = answer;
	reader->parser = make_parser(&handler, reader);
	if (reader->parser == NULL)
	{
		free(reader);
		return NULL;
	}
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
 * Decodes the names, at the end, when it is known whether they are encoded.
 * If an entry has no name, or not the date that it must have, sets the error
 * of the answer, and returns false: a file of an unknown age must not be taken
 * for an old one.
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

/* Looks for values right below an element. */
typedef struct ValueReader
{
	xmlParserCtxtPtr parser;
	const char *parent;
	PlainValue *values;
	int			n;
	int			depth;			/* 1 in the root */
	int			parent_depth;	/* 0: outside of the element */
	bool		was_there;		/* the first element `parent` was met */
	bool		failed;
	PlainValue *value;			/* the value being read, or NULL */
	size_t		length;			/* bytes of the value so far */
} ValueReader;

static void
refuse_values(void *arg, const xmlChar * name, const xmlChar * external, const xmlChar * system)
{
	ValueReader *reader = arg;

	reader->failed = true;
	xmlStopParser(reader->parser);
}

static void
begin_value(void *arg, const xmlChar * name, const xmlChar * prefix, const xmlChar * uri,
			int n_namespaces, const xmlChar * *namespaces, int n_attributes, int n_defaulted,
			const xmlChar * *attributes)
{
	ValueReader *reader = arg;

	reader->value = NULL;
	if (++reader->depth > MAX_DEPTH)
		refuse_values(reader, NULL, NULL, NULL);
	else if (!reader->was_there && is(name, reader->parent))
	{
		reader->was_there = true;
		reader->parent_depth = reader->depth;
	}
	else if (reader->parent_depth > 0 && reader->depth == reader->parent_depth + 1)
		for (int i = 0; i < reader->n; i++)
			if (!reader->values[i].found && is(name, reader->values[i].name))
			{
				reader->value = &reader->values[i];
				reader->value->found = true;
				reader->length = 0;
			}
}

static void
take_value_text(void *arg, const xmlChar * text, int length)
{
	ValueReader *reader = arg;
	PlainValue *value = reader->value;

	if (value == NULL)
		return;
	/* a part of a value is not taken, because it would be a wrong value */
	if (reader->length + length >= value->size)
	{
		refuse_values(reader, NULL, NULL, NULL);
		return;
	}
	memcpy(value->value + reader->length, text, length);
	reader->length += length;
	value->value[reader->length] = '\0';
}

static void
end_value(void *arg, const xmlChar * name, const xmlChar * prefix, const xmlChar * uri)
{
	ValueReader *reader = arg;

	reader->value = NULL;
	if (reader->depth-- == reader->parent_depth)
		reader->parent_depth = 0;
}

bool
xml_find_values(const char *xml, const char *parent, PlainValue *values, int n)
{
	static xmlSAXHandler handler =
	{
		.initialized = XML_SAX2_MAGIC,
			.startElementNs = begin_value,
			.endElementNs = end_value,
			.characters = take_value_text,
			.cdataBlock = take_value_text,
			.internalSubset = refuse_values,
			.serror = keep_quiet
	};
	ValueReader reader = {.parent = parent,.values = values,.n = n};
	bool		whole;

	for (int i = 0; i < n; i++)
	{
		values[i].found = false;
		values[i].value[0] = '\0';
	}
	reader.parser = make_parser(&handler, &reader);
	if (reader.parser == NULL)
		return false;
	whole = xmlParseChunk(reader.parser, xml, (int) strlen(xml), 1) == 0 && !reader.failed;
	xmlFreeParserCtxt(reader.parser);
	return whole && reader.was_there;
}
