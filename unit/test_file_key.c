/*-------------------------------------------------------------------------
 *
 * test_file_key.c
 *	  Checks which references protect which files, and which references
 *	  condemn.
 *
 * First come tables of single cases: the texts and the hashed keys must agree
 * on each case.  Then come properties of random names, from a fixed seed: in
 * whatever way an application writes the path of a file, the file is
 * protected.
 *
 * Letters beyond ASCII are in octal here, because an octal escape ends after
 * three digits.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <ctype.h>
#include <unistd.h>

#include "common/unicode_norm.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "src/names/file_key.h"
#include "src/names/rules.h"
#include "src/store/store.h"

#define SEED				20260731
#include "common.h"
#define KEYS_MAX			100000
#define MANY_KEYS		1000

/* Deeper than any file of these tests, and derived. */
#define DEEPER_FILE			"1/2/3/4/5/6/7/8/x_processed.mp3"

#define NO		KEY_NO_MATCH
#define LOOSE	KEY_LOOSE_MATCH
#define STRICT	KEY_STRICT_MATCH

/* NFC, NFD and other forms of one letter */
#define E_ACUTE			"\303\251"
#define E_ACUTE_NFD		"e\314\201"
#define E_ACUTE_UPPER	"\303\211"
#define A_UMLAUT		"\303\244"
#define A_UMLAUT_UPPER	"\303\204"
#define A_RING			"\303\245"
#define A_RING_NFD		"a\314\212"
#define A_RING_UPPER	"\303\205"
#define ANGSTROM		"\342\204\253"
#define HAN				"\355\225\234"
#define HAN_NFD			"\341\204\222\341\205\241\341\206\253"
#define SHARP_S			"\303\237"
#define SHARP_S_UPPER	"\341\272\236"
#define I_DOT			"\304\260"
#define I_DOT_NFD		"I\314\207"
#define I_DOT_LOWER		"i\314\207" /* JavaScript's lower case of I_DOT */
#define I_DOTLESS		"\304\261"
#define SIGMA			"\317\203"
#define SIGMA_FINAL		"\317\202"
#define SIGMA_UPPER		"\316\243"
#define IOTA_TWO		"\316\220"	/* its upper case has several letters */
#define IOTA_TWO_UPPER	"\316\252\314\201"
#define J_CARON			"\307\260"
#define J_CARON_UPPER	"J\314\214"

#define MANY_FILES		5000

typedef struct Case
{
	const char *reference;
	const char *file;
	KeyMatch	want;
} Case;

typedef struct KeyList
{
	int			n;
	uint64		keys[KEYS_MAX];
} KeyList;

static char *extensions[] = {"mp3", "wav", "m4a", "webm"};
static char *suffixes[] = {"_processed", "_clean", "_clean_x"};

static const KeyRules usual = {
	.n_extensions = lengthof(extensions),.extensions = extensions,
	.n_suffixes = lengthof(suffixes),.suffixes = suffixes,.utf8 = true
};

static KeyList reference_keys;
static KeyList file_keys;


/* ------------------------------------------------------------- helpers --- */

/* Texts that are made in passing are kept until the case is over. */
static char *kept[100];
static int	nkept = 0;

static char *
keep(char *text)
{
	if (nkept == lengthof(kept))
		abort();
	return kept[nkept++] = text;
}

static void
drop_kept(void)
{
	while (nkept > 0)
		pfree(kept[--nkept]);
}

/* Printable, and not too long. */
static const char *
show(const char *text, size_t len)
{
	static char buffers[4][200];
	static int	next = 0;
	char	   *buffer = buffers[next++ % 4];
	size_t		i;
	int			n = 0;

	for (i = 0; i < len && n < 150; i++)
		n += sprintf(buffer + n, isprint((unsigned char) text[i]) ? "%c" : "\\%03o",
					 (unsigned char) text[i]);
	strcpy(buffer + n, i < len ? "..." : "");
	return buffer;
}

static bool
in_list(const KeyList *list, uint64 key)
{
	int			i;

	for (i = 0; i < list->n; i++)
		if (list->keys[i] == key)
			return true;
	return false;
}

static void
collect(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	KeyList    *list = arg;

	/* a name may stand in a text again and again */
	if (list->n > 0 && list->n <= MANY_KEYS && in_list(list, key))
		return;
	if (list->n == KEYS_MAX)
		abort();
	list->keys[list->n++] = key;
}

static void
collect_reference(const KeyRules *rules, KeyScope *scope, const char *reference,
				  size_t len, KeyList *list)
{
	list->n = 0;
	key_of_reference(rules, scope, reference, len, collect, list);
}

/*
 * Returns whether the keys match, as in match.c.  With `wider`, the scope has
 * files of other kinds, too.
 */
static bool
keys_intersect(const KeyRules *rules, const char *reference, size_t len,
			   const char *file, bool wider)
{
	KeyScope	scope = {.keys_expected = MANY_KEYS};
	int			i;

	key_widen_scope(rules, file, &scope);
	if (wider)
		key_widen_scope(rules, DEEPER_FILE, &scope);
	collect_reference(rules, &scope, reference, len, &reference_keys);
	file_keys.n = 0;
	key_of_file(rules, file, KEY_ALL_FAMILIES, collect, &file_keys);
	for (i = 0; i < file_keys.n; i++)
		if (in_list(&reference_keys, file_keys.keys[i]))
			break;
	key_forget_scope(&scope);
	return i < file_keys.n;
}

static bool
agrees(const KeyRules *rules, const char *reference, size_t len,
	   const char *file, bool matches)
{
	return keys_intersect(rules, reference, len, file, false) == matches &&
		keys_intersect(rules, reference, len, file, true) == matches;
}

static void
check_len(const KeyRules *rules, const char *reference, size_t len,
		  const char *file, KeyMatch want)
{
	static const char *const words[] = {"nothing to", "loose for", "strict for"};
	KeyMatch	got = key_compare(rules, reference, len, file);

	if (!ok(got == want && agrees(rules, reference, len, file, want != KEY_NO_MATCH),
			"\"%s\" is %s \"%s\"", show(reference, len), words[want],
			show(file, strlen(file))))
		diag("it is %s it; the keys %s", words[got],
			 agrees(rules, reference, len, file, got != KEY_NO_MATCH) ? "agree" : "DISAGREE");
}

static void
check(const KeyRules *rules, const char *reference, const char *file, KeyMatch want)
{
	check_len(rules, reference, strlen(reference), file, want);
}

static void
check_cases(const char *title, const KeyRules *rules, const Case *cases, int n)
{
	int			i;

	diag("%s", title);
	for (i = 0; i < n; i++)
		check(rules, cases[i].reference, cases[i].file, cases[i].want);
}


/* -------------------------------------------------------------- tables --- */

static const Case path_cases[] = {
	{"a.mp3", "a.mp3", STRICT},
	{"a.mp3", "b.mp3", NO},
	{"ba.mp3", "a.mp3", NO},
	{"a.mp3", "ba.mp3", NO},
	{"a.mp3", "d/ba.mp3", NO},
	{"a.mp3", "d/a.mp3", LOOSE},
	{"a.mp3", "d/e/a.mp3", LOOSE},
	{"d/a.mp3", "d/a.mp3", STRICT},
	{"d/a.mp3", "a.mp3", STRICT},
	{"d/a.mp3", "e/a.mp3", NO},
	{"d/a.mp3", "c/d/a.mp3", LOOSE},
	{"d/a.mp3", "cd/a.mp3", NO},
	{"d/e/a.mp3", "d/a.mp3", NO},
	{"/a.mp3", "a.mp3", STRICT},
	{"/a.mp3", "d/a.mp3", LOOSE},
	{"/srv/uploads/d/a.mp3", "d/a.mp3", STRICT},
	{"/srv/uploads/d/a.mp3", "a.mp3", STRICT},
	{"/srv/uploads/e/a.mp3", "d/a.mp3", NO},
	{"/srv/uploads/d/a.mp3", "other/d/a.mp3", NO},

	/* one name in every directory */
	{"s1/recording.mp3", "s1/recording.mp3", STRICT},
	{"s1/recording.mp3", "s2/recording.mp3", NO},
	{"https://h/files/s1/recording.mp3", "s1/recording.mp3", STRICT},
	{"https://h/files/s1/recording.mp3", "s2/recording.mp3", NO},
	{"recording.mp3", "s1/recording.mp3", LOOSE},
	{"s1", "s1/recording.mp3", NO},
	{"s1/", "s1/recording.mp3", NO},

	/* slashes and dots */
	{"d//a.mp3", "d/a.mp3", STRICT},
	{"//d///a.mp3", "d/a.mp3", STRICT},
	{"a.mp3/", "a.mp3", STRICT},
	{"a.mp3//", "a.mp3", STRICT},
	{"./a.mp3", "a.mp3", STRICT},
	{"/./a.mp3", "a.mp3", STRICT},
	{"./d/./a.mp3", "d/a.mp3", STRICT},
	{"d/a.mp3/.", "d/a.mp3", STRICT},
	{"../a.mp3", "a.mp3", STRICT},
	{"../../d/a.mp3", "d/a.mp3", STRICT},
	{"x/../d/a.mp3", "d/a.mp3", STRICT},
	{"d/x/../a.mp3", "d/a.mp3", STRICT},
	{"d/x/y/../../a.mp3", "d/a.mp3", STRICT},
	{"../d/../../d/a.mp3", "d/a.mp3", STRICT},
	{"d/../a.mp3", "d/a.mp3", LOOSE},
	{"x/d/../a.mp3", "d/a.mp3", NO},
	{"d/a.mp3/..", "a.mp3", LOOSE},
	{"a.mp3/download", "a.mp3", LOOSE},
	{"5f3c/stream", "5f3c.mp3", NO},
	{".../a.mp3", "a.mp3", STRICT},
	{"..a.mp3", "..a.mp3", STRICT},
	{"...", "....mp3", STRICT},

	/* nothing at all */
	{"", "a.mp3", NO},
	{" ", "a.mp3", NO},
	{"/", "a.mp3", NO},
	{"//", "a.mp3", NO},
	{"/////", "a.mp3", NO},
	{"\\", "a.mp3", NO},
	{"\\\\\\", "a.mp3", NO},
	{".", "a.mp3", NO},
	{"..", "a.mp3", NO},
	{"../..", "a.mp3", NO},
	{"?", "a.mp3", NO},
	{"#", "a.mp3", NO},
	{"%", "a.mp3", NO},
	{":", "a.mp3", NO},
	{"://", "a.mp3", NO},
	{"https://", "a.mp3", NO},
	{"C:", "a.mp3", NO},
	{"mp3", "a.mp3", NO},
	{".mp3", "a.mp3", NO},
	{"?a", "b.mp3", NO},
};

