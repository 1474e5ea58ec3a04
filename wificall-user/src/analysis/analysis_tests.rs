use std::io::Cursor;

use super::*;

const PHONE: [u8; 4] = [10, 77, 0, 2];
const EPDG: [u8; 4] = [198, 18, 0, 10];
const MS: u64 = 1_000_000;

/// An IPv4 datagram in an Ethernet frame.
fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let len = 28 + payload.len() as u16;
    frame.extend([0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(from.0);
    frame.extend(to.0);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend((len - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn up(port: u16, payload: &[u8]) -> Vec<u8> {
    udp((PHONE, 40_000), (EPDG, port), payload)
}

fn down(port: u16, payload: &[u8]) -> Vec<u8> {
    udp((EPDG, port), (PHONE, 40_000), payload)
}

/// RFC 7296 section 3.1.
fn init(response: bool) -> Vec<u8> {
    let mut message = vec![1; 8];
    message.extend([u8::from(response); 8]);
    message.extend([33, 0x20, 34, if response { 0x20 } else { 0x08 }]);
    message.extend([0, 0, 0, 0, 0, 0, 0, 28]);
    message
}

fn esp(number: u32) -> Vec<u8> {
    let mut packet = vec![0, 0, 0x10, 1];
    packet.extend(number.to_be_bytes());
    packet.resize(116, 0x5a);
    packet
}

/// A pcap of nanoseconds; frames are 20 ms apart, and cut to `snap` bytes.
fn pcap(frames: &[Vec<u8>], snap: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (index, frame) in frames.iter().enumerate() {
        let kept = frame.len().min(snap);
        let nanos = (index as u64 * 20 * MS % 1_000_000_000) as u32;
        let seconds = 1_800_000_000 + (index as u32 / 50);
        for word in [seconds, nanos, kept as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&frame[..kept]);
    }
    file
}

fn analyze(file: &[u8], endpoints: &[&str]) -> Result<Analysis, CaptureError> {
    let options = Options {
        endpoints: endpoints.iter().map(|net| net.parse().unwrap()).collect(),
    };
    analyze_frames(|| Frames::new(Cursor::new(file)), &options)
}

fn conversation() -> Vec<Vec<u8>> {
    let mut frames = vec![up(500, &init(false)), down(500, &init(true))];
    for number in (1..50).filter(|number| number % 10 != 0) {
        frames.push(up(4500, &esp(number)));
        frames.push(down(4500, &esp(number)));
    }
    frames
}

#[test]
fn who_answers_is_taken_for_an_endpoint() {
    let analysis = analyze(&pcap(&conversation(), 65_535), &[]).unwrap();
    let [endpoint] = &analysis.endpoints[..] else {
        panic!("{analysis:#?}");
    };
    assert_eq!(endpoint.address, "198.18.0.10");
    assert_eq!(endpoint.source, Source::Answered);
    let esp = &analysis.matched["esp_udp"];
    assert_eq!((esp.up.packets, esp.down.packets), (45, 45));
    // On 500 and on 4500, which the phone's port says are two.
    let carries = analysis
        .flows
        .iter()
        .find(|it| it.client_to_us.esp.received != 0);
    let leg = carries.unwrap().client_to_us;
    assert_eq!((leg.esp.received, leg.esp.lost), (45, 4));
    assert_eq!(analysis.stopped, None);
}

#[test]
fn who_is_asked_and_does_not_answer_is_one_too() {
    let frames = vec![up(500, &init(false)); 3];
    let analysis = analyze(&pcap(&frames, 65_535), &[]).unwrap();
    assert_eq!(analysis.endpoints[0].source, Source::Asked);
    assert_eq!(analysis.matched["ike"].up.packets, 3);
}

#[test]
fn what_is_named_is_an_endpoint_and_nothing_is_guessed_then() {
    let file = pcap(&conversation(), 65_535);
    let analysis = analyze(&file, &["198.18.0.0/24"]).unwrap();
    assert_eq!(analysis.endpoints[0].source, Source::Named);
    assert_eq!(analysis.endpoints[0].network, "198.18.0.0/24");
    let analysis = analyze(&file, &["203.0.113.0/24"]).unwrap();
    assert!(analysis.matched.is_empty());
    assert_eq!(analysis.other["not_endpoint"], analysis.frames);
}

#[test]
fn a_capture_that_began_too_late_says_whom_to_name() {
    let frames = conversation().split_off(2);
    let analysis = analyze(&pcap(&frames, 65_535), &[]).unwrap();
    assert!(analysis.matched.is_empty());
    let [note] = &analysis.notes[..] else {
        panic!("{:?}", analysis.notes);
    };
    assert!(note.contains("--endpoint"), "{note}");
    assert!(note.contains("198.18.0.10 (45 packets)"), "{note}");
}

#[test]
fn what_stands_before_a_cut_is_analyzed() {
    let file = pcap(&conversation(), 65_535);
    let whole = analyze(&file, &[]).unwrap();
    let mut read = 0;
    // Every seventh: with frames of other lengths, every place in a record is met.
    for len in (0..file.len()).step_by(7) {
        match analyze(&file[..len], &[]) {
            Err(_) => assert_eq!(read, 0, "{len}: what was read is to be told"),
            Ok(analysis) => {
                assert!(analysis.frames >= read && analysis.frames <= whole.frames);
                read = analysis.frames;
                if let Some(stopped) = &analysis.stopped {
                    assert!(stopped.contains(&format!("at byte {len}")), "{stopped}");
                }
            }
        }
    }
    assert!(read >= whole.frames - 1);
}

#[test]
fn a_packet_that_was_cut_before_its_number_has_none() {
    // Ethernet, IPv4, UDP, and the SPI.
    let analysis = analyze(&pcap(&conversation(), 14 + 28 + 4), &["198.18.0.10/32"]).unwrap();
    assert_eq!(analysis.matched["esp_udp"].up.packets, 45);
    assert!(analysis.flows.is_empty(), "{:?}", analysis.flows);
    assert!(
        analysis.notes[0].contains("snapshot length"),
        "{:?}",
        analysis.notes
    );
    // With the number, all is there.
    let analysis = analyze(&pcap(&conversation(), 14 + 28 + 8), &["198.18.0.10/32"]).unwrap();
    assert_eq!(analysis.flows[0].client_to_us.esp.lost, 4);
}

#[test]
fn a_capture_of_two_interfaces_is_noticed() {
    let frames: Vec<_> = conversation()
        .into_iter()
        .flat_map(|it| [it.clone(), it])
        .collect();
    let analysis = analyze(&pcap(&frames, 65_535), &[]).unwrap();
    assert!(analysis.notes.iter().any(|note| note.contains("twice")));
    let analysis = analyze(&pcap(&conversation(), 65_535), &[]).unwrap();
    assert!(analysis.notes.is_empty(), "{:?}", analysis.notes);
}

#[test]
fn time_never_goes_back() {
    let mut file = pcap(&conversation(), 65_535);
    // The seconds of the third frame.
    let third = 24 + 2 * 16 + 2 * (14 + 28 + 28);
    file[third..third + 4].copy_from_slice(&1_u32.to_le_bytes());
    let analysis = analyze(&file, &[]).unwrap();
    assert!(
        analysis.notes[0].starts_with("1 frames are older"),
        "{:?}",
        analysis.notes
    );
    assert_eq!(analysis.first, Some(1_800_000_000_000));
}

#[test]
fn later_fragments_are_of_their_first_one() {
    // Long enough for a first fragment to show all headers.
    let mut first = up(500, &[init(false), vec![0; 12]].concat());
    let mut later = first.clone();
    // More fragments; at 28 bytes.
    first[20] = 0x20;
    later[20..22].copy_from_slice(&[0, 4]);
    let stranger = [&later[..18], &[9, 9], &later[20..]].concat();
    let frames = [first, later, stranger];
    let analysis = analyze(&pcap(&frames, 65_535), &["198.18.0.10/32"]).unwrap();
    assert_eq!(analysis.matched["ike"].up.packets, 1);
    assert_eq!(analysis.matched["fragment"].up.packets, 1);
    assert_eq!(analysis.other["unknown_fragment"], 1);
}

/// Behind a file of which nothing could be read an answer would be no answer.
#[test]
fn frames_of_another_kind_alone_are_an_error() {
    let mut file = pcap(&conversation(), 65_535);
    // 802.11, as in monitor mode.
    file[20] = 105;
    let error = analyze(&file, &[]).unwrap_err().to_string();
    assert!(
        error.starts_with("none of the 92 frames can be read: they are of "),
        "{error}"
    );
    assert!(error.contains("105"), "{error}");
    let empty = analyze(b"", &[]).unwrap_err().to_string();
    assert!(empty.starts_with("the file is empty"), "{empty}");
}
