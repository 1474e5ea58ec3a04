//! What the verifier says of each program.
//!
//! `bpf_prog_info` tells the number of verified instructions since Linux 5.16 only, and aya drops the log of a program
//! that loads. So the object is relocated once more, against the maps of a loaded one, and loaded for its log.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use anyhow::{Context as _, Result, bail};
use aya::{EbpfLoader, maps::Map};
use aya_obj::{Object, ProgramSection};

use super::{lift_memlock, object, raw};
use crate::vectors::Setup;

/// One program's figures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort {
    /// Its name.
    pub program: String,
    /// Instructions in the object.
    pub instructions: usize,
    /// Instructions that the verifier walked through, every path counted.
    pub verified: u64,
    /// Instructions that it left, helpers inlined and what load-time constants switch off removed.
    pub translated: usize,
    /// Bytes of the machine code that they became; addresses in it have more or fewer bytes from one boot to the next.
    pub jited: u32,
    /// The verifier's own line.
    pub line: String,
}

/// Loads every program with these load-time constants and reads what it cost to verify.
///
/// # Errors
///
/// Fails if a program is refused.
pub fn efforts(setup: &Setup) -> Result<Vec<Effort>> {
    efforts_of(setup, |_| true)
}

/// Likewise of the programs that `wanted` names.
///
/// # Errors
///
/// As above.
pub fn efforts_of(setup: &Setup, wanted: impl Fn(&str) -> bool) -> Result<Vec<Effort>> {
    lift_memlock();
    let (prefix, len) = setup.pref64.unwrap_or_default();
    let bytes = object()?;
    let loaded = EbpfLoader::new()
        .override_global("FEATURES", &setup.features, true)
        .override_global("PREF64", &prefix, true)
        .override_global("PREF64_LEN", &len, true)
        .override_global(
            "PREF64_MORE",
            &[prefix; wificall_common::abi::PREF64S - 1],
            true,
        )
        .override_global(
            "PREF64_MORE_LEN",
            &[len; wificall_common::abi::PREF64S - 1],
            true,
        )
        .load(&bytes)
        .context("load the BPF object")?;
    let mut object = Object::parse(&bytes).context("parse the BPF object")?;
    let text_sections = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let definitions = object.maps.clone();
    let maps = loaded
        .maps()
        .map(|(name, map)| Ok((name, descriptor(map)?, definition(&definitions, name)?)))
        .collect::<Result<Vec<_>>>()?;
    object.relocate_maps(maps.into_iter(), &text_sections)?;
    object.relocate_calls(&text_sections)?;
    let mut efforts = object
        .programs
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, program)| {
            let kind = match program.section {
                ProgramSection::Xdp { .. } => raw::Kind::Xdp,
                ProgramSection::SchedClassifier => raw::Kind::Tc,
                _ => bail!("{name} is neither a TC nor an XDP program"),
            };
            let instructions = &object.functions[&program.function_key()].instructions;
            let loaded = raw::statistics(kind, instructions).with_context(|| name.clone())?;
            let line = loaded
                .log
                .lines()
                .find(|line| line.starts_with("processed "))
                .with_context(|| format!("no statistics in {:?}", loaded.log))?;
            let verified = line.split(' ').nth(1).unwrap_or_default().parse()?;
            Ok(Effort {
                program: name.clone(),
                instructions: instructions.len(),
                verified,
                translated: loaded.translated,
                jited: loaded.jited,
                line: line.to_owned(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    efforts.sort();
    Ok(efforts)
}

fn definition<'a>(
    maps: &'a std::collections::HashMap<String, aya_obj::Map>,
    name: &str,
) -> Result<&'a aya_obj::Map> {
    maps.get(name)
        .with_context(|| format!("the object has no map {name}"))
}

fn descriptor(map: &Map) -> Result<RawFd> {
    let (Map::Array(data)
    | Map::PerCpuArray(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::LpmTrie(data)
    | Map::RingBuf(data)) = map
    else {
        bail!("a map of an unexpected type: {map:?}");
    };
    Ok(data.fd().as_fd().as_raw_fd())
}
