# AudioCleanup.pm: what the TAP tests share.
#
# A server with an upload directory of its own, the application's schema, files
# of any age, and one function that says whether files and rows agree:
# violations().

package AudioCleanup;

use strict;
use warnings;

use Exporter qw(import);
use File::Basename qw(dirname);
use File::Find qw(find);
use File::Path qw(make_path remove_tree);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use Time::Local qw(timegm);

our @EXPORT = qw(
  new_server sql begin_session end_session claim_directory make_schema upload_dir put_file put_files add_rows empty_directory
  visible_files trashed_files deleted_early state_sql read_file sql_json sql_error wait_until wait_for_drain
  violations undo_violations build_shim start_with_faults set_fault clear_fault fault_fired wait_for_crash
  log_since log_position log_lines shown_error
  start_shard change_settings set_setting set_schedule_clock start_with_clock set_clock launcher_says let_day_pass runs crash_server comes_back_after
);

my $wait_seconds = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

# pg_ctl waits for a minute as a rule, and a server on a busy machine may need longer to start, or to stop.
$ENV{PGCTLTIMEOUT} //= $wait_seconds;

# The time limit of a background session is for all that it does from its beginning to its end.  A limit for each query,
# and for the end, finds what hangs as well, and not what is long.
{
	no warnings 'redefine';
	my $background_psql = \&PostgreSQL::Test::Cluster::background_psql;
	my $quit = \&PostgreSQL::Test::BackgroundPsql::quit;

	*PostgreSQL::Test::Cluster::background_psql = sub {
		my $session = $background_psql->(@_);
		$session->set_query_timer_restart();
		return $session;
	};
	*PostgreSQL::Test::BackgroundPsql::quit = sub {
		my ($session) = @_;
		$session->{timeout}->start();
		return $quit->($session);
	};
}

# ---- documents ----

# The error that a section of docs/operations.md shows, as a regular expression: "..." stands for what differs.
sub shown_error
{
	my ($heading) = @_;
	my ($section) = slurp_file(dirname(__FILE__) . '/../docs/operations.md') =~ /^## \Q$heading\E\n(.*?)(?=^## |\z)/ms;
	my @lines = $section =~ /^    ((?:ERROR|DETAIL|HINT):  .*)$/mg;

	die "docs/operations.md shows no error in \"$heading\"" unless @lines;
	my $pattern = join "\n", map { join '.*', map { quotemeta } split /\Q...\E/, $_, -1 } @lines;
	return qr/$pattern/;
}

# ---- servers ----

my $first_server;

# new_server(NAME, conf => TEXT, init => [...], start => 0, install_path => PREFIX of a server): files are as old as their mtime says,
# and what does not fit into the smallest work_mem goes to disk
sub new_server
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $options{install_path});
	my $dir = upload_dir($node);

	$first_server //= $node;
	make_path($dir);
	$node->init(@{ $options{init} || [] });
	$node->append_conf('postgresql.conf', <<"END" . keep_wal(%options) . ($options{conf} || ''));
audio_cleanup.upload_dir = '$dir'
audio_cleanup.file_age = 'mtime'
timezone = 'UTC'
log_timezone = 'UTC'
restart_after_crash = on
work_mem = 64kB
END
	$node->start unless defined $options{start} && !$options{start};
	return $node;
}

# A checkpoint, which comes every five minutes, removes what a standby has not asked for yet, where to start one takes as long.
sub keep_wal
{
	my (%options) = @_;
	my %init = @{ $options{init} || [] };
	return $init{allows_streaming} ? "wal_keep_size = '1GB'\n" : '';
}

# claim_directory(NODE, NAME ...): makes the schema, these files and their rows, and the first run; returns path => content
sub claim_directory
{
	my ($node, @wanted) = @_;

	make_schema($node);
	add_rows($node, put_files(upload_dir($node), @wanted));
	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	ok(wait_for_drain($node), 'the directory is claimed');
	return visible_files(upload_dir($node));
}

