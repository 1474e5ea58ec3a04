//! DNS servers in the test's process, with faults to order: one that is hickory's, over UDP, TCP,
//! TLS and HTTPS; and one that sends whatever bytes it is told to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::op::{
    Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode,
};
use hickory_resolver::proto::rr::rdata::{CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

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
    /// No such name, says a zone whose SOA has this minimum.
    NxDomain(u32),
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
        Self::serve(|server, listener| {
            server.register_listener(listener, Duration::from_secs(5), 64);
        })
        .await
    }

    /// Starts with TLS instead of TCP.
    pub(super) async fn start_tls(identity: &Identity) -> Self {
        let config = identity.config(b"dot");
        Self::serve(|server, listener| {
            server
                .register_tls_listener_with_tls_config(listener, Duration::from_secs(5), config)
                .unwrap();
        })
        .await
    }

    /// Starts with HTTPS instead of TCP.
    pub(super) async fn start_https(identity: &Identity, path: &str) -> Self {
        let (config, path) = (identity.config(b"h2"), path.to_owned());
        Self::serve(|server, listener| {
            let limit = Duration::from_secs(5);
            server
                .register_https_listener_with_tls_config(listener, limit, config, None, path)
                .unwrap();
        })
        .await
    }

    async fn serve(listen: impl FnOnce(&mut Server<Handler>, TcpListener)) -> Self {
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
        listen(&mut server, tcp);
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

pub(super) fn fqdn(name: &str) -> Name {
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
        let mut soa = Vec::new();
        let records = match reply {
            Reply::Records(records) => records,
            Reply::NxDomain(minimum) => {
                metadata.response_code = ResponseCode::NXDomain;
                let zone = Name::root();
                let data = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, minimum);
                soa.push(Record::from_rdata(zone, 86_400, RData::SOA(data)));
                Vec::new()
            }
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
        let message = builder.build(metadata, &records, [], &soa, []);
        response.send_response(message).await.unwrap()
    }
}

/// An authority of the test's own, in a file that `ca_file` can name.
pub(super) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(super) file: PathBuf,
    _directory: TempDir,
}

/// A certificate and its key.
pub(super) struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: another authority is another issuer.
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, certificate.pem()).unwrap();
        Self {
            params,
            key,
            file,
            _directory: directory,
        }
    }

    /// A certificate for these names and addresses.
    pub(super) fn sign(&self, names: &[&str], change: fn(&mut CertificateParams)) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Identity { certificate, key }
    }
}

impl Identity {
    fn config(&self, protocol: &[u8]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

/// Answers each query with messages of the test's making, over UDP and TCP. Of several, the later
/// come from the same socket a little after.
pub(super) struct Liar {
    pub(super) addr: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A message, and whether another socket sends it.
pub(super) type Sent = (Vec<u8>, bool);

impl Liar {
    pub(super) async fn start(answers: fn(&Message) -> Vec<Sent>) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let datagrams = tokio::spawn(async move {
            let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                for (answer, elsewhere) in answers(&Message::from_vec(&buffer[..length]).unwrap()) {
                    let socket = if elsewhere { &other } else { &udp };
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let streams = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut buffer = vec![0; length.into()];
                    stream.read_exact(&mut buffer).await.unwrap();
                    for (answer, _) in answers(&Message::from_vec(&buffer).unwrap()) {
                        stream.write_u16(answer.len() as u16).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                }
            }
        });
        Self {
            addr,
            tasks: [datagrams, streams],
        }
    }
}
