/*-------------------------------------------------------------------------
 *
 * test_mail.c
 *	  Tries to break a mail by its texts, and to make libcurl wait for too
 *	  long.
 *
 * First decoders of the test read the headers again.  Then come conversations
 * with a mail server, which a child plays: the child gives the ordered
 * answers, and writes down what it hears.  The test interposes getaddrinfo(),
 * to play a name server that does not answer.  Nothing leaves this machine.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base64.h"

#include "src/pg/secret.h"
#include "src/mail/smtp.h"
#include "src/mail/message.h"
#include "tap.h"

#define SEED			20260731
#define ROUNDS			3000
#define MAILS			50
#define HEARD_MAX		(256 * 1024)

/* how long giving up may take */
#define PROMPT_MS		1000

static const char *const two[] = {"dba@example.com", "boss@example.com"};

static int64
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A mail whose contents do not matter. */
static const char *const no_headers[] = {"Subject: x", NULL};
static const Message any = {
	.from = "me@example.com",.to = two,.n_to = 2,.text = "x\n",.html = "x\n",.headers = no_headers
};

/*
 * Keeps a text that is not freed, so that valgrind does not count it as lost.
 */
static char *
keep(char *text)
{
	static char **kept = NULL;
	static int	n = 0;

	if (n % 1024 == 0)
		kept = realloc(kept, (n + 1024) * sizeof(char *));
	return kept[n++] = text;
}


/* ----------
 * Messages
 * ----------
 */

static void
test_addresses(void)
{
	static const char *const good[] = {
		"a@b", "root@localhost", "first.last+tag@mail.example.com", "o'neil@x-y.example", "a@127.0.0.1", "x_y=z@h"
	};
	static const char *const bad[] = {
		"", "@", "a", "a@", "@b", "a@b@", "a b@c", "a@b c", "a@b\n", "a@b\r\nBcc: x@y", "a\n@b", "<a@b>", "a@b>",
		"a,b@c", "a;b@c", "\"a\"@b", "a@[1.2.3.4]", "a..b@c", ".a@b", "a.@b", "a@.b", "a@b.", "a@b..c", "a@b_c",
		"\303\244@b", "a@\303\244.de", "a@b\177", "a@b\t",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b"
	};
	char		longest[300];
	int			i;

	for (i = 0; i < lengthof(good); i++)
		ok(message_is_address(good[i]), "\"%s\" is an address", good[i]);
	for (i = 0; i < lengthof(bad); i++)
		ok(!message_is_address(bad[i]), "bad address %d is none", i);
	memset(longest, 'b', sizeof(longest));
	memcpy(longest, "a@", 2);
	longest[255] = '\0';
	ok(!message_is_address(longest), "255 bytes are no address");
	longest[254] = '\0';
	ok(message_is_address(longest), "254 bytes are one");
}

/* Returns the message with these texts; its headers are ours. */
static Message
make_item(const char *subject, const char *text, const char *html)
{
	Message		message = {
		.from = "me@example.com",.to = two,.n_to = 2,.id = "1.2@example.com",
		.date = "Thu, 26 Nov 2026 07:00:00 +0000",.subject = subject,.text = text,.html = html
	};

	message.headers = message_headers(&message);
	keep((char *) message.headers);
	return message;
}

/* Returns the text of the headers that is sent. */
static char *
build(const char *subject)
{
	Message		item = make_item(subject, "", "");
	char	   *data = "";
	const char *const *header;

	for (header = item.headers; *header != NULL; header++)
		data = keep(psprintf("%s%s\r\n", data, *header));
	return keep(psprintf("%s\r\n", data));
}

static int
hex(char c)
{
	return c >= 'A' ? c - 'A' + 10 : c - '0';
}

/* Decodes quoted-printable. */
static char *
decode(const char *s, size_t length)
{
	char	   *out = keep(palloc(length + 1));
	char	   *o = out;
	const char *end = s + length;

	while (s < end)
	{
		if (*s == '=' && s[1] == '\r')
			s += 3;
		else if (*s == '=')
		{
			*o++ = hex(s[1]) << 4 | hex(s[2]);
			s += 3;
		}
		else if (*s == '\r')
			s++;
		else
			*o++ = *s++;
	}
	*o = '\0';
	return out;
}

