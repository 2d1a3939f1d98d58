# Sources that Citus distributes: a coordinator, two workers, and writers that come in everywhere.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

chomp(my $share = `pg_config --sharedir`);
plan skip_all => 'Citus is not installed, and Debian has no package of it: not permitted here' unless -e "$share/extension/citus.control";

my $conf = q{
shared_preload_libraries = 'citus'
listen_addresses = '127.0.0.1'
max_prepared_transactions = 50
max_connections = 100
wal_level = logical
citus.shard_count = 4
citus.max_cached_conns_per_worker = 0
citus.recover_2pc_interval = -1
};
my %node = (here => new_server('coordinator', conf => $conf));
foreach my $name ('one', 'two')
{
	$node{$name} = PostgreSQL::Test::Cluster->new($name);
	$node{$name}->init;
	$node{$name}->append_conf('postgresql.conf', "${conf}log_statement = 'all'\n");
	$node{$name}->start;
}
my $here = $node{here};
my $dir = upload_dir($here);
my %name_of = map { $node{$_}->port => $_ } keys %node;

$_->safe_psql('postgres', 'CREATE EXTENSION citus') foreach values %node;
$here->safe_psql('postgres', "SELECT citus_set_coordinator_host('127.0.0.1', " . $here->port . ')');
$here->safe_psql('postgres', "SELECT citus_add_node('127.0.0.1', " . $node{$_}->port . ')') foreach 'one', 'two';

# The owner is no superuser.
$here->safe_psql('postgres', q{
	CREATE EXTENSION audio_cleanup;
	CREATE ROLE app LOGIN;
	GRANT CREATE ON SCHEMA public TO app;
	CREATE SCHEMA "Odd schema" AUTHORIZATION app;
	GRANT EXECUTE ON FUNCTION cleanup_add_source TO app;
	SET ROLE app;
	CREATE TABLE "Odd schema"."sessions of a long name, which leaves no room for numbers, none" (
		tenant int, id int, audio_url text, status text, updated_at timestamptz DEFAULT now(), PRIMARY KEY (tenant, id));
	CREATE VIEW public.sessions AS SELECT * FROM "Odd schema"."sessions of a long name, which leaves no room for numbers, none";
	CREATE TABLE shared (id int PRIMARY KEY, audio_url text);
	CREATE TABLE single (id int PRIMARY KEY, audio_url text);
	CREATE TABLE parts (tenant int, id int, audio_url text) PARTITION BY RANGE (id);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
	SELECT create_distributed_table('"Odd schema"."sessions of a long name, which leaves no room for numbers, none"', 'tenant');
	SELECT create_distributed_table('parts', 'tenant');
	SELECT create_reference_table('shared');
	SELECT citus_add_local_table_to_metadata('single');
});
my $sessions = '"Odd schema"."sessions of a long name, which leaves no room for numbers, none"';

# A tenant for each worker, on which his rows lie.
my %tenant;
foreach my $tenant (1 .. 50)
{
	my $port = $here->safe_psql('postgres', qq{
		SELECT n.nodeport FROM pg_dist_placement p JOIN pg_dist_node n USING (groupid)
		WHERE p.shardid = get_shard_id_for_distribution_column('$sessions', $tenant)});
	$tenant{ $name_of{$port} } //= $tenant;
}
is_deeply([ sort keys %tenant ], [ 'one', 'two' ], 'there are rows on both workers');

my %wanted;
my $id = 0;

sub want { my ($name) = @_; return $wanted{$name} = put_file($dir, $name); }

# The statement that adds a row which refers to the file, to a table on that node.
sub row
{
	my ($table, $node, $name) = @_;
	my $number = ++$id;
	return "INSERT INTO $sessions VALUES ($tenant{$node}, $number, '$name', 'processed')" if $table eq 'sessions';
	return "INSERT INTO parts VALUES ($tenant{$node}, $number, '$name')" if $table eq 'parts';
	return "INSERT INTO $table VALUES ($number, '$name')";
}

sub clean { my ($options) = @_; return sql_json($here, 'CALL cleanup_run(' . ($options || '') . ')'); }

