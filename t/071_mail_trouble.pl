#
# Mail servers that are down, refuse, or hang: mail is late, and nothing else is
#
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use AudioCleanup;
use Mail;

my $node = new_server('trouble', conf => q{
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.cleanup_schedule_hour = -1
audio_cleanup.databases = 'postgres'
audio_cleanup.mail_from = 'postgres@db1.test'
audio_cleanup.mail_on = 'always'
audio_cleanup.smtp_tls = off
max_prepared_transactions = 5
});
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

# Seconds that it takes.
sub seconds_of
{
	my ($work) = @_;
	my $began = time;
	$work->();
	return time - $began;
}

sub use_server
{
	my ($server, $to) = @_;
	change_settings($node, 'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}",
		'audio_cleanup.mail_to' => $to || 'dba@example.com');
	return;
}

sub run { return $node->safe_psql('postgres', 'CALL cleanup_run()') }

# As if the time had come.
sub make_due { return $node->safe_psql('postgres', q{UPDATE cleanup_mail SET next_try_at = now() WHERE next_try_at IS NOT NULL}) }

sub outbox { return $node->safe_psql('postgres', "SELECT $_[0] FROM cleanup_mail ORDER BY run_id") }

sub wait_for_outbox
{
	my ($condition) = @_;
	return $node->poll_query_until('postgres', "SELECT coalesce(bool_and($condition), false) FROM cleanup_mail");
}

sub mail_workers
{
	my ($condition) = @_;
	return "SELECT pid FROM pg_stat_activity WHERE backend_type = 'audio_cleanup mail' AND " . ($condition || 'true');
}

# No worker is left, so that the next one is a new one.
sub end_mail_workers
{
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM (" . mail_workers() . ') w');
	return $node->poll_query_until('postgres', 'SELECT NOT EXISTS (' . mail_workers() . ')');
}


# ---- down ----

my $server = start_mail_server();
use_server($server);
stop_mail_server($server);
put_files($dir, 'orphan.mp3');
cmp_ok(seconds_of(\&run), '<', 5, 'a mail server that is down keeps no run waiting');
ok(!-e "$dir/orphan.mp3", 'nor a file alive');
ok(wait_for_outbox(q{tries = 1 AND error ~ 'connect' AND next_try_at BETWEEN created_at + interval '59 s' AND now() + interval '1 min'}),
	'its mail waits for a minute');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM (' . mail_workers(q{query = 'waiting to try again'}) . ') w'),
	'a worker waits with it');
like(log_lines($node, qr/could not send/), qr/LOG:  could not send the mail about run 1: .*connect/, 'the log says why');

# a second run: all of them are tried, and there is still one worker that waits
run();
make_due();
run();
ok($node->poll_query_until('postgres', q{SELECT count(*) = 3 AND min(tries) >= 1 AND max(tries) >= 2
	AND min(next_try_at) > now() FROM cleanup_mail}), 'more mails, more tries');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM (' . mail_workers() . ') w'), 'one worker waits');
is($node->safe_psql('postgres', q{SELECT status || ': ' || (detail ~ '^mails that wait to be sent again: 3, that were given up: 0; .*connect')
	FROM cleanup_check() WHERE check_name = 'mail' AND status <> 'ok'}), 'warning: true', 'the doctor sees them');

# delays: 1 min, 5 min, 30 min, 2 h
$node->safe_psql('postgres', q{DELETE FROM cleanup_mail WHERE run_id > 1; UPDATE cleanup_mail SET tries = 0});
foreach my $delay ('1 min', '5 min', '30 min', '2 hours', '2 hours')
{
	end_mail_workers();
	make_due();
	my $tries = outbox('tries') + 1;
	$node->safe_psql('postgres', q{SET audio_cleanup.mail_on = 'problems'; CALL cleanup_run()});
	ok(wait_for_outbox("tries = $tries AND next_try_at BETWEEN now() + interval '$delay' - interval '30 s' AND now() + interval '$delay'"),
		"try $tries, and then a delay of $delay");
}

