//! `wificall explain`

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use wificall_common::{
    abi::FragmentKey,
    classify::{fragment_key, network},
    wire,
};

use super::{Failure, Outcome, print, print_json};
use crate::capture;
use crate::cli::Explain;
use crate::config::{self, Config};
use crate::control::explain_offline;
use crate::control::socket::{Answer, AskError, Question, ask};
use crate::explanation::{Explanation, FRAME_MAX, Flow, Hex, Packet};
use crate::export::set::Text;

/// First fragments of a capture that are remembered.
const FIRSTS_MAX: usize = 1024;

pub(super) async fn run(arguments: Explain) -> Result<Outcome, Failure> {
    let config = match &arguments.instance {
        Some(_) => None,
        None => Some(config::load(&arguments.config)?.config),
    };
    let (packet, note) = packet(&arguments)?;
    let mut explanation = explained(&arguments, config, packet).await?;
    explanation.notes.extend(note);
    if arguments.json {
        print_json(&explanation)?;
    } else {
        print(&explanation.text())?;
    }
    Ok(Outcome::Done)
}

async fn explained(
    arguments: &Explain,
    config: Option<Config>,
    packet: Packet,
) -> anyhow::Result<Explanation> {
    let socket = match (config, &arguments.instance) {
        (Some(config), _) if arguments.offline => return explain_offline(config, &packet).await,
        (Some(config), _) => config.agent.control_socket(),
        (None, Some(agent)) => agent.control_socket(),
        (None, None) => return Err(anyhow!("neither a configuration nor an instance is named")),
    };
    match ask(&socket, Question::Explain(Box::new(packet))).await {
        Ok(Answer::Explanation(explanation)) => Ok(*explanation),
        Ok(answer) => Err(anyhow!("the agent answered something else: {answer:?}")),
        Err(error @ AskError::NoAgent(_)) => Err(anyhow!(
            "{error}; or explain it by what it left, with --offline"
        )),
        Err(error) => Err(error.into()),
    }
}

/// The packet that is meant, and what is to be said about its reading.
fn packet(arguments: &Explain) -> anyhow::Result<(Packet, Option<String>)> {
    let mut packet = Packet {
        frame: Text(Hex(Vec::new())),
        link: arguments.link,
        direction: arguments.direction,
        interface: arguments.interface.clone(),
        client_mac: arguments.client_mac.map(Text),
        first_fragment: arguments.first_fragment.clone().map(Text),
    };
    if let (Some(file), Some(number)) = (&arguments.pcap, arguments.frame) {
        let note = take_captured(file, number, &mut packet)
            .with_context(|| format!("read {}", file.display()))?;
        return Ok((packet, note));
    }
    let words = &arguments.packet;
    let is_flow = words.len() > 1 && words[0].parse::<IpAddr>().is_ok();
    let frame = if is_flow {
        let frame = Flow::parse(words)?.frame(arguments.class);
        // Made with an Ethernet header, wherever it is seen.
        packet.link = Some(crate::explanation::LinkName::Ethernet);
        Hex(frame)
    } else {
        words.join(" ").parse().map_err(|problem: String| {
            anyhow!(
                "read the packet: {problem}\n  hint: a frame in hex, or SOURCE DESTINATION PROTOCOL, and of udp and tcp \
                 SOURCE-PORT DESTINATION-PORT"
            )
        })?
    };
    packet.frame = Text(frame);
    Ok((packet, None))
}

/// Takes a frame out of a capture, and the first fragment before it of which it is a later one.
fn take_captured(file: &Path, number: u64, packet: &mut Packet) -> anyhow::Result<Option<String>> {
    let mut firsts: VecDeque<(FragmentKey, Vec<u8>)> = VecDeque::new();
    let mut count = 0;
    for frame in capture::open(file)? {
        let frame = frame?;
        count = frame.number;
        let read = frame.packet();
        if frame.number < number {
            if let Some(read) = read
                && let Some((key, true)) = fragment(&read)
            {
                if firsts.len() == FIRSTS_MAX {
                    firsts.pop_front();
                }
                firsts.push_back((key, read.bytes.into_owned()));
            }
            continue;
        }
        let Some(read) = read else {
            return Err(anyhow!(
                "frame {number} is of {}\n  hint: Ethernet, raw IP and Linux cooked captures can be read",
                frame.link
            ));
        };
        if read.bytes.len() > FRAME_MAX {
            return Err(anyhow!(
                "frame {number} has {} bytes, at most {FRAME_MAX} can be explained",
                read.bytes.len()
            ));
        }
        if packet.first_fragment.is_none()
            && let Some((key, false)) = fragment(&read)
        {
            let mut firsts = firsts.into_iter().rev();
            let first = firsts.find(|(known, _)| *known == key);
            packet.first_fragment = first.map(|(_, bytes)| Text(Hex(bytes)));
        }
        let note = (read.missing > 0).then(|| {
            format!(
                "the capture has {} of {} bytes of the frame: the rest is taken for zeros",
                frame.bytes.len(),
                frame.len
            )
        });
        packet.link = Some(read.link.into());
        packet.frame = Text(Hex(read.bytes.into_owned()));
        return Ok(note);
    }
    Err(anyhow!(
        "there is no frame {number}: the capture has {count}"
    ))
}

/// The datagram that a fragment is of, and whether it is the first; `None` for what is whole.
fn fragment(packet: &capture::Packet) -> Option<(FragmentKey, bool)> {
    let bytes = &packet.bytes[..];
    let header = network(bytes, packet.link).ok()?;
    let first = match header.fragment {
        wire::Fragment::Whole => return None,
        wire::Fragment::First => true,
        wire::Fragment::Later => false,
    };
    Some((fragment_key(bytes, &header)?, first))
}