static const Case url_cases[] = {
	{"https://host/a/b.mp3?sig=x#t=10", "a/b.mp3", STRICT},
	{"https://host/a/b.mp3?sig=x#t=10", "b.mp3", STRICT},
	{"https://host/a/b.mp3?sig=x#t=10", "x/a/b.mp3", LOOSE},
	{"https://host/a/b.mp3?sig=x#t=10", "x/b.mp3", NO},
	{"https://host/b.mp3#t=10?x", "b.mp3", STRICT},
	{"https://host:8080/b.mp3", "b.mp3", STRICT},
	{"https://user:word@host/b.mp3", "d/b.mp3", LOOSE},
	{"HTTPS://HOST/b.mp3", "b.mp3", STRICT},
	{"https://host/b.mp3?file=/c/d", "b.mp3", STRICT},
	{"https://host/b.mp3?", "b.mp3", STRICT},
	{"https://host/b.mp3#", "b.mp3", STRICT},
	{"https://host?b.mp3", "b.mp3", LOOSE},
	{"//cdn/a.mp3", "a.mp3", STRICT},
	{"b.mp3?v=2", "b.mp3", STRICT},
	{"/b.mp3?v=2", "d/b.mp3", LOOSE},
	{"file:///srv/uploads/d/a.mp3", "d/a.mp3", STRICT},
	{"file://localhost/d/a.mp3", "d/a.mp3", STRICT},
	{"file:/srv/a.mp3", "a.mp3", STRICT},
	{"file:a.mp3", "a.mp3", STRICT},
	{"FILE:a.mp3", "d/a.mp3", LOOSE},
	{"file:///C:/d/a.mp3", "d/a.mp3", STRICT},
	{"s3://bucket/key.mp3", "key.mp3", STRICT},
	{"s3://bucket/key.mp3", "d/key.mp3", LOOSE},
	{"s3://bucket/key.mp3", "bucket/key.mp3", STRICT},
	{"s3://bucket/key.mp3", "other/bucket/key.mp3", LOOSE},
	{"s3://bucket/d/key.mp3", "d/key.mp3", STRICT},
	{"gs://bucket/d/key.mp3", "e/key.mp3", NO},
	{"x+y-1.0://bucket/d/key.mp3", "c/d/key.mp3", LOOSE},
	{"1x://bucket/d/key.mp3", "c/d/key.mp3", LOOSE},
	{"blob:https://host/5f3c", "5f3c.mp3", STRICT},
	{"https://h/v0/b/bkt/o/up%2Fd%2Fa.mp3?alt=media&token=1", "d/a.mp3", STRICT},
	{"https%3A%2F%2Fhost%2Fd%2Fa.mp3", "d/a.mp3", STRICT},
	{"uploads\\/d\\/a.mp3", "d/a.mp3", STRICT},

	/* Windows */
	{"C:\\up\\d\\a.mp3", "d/a.mp3", STRICT},
	{"C:\\a.mp3", "a.mp3", STRICT},
	{"C:a.mp3", "a.mp3", STRICT},
	{"C:a.mp3", "d/a.mp3", LOOSE},
	{"c:/up/d/a.mp3", "d/a.mp3", STRICT},
	{"d\\a.mp3", "d/a.mp3", STRICT},
	{"d\\a.mp3", "d\\a.mp3", STRICT},
	{"d\\a.mp3", "a.mp3", STRICT},
	{".\\a.mp3", "a.mp3", STRICT},
	{"x\\..\\d\\a.mp3", "d/a.mp3", STRICT},
	{"\\\\server\\share\\a.mp3", "a.mp3", STRICT},
	{"d%5Ca.mp3", "d/a.mp3", STRICT},
	{"d\\a.mp3?x=1", "d/a.mp3", STRICT},

	/* colons that are part of a name */
	{"12:30.mp3", "12:30.mp3", STRICT},
	{"12:30.mp3", "30.mp3", LOOSE},
	{"12:30.mp3", "0.mp3", NO},
	{"ab:c.mp3", "ab:c.mp3", STRICT},
	{"ab:c.mp3", "c.mp3", LOOSE},
	{"a:b.mp3", "a:b.mp3", STRICT},
	{"https:d.mp3", "https:d.mp3", STRICT},
	{"https://h/12:30.mp3", "12:30.mp3", STRICT},
	{"file:a.mp3", "file:a.mp3", STRICT},
	{"/s3:/b/a.mp3", "s3:/b/a.mp3", STRICT},
};

static const Case escape_cases[] = {
	{"a%20b.mp3", "a b.mp3", STRICT},
	{"a%20b.mp3", "a%20b.mp3", STRICT},
	{"a%2Fb.mp3", "a/b.mp3", STRICT},
	{"a%2fb.mp3", "a/b.mp3", STRICT},
	{"a%2Fb.mp3", "a%2fb.mp3", LOOSE},
	{"%61.mp3", "a.mp3", STRICT},
	{"%41.mp3", "a.mp3", LOOSE},
	{"%41.mp3", "%41.mp3", STRICT},
	{"%61%2e%6D%703", "a.mp3", STRICT},
	{"%2e%2E/a.mp3", "a.mp3", STRICT},
	{"x/%2e%2e/d/a.mp3", "d/a.mp3", STRICT},
	{"a%3Fb.mp3?x=1", "a?b.mp3", STRICT},
	{"a%23b.mp3#x", "a#b.mp3", STRICT},
	{"%C3%A9.mp3", E_ACUTE ".mp3", STRICT},
	{"%c3%a9.mp3", E_ACUTE ".mp3", STRICT},
	{"%C3%A9.mp3", E_ACUTE_NFD ".mp3", LOOSE},
	{"e%CC%81.mp3", E_ACUTE ".mp3", LOOSE},
	{"%E9.mp3", E_ACUTE ".mp3", LOOSE},
	{"%ED%95%9C.mp3", HAN_NFD ".mp3", LOOSE},
	{"a%0A.mp3", "a\n.mp3", STRICT},
	{"a.mp3%0A", "a.mp3", STRICT},
	{"%20a.mp3", "a.mp3", STRICT},
	{"%20a.mp3", " a.mp3", STRICT},

	/* not an escape */
	{"a%00.mp3", "a%00.mp3", STRICT},
	{"a%00.mp3", "a.mp3", NO},
	{"a%2", "a%2.mp3", STRICT},
	{"a%", "a%.mp3", STRICT},
	{"a.mp3%", "a.mp3", NO},
	{"a.mp3%2", "a.mp3", NO},
	{"a%zz.mp3", "a%zz.mp3", STRICT},
	{"a%2z.mp3", "a%2z.mp3", STRICT},
	{"100%.mp3", "100%.mp3", STRICT},
	{"100%.mp3", "100.mp3", NO},
	{"a%%20b.mp3", "a% b.mp3", STRICT},
	{"%%61.mp3", "%a.mp3", STRICT},

	/* decoded twice */
	{"a%2520b.mp3", "a%20b.mp3", STRICT},
	{"a%2520b.mp3", "a%2520b.mp3", STRICT},
	{"a%2520b.mp3", "a b.mp3", STRICT},
	{"a%252520b.mp3", "a%20b.mp3", STRICT},
	{"a%252520b.mp3", "a b.mp3", NO},
	{"d%252Fa.mp3", "d/a.mp3", STRICT},
	{"%25%36%31.mp3", "a.mp3", STRICT},
	{"%2500.mp3", "%00.mp3", STRICT},
	{"a%25", "a%.mp3", STRICT},

	/* of a form */
	{"a+b.mp3", "a+b.mp3", STRICT},
	{"a+b.mp3", "a b.mp3", LOOSE},
	{"a+b.mp3", "ab.mp3", NO},
	{"a%2Bb.mp3", "a+b.mp3", STRICT},
	{"a%2Bb+c.mp3", "a+b c.mp3", LOOSE},
	{"https://h/d+e/a+%C3%A9.mp3?x=1", "d e/a " E_ACUTE ".mp3", LOOSE},

	/* what cannot be decoded does not spoil the rest */
	{"%FF/" A_UMLAUT_UPPER ".mp3", A_UMLAUT_UPPER ".mp3", STRICT},
	{"%FF/%C3%84.mp3", A_UMLAUT_UPPER ".mp3", STRICT},
	{"%FF/%C3%84.mp3", A_UMLAUT ".mp3", LOOSE},
	{"%C3/%C3%84.mp3", A_UMLAUT ".mp3", LOOSE},
};

