# The built-in schedule: every listed database is cleaned at the hour, once a
# day, whatever happens to the clock, the settings and the server; and a DBA
# can see when it ran, when it will run, and how it went.
#
# The schedule's clock is replaced; nothing here waits for a real hour.
#
# Slow: it has many nights.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $preload = "shared_preload_libraries = 'audio_cleanup'\naudio_cleanup.timezone = 'UTC'\n"
  . "audio_cleanup.max_delete_percent = 100\n";

# ---- two servers that have nothing to do, to be looked at again in the end ----

my %idle;
foreach my $name ('sleeping', 'unused')
{
	my $server = new_server($name, start => 0, conf => $preload
		  . "audio_cleanup.databases = '" . ($name eq 'sleeping' ? 'postgres' : '') . "'\n");

	set_schedule_clock($server, '2027-03-01 12:00:00');
	$server->start;
	make_schema($server);
	ok(launcher_says($server, $name eq 'sleeping' ? 'sleeping until 2027-03-02 03:00:00+00'
			: 'idle: audio_cleanup.databases is empty'), "the launcher of $name has nothing to do");
	$idle{$name} = { server => $server, since => time, pid => $server->safe_psql('postgres',
			q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'audio_cleanup launcher'}) };
	$idle{$name}{wakeups} = wakeups($idle{$name});
}

