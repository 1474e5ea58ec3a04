//! The live page and `wificall top`, of an agent with real packets: the page in headless Chromium, the terminal in a pty.
//!
//! Screenshots are left in `target/page/`, to be looked at.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::{fd::FromRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wificall_tests::{
    agent::Agent,
    browser::Browser,
    lab::{EPDG4, LIMIT, Lab, PHONE4},
    process::wait_for,
    send,
};

const PAGE: &str = "http://127.0.0.1:9817/";
/// The same from the phones' network.
const BEYOND: &str = "10.77.0.1:9817";

fn configuration() -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
uplink = ["wan"]
[[prefix]]
prefix = "{EPDG4}/32"
operator = "001-01"
[lab]
admit = ["198.18.0.0/15"]
"#
    )
}

/// Voice frames both ways until told to end, 20 ms apart; each tenth down is not sent.
fn talk(lab: &Lab, over: &AtomicBool) -> Result<()> {
    const LENGTH: usize = 116;
    let phone = send::udp(&lab.phone, &format!("{PHONE4}:4500"))?;
    let epdg: UdpSocket = send::udp(&lab.far, &format!("{EPDG4}:4500"))?;
    let to_phone = send::address(PHONE4, 4500)?;
    let start = Instant::now();
    let mut number = 1;
    while !over.load(Ordering::Relaxed) {
        phone.send_to(&send::esp(number, LENGTH), (EPDG4, 4500))?;
        if number % 10 != 0 {
            epdg.send_to(&send::esp(number, LENGTH), to_phone)?;
        }
        number += 1;
        let due = start + Duration::from_millis(20) * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Runs `look` while a call goes on.
fn in_a_call(lab: &Lab, look: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let talking = scope.spawn(|| talk(lab, &over));
        let result = look();
        over.store(true, Ordering::Relaxed);
        talking.join().expect("the sender does not panic")?;
        result
    })
}

fn shots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/page")
}

/// What a screen reader must find, by role and the beginning of its name.
const ACCESSIBLE: [(&str, &str); 17] = [
    ("main", ""),
    ("banner", ""),
    ("contentinfo", ""),
    ("navigation", "Elsewhere on this agent"),
    ("status", ""),
    ("button", "Pause"),
    ("searchbox", "Show those with"),
    ("heading", "Health"),
    ("region", "My side"),
    ("region", "Network side"),
    ("region", "Carrier"),
    ("table", "Calls that go on"),
    ("table", "Tunnels"),
    ("columnheader", "Network → here"),
    ("rowheader", PHONE4),
    ("image", "Network → this box, by minute"),
    ("image", "last "),
];

/// Text whose contrast with its ground is below 4.5 (WCAG 2.2, 1.4.3), with the ratio.
const CONTRAST: &str = r#"(() => {
  const parts = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  let looked = 0;
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    looked += 1;
    const [a, b] = [luminance(parts(getComputedStyle(node).color)), luminance(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${node.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return { looked, bad };
})()"#;

/// What the page shows beside what the API says, once both are of one moment.
const SHOWN: &str = r#"(async () => {
  const get = async (path) => (await fetch(path, { cache: "no-store" })).json();
  const facts = (id) => Object.fromEntries([...document.querySelectorAll(`#${id} > div`)]
    .map((row) => [row.firstChild.textContent, row.lastChild.textContent]));
  const cells = (id) => Object.fromEntries([...document.querySelectorAll(`#${id} tbody tr:first-child > *`)]
    .map((cell, i) => [document.querySelectorAll(`#${id} thead th`)[i].textContent, cell.textContent]));
  return {
    sides: Object.fromEntries(["client", "network", "carrier"].map((side) => [side,
      document.querySelector(`#side-${side} ~ p:not(.hint) ~ p`).textContent])),
    now: facts("now"), health: facts("health"), call: cells("calls"), tunnel: cells("tunnels"),
    operator: cells("operators"), overview: await get("/api/v1/overview"), list: await get("/api/v1/tunnels"),
  };
})()"#;

/// Numbers as the page has them.
fn shown(value: &Value) -> String {
    let digits = value.as_u64().unwrap_or(0).to_string();
    let places = digits.len();
    let grouped = digits.chars().enumerate().map(|(place, digit)| {
        let comma = place > 0 && (places - place).is_multiple_of(3);
        format!("{}{digit}", if comma { "," } else { "" })
    });
    grouped.collect()
}

