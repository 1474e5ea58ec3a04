use super::*;
use crate::discover::{Filter, Outcome, Owner, Target, Update};

const KEEP: Duration = Duration::from_secs(24 * 3600);

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn targets() -> [Target; 1] {
    let owner = Owner {
        plmn: "262-01".parse().ok(),
        country: "DE".parse().ok(),
    };
    [Target {
        name: "epdg.example".into(),
        owners: Arc::new([owner].into()),
    }]
}

fn filled() -> Memory {
    let mut memory = Memory::new(KEEP, Bounds::default());
    memory.set_targets(&targets());
    for (family, addresses, at) in [
        (Family::V4, ["8.0.0.1", "8.0.0.2"], 1_700_000_000),
        (Family::V6, ["2a02::1", "2a02::2"], 1_700_000_100),
    ] {
        let update = Update {
            name: "epdg.example".into(),
            family,
            outcome: Outcome::Addresses {
                addresses: addresses.map(|a| a.parse().unwrap()).into(),
                ttl: Duration::from_secs(300),
            },
            at: time(at),
        };
        memory.apply(&update, &Filter::default());
    }
    memory.note_traffic("8.0.0.1/32".parse().unwrap(), time(1_700_000_200));
    memory
}

fn reload(path: &Path) -> Loaded {
    load(path, KEEP, Bounds::default())
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("instance/state.json");
    let memory = filled();
    save(&path, &memory, &Visited::default()).unwrap();
    save(&path, &memory, &Visited::default()).unwrap();
    assert_eq!(files(path.parent().unwrap()), ["state.json"]);

    let mut loaded = reload(&path);
    assert_eq!(loaded.warning, None);
    // Whose they are comes from the configuration.
    assert_eq!(loaded.memory.known(&Filter::default()).count(), 0);
    loaded.memory.set_targets(&targets());
    let known = |memory: &Memory| memory.known(&Filter::default()).collect::<Vec<_>>();
    assert_eq!(known(&loaded.memory), known(&memory));
    assert_eq!(known(&loaded.memory).len(), 4);
    let (_, state) = loaded.memory.names().next().unwrap();
    assert_eq!(state.last_success(), Some(time(1_700_000_100)));
    assert_eq!(state.asked(Family::V4).ttl, Some(Duration::from_secs(300)));
}

#[test]
fn a_missing_file_is_no_trouble() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = reload(&directory.path().join("state.json"));
    assert!(loaded.warning.is_none() && loaded.memory.is_empty());
}

#[test]
fn unreadable_files_are_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    save(&path, &filled(), &Visited::default()).unwrap();
    let whole = fs::read_to_string(&path).unwrap();

    let torn = &whole[..whole.len() / 2];
    let newer = whole.replace("\"version\":2", "\"version\":3");
    let foreign = whole.replace(FORMAT, "something else");
    let damaged = whole.replace("8.0.0.1", "8.0.0.1.1");
    for (number, (text, said)) in [
        (torn, "torn"),
        ("", "torn"),
        ("[]", "torn"),
        ("\0\0\0\0", "torn"),
        (newer.as_str(), "version 3"),
        (foreign.as_str(), "something else"),
        (damaged.as_str(), "torn"),
        ("{\"format\":1e999}", "torn"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, text).unwrap();
        let loaded = reload(&path);
        assert!(loaded.memory.is_empty());
        let warning = loaded.warning.unwrap();
        let aside = format!("{}.unreadable-{}", path.display(), number + 1);
        assert!(
            warning.contains(said) && warning.contains(&aside),
            "{warning}"
        );
        assert_eq!(fs::read_to_string(aside).unwrap(), text);
        assert!(!path.exists());
    }
    // They do not fill the disk: the last is replaced.
    for _ in 0..5 {
        fs::write(&path, "x").unwrap();
        reload(&path);
    }
    assert_eq!(files(directory.path()).len(), ASIDE_MAX as usize);
    save(&path, &filled(), &Visited::default()).unwrap();
    assert!(reload(&path).warning.is_none());
}

#[test]
fn what_cannot_be_moved_is_still_no_crash() {
    let directory = tempfile::tempdir().unwrap();
    // A directory in the file's place: it opens, and does not read.
    let path = directory.path().join("state.json");
    fs::create_dir(&path).unwrap();
    let loaded = reload(&path);
    assert!(loaded.memory.is_empty());
    assert!(loaded.warning.unwrap().contains("cannot be read"));
}

#[test]
fn a_failed_save_names_the_step_and_leaves_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    save(&path, &filled(), &Visited::default()).unwrap();
    let before = fs::read(&path).unwrap();
    fs::create_dir(directory.path().join("state.json.new")).unwrap();
    let error = save(&path, &filled(), &Visited::default()).unwrap_err();
    assert!(error.to_string().starts_with("create "), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let below_a_file = path.join("state.json");
    let error = save(&below_a_file, &filled(), &Visited::default()).unwrap_err();
    assert!(
        error.to_string().starts_with("create directory "),
        "{error}"
    );
}

#[test]
fn leftovers_of_a_crash_are_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    fs::write(directory.path().join("state.json.new"), "x".repeat(1 << 20)).unwrap();
    save(&path, &filled(), &Visited::default()).unwrap();
    assert!(reload(&path).warning.is_none());
    assert_eq!(files(directory.path()), ["state.json"]);
}

#[test]
fn times_beyond_the_clock_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    save(&path, &filled(), &Visited::default()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for time in [0, i64::MAX as u64, u64::MAX] {
        fs::write(&path, text.replace("1700000000", &time.to_string())).unwrap();
        let mut loaded = reload(&path);
        assert_eq!(loaded.warning, None);
        loaded.memory.set_targets(&targets());
        assert!(loaded.memory.expire(self::time(1_700_000_300)).len() < 4);
        save(&path, &loaded.memory, &Visited::default()).unwrap();
    }
}