static const Case entity_cases[] = {
	{"caf&eacute;.mp3", "caf" E_ACUTE ".mp3", LOOSE},
	{"&lt;a&gt; &amp; b.mp3", "<a> & b.mp3", LOOSE},
	/* Greek, as PHP's htmlentities() writes it */
	{"<a href=\"/u/&Kappa;&alpha;&lambda;&eta;&mu;\316\255&rho;&alpha;.mp3\">",
	"\316\232\316\261\316\273\316\267\316\274\316\255\317\201\316\261.mp3", LOOSE},
	{"&lambda;&omicron;&gamma;&omicron;&sigmaf;.mp3", "\316\273\316\277\316\263\316\277\317\202.mp3", LOOSE},
	{"&amp;Omega;.mp3", "\316\251.mp3", LOOSE},
	{"&thetasym;.mp3", "\317\221.mp3", LOOSE},
	{"&hearts; &infin;.mp3", "\342\231\245 \342\210\236.mp3", LOOSE},
	/* HTML 5 */
	{"&Ccaron;e&scaron;tina.mp3", "\304\214e\305\241tina.mp3", LOOSE},
	{"&lstrok;&oacute;d&zacute;.mp3", "\305\202\303\263d\305\272.mp3", LOOSE},
	{"&Zcy;&vcy;&ucy;&kcy;.mp3", "\320\227\320\262\321\203\320\272.mp3", LOOSE},
	{"&AElig;.mp3", "\303\206.mp3", LOOSE},
	{"&zwnj;&zwj;a.mp3", "a.mp3", LOOSE},
	/* no entities */
	{"&nosuch;.mp3", "&nosuch;.mp3", STRICT},
	{"&alpha.mp3", "\316\261.mp3", NO},
	{"&alphabet;.mp3", "\316\261.mp3", NO},
};

static const Case letter_cases[] = {
	{"A.mp3", "a.mp3", LOOSE},
	{"a.mp3", "A.mp3", LOOSE},
	{"a.MP3", "a.mp3", LOOSE},
	{"a.mp3", "a.MP3", LOOSE},
	{"D/a.mp3", "d/a.mp3", LOOSE},
	{"d/a.mp3", "D/a.mp3", LOOSE},
	{"/UP/d/a.mp3", "d/a.mp3", STRICT},
	{"A", "a.mp3", LOOSE},
	{"a", "a.MP3", STRICT},

	{E_ACUTE ".mp3", E_ACUTE ".mp3", STRICT},
	{E_ACUTE_NFD ".mp3", E_ACUTE_NFD ".mp3", STRICT},
	{E_ACUTE ".mp3", E_ACUTE_NFD ".mp3", LOOSE},
	{E_ACUTE_NFD ".mp3", E_ACUTE ".mp3", LOOSE},
	{E_ACUTE_UPPER ".mp3", E_ACUTE ".mp3", LOOSE},
	{E_ACUTE_UPPER ".mp3", E_ACUTE_NFD ".mp3", LOOSE},
	{E_ACUTE "/a.mp3", E_ACUTE_NFD "/a.mp3", LOOSE},
	{"e.mp3", E_ACUTE ".mp3", NO},
	{"e.mp3", E_ACUTE_NFD ".mp3", NO},
	{E_ACUTE, E_ACUTE_NFD ".mp3", LOOSE},
	{E_ACUTE ".wav", E_ACUTE_NFD "_processed.mp3", LOOSE},

	{A_RING ".mp3", A_RING_NFD ".mp3", LOOSE},
	{A_RING_UPPER ".mp3", A_RING_NFD ".mp3", LOOSE},
	{ANGSTROM ".mp3", A_RING ".mp3", LOOSE},
	{ANGSTROM ".mp3", A_RING_NFD ".mp3", LOOSE},
	{HAN ".mp3", HAN_NFD ".mp3", LOOSE},
	{HAN_NFD ".mp3", HAN ".mp3", LOOSE},
	{HAN "/" HAN ".mp3", HAN_NFD "/" HAN_NFD ".mp3", LOOSE},

	/* marks in another order */
	{"a\314\201\314\243.mp3", "a\314\243\314\201.mp3", LOOSE},

	{"stra" SHARP_S "e.mp3", "stra" SHARP_S "e.mp3", STRICT},
	{"STRA" SHARP_S_UPPER "E.mp3", "stra" SHARP_S "e.mp3", LOOSE},
	{"STRASSE.mp3", "stra" SHARP_S "e.mp3", NO},

	{I_DOT ".mp3", I_DOT ".mp3", STRICT},
	{I_DOT ".mp3", I_DOT_NFD ".mp3", LOOSE},
	{I_DOT ".mp3", I_DOT_LOWER ".mp3", LOOSE},
	{I_DOT ".mp3", "i.mp3", LOOSE},
	{I_DOT ".mp3", "I.mp3", LOOSE},
	{I_DOT_LOWER ".mp3", "i.mp3", LOOSE},
	{I_DOTLESS ".mp3", "I.mp3", LOOSE},
	{"I.mp3", I_DOTLESS ".mp3", LOOSE},

	{"a" SIGMA_UPPER ".mp3", "a" SIGMA ".mp3", LOOSE},
	{"a" SIGMA_UPPER ".mp3", "a" SIGMA_FINAL ".mp3", LOOSE},
	{"a" SIGMA ".mp3", "a" SIGMA_FINAL ".mp3", LOOSE},
	{IOTA_TWO ".mp3", IOTA_TWO_UPPER ".mp3", LOOSE},
	{J_CARON ".mp3", J_CARON_UPPER ".mp3", LOOSE},
	{"\342\204\252.mp3", "k.mp3", LOOSE},	/* the sign of Kelvin */
	{"\360\220\220\200.mp3", "\360\220\220\250.mp3", LOOSE},	/* Deseret */
	{"\360\237\216\265.mp3", "\360\237\216\265.mp3", STRICT},	/* a note */
	{"\302\240a.mp3", "\302\240a.mp3", STRICT},

	/* not UTF-8: ASCII is folded, no more */
	{"\377.mp3", "\377.mp3", STRICT},
	{"\377A.mp3", "\377a.mp3", LOOSE},
	{"\303.mp3", "\303.mp3", STRICT},
	{"\303", "\303.mp3", STRICT},
	{"\355\240\200.mp3", "\355\240\200.mp3", STRICT},	/* a surrogate */
	{"\300\257a.mp3", "a.mp3", NO}, /* "/", overlong */
	{"\377/" A_UMLAUT_UPPER ".mp3", A_UMLAUT ".mp3", LOOSE},
	{A_UMLAUT_UPPER ".mp3", "\377/" A_UMLAUT_UPPER ".mp3", LOOSE},
};

static const Case literal_cases[] = {
	{"a#b.mp3", "a#b.mp3", STRICT},
	{"a?b.mp3", "a?b.mp3", STRICT},
	{"d/a#1?2%3:4.mp3", "d/a#1?2%3:4.mp3", STRICT},
	{"https://h/d/a#1.mp3", "d/a#1.mp3", STRICT},
	{"a#1.mp3?x=1", "a#1.mp3", STRICT},
	{"a?1.mp3?x=1#t", "a?1.mp3", STRICT},
	{"1?2?3?4?5?6?7?8.mp3?x", "1?2?3?4?5?6?7?8.mp3", STRICT},
	{"1#2#3#4#5#6#7#8#9#10.mp3", "1#2#3#4#5#6#7#8#9#10.mp3", STRICT},
	{"a&b=c.mp3", "a&b=c.mp3", STRICT},
	{"a;b,c.mp3", "a;b,c.mp3", STRICT},
	{"a'b\"c.mp3", "a'b\"c.mp3", STRICT},
	{"a*b[c].mp3", "a*b[c].mp3", STRICT},
	{"a\nb.mp3", "a\nb.mp3", STRICT},

	/* spaces around it */
	{" a.mp3", "a.mp3", STRICT},
	{"a.mp3 ", "a.mp3", STRICT},
	{"\t\r\n a.mp3\n", "a.mp3", STRICT},
	{" https://h/d/a.mp3?x=1\n", "d/a.mp3", STRICT},
	{" 5f3c\n", "5f3c.mp3", STRICT},
	{"a b.mp3", "a b.mp3", STRICT},
	{"a b.mp3", "ab.mp3", NO},
	{" a.mp3", " a.mp3", STRICT},
	{"a.mp3", " a.mp3", NO},
	{"a.mp3 ", "a.mp3 ", STRICT},
	{"https://h/ a.mp3?x", " a.mp3", STRICT},
	{" a.mp3?x", " a.mp3", STRICT},
	{"a.mp3 ?x", "a.mp3 ", STRICT},
	{" %41.mp3", " A.mp3", STRICT},
	{"%41.mp3 ", "A.mp3 ", STRICT},
	{"\302\205.mp3\302\205", "\302\205.mp3\302\205", STRICT},
};