fn assert_equal_to_api(seen: &Value) -> Result<()> {
    let (overview, tunnel) = (&seen["overview"], &seen["list"]["tunnels"][0]);
    let call = &tunnel["calls"][0];
    let by = &overview["tunnels"];
    let up = by["up"].as_u64().unwrap_or(0) + by["call"].as_u64().unwrap_or(0);
    let failed = shown(&by["failed"]);
    let pairs = [
        ("now", "Calls", shown(&overview["calls_active"])),
        ("now", "Calls so far", shown(&overview["calls_total"])),
        ("now", "Tunnels up", up.to_string()),
        ("now", "Idle", shown(&by["idle"])),
        ("now", "Set-up failed", failed),
        (
            "call",
            "Phone",
            tunnel["client"].as_str().unwrap_or("?").to_owned(),
        ),
        (
            "call",
            "Heard",
            call["state"].as_str().unwrap_or("?").to_owned(),
        ),
        ("tunnel", "State", "in a call".to_owned()),
        (
            "operator",
            "Network",
            overview["operators"][0]["plmn"]
                .as_str()
                .unwrap_or("?")
                .to_owned(),
        ),
        (
            "operator",
            "Calls",
            shown(&overview["operators"][0]["calls"]),
        ),
        (
            "health",
            "Events lost",
            shown(&overview["health"]["events_dropped"]),
        ),
    ];
    for (part, name, api) in pairs {
        let page = seen[part][name].as_str().unwrap_or("?");
        ensure!(
            page == api,
            "{part}, {name}: the page has {page}, the API {api}\n{seen}"
        );
    }
    // A tenth is lost on the way from the network.
    let sides = &overview["sides"];
    ensure!(sides["client"]["trouble"] == "none", "{sides}");
    ensure!(sides["network"]["trouble"] == "bad", "{sides}");
    for side in ["client", "network", "carrier"] {
        let verdict = match sides[side]["trouble"].as_str() {
            Some("bad") => "‼ trouble",
            Some("some") => "! some trouble",
            Some("none") => "✓ nothing wrong seen",
            _ => "nothing seen to judge by",
        };
        let page = seen["sides"][side].as_str().unwrap_or("?");
        ensure!(
            page == verdict,
            "{side}: the page has {page}, the API {verdict}"
        );
    }
    // Loss goes on between the two: it is equal to what was so within a second or two.
    let page = seen["call"]["Network → here"].as_str().unwrap_or_default();
    let lost = page.split(['(', ')']).nth(1).context(page.to_owned())?;
    let lost: u64 = lost.replace(',', "").parse()?;
    let api = call["network_to_us"]["lost"].as_u64().context("no loss")?;
    ensure!(
        lost <= api && api - lost <= 15,
        "lost: {lost} on the page, {api} in the API"
    );
    let percent: f64 = page.split_whitespace().next().context("no loss")?.parse()?;
    ensure!(
        (9.0..=11.0).contains(&percent),
        "a tenth is not sent: {page}"
    );
    Ok(())
}

#[test]
fn the_page_shows_what_the_api_says_in_light_and_dark_and_on_a_phone() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::run(&lab.router, &configuration())?;
    agent.wait_hooks("lan", 2)?;
    let mut browser = Browser::start(&lab.router)?;
    browser.look(1280, 1200, "light")?;
    browser.open(PAGE)?;
    browser.wait(
        "Number(document.body?.dataset.asked) >= 1 && !document.getElementById('empty').hidden",
    )?;
    ensure!(
        browser.value("document.querySelector('#empty').innerText.includes('irplane mode on')")?
            == true
    );
    browser.screenshot(&shots().join("empty.png"))?;

    in_a_call(&lab, || {
        browser.wait("document.querySelectorAll('#calls tbody tr').length === 1")?;
        // Some seconds, for the lines to have some length.
        thread::sleep(Duration::from_secs(8));
        let mut last = Ok(());
        for _ in 0..10 {
            let seen = browser.value(SHOWN)?;
            last = assert_equal_to_api(&seen);
            if last.is_ok() {
                break;
            }
            // A second may end between the page and the API.
            thread::sleep(Duration::from_millis(300));
        }
        last?;
        let tree = browser.accessible()?;
        for (role, name) in ACCESSIBLE {
            let found = tree.iter().any(|(r, n)| r == role && n.starts_with(name));
            ensure!(found, "no {role} {name:?} in {tree:?}");
        }
        for (scheme, width, height) in [
            ("light", 1280, 1200),
            ("dark", 1280, 1200),
            ("light", 320, 2600),
            ("dark", 320, 2600),
        ] {
            browser.look(width, height, scheme)?;
            let wide = browser.value("document.documentElement.scrollWidth")?;
            ensure!(
                wide.as_u64() <= Some(width.into()),
                "{width} px: it is {wide} wide"
            );
            let contrast = browser.value(CONTRAST)?;
            ensure!(contrast["looked"].as_u64() > Some(40), "{contrast}");
            ensure!(
                contrast["bad"] == serde_json::json!([]),
                "{scheme}: {contrast}"
            );
            browser.screenshot(&shots().join(format!("{scheme}-{width}.png")))?;
        }
        // Laid out as blocks, it is still a table.
        let tree = browser.accessible()?;
        for role in ["table", "columnheader", "rowheader", "cell"] {
            ensure!(tree.iter().any(|(r, _)| r == role), "320 px: no {role}");
        }
        by_keyboard(&mut browser)
    })?;

    // The agent ends: what was known stays, and is said to be old.
    agent.kill()?;
    browser.wait("!document.getElementById('trouble').hidden")?;
    let said = browser.value("document.getElementById('trouble').innerText")?;
    let said = said.as_str().unwrap_or_default();
    assert!(
        said.contains("does not answer") && said.contains("What is below was so at"),
        "{said}"
    );
    browser.look(1280, 900, "light")?;
    browser.screenshot(&shots().join("gone.png"))?;
    agent.start()?;
    browser.wait("document.getElementById('trouble').hidden")?;
    browser.finish()?;
    agent.finish()
}

