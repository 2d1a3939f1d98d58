#
# Mail: real runs, a real mail server, and what arrives there
#
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use AudioCleanup;
use Mail;

my $node = new_server('mail', conf => "shared_preload_libraries = 'audio_cleanup'\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

my $certificates = PostgreSQL::Test::Utils::tempdir();
make_certificates($certificates);
my @tls = (certificate => "$certificates/server.pem", key => "$certificates/server.key");
my $password = "hunter2 is no p\@ssword";

sub put_password
{
	my ($name, $content, $mode) = @_;
	append_to_file("$certificates/$name", $content);
	chmod $mode, "$certificates/$name";
	return "$certificates/$name";
}

# The error of a statement that must fail.
sub error_of
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	return $rc == 0 ? "IT WORKED: $out" : $err;
}


# ---- a run, and a mail ----

my $server = start_mail_server();
change_settings($node,
	'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}",
	'audio_cleanup.smtp_tls' => 'off',
	'audio_cleanup.mail_from' => 'postgres@db1.test',
	'audio_cleanup.mail_to' => 'dba@example.com, boss@example.com',
	'audio_cleanup.mail_on' => 'always');
put_file($dir, 'orphan.mp3', content => 'x' x 3_300_000);
$node->safe_psql('postgres', 'CALL cleanup_run()');
my ($mail) = wait_for_mails($server, 1);

is_deeply($mail->{rcpt_tos}, [ 'dba@example.com', 'boss@example.com' ], 'a run, and a mail to all');
is($mail->{mail_from}, 'postgres@db1.test', 'from whom it is said to be');
is(header($mail, 'Subject'), 'audio_cleanup on mail/postgres: 1 file, 3.1 MiB freed', 'its subject says it all');
is_deeply([ sort map { $_->[0] } @{ $mail->{headers} } ],
	[qw(Auto-Submitted Content-Type Date From Message-ID Mime-Version Subject To)], 'its headers');
like(header($mail, 'Message-ID'), qr/^<[!-~]+\@db1\.test>$/, 'its id');
is(header($mail, 'Date'), $node->safe_psql('postgres',
	q{SELECT to_char(created_at, 'Dy, DD Mon YYYY HH24:MI:SS +0000') FROM cleanup_mail}), 'its date');
is($mail->{type}, 'multipart/alternative', 'plain, or as HTML');
is_deeply([ sort keys %{ $mail->{parts} } ], [qw(text/html text/plain)], 'its parts');
is_deeply([ @$mail{qw(defects bare_newlines ascii)} ], [ [], 0, JSON::PP::true ], 'nothing is wrong with it');
cmp_ok($mail->{longest_line}, '<=', 998, 'no line is longer than RFC 5322 allows');
like($mail->{parts}{'text/plain'}, qr/^Run +1 \(sql\), by postgres\nStatus +done\n/m, 'the run');
like($mail->{parts}{'text/plain'}, qr/^Deleted +1\nErrors +0\nFreed +3\.1 MiB\n/m, 'its figures');
like($mail->{parts}{'text/html'}, qr{<th align="left">Freed</th><td>3\.1 MiB</td>}, 'also in HTML');
like($mail->{parts}{'text/plain'}, qr/FROM public\.cleanup_files WHERE run_id = 1;/, 'how to look further');
ok($node->poll_query_until('postgres',
	q{SELECT sent_to = '{dba@example.com,boss@example.com}' AND sent_at >= created_at AND next_try_at IS NULL
	  AND tries = 1 AND error IS NULL FROM cleanup_mail}), 'it is recorded as sent');