static const Case id_cases[] = {
	{"5f3c", "5f3c.mp3", STRICT},
	{"5f3c", "5f3c.wav", STRICT},
	{"5f3c", "5f3c", STRICT},
	{"5f3c", "d/5f3c.mp3", LOOSE},
	{"d/5f3c", "d/5f3c.mp3", STRICT},
	{"d/5f3c", "5f3c.mp3", STRICT},
	{"d/5f3c", "e/5f3c.mp3", NO},
	{"5F3C", "5f3c.mp3", LOOSE},
	{"5f3", "5f3c.mp3", NO},
	{"5f3c/", "5f3c.mp3", STRICT},
	{"https://h/v/5f3c?x=1", "5f3c.mp3", STRICT},
	{"42", "42.mp3", STRICT},
	{"42", "142.mp3", NO},

	/* an extension that is not for audio belongs to the id */
	{"rec.2024.01", "rec.2024.01.mp3", STRICT},
	{"rec.2024.01", "rec.2024.mp3", NO},
	{"rec.2024.01", "rec.mp3", NO},
	{"a", "a.b.mp3", NO},
	{"a.b", "a.b.mp3", STRICT},
	{"a.", "a..mp3", STRICT},
	{"a.json", "a.mp3", NO},

	/* an extension for audio does not */
	{"a.wav", "a.mp3", NO},
	{"a.WAV", "a.mp3", NO},
	{"a.mp3", "a", NO},
	{"a.mp3", "a.mp3.wav", NO},
	{"a.opus", "a.opus.mp3", NO},

	/* hidden files have no extension */
	{".mp3", ".mp3", STRICT},
	{"d/.mp3", "d/.mp3", STRICT},
	{".mp3", ".mp3.wav", STRICT},
	{".hidden.mp3", ".hidden.mp3", STRICT},
	{".hidden", ".hidden.mp3", STRICT},
	{"hidden", ".hidden.mp3", NO},
	{"d", "d/.mp3", NO},
};

static const Case derived_cases[] = {
	{"a.mp3", "a_processed.mp3", STRICT},
	{"a.wav", "a_processed.mp3", STRICT},
	{"a", "a_processed.wav", STRICT},
	{"a", "a_processed", STRICT},
	{"a.mp3", "a_clean.mp3", STRICT},
	{"a.mp3", "a_other.mp3", NO},
	{"a.mp3", "aprocessed.mp3", NO},
	{"a.mp3", "ba_processed.mp3", NO},
	{"d/a.wav", "d/a_processed.mp3", STRICT},
	{"d/a.wav", "a_processed.mp3", STRICT},
	{"a.wav", "d/a_processed.mp3", LOOSE},
	{"d/a.wav", "e/a_processed.mp3", NO},
	{"D/a.wav", "d/a_processed.mp3", LOOSE},
	{"A.wav", "a_processed.mp3", LOOSE},
	{"a.wav", "a_PROCESSED.mp3", STRICT},
	{"https://h/d/a.wav?x=1", "d/a_processed.mp3", STRICT},
	{"d%2Fa.wav", "d/a_processed.mp3", STRICT},

	/* the original does not live and die with the derived file */
	{"a_processed.mp3", "a.mp3", NO},
	{"a_processed", "a.mp3", NO},
	{"a_processed.mp3", "a_processed.mp3", STRICT},
	{"a_processed.mp3", "a_clean.mp3", NO},
	{"a_processed.wav", "a_processed.mp3", NO},
	{"a_processed", "a_processed.mp3", STRICT},

	/* one step at a time */
	{"a_processed.mp3", "a_processed_processed.mp3", STRICT},
	{"a_clean.mp3", "a_clean_processed.mp3", STRICT},
	{"a.mp3", "a_clean_processed.mp3", NO},
	{"a.mp3", "a_processed_processed.mp3", NO},

	/* one suffix is the end of another */
	{"a.mp3", "a_clean_x.mp3", STRICT},
	{"a_clean.mp3", "a_clean_x.mp3", NO},

	/* derived from nothing */
	{"_processed.mp3", "_processed.mp3", STRICT},
	{"", "_processed.mp3", NO},
	{"/", "_processed.mp3", NO},
	{"d", "d/_processed.mp3", NO},
	{"d/", "d/_processed.mp3", NO},
	{".mp3", "_processed.mp3", NO},
	{"d/_processed.mp3", "d/_processed.mp3", STRICT},

	/* an id with dots, or the extension of a film: both keep the file */
	{"rec.2024", "rec.2024_processed.mp3", STRICT},
	{"rec.2024", "rec_processed.mp3", LOOSE},
	{"talk.mkv", "talk_processed.mp3", LOOSE},
	{"d/talk.mkv", "d/talk_processed.mp3", LOOSE},
	{"d/talk.mkv", "e/talk_processed.mp3", NO},
	{"talk.mov", "talk_processed.mp3", STRICT},

	/* the suffix is behind the extension */
	{"a.mp3", "a.mp3_processed.mp3", STRICT},
	{"d/a.mp3", "d/a.mp3_processed.wav", STRICT},
	{"d/a.mp3", "e/a.mp3_processed.mp3", NO},
	{"a.wav", "a.mp3_processed.mp3", LOOSE},
	{"a", "a.mp3_processed.mp3", LOOSE},
	{"b.mp3", "a.mp3_processed.mp3", NO},
	{".hidden", ".hidden_processed.mp3", STRICT},
};

static const Case list_cases[] = {
	{"a.mp3,b.mp3", "a.mp3", LOOSE},
	{"a.mp3,b.mp3", "b.mp3", LOOSE},
	{"a.mp3,b.mp3", "c.mp3", NO},
	{"a.mp3,b.mp3", "a.mp3,b.mp3", STRICT},
	{"a.mp3; d/b.mp3", "d/b.mp3", LOOSE},
	{"a.mp3 | b.mp3", "a.mp3", LOOSE},
	{"{a.mp3,b.mp3}", "b.mp3", LOOSE},
	{"{\"a, x.mp3\",b.mp3}", "b.mp3", LOOSE},
	{"[\"a.mp3\", \"d/b.mp3\"]", "d/b.mp3", LOOSE},
	{"{\"url\": \"https:\\/\\/h\\/d\\/a.mp3?x=1\"}", "d/a.mp3", LOOSE},
	{"{\"id\":\"5f3c\"}", "5f3c.mp3", LOOSE},
	{"{\"id\":\"5f3c\"}", "5f3c_processed.mp3", LOOSE},
	{"{\"url\": \"d/a.mp3\"}", "e/a.mp3", NO},
	{"'a.mp3'", "a.mp3", LOOSE},
	{"\342\200\234/a.mp3\342\200\235", "d/a.mp3", LOOSE},
	{"\342\200\234_a.mp3_\342\200\235", "a.mp3", LOOSE},
	{"\342\200\234./a.mp3\342\200\235", "d/a.mp3", LOOSE},
	{"\342\200\234e/a.mp3\342\200\235", "d/a.mp3", NO},
	{"<a.mp3>", "a.mp3", LOOSE},
	{"https://h/play?file=d/a.mp3&x=1", "d/a.mp3", LOOSE},
	{"https://h/play?file=d%2Fa.mp3", "d/a.mp3", LOOSE},
	{"https://h/play?x=1&file=a+b.mp3#t", "a b.mp3", LOOSE},
	{"https://h/play?u=https%3A%2F%2Fi%2Fd%2Fa.mp3", "d/a.mp3", LOOSE},
	{",,,", "a.mp3", NO},
	{"{}", "a.mp3", NO},
	{"{\"\":[]}", "a.mp3", NO},
};

/* The files are in /srv/uploads/voice. */
static const Case place_cases[] = {
	{"a.mp3", "a.mp3", STRICT},
	{"./a.mp3", "a.mp3", STRICT},
	{"../a.mp3", "a.mp3", STRICT},
	{"voice/a.mp3", "a.mp3", STRICT},
	{"x/voice/a.mp3", "a.mp3", STRICT},
	{"uploads/audio/a.mp3", "a.mp3", STRICT},
	{"Voice/a.mp3", "a.mp3", LOOSE},
	{"invoice/a.mp3", "a.mp3", LOOSE},
	{"archive/a.mp3", "a.mp3", LOOSE},
	{"archive/a", "a.mp3", LOOSE},
	{"archive/a.mp3?x", "a.mp3", LOOSE},
	{"archive\\a.mp3", "a.mp3", LOOSE},
	{"archive%2Fa.mp3", "a.mp3", LOOSE},
	{"voice\\a.mp3", "a.mp3", STRICT},
	{"voice%2Fa.mp3", "a.mp3", STRICT},
	{"voice/a.mp3?x", "a.mp3", STRICT},
	{"archive/voice/../a.mp3", "a.mp3", LOOSE},
	{"d/a.mp3", "d/a.mp3", STRICT},
	{"voice/d/a.mp3", "d/a.mp3", STRICT},
	{"archive/d/a.mp3", "d/a.mp3", LOOSE},
	{"d/a.mp3", "a.mp3", LOOSE},
	{"archive/a.wav", "a_processed.mp3", LOOSE},
	{"voice/a.wav", "a_processed.mp3", STRICT},
	{"a.wav", "a_processed.mp3", STRICT},

	/* another machine's */
	{"/archive/a.mp3", "a.mp3", STRICT},
	{"//cdn/archive/a.mp3", "a.mp3", STRICT},
	{"https://h/archive/a.mp3", "a.mp3", STRICT},
	{"s3://bucket/archive/a.mp3", "a.mp3", STRICT},
	{"https://h/b.mp3?next=/a.mp3", "a.mp3", LOOSE},
	{"https://h/b.mp3?next=/a.mp3", "b.mp3", STRICT},
	{"https://h/#/play/a.mp3", "a.mp3", LOOSE},
	{"https://h/x?y#z/voice/a.mp3", "a.mp3", STRICT},
	{"/srv/#1/voice/a.mp3", "a.mp3", STRICT},
	{"/srv/voice/d?1/a#2.mp3", "d?1/a#2.mp3", STRICT},
	{"C:\\archive\\a.mp3", "a.mp3", STRICT},
};