/// What `curl` would print of a path, with the status code; asked from the phone's side.
fn fetch(lab: &Lab, path: &str, header: &str) -> Result<(u16, String)> {
    let mut stream = lab.phone.enter(|| TcpStream::connect(BEYOND))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {BEYOND}\r\nConnection: close\r\n{header}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a torn answer")?;
    let status = head.split_whitespace().nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// Beyond loopback a phone is a hash, on the page and in the API, until somebody shows the token.
#[test]
fn beyond_loopback_phones_are_shown_with_the_token_only() -> Result<()> {
    const TOKEN: &str = "3f0c9a7b5d1e4f60812233445566778899aabbccddeeff";
    let lab = Lab::new()?;
    let mut agent = Agent::new(&lab.router, "")?;
    let file = agent.config_path().with_file_name("token");
    fs::write(&file, format!("{TOKEN}\n"))?;
    let file_mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode));
    agent.configure(&format!(
        "token_file = \"{}\"\n{}",
        file.display(),
        configuration()
    ))?;
    // The tests' agent listens on loopback.
    let text = fs::read_to_string(agent.config_path())?;
    let text = text.replace("listen = \"127.0.0.1:", "listen = \"0.0.0.0:");
    fs::write(agent.config_path(), &text)?;
    // A file that others can read is none: it is said, and nothing starts.
    file_mode(0o640)?;
    let checked = agent.ask(&["check"])?;
    ensure!(checked.contains("its mode is 640"), "{checked}");
    let refused = agent.call(&["run"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && words.contains("is not secret: its mode is 640"),
        "{words}"
    );
    ensure!(!words.contains(TOKEN), "{words}");
    file_mode(0o600)?;
    agent.start()?;
    agent.wait_hooks("lan", 2)?;
    let mut browser = Browser::start(&lab.phone)?;
    browser.look(1280, 1200, "light")?;
    browser.open(&format!("http://{BEYOND}/"))?;
    in_a_call(&lab, || {
        browser.wait("document.querySelectorAll('#calls tbody tr').length === 1")?;
        let phone = "document.querySelector('#tunnels tbody button').textContent";
        browser.wait(&format!("{phone}.startsWith('client-')"))?;
        let (status, body) = fetch(&lab, "/api/v1/tunnels", "")?;
        ensure!(status == 200 && !body.contains(PHONE4), "{status} {body}");
        let wrong = TOKEN.replace('f', "e");
        let (status, body) = fetch(
            &lab,
            "/api/v1/tunnels",
            &format!("Authorization: Bearer {wrong}\r\n"),
        )?;
        ensure!(
            status == 401 && !body.contains("client-"),
            "{status} {body}"
        );
        let (status, body) = fetch(
            &lab,
            "/api/v1/tunnels",
            &format!("Authorization: Bearer {TOKEN}\r\n"),
        )?;
        ensure!(status == 200 && body.contains(PHONE4), "{status} {body}");
        // By keyboard: a wrong one, and then the right one.
        for (token, shown) in [(&*wrong, false), (TOKEN, true)] {
            browser.value(&format!(
                "(() => {{ const field = document.getElementById('token'); field.focus(); field.value = '{token}'; }})()"
            ))?;
            browser.press("Enter")?;
            if shown {
                browser.wait(&format!("{phone} === '{PHONE4}'"))?;
            } else {
                let said = "document.getElementById('who-said').textContent";
                browser.wait(&format!("{said}.startsWith('That is not the token')"))?;
                ensure!(browser.value(&format!("{phone}.startsWith('client-')"))? == true);
                browser.screenshot(&shots().join("token.png"))?;
            }
        }
        let hidden = "document.getElementById('who-form').hidden";
        ensure!(
            browser.value(hidden)? == true,
            "there is nothing left to ask for"
        );
        browser.value("document.getElementById('who-forget').click()")?;
        browser.wait(&format!("{phone}.startsWith('client-')"))
    })?;
    browser.finish()?;
    ensure!(!agent.log().contains(TOKEN), "{}", agent.log());
    agent.finish()
}