/* The value of the only header of this name, unfolded; NULL otherwise. */
static char *
find_header(const char *data, const char *name)
{
	const char *body = strstr(data, "\r\n\r\n");
	char	   *found = NULL;
	const char *line = data;

	while (line < body)
	{
		const char *end = strstr(line, "\r\n");

		while (end < body && end[2] == ' ')
			end = strstr(end + 2, "\r\n");
		if (pg_strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
		{
			if (found != NULL)
				return NULL;
			line += strlen(name) + 2;
			found = keep(strndup(line, end - line));
		}
		line = end + 2;
	}
	return found;
}

static char *
decode_header(const char *value)
{
	char	   *out = keep(palloc(strlen(value) + 1));

	if (strncmp(value, "=?", 2) != 0)
		return strcpy(out, value);
	*out = '\0';
	while (strncmp(value, "=?UTF-8?B?", 10) == 0)
	{
		const char *end = strstr(value + 10, "?=");
		char		word[75] = "";

		if (end - value + 2 > 75)
			return keep(pstrdup("(an encoded word is too long)"));
		if (pg_b64_decode(value + 10, end - value - 10, (void *) word, sizeof(word)) <= 0)
			return keep(pstrdup("(an encoded word is no base64)"));
		strcat(out, word);
		value = end + 2;
		if (strncmp(value, "\r\n ", 3) == 0)
			value += 3;
	}
	return *value == '\0' ? out : keep(pstrdup("(something stands behind an encoded word)"));
}

/*
 * Returns the content of the n-th part, from 0, of a mail that was heard; NULL
 * if there are not two parts.
 */
static char *
find_part(const char *heard, int n)
{
	const char *boundary = strstr(heard, "boundary=");
	const char *starts[4];
	const char *at = heard;
	char	   *line;
	int			count = 0;

	if (boundary == NULL)
		return NULL;
	boundary += strlen("boundary=");
	line = keep(psprintf("\r\n--%.*s", (int) strcspn(boundary, "\r"), boundary));
	while ((at = strstr(at, line)) != NULL && count < 4)
		starts[count++] = at++;
	if (count != 3 || strncmp(starts[2] + strlen(line), "--\r\n.\r\n", 7) != 0)
		return NULL;
	at = strstr(starts[n], "\r\n\r\n") + 4;
	return decode(at, starts[n + 1] - at);
}

static const char *
check_lines(const char *data, int max)
{
	int			column = 0;

	for (; *data != '\0'; data++)
	{
		if (*data == '\r' && data[1] == '\n')
		{
			if (column > 0 && (data[-1] == ' ' || data[-1] == '\t'))
				return "a line ends with a space";
			data++;
			column = 0;
			continue;
		}
		if (*data != '\t' && (*data < 0x20 || *data > 0x7e))
			return "a byte is not printable ASCII";
		if (++column > max)
			return "a line is too long";
	}
	return column == 0 ? NULL : "the last line has no end";
}

static int
count_headers(const char *data)
{
	const char *body = strstr(data, "\r\n\r\n");
	int			n = 0;

	for (; data < body + 2; data = strstr(data, "\r\n") + 2)
		n += *data != ' ';
	return n;
}

static const char *
find_fault(const char *subject)
{
	char	   *data = build(subject);
	const char *fault = check_lines(data, 998);
	char	   *header = find_header(data, "Subject");

	if (fault != NULL)
		return fault;
	if (count_headers(data) != 6)
		return "there is another number of headers";
	if (header == NULL || strcmp(decode_header(header), subject) != 0)
		return tap_text("the subject is another: %s", header ? decode_header(header) : "none");
	return NULL;
}

static const char *const hostile[] = {
	"", "plain", "two\nlines\n", ".\n", "a\n.\nb\n", "\n..\n", "x\r\n.\r\nMAIL FROM:<a@b>\r\n",
	"\r\nBcc: x@y\r\n\r\nbody", "--------------------------0123456789abcdef--\n", "\n--\nContent-Type: text/html\n",
	"trailing space \nand tab\t\n", " ", "=?UTF-8?Q?evil?=", "=3D=\n", "From me\n", "\001\033[31mred\177",
	"gr\303\274n \342\200\256 \360\237\230\200",
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	"                                                                                                    x",
	"\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274\303\274"
};

static void
test_hostile_subjects(void)
{
	int			i;

	for (i = 0; i < lengthof(hostile); i++)
	{
		const char *fault = find_fault(tap_text("s%s", hostile[i]));

		ok(fault == NULL, "hostile subject %d: %s", i, fault ? fault : "as it was");
	}
}

/* Valid UTF-8 of what is likely to do harm. */
static char *
random_text(int max)
{
	static const char *const pieces[] = {
		"a", "Z", " ", "\t", "\n", "\r", "\r\n", ".", "=", "?", "_", "=?", "?=", "--", "boundary=", "<",
		"\303\274", "\342\202\254", "\360\237\230\200", "\001", "word", "very long word indeed"
	};
	int			n = rand() % max;
	char	   *text = keep(palloc0(n * 24 + 1));

	while (n-- > 0)
		strcat(text, pieces[rand() % lengthof(pieces)]);
	return text;
}

static void
test_random_subjects(void)
{
	const char *fault = NULL;
	int			i;

	srand(SEED);
	for (i = 0; i < ROUNDS && fault == NULL; i++)
		fault = find_fault(tap_text("s%s", random_text(40)));
	ok(fault == NULL, "%d random subjects: %s", i, fault ? fault : "as they were");
}

static void
test_headers(void)
{
	char	   *data = build("audio_cleanup on db1/app: 412 files, 3.1 GiB freed, 2 errors");

	ok(strcmp(find_header(data, "Date"), "Thu, 26 Nov 2026 07:00:00 +0000") == 0, "Date: %s", find_header(data, "Date"));
	ok(strcmp(find_header(data, "From"), "audio_cleanup <me@example.com>") == 0, "From");
	ok(strcmp(find_header(data, "To"), "dba@example.com,\r\n boss@example.com") == 0, "To");
	ok(strcmp(find_header(data, "Message-ID"), "<1.2@example.com>") == 0, "Message-ID");
	ok(strcmp(find_header(data, "Subject"), "audio_cleanup on db1/app: 412 files, 3.1 GiB freed, 2 errors") == 0,
	   "a subject of ASCII stands as it is");
	ok(strcmp(find_header(data, "Auto-Submitted"), "auto-generated") == 0, "Auto-Submitted");
	ok(strcmp(decode_header(find_header(build("\377\303"), "Subject")), "\377\303") == 0,
	   "a character without its end");
}


/* ----------
 * Passwords
 * ----------
 */

static char folder[1024];

static const char *
put_secret(const char *name, const char *content, mode_t mode)
{
	const char *path = tap_text("%s/%s", folder, name);
	FILE	   *file = fopen(path, "w");

	if (file == NULL || fputs(content, file) < 0 || fclose(file) != 0 || chmod(path, mode) != 0)
		abort();
	return path;
}

static void
is_secret(const char *path, const char *want, const char *text)
{
	char		secret[SECRET_FILE_MAX];
	const char *error = secret_read(path, secret, sizeof(secret));

	ok(error == NULL && strcmp(secret, want) == 0, "%s%s%s", text, error ? ": " : "", error ? error : "");
}

static void
is_no_secret(const char *path, const char *want, const char *text)
{
	char		secret[SECRET_FILE_MAX];
	const char *error = secret_read(path, secret, sizeof(secret));

	ok(error != NULL && strstr(error, want) != NULL, "%s: %s", text, error ? error : "it was read");
}

static void
test_secrets(void)
{
	char		text[SECRET_FILE_MAX + 2];
	const char *path;

	is_secret(put_secret("a", "word", 0600), "word", "a line without an end");
	is_secret(put_secret("b", "two words\r\nsecond line\n", 0400), "two words", "the first of two lines");
	is_no_secret(put_secret("c", "word\n", 0640), "rights", "its group may read it");
	is_no_secret(put_secret("d", "word\n", 0601), "rights", "others may do something");
	is_no_secret(put_secret("e", "", 0600), "empty", "an empty file");
	is_no_secret(put_secret("f", "\nword\n", 0600), "empty", "an empty line");
	is_no_secret(tap_text("%s/none", folder), "No such file", "no file");
	is_no_secret(folder, "regular", "a directory");

	memset(text, 'x', sizeof(text));
	text[SECRET_FILE_MAX] = '\0';
	is_no_secret(put_secret("g", text, 0600), "too long", "too long a line");
	text[SECRET_FILE_MAX - 1] = '\0';
	is_secret(put_secret("h", text, 0600), text, "the longest line");
	text[10] = '\n';
	text[SECRET_FILE_MAX - 1] = 'x';
	text[SECRET_FILE_MAX + 1] = '\0';
	is_secret(put_secret("i", text, 0600), "xxxxxxxxxx", "a short line of a long file");

	path = tap_text("%s/fifo", folder);
	if (mkfifo(path, 0600) != 0)
		abort();
	is_no_secret(path, "regular", "a FIFO, without waiting for it");
	path = "/etc/passwd";
	if (geteuid() == 0)
	{
		path = put_secret("j", "word\n", 0600);
		if (chown(path, 65534, (gid_t) -1) != 0)
			abort();
	}
	is_no_secret(path, "does not belong", "somebody else's file");
	if (symlink(put_secret("k", "word\n", 0600), tap_text("%s/link", folder)) != 0)
		abort();
	is_secret(tap_text("%s/link", folder), "word", "a symlink to a good one");
}


/* ----------
 * A mail server
 * ----------
 */

/*
 * The server's reply to a command that begins with `command`; NULL: no reply,
 * ever.
 */
typedef struct Answer
{
	const char *command;
	const char *reply;
} Answer;

typedef struct Heard
{
	int			length;
	char		text[HEARD_MAX];
} Heard;

static struct
{
	pid_t		pid;
	int			port;
	Heard	   *heard;
}			server;

static void
hang(void)
{
	for (;;)
		pause();
}

static const char *
find_answer(const Answer *answers, const char *line)
{
	static const Answer usual[] = {
		{"banner", "220 mail.test\r\n"}, {"EHLO", "250-mail.test\r\n250 SIZE 1000000\r\n"}, {"DATA", "354 go on\r\n"},
		{"QUIT", "221 bye\r\n"}, {"", "250 ok\r\n"}
	};

	for (; answers->command != NULL; answers++)
		if (strncmp(line, answers->command, strlen(answers->command)) == 0)
			return answers->reply;
	for (answers = usual; strncmp(line, answers->command, strlen(answers->command)) != 0; answers++)
		;
	return answers->reply;
}

static void
say(int fd, const char *reply)
{
	if (reply == NULL)
		hang();
	if (write(fd, reply, strlen(reply)) < 0)
		_exit(0);
}

/* Serves one connection, line by line, also the lines after DATA. */
static void
serve(int fd, const Answer *answers)
{
	FILE	   *in = fdopen(fd, "r");
	char		line[2048];
	bool		data = false;

	say(fd, find_answer(answers, "banner"));
	while (fgets(line, sizeof(line), in) != NULL)
	{
		Heard	   *heard = server.heard;

		/* of a text that is too long, the end at least */
		if (heard->length < HEARD_MAX - 2 * sizeof(line) ||
			(strlen(line) < 100 && line[0] != 'x' && heard->length < HEARD_MAX - 100))
		{
			strcpy(heard->text + heard->length, line);
			heard->length += strlen(line);
		}
		if (data && strcmp(line, ".\r\n") != 0)
			continue;
		say(fd, find_answer(answers, data ? "end of data" : line));
		data = !data && strncmp(line, "DATA", 4) == 0;
		if (strncmp(line, "QUIT", 4) == 0)
			break;
	}
}

static void
start_server(const Answer *answers)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	size = sizeof(address);
	int			listener = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(listener, (struct sockaddr *) &address, size) != 0 || listen(listener, 8) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &size) != 0)
		abort();
	memset(server.heard, 0, sizeof(Heard));
	server.port = ntohs(address.sin_port);
	server.pid = fork();
	if (server.pid == 0)
	{
		alarm(60);
		serve(accept(listener, NULL, NULL), answers);
		_exit(0);
	}
	close(listener);
}