sub upload_dir
{
	my ($node) = @_;
	return $node->basedir . '/uploads';
}

# The extension and the table of a real application, registered.
sub make_schema
{
	my ($node, $database) = @_;
	$node->safe_psql($database || 'postgres', q{
		CREATE EXTENSION audio_cleanup;
		CREATE TABLE sessions (
			id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
			patient_id uuid, therapist_id uuid,
			session_date timestamp NOT NULL DEFAULT now(),
			duration_seconds int,
			audio_filename varchar(255), audio_url text,
			transcript_text text, transcript_segments jsonb,
			status varchar(50) DEFAULT 'pending', error_message text,
			created_at timestamp DEFAULT (now() AT TIME ZONE 'UTC'),
			updated_at timestamp DEFAULT (now() AT TIME ZONE 'UTC'),
			processed_at timestamp);
		CREATE INDEX ON sessions (status);
		SELECT cleanup_add_source('sessions');
	});
	return;
}

# One row for each name: it refers to that file.
sub add_rows
{
	my ($node, @names) = @_;
	my $values = join ', ', map { "('" . s/'/''/gr . "')" } @names;
	$node->safe_psql('postgres', "INSERT INTO sessions (audio_url) VALUES $values");
	return;
}

# sql(STATEMENT, ...): in the database "postgres" of the first server that the test has made
sub sql
{
	return $first_server->safe_psql('postgres', join ";\n", @_);
}

# begin_session(NODE, SQL): a session with an open transaction that has done this
sub begin_session
{
	my ($node, $sql) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe("BEGIN; $sql;");
	return $session;
}

