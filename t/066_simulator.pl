# The simulator of docs/scale.md: cases whose outcome is known, and the outputs
# that the document shows.

use strict;
use warnings;

use FindBin;

use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $simulator = "$root/bench/simulate";

my ($out, $err) = run_command([ $simulator, 'selftest' ]);
is(scalar(() = $out =~ /^ok: /mg), 8, 'eight cases come out as they are known to');
is($err, '', '... and no other');

my $document = slurp_file("$root/docs/scale.md");
my $shown = 0;
while ($document =~ /^```\n\$ bench\/simulate ([^\n]*)\n(.*?)^```/msg)
{
	my ($options, $output) = ($1, $2);

	($out) = run_command([ $simulator, split ' ', $options ]);
	is("$out\n", $output, "docs/scale.md: bench/simulate $options");
	$shown++;
}
cmp_ok($shown, '>=', 3, 'the document shows some');
done_testing();