static const Case byte_cases[] = {
	{"\351.mp3", "\351.mp3", STRICT},
	{"\311.mp3", "\351.mp3", NO},
	{"A\351.mp3", "a\351.mp3", LOOSE},
	{E_ACUTE ".mp3", E_ACUTE ".mp3", STRICT},
	{E_ACUTE ".mp3", E_ACUTE_NFD ".mp3", NO},
	{E_ACUTE_UPPER ".mp3", E_ACUTE ".mp3", NO},
	{"%E9.mp3", "\351.mp3", STRICT},
	{"\351", "\351.mp3", STRICT},
	{"d/\351.wav", "d/\351_processed.mp3", STRICT},
	{"/\351/\351.mp3", "\351/\351.mp3", STRICT},
	{"\240a.mp3\240", "\240a.mp3\240", STRICT},

	/*
	 * quotes, blanks and letters of LATIN1, EUC_JP and others stand beside a
	 * name of ASCII
	 */
	{"\253a.mp3\273", "a.mp3", LOOSE},
	{"\253\240a.mp3\240\273", "d/a.mp3", LOOSE},
	{"\240a\240", "a.mp3", LOOSE},
	{"\241\326d/a.mp3\241\327", "d/a.mp3", LOOSE},
	{"\244\263a.mp3\244\307", "a.mp3", LOOSE},
	{"\342\200\234a.mp3\342\200\235", "a.mp3", LOOSE},
	{"x\253ba.mp3\273", "a.mp3", NO},
	{"\253a.mp3x\273", "a.mp3", NO},
};

static void
test_tables(void)
{
	static char *overlapping[] = {"_x", "_y_x"};
	static char *foreign[] = {"_ge" A_UMLAUT "ndert"};
	static char *unheard_of[] = {"xyz"};
	static char *shouted[] = {"_GE" A_UMLAUT_UPPER "NDERT"};
	KeyRules	rules = usual;

	check_cases("paths", &rules, path_cases, lengthof(path_cases));
	check_cases("URLs", &rules, url_cases, lengthof(url_cases));
	check_cases("escapes", &rules, escape_cases, lengthof(escape_cases));
	check_cases("entities of HTML", &rules, entity_cases, lengthof(entity_cases));
	check_cases("letters", &rules, letter_cases, lengthof(letter_cases));
	check_cases("literally", &rules, literal_cases, lengthof(literal_cases));
	check_cases("ids", &rules, id_cases, lengthof(id_cases));
	check_cases("derived files", &rules, derived_cases, lengthof(derived_cases));

	rules.upload_dir = "/srv/uploads/voice";
	check_cases("lists", &rules, list_cases, lengthof(list_cases));
	check_cases("places", &rules, place_cases, lengthof(place_cases));
	rules.upload_dir = NULL;

	rules.utf8 = false;
	check_cases("an unknown encoding", &rules, byte_cases, lengthof(byte_cases));

	diag("other rules");
	rules = usual;
	rules.n_suffixes = 0;
	check(&rules, "a.mp3", "a_processed.mp3", NO);
	check(&rules, "a_processed.mp3", "a_processed.mp3", STRICT);
	rules.n_suffixes = lengthof(overlapping);
	rules.suffixes = overlapping;
	check(&rules, "a.mp3", "a_y_x.mp3", STRICT);
	check(&rules, "a_y.mp3", "a_y_x.mp3", STRICT);
	rules.n_suffixes = 1;
	rules.suffixes = foreign;
	check(&rules, "a.mp3", "a_ge" A_UMLAUT "ndert.mp3", STRICT);
	check(&rules, "a.mp3", "a_gea\314\210ndert.mp3", LOOSE);
	check(&rules, "a.mp3", "a_GE" A_UMLAUT_UPPER "NDERT.mp3", LOOSE);
	rules.suffixes = shouted;
	check(&rules, "a.mp3", "a_GE" A_UMLAUT_UPPER "NDERT.mp3", STRICT);
	check(&rules, "a.mp3", "a_ge" A_UMLAUT "ndert.mp3", LOOSE);
	rules = usual;
	rules.n_extensions = 0;
	check(&rules, "a", "a.txt", STRICT);
	check(&rules, "a.txt", "a.txt", STRICT);
	check(&rules, "a.pdf", "a.txt", NO);
	rules.n_extensions = 1;
	rules.extensions = unheard_of;
	check(&rules, "a.xyz", "a.mp3", NO);
	check(&rules, "a.xyz", "a_processed.xyz", STRICT);
	check(&rules, "a.xyz", "a.xyz.xyz", NO);
}


/* ---------------------------------------------------------------- scope --- */

static void
test_audio(void)
{
	static const struct
	{
		const char *path;
		bool		audio;
	}			cases[] = {
		{"a.mp3", true}, {"d/a.MP3", true}, {"a.b.wav", true}, {".a.mp3", true},
		{"a", false}, {"mp3", false}, {".mp3", false}, {"d/.mp3", false},
		{"d.mp3/a", false}, {"a.mp3.txt", false}, {"a.mp", false},
		{"a.mp33", false}, {"a.mp3 ", false}, {"a.", false}, {"", false},
	};
	KeyRules	any = {.utf8 = true};

	for (int i = 0; i < lengthof(cases); i++)
	{
		is(key_is_audio(&usual, cases[i].path), cases[i].audio,
		   tap_text("is \"%s\" audio?", cases[i].path));
		is(key_is_audio(&any, cases[i].path), true, "anything is, if nothing is named");
	}
}

static void
test_scope(void)
{
	KeyScope	scope = {.keys_expected = MANY_KEYS};
	KeyList    *keys = &reference_keys;
	const char *typical = "uploads/audio/3f2504e0-4f89-41d3-9a0c-0305e82c3301.mp3";
	int			families;

	key_widen_scope(&usual, "3f2504e0-4f89-41d3-9a0c-0305e82c3301.mp3", &scope);
	is(scope.depth, 1, "a flat file is of depth 1");
	is(scope.derived, false, "it is not derived");
	collect_reference(&usual, &scope, typical, strlen(typical), keys);
	is(keys->n, 1, "a reference to a flat directory has one key");
	collect_reference(&usual, &scope, "other.mp3", 9, keys);
	is(keys->n, 0, "a reference to none of the files has none");
	key_widen_scope(&usual, "d/e/a.mp3", &scope);
	is(scope.depth, 3, "depth is that of the deepest");
	key_widen_scope(&usual, "d/_processed.mp3", &scope);
	is(scope.derived, false, "a mere suffix is not derived");
	key_widen_scope(&usual, "d/a_processed.mp3", &scope);
	is(scope.derived, true, "a derived file is noticed");
	key_widen_scope(&usual, "b.mp3", &scope);
	ok(scope.depth == 3 && scope.derived, "the scope never narrows");
	collect_reference(&usual, &scope, "", 0, keys);
	is(keys->n, 0, "an empty reference has no key");

	key_forget_scope(&scope);

	/* the families of a file have the same keys one by one and together */
	file_keys.n = 0;
	for (families = 1; families <= KEY_ALL_FAMILIES; families <<= 1)
		key_of_file(&usual, "d/e/a_clean_x.mp3", families, collect, &file_keys);
	reference_keys.n = 0;
	key_of_file(&usual, "d/e/a_clean_x.mp3", KEY_ALL_FAMILIES, collect, &reference_keys);
	is(file_keys.n, 3 * 3, "three families of three tails");
	is(reference_keys.n, file_keys.n, "the families make up the whole");
	for (int i = 0; i < file_keys.n; i++)
		if (!in_list(&reference_keys, file_keys.keys[i]))
			ok(false, "a key of one family is missing in all of them");
}


/* ------------------------------------------------------------ long texts --- */

static char *
repeat(const char *text, int times)
{
	StringInfoData all;

	initStringInfo(&all);
	while (times-- > 0)
		appendStringInfoString(&all, text);
	return keep(all.data);
}

static void
check_long(const char *before, const char *filler, int times, const char *after,
		   const char *file, KeyMatch want)
{
	char	   *middle = repeat(filler, times);
	char	   *reference = keep(psprintf("%s%s%s", before, middle, after));

	check(&usual, reference, file, want);
	drop_kept();
}

