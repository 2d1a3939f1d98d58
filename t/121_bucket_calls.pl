# What calls a bucket besides a person: the night, its mail, pg_cron, the dashboard, and a standby where one may only look.
#
# Slow: pg_cron knows minutes only.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use Mail;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($share) = run_command([ 'pg_config', '--sharedir' ]);
my $has_cron = -e "$share/extension/pg_cron.control";
my $gateway = start_gateway();
my $mails = start_mail_server();
my $credentials = PostgreSQL::Test::Utils::tempdir_short() . '/credentials';

write_credentials($gateway, $credentials);
make_bucket($gateway, 'audio');
my $node = new_server('bucket_calls', start => 0, init => [ allows_streaming => 1 ],
	conf => bucket_conf('s3://audio/up', $gateway->{endpoint}, $credentials) . "audio_cleanup.file_age = 'newest'\n"
	  . "audio_cleanup.databases = 'postgres'\naudio_cleanup.timezone = 'UTC'\naudio_cleanup.max_delete_percent = 100\n"
	  . "audio_cleanup.backup_retention_days = 7\n"
	  . "audio_cleanup.smtp_url = 'smtp://localhost:$mails->{port}'\naudio_cleanup.smtp_tls = off\n"
	  . "audio_cleanup.mail_from = 'postgres\@db.test'\naudio_cleanup.mail_to = 'dba\@example.com'\naudio_cleanup.mail_on = 'always'\n"
	  . ($has_cron ? "shared_preload_libraries = 'audio_cleanup, pg_cron'\ncron.use_background_workers = on\n" : ''));
set_schedule_clock($node, '2027-03-01 01:00:00');
$node->start;
make_schema($node);
add_rows($node, 'wanted.mp3');

sub put { return put_objects($gateway, 'audio/up', @_) }
sub visible { return join ' ', @{ keys_of($gateway, 'audio', 'up/') } }
sub state_of { return sql("SELECT state FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id DESC LIMIT 1") }


# ---- the night, and its mail

put('wanted.mp3', 'first.mp3');
sql('CALL cleanup_run(force => true)');
is(visible(), 'wanted.mp3', 'a first run, by a person');
wait_for_mails($mails, 1);

put('night.mp3');
ok(let_day_pass($node, '2027-03-01'), 'a night');
is(visible(), 'wanted.mp3', '... cleans the bucket');
is(state_of('night.mp3'), 'trashed', '... and keeps a backup');
is(runs($node)->[-1], 'schedule 2027-03-01 done', '... which is on record');
my @mails = wait_for_mails($mails, 2);
is(scalar @mails, 2, '... and in a mail');
like(header($mails[-1], 'Subject'), qr{^audio_cleanup on bucket_calls/postgres: }, '... of this database');

# a night in which the bucket cannot be reached
put('later.mp3');
change_settings($node, 'audio_cleanup.s3_endpoint' => 'http://localhost:1');
ok(let_day_pass($node, '2027-03-02'), 'a night without a bucket');
like(runs($node)->[-1], qr/^schedule 2027-03-02 (?:blocked|failed)$/, '... is on record');
like(sql('SELECT message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'), qr/could not reach upload directory/, '... with its reason');
wait_for_mails($mails, 3);
change_settings($node, 'audio_cleanup.s3_endpoint' => $gateway->{endpoint});
is(visible(), 'later.mp3 wanted.mp3', '... and nothing has gone');

# backups are due after their days
sql("UPDATE cleanup_files SET due_at = now() WHERE file = 'night.mp3'");
ok(let_day_pass($node, '2027-03-03'), 'a later night');
is(state_of('later.mp3'), 'trashed', '... goes on');
is(state_of('night.mp3'), 'deleted', '... and deletes what was due');
is(versions_of($gateway, 'audio', 'up/')->{'night.mp3'}, undef, '... with its versions');


# ---- the dashboard

my $page = sql('SELECT cleanup_dashboard()');
like($page, qr/^<!DOCTYPE html>.*s3:\/\/audio\/up/s, 'the dashboard names the bucket');
like($page, qr/>Fine\..*2 files, the first until.*schedule.*could not reach upload directory/s, '... its backups, and the night without it');
unlike($page, qr/\Q$gateway->{secret_key}\E|\Q$gateway->{access_key}\E/, '... and no key');
wait_for_mails($mails, 4);
unlike(join('', map { AudioCleanup::read_file("$mails->{dir}/$_.json") } 1 .. 4), qr/\Q$gateway->{secret_key}\E|\Q$gateway->{access_key}\E/, 'nor is one in a mail');