sub wakeups
{
	my ($idle) = @_;
	my ($count) = slurp_file("/proc/$idle->{pid}/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $count;
}

# ---- the server that is tested, and its databases ----

my $node = new_server('schedule', start => 0, init => [ allows_streaming => 1 ],
	conf => $preload . "log_min_messages = debug1\n");

set_schedule_clock($node, '2027-03-01 02:50:00');
start_with_faults($node);
ok(launcher_says($node, 'idle: audio_cleanup.databases is empty'), 'the launcher says why it does nothing');
make_schema($node);
make_database($_) foreach 'other', 'My DB', 'my-app', 'unlisted', 'late', 'closed', 'empty', 'broken';
make_database('postgres', 1);

# A copy of the database postgres, with an upload directory of its own, and one row with its file.
sub make_database
{
	my ($name, $exists) = @_;

	make_path(directory($name));
	$node->safe_psql('template1', ($exists ? '' : qq{CREATE DATABASE "$name" TEMPLATE postgres;\n})
		  . qq{ALTER DATABASE "$name" SET audio_cleanup.upload_dir = '} . directory($name) . q{'});
	$node->safe_psql($name, q{INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')});
	put_files(directory($name), 'wanted.mp3');
	return;
}

sub directory
{
	my ($database) = @_;
	return upload_dir($node) . ($database eq 'postgres' ? '' : " of $database");
}

sub next_run
{
	my ($server, $database) = @_;
	return $server->safe_psql($database || 'postgres',
		q{SELECT concat_ws(', ', to_char(next_run AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), reason, timezone)
		  FROM cleanup_next_run()});
}

# The runs since the last time that this was asked.
my %seen;

sub new_runs
{
	my ($database) = @_;
	my $runs = runs($node, $database);
	my @new = splice @$runs, $seen{$database} || 0;

	$seen{$database} += @new;
	return \@new;
}

sub no_new_run
{
	my ($name, @databases) = @_;
	is_deeply(new_runs($_), [], "$name: no run in $_") foreach @databases ? @databases : ('postgres', 'other');
	return;
}

sub count_lines
{
	my ($text, $pattern) = @_;
	return scalar grep { $_ =~ $pattern } split /^/m, $text;
}

# It is that time when the server is back.
sub restart
{
	my ($time, %settings) = @_;

	$node->stop;
	set_schedule_clock($node, $time, %settings);
	start_with_faults($node);
	return;
}

# ---- a night ----

is(next_run($node), 'database "postgres" is not in audio_cleanup.databases, UTC', 'who is not listed is told so');
change_settings($node, 'audio_cleanup.databases' => 'postgres, other');
ok(launcher_says($node, 'sleeping until 2027-03-01 03:00:00+00'), 'the launcher says when it wakes up');
is(next_run($node, $_), '2027-03-01 03:00, every day at 03:00, UTC', "so does cleanup_next_run() in $_")
  foreach 'postgres', 'other';
like(next_run($node, 'unlisted'), qr/^database "unlisted" is not in/, 'but not in a database that is not listed');
no_new_run('before the hour');

put_files(directory($_), 'orphan.mp3', 'sub/orphan.mp3') foreach 'postgres', 'other', 'unlisted';
set_schedule_clock($node, '2027-03-01 02:59:58');
ok(launcher_says($node, 'sleeping until 2027-03-02 03:00:00+00'), 'the hour comes');
is_deeply(new_runs($_), ['schedule 2027-03-01 done'], "$_ was cleaned") foreach 'postgres', 'other';
is_deeply([ keys %{ visible_files(directory($_)) } ], ['wanted.mp3'], "its orphans are gone, what is wanted is there")
  foreach 'postgres', 'other';
is_deeply(violations($node, directory('postgres'), { wanted => { 'wanted.mp3' => "audio of wanted.mp3\n" }, final => 1 }),
	[], 'nothing is left to be done');
is_deeply(runs($node, 'unlisted'), [], 'the other database was not cleaned');
is(scalar keys %{ visible_files(directory('unlisted')) }, 3, 'its files are there');
is(next_run($node), '2027-03-02 03:00, every day at 03:00, UTC', 'and the next run is tomorrow');

my %times = map { $_ => [ split /\|/, $node->safe_psql($_, q{
	SELECT extract(epoch FROM started_at), extract(epoch FROM finished_at), shown >= '2027-03-01 03:00:00+00',
	       shown < '2027-03-01 03:00:20+00'
	FROM cleanup_runs, LATERAL (SELECT started_at + make_interval(
		secs => current_setting('audio_cleanup.debug_clock_offset')::int) AS shown) AS clock}) ] } 'postgres', 'other';
is("@{$times{postgres}}[2 .. 3]", 't t', 'it began at the hour, not before');
cmp_ok($times{other}[0], '>=', $times{postgres}[1], 'one database after the other, in the order of the list');
is($node->safe_psql('postgres', 'SELECT requested_by = current_user, deleted, message FROM cleanup_runs'), 't|2|',
	'how it went is on record');

# ---- databases that cannot be cleaned, and names that need quotes ----

$node->safe_psql('template1', "CREATE DATABASE bare;\nALTER DATABASE closed ALLOW_CONNECTIONS false");
$node->safe_psql('empty', 'DELETE FROM sessions');
$node->safe_psql('My DB', q{SELECT cleanup_drop_source('sessions'); ALTER SCHEMA public RENAME TO "My Schema";
	ALTER DATABASE "My DB" SET search_path = "My Schema"});
$node->safe_psql('My DB', q{SELECT cleanup_add_source('sessions')});
# settings for the sessions of users are not for the worker
$node->safe_psql('my-app', join ';', map { qq{ALTER DATABASE "my-app" SET $_} } 'default_transaction_read_only = on',
	q{default_transaction_isolation = 'serializable'}, q{idle_in_transaction_session_timeout = '1ms'},
	q{lock_timeout = '1ms'}, q{session_replication_role = 'replica'});
$node->safe_psql('postgres', "ALTER DATABASE $_ SET exit_on_error = on") foreach 'empty', 'broken';
$node->safe_psql('broken', q{
	CREATE TABLE numbers (n int);
	CREATE VIEW broken AS SELECT n AS id, (1 / n)::text AS audio_url FROM numbers;
	SELECT cleanup_add_source('broken', '{audio_url}', 'id');
	INSERT INTO numbers VALUES (0);});

my %complaints = (
	missing => qr/FATAL:  database "missing" does not exist/,
	bare => qr/LOG:  cannot clean database "bare": the extension is not installed there/,
	closed => qr/FATAL:  database "closed" is not currently accepting connections/,
	empty => qr/ERROR:  every registered source is empty/,
	broken => qr/ERROR:  division by zero/);

change_settings($node, 'audio_cleanup.databases' => 'missing, bare, closed, empty, broken, "My DB", my-app, other');
ok($node->poll_query_until('my-app', 'SELECT count(*) = 1 FROM cleanup_schedule'), 'new databases are noted');
is(next_run($node, $_), '2027-03-02 03:00, every day at 03:00, UTC', "$_ is listed") foreach 'My DB', 'my-app';
foreach my $date ('2027-03-02', '2027-03-03')
{
	my ($position, $log);

	put_files(directory($_), 'orphan.mp3') foreach 'empty', 'broken', 'My DB', 'my-app', 'other';
	$position = log_position($node);
	ok(let_day_pass($node, $date), "the night of $date");
	$log = log_since($node, $position);
	is(count_lines($log, $complaints{$_}), 1, "$_ is named in the log once a night") foreach sort keys %complaints;
	is_deeply(new_runs($_), ["schedule $date done"], "$_ was cleaned all the same") foreach 'My DB', 'my-app', 'other';
	ok(!-e directory($_) . '/orphan.mp3', 'of its orphan') foreach 'My DB', 'my-app', 'other';
	is_deeply(new_runs('empty'), ["schedule $date blocked"], 'a brake is on record');
	is_deeply(new_runs('broken'), ["schedule $date failed"], 'an error too');
	ok(-e directory($_) . '/orphan.mp3', "in $_ nothing was deleted") foreach 'empty', 'broken';
	no_new_run('not listed any more', 'postgres');
}
like($node->safe_psql('empty', 'SELECT DISTINCT message FROM cleanup_runs'),
	qr/^every registered source is empty: \d+ of \d+ files/, 'with the reason');
like($node->safe_psql('broken', 'SELECT DISTINCT message FROM cleanup_runs'), qr/^division by zero/, 'as well');
is(next_run($node, 'empty'), '2027-03-04 03:00, every day at 03:00, UTC', 'what was refused is not repeated that night');

my $workers = join '', map {
	/starting background worker process "audio_cleanup worker"/ ? 's'
	  : /unregistering background worker "audio_cleanup worker"/ ? 'u' : ''
} split /^/m, slurp_file($node->logfile);
like($workers, qr/^(su){16,}$/, 'no worker was started before the last one had gone');

# ---- no day runs twice ----

# those at the front of the list have been dealt with when the last of it has been
$node->safe_psql('late', 'DELETE FROM cleanup_schedule');
change_settings($node, 'audio_cleanup.databases' => 'postgres, other, late');
ok($node->poll_query_until('late', 'SELECT count(*) = 1 FROM cleanup_schedule'), 'a database is listed again');
no_new_run('what was missed when it was not listed', 'postgres');
change_settings($node, 'audio_cleanup.databases' => 'postgres, other');
ok(let_day_pass($node, '2027-03-04'), 'a night');
is_deeply(new_runs($_), ['schedule 2027-03-04 done'], "$_ is cleaned") foreach 'postgres', 'other';

set_schedule_clock($node, '2027-03-04 01:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-04 03:00:00+00'), 'the clock is set back');
is(next_run($node), '2027-03-05 03:00, every day at 03:00, UTC', 'the next run is tomorrow all the same');
set_schedule_clock($node, '2027-03-04 03:00:01');
ok(launcher_says($node, 'sleeping until 2027-03-05 03:00:00+00'), 'and passes the hour again');
no_new_run('clock set back');

restart('2027-03-04 03:30:00');
ok(launcher_says($node, 'sleeping until 2027-03-05 03:00:00+00'), 'the server is restarted');
no_new_run('restart');

set_schedule_clock($node, '2027-03-04 04:00:00', 'audio_cleanup.cleanup_schedule_hour' => 5);
ok(launcher_says($node, 'sleeping until 2027-03-04 05:00:00+00'), 'a later hour');
is(next_run($node), '2027-03-05 05:00, every day at 05:00, UTC', 'is for tomorrow');
set_schedule_clock($node, '2027-03-04 05:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-05 05:00:00+00'), 'it comes');
no_new_run('later hour');
set_schedule_clock($node, '2027-03-04 06:00:00', 'audio_cleanup.cleanup_schedule_hour' => 3);
ok(launcher_says($node, 'sleeping until 2027-03-05 03:00:00+00'), 'back to the hour before');
no_new_run('earlier hour');

is($node->safe_psql('postgres',
		q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'audio_cleanup launcher'}),
	't', 'the launcher can be terminated');