static void
test_long(void)
{
	diag("long references");
	for (int n = 4090; n <= 16390; n = (n == 4100) ? 16370 : n + 1)
		check_long("", "x", n - 7, "/a1.mp3", "a1.mp3", n > 4 * STORE_PATH_MAX ? LOOSE : STRICT);
	check_long("/", "d/", 20000, "a.mp3", "a.mp3", LOOSE);
	check_long("/", "d/", 20000, "a.mp3", "d/d/a.mp3", LOOSE);
	check_long("/", "d/", 20000, "a.mp3", "e/a.mp3", NO);
	check_long("https://h/d/a.mp3?sig=", "0123456789", 100000, "", "d/a.mp3", LOOSE);
	check_long("https://h/d/a.mp3?sig=", A_UMLAUT, 100000, "", "d/a.mp3", LOOSE);
	check_long("https://h/d/a.mp3#", "?#", 100000, "", "d/a.mp3", LOOSE);
	check_long("a.mp3", " ", 100000, "", "a.mp3", STRICT);
	check_long("", " ", 100000, "a.mp3", "a.mp3", STRICT);
	check_long(repeat(" ", 20000), "", 1, repeat(" ", 20000), "a.mp3", NO);
	check_long(repeat(" ", 20000), "a.mp3", 1, repeat("\n", 20000), "a.mp3", STRICT);
	check_long("", "a", 4095, "", repeat("a", 4095), STRICT);
	check_long("", "%61", 4095, "", repeat("a", 4095), STRICT);
	check_long("", "%61", 6000, "/a.mp3", "a.mp3", LOOSE);
	check_long("", "?", 10000, "/a.mp3", "a.mp3", STRICT);
	check_long("", "../", 10000, "a.mp3", "a.mp3", LOOSE);
	check_long("", "\\", 10000, "a.mp3", "a.mp3", STRICT);
	check_long("", "%", 16000, "/a.mp3", "a.mp3", STRICT);
	check_long("data:audio/mp3;base64,", "SUQzBAAA", 131072, "==", "a.mp3", NO);
	check_long("data:audio/mp3;base64,", "SUQz/A+/", 131072, "==", "5f3c.mp3", NO);
	check_long("", "\377", 20000, "/a.mp3", "a.mp3", LOOSE);

	/* wherever the cut falls, the letters of the last component are whole */
	for (int i = 0; i < 4; i++)
		check_long(repeat("x", i), A_UMLAUT, 10000, "/" A_UMLAUT_UPPER ".mp3", A_UMLAUT ".mp3", LOOSE);

	/* letters that grow when they are folded, up to and beyond the limit */
	for (int n = 5450; n < 5470; n++)
		check_long("", "\341\276\207", n, "/" A_UMLAUT_UPPER ".mp3", A_UMLAUT ".mp3", LOOSE);
	check_long("", "\310\272", 8180, "/" A_UMLAUT_UPPER ".mp3", A_UMLAUT ".mp3", LOOSE);
	check_long("", HAN, 80, ".mp3", repeat(HAN_NFD, 80), NO);
	check_long("", HAN, 80, "", keep(psprintf("%s.mp3", repeat(HAN_NFD, 80))), LOOSE);
	check_long("", HAN "/", 1000, "a.mp3", keep(psprintf("%sa.mp3", repeat(HAN_NFD "/", 400))), LOOSE);
}


/* ---------------------------------------------------------------- random --- */

static const char *
pick(const char *const *from, int n)
{
	return from[next_random(n)];
}

static const char *const plain_pieces[] = {
	"a", "b", "c", "x", "A", "Q", "0", "1", "7", "-", "_", ".", "rec", "5f3c",
	"Session", "mp3", "_processed", "_clean", "audio",
};

/*
 * Pairs of letters in both cases, then other letters; no letter grows by case
 * alone.
 */
static const char *const odd_pieces[] = {
	E_ACUTE, E_ACUTE_UPPER, A_UMLAUT, A_UMLAUT_UPPER, A_RING_NFD, ANGSTROM, HAN,
	HAN_NFD, SHARP_S, SHARP_S_UPPER, I_DOT, I_DOT_NFD, I_DOTLESS, SIGMA,
	SIGMA_FINAL, SIGMA_UPPER, IOTA_TWO, IOTA_TWO_UPPER, J_CARON, J_CARON_UPPER,
	"\341\276\207", "\310\272", "\314\201\314\243", "\360\235\205\237",
	"\360\237\216\265", " ", "?", "#", "%", ":", "%41", "%2F", "%00", "+", "&", "=",
	"\n", "'", "~",
};

static const char *const file_extensions[] = {
	".mp3", ".wav", ".MP3", ".m4a", ".webm", "", ".mkv",
};

static void
append_component(StringInfo path, bool odd)
{
	int			begin = path->len;
	int			n = 1 + next_random(4);

	while (n-- > 0 && path->len - begin < 40)
		appendStringInfoString(path, odd && next_random(2) == 0 ?
							   pick(odd_pieces, lengthof(odd_pieces)) :
							   pick(plain_pieces, lengthof(plain_pieces)));
	if (strcmp(path->data + begin, ".") == 0 || strcmp(path->data + begin, "..") == 0)
		appendStringInfoChar(path, 'k');
}

static char *
random_path(bool odd)
{
	StringInfoData path;
	int			directories = next_random(3);

	initStringInfo(&path);
	while (directories-- > 0)
	{
		append_component(&path, odd);
		appendStringInfoChar(&path, '/');
	}
	append_component(&path, odd);
	if (next_random(3) == 0)
		appendStringInfoString(&path, suffixes[next_random(lengthof(suffixes))]);
	appendStringInfoString(&path, pick(file_extensions, lengthof(file_extensions)));
	return keep(path.data);
}

/*
 * Percent-encodes all letters, or the letters that encodeURI() or
 * encodeURIComponent() would encode.
 */
static char *
encode(const char *path)
{
	static const char *const safe_sets[] = {"", "-_.!~*'()", "-_.!~*'();/?:@&=+$,#", "/-_."};
	const char *safe = pick(safe_sets, lengthof(safe_sets));
	const char *format = next_random(2) ? "%%%02X" : "%%%02x";
	StringInfoData encoded;

	initStringInfo(&encoded);
	for (; *path != '\0'; path++)
		if (*safe != '\0' && (isalnum((unsigned char) *path) || strchr(safe, *path) != NULL))
			appendStringInfoChar(&encoded, *path);
		else
			appendStringInfo(&encoded, format, (unsigned char) *path);
	return keep(encoded.data);
}

static char *
change_ascii_case(const char *path, int how)
{
	char	   *changed = keep(pg_strdup(path));

	for (char *p = changed; *p != '\0'; p++)
		if (how == 0 ? next_random(2) : how == 1)
			*p = pg_ascii_toupper((unsigned char) *p);
		else
			*p = pg_ascii_tolower((unsigned char) *p);
	return changed;
}

/* Changes the case of some of the letters that have another case. */
static char *
change_case(const char *path)
{
	static const char *const pairs[][2] = {
		{E_ACUTE, E_ACUTE_UPPER}, {A_UMLAUT, A_UMLAUT_UPPER}, {SHARP_S, SHARP_S_UPPER},
		{SIGMA, SIGMA_UPPER}, {SIGMA_FINAL, SIGMA_UPPER}, {I_DOTLESS, "I"},
		{"i", I_DOT}, {I_DOT, I_DOT_LOWER}, {IOTA_TWO, IOTA_TWO_UPPER},
		{J_CARON, J_CARON_UPPER}, {ANGSTROM, A_RING}, {A_UMLAUT_UPPER, A_UMLAUT},
	};
	StringInfoData changed;

	initStringInfo(&changed);
	while (*path != '\0')
	{
		int			i;

		for (i = 0; i < lengthof(pairs); i++)
			if (strncmp(path, pairs[i][0], strlen(pairs[i][0])) == 0)
				break;
		if (i < lengthof(pairs) && next_random(4) > 0)
		{
			appendStringInfoString(&changed, pairs[i][1]);
			path += strlen(pairs[i][0]);
		}
		else
			appendStringInfoChar(&changed, *path++);
	}
	return keep(changed.data);
}

static char *
normalise(const char *path, UnicodeNormalizationForm form)
{
	pg_wchar   *letters = palloc((strlen(path) + 1) * sizeof(pg_wchar));
	unsigned char buffer[8];
	StringInfoData normalised;
	pg_wchar   *p = letters;

	for (; *path != '\0'; path += pg_utf_mblen((const unsigned char *) path))
		*p++ = utf8_to_unicode((const unsigned char *) path);
	*p = 0;
	p = unicode_normalize(form, letters);
	pfree(letters);
	letters = p;
	initStringInfo(&normalised);
	for (; *p != 0; p++)
	{
		unicode_to_utf8(*p, buffer);
		appendBinaryStringInfo(&normalised, (char *) buffer, pg_utf_mblen(buffer));
	}
	pfree(letters);
	return keep(normalised.data);
}

static char *
with_backslashes(const char *path)
{
	char	   *changed = keep(pg_strdup(path));

	for (char *p = changed; *p != '\0'; p++)
		if (*p == '/')
			*p = '\\';
	return changed;
}

static char *
with_more_slashes(const char *path)
{
	static const char *const slashes[] = {"//", "/./", "///", "/x/../", "/"};
	StringInfoData changed;

	initStringInfo(&changed);
	appendStringInfoString(&changed, next_random(2) ? "./" : "../");
	for (; *path != '\0'; path++)
		if (*path == '/')
			appendStringInfoString(&changed, pick(slashes, lengthof(slashes)));
		else
			appendStringInfoChar(&changed, *path);
	return keep(changed.data);
}

