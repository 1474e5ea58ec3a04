//! Exits on a real box: a network namespace.

use std::net::Ipv4Addr;

use super::*;
use crate::config;
use crate::net::namespace::{in_namespace, ip, run};
use crate::net::{Route, Sysctl};

const EXIT: &str = r#"
[[exit]]
name = "au"
gateways = ["192.168.1.2", "192.168.1.3"]
table = 1065
mark = "0x65/0xff"
"#;

fn config(exits: &str) -> Config {
    let source = format!(
        "{exits}\n[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"505-01\"]\n"
    );
    match config::parse(&source, "test.toml".as_ref()) {
        Ok(parsed) => parsed.config,
        Err(errors) => panic!("{errors}"),
    }
}

/// Runs `test` with no exits yet, on a box that is 192.168.1.1/24 on `lan`.
fn on_a_box<F: Future<Output = ()>>(test: impl FnOnce(Exits) -> F + Send) {
    in_namespace(|runtime| {
        ip("link add lan type veth peer name phone");
        ip("link set phone up");
        ip("address add 192.168.1.1/24 dev lan");
        ip("link set lan up");
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(test(Exits::load(directory.path().join("exits.json"))));
    });
}

async fn put(exits: &mut Exits, config: &Config, because: Because) {
    exits.configure(config).await.unwrap();
    exits.choose();
    exits.put_in_force(because).await.unwrap();
}

#[test]
fn root_a_refused_configuration_leaves_an_exit_on_its_second_gateway() {
    on_a_box(|mut exits| async move {
        let (with, without) = (config(EXIT), config(""));
        put(&mut exits, &with, Because::Moving).await;
        for _ in 0..3 {
            exits.hear(Some(Heard::Gateway {
                table: 1065,
                gateway: Ipv4Addr::new(192, 168, 1, 2).into(),
                answer: None,
            }));
        }
        assert!(exits.choose() && exits.steering().failed_over);
        let kept = exits.keep();
        put(&mut exits, &without, Because::Adding).await;
        exits.put_back(kept);
        put(&mut exits, &with, Because::Moving).await;
        assert!(exits.steering().failed_over, "the first is still dead");
        let routes = read_routes(&[1065].into()).await.unwrap();
        let second = net::Hop::Gateway {
            address: Ipv4Addr::new(192, 168, 1, 3).into(),
            ifindex: net::namespace::index("lan"),
        };
        assert!(
            routes.contains(&Route::own(Family::V4, 1065, second)),
            "{routes:?}"
        );
    });
}

#[test]
fn root_sysctls_are_set_back_after_the_last_packet_and_may_be_read_only() {
    on_a_box(|mut exits| async move {
        let with = config(&format!("{EXIT}manage_sysctls = true\n"));
        Sysctl::RpFilter.write("lan", 1).unwrap();
        let filter = || Sysctl::RpFilter.read("lan").unwrap();
        // SAFETY: unshare takes no pointers, and CLONE_NEWNS concerns the calling thread only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
        run("mount", "--make-rprivate /");
        run("mount", "--bind /proc/sys /proc/sys");
        run("mount", "-o remount,bind,ro /proc/sys");
        put(&mut exits, &with, Because::Adding).await;
        let problem = "set net.ipv4.conf.lan.rp_filter to 2: ";
        let says = |exits: &Exits| exits.problems().iter().any(|it| it.starts_with(problem));
        assert!(says(&exits), "{:?}", exits.problems());
        assert_eq!(filter(), Some(1));
        run("umount", "/proc/sys");
        put(&mut exits, &with, Because::Looking).await;
        assert!(!says(&exits), "{:?}", exits.problems());
        assert_eq!(filter(), Some(2));
        put(&mut exits, &config(""), Because::Adding).await;
        assert_eq!(filter(), Some(2), "tunnels still come back by the exit");
        put(&mut exits, &config(""), Because::Moving).await;
        assert_eq!(filter(), Some(1));
    });
}

#[test]
fn root_an_exit_that_no_epdg_can_be_asked_by_says_so() {
    on_a_box(|mut exits| async move {
        put(
            &mut exits,
            &config(&format!("{EXIT}health = \"ike\"\n")),
            Because::Moving,
        )
        .await;
        assert!(exits.asks_for_epdgs());
        let says = |exits: &Exits| {
            let mut problems = exits.problems().into_iter();
            problems.any(|it| it.starts_with("exit `au`: IKE is tried with nobody"))
        };
        exits.attempt(&BTreeMap::new());
        assert!(says(&exits), "{:?}", exits.problems());
        let epdg = Ipv4Addr::LOCALHOST.into();
        exits.attempt(&BTreeMap::from([((1065, Family::V4), epdg)]));
        assert!(!says(&exits), "{:?}", exits.problems());
        put(&mut exits, &config(""), Because::Moving).await;
        exits.attempt(&BTreeMap::new());
        assert!(!says(&exits), "{:?}", exits.problems());
    });
}
