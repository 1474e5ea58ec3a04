//! Reads `dscp`, `priority` and `mark`, which `[defaults]` and each `[[policy]]` have.

use toml::de::DeValue;

use super::dscp::{self, CLASSES, Dscp, DscpMode};
use super::reader::{Item, Section};
use super::report::Mismatch;
use super::{Mark, MarkUse, Priority, Treatment, values};

const EXPECTED_VALUE: &str =
    r#""EF", "VA", "CS0" to "CS7", "AF11" to "AF43", "DF", a number from 0 to 63, or "keep""#;

/// Reads a treatment; a key that is not there takes its value from `base`.
pub(super) fn read(section: &Section, base: Treatment) -> Treatment {
    Treatment {
        dscp: section
            .item("dscp")
            .map_or(base.dscp, |item| read_dscp(&item, base.dscp)),
        priority: section.value("priority", base.priority, |item| {
            item.choice(&[("voice", Priority::Voice), ("none", Priority::None)])
        }),
        mark: section.value("mark", base.mark, read_mark),
        mark_use: section.value("mark_use", base.mark_use, |item| {
            item.choice(&[("route", MarkUse::Route), ("passage", MarkUse::Passage)])
        }),
        cap: section.value("cap", base.cap, values::cap),
    }
}

/// Reads one value for everything, or a table of mode and values by direction.
fn read_dscp(item: &Item, base: Dscp) -> Dscp {
    if !matches!(item.get(), DeValue::Table(_)) {
        return match item.read(value) {
            Some(Some(value)) => Dscp::all(value),
            Some(None) => Dscp::KEEP,
            None => base,
        };
    }
    let section = item.section("");
    let kept = if base.mode == DscpMode::Keep {
        DscpMode::Set
    } else {
        base.mode
    };
    let mode = section.value("mode", kept, |item| {
        item.choice(&[("set", DscpMode::Set), ("if-default", DscpMode::IfDefault)])
    });
    let direction = |key, base| section.item(key).map_or(base, |item| by_class(&item, base));
    let dscp = Dscp {
        mode,
        up: direction("up", base.up),
        down: direction("down", base.down),
    };
    section.finish();
    // Nothing to write in either direction is what `keep` means, however it was said.
    if dscp.up == [None; 4] && dscp.down == [None; 4] {
        Dscp::KEEP
    } else {
        dscp
    }
}

/// Reads one value for all classes, or a table of values by class.
fn by_class(item: &Item, base: [Option<u8>; 4]) -> [Option<u8>; 4] {
    if !matches!(item.get(), DeValue::Table(_)) {
        return item.read(value).map_or(base, |value| [value; 4]);
    }
    let section = item.section("");
    let default = section.item("default").and_then(|item| item.read(value));
    let mut values = default.map_or(base, |default| [default; 4]);
    for (slot, class) in values.iter_mut().zip(CLASSES) {
        *slot = section.value(class, *slot, value);
    }
    section.finish();
    values
}

/// Reads a DSCP by name or number; `None` for `"keep"`.
fn value(item: &Item) -> Result<Option<u8>, Mismatch> {
    let refused = || Mismatch::expected(EXPECTED_VALUE);
    let name = match item.get() {
        DeValue::Integer(_) => {
            // The range that `number` would name is only part of what is possible.
            return item
                .number(0..=63)
                .map(|value| Some(value as u8))
                .map_err(|_| refused());
        }
        DeValue::String(name) => name.as_ref(),
        _ => return Err(refused()),
    };
    if name == "keep" {
        return Ok(None);
    }
    let upper = name.trim().to_uppercase();
    let hint = match (dscp::by_name(&upper), name.trim().parse::<u8>()) {
        (Some(value), _) if upper == name => return Ok(Some(value)),
        (Some(_), _) => Some(format!("write {upper:?}")),
        (None, Ok(number)) if number < 64 => Some(format!("write {number} without quotes")),
        _ if upper == "KEEP" => Some(r#"write "keep""#.to_owned()),
        _ => None,
    };
    Err(Mismatch { hint, ..refused() })
}

/// Reads a mark; `None` for `"none"`, which takes back the one of `[defaults]`.
pub(super) fn read_mark(item: &Item) -> Result<Option<Mark>, Mismatch> {
    const EXPECTED: &str = r#"a mark such as "0x65/0xff" (value/mask) or "none""#;
    let refused = || Mismatch::expected(EXPECTED);
    let text = match item.get() {
        DeValue::String(text) if text == "none" => return Ok(None),
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(number) => {
            return Err(refused().hint(format!("write it as a string: \"{number}\"")));
        }
        _ => return Err(refused()),
    };
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value, values::parse_number(mask).ok_or_else(refused)?),
        None => (text, u32::MAX),
    };
    let value = values::parse_number(value).ok_or_else(refused)?;
    if mask == 0 {
        return Err(Mismatch::expected("a mask with at least one bit")
            .hint("the mask says which bits of the mark are ours"));
    }
    if value & !mask != 0 {
        let wider = u32::MAX >> value.leading_zeros() | mask;
        return Err(Mismatch::expected("a value inside its mask").hint(format!(
            "the mask of this value is at least {wider:#x}: write \"{value:#x}/{wider:#x}\""
        )));
    }
    Ok(Some(Mark { value, mask }))
}