# end_session(SESSION, SQL, as a rule COMMIT)
sub end_session
{
	my ($session, $sql) = @_;
	$session->query_safe($sql // 'COMMIT');
	$session->quit;
	return;
}

sub sql_json
{
	my ($node, $sql) = @_;
	return decode_json($node->safe_psql('postgres', $sql));
}

# sql_error(NODE, SQL, OPTIONS of psql): what psql says, with each SQLSTATE
sub sql_error
{
	my ($node, $sql, %options) = @_;
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", %options);
	return $error;
}

# set_setting(NODE, SETTING of ours, VALUE as SQL; undef: as it was): for all sessions
sub set_setting
{
	my ($node, $setting, $value) = @_;
	$node->safe_psql('postgres', 'ALTER SYSTEM ' . (defined $value ? "SET audio_cleanup.$setting = $value" : "RESET audio_cleanup.$setting"));
	$node->reload;
	$node->safe_psql('postgres', 'SELECT pg_sleep(0.2)');
	return;
}

# start_shard(NAME, init => [...], conf => TEXT): another server, which asks its role "reader" for a password
sub start_shard
{
	my ($name, %options) = @_;
	my $shard = PostgreSQL::Test::Cluster->new($name);
	my ($hba, $trusting);

	$shard->init(@{ $options{init} || [] });
	$shard->append_conf('postgresql.conf', "password_encryption = 'scram-sha-256'\n" . keep_wal(%options) . ($options{conf} || ''));
	$hba = $shard->data_dir . '/pg_hba.conf';
	$trusting = slurp_file($hba);
	open my $file, '>', $hba or die "could not write $hba: $!";
	print $file "local all reader scram-sha-256\n$trusting";
	close $file;
	$shard->start;
	return $shard;
}

sub log_position
{
	my ($node) = @_;
	return -s $node->logfile;
}

sub log_since
{
	my ($node, $position) = @_;
	return slurp_file($node->logfile, $position);
}

# The lines of the server log that match.
sub log_lines
{
	my ($node, $pattern) = @_;
	return join '', grep { $_ =~ $pattern } split /^/m, slurp_file($node->logfile);
}


# ---- files ----

sub read_file
{
	my ($path) = @_;
	open my $handle, '<:raw', $path or return undef;
	local $/;
	return scalar <$handle>;
}

# put_file(DIR, NAME, hours => 48, content => TEXT); returns the content
sub put_file
{
	my ($dir, $name, %options) = @_;
	my $content = $options{content} // "audio of $name\n";
	my $hours = $options{hours} // 48;
	my $time = time - $hours * 3600;

	make_path(dirname("$dir/$name"));
	open my $handle, '>:raw', "$dir/$name" or die "could not write $dir/$name: $!";
	print $handle $content;
	close $handle or die "could not write $dir/$name: $!";
	utime $time, $time, "$dir/$name" or die "could not set the times of $dir/$name: $!";
	return $content;
}

sub put_files
{
	my ($dir, @names) = @_;
	put_file($dir, $_) foreach @names;
	return @names;
}

# All but a claim of the directory.
sub empty_directory
{
	my ($dir) = @_;
	remove_tree(grep({ $_ ne "$dir/.audio_cleanup" } glob("$dir/* $dir/.[!.]*")), "$dir/.audio_cleanup/trash");
	return;
}

# path => content, of regular files, without what begins with a dot
sub visible_files
{
	my ($dir) = @_;
	my %files;

	find({ no_chdir => 1,
		   preprocess => sub { grep { !/^\./ } @_ },
		   wanted => sub {
			   return if $File::Find::name eq $dir || -l || !-f;
			   $files{ substr($_, length($dir) + 1) } = read_file($_);
		   } }, $dir);
	return \%files;
}

# path => list of the runs that have it in their trash
sub trashed_files
{
	my ($dir) = @_;
	my $trash = "$dir/.audio_cleanup/trash";
	my %files;

	return \%files unless -d $trash;
	find({ no_chdir => 1,
		   wanted => sub {
			   return if -d;
			   my ($run, $path) = m{^\Q$trash\E/(\d+)/(.+)$}s;
			   push @{ $files{$path} }, $run if defined $path;
		   } }, $trash);
	return \%files;
}


# ---- waiting ----

# Bounded; true if the condition came true.
sub wait_until
{
	my ($condition) = @_;
	foreach (1 .. $wait_seconds * 20)
	{
		return 1 if $condition->();
		usleep(50_000);
	}
	return 0;
}

# deleted_early(DIR, files => that lie in the trash, since => a time before the call that has moved them there, until => so
# many are gone, per_second, at_once): watches the trash, and returns what is against this pace, as texts.  On a busy
# machine files may be late, but none is early: what counts is the time since all were there.  A pace leaves a quarter of
# the time for the rest between two portions.
sub deleted_early
{
	my ($dir, %pace) = @_;
	my $since = $pace{since};
	my @early;

	wait_until(sub {
		my $before = Time::HiRes::time();
		my $gone = $pace{files} - keys %{ trashed_files($dir) };
		my $seconds = Time::HiRes::time() - $since;

		push @early, sprintf('%d files in %.3f s', $gone, $seconds)
		  if $gone > 0 && $gone > $pace{per_second} * 4 / 3 * $seconds + $pace{at_once};
		$since = $before if $gone == 0;
		return $gone >= $pace{until};
	}) or push @early, 'the files stay';
	return \@early;
}

# No run is unfinished and no file is waiting for anything but its day.
sub wait_for_drain
{
	my ($node, $database) = @_;
	return $node->poll_query_until($database || 'postgres', q{
		SELECT NOT EXISTS (SELECT FROM cleanup_runs WHERE status IN ('running', 'pending'))
		   AND NOT EXISTS (SELECT FROM cleanup_files
		                   WHERE state IN ('pending', 'restoring') OR state = 'trashed' AND due_at <= now())
		   AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')
	});
}


# ---- the schedule ----

# change_settings(NODE, NAME => VALUE, ...): by a reload, or while the server is down
sub change_settings
{
	my ($node, %settings) = @_;

	if (-e $node->data_dir . '/postmaster.pid')
	{
		$node->safe_psql('postgres',
			join "\n", (map { "ALTER SYSTEM SET $_ = '$settings{$_}';" } sort keys %settings), 'SELECT pg_reload_conf();');
	}
	else
	{
		$node->append_conf('postgresql.auto.conf', join "\n", map { "$_ = '$settings{$_}'" } sort keys %settings);
	}
	return;
}

# set_schedule_clock(NODE, 'YYYY-MM-DD hh:mm:ss' of UTC, further settings): it is that time, or up to a second later,
# and goes on
sub set_schedule_clock
{
	my ($node, $time, %settings) = @_;
	my ($year, $month, $day, $hour, $minute, $second) = $time =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)$/
	  or die "not a time: $time";

	change_settings($node, %settings,
		'audio_cleanup.debug_clock_offset' => timegm($second, $minute, $hour, $day, $month - 1, $year) - time);
	return;
}

