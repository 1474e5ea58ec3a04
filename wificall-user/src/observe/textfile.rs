//! The metrics as a file for node_exporter's textfile collector.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Report, classic, metrics};

/// Writes a report's metrics, whole: whoever reads sees the old file or the new one.
///
/// # Errors
///
/// Of the file system.
pub fn write(path: &Path, report: Report) -> io::Result<()> {
    let text = metrics::text(report).map_err(io::Error::other)?;
    let mut temporary = PathBuf::from(path);
    // The collector reads what ends in .prom.
    temporary.set_extension("prom.new");
    fs::write(&temporary, classic::textfile(&text))?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn the_file_is_replaced_whole_and_every_sample_has_its_type() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wificall.prom");
        fs::write(&path, "old").unwrap();
        write(&path, sample::report()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(!text.contains("# EOF"));
        assert!(
            text.contains("# TYPE wificall_packets_total counter\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE wificall_build_info gauge\n"));
        let typed: std::collections::BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|family| typed.contains(family));
            assert!(typed.contains(family.unwrap_or(name)), "{line}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(write(Path::new("/nonexistent/x.prom"), Report::default()).is_err());
    }
}
