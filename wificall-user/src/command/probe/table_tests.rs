use super::*;
use crate::discover::{Owner, Reason};
use crate::probe::best::best as choose;
use crate::probe::plan::Refused;
use crate::probe::{Finding, Followed, Gateway, Icmp, Nat, Suite, Verdict};

fn probed(operator: &str, address: &str, port: u16, finding: Finding) -> Probed {
    let owner = |plmn: &str| Owner {
        plmn: Some(plmn.parse().unwrap()),
        country: None,
    };
    let address = address.parse().unwrap();
    Probed {
        address,
        port,
        owners: operator.split_whitespace().map(owner).collect(),
        names: [format!("epdg.{operator}.example.org").into()].into(),
        finding,
    }
}

fn found(verdict: Verdict, rtt_us: u64) -> Finding {
    Finding {
        verdict,
        rtt: (rtt_us > 0).then(|| Duration::from_micros(rtt_us)),
        sent: 4,
        ..Finding::failed(String::new())
    }
}

fn everything() -> Found {
    let reachable = Verdict::Reachable(Suite {
        encr: (12, Some(256)),
        integ: Some(12),
        prf: 5,
        dh: 14,
    });
    let followed = Finding {
        followed: vec![
            Followed::Cookie,
            Followed::Group(2),
            Followed::Redirect(
                Gateway::Name("gw.example.org".to_owned()),
                "198.18.0.99".parse().unwrap(),
            ),
        ],
        nat: Some(Nat {
            here: true,
            there: false,
        }),
        vendor_ids: vec![b"FLEXVPN".to_vec()],
        ..found(reachable.clone(), 23_456)
    };
    let icmp = Icmp {
        v6: true,
        kind: 1,
        code: 4,
        from: Some("2001:db8::1".parse().unwrap()),
    };
    let probed = vec![
        probed("262-01", "198.18.0.1", 500, found(reachable, 1_234)),
        probed("262-01", "198.18.0.1", 4500, followed),
        probed("262-01", "198.18.0.2", 500, found(Verdict::Silent, 0)),
        probed(
            "262-01 262-02",
            "198.18.0.3",
            500,
            found(Verdict::Refused(14, None), 900),
        ),
        probed(
            "262-02",
            "198.18.0.4",
            500,
            found(Verdict::Refused(17, Some(1)), 900),
        ),
        probed(
            "262-02",
            "2001:db8::1",
            500,
            found(Verdict::Unreachable(icmp), 0),
        ),
    ];
    let summary =
        |asked: &str, addresses, reachable, best: Option<&str>, problem: Option<&str>| Summary {
            asked: asked.to_owned(),
            addresses,
            reachable,
            best: best.map(|best| best.parse().unwrap()),
            problem: problem.map(str::to_owned),
        };
    Found {
        mark: None,
        refused: vec![Refused {
            address: "10.0.0.1".parse().unwrap(),
            reason: Reason::Private,
        }],
        left_out: 0,
        asked: vec![
            summary("262-01", 3, 1, Some("198.18.0.1"), None),
            summary("262-02", 3, 0, None, None),
            summary("262-03", 0, 0, None, Some("192.0.2.53:53: timed out")),
        ],
        best: choose(&probed),
        probed,
    }
}

/// Without colours it says the same.
#[test]
fn the_table_reads_like_this() {
    let text = anstream::adapter::strip_str(&all(&everything())).to_string();
    assert_eq!(text, TABLE.trim_start_matches('\n'));
    let text = anstream::adapter::strip_str(&best(&everything())).to_string();
    assert_eq!(text, BEST.trim_start_matches('\n'));
}

const TABLE: &str = r#"
  OPERATOR       ADDRESS      PORT  RESULT          RTT  ANSWER
  262-01         198.18.0.1    500  reachable    1.2 ms  aes-cbc-256 hmac-sha2-256-128 prf-hmac-sha2-256 modp2048
  262-01         198.18.0.1   4500  reachable     23 ms  aes-cbc-256 hmac-sha2-256-128 prf-hmac-sha2-256 modp2048; after cookie, group modp1024, redirect to gw.example.org (198.18.0.99); NAT here; vendor FLEXVPN
  262-01         198.18.0.2    500  silent            -  4 requests, no answer
  262-01+262-02  198.18.0.3    500  refused      0.9 ms  NO_PROPOSAL_CHOSEN
  262-02         198.18.0.4    500  refused      0.9 ms  INVALID_KE_PAYLOAD, wants group-1
  262-02         2001:db8::1   500  unreachable       -  ICMPv6: port unreachable, says 2001:db8::1

Not probed
  10.0.0.1  private: not a global address; --allow-local probes it all the same

262-01: 1 of 3 addresses reachable; best 198.18.0.1, 1.2 ms
262-02: 0 of 3 addresses reachable
262-03: no address, because DNS failed: 192.0.2.53:53: timed out
"#;

const BEST: &str = r#"
  OPERATOR  ADDRESS     PORTS        RTT
  262-01    198.18.0.1  500,4500  1.2 ms

  NAME                     ADDRESS     PORTS        RTT
  epdg.262-01.example.org  198.18.0.1  500,4500  1.2 ms
262-02: 0 of 3 addresses reachable
262-03: no address, because DNS failed: 192.0.2.53:53: timed out
"#;

#[test]
fn colours_do_not_move_the_columns() {
    let text = all(&everything());
    let line = text.lines().nth(1).unwrap();
    assert!(line.contains("\x1b[1m\x1b[32mreachable\x1b[0m"), "{line:?}");
    assert!(text.contains("\x1b[31msilent"));
    assert!(text.contains("\x1b[33mrefused"));
}

#[test]
fn json_has_the_fields_that_a_script_reads() {
    let found = everything();
    let json = serde_json::to_value(&found).unwrap();
    let first = &json["probed"][0];
    assert_eq!(first["result"], "reachable");
    assert_eq!(first["suite"]["dh"], "modp2048");
    assert_eq!(first["rtt_ms"], 1.234);
    let followed = &json["probed"][1];
    assert_eq!(followed["followed"][1], "group modp1024");
    assert_eq!(followed["nat"]["here"], true);
    assert_eq!(json["probed"][3]["notify"], "NO_PROPOSAL_CHOSEN");
    assert_eq!(json["probed"][4]["wanted_group"], "group-1");
    assert_eq!(
        json["probed"][5]["icmp"],
        "ICMPv6: port unreachable, says 2001:db8::1"
    );
    assert_eq!(json["best"]["operators"]["262-01"]["address"], "198.18.0.1");
    assert_eq!(json["refused"][0]["reason"], "private");
    assert!(!found.all_reachable());
}