ok($node->poll_query_until('postgres',
		q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup launcher')}), 'it ends');
ok(crash_server($node), 'the server crashes');
ok(launcher_says($node, 'sleeping until 2027-03-05 03:00:00+00'), 'there is a launcher again');
no_new_run('new launcher');

set_schedule_clock($node, '2027-03-08 10:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-09 03:00:00+00'), 'the clock jumps forward, over four nights');
is_deeply(new_runs($_), ['schedule 2027-03-08 done'], "one run in $_") foreach 'postgres', 'other';

# ---- missed, because the server was down ----

set_schedule_clock($node, '2027-03-09 02:50:00');
restart('2027-03-09 08:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-10 03:00:00+00'), 'down over the hour');
is_deeply(new_runs($_), ['catch-up 2027-03-09 done'], "it is caught up in $_") foreach 'postgres', 'other';
restart('2027-03-09 09:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-10 03:00:00+00'), 'restarted once more');
no_new_run('second restart');
restart('2027-03-13 09:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-14 03:00:00+00'), 'down for some days');
is_deeply(new_runs($_), ['catch-up 2027-03-13 done'], "it is caught up once in $_") foreach 'postgres', 'other';

# what is new has missed nothing
$node->safe_psql('late', 'DELETE FROM cleanup_schedule');
change_settings($node, 'audio_cleanup.databases' => 'postgres, other, bare, late');
ok($node->poll_query_until('late', 'SELECT count(*) = 1 FROM cleanup_schedule'), 'a database is listed after the hour');
no_new_run('newly listed', 'postgres', 'other', 'late');
$node->safe_psql('bare', 'CREATE EXTENSION audio_cleanup');
restart('2027-03-13 10:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-14 03:00:00+00'), 'an extension is created after the hour');
no_new_run('new extension', 'postgres', 'other', 'late', 'bare');

