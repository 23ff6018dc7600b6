//! Messages of DNS, as a stub resolver asks and reads them. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::name::FlattenInto;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Aaaa, Cname};

/// The most aliases that are followed from a name to its addresses.
const ALIASES_MAX: usize = 16;
/// The most addresses of a name that are used.
pub const ADDRESSES_MAX: usize = 64;

type OwnName = Name<Vec<u8>>;

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    id: u16,
    name: OwnName,
    kind: Rtype,
}

/// What came in answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing that answers the question: another id, another name, no answer at all.
    NotOurs,
    /// The answer did not fit: ask again over TCP.
    Truncated,
    /// The name is not there.
    NoSuchName,
    /// The server cannot say.
    Failed(String),
    /// The addresses, perhaps none, and for how long they hold.
    Found(Vec<IpAddr>, Duration),
}

impl Query {
    /// A question for the addresses of a family. `None` if `name` is no name of DNS.
    pub fn new(id: u16, name: &str, v6: bool) -> Option<Query> {
        let name: OwnName = name.parse().ok()?;
        let kind = if v6 { Rtype::AAAA } else { Rtype::A };
        Some(Query { id, name, kind })
    }

    /// The message to send. Recursion is asked for.
    pub fn message(&self) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        let header = builder.header_mut();
        header.set_id(self.id);
        header.set_rd(true);
        let mut question = builder.question();
        // It fits: a name is 255 bytes at most, and the target grows.
        let _ = question.push((&self.name, self.kind, Class::IN));
        question.finish()
    }

    /// Reads a message that may be the answer.
    pub fn read(&self, bytes: &[u8]) -> Reply {
        let Ok(message) = Message::from_octets(bytes) else { return Reply::NotOurs };
        let header = message.header();
        if header.id() != self.id || !header.qr() || header.opcode() != Opcode::QUERY {
            return Reply::NotOurs;
        }
        let code = header.rcode();
        let definite = matches!(code, Rcode::NOERROR | Rcode::NXDOMAIN);
        match message.sole_question() {
            Ok(q) if q.qtype() == self.kind && q.qclass() == Class::IN && *q.qname() == self.name => {}
            // A server that cannot even read the question need not repeat it.
            _ if !definite && message.header_counts().qdcount() == 0 => {}
            _ => return Reply::NotOurs,
        }
        if header.tc() {
            return Reply::Truncated;
        }
        match code {
            Rcode::NOERROR => self.addresses(&message).unwrap_or_else(|| Reply::Failed("a malformed answer".into())),
            Rcode::NXDOMAIN => Reply::NoSuchName,
            code => Reply::Failed(format!("the answer {code}")),
        }
    }

    /// Follows the aliases of an answer to the addresses at their end. `None` if the message cannot be read.
    fn addresses(&self, message: &Message<&[u8]>) -> Option<Reply> {
        let mut aliases: HashMap<OwnName, (OwnName, u32)> = HashMap::new();
        let mut found: HashMap<OwnName, (Vec<IpAddr>, u32)> = HashMap::new();
        for record in message.answer().ok()? {
            let record = record.ok()?;
            if record.class() != Class::IN {
                continue;
            }
            let owner: OwnName = record.owner().try_flatten_into().ok()?;
            let ttl = record.ttl().as_secs();
            let ip = match record.rtype() {
                Rtype::CNAME => {
                    let to = record.to_record::<Cname<_>>().ok()??;
                    aliases.insert(owner, (to.data().cname().try_flatten_into().ok()?, ttl));
                    continue;
                }
                kind if kind != self.kind => continue,
                Rtype::A => IpAddr::V4(record.to_record::<A>().ok()??.data().addr()),
                _ => IpAddr::V6(record.to_record::<Aaaa>().ok()??.data().addr()),
            };
            let (addresses, lowest) = found.entry(owner).or_insert((Vec::new(), ttl));
            *lowest = ttl.min(*lowest);
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        let (mut name, mut lowest) = (&self.name, u32::MAX);
        for _ in 0..=ALIASES_MAX {
            if let Some((addresses, ttl)) = found.get(name) {
                let ttl = lowest.min(*ttl);
                return Some(Reply::Found(addresses.clone(), Duration::from_secs(ttl.into())));
            }
            match aliases.get(name) {
                Some((to, ttl)) => (name, lowest) = (to, lowest.min(*ttl)),
                None => return Some(Reply::Found(Vec::new(), Duration::ZERO)),
            }
        }
        Some(Reply::Failed("a chain of aliases without an end".into()))
    }
}

#[cfg(test)]
mod tests {
    use domain::base::Ttl;
    use proptest::prelude::*;

    use super::*;