# up again: on the same port
end_mail_workers();
make_due();
$server = start_mail_server(port => $server->{port});
run();
my @mails = wait_for_mails($server, 2);
is(join(' ', map { header($_, 'Subject') =~ /: (.*)$/ } @mails), '1 file, 20 B freed 0 files, 0 B freed', 'up again: the mail is sent');
ok(wait_for_outbox('sent_at IS NOT NULL AND next_try_at IS NULL AND error IS NULL'), 'and recorded');
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (' . mail_workers() . ')'), 'no worker stays');
is($node->safe_psql('postgres', q{SELECT string_agg(status, ' ') FROM cleanup_check() WHERE check_name = 'mail'}), 'ok', 'the doctor is content');

# a start of the server sends what is due
$node->safe_psql('postgres', 'TRUNCATE cleanup_mail');
$node->stop;
$node->start;
$node->safe_psql('postgres', q{INSERT INTO cleanup_mail (run_id) VALUES (1)});
$node->restart;
is(header((wait_for_mails($server, 3))[-1], 'Subject'), 'audio_cleanup on trouble/postgres: 1 file, 20 B freed', 'a start of the server sends what is due');

# runs that end at the same time, and in a transaction that is prepared
$node->safe_psql('postgres', 'TRUNCATE cleanup_mail');
put_files($dir, map { "many-$_.mp3" } 1 .. 8);
my @sessions = map { $node->background_psql('postgres') } 1 .. 4;
foreach my $session (@sessions)
{
	$session->query_until(qr/started/, "\\echo started\n" . "SELECT cleanup_all();\n" x 3);
}
$_->quit foreach @sessions;
wait_for_drain($node);
$node->safe_psql('postgres', q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'p'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
run();
ok(wait_for_outbox('sent_at IS NOT NULL'), 'many runs, also one that was prepared: all are mailed');
my $n = $node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_mail');
is($n, 14, 'a row for each');
my %ids = map { (header($_, 'Message-ID') => 1) } wait_for_mails($server, 3 + $n);
is(scalar mails($server), 3 + $n, 'a mail for each, and no more');
is(scalar keys %ids, 3 + $n, 'each has its own id');
stop_mail_server($server);


# ---- refused ----

$node->safe_psql('postgres', 'TRUNCATE cleanup_mail');
$server = start_mail_server(refuse => 'wrong@example.com');
use_server($server, 'dba@example.com, wrong@example.com');
run();
is_deeply((wait_for_mails($server, 1))[0]{rcpt_tos}, ['dba@example.com'], 'an address that is refused keeps no other from his mail');
ok(wait_for_outbox(q{sent_at IS NULL AND sent_to = '{dba@example.com}' AND error LIKE '%550 5.1.1 <wrong@example.com>: no such user here?%'
	AND next_try_at > now()}), 'the server\'s words are recorded');
like($node->psql('postgres', 'SELECT cleanup_send_test_mail()') && ($node->psql('postgres', 'SELECT cleanup_send_test_mail()'))[2],
	qr/a recipient was refused.*DETAIL:  Refused: wrong\@example\.com\./s, 'and told by a test mail');
use_server($server, 'dba@example.com, right@example.com');
end_mail_workers();
make_due();
$node->safe_psql('postgres', q{SET audio_cleanup.mail_on = 'problems'; CALL cleanup_run()});
ok(wait_for_outbox('sent_at IS NOT NULL'), 'corrected');
my @all = mails($server);
is_deeply($all[-1]{rcpt_tos}, ['right@example.com'], 'and sent to who has not got it yet');
is(header($all[-1], 'Message-ID'), header($all[0], 'Message-ID'), 'the same mail');

# at last
$node->safe_psql('postgres', q{TRUNCATE cleanup_mail;
	INSERT INTO cleanup_mail (run_id, tries, created_at) VALUES (1, 20, now() - interval '47 hours')});
stop_mail_server($server);
$node->safe_psql('postgres', q{SET audio_cleanup.mail_on = 'problems'; CALL cleanup_run()});
ok(wait_for_outbox('tries = 21 AND next_try_at IS NULL AND sent_at IS NULL'), 'after two days a mail is given up');
like(log_lines($node, qr/WARNING/), qr/WARNING:  gave up sending the mail about run 1 after 21 tries/, 'which the log tells');


# ---- hanging ----

sub is_talking
{
	my ($hanging) = @_;
	return wait_until(sub { connections($hanging) > 0 }) &&
	  $node->poll_query_until('postgres', 'SELECT EXISTS (' . mail_workers(q{query ~ '^sending the mail about run'}) . ')');
}

foreach my $where (qw(banner data))
{
	$node->safe_psql('postgres', 'TRUNCATE cleanup_mail');
	end_mail_workers();
	my $hanging = start_mail_server(hang => $where);
	use_server($hanging);
	cmp_ok(seconds_of(\&run), '<', 5, "a mail server that hangs at its $where keeps no run waiting");
	ok(is_talking($hanging), 'while a worker talks to it');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM (' . mail_workers('(xact_start IS NOT NULL OR backend_xmin IS NOT NULL)') . ') w'), 0,
		'it is in no transaction');
	put_files($dir, "$where.mp3");
	cmp_ok(seconds_of(sub { $node->safe_psql('postgres', 'SELECT cleanup_all()'); run() }), '<', 5, 'other runs go on');
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM (' . mail_workers() . ') w'), 'and no further worker stays');
	cmp_ok(seconds_of(sub { $node->safe_psql('postgres', 'CREATE DATABASE other'); $node->safe_psql('postgres', 'DROP DATABASE other') }),
		'<', 10, 'DROP DATABASE of another one does not wait');
	cmp_ok(seconds_of(\&end_mail_workers), '<', 2.5, 'it can be terminated');
	ok(wait_for_outbox('tries <= 1 AND sent_at IS NULL'), 'its mail is not lost');

	my $took = seconds_of(sub { like($node->psql('postgres', q{SET statement_timeout = '1s'; SELECT cleanup_send_test_mail()}) &&
		($node->psql('postgres', q{SET statement_timeout = '1s'; SELECT cleanup_send_test_mail()}))[2], qr/canceling statement due to statement timeout/,
		'a test mail can be cancelled') });
	cmp_ok($took, '<', 7, 'soon');

	make_due();
	run();
	ok(is_talking($hanging), 'again');
	cmp_ok(seconds_of(sub { $node->stop('fast') }), '<', 3, 'a fast shutdown does not wait');
	$node->start;
	stop_mail_server($hanging);
}

