//! The live page and `wificall top`, of an agent with real packets: the page in headless Chromium, the terminal in a pty.
//!
//! Screenshots are left in `target/page/`, to be looked at.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use wificall::telemetry::view::Trouble;
use wificall_tests::{
    agent::Agent,
    browser::Browser,
    lab::{EPDG4, EPDG6, LIMIT, Lab, PHONE4, PHONE6},
    process::wait_for,
    send,
    terminal::Terminal,
};

#[path = "page/shown.rs"]
mod shown;

use shown::{LISTEN, SHOWN, Shown};

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

/// The name of an operator that would be more than a text, if it were taken for more.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">&lt;b&gt; O'Hara";

/// As above, and: a second operator with that name, an interface that is missing.
fn with_more(catalogue: &Path) -> String {
    let more = configuration()
        .replace("access = [\"lan\"]", "access = [\"lan\", \"lan7\"]")
        .replace("\"198.18.0.0/15\"", "\"198.18.0.0/15\", \"2001:db8::/32\"");
    format!(
        "{more}[[prefix]]\nprefix = \"{EPDG6}/128\"\noperator = \"262-01\"\n\
         [discovery]\ncatalogue = [\"{}\"]\n",
        catalogue.display()
    )
}

const FRAME: Duration = Duration::from_millis(20);
const LENGTH: usize = 116;