#[test]
fn bounds_hold_for_what_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    save(&path, &filled(), &Visited::default()).unwrap();
    let with = |per_name, total| {
        let bounds = Bounds {
            per_name,
            total,
            corroborated: 0,
        };
        load(&path, KEEP, bounds).memory.len()
    };
    assert_eq!(with(512, 3), 3);
    assert_eq!(with(2, 512), 2);
}

/// A state with something in each of its parts.
fn whole() -> Memory {
    let mut memory = filled();
    let filter = Filter::default();
    let sighting = crate::discover::Sighting {
        name: "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org".into(),
        addresses: vec!["9.0.0.1".parse().unwrap()],
        client: "10.0.0.2".parse().unwrap(),
        at: time(1_700_000_300),
    };
    memory.observe(&sighting, &filter);
    memory.learn(
        "9.0.0.2".parse().unwrap(),
        sighting.client,
        sighting.at,
        &filter,
    );
    memory.apply_nat64(&Update {
        name: crate::discover::nat64::NAME.into(),
        family: Family::V6,
        outcome: Outcome::Addresses {
            addresses: vec!["64:ff9b::192.0.0.170".parse().unwrap()],
            ttl: Duration::from_secs(300),
        },
        at: sighting.at,
    });
    memory
}

#[test]
fn every_part_is_saved_and_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    let memory = whole();
    save(&path, &memory, &Visited::default()).unwrap();
    let mut loaded = reload(&path).memory;
    loaded.set_targets(&targets());
    let known = |memory: &Memory| memory.known(&Filter::default()).collect::<Vec<_>>();
    assert_eq!(known(&loaded), known(&memory));
    assert_eq!(known(&loaded).len(), 6);
    assert_eq!(loaded.nat64(), memory.nat64());
    let names = |memory: &Memory| memory.seen_names().count();
    assert_eq!((names(&loaded), names(&memory)), (1, 1));
}

#[test]
fn version_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    let text = r#"{"format":"wificall addresses","version":1,
        "names":{"epdg.example":{"ipv4":{"last_success":1700000000,"ttl":300}}},
        "addresses":{"8.0.0.1":{"first_seen":1700000000,"answers":{"epdg.example":1700000000}}}}"#;
    fs::write(&path, text).unwrap();
    let mut loaded = reload(&path);
    assert_eq!(loaded.warning, None);
    loaded.memory.set_targets(&targets());
    let known: Vec<_> = loaded.memory.known(&Filter::default()).collect();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].first_seen, time(1_700_000_000));
    save(&path, &loaded.memory, &Visited::default()).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\"version\":2"));
}

/// Whatever happened to the file: it is read as a whole or refused, and never a panic.
#[test]
fn damage_at_every_byte() {
    let text = serde_json::to_vec(&Document::of(&whole(), &Visited::default())).unwrap();
    let load = |text: &[u8]| {
        let document = Document::parse(text).ok()?;
        let mut memory = document.into_memory(Memory::new(KEEP, Bounds::default()));
        memory.set_targets(&targets());
        memory.expire(time(1_700_000_400));
        Some(memory.known(&Filter::default()).count())
    };
    assert_eq!(load(&text), Some(6));
    for len in 0..text.len() {
        assert_eq!(load(&text[..len]), None, "cut to {len} bytes");
    }
    let mut read = 0;
    let mut state = 0x9e37_79b9_u32;
    for at in 0..text.len() {
        let mut text = text.clone();
        for byte in [0, b'"', b'9', b'-', b'}', 0xff, (state >> 24) as u8] {
            text[at] = byte;
            read += usize::from(load(&text).is_some());
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }
    assert!(read > 0, "some damage is within a value");
}

/// Names that a visited country gave come back with their addresses, and only with these.
#[test]
fn what_was_found_in_a_visited_country_is_kept() {
    use crate::catalogue::catalogue;
    use crate::discover::{Selection, Stats};

    const AT: &str = "epdg.epc.mcc262.visited-country.pub.3gppnetwork.org";
    let name = |mnc: u8| format!("epdg.epc.mnc0{mnc}.mcc262.pub.3gppnetwork.org");
    let countries = ["DE".parse().unwrap()];
    let selection = Selection {
        countries: &countries,
        ..Selection::default()
    };
    let visited = |found: &[Found]| {
        let mut visited = Visited::default();
        visited.select(catalogue(), &selection);
        for found in found {
            visited.take(found, catalogue(), &Stats::default());
        }
        visited
    };
    let before = visited(&[Found {
        at: AT.into(),
        names: vec![name(97), name(98)],
    }]);
    let targets: Vec<_> = before.targets().collect();
    assert_eq!(targets.len(), 2);
    let mut memory = Memory::new(KEEP, Bounds::default());
    memory.set_targets(&targets);
    let update = Update {
        name: name(98).into(),
        family: Family::V4,
        outcome: Outcome::Addresses {
            addresses: vec!["8.0.0.1".parse().unwrap()],
            ttl: Duration::from_secs(300),
        },
        at: time(1_700_000_000),
    };
    memory.apply(&update, &Filter::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    save(&path, &memory, &before).unwrap();
    let loaded = reload(&path);
    let after = visited(&loaded.found);
    assert!(after.targets().eq(targets.into_iter().skip(1)));
    assert_eq!(after.source(&name(98)), Some(AT));
    // What the file says is believed no further than what DNS says.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(AT, "evil.example")).unwrap();
    assert_eq!(visited(&reload(&path).found).targets().count(), 0);
}
