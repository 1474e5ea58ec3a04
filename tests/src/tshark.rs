//! Captures by tshark, and its dissection of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::LIMIT;
use crate::netns::Netns;
use crate::process::{Process, output};

/// A running `tshark -w`.
pub struct Tshark {
    process: Process,
    file: PathBuf,
}

impl Tshark {
    /// Starts capturing on `device` of `namespace`, into `directory/name.pcapng`.
    /// Every packet from now on is seen.
    ///
    /// # Errors
    ///
    /// If tshark is missing or does not start.
    pub fn start(namespace: &Netns, device: &str, directory: &Path, name: &str) -> Result<Self> {
        let file = directory.join(format!("{name}.pcapng"));
        // One of an earlier attempt would look as if this one were ready.
        let _ = fs::remove_file(&file);
        let mut command = namespace.command("tshark");
        // A large buffer (MiB): a loaded machine may leave dumpcap waiting.
        command
            .args(["-q", "-n", "-B", "64", "-i", device, "-w"])
            .arg(&file);
        let mut process = Process::spawn(command, name, directory)?;
        process.wait_ready(LIMIT, || {
            // Its header is written once the capture is active.
            ensure!(fs::metadata(&file)?.len() > 0, "no capture file yet");
            Ok(())
        })?;
        Ok(Self { process, file })
    }

    /// Waits until the file has a packet with `last` in it, ends the capture, and
    /// gives the file.
    ///
    /// # Errors
    ///
    /// If that packet does not come, or packets were dropped.
    pub fn finish(mut self, last: &[u8]) -> Result<PathBuf> {
        let file = &self.file;
        self.process.wait_ready(LIMIT, || {
            let bytes = fs::read(file)?;
            let seen = bytes.windows(last.len()).any(|window| window == last);
            ensure!(seen, "the last packet is not in {} yet", file.display());
            Ok(())
        })?;
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait_exit(LIMIT)?;
        let log = self.process.log();
        ensure!(
            status.success() && !log.contains("dropped"),
            "tshark: {status}\n{log}"
        );
        Ok(self.file)
    }
}

/// A packet as tshark dissects it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The requested fields, in their order; an absent one is empty, and of one that
    /// occurs several times this is the first.
    pub fields: Vec<String>,
    /// From the IP header on, where Ethernet without a VLAN tag carries it.
    pub bytes: Vec<u8>,
}

/// The packets of `file` that pass the display `filter`, fragments not reassembled,
/// IPv4 header checksums checked.
///
/// # Errors
///
/// If tshark cannot read the file, or refuses the filter or a field.
pub fn packets(file: &Path, filter: &str, fields: &[&str]) -> Result<Vec<Packet>> {
    let read = |arguments: &[&str]| {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(file).args(["-n", "-Y", filter]);
        command.args(["-o", "ip.check_checksum:TRUE", "-o", "ip.defragment:FALSE"]);
        command.args(["-o", "tcp.desegment_tcp_streams:FALSE"]);
        output(command.args(arguments))
    };
    let mut wanted = vec!["-T", "fields", "-E", "occurrence=f"];
    for field in fields {
        wanted.extend(["-e", field]);
    }
    let rows = read(&wanted)?;
    let frames = read(&["-T", "json", "-x", "-j", "frame"])?;
    let frames: Vec<serde_json::Value> = serde_json::from_str(&frames)?;
    ensure!(
        rows.lines().count() == frames.len(),
        "tshark disagrees with itself"
    );
    rows.lines()
        .zip(&frames)
        .map(|(row, frame)| packet(row, frame))
        .collect()
}

fn packet(row: &str, frame: &serde_json::Value) -> Result<Packet> {
    const ETHERNET: usize = 14;
    let hex = frame
        .pointer("/_source/layers/frame_raw/0")
        .and_then(serde_json::Value::as_str)
        .context("tshark's JSON has no `frame_raw`")?;
    let frame: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<Result<_>>()?;
    Ok(Packet {
        fields: row.split('\t').map(str::to_owned).collect(),
        bytes: frame.get(ETHERNET..).context("a short frame")?.to_vec(),
    })
}
