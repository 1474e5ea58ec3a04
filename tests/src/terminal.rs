//! A pseudo-terminal, and what a program shows on it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Result, ensure};

/// A terminal that understands what programs draw with: where the cursor goes, what is erased, characters of one cell.
pub struct Terminal {
    ours: File,
    its: Option<File>,
    screen: Arc<Mutex<Screen>>,
    reading: Option<JoinHandle<()>>,
}

/// How a terminal is set (termios(3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    flags: [libc::tcflag_t; 4],
    characters: Vec<libc::cc_t>,
}

impl Settings {
    /// Whether it gives what is typed line by line.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.flags[3] & libc::ICANON != 0
    }
}

impl Terminal {
    /// One of this size.
    ///
    /// # Errors
    ///
    /// If the kernel has none.
    pub fn new(columns: u16, rows: u16) -> Result<Self> {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (mut ours, mut its) = (0, 0);
        let none = std::ptr::null_mut();
        // SAFETY: two descriptors are written, and owned by nobody else; the size is read; the rest may be null.
        let (ours, its) = unsafe {
            ensure!(
                libc::openpty(
                    &raw mut ours,
                    &raw mut its,
                    none,
                    none.cast(),
                    &raw const size
                ) == 0,
                io::Error::last_os_error()
            );
            (File::from_raw_fd(ours), File::from_raw_fd(its))
        };
        let screen = Arc::new(Mutex::new(Screen::new(columns.into(), rows.into())));
        let (mut reader, shown) = (ours.try_clone()?, screen.clone());
        // The end of a pty is an error where its other side is closed.
        let reading = thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut some) {
                lock(&shown).take(&some[..count]);
            }
        });
        Ok(Self {
            ours,
            its: Some(its),
            screen,
            reading: Some(reading),
        })
    }

    /// Its side for a program: to be taken three times.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be copied, or the terminal was left already.
    pub fn side(&self) -> Result<Stdio> {
        let its = self.its.as_ref().map(File::try_clone);
        let its = its.ok_or_else(|| anyhow::anyhow!("the terminal was left"))?;
        Ok(Stdio::from(its?))
    }

    /// Leaves it to the program: when that ends, all has been shown.
    pub fn leave(&mut self) {
        self.its = None;
    }

    /// Types.
    ///
    /// # Errors
    ///
    /// If nobody reads there any more.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.ours.write_all(keys.as_bytes())?)
    }

    /// What is on the screen.
    #[must_use]
    pub fn text(&self) -> String {
        lock(&self.screen).text()
    }

    /// How it is set.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn settings(&self) -> Result<Settings> {
        // SAFETY: all zeros are a termios.
        let mut is: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: a termios is written. Asked of our side, it is that of the program's.
        let asked = unsafe { libc::tcgetattr(self.ours.as_raw_fd(), &raw mut is) };
        ensure!(asked == 0, io::Error::last_os_error());
        Ok(Settings {
            flags: [is.c_iflag, is.c_oflag, is.c_cflag, is.c_lflag],
            characters: is.c_cc.to_vec(),
        })
    }

    /// All that was written, once the program has ended and [`Terminal::leave`] was called.
    pub fn written(&mut self) -> Vec<u8> {
        if let Some(reading) = self.reading.take() {
            // It does not panic.
            let _ = reading.join();
        }
        lock(&self.screen).written.clone()
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cells, and what is yet to be understood.
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    pending: Vec<u8>,
    written: Vec<u8>,
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            cells: vec![vec![' '; columns]; rows],
            row: 0,
            column: 0,
            pending: Vec::new(),
            written: Vec::new(),
        }
    }

    fn text(&self) -> String {
        let line = |cells: &Vec<char>| cells.iter().collect::<String>().trim_end().to_owned();
        self.cells.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn take(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        self.pending.extend_from_slice(bytes);
        while let Some(length) = self.next() {
            self.pending.drain(..length);
        }
    }

    /// Does what comes next, and how many bytes that was; `None`: it is not whole yet.
    fn next(&mut self) -> Option<usize> {
        match *self.pending.first()? {
            0x1b => {
                if *self.pending.get(1)? != b'[' {
                    return Some(2);
                }
                let end = self.pending[2..]
                    .iter()
                    .position(|byte| (0x40..=0x7e).contains(byte))?;
                let (arguments, last) = (self.pending[2..2 + end].to_vec(), self.pending[2 + end]);
                self.control(&String::from_utf8_lossy(&arguments), last);
                Some(3 + end)
            }
            b'\r' => {
                self.column = 0;
                Some(1)
            }
            b'\n' => {
                self.row += 1;
                Some(1)
            }
            0..0x20 => Some(1),
            first => {
                let length = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                let character = self.pending.get(..length)?;
                let character = std::str::from_utf8(character)
                    .ok()
                    .and_then(|text| text.chars().next());
                let cell = (self.cells.get_mut(self.row)).and_then(|row| row.get_mut(self.column));
                if let (Some(cell), Some(character)) = (cell, character) {
                    *cell = character;
                }
                self.column += 1;
                Some(length)
            }
        }
    }

    fn control(&mut self, arguments: &str, last: u8) {
        let mut numbers = arguments
            .split(';')
            .map(|part| part.parse::<usize>().unwrap_or(1));
        match (last, arguments) {
            (b'H', _) => {
                let mut place = || numbers.next().unwrap_or(1).saturating_sub(1);
                (self.row, self.column) = (place(), place());
            }
            // Another screen begins empty.
            (b'J', _) | (b'h' | b'l', "?1049") => {
                self.cells.iter_mut().for_each(|row| row.fill(' '));
            }
            (b'K', _) => {
                let row = self.cells.get_mut(self.row);
                if let Some(rest) = row.and_then(|row| row.get_mut(self.column..)) {
                    rest.fill(' ');
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_stands_where_it_was_drawn() {
        let mut screen = Screen::new(6, 2);
        // In parts that end anywhere.
        for byte in "\x1b[?25l\x1b[1;31mab→d\x1b[2;3Hxy\x1b[1;2H#\x1b[2;4H\x1b[K".bytes() {
            screen.take(&[byte]);
        }
        assert_eq!(screen.text(), "a#→d\n  x");
        screen.take(b"\x1b[2J\x1b[Hz");
        assert_eq!(screen.text(), "z\n");
    }
}