sub refused { my ($sql, $pattern, $name) = @_; return like(sql_error($here, $sql), $pattern, $name); }

sub was_condemned { my ($name) = @_; return $here->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE file = '$name'"); }

# How often the node was asked for writers since that place in its log.
sub questions { my ($node, $position) = @_; return scalar(() = log_since($node, $position) =~ /pg_catalog\.pg_locks l/g); }

# Starts a CALL, and returns when it asks a worker again who writes there.
sub start_waiting_run
{
	my %position = map { $_ => log_position($node{$_}) } 'one', 'two';
	my $run = $here->background_psql('postgres', on_error_stop => 0);
	$run->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n\\echo over\n");
	ok(wait_until(sub { grep { questions($node{$_}, $position{$_}) > 1 } 'one', 'two' }), '... a run waits for writers');
	return $run;
}

# Returns what the CALL has said.
sub finish_run { my ($run) = @_; my $said = $run->query_until(qr/over/, ''); $run->quit; return $said; }

sub orphan { my ($name) = @_; return put_file($dir, $name); }

# ---- registered, as the owner, who is an ordinary role ----

foreach my $source ('sessions', 'shared', 'single', 'parts')
{
	like($here->safe_psql('postgres', "SET ROLE app; SELECT cleanup_add_source('$source'); RESET ROLE; SELECT source FROM cleanup_sources"), qr/^$source$/m,
		"$source is registered by its owner");
}

# ---- a preview, and a run ----

foreach my $case ([ 'sessions', 'one' ], [ 'sessions', 'two' ], [ 'parts', 'one' ], [ 'shared', 'one' ], [ 'single', 'here' ])
{
	my ($table, $where) = @$case;
	want("$table.$where.mp3");
	$here->safe_psql('postgres', row($table, $where, "$table.$where.mp3"));
}
orphan('orphan.mp3');
my $status = sql_json($here, 'SELECT cleanup_status()');
ok($status->{success}, 'cleanup_status() looks');
is_deeply($status->{potential_cleanup}{orphaned_files_deleted}, ['orphan.mp3'], 'rows protect their files on all nodes');
my $preview = sql_json($here, 'SELECT cleanup_all(dry_run => true)');
is_deeply($preview->{blocked_by}, ['isolation'], 'cleanup_all(dry_run) says that cleanup_all() would be refused');
refused("SELECT $_()", qr/ERROR:  25001: cannot clean up in one transaction where rows lie on another server.*HINT:  CALL cleanup_run\(\)/s, "$_ is refused")
	foreach 'cleanup_all', 'cleanup_orphaned_files', 'cleanup_failed_sessions';
ok(-e "$dir/orphan.mp3", 'nothing was deleted');
is_deeply(clean()->{result}{orphaned_files_deleted}, ['orphan.mp3'], 'CALL cleanup_run() deletes the orphan');
is_deeply(visible_files($dir), \%wanted, '... and nothing else');
is(sql_json($here, q{SELECT cleanup_explain('sessions.two.mp3')})->{verdict}, 'kept', 'cleanup_explain() sees a row on a worker');
$here->safe_psql('postgres', q{SET ROLE app; CREATE VIEW twice AS SELECT s.audio_url FROM sessions s; SELECT cleanup_add_source('twice', '{audio_url}')});
orphan('another.mp3');
is_deeply(clean()->{result}{orphaned_files_deleted}, ['another.mp3'], 'two sources may read one table');
$here->safe_psql('postgres', q{SELECT cleanup_drop_source('twice'); DROP VIEW twice});

# ---- writers in flight, through each node, to each kind of table ----

foreach my $case ([ 'here', 'sessions', 'one' ], [ 'one', 'sessions', 'one' ], [ 'two', 'sessions', 'one' ], [ 'two', 'sessions', 'two' ],
	[ 'two', 'parts', 'one' ], [ 'one', 'shared', 'one' ], [ 'two', 'shared', 'one' ])
{
	my ($through, $table, $where) = @$case;
	my $name = "$table.$where.through.$through.mp3";
	want($name);
	orphan("orphan.$name");
	my $writer = begin_session($node{$through}, row($table, $where, $name));
	my $run = start_waiting_run();
	ok(-e "$dir/orphan.$name", "through $through to $table on $where: nothing is deleted while somebody writes");
	end_session($writer);
	finish_run($run);
	is(was_condemned($name), 0, '... the file is not condemned whose row was in flight');
	ok(!-e "$dir/orphan.$name", '... and another one is gone');
}

# a local table that others write to, through a worker
want('single.through.one.mp3');
orphan('orphan1.mp3');
$here->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '1s'});
my $writer = begin_session($node{one}, row('single', 'here', 'single.through.one.mp3'));
refused('CALL cleanup_run(force => true)', qr/ERROR:  55P03: gave up waiting for a transaction that writes on node "127\.0\.0\.1:\d+".*Process \d+ holds the lock there/s,
	'a writer of a local table through a worker is waited for');