# Only the server itself, and its children, have a clock that can be set; returns the FILE for set_clock().
sub start_with_clock
{
	my ($node) = @_;
	my $file = $node->basedir . '/ahead';
	local $ENV{LD_PRELOAD} = build_shim('clock_shim');
	local $ENV{CLOCK_AHEAD} = $file;
	$node->start;
	return $file;
}

# set_clock(FILE, AHEAD, PASSED): what t/clock_shim.c reads in FILE, in seconds
sub set_clock
{
	my ($file, $ahead, $passed) = @_;
	append_to_file("$file.new", "$ahead $passed\n");
	rename "$file.new", $file or die $!;
	return;
}

# True when the launcher shows that, also after a restart.
sub launcher_says
{
	my ($node, $activity) = @_;
	return $node->poll_query_until('postgres',
		"SELECT query = '$activity' FROM pg_stat_activity WHERE backend_type = 'audio_cleanup launcher'");
}

sub date_after
{
	my ($date) = @_;
	my ($year, $month, $day) = split /-/, $date;
	my @next = gmtime timegm(0, 0, 12, $day, $month - 1, $year) + 86400;
	return sprintf '%04d-%02d-%02d', $next[5] + 1900, $next[4] + 1, $next[3];
}

# let_day_pass(NODE, 'YYYY-MM-DD', HOUR): from ten minutes before the hour of the schedule, in UTC, to just after it, and
# until the launcher sleeps again
sub let_day_pass
{
	my ($node, $date, $hour) = @_;
	my $clock = sprintf '%02d:00:00', $hour //= 3;

	set_schedule_clock($node, sprintf '%s %02d:50:00', $date, $hour - 1);
	return 0 unless launcher_says($node, "sleeping until $date $clock+00");
	set_schedule_clock($node, "$date $clock");
	return launcher_says($node, 'sleeping until ' . date_after($date) . " $clock+00");
}

# "trigger scheduled_for status" of each run, oldest first
sub runs
{
	my ($node, $database) = @_;
	return [ split /\n/, $node->safe_psql($database || 'postgres',
			q{SELECT concat_ws(' ', trigger, scheduled_for, status) FROM cleanup_runs ORDER BY run_id}) ];
}

# Kill a process that all depend on: the server restarts by itself.
sub crash_server
{
	my ($node) = @_;
	my $position = log_position($node);

	kill 'KILL', $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
	return comes_back_after($node, $position);
}

# whether the server was restarted after that place in its log: for a moment after a process was killed, connections are
# taken by the server that is going down
sub comes_back_after
{
	my ($node, $position) = @_;
	return wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s });
}


# ---- do files and rows agree? ----

# An expression for the state of a row of cleanup_files f: that of pending files may be said once, for all of the run
sub state_sql
{
	return q{(SELECT CASE WHEN f.state = 'pending' AND f.error IS NULL AND f.file_id <= (to_jsonb(r) ->> 'captured_up_to')::bigint
		THEN 'trashed' ELSE f.state END FROM cleanup_runs r WHERE r.run_id = f.run_id)};
}