/// A tunnel is opened with the keyboard alone, stays open and focused as the page goes on, and the page can be paused.
fn by_keyboard(browser: &mut Browser) -> Result<()> {
    const FOCUS: &str =
        "document.activeElement.closest('th') && document.activeElement.textContent";
    browser.value("document.getElementById('filter').focus()")?;
    browser.press("Tab")?;
    ensure!(
        browser.value(FOCUS)? == PHONE4,
        "Tab goes from the filter to the tunnel"
    );
    browser.press("Enter")?;
    browser.wait("document.activeElement.getAttribute('aria-expanded') === 'true'")?;
    browser.wait("[...document.querySelectorAll('tr.more dt')].some((dt) => dt.textContent === 'Last packet')")?;
    let asked = "Number(document.body.dataset.asked)";
    let before = browser.value(asked)?;
    browser.wait(&format!("{asked} > {before} + 1"))?;
    ensure!(browser.value(FOCUS)? == PHONE4, "the focus stays");
    browser.value("document.getElementById('pause').focus()")?;
    browser.press("Enter")?;
    browser.wait("document.getElementById('pause').getAttribute('aria-pressed') === 'true'")?;
    thread::sleep(Duration::from_millis(1_500));
    let before = browser.value(asked)?;
    thread::sleep(Duration::from_millis(2_500));
    ensure!(browser.value(asked)? == before, "paused, it asks no more");
    browser.press("Enter")?;
    browser.wait(&format!("{asked} > {before}"))
}

/// The two ends of a pseudo-terminal of 110 columns and 24 rows.
fn terminal() -> Result<(File, File)> {
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 110,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut ours, mut its) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: two descriptors are written, and owned by nobody else; the size is read; the rest may be null.
    unsafe {
        ensure!(
            libc::openpty(
                &raw mut ours,
                &raw mut its,
                none,
                none.cast(),
                &raw const size
            ) == 0,
            std::io::Error::last_os_error()
        );
        Ok((File::from_raw_fd(ours), File::from_raw_fd(its)))
    }
}

#[test]
fn top_shows_a_call_on_a_terminal_and_leaves_it_as_it_was() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::run(&lab.router, &configuration())?;
    agent.wait_hooks("lan", 2)?;
    // Without a terminal it says so.
    let refused = agent.call(&["top"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("wificall tunnels --json"),
        "{words}"
    );
    in_a_call(&lab, || {
        wait_for("a call", LIMIT, || {
            let tunnels = agent.ask(&["tunnels"])?;
            ensure!(tunnels.contains("call: talking"), "{tunnels}");
            Ok(())
        })?;
        let (mut ours, its) = terminal()?;
        let mut command = agent.command(&["top"]);
        command
            .stdin(Stdio::from(its.try_clone()?))
            .stdout(Stdio::from(its.try_clone()?))
            .stderr(Stdio::from(its))
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("NO_COLOR", "1");
        let mut child = command.spawn()?;
        drop(command);
        let mut reader = ours.try_clone()?;
        // The end of a pty is an error where its other side is closed.
        let reading = thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = reader.read(&mut some) {
                all.extend_from_slice(&some[..count]);
            }
            all
        });
        thread::sleep(Duration::from_secs(3));
        for keys in ["/001-01\r", "\r", "\x1b", "?", " ", "q"] {
            ours.write_all(keys.as_bytes())?;
            thread::sleep(Duration::from_millis(700));
        }
        let until = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                child.kill()?;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let screen = reading.join().expect("the reader does not panic");
        // To be replayed on a terminal of that size.
        fs::create_dir_all(shots())?;
        fs::write(shots().join("top.raw"), &screen)?;
        let screen = String::from_utf8_lossy(&screen).into_owned();
        ensure!(status.success(), "{status}\n{screen:?}");
        for text in ["CLIENT", PHONE4, "call", "MOS, estimate", "Keys"] {
            ensure!(screen.contains(text), "no {text:?} in {screen:?}");
        }
        // The alternate screen is left, the cursor is back, and no colour was used.
        ensure!(
            screen.contains("\x1b[?1049h") && screen.contains("\x1b[?1049l"),
            "{screen:?}"
        );
        let shown = screen.rfind("\x1b[?25h") > screen.rfind("\x1b[?25l");
        ensure!(shown, "{screen:?}");
        ensure!(
            !screen.contains("\x1b[38;5;1m") && !screen.contains("\x1b[31m"),
            "{screen:?}"
        );
        Ok(())
    })?;
    agent.finish()
}
