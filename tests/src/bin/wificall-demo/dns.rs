//! A DNS server in this process, inside a namespace: hickory, authoritative for the operators' zone.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::rdata::{NS, SOA};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::server::Server as Hickory;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::sync::oneshot;
use wificall_tests::netns::Netns;

use crate::scene::OPERATORS;

const ZONE: &str = "3gppnetwork.org.";
const SERIAL: u32 = 1;
const TTL: u32 = 60;

/// Answers until dropped.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers on UDP and TCP port 53 of `address` in `namespace`.
    ///
    /// # Errors
    ///
    /// If the port cannot be bound.
    pub fn start(namespace: &Netns, address: IpAddr) -> Result<Self> {
        let at = SocketAddr::new(address, 53);
        let (udp, tcp) = namespace
            .enter(|| Ok::<_, std::io::Error>((UdpSocket::bind(at)?, TcpListener::bind(at)?)))
            .with_context(|| format!("bind {at} in {}", namespace.name()))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let catalog = catalog()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (udp, tcp) = {
            let _inside = runtime.enter();
            (
                tokio::net::UdpSocket::from_std(udp)?,
                tokio::net::TcpListener::from_std(tcp)?,
            )
        };
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut server = Hickory::new(catalog);
                server.register_socket(udp);
                server.register_listener(tcp, Duration::from_secs(5), 64);
                // Resolved when the sender is dropped, too.
                let _ = stopped.await;
            });
        });
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported, and queries have gone without an answer.
            let _ = thread.join();
        }
    }
}

fn catalog() -> Result<Catalog> {
    let origin = Name::from_ascii(ZONE)?;
    let server = Name::from_ascii(format!("ns.{ZONE}"))?;
    let contact = Name::from_ascii(format!("hostmaster.{ZONE}"))?;
    let mut zone: InMemoryZoneHandler<TokioRuntimeProvider> =
        InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let ttl = i32::try_from(TTL)?;
    let soa = SOA::new(server.clone(), contact, SERIAL, ttl, ttl, ttl, TTL);
    let mut records = vec![
        Record::from_rdata(origin.clone(), TTL, RData::SOA(soa)),
        Record::from_rdata(origin.clone(), TTL, RData::NS(NS(server))),
    ];
    for operator in &OPERATORS {
        let name = Name::from_ascii(format!("{}.", operator.name))?;
        for address in operator.addresses {
            let data = match address.parse()? {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            records.push(Record::from_rdata(name.clone(), TTL, data));
        }
    }
    for record in records {
        let what = record.to_string();
        ensure!(zone.upsert_mut(record, SERIAL), "no zone takes `{what}`");
    }
    let mut catalog = Catalog::new();
    catalog.upsert(origin.into(), vec![Arc::new(zone)]);
    Ok(catalog)
}