# violations(NODE, DIR, {wanted => {PATH => CONTENT}, unwanted => {...}, final => 0|1})
#
# A wanted file is in its place, with its content.  An unwanted one is in
# exactly one of three: its place; the trash of a run that has it pending or
# trashed; or it is gone with a row that says `deleted`.  Between a crash and
# the next drain, "gone" may still be recorded as `trashed`.  With `final`
# nothing is left to do.  Returns the list of what is wrong.
sub violations
{
	my ($node, $dir, $expected) = @_;
	my $files = visible_files($dir);
	my $trash = trashed_files($dir);
	my $final = $expected->{final};
	my (%states, %of_run, @wrong);

	foreach my $row (split /\n/, $node->safe_psql('postgres',
			'SELECT run_id || E\'\t\' || ' . state_sql() . q{ || E'\t' || file FROM cleanup_files f ORDER BY file_id}))
	{
		my ($run, $state, $file) = split /\t/, $row, 3;
		$states{$file}{$state}++;
		$of_run{"$run/$file"} = $state;
	}

	foreach my $file (sort keys %{ $expected->{wanted} || {} })
	{
		my $content = $files->{$file};
		push @wrong, "wanted $file is not in its place" unless defined $content;
		push @wrong, "wanted $file has another content"
		  if defined $content && $content ne $expected->{wanted}{$file};
		push @wrong, "wanted $file is in the trash" if $trash->{$file};
		push @wrong, "wanted $file is recorded as deleted" if $states{$file}{deleted};
	}

	foreach my $file (sort keys %{ $expected->{unwanted} || {} })
	{
		my @runs = @{ $trash->{$file} || [] };
		my $here = exists $files->{$file};
		my $known = $states{$file} || {};

		push @wrong, "$file is in its place and in the trash" if $here && @runs;
		push @wrong, "$file is in the trash of several runs" if @runs > 1;
		push @wrong, "$file has another content"
		  if $here && $files->{$file} ne $expected->{unwanted}{$file};
		push @wrong, "$file is recorded as deleted but is in its place" if $here && $known->{deleted};
		push @wrong, "$file was deleted twice" if ($known->{deleted} || 0) > 1;
		foreach my $run (@runs)
		{
			my $state = $of_run{"$run/$file"} || 'not there';
			push @wrong, "$file is in the trash of run $run, its row is $state"
			  unless $state =~ /^(pending|trashed)$/;
		}
		push @wrong, "$file is gone, its rows are " . (join(', ', sort keys %$known) || 'none')
		  if !$here && !@runs && !$known->{deleted} && ($final || !$known->{trashed});
	}

	if ($final)
	{
		push @wrong, 'there still is a trash' if -e "$dir/.audio_cleanup/trash";
		push @wrong, map { "$_->[0] is $_->[1]" }
		  map { my $f = $_; map { [ $f, $_ ] } grep { /^(pending|trashed)$/ } keys %{ $states{$f} } }
		  sort keys %states;
		push @wrong, "run $_ is not finished"
		  foreach split /\n/, $node->safe_psql('postgres',
			q{SELECT run_id FROM cleanup_runs WHERE finished_at IS NULL OR status IN ('running', 'pending')});
	}
	return \@wrong;
}

