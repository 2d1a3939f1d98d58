# Tables that nobody registered are sampled.  Whoever owns one cannot hold up, or end, a run or a look by what belongs to it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('slow_tables', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, 'wanted.mp3');
put_files($dir, 'wanted.mp3', 'orphan.mp3', 'told.mp3');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN; CREATE SCHEMA nobody AUTHORIZATION nobody');

# functions that are quick at first, and sleep for ever when somebody else's statement runs them
my $sleep = q{'BEGIN PERFORM pg_sleep(1000); RETURN $1; END'};
my $deaf = q{'BEGIN LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END'};
my $n = 0;
foreach my $body ($sleep, $deaf)
{
	foreach my $attached ('CREATE INDEX ON %s ((%s(1::text) || a))', 'CREATE INDEX ON %s (a) WHERE %s(a) IS NOT NULL',
		'CREATE STATISTICS %1$s_s ON (%2$s(1::text) || a) FROM %1$s')
	{
		my ($table, $function) = map { "nobody.$_" . $n } 'x', 'f';
		$n++;
		$node->safe_psql('postgres', "CREATE FUNCTION $function(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN \$1; END';"
			. "CREATE TABLE $table (a text); INSERT INTO $table VALUES ('x'); " . sprintf($attached, $table, $function)
			. "; CREATE OR REPLACE FUNCTION $function(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $body",
			extra_params => [ '-U', 'nobody' ]);
	}
}
# an index of functions of the server hides no table from the sample
$node->safe_psql('postgres', q{CREATE TABLE nobody.forgotten (a text); INSERT INTO nobody.forgotten VALUES ('told.mp3'); CREATE INDEX ON nobody.forgotten (lower(a))},
	extra_params => [ '-U', 'nobody' ]);

my $answer = sql_json($node, 'SELECT cleanup_status()');
is(join(' ', grep { /forgotten/ } @{ $answer->{warnings} }), 'column nobody.forgotten.a holds 1 of the 2 sampled names', 'cleanup_status() comes to an end');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_check() WHERE check_name = 'unregistered' AND detail ~ 'forgotten'}), 1,
	'cleanup_check() comes to an end');
$node->safe_psql('postgres', 'DROP TABLE nobody.forgotten');
$node->safe_psql('postgres', q{SET application_name = 'pg_cron'; SELECT cleanup_all()});
ok(wait_for_drain($node), 'a run that nobody attends ends');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'and has cleaned');
is(log_lines($node, qr/terminating connection|gave up/), '', 'no session was ended, and no reading');

$node->stop;
done_testing();
