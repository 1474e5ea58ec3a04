use super::*;
use crate::explanation::{Flow, Hex, LinkName, Mac, Packet, sample};
use crate::export::set::Text;

fn packet(words: &str) -> Packet {
    let words: Vec<_> = words.split_whitespace().collect();
    Packet {
        frame: Text(Hex(Flow::parse(&words).unwrap().frame(None))),
        link: None,
        direction: None,
        interface: None,
        client_mac: None,
        first_fragment: None,
    }
}

#[test]
fn a_match_reads_like_this() {
    let packet = packet("10.0.0.2 192.0.2.1 udp 40000 4500");
    assert_eq!(sample(&packet).text(), MATCH.trim_start());
}

const MATCH: &str = r#"
Packet     82 bytes, Ethernet
           IPv4 10.0.0.2 → 192.0.2.1, 68 bytes, DSCP 0, ECN 0
           UDP 40000 → 4500: ESP, SPI 0x00000100, sequence number 16843009
Direction  up: its destination is the far end
Endpoint   192.0.2.1 is an endpoint by the block 192.0.2.0/24, authoritative
           operators: 262-01; countries: DE; by address (GeoIP): AT
           names: epdg.example.net
           known there: 192.0.2.9
           known by: resolver
Verdict    it matches: esp_udp
Client     10.0.0.2, 02:00:00:00:00:01, at lan
Policy     not "australia": it is for countries AU, NZ, and the endpoint's are DE
           not "guests": it is for interfaces guest*, and the packet's is not known: give --interface
           "germany" matches
Tunnel     it began with this exit, 25 s ago
Exit       berlin: IPv4 by 10.0.0.9 (up); IPv6 direct: it goes the box's own way
Result     lan tc_ingress: DSCP 46 (EF), mark 0x65/0xff, neither DSCP nor priority of voice beyond 150 packets a second of a client
"#;

#[test]
fn an_exit_says_which_way_it_takes() {
    let mut explanation = sample(&packet("10.0.0.2 192.0.2.1 esp"));
    explanation.ways[0].gateways[0].state = "down".into();
    (explanation.ways[1].state, explanation.ways[1].gateway) = ("block".into(), None);
    let text = explanation.text();
    let expected = "berlin: IPv4 by 10.0.0.9 (down); IPv6 is blocked: no gateway is up, its traffic is refused\n";
    assert!(text.contains(expected), "{text}");
    explanation.ways.clear();
    let text = explanation.text();
    assert!(
        text.contains("berlin: which gateway is in use is not known"),
        "{text}"
    );
}

#[test]
fn no_match_says_why_and_what_to_do() {
    let mut explanation = sample(&packet("fd00::2 2001:db8::1 tcp 40000 443"));
    explanation.matches = false;
    explanation.direction = None;
    explanation.endpoint = None;
    explanation.class = None;
    explanation.exit = "other_protocol".into();
    explanation.why = "TCP: neither UDP nor ESP".into();
    explanation.origin = Origin::Offline;
    explanation.hints = vec!["do this".into()];
    explanation.policies.clear();
    explanation.steps.clear();
    explanation.leaves_by = None;
    explanation.hooks.clear();
    assert_eq!(explanation.text(), NO_MATCH.trim_start());
}

const NO_MATCH: &str = r#"
Packet     74 bytes, Ethernet
           IPv6 fd00::2 → 2001:db8::1, 60 bytes, DSCP 0, ECN 0
           TCP 40000 → 443
Verdict    no match (other_protocol): TCP: neither UDP nor ESP
Result     it passes untouched
Note       from the configuration and the state on disk: no agent was asked
Hint       do this
"#;

/// Each reason has a sentence of its own, whether what it met is known or not.
#[test]
fn every_condition_has_a_sentence() {
    let keys = [
        "operators",
        "countries",
        "operators and countries",
        "names",
        "emergency",
        "prefixes",
        "tiers",
        "clients",
        "interfaces",
        "companions",
    ];
    for key in keys {
        for found in [vec![], vec!["FOUND".to_owned()]] {
            let sentence = why_not(&Tried {
                policy: "p".into(),
                matched: false,
                condition: Some(key.into()),
                wanted: vec!["WANTED".into()],
                found,
            });
            assert!(!sentence.starts_with(key), "{sentence}");
            assert!(
                sentence.contains("WANTED") || key == "emergency",
                "{sentence}"
            );
        }
    }
}

#[test]
fn names_of_dscps() {
    let names = [0, 8, 10, 26, 38, 40, 44, 46, 48, 11, 39, 63].map(dscp_name);
    assert_eq!(
        names,
        [
            "0",
            "8 (CS1)",
            "10 (AF11)",
            "26 (AF31)",
            "38 (AF43)",
            "40 (CS5)",
            "44 (VA)",
            "46 (EF)",
            "48 (CS6)",
            "11",
            "39",
            "63"
        ]
    );
}

#[test]
fn hex_is_read_as_programs_write_it() {
    for text in [
        "0800 45",
        "08:00:45",
        "0x08 0x00 0x45",
        "08-00-45",
        "080045",
        "08 00\n45\n",
    ] {
        assert_eq!(text.parse(), Ok(Hex(vec![8, 0, 0x45])), "{text}");
    }
    for (text, expected) in [
        ("", "there is no byte"),
        ("08 0", "odd number of digits"),
        ("08 0g", "'g' is no hexadecimal digit"),
        ("é8", "'é' is no hexadecimal digit"),
    ] {
        let error = text.parse::<Hex>().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(
        "00".repeat(super::super::FRAME_MAX + 1)
            .parse::<Hex>()
            .is_err()
    );
    assert_eq!("02:00:00:00:00:aB".parse(), Ok(Mac([2, 0, 0, 0, 0, 0xab])));
    for text in [
        "02:00:00:00:00",
        "02:00:00:00:00:0",
        "02:00:00:00:00:00:00",
        "+2:00:00:00:00:01",
        "",
    ] {
        let error = text.parse::<Mac>();
        assert!(error.is_err(), "{text}");
    }
}

/// What crosses the control socket is what was sent.
#[test]
fn questions_and_answers_survive_the_socket() {
    let mut packet = packet("10.0.0.2 192.0.2.1 esp");
    packet.link = Some(LinkName::Bare);
    packet.direction = Some(Way::Down);
    packet.client_mac = Some(Text(Mac([2, 0, 0, 0, 0, 1])));
    let json = serde_json::to_string(&packet).unwrap();
    assert_eq!(serde_json::from_str::<Packet>(&json).unwrap(), packet);
    let explanation = sample(&packet);
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(
        serde_json::from_str::<Explanation>(&json).unwrap(),
        explanation
    );
}