like($node->safe_psql('postgres', 'SELECT cleanup_send_test_mail()'),
	qr{^smtp://localhost:\d+ has taken a test mail for dba\@example\.com, boss\@example\.com$}, 'a test mail');
($mail) = (wait_for_mails($server, 2))[-1];
is(header($mail, 'Subject'), 'audio_cleanup on mail/postgres: test mail', 'is one');

# a brake: rows are gone
$node->safe_psql('postgres', 'CREATE TABLE kept AS SELECT * FROM sessions; DELETE FROM sessions');
like(error_of('CALL cleanup_run()'), qr/every registered source is empty/, 'a run that is blocked');
($mail) = (wait_for_mails($server, 3))[-1];
is(header($mail, 'Subject'), 'audio_cleanup on mail/postgres: blocked, 0 files, 0 B freed', 'has a mail');
like($mail->{parts}{'text/plain'}, qr/\AA run was refused: nothing was deleted\.\nevery registered source is empty/, 'which says why');
$node->safe_psql('postgres', 'INSERT INTO sessions SELECT * FROM kept');


# ---- who is loaded with libcurl ----

sub has_libcurl
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/maps") =~ /libcurl/ ? 1 : 0;
}

my $session = $node->background_psql('postgres', on_error_stop => 1);
my $session_pid = $session->query('SELECT pg_backend_pid()');
$session->query('SELECT cleanup_status()');
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
is(has_libcurl($postmaster) . has_libcurl($session_pid), '00', 'neither postmaster nor sessions have libcurl');
$session->query('SELECT cleanup_send_test_mail()');
is(has_libcurl($session_pid), 1, 'but those that send do');
$session->quit;


# ---- hostile content ----

my $evil = "E'\"a\\r\\nBcc: spy\@example.com\\n\\n.\\n<img src=x onerror=alert(1)> \\u202Egpj.mp3'";
$node->safe_psql('postgres', qq{
	INSERT INTO cleanup_runs (run_id, what, status, requested_by, finished_at, message, errors, deleted, bytes, upload_dir, settings)
	VALUES (1000, 'all', 'failed', $evil, now() + interval '61 s', $evil, 25, 1412, 3328599654, $evil, '{}');
	INSERT INTO cleanup_files (run_id, state, reason, size, file, error, due_at, modified_at, inode, mtime_ns, ctime_ns, btime_ns)
	SELECT 1000, 'failed', 'orphan', 1, to_char(n, '000') || $evil, 'could not: ' || $evil || repeat('<b>', 500), now(), now(), 1, 1, 1, 1
	FROM generate_series(1, 25) n;
	INSERT INTO cleanup_mail (run_id) VALUES (1000);
	CALL cleanup_run();
});
my ($hostile) = grep { header($_, 'Subject') =~ /1,412/ } wait_for_mails($server, 6);
is(header($hostile, 'Subject'), 'audio_cleanup on mail/postgres: failed, 1,412 files, 3.1 GiB freed, 25 errors', 'a subject');
is(scalar @{ $hostile->{headers} }, 8, 'hostile names add no header');
is_deeply($hostile->{rcpt_tos}, [ 'dba@example.com', 'boss@example.com' ], 'nor a recipient');
is_deeply([ @$hostile{qw(defects bare_newlines ascii)} ], [ [], 0, JSON::PP::true ], 'nor anything else');
my $text = $hostile->{parts}{'text/plain'};
my $html = $hostile->{parts}{'text/html'};
is(scalar(() = $text =~ /^   \d{3}"a/mg), 20, 'twenty errors are shown');
like($text, qr/^  and 5 more$/m, 'and how many more there are');
like($text, qr/^   001"a\\x0d\\nBcc: spy\@example\.com\\n\\n\.\\n<img src=x onerror=alert\(1\)> \\u202egpj\.mp3$/m,
	'a line each, and what cannot be seen is shown');
unlike($html, qr/<img|<b>|<script/, 'no markup of theirs in the HTML');
like($html, qr/&#60;img src=x onerror=alert\(1\)&#62; \\u202egpj\.mp3/, 'but its text');


# ---- other encodings, and a hostile name of a database ----

my %databases = (
	"gr\xc3\xbcn" => [ 'UTF8', "'\xc3\xbc\xe2\x82\xac.mp3'", "\x{fc}\x{20ac}.mp3", "gr\x{fc}n" ],
	"a\nBcc: spy\@example.com" => [ 'LATIN1', q{convert_from('\xfc2e6d7033', 'LATIN1')}, "\x{fc}.mp3", 'a\nBcc: spy@example.com' ],
	'ascii' => [ 'SQL_ASCII', q{E'\xff\xc3\xbc.mp3'}, "\\xff\x{fc}.mp3", 'ascii' ]);
my $n = mails($server);
foreach my $database (sort keys %databases)
{
	my ($encoding, $sql, $want, $name) = @{ $databases{$database} };
	my $quoted = $database =~ s/"/""/gr;

	my ($refused, undef, $why) = $node->psql('postgres', qq{CREATE DATABASE "$quoted" ENCODING '$encoding' LOCALE 'C' TEMPLATE template0});
	if ($refused && $database =~ /\n/)
	{
		like($why, qr/contains a newline/, "$encoding: a server of 19 takes no such name");
		next;
	}
	$node->safe_psql($database, qq{
		CREATE EXTENSION audio_cleanup;
		INSERT INTO cleanup_runs (run_id, what, status, requested_by, finished_at, errors, upload_dir, settings)
		VALUES (7, 'all', 'running', 'me', NULL, 0, '/nowhere', '{}');
		INSERT INTO cleanup_files (run_id, state, reason, size, file, error, due_at, modified_at, inode, mtime_ns, ctime_ns, btime_ns)
		VALUES (7, 'failed', 'orphan', 1, $sql, $sql, now(), now(), 1, 1, 1, 1);
		UPDATE cleanup_runs SET status = 'failed', errors = 1, finished_at = clock_timestamp();
		INSERT INTO cleanup_mail (run_id) VALUES (7);
	});
	# a run that is refused at once, but wakes the worker
	$node->psql($database, 'CALL cleanup_run()');
	$n += 2;
	my ($found) = grep { header($_, 'Subject') =~ /1 error$/ && $_->{parts}{'text/plain'} =~ /^Run +7 /m } wait_for_mails($server, $n);
	($found) = grep { $_->{parts}{'text/plain'} =~ /\Q$want\E/ } mails($server);
	ok($found, "$encoding: the name of a file");
	is(header($found, 'Subject'), "audio_cleanup on mail/$name: 0 files, 0 B freed, 1 error", "$encoding: the subject");
	is(scalar @{ $found->{headers} }, 8, "$encoding: no further header");
}

# a character of EUC_TW that UTF-8 does not have
$node->safe_psql('postgres', q{CREATE DATABASE taiwan ENCODING 'EUC_TW' LOCALE 'C' TEMPLATE template0});
$node->psql('taiwan', q{
	CREATE EXTENSION audio_cleanup;
	INSERT INTO cleanup_runs (run_id, what, status, requested_by, finished_at, upload_dir, settings) VALUES
		(7, 'all', 'done', 'me', now(), E'/nowhere/\\xfe\\xfe', '{}'), (8, 'all', 'done', 'me', now(), '/nowhere', '{}');
	INSERT INTO cleanup_mail (run_id, next_try_at) VALUES (7, now() - interval '1 min'), (8, now());
	CALL cleanup_run();
});
ok($node->poll_query_until('taiwan', q{SELECT bool_and(CASE WHEN run_id = 7 THEN tries = 1 AND next_try_at > now() AND error ~ 'UTF8'
	ELSE sent_at IS NOT NULL END) FROM cleanup_mail}), 'a mail that cannot be made up keeps no other');
stop_mail_server($server);


# ---- encryption ----

my $secret_file = put_password('password', "$password\nsecond line\n", 0600);
$server = start_mail_server(tls => 'starttls', @tls, user => 'me', password => $password);
change_settings($node,
	'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}",
	'audio_cleanup.smtp_tls' => 'on',
	'audio_cleanup.smtp_user' => 'me',
	'audio_cleanup.smtp_password_file' => $secret_file,
	'log_min_messages' => 'debug5');
like(error_of('SELECT cleanup_send_test_mail()'), qr/could not send the test mail: .*certificate/i,
	'a certificate that nobody knows is refused');
change_settings($node, 'audio_cleanup.smtp_ca_file' => "$certificates/ca.pem");
$node->safe_psql('postgres', 'CALL cleanup_run()');
($mail) = wait_for_mails($server, 1);
is($mail->{user}, 'me', 'with its CA file a run is mailed, by who has logged in');
ok($mail->{encrypted}, 'by STARTTLS');
change_settings($node, 'audio_cleanup.smtp_url' => "smtp://127.0.0.1:$server->{port}");
like(error_of('SELECT cleanup_send_test_mail()'), qr/127\.0\.0\.1|subject name|alternative/i, 'a certificate of another host is refused');
change_settings($node, 'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}", 'audio_cleanup.smtp_tls' => 'off');
like(error_of('SELECT cleanup_send_test_mail()'), qr/a password is never sent in the clear/, 'no password without encryption');
change_settings($node, 'audio_cleanup.smtp_tls' => 'on');
is(scalar mails($server), 1, 'none of these came through');
stop_mail_server($server);

$server = start_mail_server(tls => 'smtps', @tls, user => 'me', password => $password);
change_settings($node, 'audio_cleanup.smtp_url' => "smtps://localhost:$server->{port}");
$node->safe_psql('postgres', 'SELECT cleanup_send_test_mail()');
($mail) = wait_for_mails($server, 1);
ok($mail->{encrypted} && $mail->{user} eq 'me', 'SMTPS');
stop_mail_server($server);

# a server without STARTTLS
$server = start_mail_server();
change_settings($node, 'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}");
like(error_of('SELECT cleanup_send_test_mail()'), qr/STARTTLS not supported/, 'a server that does not encrypt');
is(scalar mails($server), 0, 'gets no mail');
stop_mail_server($server);


# ---- passwords ----

# the server repeats what it was told
$server = start_mail_server(tls => 'starttls', @tls, user => 'me', password => 'another', echo => 1);
change_settings($node, 'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}");
like(error_of('SELECT cleanup_send_test_mail()'), qr/the server said "535"$/m, 'a wrong password, and a server that tells it to all');
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok($node->poll_query_until('postgres', q{SELECT error LIKE '%"535"' AND next_try_at > now() FROM cleanup_mail WHERE sent_at IS NULL}),
	'a run waits to be mailed');

my $open = put_password('open', "$password\n", 0644);
change_settings($node, 'audio_cleanup.smtp_password_file' => $open);
like(error_of('SELECT cleanup_send_test_mail()'), qr/its group or others have rights/, 'a file that others may read');
is($node->safe_psql('postgres', q{SELECT status FROM cleanup_check() WHERE check_name = 'mail'}), 'error', 'the doctor sees it, too');
change_settings($node, 'audio_cleanup.smtp_password_file' => put_password('empty', "\n", 0600));
like(error_of('SELECT cleanup_send_test_mail()'), qr/its first line is empty/, 'a file without a password');

use MIME::Base64 qw(encode_base64);
my $log = slurp_file($node->logfile);
like($log, qr/DEBUG:/, 'the server log is as long as it gets');
foreach my $secret ($password, 'hunter2', encode_base64($password, ''), substr(encode_base64("\0me\0$password", ''), 0, 20))
{
	is(index($log, $secret), -1, 'the password is not in the server log');
	is($node->safe_psql('postgres', qq{
		SELECT count(*) FROM (SELECT s::text AS t FROM pg_settings s UNION ALL SELECT a::text FROM pg_stat_activity a WHERE a.query !~ 'UNION ALL'
			UNION ALL SELECT m::text FROM cleanup_mail m UNION ALL SELECT cleanup_config()::text
			UNION ALL SELECT r::text FROM cleanup_runs r UNION ALL SELECT c::text FROM cleanup_check() c) x
		WHERE position('$secret' IN t) > 0}), 0, 'nor in what can be asked for');
}
stop_mail_server($server);

done_testing();
