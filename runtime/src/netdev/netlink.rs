//! rtnetlink(7), as far as moving a device takes it.
//!
//! Requests are short and made of numbers and one name whose length is checked;
//! answers are read through slices that cannot reach beyond what arrived.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const HEADER: usize = 16;
/// `struct ifinfomsg`.
const LINK: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS: usize = 8;
/// More than the kernel puts into one datagram of a dump.
const BUFFER: usize = 64 << 10;

const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// Flags that a configured address may have: nodad, noprefixroute, mcautojoin.
const IFA_F_KEPT: u32 = 0x02 | 0x200 | 0x400;

/// A connection to the kernel's network configuration in one namespace.
#[derive(Debug)]
pub(super) struct Route {
    socket: OwnedFd,
    sequence: u32,
}

/// A network device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: i32,
    pub(super) name: String,
    pub(super) up: bool,
}

/// A permanent address of global scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Local address, peer's address, broadcast address.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Route {
    /// A connection to the calling thread's namespace, in which it stays.
    pub(super) fn open() -> nix::Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All devices.
    pub(super) fn links(&mut self) -> nix::Result<Vec<Link>> {
        let mut links = Vec::new();
        let dump = libc::NLM_F_DUMP as u16;
        self.ask(libc::RTM_GETLINK, dump, &[0; LINK], &mut |message| links.extend(link(message)))?;
        Ok(links)
    }

    /// The permanent global addresses of a device.
    pub(super) fn addresses(&mut self, index: i32) -> nix::Result<Vec<Address>> {
        let mut all = Vec::new();
        let dump = libc::NLM_F_DUMP as u16;
        self.ask(libc::RTM_GETADDR, dump, &[0; ADDRESS], &mut |message| {
            all.extend(address(message, index));
        })?;
        Ok(all)
    }

    /// Moves a device into another namespace, and names it there.
    pub(super) fn move_to(
        &mut self,
        index: i32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> nix::Result<()> {
        let mut body = link_header(index, 0);
        let fd = namespace.as_raw_fd().unsigned_abs();
        attribute(&mut body, libc::IFLA_NET_NS_FD, &fd.to_ne_bytes())?;
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        attribute(&mut body, libc::IFLA_IFNAME, &text)?;
        self.change(libc::RTM_NEWLINK, 0, &body)
    }

    /// Brings a device up.
    pub(super) fn set_up(&mut self, index: i32) -> nix::Result<()> {
        self.change(libc::RTM_NEWLINK, 0, &link_header(index, libc::IFF_UP as u32))
    }

    /// Gives a device an address; one that it has already is no error.
    pub(super) fn add_address(&mut self, index: i32, address: &Address) -> nix::Result<()> {
        let mut body = vec![address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            attribute(&mut body, *kind, value)?;
        }
        attribute(&mut body, IFA_FLAGS, &(address.flags & IFA_F_KEPT).to_ne_bytes())?;
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        self.change(libc::RTM_NEWADDR, flags, &body)
    }

    fn change(&mut self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        self.ask(kind, flags | libc::NLM_F_ACK as u16, body, &mut |_| {})
    }

    /// Sends a request and gives each message of the answer to `each`.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]),
    ) -> nix::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        request.extend_from_slice(&self.sequence.to_ne_bytes());
        request.extend_from_slice(&[0; 4]);
        request.extend_from_slice(body);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
            while !rest.is_empty() {
                let (message, tail) = cut(rest, 4, &u32_at(rest, 0)?)?;
                rest = tail;
                if u32_at(message, 8)? == self.sequence && finished(message, each)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a message ends the answer; `each` gets those that are part of it.
fn finished(message: &[u8], each: &mut dyn FnMut(&[u8])) -> nix::Result<bool> {
    match i32::from(u16_at(message, 4)?) {
        libc::NLMSG_DONE => Ok(true),
        libc::NLMSG_ERROR => match u32_at(message, HEADER)?.cast_signed() {
            0 => Ok(true),
            errno => Err(Errno::from_raw(errno.wrapping_neg())),
        },
        libc::NLMSG_NOOP => Ok(false),
        _ => {
            each(message);
            Ok(false)
        }
    }
}

/// Cuts off the first `length` bytes; what follows is aligned to `align`.
fn cut<'b>(bytes: &'b [u8], align: usize, length: &u32) -> nix::Result<(&'b [u8], &'b [u8])> {
    let length = *length as usize;
    if length < align {
        return Err(Errno::EBADMSG);
    }
    let part = bytes.get(..length).ok_or(Errno::EBADMSG)?;
    let next = length.next_multiple_of(align).min(bytes.len());
    Ok((part, bytes.get(next..).unwrap_or_default()))
}