# a mail whose row somebody has locked: the worker waits, and does not try all the time
{
	my $down = start_mail_server();
	use_server($down);
	stop_mail_server($down);
	end_mail_workers();
	$node->safe_psql('postgres', q{TRUNCATE cleanup_mail; INSERT INTO cleanup_mail (run_id) VALUES (1)});
	my $locker = begin_session($node, 'SELECT FROM cleanup_mail FOR UPDATE');
	run();
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM (' . mail_workers(q{query = 'waiting to try again'}) . ') w'),
		'a worker waits for a mail that is locked');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_mail WHERE tries > 0'), 1, 'and other mails are tried meanwhile');
	end_session($locker, 'ROLLBACK');
	ok(wait_for_outbox('tries > 0'), 'and tries the mail afterwards');
}

# DROP EXTENSION, while a mail is on its way
my $hanging = start_mail_server(hang => 'banner');
end_mail_workers();
use_server($hanging);
run();
ok(is_talking($hanging), 'a mail on its way');
cmp_ok(seconds_of(sub { $node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup') }), '<', 3, 'DROP EXTENSION does not wait for it');
stop_mail_server($hanging);
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (' . mail_workers() . ')'), 'and the worker ends');
unlike(slurp_file($node->logfile), qr/(?:PANIC|TRAP|was terminated by signal)/, 'nobody died of it');

done_testing();
