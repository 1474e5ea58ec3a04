//! Captures by tshark, and its dissection of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::LIMIT;
use crate::netns::Netns;
use crate::process::{Process, output, wait_for};

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
        let sockets = || namespace.enter(|| fs::read_to_string("/proc/net/packet"));
        let before = sockets()?.lines().count();
        let mut command = namespace.command("tshark");
        // A large buffer (MiB): a loaded machine may leave dumpcap waiting.
        command
            .args(["-q", "-n", "-B", "64", "-i", device, "-w"])
            .arg(&file);
        let mut process = Process::spawn(command, name, directory)?;
        process.wait_ready(LIMIT, || {
            // The file's header is written after the capture has been activated.
            ensure!(sockets()?.lines().count() > before, "no packet socket yet");
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

/// The values of `fields` for every packet of `file` that passes the display
/// `filter` (empty: all), as tshark dissects them; an absent field is empty, and of
/// a field that occurs several times this is the first.
///
/// # Errors
///
/// If tshark refuses the filter or a field.
pub fn fields(file: &Path, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(file)
        .args(["-n", "-T", "fields", "-E", "occurrence=f"]);
    // IP options and reassembly would hide what is on the wire.
    command.args(["-o", "ip.check_checksum:TRUE", "-o", "ip.defragment:FALSE"]);
    if !filter.is_empty() {
        command.args(["-Y", filter]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let text = output(&mut command)?;
    Ok(text
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect())
}

/// Every IP packet of `file` as octets, from the IP header, that passes `filter`.
///
/// # Errors
///
/// If tshark cannot read the file, or prints something else.
pub fn packets(file: &Path, filter: &str) -> Result<Vec<Vec<u8>>> {
    const ETHERNET: usize = 14;
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-n", "-T", "json", "-x"]);
    command.args([
        "-o",
        "ip.defragment:FALSE",
        "-o",
        "tcp.desegment_tcp_streams:FALSE",
    ]);
    command.args(["-j", "frame", "-Y", filter]);
    let text = output(&mut command)?;
    let packets: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    packets
        .iter()
        .map(|packet| {
            let hex = packet
                .pointer("/_source/layers/frame_raw/0")
                .and_then(serde_json::Value::as_str)
                .context("tshark's JSON has no `frame_raw`")?;
            let frame = from_hex(hex)?;
            Ok(frame.get(ETHERNET..).context("a short frame")?.to_vec())
        })
        .collect()
}

fn from_hex(hex: &str) -> Result<Vec<u8>> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

/// Waits until `file` holds a packet that passes `filter`.
///
/// # Errors
///
/// If none comes within `limit`.
pub fn wait_for_packet(file: &Path, filter: &str, limit: Duration) -> Result<()> {
    wait_for(filter, limit, || {
        ensure!(
            !fields(file, filter, &["frame.number"])?.is_empty(),
            "no packet `{filter}` yet"
        );
        Ok(())
    })
}