    enum Data<'a> {
        To(&'a str),
        Ip(&'a str),
    }
    use Data::{Ip, To};

    fn reply(id: u16, code: Rcode, question: &str, records: &[(&str, u32, Data<'_>)]) -> Vec<u8> {
        let mut b = MessageBuilder::new_vec();
        b.header_mut().set_id(id);
        b.header_mut().set_qr(true);
        b.header_mut().set_rcode(code);
        let mut q = b.question();
        q.push((question.parse::<OwnName>().unwrap(), Rtype::A, Class::IN)).unwrap();
        let mut a = q.answer();
        for (owner, ttl, data) in records {
            let (owner, ttl) = (owner.parse::<OwnName>().unwrap(), Ttl::from_secs(*ttl));
            match data {
                To(name) => a.push((owner, ttl, Cname::new(name.parse::<OwnName>().unwrap()))).unwrap(),
                Ip(ip) => match ip.parse().unwrap() {
                    IpAddr::V4(ip) => a.push((owner, ttl, A::new(ip))).unwrap(),
                    IpAddr::V6(ip) => a.push((owner, ttl, Aaaa::new(ip))).unwrap(),
                },
            }
        }
        a.finish()
    }

    fn query() -> Query {
        Query::new(7, "h.example", false).unwrap()
    }

    fn found(ips: &[&str], ttl: u64) -> Reply {
        Reply::Found(ips.iter().map(|t| t.parse().unwrap()).collect(), Duration::from_secs(ttl))
    }

    #[test]
    fn a_question_reads_as_one() {
        let bytes = query().message();
        let message = Message::from_octets(&bytes[..]).unwrap();
        let q = message.sole_question().unwrap();
        assert_eq!((q.qtype(), q.qname().to_string().as_str()), (Rtype::A, "h.example"));
        assert!(message.header().rd() && !message.header().qr());
        // Its own message is no answer to it.
        assert_eq!(query().read(&bytes), Reply::NotOurs);
        for bad in ["a..b", &"x".repeat(64), &"x.".repeat(130)] {
            assert!(Query::new(7, bad, true).is_none(), "{bad}");
        }
    }

    #[test]
    fn answers() {
        let ok = Rcode::NOERROR;
        for (bytes, expected) in [
            (reply(7, ok, "h.example", &[("h.example", 30, Ip("10.0.0.1"))]), found(&["10.0.0.1"], 30)),
            (reply(7, ok, "H.EXAMPLE", &[("h.Example", 30, Ip("10.0.0.1"))]), found(&["10.0.0.1"], 30)),
            (
                reply(
                    7,
                    ok,
                    "h.example",
                    &[
                        ("h.example", 30, Ip("10.0.0.1")),
                        ("h.example", 9, Ip("10.0.0.2")),
                        ("h.example", 30, Ip("10.0.0.1")),
                        ("h.example", 30, Ip("::1")),
                        ("other.example", 1, Ip("10.0.0.3")),
                    ],
                ),
                found(&["10.0.0.1", "10.0.0.2"], 9),
            ),
            // Aliases in any order; the shortest life counts.
            (
                reply(
                    7,
                    ok,
                    "h.example",
                    &[
                        ("c.example", 50, Ip("10.0.0.1")),
                        ("b.example", 20, To("c.example")),
                        ("h.example", 40, To("b.example")),
                    ],
                ),
                found(&["10.0.0.1"], 20),
            ),
            (reply(7, ok, "h.example", &[("h.example", 40, To("b.example"))]), found(&[], 0)),
            (reply(7, ok, "h.example", &[]), found(&[], 0)),
            // Addresses of somebody who was not asked for.
            (reply(7, ok, "h.example", &[("evil.example", 30, Ip("10.0.0.1"))]), found(&[], 0)),
            (reply(8, ok, "h.example", &[("h.example", 30, Ip("10.0.0.1"))]), Reply::NotOurs),
            (reply(7, ok, "other.example", &[("h.example", 30, Ip("10.0.0.1"))]), Reply::NotOurs),
            (reply(7, Rcode::NXDOMAIN, "h.example", &[]), Reply::NoSuchName),
            (reply(8, Rcode::NXDOMAIN, "h.example", &[]), Reply::NotOurs),
            (Vec::new(), Reply::NotOurs),
            (b"\0\x07".to_vec(), Reply::NotOurs),
        ] {
            assert_eq!(query().read(&bytes), expected, "{bytes:?}");
        }
        let looped = [("h.example", 5, To("b.example")), ("b.example", 5, To("h.example"))];
        for (bytes, part) in [
            (reply(7, Rcode::SERVFAIL, "h.example", &[]), "SERVFAIL"),
            (reply(7, Rcode::REFUSED, "h.example", &[]), "REFUSED"),
            (reply(7, ok, "h.example", &looped), "without an end"),
        ] {
            assert!(matches!(query().read(&bytes), Reply::Failed(text) if text.contains(part)), "{part}");
        }
        let mut truncated = reply(7, ok, "h.example", &[("h.example", 30, Ip("10.0.0.1"))]);
        truncated[2] |= 2;
        assert_eq!(query().read(&truncated), Reply::Truncated);
    }

    proptest! {
        #[test]
        fn damaged_answers_never_panic(at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
                                       keep in any::<prop::sample::Index>()) {
            let mut bytes = reply(7, Rcode::NOERROR, "h.example", &[
                ("h.example", 40, To("b.example")),
                ("b.example", 30, Ip("10.0.0.1")),
            ]);
            for (i, b) in at {
                let i = i.index(bytes.len());
                bytes[i] = b;
            }
            bytes.truncate(keep.index(bytes.len() + 1));
            let _ = query().read(&bytes);
        }
    }
}