static void
stop_server(void)
{
	kill(server.pid, SIGKILL);
	waitpid(server.pid, NULL, 0);
}


/* ----------
 * Conversations
 * ----------
 */

static volatile sig_atomic_t stopped = 0;

static bool
is_stopped(void)
{
	return stopped != 0;
}

static void
stop_by_signal(SIGNAL_ARGS)
{
	stopped = 1;
}

/* The outcome of a conversation, and its duration. */
typedef struct Talk
{
	MailOutcome outcome;
	char		error[MAIL_ERROR_SIZE]; /* "": there is no error */
	bool		refused[2];
	bool		begun;
	bool		over;			/* the conversation ended by itself, within
								 * max_ms */
	int64		end_ms;			/* how long the end took */
	int64		ms;
} Talk;

static Talk
talk(const MailSettings *to, const Message *item, int max_ms)
{
	int64		began = now_ms();
	bool		refused[2] = {false, false};
	MailResult	said = {.refused = refused};
	Mail	   *mail = mail_begin(to, "hunter2hunter2", item, is_stopped, &said);
	Talk		result = {.begun = mail != NULL};
	bool		more = true;

	if (mail == NULL)
		return result;
	while (now_ms() - began < max_ms && (more = mail_step(mail, 50)))
		;
	result.over = !more;
	result.ms = now_ms() - began;
	result.outcome = said.outcome;
	strcpy(result.error, said.error ? said.error : "");
	memcpy(result.refused, refused, sizeof(refused));
	mail_end(mail);
	result.end_ms = now_ms() - began - result.ms;
	return result;
}