# ---- explain

put('fresh.mp3');
is(sql_json($node, q{SELECT cleanup_explain('wanted.mp3')})->{verdict}, 'kept', 'cleanup_explain(): what is wanted is kept');
is(sql_json($node, q{SELECT cleanup_explain('fresh.mp3')})->{verdict}, 'condemned', '... and what is not would go')
  or diag sql(q{SELECT cleanup_explain('fresh.mp3')});


# ---- libcurl and libxml2 are only where a bucket is used

mkdir $node->basedir . '/plain' or die $!;
sql('CREATE DATABASE plain');
sql("ALTER DATABASE plain SET audio_cleanup.upload_dir = '" . $node->basedir . "/plain'");
make_schema($node, 'plain');
foreach my $case ([ 0, 'a directory', 'plain' ], [ 1, 'a bucket', 'postgres' ])
{
	my ($expected, $what, $database) = @$case;
	my $session = $node->background_psql($database);
	my ($pid) = $session->query_safe("SELECT cleanup_status() IS NULL; SELECT pg_backend_pid()") =~ /(\d+)/;

	is(AudioCleanup::read_file("/proc/$pid/maps") =~ m{audio_cleanup_bucket\.so.*libcurl|libcurl.*audio_cleanup_bucket\.so}s ? 1 : 0, $expected,
		"who looks at $what has " . ($expected ? 'the library for it' : 'no library of buckets'));
	is(AudioCleanup::read_file("/proc/$pid/maps") =~ /audio_cleanup_bucket\.so|libcurl/ ? 1 : 0, $expected, '... nor one of its own') unless $expected;
	$session->quit;
}
my $launcher = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'audio_cleanup launcher'});
unlike(AudioCleanup::read_file("/proc/$launcher/maps"), qr/audio_cleanup_bucket\.so|libcurl/, 'nor has the launcher');


# ---- a standby

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('bucket_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my $before = versions_of($gateway, 'audio', 'up/');
my $status = sql_json($standby, 'SELECT cleanup_status()');
is_deeply($status->{potential_cleanup}{orphaned_files_deleted}, ['fresh.mp3'], 'a standby sees the orphans of a bucket');
is_deeply($status->{blocked_by}, ['recovery'], '... and says why a run would be refused');
is(sql_json($standby, 'CALL cleanup_run(dry_run => true)')->{result}{orphaned_files_count}, 1, 'CALL cleanup_run(dry_run) works there');
is($standby->safe_psql('postgres', q{SELECT string_agg(status, ' ') FROM cleanup_check() WHERE check_name LIKE 's3%' AND status <> 'ok'}), '', 'so does cleanup_check()');
is($standby->safe_psql('postgres', 'SELECT sum(missing) FROM cleanup_missing_files()'), '0', 'and cleanup_missing_files()');
like($standby->safe_psql('postgres', 'SELECT cleanup_dashboard()'), qr/This server is a standby/, 'and the dashboard');
is_deeply(versions_of($gateway, 'audio', 'up/'), $before, 'and the bucket stays as it is');
$standby->stop;


# ---- pg_cron

SKIP:
{
	skip 'pg_cron is not installed', 3 unless $has_cron;
	sql(q{ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 0; CREATE EXTENSION pg_cron; SELECT cron.schedule('audio-cleanup', '* * * * *', 'CALL cleanup_run()')});
	ok(wait_until(sub { sql("SELECT count(*) FROM cleanup_files WHERE file = 'fresh.mp3' AND state = 'deleted'") eq '1' }), 'pg_cron cleans a bucket');
	is(visible(), 'wanted.mp3', '... and leaves what is wanted');
	ok($node->poll_query_until('postgres', "SELECT bool_and(status = 'succeeded') FROM cron.job_run_details WHERE end_time IS NOT NULL"), '... and its job has succeeded');
	sql(q{SELECT cron.unschedule('audio-cleanup')});
}

is(log_lines($node, qr/PANIC:|TRAP:|terminated by signal/), '', 'no process has died');
unlike(log_since($node, 0), qr/\Q$gateway->{secret_key}\E/, 'no key is in the log');
done_testing();