# undo_violations(NODE, DIR, {files => {PATH => CONTENT}, as => {PATH => OTHER NAME}, final => 0|1})
#
# For runs with backups: each file is, whole, in exactly one of: its place, or
# the place it was to be restored to; the trash of a run whose row says that it
# is there or on its way; or it is gone, and its row says `deleted` (before the
# next drain, `trashed` and due).  With `final` nothing is left to do.
sub undo_violations
{
	my ($node, $dir, $expected) = @_;
	my $here = visible_files($dir);
	my $trash = trashed_files($dir);
	my $final = $expected->{final};
	my (%state, %latest, @wrong);

	foreach my $row (split /\n/, $node->safe_psql('postgres', q{
			SELECT run_id || E'\t' || state || CASE WHEN state = 'trashed' AND due_at <= now() THEN ' due' ELSE '' END
			  || E'\t' || file FROM cleanup_files ORDER BY file_id}))
	{
		my ($run, $state, $file) = split /\t/, $row, 3;
		$latest{$file} = $state{"$run/$file"} = $state;
	}
	foreach my $file (sort keys %{ $expected->{files} })
	{
		my $content = $expected->{files}{$file};
		my $as = ($expected->{as} || {})->{$file};
		my @places = grep { defined $here->{$_} && $here->{$_} eq $content } $file, defined $as ? $as : ();
		my @runs = grep { read_file("$dir/.audio_cleanup/trash/$_/$file") eq $content } @{ $trash->{$file} || [] };
		my $state = $latest{$file} || 'not there';

		push @wrong, "$file is in several places: " . join ', ', @places, @runs if @places + @runs > 1;
		push @wrong, "$file is nowhere, its row is $state"
		  if @places + @runs == 0 && $state ne 'deleted' && ($final || $state ne 'trashed due');
		push @wrong, "$file is in its place, its row is $state"
		  if @places && ($state eq 'deleted' || $final && $state !~ /^(restored|skipped|not there)$/);
		foreach my $run (@runs)
		{
			my $of_run = $state{"$run/$file"} || 'not there';
			push @wrong, "$file is in the trash of run $run, its row is $of_run"
			  if $of_run !~ ($final ? qr/^trashed$/ : qr/^(pending|trashed|trashed due|restoring)$/);
		}
	}
	push @wrong, map { "$_ is $latest{$_}" } grep { $final && $latest{$_} =~ /^(pending|restoring|trashed due)$/ } sort keys %latest;
	return \@wrong;
}


# ---- faults: see fault_shim.c ----

my $shim;

# build_shim(NAME): a library of t/NAME.c; returns what LD_PRELOAD is to be, as a sanitizer (script/test --sanitize) must
# come first.
sub build_shim
{
	my ($name) = @_;
	my ($cc) = run_command([ 'pg_config', '--cc' ]);
	my $library = "$PostgreSQL::Test::Utils::tmp_check/$name.so";

	system_or_bail(split(' ', $cc), '-O1', '-Wall', '-Werror', '-shared', '-fPIC',
		'-o', $library, dirname(__FILE__) . "/$name.c", '-ldl');
	return join ' ', grep { $_ } $ENV{LD_PRELOAD}, $library;
}

sub control_file
{
	my ($node) = @_;
	return $node->basedir . '/fault';
}

# Only the server itself, and its children, have the shim.
sub start_with_faults
{
	my ($node) = @_;
	local $ENV{LD_PRELOAD} = $shim ||= build_shim('fault_shim');
	local $ENV{FAULT_CONTROL} = control_file($node);
	local $ENV{FAULT_DIRECTORY} = upload_dir($node);
	$node->start;
	return;
}

# set_fault(NODE, 'unlinkat kill 3'): see fault_shim.c
sub set_fault
{
	my ($node, $fault) = @_;
	my $control = control_file($node);

	clear_fault($node);
	append_to_file("$control.new", "$fault\n");
	rename "$control.new", $control or die "could not rename $control.new: $!";
	return;
}

# Removes what is set; what has fired is forgotten.
sub clear_fault
{
	my ($node) = @_;
	unlink control_file($node), control_file($node) . '.fired';
	return;
}

# How often it struck.
sub fault_fired
{
	my ($node) = @_;
	my $fired = control_file($node) . '.fired';
	return -s $fired || 0;
}

# whether a fault struck, and the server was restarted after that place in its log
sub wait_for_crash
{
	my ($node, $position) = @_;
	return wait_until(sub { fault_fired($node) }) && comes_back_after($node, $position);
}

1;
