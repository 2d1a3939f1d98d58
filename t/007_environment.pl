# Where a setting comes from: the environment of the older service is the
# default, and everything else goes before it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @names = qw(UPLOAD_DIR ORPHANED_FILE_RETENTION_HOURS FAILED_SESSION_RETENTION_DAYS
  AUTO_CLEANUP_ON_STARTUP CLEANUP_SCHEDULE_HOUR);
delete @ENV{@names};

my @keys = qw(failed_session_retention_days orphaned_file_retention_hours upload_dir
  auto_cleanup_on_startup cleanup_schedule_hour);

my $node = PostgreSQL::Test::Cluster->new('environment');
$node->init;

sub settings
{
	my $config = sql_json($node, 'SELECT cleanup_config()');
	return { map { $_ => ref $config->{$_} ? ($config->{$_} ? 'true' : 'false') : $config->{$_} } @keys };
}

sub start_with
{
	my %environment = @_;
	local %ENV = (%ENV, %environment);
	$node->start;
	return;
}

# ---- the defaults ----

my %defaults = (failed_session_retention_days => 7, orphaned_file_retention_hours => 24,
	upload_dir => 'uploads/audio', auto_cleanup_on_startup => 'false', cleanup_schedule_hour => 3);

start_with();
$node->safe_psql('postgres', 'CREATE EXTENSION audio_cleanup');
is_deeply(settings(), \%defaults, 'the defaults');
is(sql_json($node, 'SELECT cleanup_config()')->{upload_dir_absolute}, $node->data_dir . '/uploads/audio',
	'a relative directory is one of the data directory');
$node->stop;

# ---- the environment ----

start_with(UPLOAD_DIR => '/srv/old service', ORPHANED_FILE_RETENTION_HOURS => 48,
	FAILED_SESSION_RETENTION_DAYS => 14, AUTO_CLEANUP_ON_STARTUP => 'true', CLEANUP_SCHEDULE_HOUR => 5);
is_deeply(settings(), { failed_session_retention_days => 14, orphaned_file_retention_hours => 48,
	upload_dir => '/srv/old service', auto_cleanup_on_startup => 'true', cleanup_schedule_hour => 5 },
	'the environment of the postmaster goes before them');

# ---- what goes before the environment ----

$node->append_conf('postgresql.conf', "audio_cleanup.orphaned_file_retention_hours = 30\n"
	  . "audio_cleanup.cleanup_schedule_hour = 6\naudio_cleanup.upload_dir = '/srv/conf'\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT cleanup_config() ->> 'orphaned_file_retention_hours' = '30'}),
	'postgresql.conf goes before the environment');
is(settings()->{cleanup_schedule_hour}, 6, 'for what the launcher reads too');
is(settings()->{failed_session_retention_days}, 14, 'where it says nothing the environment stands');

$node->safe_psql('postgres', 'ALTER DATABASE postgres SET audio_cleanup.orphaned_file_retention_hours = 31');
is(settings()->{orphaned_file_retention_hours}, 31, 'ALTER DATABASE goes before postgresql.conf');
is($node->safe_psql('postgres', q{SET audio_cleanup.orphaned_file_retention_hours = 32;
	SELECT cleanup_config() ->> 'orphaned_file_retention_hours'}), 32, 'SET goes before that, if the library is not loaded yet');
is($node->safe_psql('postgres', q{LOAD 'audio_cleanup'; SET audio_cleanup.orphaned_file_retention_hours = 33;
	SELECT cleanup_config() ->> 'orphaned_file_retention_hours'}), 33, 'and if it is');
is($node->safe_psql('postgres', q{SET audio_cleanup.orphaned_file_retention_hours = 0;
	SELECT cleanup_config() ->> 'orphaned_file_retention_hours'}), 0, 'nothing at all may be retained');
$node->stop;

# ---- nonsense ----

