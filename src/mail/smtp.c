/*-------------------------------------------------------------------------
 *
 * mail/smtp.c
 *	  Hands a mail to an SMTP server, by libcurl, in steps.
 *
 * pg/curl.h tells how libcurl is used in a process of the server.  For mail:
 *
 * - libcurl waits by itself for the answer to the end of a mail.  Signals come
 *	 in between two steps, and in the progress callback.
 * - Giving up must not wait for the answer to QUIT: libcurl sends QUIT at the end
 *	 and waits two minutes, so the connection is shut down before.
 * - A mail that is broken off must not look like a whole mail: a handle that is
 *	 removed in the middle would end the mail properly, with a dot.  So the
 *	 progress callback makes the transfer fail before.
 *
 * libcurl's debug callback reads the server's answers: which recipients the
 * server refused, and the server's words, because an administrator needs these
 * words to find out what is wrong.  The answers are hostile, and may contain
 * what we have sent.  An answer with a secret is cut down to its number.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <sys/socket.h>

#include "src/mail/smtp.h"
#include "src/pg/curl.h"

#define CONNECT_SECONDS	10
#define REPLY_SIZE		256
#define SECRET_SIZE		512

/* a shorter secret could be in any text by chance */
#define SECRET_MIN		4

#if LIBCURL_VERSION_NUM >= 0x080200
#define MAIL_ALLOWFAILS	CURLOPT_MAIL_RCPT_ALLOWFAILS
#else
#define MAIL_ALLOWFAILS	CURLOPT_MAIL_RCPT_ALLLOWFAILS
#endif

struct Mail
{
	const MailSettings *settings;
	const char *password;
	const Message *message;
	bool		(*is_stopped) (void);
	CURLM	   *multi;
	CURL	   *easy;
	curl_mime  *mime;
	struct curl_slist *headers;
	struct curl_slist *recipients;
	sigset_t	signals;		/* signals that the caller blocks */
	bool		is_over;
	bool		given_up;
	/* the conversation */
	bool		in_auth;
	bool		in_envelope;	/* MAIL FROM was sent */
	bool		in_data;		/* DATA was sent */
	int			recipient;		/* number of the recipient whose RCPT was sent
								 * last; -1: no RCPT was sent */
	char		secret[SECRET_SIZE];	/* last word of the AUTH command */
	char		reply[REPLY_SIZE];	/* last answer that refuses */
	char		refusal[REPLY_SIZE];	/* last answer that refuses a
										 * recipient */
	char		curl_error[CURL_ERROR_SIZE];
	MailResult *result;
};


/* ----------------------------------------------------------------- signals --- */

/*
 * Unblocks signals for a moment, and tells libcurl whether to go on.  libcurl
 * calls this function while libcurl waits by itself, and at other times,
 * whether signals are blocked or not.
 */
static int
report_progress(void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	const Mail *mail = arg;
	sigset_t	here;

	pthread_sigmask(SIG_SETMASK, &mail->signals, &here);
	pthread_sigmask(SIG_SETMASK, &here, NULL);
	return mail->given_up || mail->is_stopped();
}


/* ------------------------------------------------------------ conversation --- */

static bool
begins_with(const char *line, size_t length, const char *word)
{
	return length >= strlen(word) && pg_strncasecmp(line, word, strlen(word)) == 0;
}

/*
 * Remembers the last word of the line: that of "AUTH PLAIN AGFubmE...", or a
 * later line with credentials.
 */
static void
remember_secret(Mail *mail, const char *line, size_t length)
{
	char	   *space;

	libcurl_copy_printable(mail->secret, sizeof(mail->secret), line, length);
	space = strrchr(mail->secret, ' ');
	if (space != NULL)
		memmove(mail->secret, space + 1, strlen(space + 1) + 1);
}

static void
hear_command(Mail *mail, const char *line, size_t length)
{
	if (begins_with(line, length, "AUTH "))
		mail->in_auth = true;
	else if (begins_with(line, length, "MAIL FROM:") || begins_with(line, length, "QUIT"))
		mail->in_auth = false;

	if (mail->in_auth)
		remember_secret(mail, line, length);
	else if (begins_with(line, length, "MAIL FROM:"))
		mail->in_envelope = true;
	else if (begins_with(line, length, "RCPT TO:"))
		mail->recipient++;
	else if (begins_with(line, length, "DATA"))
		mail->in_data = true;
}

static bool
is_betrayed(const char *line, size_t length, const char *secret)
{
	return strlen(secret) >= SECRET_MIN && memmem(line, length, secret, strlen(secret)) != NULL;
}