static MailSettings
plain_server(void)
{
	MailSettings plain = {.url = unconstify(char *, tap_text("smtp://127.0.0.1:%d", server.port)),.user = "",.ca_file = "",.total_seconds = 10};

	return plain;
}

static Talk
talk_plainly(const Answer *answers, const Message *item, int max_ms)
{
	MailSettings plain;
	Talk		result;

	start_server(answers);
	plain = plain_server();
	result = talk(&plain, item, max_ms);
	/* the server writes down what it heard last */
	usleep(20000);
	stop_server();
	return result;
}

static void
is_outcome(const Talk *got, MailOutcome want, const char *error, const char *text)
{
	ok(got->over && got->outcome == want && (*error == '\0') == (*got->error == '\0') &&
	   strstr(got->error, error) != NULL,
	   "%s: %d \"%s\"", text, got->outcome, got->error);
}

static void
test_good(void)
{
	static const Answer answers[] = {{NULL, NULL}};
	Message		item = make_item("subject", "text\n", "html\n");
	Talk		got = talk_plainly(answers, &item, 5000);
	const char *heard = server.heard->text;
	const char *data = strstr(heard, "DATA\r\n");

	is_outcome(&got, MAIL_SENT, "", "a mail is taken");
	ok(!got.refused[0] && !got.refused[1], "nobody is refused");
	ok(strstr(heard, "MAIL FROM:<me@example.com>") != NULL, "the sender");
	ok(strstr(heard, "RCPT TO:<dba@example.com>\r\nRCPT TO:<boss@example.com>\r\n") != NULL, "the recipients");
	ok(data != NULL && strstr(data, "\r\nTo: dba@example.com,\r\n boss@example.com\r\n") != NULL, "a header of two lines");
	ok(data != NULL && find_header(data + 6, "MIME-Version") != NULL &&
	   strncmp(find_header(data + 6, "Content-Type"), "multipart/alternative; boundary=", 32) == 0,
	   "two forms of one text");
	ok(strstr(heard, "\r\n.\r\nQUIT\r\n") != NULL, "and a word of farewell");
}

