//! What both scripts have: plain POSIX sh, for a busybox too.

use std::io::{Result, Write};

use super::view::View;

/// The head, after the header.
pub const USAGE: &str = "\
#
# usage: sh FILE up|down
#   up    sets it up, in place of what an earlier one set up
#   down  removes all of it and nothing else
set -eu
";

/// The end.
pub const MAIN: &str = r#"
up() {
	exits_up
	marks_up
}

down() {
	marks_down
	exits_down
}

case "${1-}" in
up | down) "$1" ;;
*)
	echo "usage: sh $0 up|down" >&2
	exit 2
	;;
esac
"#;

/// The tables and rules of exits, and what sets them up and removes them.
///
/// Those of an agent have the protocol number 87: the two do not remove each other's.
///
/// # Errors
///
/// Those of the writer.
pub fn exits(view: &View, out: &mut dyn Write) -> Result<()> {
    out.write_all(
        b"\n# Routes: the family, the table and the route.\nexit_routes() {\n\tcat <<'EOF'\n",
    )?;
    for exit in &view.exits {
        for route in &exit.routes {
            let family = if route.ipv4 { 4 } else { 6 };
            let kind = if route.unreachable {
                "unreachable "
            } else {
                ""
            };
            write!(out, "{family} {} {kind}default", exit.table)?;
            if let Some(via) = &route.via {
                write!(out, " via {}", via.0)?;
            }
            if let Some(device) = &route.device {
                write!(out, " dev {}", device.0)?;
            }
            writeln!(out)?;
        }
    }
    out.write_all(b"EOF\n}\n\n# Rules: the family, the priority, the mark and the table.\nexit_rules() {\n\tcat <<'EOF'\n")?;
    for exit in &view.exits {
        for route in &exit.routes {
            let family = if route.ipv4 { 4 } else { 6 };
            writeln!(
                out,
                "{family} {} {} {}",
                exit.priority,
                exit.shown(),
                exit.table
            )?;
        }
    }
    out.write_all(EXITS.as_bytes())
}

const EXITS: &str = r#"EOF
}

# The program of iproute2: what busybox has under this name knows neither large tables nor whose a rule is.
ip=
for directory in $(echo "$PATH" | tr ':' ' '); do
	if [ -x "$directory/ip" ] && "$directory/ip" -V 2>/dev/null | grep -q iproute2; then
		ip=$directory/ip
		break
	fi
done

# Whether there are routes of a family here.
routed() {
	[ "$1" = 4 ] || [ -e /proc/net/if_inet6 ]
}

# Our rules of a family that are there.
rules_there() {
	"$ip" "-$1" rule show |
		sed -n "s|^\([0-9]*\):.* fwmark \([0-9a-fx/]*\) lookup \([0-9]*\) proto 88 *\$|$1 \1 \2 \3|p"
}

# Our tables of a family that are there.
tables_there() {
	"$ip" "-$1" route show table all proto 88 | sed -n 's/^\(unreachable \)\{0,1\}default.* table \([0-9][0-9]*\).*$/\2/p' | sort -u
}

# Whether a line is one of several.
among() {
	printf '%s\n' "$2" | grep -qxF -- "$1"
}

exits_up() {
	if [ -z "$ip" ]; then
		[ -n "$(exit_rules)" ] || return 0
		echo "no ip of iproute2, which exits need" >&2
		exit 1
	fi
	exit_routes | while read -r family table route; do
		routed "$family" || continue
		# Words of the route are words of the command.
		# shellcheck disable=SC2086
		"$ip" "-$family" route replace $route table "$table" proto 88
	done
	for family in 4 6; do
		routed "$family" || continue
		there=$(rules_there "$family")
		exit_rules | while read -r of priority mark table; do
			[ "$of" = "$family" ] || continue
			among "$of $priority $mark $table" "$there" ||
				"$ip" "-$of" rule add priority "$priority" fwmark "$mark" lookup "$table" protocol 88
		done
		# What is left of an earlier one.
		wanted=$(exit_rules)
		rules_there "$family" | while read -r of priority mark table; do
			among "$of $priority $mark $table" "$wanted" ||
				"$ip" "-$of" rule del priority "$priority" fwmark "$mark" lookup "$table" protocol 88
		done
		wanted=$(exit_routes | sed -n "s/^$family \([0-9]*\) .*\$/\1/p")
		for table in $(tables_there "$family"); do
			among "$table" "$wanted" || "$ip" "-$family" route flush table "$table" proto 88
		done
	done
}

exits_down() {
	[ -n "$ip" ] || return 0
	for family in 4 6; do
		routed "$family" || continue
		rules_there "$family" | while read -r of priority mark table; do
			"$ip" "-$of" rule del priority "$priority" fwmark "$mark" lookup "$table" protocol 88
		done
		for table in $(tables_there "$family"); do
			"$ip" "-$family" route flush table "$table" proto 88
		done
	done
}
"#;
