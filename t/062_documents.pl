# What README.md and docs/ show is what the program does: each statement of an
# SQL block can be analyzed, and the columns of the output below it are those
# that the statement returns.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $node = new_server('documents', conf => "shared_preload_libraries = 'audio_cleanup'\n");
make_schema($node);

# The statements of a block without what psql alone understands.
sub statements
{
	my ($block) = @_;
	$block =~ s/--.*$//mg;
	$block =~ s/^\\.*$//mg;
	return grep { /\S/ } split /;\s*(?:\n|$)/, $block;
}

# The columns of each table in an output of psql.
sub shown_columns
{
	my ($output) = @_;
	my @tables;

	while ($output =~ /^(.*)\n-[-+]*-$/mg)
	{
		push @tables, join '|', map { s/^\s+|\s+$//gr } split /\|/, $1;
	}
	return @tables;
}

# The columns that a statement returns, which is not executed; undef if it cannot be analyzed.
sub returned_columns
{
	my ($statement, $error) = @_;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "$statement \\gdesc\n", on_error_stop => 1);

	$$error = $stderr;
	return $rc != 0 || $stderr =~ /ERROR/ ? undef : join '|', map { s/\|.*//r } split /\n/, $stdout;
}

# pg_cron, and tables that an application would have, are not there
my $not_here = qr/\bcron\.|schema "cron"|relation "(?!cleanup_)|column "|role "|does not exist\nLINE.*\bcron/;
my $compared = 0;

foreach my $file (glob("$root/README.md $root/docs/*.md"))
{
	my $text = slurp_file($file);
	my $name = $file =~ s/.*\///r;

	while ($text =~ /^```sql\n(.*?)^```\n(?:```\n(.*?)^```\n)?/msg)
	{
		my ($block, $output) = ($1, $2 // '');
		my @shown = shown_columns($output);
		my @returned;

		foreach my $statement (statements($block))
		{
			my $error;
			my $columns = returned_columns($statement, \$error);

			ok(defined $columns || $error =~ $not_here, "$name: " . ($statement =~ s/\s+/ /gr)) or diag $error;
			push @returned, $columns if defined $columns && $columns ne '';
		}
		next unless @shown;
		$compared++;
		# statements whose output is left out stand there too
		my %returned = map { $_ => 1 } @returned;
		is_deeply([ grep { !$returned{$_} } @shown ], [], "$name: the columns shown are those returned");
	}
}
cmp_ok($compared, '>', 4, 'outputs were compared');

done_testing();
