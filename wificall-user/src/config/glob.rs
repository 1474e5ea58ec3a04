//! Interface names, and patterns of them.

use std::fmt;

/// An interface name, or a pattern of names: `*` is any number of characters, `?` is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(String);

impl Glob {
    /// A glob of this text, or `None` if no interface can have a name like that.
    ///
    /// The kernel's rule (`dev_valid_name`): 1 to 15 bytes, not `.` or `..`, without `/`, `:` and white space.
    pub fn new(text: &str) -> Option<Self> {
        let shortest_match = text.bytes().filter(|&byte| byte != b'*').count();
        let valid = !matches!(text, "" | "." | "..")
            && shortest_match <= LONGEST
            && !text
                .contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        valid.then(|| Self(text.to_owned()))
    }

    /// Whether it matches this name.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }

    /// Whether there can be an interface that both match.
    pub fn meets(&self, other: &Self) -> bool {
        shortest_common(&squeezed(&self.0), &squeezed(&other.0)).is_some_and(|len| len <= LONGEST)
    }

    /// Whether it matches every interface that `other` matches.
    ///
    /// A byte that no name has stands for any that `other` leaves open: only what is open here too takes it. So it is
    /// enough to look at the lengths that the stars of `other` can have.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || covers(self, &squeezed(&other.0), &mut Vec::new())
    }

    /// Whether it is one name rather than a pattern.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Matches without recursion: on a mismatch, the last `*` takes one character more.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g + 1, n));
                g += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (g, n) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

/// The longest name of an interface, in bytes (`IFNAMSIZ` less the final zero).
const LONGEST: usize = 15;

/// Without stars that follow one another.
fn squeezed(glob: &str) -> Vec<u8> {
    let mut bytes = glob.as_bytes().to_vec();
    bytes.dedup_by(|one, other| (*one, *other) == (b'*', b'*'));
    bytes
}

/// The length of the shortest name that both match.
fn shortest_common(one: &[u8], other: &[u8]) -> Option<usize> {
    let width = other.len() + 1;
    // By how much of either glob is used up.
    let mut least = vec![usize::MAX; (one.len() + 1) * width];
    least[0] = 0;
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            let len = least[i * width + j];
            if len == usize::MAX {
                continue;
            }
            let (a, b) = (one.get(i), other.get(j));
            let mut reach = |i: usize, j: usize, len: usize| {
                let slot = &mut least[i * width + j];
                *slot = len.min(*slot);
            };
            match (a, b) {
                (Some(b'*'), Some(b'*')) => {
                    reach(i + 1, j, len);
                    reach(i, j + 1, len);
                }
                (Some(b'*'), Some(_)) => {
                    reach(i + 1, j, len);
                    reach(i, j + 1, len + 1);
                }
                (Some(_), Some(b'*')) => {
                    reach(i, j + 1, len);
                    reach(i + 1, j, len + 1);
                }
                (Some(a), Some(b)) if a == b || *a == b'?' || *b == b'?' => {
                    reach(i + 1, j + 1, len + 1);
                }
                (Some(b'*'), None) => reach(i + 1, j, len),
                (None, Some(b'*')) => reach(i, j + 1, len),
                _ => {}
            }
        }
    }
    least.last().copied().filter(|len| *len != usize::MAX)
}

/// Whether `wide` matches every name that begins with `name` and goes on as the rest of a glob says.
fn covers(wide: &Glob, rest: &[u8], name: &mut Vec<u8>) -> bool {
    const OPEN: u8 = 0;
    let fixed = rest.iter().filter(|&&byte| byte != b'*').count();
    if name.len() + fixed > LONGEST {
        // No interface has so long a name.
        return true;
    }
    let length = name.len();
    let covered = match rest {
        [] => name.is_empty() || matches(wide.0.as_bytes(), name),
        [b'*', after @ ..] => (0..=LONGEST).all(|open| {
            name.truncate(length);
            name.resize(length + open, OPEN);
            covers(wide, after, name)
        }),
        [byte, after @ ..] => {
            name.push(if *byte == b'?' { OPEN } else { *byte });
            covers(wide, after, name)
        }
    };
    name.truncate(length);
    covered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, names, others) in [
            ("eth0", &["eth0"][..], &["eth00", "eth", "xeth0", ""][..]),
            ("wlan*", &["wlan", "wlan0", "wlan0-1"], &["wla", "xwlan0"]),
            ("wlan?", &["wlan0", "wlan*"], &["wlan", "wlan10"]),
            (
                "*lan*",
                &["lan", "br-lan", "wlan0", "lanlan"],
                &["la", "l-an"],
            ),
            ("*a*b", &["ab", "aab", "xaybzb"], &["ba", "aba"]),
            ("*", &["lo", "x"], &[]),
        ] {
            let pattern = Glob::new(glob).unwrap();
            assert_eq!(pattern.is_literal(), glob == "eth0");
            for name in names {
                assert!(pattern.matches(name), "{glob} {name}");
            }
            for name in others {
                assert!(!pattern.matches(name), "{glob} {name}");
            }
        }
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "a\u{7f}",
            "0123456789abcdef",
        ] {
            assert_eq!(Glob::new(name), None, "{name:?}");
        }
        assert!(Glob::new("0123456789abcde").is_some());
        assert!(Glob::new("*0123456789abcde*").is_some());
    }

    /// All names of up to four characters out of `a` and `b`, and one that no glob here names.
    fn names() -> Vec<String> {
        let mut names = vec![String::new()];
        let mut from = 0;
        for _ in 0..4 {
            let to = names.len();
            for at in from..to {
                for c in ['a', 'b', 'z'] {
                    names.push(format!("{}{c}", names[at]));
                }
            }
            from = to;
        }
        names.split_off(1)
    }

    /// Two globs against each other, as against all names that they could match.
    #[test]
    fn globs_meet_and_cover_as_their_names_do() {
        let names = names();
        let globs = [
            "a", "b", "ab", "*", "?", "??", "a*", "*a", "a?", "?a", "*a*", "?*", "*?", "a*b",
            "*aa", "*?a", "a**", "a*?", "b?*", "aab", "*b?",
        ]
        .map(|text| Glob::new(text).unwrap());
        for one in &globs {
            for other in &globs {
                let meet = names
                    .iter()
                    .any(|name| one.matches(name) && other.matches(name));
                assert_eq!(one.meets(other), meet, "{one} meets {other}");
                let cover = names
                    .iter()
                    .all(|name| one.matches(name) || !other.matches(name));
                assert_eq!(one.covers(other), cover, "{one} covers {other}");
            }
        }
    }

    #[test]
    fn no_interface_has_more_than_15_characters() {
        let glob = |text| Glob::new(text).unwrap();
        assert!(glob("0123456789*").meets(&glob("*abcde")));
        assert!(!glob("0123456789*").meets(&glob("*abcdef")));
        assert!(glob("0123456789abcde").covers(&glob("0123456789abcde*")));
        assert!(!glob("0123456789abcd").covers(&glob("0123456789abcd*")));
    }
}