static void
keep_reply(Mail *mail, const char *line, size_t length)
{
	libcurl_copy_printable(mail->reply, sizeof(mail->reply), line, length);
	/* the whole line, because a part of a secret is a secret, too */
	if (is_betrayed(line, length, mail->secret) || is_betrayed(line, length, mail->password))
		mail->reply[3] = '\0';
}

/* Keeps an answer that refuses.  The last line of an answer has a space after its number. */
static void
hear_reply(Mail *mail, const char *line, size_t length)
{
	bool		refused = length >= 4 && (line[0] == '4' || line[0] == '5');
	bool		of_recipient = mail->recipient >= 0 && mail->recipient < mail->message->n_to;

	if (!refused)
		return;
	keep_reply(mail, line, length);
	if (of_recipient && line[3] == ' ' && !mail->in_data)
	{
		mail->result->refused[mail->recipient] = true;
		strlcpy(mail->refusal, mail->reply, sizeof(mail->refusal));
	}
}

static int
hear(CURL * easy, curl_infotype type, char *data, size_t length, void *arg)
{
	if (type == CURLINFO_HEADER_OUT)
		hear_command(arg, data, length);
	else if (type == CURLINFO_HEADER_IN)
		hear_reply(arg, data, length);
	return 0;
}


/* ---------------------------------------------------------------- contents --- */

/*
 * Returns a copy of the text, malloc'd, with the line ends of MIME, or NULL
 * if there is no memory.
 */
static char *
end_lines(const char *text)
{
	char	   *out = malloc(2 * strlen(text) + 1);
	char	   *end = out;

	if (out == NULL)
		return NULL;
	for (; *text != '\0'; text++)
	{
		if (*text == '\n')
			*end++ = '\r';
		*end++ = *text;
	}
	*end = '\0';
	return out;
}

static bool
add_part(curl_mime * mime, const char *type, const char *text)
{
	curl_mimepart *part = curl_mime_addpart(mime);
	char	   *lines = end_lines(text);
	bool		done = part != NULL && lines != NULL &&
	curl_mime_data(part, lines, CURL_ZERO_TERMINATED) == CURLE_OK &&
	curl_mime_type(part, type) == CURLE_OK &&
	curl_mime_encoder(part, "quoted-printable") == CURLE_OK;

	free(lines);
	return done;
}

/* Makes the lists and parts that libcurl sends.  Returns false if there is no memory. */
static bool
make_contents(Mail *mail)
{
	const Message *message = mail->message;

	for (int i = 0; i < message->n_to; i++)
		if (!libcurl_append(&mail->recipients, message->to[i]))
			return false;
	for (int i = 0; message->headers[i] != NULL; i++)
		if (!libcurl_append(&mail->headers, message->headers[i]))
			return false;
	/* without this header libcurl writes "mixed"; libcurl adds the boundary */
	if (!libcurl_append(&mail->headers, "Content-Type: multipart/alternative"))
		return false;
	mail->mime = curl_mime_init(mail->easy);
	return mail->mime != NULL &&
		add_part(mail->mime, "text/plain; charset=utf-8", message->text) &&
		add_part(mail->mime, "text/html; charset=utf-8", message->html);
}


/* ------------------------------------------------------------------- begin --- */

static void
set_server(CURL * easy, const MailSettings *settings, const char *password)
{
	libcurl_set_rules(easy, "smtp,smtps", CURLPROTO_SMTP | CURLPROTO_SMTPS, *settings->ca_file ? settings->ca_file : NULL);
	curl_easy_setopt(easy, CURLOPT_URL, settings->url);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long) CONNECT_SECONDS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long) settings->total_seconds);
	curl_easy_setopt(easy, CURLOPT_SERVER_RESPONSE_TIMEOUT, (long) settings->total_seconds);
	curl_easy_setopt(easy, CURLOPT_USE_SSL,
					 (long) (settings->tls ? CURLUSESSL_ALL : CURLUSESSL_NONE));
	if (*settings->user)
	{
		curl_easy_setopt(easy, CURLOPT_USERNAME, settings->user);
		curl_easy_setopt(easy, CURLOPT_PASSWORD, password);
	}
}

static void
set_message(Mail *mail)
{
	CURL	   *easy = mail->easy;

	curl_easy_setopt(easy, CURLOPT_MAIL_FROM, mail->message->from);
	curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, mail->recipients);
	curl_easy_setopt(easy, MAIL_ALLOWFAILS, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, mail->headers);
	curl_easy_setopt(easy, CURLOPT_MIMEPOST, mail->mime);
}

