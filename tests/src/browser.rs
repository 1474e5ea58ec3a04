//! Headless Chromium (Debian's `chromium`), driven by its DevTools protocol over two pipes
//! (`--remote-debugging-pipe`): no port, no client library.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::netns::Netns;
use crate::process::Process;

/// How long the browser may take for one answer. It is large, and the machine may be small.
const LIMIT: Duration = Duration::from_secs(60);
/// The descriptors that the browser reads from and writes to.
const READS: i32 = 3;
const WRITES: i32 = 4;

/// A browser with one page.
pub struct Browser {
    process: Process,
    directory: TempDir,
    to: File,
    from: BufReader<File>,
    session: String,
    serial: u64,
}

impl Browser {
    /// Starts one in `namespace`, with an empty page.
    ///
    /// # Errors
    ///
    /// With its log, if it is missing or does not answer.
    pub fn start(namespace: &Netns) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-browser-")?;
        let (its_end, to) = pipe()?;
        let (from, its_other) = pipe()?;
        let mut command = namespace.command("chromium");
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars"])
            // It asks its maker for nothing.
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--no-first-run", "--disable-sync", "--disable-extensions"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", directory.path().display()))
            .env("HOME", directory.path());
        let (reads, writes) = (its_end.as_raw_fd(), its_other.as_raw_fd());
        // SAFETY: the closure makes system calls only, on descriptors that are open until the child has run.
        unsafe {
            command.pre_exec(move || {
                // Out of the way of each other first; `dup2` leaves them open in the new program.
                let (r, w) = (
                    libc::fcntl(reads, libc::F_DUPFD, 10),
                    libc::fcntl(writes, libc::F_DUPFD, 10),
                );
                if r < 0 || w < 0 || libc::dup2(r, READS) < 0 || libc::dup2(w, WRITES) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let process = Process::spawn(command, "chromium", directory.path())?;
        drop((its_end, its_other));
        let mut browser = Self {
            process,
            directory,
            to: to.into(),
            from: BufReader::new(from.into()),
            session: String::new(),
            serial: 0,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = text(&session["sessionId"])?;
        browser.call("Page.enable", json!({}))?;
        browser.call("Accessibility.enable", json!({}))?;
        Ok(browser)
    }

    /// Calls a method of the protocol; its result.
    ///
    /// # Errors
    ///
    /// What the browser says, or with its log if it says nothing in time.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.serial += 1;
        let id = self.serial;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).context("write to Chromium")?;
        let until = Instant::now() + LIMIT;
        loop {
            self.wait_readable(until)
                .with_context(|| format!("{method}\n{}", self.process.log()))?;
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes)?;
            ensure!(
                bytes.pop() == Some(0),
                "Chromium has ended:\n{}",
                self.process.log()
            );
            let answer: Value = serde_json::from_slice(&bytes)?;
            if answer["id"] != id {
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(answer["result"].clone());
        }
    }

    fn wait_readable(&self, until: Instant) -> Result<()> {
        if !self.from.buffer().is_empty() {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let mut poll = libc::pollfd {
            fd: self.from.get_ref().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, of a descriptor that is open.
        let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left)?) };
        ensure!(ready > 0, "Chromium does not answer");
        Ok(())
    }

    /// Opens a page.
    ///
    /// # Errors
    ///
    /// If it cannot be reached.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({"url": url}))?;
        match opened.get("errorText") {
            None => Ok(()),
            Some(error) => Err(anyhow!("open {url}: {error}")),
        }
    }

    /// The value of an expression of JavaScript in the page; a promise is waited for.
    ///
    /// # Errors
    ///
    /// If it throws.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", parameters)?;
        if let Some(exception) = result.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(result["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    ///
    /// If it is not in time.
    pub fn wait(&mut self, expression: &str) -> Result<()> {
        let until = Instant::now() + LIMIT;
        while self.value(expression)? != true {
            ensure!(
                Instant::now() < until,
                "never true in the page: {expression}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Makes the window this large, in CSS pixels, and light or dark.
    ///
    /// # Errors
    ///
    /// What the browser says.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", scheme)?;
        Ok(())
    }

    /// Writes what the window shows to a file: PNG.
    ///
    /// # Errors
    ///
    /// What the browser says, or if the file cannot be written.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let bytes = base64(&text(&shot["data"])?)?;
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
    }

    /// Presses a key, as `Tab` or `Enter`.
    ///
    /// # Errors
    ///
    /// What the browser says.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => bail!("which code {key} has is not known here"),
        };
        let down = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", down)?;
        let up = json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up)?;
        Ok(())
    }

    /// The page as a screen reader gets it: role and name of all that is not ignored.
    ///
    /// # Errors
    ///
    /// What the browser says.
    pub fn accessible(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}))?;
        let nodes = tree["nodes"].as_array().context("no nodes")?.iter();
        Ok(nodes
            .filter(|node| node["ignored"] != true)
            .map(|node| {
                let part = |name: &str| node[name]["value"].as_str().unwrap_or_default().to_owned();
                (part("role"), part("name"))
            })
            .collect())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn finish(mut self) -> Result<()> {
        self.session.clear();
        // It may be gone before it has answered.
        let _ = self.call("Browser.close", json!({}));
        let ended = self.process.wait_exit(LIMIT);
        drop(self.directory);
        ended.map(drop)
    }
}

/// The reading and the writing end.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written, and owned by nobody else.
    unsafe {
        ensure!(
            libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0,
            io::Error::last_os_error()
        );
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("no text")?.to_owned())
}

/// Decodes base64 (RFC 4648 §4), as the protocol has pictures.
fn base64(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Ok(byte - b'A'),
        b'a'..=b'z' => Ok(byte - b'a' + 26),
        b'0'..=b'9' => Ok(byte - b'0' + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => Err(anyhow!("no base64: {byte}")),
    };
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        held = held << 6 | u32::from(digit(byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_as_the_standard_has_it() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64("/+8=").unwrap(), [0xff, 0xef]);
        assert!(base64("Zm9*").is_err());
    }
}
