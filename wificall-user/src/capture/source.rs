//! Bytes of a file, counted.

use std::io::{self, Read};

use super::CaptureError;

pub(super) struct Source<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, at: 0 }
    }

    /// The next `N` bytes of `what`.
    pub(super) fn read<const N: usize>(&mut self, what: &str) -> Result<[u8; N], CaptureError> {
        match self.read_or_end(what)? {
            Some(bytes) => Ok(bytes),
            None => Err(self.cut_short(what)),
        }
    }

    /// The next `N` bytes of `what`; `None` if the file ends here.
    pub(super) fn read_or_end<const N: usize>(
        &mut self,
        what: &str,
    ) -> Result<Option<[u8; N]>, CaptureError> {
        let mut bytes = [0; N];
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            len if len == N => Ok(Some(bytes)),
            _ => Err(self.cut_short(what)),
        }
    }

    /// The next `len` bytes of `what`, of which the caller has checked that they are not too many.
    pub(super) fn take(&mut self, len: u32, what: &str) -> Result<Vec<u8>, CaptureError> {
        let mut bytes = vec![0; len as usize];
        if self.fill(&mut bytes)? < bytes.len() {
            return Err(self.cut_short(what));
        }
        Ok(bytes)
    }

    /// Leaves out the next `len` bytes, however many, without keeping them.
    pub(super) fn skip(&mut self, len: u64, what: &str) -> Result<(), CaptureError> {
        let skipped = io::copy(&mut self.reader.by_ref().take(len), &mut io::sink());
        let skipped = skipped.map_err(|source| self.failed(source))?;
        self.at += skipped;
        if skipped < len {
            return Err(self.cut_short(what));
        }
        Ok(())
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Damaged {
            what: what.into(),
            at: self.at,
        }
    }

    fn cut_short(&self, what: &str) -> CaptureError {
        if self.at == 0 {
            return CaptureError::Empty;
        }
        CaptureError::CutShort {
            what: what.to_owned(),
            at: self.at,
        }
    }

    fn failed(&self, source: io::Error) -> CaptureError {
        CaptureError::Read {
            at: self.at,
            source,
        }
    }

    /// Fills as much as the file still has.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, CaptureError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }
}
