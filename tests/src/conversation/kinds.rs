//! The faults, one a conversation.

use std::time::Duration;

use super::{Conversation, NOISE, Talk, VOICE, VOICE_BYTES, Way};

/// All.
#[must_use]
pub fn all() -> Vec<Conversation> {
    vec![
        whole(),
        single_loss(),
        bursts(),
        reordering(),
        duplication(),
        rekeys(),
        spoofed_number(),
        spoofed_spi(),
        jitter(),
        silence(),
        one_way(),
        roam(),
    ]
}

fn whole() -> Conversation {
    let mut talk = Talk::begin("nothing wrong");
    talk.both(500);
    talk.end()
}

/// Every tenth up, every seventeenth down.
fn single_loss() -> Conversation {
    let mut talk = Talk::begin("single packets lost");
    talk.both(20);
    for frame in 1..=680 {
        talk.wait(VOICE);
        for (way, every) in [(Way::Up, 10), (Way::Down, 17)] {
            if frame % every == 0 {
                talk.lose(way, 1);
            } else {
                talk.voice(way);
            }
        }
    }
    talk.both(20);
    talk.end()
}

/// Up only: the other direction goes on, so that nobody is away.
fn bursts() -> Conversation {
    let mut talk = Talk::begin("bursts lost (2 to 500)");
    talk.both(100);
    for burst in [2, 5, 20, 62, 63, 64, 65, 66, 200, 500] {
        for _ in 0..burst {
            talk.wait(VOICE);
            talk.voice(Way::Down);
        }
        talk.lose(Way::Up, burst);
        talk.both(100);
    }
    talk.end()
}

/// Neighbours change places; some packets come 40 frames later.
fn reordering() -> Conversation {
    let mut talk = Talk::begin("packets late");
    talk.both(100);
    for _ in 0..30 {
        let (spi, first) = talk.number(Way::Up);
        talk.step();
        talk.esp(Way::Up, spi, first, VOICE_BYTES);
        talk.truth[0].late += 1;
        talk.both(9);
    }
    for _ in 0..5 {
        let (spi, first) = talk.number(Way::Down);
        talk.both(40);
        talk.esp(Way::Down, spi, first, VOICE_BYTES);
        talk.truth[1].late += 1;
        talk.both(80);
    }
    talk.end()
}

fn duplication() -> Conversation {
    let mut talk = Talk::begin("packets twice");
    talk.both(20);
    for frame in 0..500 {
        talk.step();
        for (way, every, behind) in [(Way::Up, 10, 0), (Way::Down, 25, 30)] {
            if frame % every == every - 1 {
                let number = talk.next[way as usize] - 1 - behind.min(frame);
                let spi = talk.spi[way as usize];
                talk.esp(way, spi, number, VOICE_BYTES);
                talk.truth[way as usize].duplicate += 1;
            }
        }
    }
    talk.end()
}

/// The last packets under the old SPI and the first under the new one mix.
fn rekeys() -> Conversation {
    let mut talk = Talk::begin("rekeys (4 each way)");
    talk.both(200);
    for _ in 0..4 {
        let id = talk.spi[0];
        let child = format!("marker / ike 400 spir=0xfeed exchange=36 next=46 id={id}");
        talk.ike(Way::Down, 4500, &format!("{child} flags=0"));
        talk.wait(Duration::from_millis(5));
        talk.ike(Way::Up, 4500, &format!("{child} flags=0x28"));
        for way in Way::BOTH {
            let old: Vec<_> = (0..3).map(|_| talk.number(way)).collect();
            talk.spi[way as usize] += 0x10;
            talk.next[way as usize] = 1;
            for (spi, number) in old {
                talk.wait(Duration::from_millis(4));
                talk.voice(way);
                talk.esp(way, spi, number, VOICE_BYTES);
            }
        }
        talk.both(200);
    }
    talk.end()
}

fn spoofed_number() -> Conversation {
    let mut talk = Talk::begin("forged numbers");
    for number in [5_000, 0x8000_0000, 4_000_000_000, 90_000] {
        talk.both(200);
        talk.esp(Way::Up, talk.spi[0], number, VOICE_BYTES);
        talk.truth[0].stray += 1;
    }
    talk.both(200);
    talk.end()
}

/// The one before the last SPI gives way to a forged one; that in use does not.
fn spoofed_spi() -> Conversation {
    let mut talk = Talk::begin("forged SPIs");
    for spi in [0xbad, 0xbad_0001, 0xbad_0002] {
        talk.both(200);
        talk.esp(Way::Up, spi, 77, VOICE_BYTES);
    }
    talk.both(200);
    talk.end()
}

/// The phone's frames come 5 ms early and late in turn.
fn jitter() -> Conversation {
    let mut talk = Talk::begin("jitter of 5 ms");
    talk.timed = true;
    for _ in 0..200 {
        talk.wait(Duration::from_millis(15));
        talk.voice(Way::Up);
        talk.wait(Duration::from_millis(5));
        talk.voice(Way::Down);
        talk.wait(Duration::from_millis(20));
        for way in Way::BOTH {
            talk.voice(way);
        }
    }
    talk.truth[0].jitter = 5_000;
    talk.end()
}

/// Comfort noise of both.
fn silence() -> Conversation {
    let mut talk = Talk::begin("comfort noise");
    talk.timed = true;
    talk.both(50);
    for _ in 0..30 {
        talk.wait(NOISE);
        for way in Way::BOTH {
            talk.noise(way);
            talk.truth[way as usize].pause += 1;
        }
    }
    talk.both(50);
    talk.end()
}

/// The network falls silent, and goes on where it was: nothing is lost.
fn one_way() -> Conversation {
    let mut talk = Talk::begin("one direction silent");
    talk.timed = true;
    talk.both(250);
    for _ in 0..400 {
        talk.wait(VOICE);
        talk.voice(Way::Up);
    }
    talk.both(100);
    talk.end()
}

/// The phone is elsewhere for 3 s, and its packets with it.
fn roam() -> Conversation {
    let mut talk = Talk::begin("away and back");
    talk.timed = true;
    for away in [40, 150] {
        talk.both(150);
        talk.wait(Duration::from_secs(3));
        for way in Way::BOTH {
            talk.next[way as usize] += away;
            talk.truth[way as usize].anchored += 1;
        }
    }
    talk.both(150);
    talk.end()
}
