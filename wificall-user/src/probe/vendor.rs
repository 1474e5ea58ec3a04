//! Vendor ids for people: free bytes, by custom a text or an MD5 of one (RFC 7296 §3.12).

/// More of an id is not kept.
pub(super) const LENGTH_MAX: usize = 64;
/// More ids of one answer are not kept.
pub(super) const COUNT_MAX: usize = 16;

/// Ids that are no text. MD5 of "strongSwan", as its `charon.send_vendor_id` sends it (`src/libcharon/sa/ikev2/tasks/
/// ike_vendor.c`).
const KNOWN: &[(&[u8], &str)] = &[(
    &[
        0x88, 0x2f, 0xe5, 0x6d, 0x6f, 0xd2, 0x0d, 0xbc, 0x22, 0x51, 0x61, 0x3b, 0x2e, 0xbe, 0x5b,
        0xeb,
    ],
    "strongSwan",
)];

/// A text if it is one or is known, hexadecimal digits else.
pub(super) fn show(id: &[u8]) -> String {
    if let Some((_, name)) = KNOWN.iter().find(|(known, _)| *known == id) {
        return (*name).to_owned();
    }
    if !id.is_empty() && id.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return String::from_utf8_lossy(id).into_owned();
    }
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_and_nothing_else_reaches_the_terminal() {
        assert_eq!(show(b"FLEXVPN-SUPPORTED"), "FLEXVPN-SUPPORTED");
        assert_eq!(show(b"\x1b[31mred"), "1b5b33316d726564");
        assert_eq!(show(b""), "");
        assert_eq!(show(KNOWN[0].0), "strongSwan");
    }
}
