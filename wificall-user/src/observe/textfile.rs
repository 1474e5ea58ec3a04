//! The metrics as a file for node_exporter's textfile collector.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{Report, classic, metrics};

/// For everyone to read, whatever the umask: the collector is another user.
const MODE: u32 = 0o644;

/// Writes a report's metrics, whole: whoever reads sees the old file or the new one. What else has the temporary file's name
/// is removed, and not followed if it is a link.
///
/// # Errors
///
/// Of the file system.
pub fn write(path: &Path, report: Report) -> io::Result<()> {
    let text = metrics::text(report).map_err(io::Error::other)?;
    let mut temporary = PathBuf::from(path);
    // The collector reads what ends in .prom.
    temporary.set_extension("prom.new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    file.write_all(classic::textfile(&text).as_bytes())?;
    file.set_permissions(Permissions::from_mode(MODE))?;
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
    fn everybody_may_read_it_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["wificall.prom", "other"].map(|name| directory.path().join(name));
        fs::write(&other, "theirs").unwrap();
        let temporary = directory.path().join("wificall.prom.new");
        std::os::unix::fs::symlink(&other, &temporary).unwrap();
        write(&path, sample::report()).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(write(Path::new("/nonexistent/x.prom"), Report::default()).is_err());
    }
}