/* Returns the mail without the doubling of dots at the beginning of a line. */
static char *
undouble_dots(const char *heard, size_t length)
{
	char	   *mail = keep(palloc(length + 1));
	char	   *end = mail;
	const char *s;

	for (s = heard; s < heard + length; s++)
	{
		if (s > heard && s[-1] == '\n' && s[0] == '.' && s[1] == '.')
			s++;
		*end++ = *s;
	}
	*end = '\0';
	return mail;
}

/*
 * Returns a text about a mistake in the mail that the server has heard, or
 * NULL.
 */
static const char *
find_fault_in_mail(const char *text, const char *html)
{
	static const Answer answers[] = {{NULL, NULL}};
	Message		item = make_item("subject", text, html);
	Talk		got = talk_plainly(answers, &item, 5000);
	const char *data = strstr(server.heard->text, "DATA\r\n");
	const char *end;
	char	   *mail;
	char	   *parts[2];

	if (got.outcome != MAIL_SENT || data == NULL || (end = strstr(data, "\r\n.\r\nQUIT")) == NULL)
		return "the mail was not sent whole";
	mail = undouble_dots(data + 6, end + 5 - data - 6);
	if (count_headers(mail) != 8)
		return "there is another number of headers";
	parts[0] = find_part(mail, 0);
	parts[1] = find_part(mail, 1);
	if (parts[0] == NULL || parts[1] == NULL)
		return "there are not two parts";
	if (strcmp(parts[0], text) != 0 || strcmp(parts[1], html) != 0)
		return "the content of a part is another";
	/* libcurl makes one header that is longer than the limit */
	return check_lines(strstr(mail, "\r\n\r\n"), 76);
}