/*
 * Ways to write a path.  The first few only change letters, and can be
 * combined with any other way.
 */
#define LETTER_FORMS	5
#define ALL_FORMS		19

/* Mostly few: texts of many KiB take their time. */
static int
many(int most)
{
	return next_random(next_random(50) == 0 ? most : 20);
}

static char *
written(const char *path, int form)
{
	static const char *const directories[] = {
		"/srv/uploads/", "/", "uploads/", "https://host/", "https://h:80/a/b/", "s3://bucket/",
		"file:///srv/up/", "//cdn/", "C:/up/", "C:", "file:", "gs://b/%20/", "http://x?y#z/", "%FF/",
		"%C3/", E_ACUTE "/", "./", "../", "a\\b/", "/%2F/", "\377/",
	};
	static const char *const queries[] = {"?x=1", "?sig=a/b%2Fc&d=\303\251#t=10", "#t=10", "?", "#"};

	switch (form)
	{
		case 0:
			return keep(pg_strdup(path));
		case 1:
			return change_ascii_case(path, next_random(3));
		case 2:
			return change_case(path);
		case 3:
			return normalise(path, UNICODE_NFC);
		case 4:
			return normalise(path, UNICODE_NFD);
		case 5:
			return encode(path);
		case 6:
			return with_more_slashes(path);
		case 7:
			return with_backslashes(path);
		case 8:
			return keep(psprintf("C:\\up\\%s", with_backslashes(path)));
		case 9:
			return keep(psprintf("%s%s", path, pick(queries, lengthof(queries))));
		case 10:
			return keep(psprintf("%s%s", encode(path), pick(queries, lengthof(queries))));
		case 11:
			return keep(psprintf("https://host/up/%s%s", encode(path), pick(queries, lengthof(queries))));
		case 12:
			return keep(psprintf("%s%s", pick(directories, lengthof(directories)), encode(path)));
		case 13:
			return keep(psprintf("file:///srv/%s", encode(path)));
		case 14:
			return encode(keep(psprintf("https://host/up/%s", path)));
		case 15:
			return keep(psprintf("%s%s/", repeat("d/", many(6000)), path));
		case 16:
			return keep(psprintf("https://h/%s?sig=%s", path, repeat("x/", many(9000))));
		default:
			return keep(psprintf("%s%s", pick(directories, lengthof(directories)), path));
	}
}

static bool
has_edge_space(const char *path)
{
	return isspace((unsigned char) path[0]) ||
		isspace((unsigned char) path[strlen(path) - 1]);
}

static char *
with_spaces(char *reference, const char *path)
{
	static const char *const spaces[] = {" ", "\n", "\t", "\r\n", "  "};

	if (next_random(4) > 0 || has_edge_space(path))
		return reference;
	return keep(psprintf("%s%s%s", pick(spaces, lengthof(spaces)), reference,
						 pick(spaces, lengthof(spaces))));
}

/*
 * A path in any form protects its file, and the keys and the texts agree.
 * Only the first few failures are told.
 */
static void
test_generosity(bool odd, int count)
{
	int			failures[ALL_FORMS] = {0};
	int			disagreements = 0;
	int			not_strict = 0;

	for (int i = 0; i < count; i++)
	{
		char	   *path = random_path(odd);
		int			form = next_random(ALL_FORMS);
		char	   *letters = written(path, next_random(LETTER_FORMS));
		char	   *reference = with_spaces(written(letters, form), path);
		size_t		len = strlen(reference);

		if (key_compare(&usual, path, strlen(path), path) != KEY_STRICT_MATCH)
			not_strict++;
		if (key_compare(&usual, reference, len, path) == KEY_NO_MATCH &&
			failures[form]++ < 3)
			diag("form %d: \"%s\" does not protect \"%s\"", form,
				 show(reference, len), show(path, strlen(path)));
		if (!agrees(&usual, reference, len, path,
					key_compare(&usual, reference, len, path) != KEY_NO_MATCH) &&
			disagreements++ < 3)
			diag("\"%s\" and \"%s\"", show(reference, len), show(path, strlen(path)));
		drop_kept();
	}
	for (int form = 0; form < ALL_FORMS; form++)
		is(failures[form], 0, tap_text("form %d of a path protects it (%s letters)",
									   form, odd ? "odd" : "plain"));
	is(disagreements, 0, "keys and texts agree");
	is(not_strict, 0, "a path is strict for itself");
}

/*
 * Checks ids, and files that other files are derived from, in all forms, too.
 */
static void
test_generosity_of_names(bool odd, int count)
{
	int			id_failures = 0;
	int			derived_failures = 0;

	for (int i = 0; i < count; i++)
	{
		StringInfoData id;
		char	   *file;
		char	   *derived;
		char	   *reference;
		int			form;

		initStringInfo(&id);
		appendStringInfoString(&id, next_random(2) ? "d/" : "");
		append_component(&id, odd);
		appendStringInfoString(&id, "1");	/* no extension of audio */
		file = keep(psprintf("%s.mp3", id.data));
		derived = keep(psprintf("%s%s.wav", id.data, suffixes[next_random(lengthof(suffixes))]));

		form = next_random(ALL_FORMS);
		reference = written(written(id.data, next_random(LETTER_FORMS)), form);
		if (key_compare(&usual, reference, strlen(reference), file) == KEY_NO_MATCH &&
			id_failures++ < 3)
			diag("form %d: \"%s\" does not protect \"%s\"", form,
				 show(reference, strlen(reference)), show(file, strlen(file)));
		if (key_compare(&usual, reference, strlen(reference), derived) == KEY_NO_MATCH &&
			derived_failures++ < 3)
			diag("form %d: \"%s\" does not protect \"%s\"", form,
				 show(reference, strlen(reference)), show(derived, strlen(derived)));
		reference = written(written(file, next_random(LETTER_FORMS)), form);
		if (key_compare(&usual, reference, strlen(reference), derived) == KEY_NO_MATCH &&
			derived_failures++ < 3)
			diag("form %d: \"%s\" does not protect \"%s\"", form,
				 show(reference, strlen(reference)), show(derived, strlen(derived)));
		pfree(id.data);
		drop_kept();
	}
	is(id_failures, 0, tap_text("an id protects its file in any form (%s letters)",
								odd ? "odd" : "plain"));
	is(derived_failures, 0, tap_text("what it is derived from protects a file (%s letters)",
									 odd ? "odd" : "plain"));
}

/* Spoil a text a little: most pairs are still nearly right. */
static char *
mutate(const char *text, size_t *len)
{
	static const char *const bits[] = {
		"/", "//", "..", "../", ".", "?", "#", "%", "%2F", "%00", "\\", ":", " ",
		"_processed", "_clean", ".mp3", ".wav", "a", "A", E_ACUTE, "e", "\314\201", "\303",
		"\377", "https://h/", "C:",
	};
	StringInfoData mutated;
	size_t		at = next_random(*len + 1);
	size_t		gone = next_random(3) == 0 ? next_random(6) : 0;

	gone = Min(gone, *len - at);
	initStringInfo(&mutated);
	appendBinaryStringInfo(&mutated, text, (int) at);
	if (next_random(3))
		appendStringInfoString(&mutated, pick(bits, lengthof(bits)));
	appendBinaryStringInfo(&mutated, text + at + gone, (int) (*len - at - gone));
	*len = mutated.len;
	return keep(mutated.data);
}

static void
test_agreement(int count)
{
	int			disagreements = 0;
	int			matches = 0;
	int			strict = 0;
	KeyRules	rules = usual;

	for (int i = 0; i < count; i++)
	{
		char	   *path = random_path(true);
		char	   *reference = written(path, next_random(ALL_FORMS));
		size_t		len = strlen(reference);
		int			mutations = next_random(3);
		KeyMatch	match;

		while (mutations-- > 0)
			reference = mutate(reference, &len);
		rules.utf8 = next_random(8) > 0;
		rules.upload_dir = next_random(2) ? "/srv/uploads" : NULL;
		rules.n_suffixes = next_random(lengthof(suffixes) + 1);
		match = key_compare(&rules, reference, len, path);
		matches += match != KEY_NO_MATCH;
		strict += match == KEY_STRICT_MATCH;
		if (!agrees(&rules, reference, len, path, match != KEY_NO_MATCH) &&
			disagreements++ < 5)
			diag("\"%s\" and \"%s\"", show(reference, len), show(path, strlen(path)));
		drop_kept();
	}
	is(disagreements, 0, "keys and texts agree on spoilt references");
	ok(matches > count / 4 && matches < count * 3 / 4, "some of them match, others do not");
	diag("%d of %d match, %d strictly", matches, count, strict);
}

/*
 * The short way for ordinary references and the long way find the same keys of
 * files.  A space at the end makes a reference not ordinary.  A key that no
 * file has does nothing, and may come either way.
 */