/// Voice frames both ways until told to end, 20 ms apart; each tenth down is not sent. Before, the tunnel is set up.
fn talk(lab: &Lab, over: &AtomicBool) -> Result<()> {
    let phone = send::udp(&lab.phone, &format!("{PHONE4}:4500"))?;
    let epdg: UdpSocket = send::udp(&lab.far, &format!("{EPDG4}:4500"))?;
    let to_phone = send::address(PHONE4, 4500)?;
    set_up(lab, &phone, &epdg)?;
    let start = Instant::now();
    let mut number = 1;
    while !over.load(Ordering::Relaxed) {
        phone.send_to(&send::esp(number, LENGTH), (EPDG4, 4500))?;
        if number % 10 != 0 {
            epdg.send_to(&send::esp(number, LENGTH), to_phone)?;
        }
        number += 1;
        let due = start + FRAME * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// What a phone and an ePDG with EAP-AKA say to each other, as far as it is not encrypted.
fn set_up(lab: &Lab, phone: &UdpSocket, epdg: &UdpSocket) -> Result<()> {
    const INIT: u8 = 34;
    const AUTH: u8 = 35;
    let message = |exchange: u8, response: bool, id: u8| {
        let mut message = send::ike_sa_init(200);
        (message[18], message[23]) = (exchange, id);
        if response || exchange == AUTH {
            message[8..16].fill(0x44);
        }
        if response {
            message[19] = 0x20;
        }
        message
    };
    let marked = |message: Vec<u8>| [&[0; 4], &*message].concat();
    let first = send::udp(&lab.phone, &format!("{PHONE4}:{}", send::IKE))?;
    let answers = send::udp(&lab.far, &format!("{EPDG4}:{}", send::IKE))?;
    first.send_to(&message(INIT, false, 0), (EPDG4, send::IKE))?;
    thread::sleep(FRAME);
    answers.send_to(&message(INIT, true, 0), (PHONE4, send::IKE))?;
    for id in 1..=3 {
        thread::sleep(FRAME);
        phone.send_to(&marked(message(AUTH, false, id)), (EPDG4, send::NATT))?;
        thread::sleep(FRAME);
        epdg.send_to(&marked(message(AUTH, true, id)), (PHONE4, send::NATT))?;
    }
    thread::sleep(FRAME);
    Ok(())
}

/// A call to the second operator: after a second nothing comes from the network any more.
fn talk_one_way(lab: &Lab, over: &AtomicBool) -> Result<()> {
    let phone = send::udp(&lab.phone, &format!("[{PHONE6}]:4500"))?;
    let epdg: UdpSocket = send::udp(&lab.far, &format!("[{EPDG6}]:4500"))?;
    let (to_phone, to_epdg) = (send::address(PHONE6, 4500)?, send::address(EPDG6, 4500)?);
    let start = Instant::now();
    let mut number = 1;
    while !over.load(Ordering::Relaxed) {
        phone.send_to(&send::esp(number, LENGTH), to_epdg)?;
        if number <= 50 {
            epdg.send_to(&send::esp(number, LENGTH), to_phone)?;
        }
        number += 1;
        let due = start + FRAME * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Runs `look` while a call goes on.
fn in_a_call(lab: &Lab, look: impl FnOnce() -> Result<()>) -> Result<()> {
    while_going_on(lab, &[talk], look)
}

type Call = fn(&Lab, &AtomicBool) -> Result<()>;

fn while_going_on(lab: &Lab, calls: &[Call], look: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    let over = &over;
    thread::scope(|scope| {
        let talking: Vec<_> = (calls.iter())
            .map(|call| scope.spawn(move || call(lab, over)))
            .collect();
        let result = look();
        over.store(true, Ordering::Relaxed);
        for one in talking {
            one.join().expect("the sender does not panic")?;
        }
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
const CONTRAST: &str = r##"(() => {
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
  const looked = { text: 0, before: 0, placeholder: 0 };
  const look = (what, node, text, style) => {
    looked[what] += 1;
    const [a, b] = [luminance(parts(style.color)), luminance(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5 || style.opacity !== "1") bad.push(`${what} ${text}: ${ratio.toFixed(2)}`);
  };
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility()) continue;
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (own) look("text", node, node.textContent.trim(), getComputedStyle(node));
    const before = getComputedStyle(node, "::before");
    if (!["none", "normal", ""].includes(before.content)) look("before", node, before.content, before);
    if (node.placeholder) look("placeholder", node, node.placeholder, getComputedStyle(node, "::placeholder"));
  }
  return { looked, bad };
})()"##;

/// What the page shows, and what it was answered when it last asked.
fn look_at(browser: &mut Browser) -> Result<Shown> {
    let pause = "document.getElementById('pause').click()";
    browser.value(pause)?;
    browser.wait("!asking")?;
    let seen = browser.value(SHOWN)?;
    browser.value(pause)?;
    serde_json::from_value(seen.clone()).with_context(|| seen.to_string())
}

/// Everything that is to be compared is there, and is what was sent.
fn assert_as_sent(shown: &Shown) -> Result<()> {
    let (overview, list) = (&shown.overview, &shown.list);
    ensure!(
        (list.total, list.found, list.tunnels.len()) == (2, 2, 2),
        "{list:?}"
    );
    ensure!(
        overview.calls_one_way == 1 && overview.calls_active == 2,
        "{overview:?}"
    );
    ensure!(overview.operators.len() == 2, "{:?}", overview.operators);
    let problems = &overview.health.problems;
    ensure!(
        problems.iter().any(|problem| problem.contains("lan7")),
        "{problems:?}"
    );
    let found = list.tunnels.iter().find(|tunnel| tunnel.client == PHONE4);
    let tunnel = found.context("the phone that talks both ways")?;
    let call = tunnel.calls.first().context("its call")?;
    let setup = tunnel.setup.as_ref().and_then(|setup| setup.took_ms);
    ensure!(setup.is_some() && tunnel.exit.is_some(), "{tunnel:?}");
    ensure!(
        tunnel.round_trip_network_ms.is_some() && call.mos.is_some(),
        "{tunnel:?}"
    );
    ensure!(call.client_to_us.jitter_ms.is_some(), "{call:?}");
    // A tenth is lost on the way from the network.
    let lost = call.network_to_us.loss_percent.context("no loss")?;
    ensure!((9.0..=11.0).contains(&lost), "a tenth is not sent: {lost}");
    let sides = &overview.sides;
    ensure!(sides.client.trouble == Trouble::None, "{sides:?}");
    ensure!(
        sides.network.trouble == Trouble::Bad && !sides.network.why.is_empty(),
        "{sides:?}"
    );
    ensure!(
        overview
            .minutes
            .iter()
            .any(|minute| minute.network_to_us.lost > 0),
        "{overview:?}"
    );
    Ok(())
}

#[test]
fn the_page_shows_what_the_api_says_in_light_and_dark_and_on_a_phone() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::new(&lab.router, "")?;
    let catalogue = agent.config_path().with_file_name("operators.tsv");
    fs::write(&catalogue, format!("operator\t262-01\tDE\t{HOSTILE}\n"))?;
    agent.configure(&with_more(&catalogue))?;
    agent.start()?;
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

    browser.value(LISTEN)?;
    while_going_on(&lab, &[talk, talk_one_way], || {
        browser.wait("document.querySelectorAll('#calls tbody tr').length === 2")?;
        browser.value("document.querySelectorAll('#tunnels tbody button').forEach((button) => button.click())")?;
        // What is shown is equal at any time; that all of it is there takes some seconds.
        wait_for("calls of which everything is known", LIMIT * 2, || {
            let shown = look_at(&mut browser)?;
            if let Err(differs) = shown.is_as_the_api_says() {
                panic!("{differs:#}\n{shown:#?}");
            }
            assert_as_sent(&shown)
        })?;
        names_are_text(&mut browser)?;
        focus_outlives_another_order(&mut browser)?;
        is_told_seldom(&mut browser)?;
        browser.value("document.querySelectorAll('#tunnels tbody button').forEach((button) => button.click())")?;
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
            let looked = &contrast["looked"];
            ensure!(looked["text"].as_u64() > Some(40), "{contrast}");
            ensure!(looked["placeholder"] == 1, "{contrast}");
            // The labels of cells, where a table is laid out as blocks.
            let labels = if width < 700 { 20 } else { 0 };
            ensure!(looked["before"].as_u64() > Some(labels), "{contrast}");
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
    asks_less_often_who_does_not_answer(&mut browser)?;
    agent.start()?;
    browser.wait("document.getElementById('trouble').hidden")?;
    // A browser that lets sites keep nothing shows the page all the same.
    let blocked = "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError'); } })";
    let on_open = serde_json::json!({ "source": blocked });
    browser.call("Page.addScriptToEvaluateOnNewDocument", on_open)?;
    browser.open(PAGE)?;
    browser.wait("document.getElementById('agent')?.textContent.startsWith('runs for')")?;
    let keeps = "(() => { keep('abc'); const had = token; keep(''); return had; })()";
    ensure!(
        browser.value(keeps)? == "abc",
        "a token is known until the page is left"
    );
    browser.finish()?;
    agent.finish()
}

/// What others choose is no part of the page.
fn names_are_text(browser: &mut Browser) -> Result<()> {
    let shown = browser.value(
        "[...document.querySelectorAll('#calls td, #tunnels td, #operators th')].map((cell) => cell.textContent)",
    )?;
    let shown = shown.as_array().context("no cells")?;
    let times = shown.iter().filter(|text| *text == HOSTILE).count();
    ensure!(times == 3, "{times} times in {shown:?}");
    ensure!(browser.value("document.querySelectorAll('img, main b').length")? == 0);
    ensure!(browser.value("document.title")? == "wificall");
    Ok(())
}

/// Whoever is at a button stays there when rows change places, also in a browser that cannot move what has the focus.
fn focus_outlives_another_order(browser: &mut Browser) -> Result<()> {
    const TRY: &str = r##"(() => {
      const order = last.found.tunnels;
      const [first, second] = [order, [...order].reverse()];
      const buttons = () => [...document.querySelectorAll("#tunnels tbody button")];
      const results = [];
      for (const old of [false, true]) {
        tunnels.body.moveBefore = old ? undefined : Element.prototype.moveBefore;
        for (const place of [0, 1]) {
          tunnels.show(first, (tunnel) => tunnel.id, "");
          const button = buttons()[place];
          button.focus();
          tunnels.show(second, (tunnel) => tunnel.id, "");
          const moved = buttons()[1 - place] === button;
          results.push([old, place, moved, document.activeElement === button]);
        }
      }
      delete tunnels.body.moveBefore;
      return results;
    })()"##;
    let results = browser.value(TRY)?;
    let all = results.as_array().context("no results")?;
    ensure!(all.len() == 4, "{results}");
    for one in all {
        ensure!(one[2] == true, "they did not change places: {results}");
        ensure!(
            one[3] == true,
            "old browser, place, moved, focused: {results}"
        );
    }
    Ok(())
}

/// What is said to screen readers changes every ten seconds at most, and then to what is so.
fn is_told_seldom(browser: &mut Browser) -> Result<()> {
    const TRY: &str = r##"(() => {
      const said = () => document.getElementById("said").textContent;
      const calls = (number) => tell({ calls_active: number });
      toldAt = performance.now() - 10001;
      calls(41);
      const first = said();
      calls(42);
      const soon = said();
      toldAt = performance.now() - 9000;
      calls(43);
      const late = said();
      toldAt = performance.now() - 10001;
      calls(44);
      return [first, soon, late, said()];
    })()"##;
    let said = browser.value(TRY)?;
    let expected = serde_json::json!(["41 calls", "41 calls", "41 calls", "44 calls"]);
    ensure!(said == expected, "{said}");
    Ok(())
}

/// In milliseconds until it is asked again.
fn asks_less_often_who_does_not_answer(browser: &mut Browser) -> Result<()> {
    const TRY: &str = r##"(() => {
      const kept = [unanswered, took];
      const after = (count, ms) => { [unanswered, took] = [count, ms]; return pace(); };
      const paces = [after(0, 20), after(0, 400), after(0, 60000), after(1, 0), after(3, 0), after(100, 0)];
      [unanswered, took] = kept;
      return [kept[0] > 0, ...paces];
    })()"##;
    let paces = browser.value(TRY)?;
    let expected = serde_json::json!([true, 1_000, 4_000, 10_000, 1_000, 4_000, 10_000]);
    ensure!(paces == expected, "{paces}");
    Ok(())
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
    let first = browser.value("document.querySelector('#tunnels tbody button').textContent")?;
    ensure!(
        browser.value(FOCUS)? == first && first != "",
        "Tab goes from the filter to the first tunnel"
    );
    browser.press("Enter")?;
    browser.wait("document.activeElement.getAttribute('aria-expanded') === 'true'")?;
    browser.wait("[...document.querySelectorAll('tr.more dt')].some((dt) => dt.textContent === 'Last packet')")?;
    let asked = "Number(document.body.dataset.asked)";
    let before = browser.value(asked)?;
    browser.wait(&format!("{asked} > {before} + 1"))?;
    ensure!(browser.value(FOCUS)? == first, "the focus stays");
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
        let mut terminal = Terminal::new(110, 24)?;
        let before = terminal.settings()?;
        let mut command = agent.command(&["top"]);
        command
            .stdin(terminal.side()?)
            .stdout(terminal.side()?)
            .stderr(terminal.side()?)
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("NO_COLOR", "1");
        let mut child = command.spawn()?;
        drop(command);
        terminal.leave();
        let used = use_top(&mut terminal);
        if used.is_err() {
            child.kill()?;
        }
        let status = wait_for("top to end", LIMIT, || child.try_wait()?.context("it runs"))?;
        let after = terminal.settings()?;
        let screen = terminal.written();
        // To be replayed on a terminal of that size.
        fs::create_dir_all(shots())?;
        fs::write(shots().join("top.raw"), &screen)?;
        let screen = String::from_utf8_lossy(&screen).into_owned();
        used.with_context(|| terminal.text())?;
        ensure!(status.success(), "{status}\n{screen:?}");
        ensure!(after == before, "{after:?}, not as it was: {before:?}");
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