restart('2027-03-14 08:00:00', 'audio_cleanup.databases' => 'postgres, other', 'audio_cleanup.cleanup_schedule_hour' => 4);
ok(launcher_says($node, 'sleeping until 2027-03-15 04:00:00+00'), 'another hour while the server was down');
no_new_run('another hour');
restart('2027-03-15 08:00:00', 'audio_cleanup.timezone' => 'Europe/Berlin');
ok(launcher_says($node, 'sleeping until 2027-03-16 03:00:00+00'), 'another time zone while the server was down');
no_new_run('another time zone');
is($node->safe_psql('other', q{SELECT schedule_hour, timezone, since >= '2027-03-15 08:00:00+00' FROM cleanup_schedule}),
	'4|Europe/Berlin|t', 'since then it is in force');
change_settings($node, 'audio_cleanup.timezone' => 'UTC', 'audio_cleanup.cleanup_schedule_hour' => 3);
ok($node->poll_query_until('other', q{SELECT timezone = 'UTC' FROM cleanup_schedule}), 'as before');
no_new_run('as before');

# ---- at the start of the server ----

restart('2027-03-15 10:00:00', 'audio_cleanup.auto_cleanup_on_startup' => 'on');
ok(launcher_says($node, 'sleeping until 2027-03-16 03:00:00+00'), 'a start with auto_cleanup_on_startup');
is_deeply(new_runs($_), ['startup done'], "$_ is cleaned") foreach 'postgres', 'other';
ok(crash_server($node), 'the server crashes');
ok(launcher_says($node, 'sleeping until 2027-03-16 03:00:00+00'), 'and comes back');
no_new_run('crash restart');
restart('2027-03-15 11:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-16 03:00:00+00'), 'the next start');
is_deeply(new_runs($_), ['startup done'], "$_ is cleaned again") foreach 'postgres', 'other';
restart('2027-03-16 08:00:00');
ok(launcher_says($node, 'sleeping until 2027-03-17 03:00:00+00'), 'a start after a night that was missed');
is_deeply(new_runs($_), ['startup 2027-03-16 done'], "both are one run in $_") foreach 'postgres', 'other';