my $position = log_position($node);
$node->append_conf('postgresql.conf', "audio_cleanup.cleanup_schedule_hour = 4\n");
start_with(ORPHANED_FILE_RETENTION_HOURS => 'a day', FAILED_SESSION_RETENTION_DAYS => '-1',
	AUTO_CLEANUP_ON_STARTUP => 'perhaps', CLEANUP_SCHEDULE_HOUR => 24, UPLOAD_DIR => 'x' x 2000);
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL');
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_config()');
is($rc, 0, 'nonsense in the environment does no harm');
like($stderr, qr/WARNING:  ignoring environment variable "$_"/, "but there is a warning for $_") foreach @names;
is(settings()->{failed_session_retention_days}, 7, 'the default stands');
is(settings()->{auto_cleanup_on_startup}, 'false', 'for a boolean too');
is_deeply(sql_json($node, 'SELECT cleanup_status()')->{blocked_by}[0], 'settings', '... but nothing is deleted by defaults that nobody has chosen');
like(sql_error($node, 'SELECT cleanup_all()'), qr/ERROR:  22023: parameter "FAILED_SESSION_RETENTION_DAYS" cannot be set as it is/, '... and the error names the variable');
like(log_since($node, $position), qr/WARNING:  ignoring environment variable "FAILED_SESSION_RETENTION_DAYS": "-1"/,
	'the server log has the warning too');
$node->stop;

start_with(map { $_ => '' } @names);
$node->safe_psql('postgres', 'SELECT 1');
($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_config()');
is($stderr, '', 'an empty variable is none');

# ---- what is refused ----

sub refused
{
	my ($statement, $message, $name) = @_;
	my ($code, $out, $error) = $node->psql('postgres', $statement);
	isnt($code, 0, "$name: refused");
	like($error, $message, "$name: with a reason");
	return;
}

my $load = q{LOAD 'audio_cleanup';};
refused("$load SET audio_cleanup.orphaned_file_retention_hours = -1", qr/outside the valid range/, 'negative hours');
refused("$load SET audio_cleanup.failed_session_retention_days = -1", qr/outside the valid range/, 'negative days');
refused("$load SET audio_cleanup.orphaned_file_retention_hours = 99999999", qr/outside the valid range/, 'huge hours');
refused("$load SET audio_cleanup.failed_session_retention_days = 'NULL'", qr/invalid value/, 'no number');
refused("$load SET audio_cleanup.upload_dir = ''", qr/must be named/, 'no directory');
refused("$load SET audio_cleanup.audio_extensions = ' , '", qr/At least one/, 'no extension');
refused("$load SET audio_cleanup.file_age = 'atime'", qr/newest, mtime/, 'another age');
refused("$load SET audio_cleanup.no_such_thing = 1", qr/invalid configuration parameter name/, 'a mistyped name');
refused("$load SET audio_cleanup.cleanup_schedule_hour = 4", qr/cannot be changed now/, 'what the launcher reads');

# a value that was set before the library could judge it
($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.orphaned_file_retention_hours = -1;
	SELECT cleanup_config() ->> 'orphaned_file_retention_hours'});
isnt($stdout, '-1', 'a negative retention that was set before the library was loaded is not believed');
like($stderr, qr/outside the valid range/, 'and complained about');

# ---- ordinary users ----

$node->safe_psql('postgres', q{CREATE ROLE somebody LOGIN; SELECT cleanup_grant_access('somebody', 'operator')});
foreach my $setting (qw(upload_dir orphaned_file_retention_hours failed_session_retention_days file_age
	audio_extensions derived_suffixes derived_prefixes derived_folders recurse remove_empty_dirs max_delete_percent writer_wait report_limit batch_size
	backup_retention_days history_retention_days))
{
	my $value = $node->safe_psql('postgres', "$load SHOW audio_cleanup.$setting");
	my ($code, $out, $error) = $node->psql('postgres', "SELECT cleanup_config(); SET audio_cleanup.$setting = '$value'",
		extra_params => [ '-U', 'somebody' ]);
	isnt($code, 0, "an ordinary user may not set $setting");
	like($error, qr/permission denied to set parameter "audio_cleanup.$setting"/, "$setting: he is told so");
}

# nor before the library is there to say so
($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.orphaned_file_retention_hours = 0;
	SELECT cleanup_config() ->> 'orphaned_file_retention_hours'}, extra_params => [ '-U', 'somebody' ]);
isnt($stdout, '0', 'nor by setting it before the library is loaded');

$node->stop;
done_testing();