static void
test_texts(void)
{
	const char *fault = NULL;
	int			i;

	for (i = 0; i < lengthof(hostile); i++)
	{
		fault = find_fault_in_mail(hostile[i], hostile[i]);
		ok(fault == NULL, "hostile text %d: %s", i, fault ? fault : "as it was");
	}
	fault = NULL;
	for (i = 0; i < MAILS && fault == NULL; i++)
		fault = find_fault_in_mail(random_text(60), random_text(200));
	ok(fault == NULL, "%d random mails: %s", i, fault ? fault : "as they were");
}

static void
test_refusals(void)
{
	static const Answer second[] = {{"RCPT TO:<boss", "550 5.1.1 no \001such\377 user\r\n"}, {NULL, NULL}};
	static const Answer all[] = {{"RCPT", "550-5.1.1 nobody\r\n550 5.1.1 lives here\r\n"}, {NULL, NULL}};
	static const Answer content[] = {{"end of data", "554 5.6.0 I do not like it\r\n"}, {NULL, NULL}};
	static const Answer sender[] = {{"MAIL", "553 5.7.1 not you\r\n"}, {NULL, NULL}};
	static const Answer busy[] = {{"banner", "421 4.3.2 too busy\r\n"}, {NULL, NULL}};
	Talk		got;

	got = talk_plainly(second, &any, 5000);
	is_outcome(&got, MAIL_SENT, "550 5.1.1 no ?such? user", "one recipient is refused");
	ok(!got.refused[0] && got.refused[1], "it is known which one");
	got = talk_plainly(all, &any, 5000);
	is_outcome(&got, MAIL_REFUSED, "550 5.1.1 lives here", "all are refused");
	ok(got.refused[0] && got.refused[1], "both");
	got = talk_plainly(content, &any, 5000);
	is_outcome(&got, MAIL_REFUSED, "554 5.6.0 I do not like it", "the mail is refused");
	got = talk_plainly(sender, &any, 5000);
	is_outcome(&got, MAIL_REFUSED, "553 5.7.1 not you", "the sender is refused");
	got = talk_plainly(busy, &any, 5000);
	is_outcome(&got, MAIL_UNREACHABLE, "421 4.3.2 too busy", "the server is busy");
}