ok(-e "$dir/orphan1.mp3", '... and nothing is deleted');
end_session($writer);
is($here->safe_psql('postgres', q{SELECT status FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}), 'blocked', 'the run is on record as blocked');
is_deeply(clean('force => true')->{result}{orphaned_files_deleted}, ['orphan1.mp3'], 'when he has ended, a run deletes');


# ---- a transaction that is prepared on a worker, as a commit in two phases leaves it when a node fails ----

# The name of the shard of a table, on that worker, as one who writes there directly sees it.
sub shard
{
	my ($table, $tenant) = @_;
	return $here->safe_psql('postgres', "SELECT shard_name('$table', get_shard_id_for_distribution_column('$table', $tenant), false)");
}

want('prepared.mp3');
orphan('orphan2.mp3');
my $shard = shard('parts', $tenant{two});
$node{two}->safe_psql('postgres', qq{SET citus.enable_manual_changes_to_shards = on; BEGIN;
	INSERT INTO $shard VALUES ($tenant{two}, 900, 'prepared.mp3'); PREPARE TRANSACTION 'left behind'});
refused('CALL cleanup_run(force => true)', qr/ERROR:  55P03: gave up waiting.*A prepared transaction holds the lock there/s,
	'a transaction that is prepared on a worker is waited for');
ok(-e "$dir/orphan2.mp3", '... and nothing is deleted');
$here->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '60s'});
my $run = start_waiting_run();
$node{two}->safe_psql('postgres', q{COMMIT PREPARED 'left behind'});
finish_run($run);
is(was_condemned('prepared.mp3'), 0, '... and its row protects its file');
ok(!-e "$dir/orphan2.mp3", '... and another one is gone');

# ---- a writer that begins too late to be waited for: the last look sees him; and shards that move meanwhile ----

# The nodes have been asked when a run waits for a writer to a table that is not distributed.
$here->safe_psql('postgres', q{CREATE TABLE plain (id int, audio_url text); SELECT cleanup_add_source('plain')});

sub start_run_that_has_asked
{
	my $run = $here->background_psql('postgres', on_error_stop => 0);
	$run->query_until(qr/begun/, "\\set VERBOSITY verbose\n\\echo begun\nCALL cleanup_run(force => true);\n\\echo over\n");
	ok($here->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%' AND wait_event = 'virtualxid'}),
		'... a run has asked all nodes');
	return $run;
}

foreach my $days (0, 30)
{
	$here->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $days");
	want("late$days.mp3");
	my $first = begin_session($here, row('plain', 'here', 'elsewhere.mp3'));
	$run = start_run_that_has_asked();
	$writer = begin_session($node{one}, row('sessions', 'two', "late$days.mp3"));
	end_session($first);
	ok(wait_until(sub { !-e "$dir/late$days.mp3" }), "backups of $days days: a file is captured whose row came too late");
	end_session($writer);
	finish_run($run);
	ok(wait_until(sub { -e "$dir/late$days.mp3" }), '... and comes back');
}

