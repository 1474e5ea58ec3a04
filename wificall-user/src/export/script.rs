//! What both scripts have: plain POSIX sh, for a busybox too.

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
case "${1-}" in
up | down) "$1" ;;
*)
	echo "usage: sh $0 up|down" >&2
	exit 2
	;;
esac
"#;
