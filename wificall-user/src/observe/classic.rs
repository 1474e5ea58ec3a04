//! The metrics in the text format before OpenMetrics (Prometheus, "Exposition formats", version 0.0.4): what
//! node_exporter reads of a textfile, `promtool check metrics`, and scrapers that do not ask for OpenMetrics.

/// The media type of [`classic`].
pub const CLASSIC_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics text, as [`text`](super::metrics::text) makes it, in the older format: a family is called as its
/// samples are, there is no type `info`, and no end marker.
#[must_use]
pub fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // Help comes in front of the type, which decides the name.
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some(help) = help.take() {
                text += &format!("# HELP {name}{suffix} {help}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// The same without what node_exporter says of itself by the same name: it serves nothing at all if a textfile has a
/// metric that it has too.
#[must_use]
pub fn textfile(openmetrics: &str) -> String {
    let classic = classic(openmetrics);
    let theirs = |line: &str| {
        let name = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "))
            .unwrap_or(line);
        name.starts_with("process_")
    };
    classic
        .lines()
        .filter(|line| !theirs(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Whether who asks with this `Accept` wants the older format: who says nothing, or anything, gets OpenMetrics.
#[must_use]
pub fn wants_classic(accept: &str) -> bool {
    accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "\
# HELP wificall_packets Packets.
# TYPE wificall_packets counter
wificall_packets_total{class=\"ike\"} 8
# HELP wificall_build Version.
# TYPE wificall_build info
wificall_build_info{version=\"0.1.0\"} 1
# HELP wificall_ready Ready.
# TYPE wificall_ready gauge
# UNIT wificall_ready bananas
wificall_ready 0
# HELP process_start_time_seconds Start.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1699990000
# EOF
";

    #[test]
    fn families_are_called_as_their_samples() {
        let expected = "\
# HELP wificall_packets_total Packets.
# TYPE wificall_packets_total counter
wificall_packets_total{class=\"ike\"} 8
# HELP wificall_build_info Version.
# TYPE wificall_build_info gauge
wificall_build_info{version=\"0.1.0\"} 1
# HELP wificall_ready Ready.
# TYPE wificall_ready gauge
wificall_ready 0
";
        assert_eq!(textfile(OPEN), expected);
        let start = "# HELP process_start_time_seconds Start.\n\
                     # TYPE process_start_time_seconds gauge\n\
                     process_start_time_seconds 1699990000\n";
        assert_eq!(classic(OPEN), format!("{expected}{start}"));
    }

    #[test]
    fn prometheus_gets_what_it_asks_for() {
        for accept in [
            "",
            "*/*",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        ] {
            assert!(!wants_classic(accept), "{accept}");
        }
        assert!(wants_classic("text/plain;version=0.0.4;q=1,*/*;q=0.1"));
    }
}
