//! Queries of HTTP, as forms write them (WHATWG URL §5.1).

/// Names and values.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

/// What is no UTF-8 afterwards has a mark in its place, and what is not encoded rightly stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        plain.push(match byte {
            b'+' => b' ',
            b'%' => match bytes.get(at..at + 2).and_then(hex) {
                Some(byte) => {
                    at += 2;
                    byte
                }
                None => b'%',
            },
            other => *other,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digits
        .iter()
        .try_fold(0, |value, byte| Some(value * 16 + digit(*byte)?))?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_and_what_is_not_stays() {
        let all: Vec<_> = pairs("limit=200&filter=o%32+t%C3%A4l&&x&y=%zz%2&z=%ff&%+=+").collect();
        let expected = [
            ("limit", "200"),
            ("filter", "o2 täl"),
            ("x", ""),
            ("y", "%zz%2"),
            ("z", "\u{fffd}"),
            ("% ", " "),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(all, expected);
    }
}