fn u16_at(bytes: &[u8], at: usize) -> nix::Result<u16> {
    let two = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    two.map(u16::from_ne_bytes).ok_or(Errno::EBADMSG)
}

fn u32_at(bytes: &[u8], at: usize) -> nix::Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_ne_bytes).ok_or(Errno::EBADMSG)
}

/// The attributes behind the fixed part of a message.
fn attributes(message: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(HEADER + fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from(u16_at(rest, 0).ok()?);
        let kind = u16_at(rest, 2).ok()?;
        let (one, tail) = cut(rest, 4, &length).ok()?;
        rest = tail;
        Some((kind, one.get(4..)?))
    })
}

fn link(message: &[u8]) -> Option<Link> {
    let index = u32_at(message, HEADER + 4).ok()?.cast_signed();
    let flags = u32_at(message, HEADER + 8).ok()?;
    let (_, name) = attributes(message, LINK).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    let name = String::from_utf8_lossy(name).into_owned();
    Some(Link { index, name, up: flags & libc::IFF_UP as u32 != 0 })
}

fn address(message: &[u8], index: i32) -> Option<Address> {
    let [family, prefix, flags, scope] = *message.get(HEADER..HEADER + 4)?.first_chunk()?;
    if u32_at(message, HEADER + 4).ok()?.cast_signed() != index || scope != libc::RT_SCOPE_UNIVERSE
    {
        return None;
    }
    let mut address = Address { family, prefix, flags: u32::from(flags), attributes: Vec::new() };
    for (kind, value) in attributes(message, ADDRESS) {
        match kind {
            // The whole of them; the header has room for eight.
            IFA_FLAGS => address.flags = u32_at(value, 0).ok()?,
            libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST => {
                address.attributes.push((kind, value.to_vec()));
            }
            _ => {}
        }
    }
    (address.flags & IFA_F_PERMANENT != 0).then_some(address)
}

fn link_header(index: i32, up: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    // The flags, and which of them are changed.
    body.extend_from_slice(&up.to_ne_bytes());
    body.extend_from_slice(&up.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> nix::Result<()> {
    let length = u16::try_from(4 + value.len()).map_err(|_| Errno::EMSGSIZE)?;
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
    Ok(())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.attributes.iter().find(|(kind, _)| *kind == libc::IFA_LOCAL);
        let bytes = local.or_else(|| self.attributes.first()).map(|(_, value)| value.as_slice());
        let bytes = bytes.unwrap_or_default();
        let ip = <[u8; 4]>::try_from(bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
        match ip {
            Ok(ip) => write!(f, "{ip}/{}", self.prefix),
            Err(_) => write!(f, "of family {}", self.family),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_link_is_read_with_its_padding() {
        let mut body = link_header(7, 1);
        attribute(&mut body, 1, &[1, 2, 3]).unwrap();
        attribute(&mut body, libc::IFLA_IFNAME, b"eth0\0").unwrap();
        let want = Link { index: 7, name: "eth0".to_owned(), up: true };
        assert_eq!(link(&message(libc::RTM_NEWLINK, &body)), Some(want));
    }

    /// Red if addresses of other devices or scopes, or those that come and go, are taken along.
    #[test]
    fn only_permanent_global_addresses_of_the_device_count() {
        let made = |index: i32, scope: u8, flags: u32| {
            let mut body = vec![2, 24, 0, scope];
            body.extend_from_slice(&index.to_ne_bytes());
            attribute(&mut body, libc::IFA_LOCAL, &[10, 0, 0, 1]).unwrap();
            attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes()).unwrap();
            address(&message(libc::RTM_NEWADDR, &body), 7)
        };
        assert_eq!(made(7, 0, IFA_F_PERMANENT).unwrap().to_string(), "10.0.0.1/24");
        assert_eq!(made(8, 0, IFA_F_PERMANENT), None);
        assert_eq!(made(7, 253, IFA_F_PERMANENT), None);
        assert_eq!(made(7, 0, 0), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_fail_otherwise_than_by_saying_so(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = link(&bytes);
            let _ = address(&bytes, 0);
            let _ = finished(&bytes, &mut |_| {});
            prop_assert!(attributes(&bytes, LINK).count() <= bytes.len());
        }
    }
}