static void
test_security(void)
{
	static const Answer answers[] = {{"EHLO", "250-mail.test\r\n250 AUTH PLAIN LOGIN\r\n"}, {NULL, NULL}};
	MailSettings to;
	Talk		got;

	start_server(answers);
	to = plain_server();
	to.tls = true;
	to.user = "me";
	got = talk(&to, &any, 5000);
	is_outcome(&got, MAIL_UNREACHABLE, "STARTTLS not supported", "STARTTLS is not offered");
	ok(strstr(server.heard->text, "AUTH") == NULL && strstr(server.heard->text, "MAIL") == NULL,
	   "nothing was sent in the clear");
	stop_server();

	start_server(answers);
	to = plain_server();
	to.user = "me";
	got = talk(&to, &any, 1000);
	ok(!got.begun && server.heard->length == 0, "without TLS nobody logs in");
	stop_server();

	to.user = "";
	to.url = "http://127.0.0.1/";
	got = talk(&to, &any, 1000);
	is_outcome(&got, MAIL_UNREACHABLE, "http", "other protocols are refused");
	to.url = "file:///etc/passwd";
	got = talk(&to, &any, 1000);
	is_outcome(&got, MAIL_UNREACHABLE, "file", "files are refused");
}

/*
 * Checks a port that nobody listens on: another process had the port a moment
 * ago.
 */
static void
test_nobody_there(void)
{
	MailSettings to = plain_server();
	Talk		got = talk(&to, &any, 5000);

	is_outcome(&got, MAIL_UNREACHABLE, "connect", "nobody listens");
	ok(got.ms < PROMPT_MS, "that is known at once");
}

static void
test_hanging(void)
{
	static const char *const where[] = {"banner", "EHLO", "MAIL", "DATA"};
	static const Answer goodbye[] = {{"QUIT", NULL}, {NULL, NULL}};
	Talk		got;
	int			i;

	for (i = 0; i < lengthof(where); i++)
	{
		const Answer answers[] = {{where[i], NULL}, {NULL, NULL}};

		got = talk_plainly(answers, &any, 300);
		ok(!got.over && got.ms < PROMPT_MS && got.end_ms < PROMPT_MS,
		   "it hangs at %s: given up within %lld ms", where[i], (long long) got.end_ms);
	}
	got = talk_plainly(goodbye, &any, 5000);
	is_outcome(&got, MAIL_SENT, "", "it hangs at QUIT: the mail is sent");
	ok(got.ms < PROMPT_MS && got.end_ms < PROMPT_MS, "and QUIT is not waited for: %lld ms", (long long) got.end_ms);
}

/* Stops at the places where libcurl waits by itself. */
static void
test_stopped(void)
{
	static const Answer data[] = {{"end of data", NULL}, {NULL, NULL}};
	static const Answer quit[] = {{"MAIL", "553 no\r\n"}, {"QUIT", NULL}, {NULL, NULL}};
	static const Answer *const answers[] = {data, quit};
	struct itimerval in_300_ms = {.it_value.tv_usec = 300000};
	Talk		got;
	int			i;

	pqsignal(SIGALRM, stop_by_signal);
	for (i = 0; i < lengthof(answers); i++)
	{
		stopped = 0;
		setitimer(ITIMER_REAL, &in_300_ms, NULL);
		got = talk_plainly(answers[i], &any, 8000);
		ok(stopped != 0, "a signal comes through while libcurl waits at \"%s\"", answers[i]->command);
		ok(got.over && got.outcome != MAIL_SENT && got.ms + got.end_ms < 2 * PROMPT_MS,
		   "and ends it: after %lld ms", (long long) (got.ms + got.end_ms));
	}
	stopped = 0;
}