# ---- never ----

change_settings($node, 'audio_cleanup.auto_cleanup_on_startup' => 'off', 'audio_cleanup.cleanup_schedule_hour' => -1);
ok(launcher_says($node, 'idle: audio_cleanup.cleanup_schedule_hour is -1'), 'no hour');
is(next_run($node), 'audio_cleanup.cleanup_schedule_hour is -1, UTC', 'cleanup_next_run() says why');
set_schedule_clock($node, '2027-03-17 04:00:00');
change_settings($node, 'audio_cleanup.cleanup_schedule_hour' => 3);
ok(launcher_says($node, 'sleeping until 2027-03-18 03:00:00+00'), 'an hour again, after that of the day');
no_new_run('no hour');
ok(let_day_pass($node, '2027-03-18'), 'a night with an hour');
is_deeply(new_runs($_), ['schedule 2027-03-18 done'], "$_ is cleaned") foreach 'postgres', 'other';
set_schedule_clock($node, '2027-03-19 02:50:00', 'audio_cleanup.cleanup_schedule_hour' => 1);
ok(launcher_says($node, 'sleeping until 2027-03-20 01:00:00+00'), 'the hour becomes one that was before the change');
no_new_run('an hour that was before the change');

# ---- time zones ----

set_schedule_clock($node, '2027-03-27 12:00:00', 'audio_cleanup.timezone' => 'Europe/Berlin',
	'audio_cleanup.cleanup_schedule_hour' => 2, 'audio_cleanup.databases' => 'postgres');
foreach my $case (
	[ 'the clocks go forward', '2027-03-28', '2027-03-28 01:00', '2027-03-29 00:00' ],
	[ 'in summer', '2027-03-29', '2027-03-29 00:00', '2027-03-30 00:00' ],
	[ 'the clocks go back', '2027-10-31', '2027-10-31 01:00', '2027-11-01 01:00' ])
{
	my ($name, $date, $time, $next) = @$case;

	set_schedule_clock($node, ($date =~ s/(\d+)$/$1 - 1/er) . ' 23:30:00');
	ok(launcher_says($node, "sleeping until $time:00+00"), "$name: it is known when the hour comes");
	new_runs('postgres');
	is(next_run($node), "$time, every day at 02:00, Europe/Berlin", "$name: cleanup_next_run() says so");
	set_schedule_clock($node, "$time:00");
	ok(launcher_says($node, "sleeping until $next:00+00"), "$name: it comes");
	is_deeply(new_runs('postgres'), ["schedule $date done"], "$name: a run of that date");
}
set_schedule_clock($node, '2027-10-31 01:30:00');
ok(launcher_says($node, 'sleeping until 2027-11-01 01:00:00+00'), "it is half past two for the second time");
no_new_run("half past two again", 'postgres');

set_schedule_clock($node, '2027-11-02 12:00:00', 'audio_cleanup.timezone' => '', 'log_timezone' => 'Asia/Kathmandu');
ok(launcher_says($node, 'sleeping until 2027-11-02 20:15:00+00'), 'without a time zone it is log_timezone');
is(next_run($node), '2027-11-02 20:15, every day at 02:00, Asia/Kathmandu', 'cleanup_next_run() says which');
no_new_run('log_timezone', 'postgres');
set_schedule_clock($node, '2027-11-02 20:15:00');
ok(launcher_says($node, 'sleeping until 2027-11-03 20:15:00+00'), 'the hour there');
is_deeply(new_runs('postgres'), ['schedule 2027-11-03 done'], 'is that of the date there');

