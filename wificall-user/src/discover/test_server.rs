//! A DNS server in the test's process, with faults to order.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{
    Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode,
};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

/// What the server does when asked for a name and type.
#[derive(Clone)]
pub(super) enum Reply {
    /// These records; none is "no data".
    Records(Vec<Record>),
    /// This code and no records.
    Code(ResponseCode),
    /// Nothing.
    Silence,
    /// The records, after a while.
    After(Duration, Vec<Record>),
}

/// A query that arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) edns: bool,
}

#[derive(Default)]
struct State {
    replies: HashMap<(String, RecordType), Reply>,
    seen: Vec<Seen>,
}

/// Serves until dropped. A name nobody ordered does not exist; a type nobody ordered has no data.
pub(super) struct TestServer {
    pub(super) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    _server: Server<Handler>,
}

struct Handler(Arc<Mutex<State>>);

impl TestServer {
    /// Starts on a free port of 127.0.0.1, the same for UDP and TCP.
    pub(super) async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let mut server = Server::new(Handler(state.clone()));
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 64);
        Self {
            addr,
            state,
            _server: server,
        }
    }

    pub(super) fn reply(&self, name: &str, record_type: RecordType, reply: Reply) {
        let key = (format!("{name}."), record_type);
        self.state.lock().unwrap().replies.insert(key, reply);
    }

    /// Orders addresses of one family.
    pub(super) fn addresses(&self, name: &str, addresses: &[&str], ttl: u32) {
        let records: Vec<_> = addresses.iter().map(|a| address(name, a, ttl)).collect();
        let record_type = records[0].record_type();
        self.reply(name, record_type, Reply::Records(records));
    }

    /// The queries so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }
}

pub(super) fn address(name: &str, address: &str, ttl: u32) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(fqdn(name), ttl, data)
}

pub(super) fn cname(name: &str, target: &str, ttl: u32) -> Record {
    Record::from_rdata(fqdn(name), ttl, RData::CNAME(CNAME(fqdn(target))))
}

fn fqdn(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).unwrap()
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let query = request.request_info().unwrap().query.clone();
        let (name, record_type) = (query.name().to_string(), query.query_type());
        let reply = {
            let mut state = self.0.lock().unwrap();
            state.seen.push(Seen {
                at: Instant::now(),
                name: name.clone(),
                protocol: request.protocol(),
                edns: request.edns.is_some(),
            });
            let known = state.replies.keys().any(|(known, _)| *known == name);
            let absent = if known {
                Reply::Records(Vec::new())
            } else {
                Reply::Code(ResponseCode::NXDomain)
            };
            state
                .replies
                .get(&(name, record_type))
                .cloned()
                .unwrap_or(absent)
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let records = match reply {
            Reply::Records(records) => records,
            Reply::After(delay, records) => {
                tokio::time::sleep(delay).await;
                records
            }
            Reply::Code(code) => {
                metadata.response_code = code;
                Vec::new()
            }
            Reply::Silence => {
                return Header {
                    metadata: Metadata::new(0, MessageType::Response, OpCode::Query),
                    counts: HeaderCounts::default(),
                }
                .into();
            }
        };
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        builder.edns(&edns);
        let message = builder.build(metadata, &records, [], [], []);
        response.send_response(message).await.unwrap()
    }
}