/* The rest of the mail does not fit into the buffers on its way. */
static void
test_half_a_mail(void)
{
	static const Answer answers[] = {{"DATA", "354 go on\r\n"}, {NULL, NULL}};
	size_t		length = 64 * 1024 * 1024;
	char	   *data = palloc(length + 1);
	Message		item = {.from = "me@example.com",.to = two,.n_to = 2,.text = data,.html = "",.headers = no_headers};
	int64		began = now_ms();
	bool		more = true;
	bool		refused[2];
	MailResult	said = {.refused = refused};
	MailSettings to;
	Mail	   *mail;

	memset(data, 'x', length);
	memset(data + length, 0, 1);
	for (; length > 0; length -= Min(length, 64))
		data[length - 1] = '\n';
	start_server(answers);
	to = plain_server();
	mail = mail_begin(&to, "", &item, is_stopped, &said);
	while (more && server.heard->length < HEARD_MAX / 8 && now_ms() - began < 10000)
		more = mail_step(mail, 1);
	mail_end(mail);
	usleep(300000);
	stop_server();
	pfree(data);
	ok(more && server.heard->length >= HEARD_MAX / 8, "a mail is broken off in the middle");
	ok(strstr(server.heard->text, "\n.\r\n") == NULL, "and is not ended as if it were whole");
}

static void
test_time_limit(void)
{
	static const Answer answers[] = {{"EHLO", NULL}, {NULL, NULL}};
	MailSettings to;
	Talk		got;

	start_server(answers);
	to = plain_server();
	to.total_seconds = 1;
	got = talk(&to, &any, 5000);
	ok(got.over && got.outcome == MAIL_UNREACHABLE && got.ms < 3 * PROMPT_MS,
	   "the time is up: %s", got.error);
	stop_server();
}


/* ----------
 * A name server that does not answer
 * ----------
 */

static volatile bool names_hang = false;
static volatile bool resolved_in_thread = false;
static sigset_t mask_in_thread;
static pthread_t main_thread;

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	static int	(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (names_hang)
	{
		pthread_sigmask(SIG_SETMASK, NULL, &mask_in_thread);
		resolved_in_thread = !pthread_equal(pthread_self(), main_thread);
		while (names_hang)
			usleep(10000);
		return EAI_AGAIN;
	}
	return real(node, service, hints, result);
}

static void
test_name_server(void)
{
	MailSettings to = {.url = "smtp://mail.invalid:25",.user = "",.ca_file = "",.total_seconds = 10};
	Talk		got;

	main_thread = pthread_self();
	names_hang = true;
	got = talk(&to, &any, 300);
	ok(!got.over && got.ms < PROMPT_MS && got.end_ms < PROMPT_MS,
	   "the name server hangs: given up within %lld ms", (long long) got.end_ms);
	ok(resolved_in_thread, "names are resolved in a thread");
	ok(sigismember(&mask_in_thread, SIGTERM) && sigismember(&mask_in_thread, SIGUSR1) &&
	   sigismember(&mask_in_thread, SIGALRM), "in which no signal is handled");
	ok(sigprocmask(SIG_SETMASK, NULL, &mask_in_thread) == 0 && !sigismember(&mask_in_thread, SIGTERM),
	   "but in ours");
	/* let the thread end, too */
	names_hang = false;
	usleep(500000);
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");

	tap_begin();
	signal(SIGPIPE, SIG_IGN);
	snprintf(folder, sizeof(folder), "%s/test_mail.XXXXXX", tmp ? tmp : "/tmp");
	server.heard = mmap(NULL, sizeof(Heard), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (server.heard == MAP_FAILED || mkdtemp(folder) == NULL)
		abort();

	test_addresses();
	test_headers();
	test_hostile_subjects();
	test_random_subjects();
	test_secrets();
	test_good();
	test_texts();
	test_refusals();
	test_security();
	test_nobody_there();
	test_hanging();
	test_stopped();
	test_half_a_mail();
	test_time_limit();
	test_name_server();

	if (system(tap_text("rm -rf '%s'", folder)) != 0)
		diag("could not remove %s", folder);
	return tap_end();
}
