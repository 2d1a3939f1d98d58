# What README.md and docs/ show is what the program does: each statement of an
# SQL block can be analyzed, and the columns of the output below it are those
# that the statement returns.  The reference has each object and each setting.
# Links lead somewhere, and t/README.md has a line for each test.

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

# docs/reference.md has each object of the extension that may be called or read, and each setting as it is

my $reference = slurp_file("$root/docs/reference.md");
my @objects = split /\n/, $node->safe_psql('postgres', q{
	SELECT coalesce(p.proname, c.relname) FROM pg_depend d
		LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
		LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND c.relkind IN ('r', 'v')
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audio_cleanup')
	AND (p.oid IS NOT NULL OR c.oid IS NOT NULL) GROUP BY 1 ORDER BY 1});
my @settings = map { [ split /\|/, $_, -1 ] } split /\n/, $node->safe_psql('postgres', q{
	SELECT substr(name, length('audio_cleanup.') + 1), boot_val, context FROM pg_settings
	WHERE name LIKE 'audio\_cleanup.%' ORDER BY 1});

cmp_ok(scalar @objects, '>', 30, 'the extension has objects');
is_deeply([ grep { $reference !~ /`\Q$_\E[`(]/ && $reference !~ /`CALL \Q$_\E\(/ } @objects ], [], 'docs/reference.md: no object is missing');
cmp_ok(scalar @settings, '>', 40, 'the extension has settings');
foreach my $setting (@settings)
{
	my ($name, $default, $context) = @$setting;
	my ($shown) = $reference =~ /^\| `\Q$name\E` \| (.*)$/m;
	my ($shown_default, $unit, $shown_context) = split / *\| */, $shown // '';

	is($shown_context, $context, "docs/reference.md: the context of $name");
	# a default that is empty, or long, is told in words
	next if $default eq '' || $name eq 'audio_extensions';
	is((split / /, $shown_default =~ tr/`//dr)[0], $default, "docs/reference.md: the default of $name");
}
like($reference, qr/`\Q$_->[1]\E`/, 'docs/reference.md: the extensions') foreach grep { $_->[0] eq 'audio_extensions' } @settings;

# each link within the checkout leads to a file, and to a heading in it

# The headings of a document as the names by which links call them.
sub anchors
{
	my ($text) = @_;
	my %anchors;

	$text =~ s/^```.*?^```$//msg;
	while ($text =~ /^#+ (.*?)\s*$/mg)
	{
		my $anchor = lc($1) =~ s/\[([^]]*)\]\([^)]*\)/$1/gr =~ s/[^\w -]//gr =~ tr/ /-/r;
		$anchors{$anchor} = 1;
	}
	return \%anchors;
}

sub leads_somewhere
{
	my ($path, $link) = @_;
	my ($file, $anchor) = split /#/, $link, 2;
	my $target = $file eq '' ? $path : $path =~ s{[^/]*$}{$file}r;

	return -e $target && (!defined $anchor || anchors(slurp_file($target))->{$anchor});
}

foreach my $path (glob("$root/*.md $root/docs/*.md $root/*/README.md"))
{
	my @links = grep { !/^\w+:/ } slurp_file($path) =~ /\[[^]]*\]\(([^)\s]+)\)/g;
	is_deeply([ grep { !leads_somewhere($path, $_) } @links ], [], ($path =~ s{^\Q$root/\E}{}r) . ': each link leads somewhere');
}

# README.md is short, promises what docs/safety.md promises, and has each of its brakes

my $readme = slurp_file("$root/README.md");
my $safety = slurp_file("$root/docs/safety.md");
my ($promises) = $safety =~ /^(1\. \*\*.*?^6\. .*?\n)\n/ms;

sub brakes
{
	my ($text) = @_;
	my ($table) = $text =~ /^(\| `blocked_by` \|.*?\n)\n/ms;
	return [ sort map { /`(\w+)`/g } map { (split / \| /)[0] } grep { /^\| `/ } split /\n/, $table =~ s/^.*\n//r ];
}

ok(defined $promises && index($readme, $promises) >= 0, 'README.md and docs/safety.md promise the same');
is_deeply(brakes($readme), brakes($safety), 'README.md and docs/safety.md have the same brakes');
cmp_ok($readme =~ tr/\n//, '<=', 250, 'README.md has at most 250 lines');

is_deeply([ slurp_file("$root/t/README.md") =~ /^\| `(\w+\.pl)` \| \S.* \|$/mg ],
	[ map { s{.*/}{}r } sort glob("$root/t/[0-9]*.pl") ], 't/README.md: a line for each test');

done_testing();