# the background worker takes the last look as well
want('worker.mp3');
my $first = begin_session($here, row('plain', 'here', 'elsewhere.mp3'));
$run = start_run_that_has_asked();
$writer = begin_session($node{one}, row('sessions', 'two', 'worker.mp3'));
end_session($first);
ok(wait_until(sub { !-e "$dir/worker.mp3" }), 'a file is captured whose row came too late');
$here->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%' AND backend_type = 'client backend'});
finish_run($run);
ok($here->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'}),
	'... the run is cancelled, and a worker goes on');
ok(!-e "$dir/worker.mp3", '... which waits for the writer');
end_session($writer);
ok(wait_until(sub { -e "$dir/worker.mp3" }), '... and the file comes back');
$here->safe_psql('postgres', 'ALTER DATABASE postgres RESET audio_cleanup.backup_retention_days');
ok(wait_for_drain($here), 'all runs are done');

orphan('orphan3.mp3');
$first = begin_session($here, row('plain', 'here', 'elsewhere.mp3'));
$run = start_run_that_has_asked();
my $ports = join ', ', map { "'127.0.0.1', " . $node{$_}->port } 'one', 'two';
$here->safe_psql('postgres', "SELECT citus_move_shard_placement(get_shard_id_for_distribution_column('$sessions', $tenant{one}), $ports, 'block_writes')");
end_session($first);
my $said = finish_run($run);
ok(-e "$dir/orphan3.mp3", 'a shard has moved: nothing is deleted');
like($here->safe_psql('postgres', q{SELECT status || ': ' || message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}),
	qr/^blocked: .*shards of source .* have moved while it was read/, '... and the run says so');
$tenant{moved} = $tenant{one};
want('moved.mp3');
$writer = begin_session($node{one}, row('sessions', 'moved', 'moved.mp3'));
$run = start_waiting_run();
end_session($writer);
finish_run($run);
is(was_condemned('moved.mp3'), 0, 'a writer in its new place is waited for');
ok(!-e "$dir/orphan3.mp3", '... and another file is gone');

# ---- failed sessions: kept, cleared, restored ----

$here->safe_psql('postgres', q{
	ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 30;
	SET ROLE app;
	CREATE TABLE jobs (tenant int, id text, audio_url text CHECK (audio_url <> '' OR tenant > 0), status text, updated_at timestamptz, PRIMARY KEY (tenant, id));
	CREATE TABLE cleared (LIKE jobs INCLUDING ALL);
	CREATE TABLE one_shard (LIKE jobs INCLUDING ALL);
	CREATE TABLE keyless (LIKE jobs);
	SELECT create_distributed_table('jobs', 'tenant');
	SELECT create_distributed_table('cleared', 'tenant');
	SELECT create_distributed_table('one_shard', 'tenant', shard_count => 1, colocate_with => 'none');
	SELECT create_distributed_table('keyless', 'tenant');
	CREATE DOMAIN tenant AS int;
	CREATE TABLE domained (LIKE jobs INCLUDING ALL);
	ALTER TABLE domained ALTER tenant TYPE tenant;
	SELECT create_distributed_table('domained', 'tenant', colocate_with => 'none');
	SELECT cleanup_add_source('jobs');
	SELECT cleanup_add_source('cleared', on_failed => 'clear');
});
is($here->safe_psql('postgres', q{SELECT string_agg(status_column, ' ') FROM cleanup_sources WHERE source IN ('jobs'::regclass, 'cleared')}), 'status status',
	'a distributed table has failed sessions');
refused(q{SELECT cleanup_add_source('one_shard', on_failed => 'clear')}, qr/cannot be cleared.*lie in one shard on another node/s,
	'a table of one shard elsewhere is not cleared');
refused(q{SELECT cleanup_add_source('keyless', id_column => 'id', status_column => 'status', failed_at_column => 'updated_at')},
	qr/has failed sessions and reads public\.keyless, which Citus distributes.*found by its key/s, 'nor are rows locked without a key');
refused(q{SELECT cleanup_add_source('domained', id_column => 'id', status_column => 'status')}, qr/found by its key/, '... or with a domain in it');
refused(q{SELECT cleanup_add_source('sessions', id_column => 'id', status_column => 'status', failed_at_column => 'updated_at')},
	qr/has failed sessions and reads .*cannot be locked through a view/s, '... nor through a view');