static void
set_callbacks(Mail *mail)
{
	CURL	   *easy = mail->easy;

	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, mail->curl_error);
	curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
	curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, hear);
	curl_easy_setopt(easy, CURLOPT_DEBUGDATA, mail);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, report_progress);
	curl_easy_setopt(easy, CURLOPT_XFERINFODATA, mail);
}

static bool
prepare_transfer(Mail *mail)
{
	if (!libcurl_init())
		return false;
	mail->easy = curl_easy_init();
	mail->multi = libcurl_make_multi();
	if (mail->easy == NULL || mail->multi == NULL || !make_contents(mail))
		return false;
	set_server(mail->easy, mail->settings, mail->password);
	set_message(mail);
	set_callbacks(mail);
	return curl_multi_add_handle(mail->multi, mail->easy) == CURLM_OK;
}

Mail *
mail_begin(const MailSettings *settings, const char *password, const Message *message,
		   bool (*is_stopped) (void), MailResult *result)
{
	Mail	   *mail = calloc(1, sizeof(Mail));

	if (mail == NULL)
		return NULL;
	mail->settings = settings;
	mail->password = password;
	mail->message = message;
	mail->result = result;
	mail->is_stopped = is_stopped;
	mail->recipient = -1;
	pthread_sigmask(SIG_SETMASK, NULL, &mail->signals);
	result->outcome = MAIL_UNREACHABLE;
	/* never send a password in the clear */
	if (prepare_transfer(mail) &&
		(!*settings->user || settings->tls || pg_strncasecmp(settings->url, "smtps:", 6) == 0))
		return mail;
	mail_end(mail);
	return NULL;
}


/* -------------------------------------------------------------------- step --- */

/*
 * Shuts down a connection that is still open, because libcurl sends a QUIT at
 * the end.  After a success libcurl then does not wait for the answer; after a
 * failure libcurl sends no QUIT.
 */
static void
stop_waiting(const Mail *mail)
{
	curl_socket_t connection = CURL_SOCKET_BAD;

	if (curl_easy_getinfo(mail->easy, CURLINFO_ACTIVESOCKET, &connection) == CURLE_OK &&
		connection != CURL_SOCKET_BAD)
		(void) shutdown(connection, mail->result->outcome == MAIL_SENT ? SHUT_RD : SHUT_RDWR);
}

static void
end_with(Mail *mail, CURLcode code)
{
	MailResult *result = mail->result;
	const char *said = mail->curl_error[0] ? mail->curl_error : curl_easy_strerror(code);
	bool		replied = mail->reply[0] != '\0' && code != CURLE_OPERATION_TIMEDOUT;
	size_t		length;

	if (code == CURLE_OK)
	{
		result->outcome = MAIL_SENT;
		if (mail->refusal[0] != '\0')
			snprintf(result->said, MAIL_ERROR_SIZE,
					 "a recipient was refused; the server said \"%s\"", mail->refusal);
		return;
	}
	result->outcome = replied && mail->in_envelope ? MAIL_REFUSED : MAIL_UNREACHABLE;
	libcurl_copy_printable(result->said, MAIL_ERROR_SIZE, said, strlen(said));
	length = strlen(result->said);
	if (replied)
		snprintf(result->said + length, MAIL_ERROR_SIZE - length, "; the server said \"%s\"", mail->reply);
}

bool
mail_step(Mail *mail, int ms)
{
	int			running = 0;
	int			waiting;
	CURLMsg    *message;
	CURLMcode	code;

	code = libcurl_work(mail->multi, &running, &mail->signals);
	if (code == CURLM_OK && running > 0)
	{
		(void) curl_multi_poll(mail->multi, NULL, 0, ms, NULL);
		return true;
	}
	mail->is_over = true;
	message = curl_multi_info_read(mail->multi, &waiting);
	if (message != NULL && message->msg == CURLMSG_DONE)
		end_with(mail, message->data.result);
	else
		strlcpy(mail->result->said, curl_multi_strerror(code), MAIL_ERROR_SIZE);
	mail->result->error = *mail->result->said ? mail->result->said : NULL;
	stop_waiting(mail);
	return false;
}

static void
break_off(Mail *mail)
{
	int			running;

	mail->given_up = true;
	(void) libcurl_work(mail->multi, &running, &mail->signals);
}

void
mail_end(Mail *mail)
{
	if (mail->multi != NULL && mail->easy != NULL)
	{
		if (!mail->is_over)
			break_off(mail);
		curl_multi_remove_handle(mail->multi, mail->easy);
	}
	curl_easy_cleanup(mail->easy);
	curl_multi_cleanup(mail->multi);
	curl_mime_free(mail->mime);
	curl_slist_free_all(mail->headers);
	curl_slist_free_all(mail->recipients);
	free(mail);
}