static void
test_short_way(int count)
{
	static KeyList of_files;
	int			missing = 0;

	for (int i = 0; i < count; i++)
	{
		char	   *path = random_path(next_random(2) == 0);
		char	   *longer = keep(psprintf("%s ", path));
		KeyScope	scope = {.keys_expected = MANY_KEYS};

		key_widen_scope(&usual, DEEPER_FILE, &scope);
		key_widen_scope(&usual, path, &scope);
		collect_reference(&usual, &scope, path, strlen(path), &reference_keys);
		collect_reference(&usual, &scope, longer, strlen(longer), &file_keys);
		of_files.n = 0;
		key_of_file(&usual, path, KEY_ALL_FAMILIES, collect, &of_files);
		key_of_file(&usual, DEEPER_FILE, KEY_ALL_FAMILIES, collect, &of_files);
		for (int k = 0; k < reference_keys.n && !has_edge_space(path); k++)
			if (in_list(&of_files, reference_keys.keys[k]) && !in_list(&file_keys, reference_keys.keys[k]))
			{
				if (missing++ < 3)
					diag("a key of \"%s\"", show(path, strlen(path)));
				break;
			}
		key_forget_scope(&scope);
		drop_kept();
	}
	is(missing, 0, "no key gets lost on the long way");
}


/* ------------------------------------------------------------ many files --- */

/* Half of the files have a name that other files have, too. */
static const char *
numbered_file(int i)
{
	static char path[64];

	if (i % 2 == 0)
		sprintf(path, "%d/take %d.mp3", i, i);
	else
		sprintf(path, "%d/recording.mp3", i);
	return path;
}

typedef struct Numbers
{
	KeyScope   *scope;
	int			wrong;
	int			n;
	int			n_shared;
	uint8		first[MANY_FILES];	/* how many keys have come with this file */
} Numbers;

/*
 * Checks that the number belongs to a key of that file, and that `is_shared`
 * says whether other files have the key.
 */
static void
check_number(int64 number, int64 file, bool is_shared, void *arg)
{
	Numbers    *numbers = arg;
	bool		found = false;

	file_keys.n = 0;
	key_of_file(&usual, numbered_file((int) file), KEY_ALL_FAMILIES, collect, &file_keys);
	for (int i = 0; i < file_keys.n; i++)
		found |= key_number(numbers->scope, file_keys.keys[i]) == number;
	numbers->wrong += !found;
	numbers->n++;
	numbers->n_shared += is_shared;
	numbers->first[file]++;
}

/* Tells the scope how many keys will come with the files. */
static void
expect_many_files(KeyScope *scope)
{
	for (int i = 0; i < MANY_FILES; i++)
		scope->keys_expected += key_count_most(&usual, numbered_file(i));
}

static void
add_many_files(KeyScope *scope)
{
	for (int i = 0; i < MANY_FILES; i++)
		key_widen_scope(&usual, numbered_file(i), scope);
}

static void
count_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	(*(int *) arg)++;
}

/*
 * Searches references to all of the files, and to as many missing files.
 * Counts the references that had no key, or a key, wrongly.
 */
static void
ask_for_all(KeyScope *scope, int *missed, int *false_ones)
{
	*missed = *false_ones = 0;
	for (int i = 0; i < 2 * MANY_FILES; i++)
	{
		char	   *reference = psprintf("x/%s%s", i < MANY_FILES ? "" : "other", numbered_file(i));
		int			found = 0;

		key_of_reference(&usual, scope, reference, strlen(reference), count_key, &found);
		*missed += i < MANY_FILES && found == 0;
		*false_ones += i >= MANY_FILES && i % 2 == 0 && found > 0;
		pfree(reference);
	}
}

static void
test_many_files(void)
{
	KeyScope	scope = {.seed = UINT64CONST(0x0123456789ABCDEF)};
	Numbers		numbers = {.scope = &scope};
	int			lost = 0;
	int			few = 0;
	int			missed;
	int			false_ones;

	expect_many_files(&scope);
	add_many_files(&scope);
	key_each_number(&scope, check_number, &numbers);
	is(scope.too_many, false, tap_text("%d files are not too many for a MiB", MANY_FILES));
	is(numbers.wrong, 0, "each number is that of a key of its file");

	/*
	 * files that share their names have keys of their own only with the
	 * folder
	 */
	for (int i = 0; i < MANY_FILES; i++)
		few += numbers.first[i] != (i % 2 == 0 || i == 1 ? 4 : 2);
	is(few, 0, "each key comes with the first file that has it");
	is(numbers.n, 3 * MANY_FILES + 2, "and once");
	is(numbers.n_shared, 2, "keys that several files have are told");
	for (int i = 0; i < MANY_FILES; i++)
	{
		file_keys.n = 0;
		key_of_file(&usual, numbered_file(i), KEY_ALL_FAMILIES, collect, &file_keys);
		for (int k = 0; k < file_keys.n; k++)
			lost += key_number(&scope, file_keys.keys[k]) < 0;
	}
	is(lost, 0, "each key of each file has a number");
	ask_for_all(&scope, &missed, &false_ones);
	is(missed, 0, "a reference to any of them is found");
	is(false_ones, 0, "and none to another");
	key_forget_scope(&scope);
}

/*
 * Takes less memory at each step, so that a scope has room for all keys, or
 * for none.
 */
static void
test_too_many_files(void)
{
	int			missed_ever = 0;
	int			full = 0;
	int			roomy = 0;

	for (size_t max = 900 * 1024; max > 0; max = max > 64 ? max * 3 / 4 : 0)
	{
		KeyScope	scope = {.keys_max = max};
		Numbers		numbers = {.scope = &scope};
		int			missed;
		int			false_ones;

		expect_many_files(&scope);
		add_many_files(&scope);
		key_each_number(&scope, check_number, &numbers);
		ask_for_all(&scope, &missed, &false_ones);
		missed_ever += missed + numbers.wrong;
		full += scope.too_many;
		roomy += !scope.too_many;
		if (numbers.n != (scope.too_many ? 0 : 3 * MANY_FILES + 2) || false_ones > (scope.too_many ? MANY_FILES / 2 / 5 : 0))
			ok(false, "with %zu bytes %d keys and %d false ones", max, numbers.n, false_ones);
		key_forget_scope(&scope);
	}
	is(missed_ever, 0, "a reference is found, whether all keys have room or not");
	ok(full > 5 && roomy > 0, "%d scopes had no room for all, %d had", full, roomy);
}

/* More keys come than were expected: the filter has them. */
static void
test_unexpected_files(void)
{
	int			missed_ever = 0;
	int			full = 0;

	for (size_t expected = 0; expected < 4 * MANY_FILES; expected += MANY_FILES / 3)
	{
		KeyScope	scope = {.keys_expected = expected};
		int			missed;
		int			false_ones;

		add_many_files(&scope);
		ask_for_all(&scope, &missed, &false_ones);
		missed_ever += missed;
		full += scope.too_many;
		key_forget_scope(&scope);
	}
	is(missed_ever, 0, "a reference is found, however few keys were expected");
	ok(full > 3, "%d scopes had more keys than they had room for", full);
}

/* The number of keys is not underestimated, and for names of the usual kind told exactly. */
static void
test_counts(int count)
{
	KeyRules	rules = usual;
	int			under = 0;
	int			over = 0;

	for (int i = 0; i < count * 10; i++)
	{
		char	   *path = random_path(next_random(2) == 0);

		rules.n_suffixes = next_random(lengthof(suffixes) + 1);
		file_keys.n = 0;
		key_of_file(&rules, path, KEY_ALL_FAMILIES, collect, &file_keys);
		if (key_count_most(&rules, path) < file_keys.n && under++ < 3)
			diag("%d keys of \"%s\"", file_keys.n, show(path, strlen(path)));
		drop_kept();
	}
	for (int i = 0; i < MANY_FILES; i++)
		over += key_count_most(&usual, numbered_file(i)) != 4;
	is(under, 0, "no file has more keys than are expected");
	is(over, 0, "a name of the usual kind has as many");
}

/* References asked for together have the keys that each has alone. */
static void
test_asked_together(int count)
{
	KeyScope	scope = {.keys_max = 64 * 1024 * 1024,.keys_expected = 100 * (size_t) count};
	int			alone = 0;
	int			together = 0;

	for (int i = 0; i < count; i++)
	{
		char	   *path = random_path(next_random(2) == 0);

		key_widen_scope(&usual, path, &scope);
		drop_kept();
	}
	for (int i = 0; i < count * 2; i++)
	{
		char	   *path = i % 2 ? random_path(next_random(2) == 0) : keep(pstrdup(numbered_file(i)));

		key_widen_scope(&usual, i % 3 ? path : "a.mp3", &scope);
		key_of_reference(&usual, &scope, path, strlen(path), count_key, &alone);
		key_of_many(&usual, &scope, path, strlen(path), count_key, &together);
		drop_kept();
	}
	key_of_many_end(&scope, count_key, &together);
	is(together, alone, "references that are asked for together have the keys that each has alone");
	ok(alone > count, "%d keys", alone);
	key_forget_scope(&scope);
}

int
main(void)
{
	const char *setting = getenv("UNIT_FILES");
	int			count = setting ? Max(atoi(setting) / 10, 10) : 500;

	tap_begin();
	alarm(600);

	test_tables();
	test_audio();
	test_scope();
	test_long();
	/* outside the server, composing a letter searches a table from end to end */
	diag("random names from the seed %d", SEED);
	test_generosity(false, count * 10);
	test_generosity(true, count);
	test_generosity_of_names(false, count * 10);
	test_generosity_of_names(true, count);
	test_agreement(count);
	test_short_way(count);
	test_many_files();
	test_too_many_files();
	test_unexpected_files();
	test_counts(count);
	test_asked_together(count);
	return tap_end();
}
