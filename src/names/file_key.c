/*-------------------------------------------------------------------------
 *
 * names/file_key.c
 *	  The keys of a file, and the comparison of a value with a file.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include "src/names/private.h"

/*
 * Makes a key of the whole path in the family `whole`, and keys of its tails that
 * begin at `last` or before in the family of these tails.
 */
static void
emit_tails(const KeyMaker *maker, const char *text, size_t len, size_t last, KeyFamily whole)
{
	KeyFamily	tail = KEY_TAILS_OF(whole);
	uint64		hash = 0;

	if ((maker->families & (whole | tail)) == 0)
		return;
	for (size_t i = len; i > 0; i--)
	{
		if (text[i - 1] == '/' && i <= last && (maker->families & tail))
			maker->sink(tail, key_of_mixed(tail, mix_hash(hash)), text + i, len - i, maker->arg);
		hash = extend_hash(hash, text[i - 1]);
	}
	if (maker->families & whole)
		maker->sink(whole, key_of_mixed(whole, mix_hash(hash)), text, len, maker->arg);
}

/*
 * Makes keys for a file that is derived from the file "d/abc", or from
 * "d/abc.wav".  A name that keeps the files of "d/abc" keeps "d/abc.wav", and so
 * keeps the derived file, too.
 */
static void
emit_derived(const KeyMaker *maker, const char *text, size_t len)
{
	size_t		stem = path_stem_length(maker->rules, text, len);

	emit_tails(maker, text, len, len, KEY_DERIVED);
	if (stem < len && !maker->exact)
		emit_tails(maker, text, stem, stem, KEY_DERIVED);
}

/*
 * Copies a prefix or suffix, folded as the names are.  Returns the length of
 * the copy, or 0 if the prefix or suffix is too long for a name.
 */
static size_t
copy_affix(const KeyMaker *maker, const char *affix, char *copy)
{
	size_t		n = strlen(affix);

	if (n > FOLD_COMPONENT_MAX)
		return 0;
	/* needs no NUL: NOLINTNEXTLINE(bugprone-not-null-terminated-result) */
	memcpy(copy, affix, n);
	return maker->exact ? n : fold_component(maker->rules->utf8, copy, n, FOLD_COMPONENT_MAX);
}

/*
 * Makes a key for "d/abc_processed", which lives and dies with "d/abc".  A
 * name that is only the suffix is not derived from a file.
 */
static void
emit_without_suffix(const KeyMaker *maker, const char *stem, size_t len, const char *suffix)
{
	char		copy[FOLD_COMPONENT_MAX];
	size_t		n = copy_affix(maker, suffix, copy);

	if (n > 0 && len > n && pg_strncasecmp(stem + len - n, copy, n) == 0 && stem[len - n - 1] != '/')
		emit_derived(maker, stem, len - n);
}

/* Makes a key for "d/thumb_abc", which lives and dies with "d/abc". */
static void
emit_without_prefix(const KeyMaker *maker, const char *stem, size_t len, const char *prefix)
{
	char		copy[FOLD_COMPONENT_MAX];
	Canonical	original;
	size_t		n = copy_affix(maker, prefix, copy);
	size_t		name = path_last_component(stem, len);

	if (n == 0 || len - name <= n || pg_strncasecmp(stem + name, copy, n) != 0)
		return;
	memcpy(original.text, stem, name);
	memcpy(original.text + name, stem + name + n, len - name - n);
	emit_derived(maker, original.text, len - n);
}

/*
 * Makes keys for a file in the folder of "d/index.m3u8", or below that
 * folder: the file lives and dies with the manifest.  The bare name of the
 * manifest gets no key, because it would mean the manifests of all folders.
 */
static void
emit_with_manifest(const KeyMaker *maker, const char *folder, size_t len, const char *manifest)
{
	Canonical	path;
	size_t		n = strlen(manifest);

	if (len + 1 + n > KEY_STRICT_MAX)
		return;
	memcpy(path.text, folder, len);
	path.text[len] = '/';
	memcpy(path.text + len + 1, manifest, n);
	emit_tails(maker, path.text, len + 1 + n, len, KEY_PATH);
}

/* Makes keys for a file that lives in the folder of an id, or in the folder of a manifest. */
static void
emit_of_folder(const KeyMaker *maker, const char *folder, size_t len)
{
	emit_derived(maker, folder, len);
	for (int i = 0; i < maker->rules->n_folders; i++)
	{
		const char *name = maker->rules->folders[i];

		if (name[0] != '\0' && strchr(name + 1, '.') != NULL)
			emit_with_manifest(maker, folder, len, name);
		else
			emit_without_suffix(maker, folder, len, name);
	}
}

void
keys_of_path(const KeyMaker *maker, const char *path)
{
	const KeyRules *rules = maker->rules;
	Canonical	file;
	size_t		stem;

	path_normalise(rules, maker->exact, path, Min(strlen(path), KEY_STRICT_MAX), &file);
	emit_tails(maker, file.text, file.len, file.len, KEY_PATH);
	stem = path_find_dot(file.text, file.len);
	emit_tails(maker, file.text, stem, stem, KEY_STEM);
	for (int i = 0; i < rules->n_suffixes; i++)
		emit_without_suffix(maker, file.text, stem, rules->suffixes[i]);
	for (int i = 0; i < rules->n_prefixes; i++)
		emit_without_prefix(maker, file.text, stem, rules->prefixes[i]);
	for (size_t folder = file.len; rules->n_folders > 0 && folder > 1; folder--)
		if (file.text[folder - 1] == '/')
			emit_of_folder(maker, file.text, folder - 1);
}

void
key_of_file(const KeyRules *rules, const char *path, int families, KeySink sink, void *arg)
{
	const KeyMaker maker = {rules, false, families, sink, arg};

	keys_of_path(&maker, path);
}


/* ------------------------------------------------------------ comparison --- */

KeyMatch
key_compare(const KeyRules *rules, const char *reference, size_t len, const char *path)
{
	KeyScope	scope = {.keys_expected = key_count_most(rules, path)};
	KeyMatch	match = KEY_NO_MATCH;

	key_widen_scope(rules, path, &scope);
	if (key_refers(rules, &scope, reference, len))
		match = names_strictly(rules, &scope, reference, len, path) ? KEY_STRICT_MATCH : KEY_LOOSE_MATCH;
	key_forget_scope(&scope);
	return match;
}