/// Goes through its keys, each when what the one before does is to be seen.
fn use_top(terminal: &mut Terminal) -> Result<()> {
    let sees = |terminal: &Terminal, what: &str, is: &dyn Fn(&str) -> bool| {
        wait_for(what, LIMIT, || {
            let text = terminal.text();
            ensure!(is(&text), "{text}");
            Ok(())
        })
    };
    let has = |words: &'static [&'static str]| {
        move |text: &str| words.iter().all(|word| text.contains(word))
    };
    let row = |text: &str| {
        text.lines()
            .any(|line| line.starts_with(&format!("> {PHONE4}")))
    };
    sees(terminal, "the list", &|text: &str| {
        row(text) && has(&["CLIENT", "~MOS", "s: by activity", "calls 1  tunnels up 1"])(text)
    })?;
    ensure!(!terminal.settings()?.is_canonical(), "keys come one by one");
    // A filter that nothing has, one that the tunnel has, and none.
    terminal.type_in("/nobody\r")?;
    sees(terminal, "no row", &|text: &str| {
        !row(text) && text.contains("No tunnel has \"nobody\"")
    })?;
    terminal.type_in("\x1b")?;
    sees(terminal, "no filter", &|text: &str| {
        row(text) && text.contains("/: filter")
    })?;
    terminal.type_in("/001-01\r")?;
    sees(terminal, "the filter", &|text: &str| {
        row(text) && text.contains("filter \"001-01\" (Esc clears)")
    })?;
    terminal.type_in("s")?;
    sees(terminal, "another order", &has(&["s: by loss"]))?;
    terminal.type_in("r")?;
    sees(terminal, "the other way round", &|text: &str| {
        row(text) && text.contains("s: by loss reversed")
    })?;
    terminal.type_in("\r")?;
    sees(terminal, "the detail", &has(&["exit taken", "Esc: back"]))?;
    terminal.type_in("G")?;
    sees(
        terminal,
        "its end",
        &has(&["~MOS", "Call for", "from network"]),
    )?;
    terminal.type_in("?")?;
    sees(terminal, "the help", &has(&["Keys", "PgUp, PgDn"]))?;
    terminal.type_in("G")?;
    sees(terminal, "its end", &|text: &str| {
        !text.contains("Keys") && text.contains("be seen here.")
    })?;
    terminal.type_in(" ")?;
    sees(terminal, "the list again", &row)?;
    terminal.type_in("q")
}
