# Makes an update script:
#
#	awk -f update.awk OLD-SCRIPT TABLES NEW-SCRIPT
#
# TABLES is written by hand: it changes the tables that OLD-SCRIPT has made.
# Of NEW-SCRIPT follows what OLD-SCRIPT has not made yet; functions and views
# replace those of the same name, and keep what users have granted.  Nobody
# else's object is replaced: the server refuses that in the script of an
# extension.

FNR == 1 { file++ }
file == 1 { old = old $0 "\n"; made[$0]; next }
file == 2 { print; next }

/^\/\*/ || /^\\echo/ || /^-- complain/ { next }

/^CREATE (TABLE|SEQUENCE|TRIGGER|INDEX|UNIQUE INDEX) / && $0 in made { skipping = 1 }
/^CREATE (FUNCTION|PROCEDURE|VIEW) / { sub(/^CREATE/, "CREATE OR REPLACE") }

/^REVOKE / || revoke != "" {
	revoke = revoke " " $0
	if (/;$/) {
		revoke_new(revoke)
		revoke = ""
	}
	next
}

!skipping
/;$/ { skipping = 0 }

# What users have granted to PUBLIC since remains: only new objects are taken from it.
function revoke_new(text, objects, n, i)
{
	sub(/ *FROM PUBLIC;$/, "", text)
	n = split(text, objects, /,?[ \t]*@extschema@\./)
	for (i = 2; i <= n; i++)
		if (!index(old, "@extschema@." objects[i]))
			print substr(objects[1], 2) " @extschema@." objects[i] " FROM PUBLIC;"
}