# Odd characters are those of a key as well.
sub job
{
	my ($table, $where, $session) = @_;
	put_file($dir, "$table.$where.$session.mp3") unless $session eq 'ref';
	return "INSERT INTO $table VALUES ($tenant{$where}, \$k\$$session {\"\\,é\$k\$, '$table.$where.$session.mp3', 'failed', now() - interval '30 days')";
}

foreach my $table ('jobs', 'cleared')
{
	$here->safe_psql('postgres', job($table, $_, 'failed')) foreach 'one', 'two';
	$here->safe_psql('postgres', job($table, 'two', $_)) foreach 'locked', 'retried';
	$wanted{"$table.two.$_.mp3"} = "audio of $table.two.$_.mp3\n" foreach 'locked', 'retried';
}
is_deeply([ sort @{ sql_json($here, 'SELECT cleanup_status()')->{potential_cleanup}{failed_sessions_cleaned} } ],
	[ map { ("$_ {\"\\,\xe9") x ($_ eq 'failed' ? 4 : 2) } 'failed', 'locked', 'retried' ], 'cleanup_status() lists failed sessions of all nodes');
my $locker = begin_session($node{one}, join ';', map { "SELECT 1 FROM $_ WHERE tenant = $tenant{two} AND id LIKE 'locked%' FOR UPDATE" } 'jobs', 'cleared');
$writer = begin_session($node{one}, join ';', map { "UPDATE $_ SET status = 'pending' WHERE tenant = $tenant{two} AND id LIKE 'retried%'" } 'jobs', 'cleared');
my $position = log_position($node{one});
$run = start_waiting_run();
end_session($writer);
finish_run($run);
ok(!-e "$dir/$_", "$_ is gone") foreach 'jobs.one.failed.mp3', 'jobs.two.failed.mp3', 'cleared.one.failed.mp3', 'cleared.two.failed.mp3';
ok(-e "$dir/$_", "$_ is there") foreach map { ("$_.two.locked.mp3", "$_.two.retried.mp3") } 'jobs', 'cleared';
is($here->safe_psql('postgres', q{SELECT count(*) FROM jobs WHERE audio_url IS NULL}), 0, 'rows of a source with keep stay as they are');
is($here->safe_psql('postgres', q{SELECT string_agg(DISTINCT left(id, 6), ' ') || ' ' || count(*) FROM cleared WHERE audio_url IS NULL}), 'failed 2',
	'rows of failed sessions are cleared on both workers, and no others');
like(log_since($node{one}, $position), qr/PREPARE TRANSACTION 'citus_.*COMMIT PREPARED 'citus_/s, '... in two phases');
end_session($locker);
my $run_id = $here->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
my $restored = sql_json($here, "SELECT cleanup_restore($run_id)");
ok($restored->{success}, 'cleanup_restore()');
is($here->safe_psql('postgres', q{SELECT string_agg(audio_url, ' ' ORDER BY audio_url) FROM cleared WHERE id LIKE 'failed%'}),
	'cleared.one.failed.mp3 cleared.two.failed.mp3', '... brings the values back');
ok(wait_until(sub { -e "$dir/cleared.one.failed.mp3" && -e "$dir/cleared.two.failed.mp3" }), '... and the files');

# what a node objects to keeps the session and its file
$here->safe_psql('postgres', q{SET ROLE app; ALTER TABLE cleared ADD CONSTRAINT has_audio CHECK (audio_url IS NOT NULL)});
$here->safe_psql('postgres', job('cleared', 'one', 'kept'));
want('cleared.one.kept.mp3');
my $report = clean('force => true');
like(join(' ', @{ $report->{result}{errors} }), qr/failed sessions of source public\.cleared are left alone.*has_audio/s,
	'a constraint on a worker is an error of its source alone');
ok(-e "$dir/cleared.one.kept.mp3", '... and the file stays');
ok(-e "$dir/cleared.two.locked.mp3", '... and so do all others of that source');
ok(!-e "$dir/jobs.two.locked.mp3", 'what was locked goes with the next run');
delete $wanted{'jobs.two.locked.mp3'};
$wanted{"$_.mp3"} = "audio of $_.mp3\n" foreach map { ("$_.one.failed", "$_.two.failed") } 'cleared', 'jobs';

