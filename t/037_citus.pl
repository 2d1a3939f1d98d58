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
plan skip_all => 'Citus is not installed' unless -e "$share/extension/citus.control";

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

sub begin
{
	my ($server, $sql) = @_;
	my $session = $server->background_psql('postgres');
	$session->query_safe("BEGIN; $sql;");
	return $session;
}

sub finish { my ($session, $sql) = @_; $session->query_safe($sql || 'COMMIT'); $session->quit; return; }

sub error_of
{
	my ($sql, %options) = @_;
	my (undef, undef, $stderr) = $here->psql('postgres', "\\set VERBOSITY verbose\n$sql", %options);
	return $stderr;
}

sub clean { my ($options) = @_; return sql_json($here, 'CALL cleanup_run(' . ($options || '') . ')'); }

sub refused { my ($sql, $pattern, $name) = @_; return like(error_of($sql), $pattern, $name); }

sub was_condemned { my ($name) = @_; return $here->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE file = '$name'"); }

# How often the node was asked for writers since that place in its log.
sub questions { my ($node, $position) = @_; return scalar(() = log_since($node, $position) =~ /pg_catalog\.pg_locks l/g); }

# Starts a CALL, and returns when it asks a worker again who writes there.
sub start_waiting_run
{
	my ($worker, $sql) = @_;
	my $position = log_position($node{$worker});
	my $run = $here->background_psql('postgres', on_error_stop => 0);
	$run->query_until(qr/begun/, "\\echo begun\n" . ($sql || 'CALL cleanup_run(force => true)') . ";\n\\echo over\n");
	ok(wait_until(sub { questions($node{$worker}, $position) > 1 }), "... a run waits for writers on worker $worker");
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

# ---- writers in flight, through each node, to each kind of table ----

foreach my $case ([ 'here', 'sessions', 'one' ], [ 'one', 'sessions', 'one' ], [ 'two', 'sessions', 'one' ], [ 'two', 'sessions', 'two' ],
	[ 'two', 'parts', 'one' ], [ 'one', 'shared', 'one' ], [ 'two', 'shared', 'one' ])
{
	my ($through, $table, $where) = @$case;
	my $name = "$table.$where.through.$through.mp3";
	want($name);
	orphan("orphan.$name");
	my $writer = begin($node{$through}, row($table, $where, $name));
	my $run = start_waiting_run($where);
	ok(-e "$dir/orphan.$name", "through $through to $table on $where: nothing is deleted while somebody writes");
	finish($writer);
	finish_run($run);
	is(was_condemned($name), 0, '... the file is not condemned whose row was in flight');
	ok(!-e "$dir/orphan.$name", '... and another one is gone');
}

# a local table that others write to, through a worker
want('single.through.one.mp3');
orphan('orphan1.mp3');
$here->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '1s'});
my $writer = begin($node{one}, row('single', 'here', 'single.through.one.mp3'));
refused('CALL cleanup_run(force => true)', qr/ERROR:  55P03: gave up waiting for a transaction that writes on node "127\.0\.0\.1:\d+".*Process \d+ holds the lock there/s,
	'a writer of a local table through a worker is waited for');
ok(-e "$dir/orphan1.mp3", '... and nothing is deleted');
finish($writer);
is($here->safe_psql('postgres', q{SELECT status FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}), 'blocked', 'the run is on record as blocked');
is_deeply(clean('force => true')->{result}{orphaned_files_deleted}, ['orphan1.mp3'], 'when he has ended, a run deletes');

is_deeply(visible_files($dir), \%wanted, 'all wanted files are there');
$_->stop foreach values %node;
done_testing();
