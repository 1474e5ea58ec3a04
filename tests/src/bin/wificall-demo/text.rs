//! Numbers and names as they are shown, and tables that are drawn again in place.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// What the widest line may have: an ordinary terminal's width.
pub const WIDTH: usize = 80;

/// A DSCP by its name, or number.
pub fn dscp(value: u8) -> String {
    match value {
        44 => "VA".to_owned(),
        46 => "EF".to_owned(),
        other => other.to_string(),
    }
}

/// A mark in hexadecimal.
pub fn mark(value: u32) -> String {
    match value {
        0 => "none".to_owned(),
        other => format!("{other:#x}"),
    }
}

/// The one value that all packets had, or that they differed.
pub fn only<T: Copy>(seen: &BTreeMap<T, u64>, name: impl Fn(T) -> String) -> String {
    let mut values = seen.keys();
    match (values.next(), values.next()) {
        (None, _) => "-".to_owned(),
        (Some(value), None) => name(*value),
        _ => "mixed".to_owned(),
    }
}

/// Bytes in at most seven characters.
pub fn bytes(value: u64) -> String {
    match value {
        0..10_000 => format!("{value} B"),
        10_000..10_000_000 => format!("{} kB", value / 1_000),
        _ => format!("{} MB", value / 1_000_000),
    }
}

/// `a 1, b 2, …` behind a title, broken before the edge.
pub fn list<T: Display>(title: &str, items: impl Iterator<Item = (T, u64)>) -> Vec<String> {
    let mut lines = vec![title.to_owned()];
    for (name, value) in items {
        let item = format!("{name} {value}");
        let last = lines.len() - 1;
        if lines[last].chars().count() + 2 + item.chars().count() > WIDTH {
            lines.push(format!(
                "{:width$}  {item}",
                "",
                width = title.chars().count()
            ));
        } else {
            lines[last] += "  ";
            lines[last] += &item;
        }
    }
    lines
}

/// Standard output: tables replace each other on a terminal.
pub struct Screen {
    terminal: bool,
    drawn: usize,
}

impl Screen {
    /// Nothing is drawn yet.
    pub fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Whether tables replace each other.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Draws a table where the last one was, as much of it as fits.
    ///
    /// # Errors
    ///
    /// If nobody reads any more.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let (rows, columns) = size();
        let mut text = self.back();
        let fits = lines.len().min(rows.saturating_sub(1));
        for line in &lines[..fits] {
            text.extend(line.chars().take(columns));
            text.push('\n');
        }
        self.drawn = fits;
        put(&text)
    }

    /// Removes the table.
    ///
    /// # Errors
    ///
    /// If nobody reads any more.
    pub fn clear(&mut self) -> io::Result<()> {
        let text = self.back();
        self.drawn = 0;
        put(&text)
    }

    /// What moves the cursor to where the table begins, and clears from there.
    fn back(&self) -> String {
        match self.drawn {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}A\x1b[J"),
        }
    }
}

/// Writes to standard output.
///
/// # Errors
///
/// If nobody reads any more.
pub fn put(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Rows and columns of the terminal.
fn size() -> (usize, usize) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request writes one winsize to the pointer.
    let got = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match (got, size.ws_row, size.ws_col) {
        (0, rows @ 1.., columns @ 1..) => (rows.into(), columns.into()),
        _ => (24, WIDTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        for (value, text) in [
            (0, "0 B"),
            (9_999, "9999 B"),
            (10_000, "10 kB"),
            (9_999_999, "9999 kB"),
            (10_000_000, "10 MB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(only(&[(46, 3)].into(), dscp), "EF");
        assert_eq!(only(&[(46, 3), (0, 1)].into(), dscp), "mixed");
        assert_eq!(only(&BTreeMap::new(), mark), "-");
    }

    #[test]
    fn lists_are_broken_before_the_edge() {
        let lines = list("hook", (0..9).map(|number| ("some_long_name", number)));
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        assert!(lines[1].starts_with("      some_long_name"));
    }
}