# ---- what is refused ----

$here->safe_psql('postgres', q{CREATE TABLE rjobs (LIKE jobs INCLUDING ALL); SELECT create_reference_table('rjobs')});
refused(q{SELECT cleanup_add_source('rjobs', status_column => 'status')}, qr/has failed sessions and reads public\.rjobs, which Citus distributes.*stored in several places/s,
	'a reference table has no failed sessions');
like(sql_error($here, q{SELECT cleanup_add_source('rjobs')}), qr/NOTICE:.*no failed sessions/, '... but may be a source');
$here->safe_psql('postgres', q{
	CREATE FUNCTION mine(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $1';
	CREATE VIEW calling AS SELECT mine(audio_url) AS audio_url FROM parts;
	ALTER FUNCTION mine OWNER TO app; ALTER VIEW calling OWNER TO app});
refused(q{SELECT cleanup_add_source('calling')}, qr/ERROR:  0A000: source public\.calling reads distributed tables and calls public\.mine\(pg_catalog\.text\)/,
	'nor is a view with functions that another node may have from somebody else');
{
	local $ENV{PGOPTIONS} = '-c citus.use_secondary_nodes=always';
	like(join(' ', @{ sql_json($here, 'SELECT cleanup_status()')->{potential_cleanup}{errors} }), qr/citus\.use_secondary_nodes/, 'rows of secondary nodes are not relied on');
}

# ---- a node is down: nothing is deleted; it is back: all goes on ----

orphan('orphan4.mp3');
$node{two}->stop('immediate');
ok(!sql_json($here, 'SELECT cleanup_status()')->{success}, 'a preview says that a node is down');
refused('CALL cleanup_run(force => true)', qr/ERROR:  .*(could not|failed to connect)/s, 'a run is refused');
ok(-e "$dir/orphan4.mp3", 'nothing is deleted');
$node{two}->start;
is_deeply(clean('force => true')->{result}{orphaned_files_deleted}, ['orphan4.mp3'], 'when it is back, a run deletes');

# ---- the built-in schedule, and a partitioned table with failed sessions ----

$here->safe_psql('postgres', q{
	SET ROLE app;
	CREATE TABLE pjobs (tenant int, id int, audio_url text, status text, updated_at timestamptz, PRIMARY KEY (tenant, id)) PARTITION BY RANGE (id);
	CREATE TABLE pjobs_1 PARTITION OF pjobs FOR VALUES FROM (0) TO (10);
	CREATE TABLE pjobs_2 PARTITION OF pjobs FOR VALUES FROM (10) TO (20);
	SELECT create_distributed_table('pjobs', 'tenant');
	SELECT cleanup_add_source('pjobs', on_failed => 'clear')});
is($here->safe_psql('postgres', q{SELECT status_column FROM cleanup_sources WHERE source = 'pjobs'::regclass}), 'status', 'a partitioned table has failed sessions');
foreach my $number (1, 11)
{
	put_file($dir, "partition.$number.mp3");
	$here->safe_psql('postgres', "INSERT INTO pjobs VALUES ($tenant{two}, $number, 'partition.$number.mp3', 'failed', now() - interval '30 days')");
}
orphan('orphan5.mp3');
$here->stop;
$here->append_conf('postgresql.conf', "shared_preload_libraries = 'citus, audio_cleanup'\naudio_cleanup.databases = 'postgres'\n");
set_schedule_clock($here, '2026-03-01 02:50:00', 'audio_cleanup.max_delete_percent' => 100);
$here->start;
ok(let_day_pass($here, '2026-03-01'), 'a night passes');
ok(!-e "$dir/$_.mp3", "... $_ is gone") foreach 'partition.1', 'partition.11', 'orphan5';
is($here->safe_psql('postgres', 'SELECT count(audio_url) FROM pjobs'), 0, '... and rows of partitions are cleared');

is_deeply(visible_files($dir), \%wanted, 'all wanted files are there');
$_->stop foreach values %node;
done_testing();
