//! The rows of the compiled table: numbers, and places in one text.
//!
//! Nothing is parsed, allocated or relocated at the start of the agent; pages of the table that
//! nobody looks at are not even read. `cargo xtask catalogue` writes it.

use super::{Country, Plmn};

/// A text in the table's text: where it begins, shifted left by 8, and its length in bytes.
pub(super) type Text = u32;

/// The longest text.
pub(super) const LONGEST: usize = 0xff;

/// Where `text` is once it stands at `at`; `None` if it is too long or too far.
pub(super) fn place(at: usize, text: &str) -> Option<Text> {
    let at = u32::try_from(at).ok().filter(|at| *at < 1 << 24)?;
    let len = u32::try_from(text.len())
        .ok()
        .filter(|_| text.len() <= LONGEST)?;
    Some(at << 8 | len)
}

/// The text at `place`.
pub(super) fn text(all: &str, place: Text) -> &str {
    let (at, len) = ((place >> 8) as usize, (place & 0xff) as usize);
    all.get(at..at + len).unwrap_or_default()
}

/// A list of countries: where it begins and how many there are.
pub(super) type Set = (u16, u8);

/// An operator: MCC, MNC, how many digits that has, status, its countries' list (two numbers),
/// brand, company, aliases with tabs between.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct OperatorRow(
    pub u16,
    pub u16,
    pub u8,
    pub u8,
    pub u16,
    pub u8,
    pub Text,
    pub Text,
    pub Text,
);

/// In the status: the standard name was seen to resolve.
pub(super) const RESOLVES: u8 = 0x80;

impl OperatorRow {
    pub fn plmn(&self) -> Plmn {
        plmn(self.0, self.1, self.2)
    }

    pub fn countries(&self) -> Set {
        (self.4, self.5)
    }
}

/// What a carrier's handsets are configured to dial instead of, or beside, the standard name:
/// MCC, MNC, how many digits that has, the name or network, the source.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct DialledRow(pub u16, pub u16, pub u8, pub Text, pub Text);

impl DialledRow {
    pub fn plmn(&self) -> Plmn {
        plmn(self.0, self.1, self.2)
    }
}

/// An MCC and the list of its countries (two numbers).
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct MccRow(pub u16, pub u16, pub u8);

impl MccRow {
    pub fn countries(&self) -> Set {
        (self.1, self.2)
    }
}

/// A country: ISO 3166-1 alpha-3, name, other names with tabs between.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct CountryRow(pub Country, pub Text, pub Text, pub Text);

fn plmn(mcc: u16, mnc: u16, digits: u8) -> Plmn {
    Plmn::new(mcc, mnc, digits).expect("the table has no other numbers: a test reads all of it")
}