# ---- a crash in the middle ----

set_schedule_clock($node, '2027-12-01 00:00:00', 'audio_cleanup.timezone' => 'UTC', 'log_timezone' => 'UTC',
	'audio_cleanup.cleanup_schedule_hour' => 3);
ok(launcher_says($node, 'sleeping until 2027-12-01 03:00:00+00'), 'as before');
new_runs('postgres');
foreach my $case ([ 'unlinkat kill 6', '2027-12-01', '2027-12-02' ], [ 'renameat2 kill 6', '2027-12-02', '2027-12-03' ])
{
	my ($fault, $date, $next) = @$case;
	my $position = log_position($node);
	my $files = { wanted => {}, unwanted => {} };

	$files->{wanted}{'wanted.mp3'} = put_file(directory('postgres'), 'wanted.mp3');
	$files->{unwanted}{$_} = put_file(directory('postgres'), $_) foreach map { "$date/$_.mp3" } 1 .. 12;
	set_fault($node, $fault);
	set_schedule_clock($node, "$date 03:00:00");
	ok(wait_until(sub { fault_fired($node) })
		  && wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }),
		"$fault: the worker is killed");
	ok(wait_for_drain($node), "$fault: nothing is left to be done");
	is_deeply(violations($node, directory('postgres'), { %$files, final => 1 }), [], "$fault: every file is accounted for");
	is_deeply(visible_files(directory('postgres')), $files->{wanted}, "$fault: the orphans are gone");
	is_deeply(new_runs('postgres'), ["schedule $date interrupted"], "$fault: the run is told from a complete one");
	clear_fault($node);
	restart("$date 04:00:00");
	ok(launcher_says($node, "sleeping until $next 03:00:00+00"), "$fault: restarted");
	no_new_run("$fault: that day", 'postgres');
}

# ---- a standby ----

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
set_schedule_clock($standby, '2027-12-03 02:50:00');
$standby->start;
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^audio_cleanup'}), 0,
	'a standby has no launcher');
is_deeply(sql_json($standby, 'SELECT cleanup_status()')->{blocked_by}, ['recovery'], 'cleanup_status() works there');
my $recovery = 'the server is in recovery; the schedule begins with its promotion, UTC';
is(next_run($standby), $recovery, 'cleanup_next_run() says why');
set_schedule_clock($standby, '2027-12-03 03:10:00');
is(next_run($standby), $recovery, 'also when the hour has come');
put_files(directory('postgres'), 'orphan.mp3');
$node->stop;
$standby->promote;
ok(launcher_says($standby, 'sleeping until 2027-12-04 03:00:00+00'), 'it has one when it is promoted');
is(runs($standby)->[-1], 'catch-up 2027-12-03 blocked', 'but the directory is not its own');
like($standby->safe_psql('postgres', 'SELECT message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'),
	qr/does not belong to this database/, 'the run says so');
ok(-e directory('postgres') . '/orphan.mp3', 'and nothing is deleted');
$standby->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
ok(let_day_pass($standby, '2027-12-04'), 'the night after it was told to take over');
is(runs($standby)->[-1], 'schedule 2027-12-04 done', 'is as any other');
$standby->stop;

# ---- who has nothing to do ----

foreach my $name (sort keys %idle)
{
	my $idle = $idle{$name};
	my $most = $name eq 'sleeping' ? 2 + int((time - $idle->{since}) / 60) : 0;

	cmp_ok(wakeups($idle) - $idle->{wakeups}, '<=', $most, "the launcher of $name has slept");
	$idle->{server}->stop;
}

unlike(slurp_file($_->logfile), qr/PANIC:|TRAP:|signal (6|11)/, 'no process has died but those that were killed')
  foreach $node, $standby;
done_testing();
