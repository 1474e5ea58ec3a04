//! `--watch`, and the lists that firewalls poll.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use wificall_tests::agent::{Agent, get};
use wificall_tests::dns::{Dns, EPDG};
use wificall_tests::lab::{EPDG4, EPDG6, LIMIT, Lab, ROUTER_DNS};
use wificall_tests::process::{Process, wait_for};

#[test]
fn a_change_in_dns_replaces_the_file_once() -> Result<()> {
    let lab = Lab::new()?;
    let mut dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4])])?;
    let configuration = format!(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"001-01\"]\nwiden = \"exact\"\n\
         resolvers = [\"{ROUTER_DNS}\"]\nrefresh_min = \"1s\"\ntimeout = \"500ms\"\n\
         [lab]\nadmit = [\"198.18.0.0/15\", \"2001:db8::/32\"]\n"
    );
    let mut agent = Agent::run(&lab.router, &configuration)?;
    wait_for("the first address", LIMIT, || {
        ensure!(
            get(&lab.router, "/list/v4")? == format!("{EPDG4}/32\n"),
            "not yet"
        );
        Ok(())
    })?;
    ensure!(get(&lab.router, "/list/v6")?.is_empty(), "no IPv6 yet");

    let directory = TempDir::new()?;
    let file = directory.path().join("list");
    let runs = directory.path().join("runs");
    fs::write(&file, "old\n")?;
    fs::set_permissions(&file, Permissions::from_mode(0o640))?;
    chown(&file, Some(1234), Some(5678))?;
    // What a link points to is replaced, and not the link.
    let link = directory.path().join("link");
    symlink("list", &link)?;
    let (name, exec) = (
        link.display().to_string(),
        format!("cat {} >> {}", file.display(), runs.display()),
    );
    let arguments = [
        "export",
        "plain",
        "--watch",
        "--interval",
        "1s",
        "--output",
        &name,
        "--exec",
        &exec,
    ];
    let mut watching = Process::spawn(agent.command(&arguments), "watch", directory.path())?;
    let list = || -> Result<(String, u64)> {
        let said = fs::read_to_string(&file)?;
        let nets = said.lines().filter(|line| !line.starts_with('#'));
        Ok((
            nets.collect::<Vec<_>>().join(" "),
            fs::metadata(&file)?.ino(),
        ))
    };
    let wait = |expected: &str| {
        // A query that meets the server's reload is lost, and asked again after a back-off.
        wait_for("the file", 3 * LIMIT, || {
            let (said, inode) = list()?;
            ensure!(said == expected, "{said}");
            Ok(inode)
        })
    };
    let first = wait(&format!("{EPDG4}/32"))?;
    // Another set is another file, a moment later, and not again.
    dns.set(&[(EPDG, &[EPDG4, EPDG6])])?;
    let second = wait(&format!("{EPDG4}/32 {EPDG6}/128"))?;
    ensure!(first != second, "written in place");
    sleep(Duration::from_secs(3));
    ensure!(list()?.1 == second, "written again for nothing");
    let there = fs::metadata(&file)?;
    ensure!(
        (there.mode() & 0o7777, there.uid(), there.gid()) == (0o640, 1234, 5678),
        "{there:?}"
    );
    let runs = fs::read_to_string(runs)?;
    let times = runs
        .lines()
        .filter(|line| line.starts_with("# time: "))
        .count();
    ensure!(times == 2, "run {times} times:\n{runs}");
    let left: Vec<_> = fs::read_dir(directory.path())?.collect::<Result<_, _>>()?;
    ensure!(left.len() == 4 && link.is_symlink(), "{left:?}");

    // Without an agent the file stays.
    let status = agent.ask(&["export", "plain", "--offline"])?;
    agent.stop()?;
    sleep(Duration::from_secs(2));
    ensure!(list()?.1 == second, "the file of an agent that is gone");
    watching.check_running()?;
    ensure!(
        watching.log().contains("no agent listens"),
        "{}",
        watching.log()
    );
    watching.signal(libc::SIGTERM)?;
    ensure!(watching.wait_exit(LIMIT)?.success(), "{}", watching.log());
    ensure!(status.contains("no agent was asked"), "{status}");
    agent.finish()
}
