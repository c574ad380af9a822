//! Where a target is: an address, a network or a host name, always with a port.
//!
//! Promises: a [`Destination`] has one spelling. A network with bits behind its prefix, an IPv4
//! address written as IPv6, port 0 and a missing port are refused, each with the spelling meant.

use std::fmt;
use std::net::IpAddr;

/// One place of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// An address or a network.
    Net {
        /// The network's address; bits behind the prefix are 0.
        addr: IpAddr,
        /// Length of the prefix in bits; 32 or 128 for one address.
        prefix: u8,
        /// TCP port.
        port: u16,
    },
    /// A host name, resolved by the agent while it runs.
    Name {
        /// The name, in lower case.
        host: String,
        /// TCP port.
        port: u16,
    },
}

/// Longest host name, in bytes (RFC 1035, section 2.3.4).
const HOST_NAME_BYTES_MAX: usize = 253;

/// Longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const HOST_LABEL_BYTES_MAX: usize = 63;

impl Destination {
    /// Its port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Net { port, .. } | Self::Name { port, .. } => *port,
        }
    }

    /// Whether `wanted` lies in it. A name contains no address: what it resolves to is known only
    /// while the agent runs.
    pub fn contains(&self, wanted: IpAddr) -> bool {
        match self {
            Self::Net { addr, prefix, .. } => masked(wanted, *prefix) == Some(*addr),
            Self::Name { .. } => false,
        }
    }

    /// Reads `text`; the error is what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        let form = || {
            "write \"10.0.0.5:5432\", \"10.1.0.0/16:5432\", \"[fd00::1]:5432\" or \"db.example:5432\""
                .to_owned()
        };
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err((format!("destination \"{text}\" has no port"), form()));
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => return Err((format!("\"{port}\" is no TCP port"), form())),
        };
        if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return network(inner, port, true);
        }
        if host.contains(':') {
            return Err((
                format!("IPv6 address \"{host}\" stands without brackets"),
                format!("write \"[{host}]:{port}\""),
            ));
        }
        // A name of digits and dots alone would be a mistyped address, never a host.
        if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'/')
            || host.contains('/')
        {
            return network(host, port, false);
        }
        if is_host_name(host) {
            return Ok(Self::Name { host: host.to_ascii_lowercase(), port });
        }
        Err((format!("\"{host}\" is no address, network or host name"), form()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net { addr: IpAddr::V4(addr), prefix: 32, port } => write!(f, "{addr}:{port}"),
            Self::Net { addr: IpAddr::V4(addr), prefix, port } => {
                write!(f, "{addr}/{prefix}:{port}")
            }
            Self::Net { addr: IpAddr::V6(addr), prefix: 128, port } => write!(f, "[{addr}]:{port}"),
            Self::Net { addr: IpAddr::V6(addr), prefix, port } => {
                write!(f, "[{addr}/{prefix}]:{port}")
            }
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether `text` has the form of a host name (RFC 1123, section 2.1; the underscore is in use).
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= HOST_LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= HOST_NAME_BYTES_MAX && text.split('.').all(label)
}

/// Reads `address` or `address/prefix`.
fn network(text: &str, port: u16, brackets: bool) -> Result<Destination, (String, String)> {
    let (addr, prefix) = text.split_once('/').map_or((text, None), |(addr, p)| (addr, Some(p)));
    let Ok(addr) = addr.parse::<IpAddr>() else {
        return Err((
            format!("\"{addr}\" is no IP address"),
            "write four numbers up to 255, or an IPv6 address in brackets".to_owned(),
        ));
    };
    let bits = match addr {
        IpAddr::V4(_) if brackets => {
            return Err((
                format!("IPv4 address \"{text}\" stands in brackets"),
                format!("write \"{text}:{port}\""),
            ));
        }
        IpAddr::V4(_) => 32,
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return Err((
                    format!("\"{text}\" is an IPv4 address in IPv6 form"),
                    format!("write \"{v4}:{port}\"; both forms are caught"),
                ));
            }
            128
        }
    };
    let prefix = match prefix.map(str::parse::<u8>) {
        None => bits,
        Some(Ok(prefix)) if prefix <= bits => prefix,
        Some(_) => {
            return Err((
                format!("\"{text}\" has no prefix length between 0 and {bits}"),
                "write the prefix behind one slash, such as 10.1.0.0/16".to_owned(),
            ));
        }
    };
    match masked(addr, prefix) {
        Some(network) if network == addr => Ok(Destination::Net { addr, prefix, port }),
        network => Err((
            format!("\"{text}\" has address bits behind its prefix"),
            network.map_or_else(String::new, |network| {
                let meant = Destination::Net { addr: network, prefix, port };
                format!("write \"{meant}\" for the network")
            }),
        )),
    }
}

/// `addr` with the bits behind `prefix` cleared; `None` for a prefix longer than the address.
fn masked(addr: IpAddr, prefix: u8) -> Option<IpAddr> {
    Some(match addr {
        IpAddr::V4(addr) => {
            let shift = 32_u32.checked_sub(prefix.into())?;
            IpAddr::V4((addr.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into())
        }
        IpAddr::V6(addr) => {
            let shift = 128_u32.checked_sub(prefix.into())?;
            IpAddr::V6((addr.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Destination;

    #[test]
    fn a_destination_has_one_spelling() {
        for text in [
            "10.0.0.5:5432",
            "10.1.0.0/16:5432",
            "0.0.0.0/0:5432",
            "[fd00::1]:5432",
            "[fd00::/8]:5432",
            "db.example:5432",
            "db_1:6432",
        ] {
            let read = Destination::parse(text).map(|destination| destination.to_string());
            assert_eq!(read.as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_with_what_to_write() {
        for (text, what, todo) in [
            ("db.example", "destination \"db.example\" has no port", "write \"10.0.0.5:5432\""),
            ("10.0.0.5:0", "\"0\" is no TCP port", ""),
            ("10.0.0.5:70000", "\"70000\" is no TCP port", ""),
            ("10.0.0.256:5432", "\"10.0.0.256\" is no IP address", ""),
            ("10.0.0:5432", "\"10.0.0\" is no IP address", ""),
            ("10.1.2.3/16:5432", "\"10.1.2.3/16\" has address bits", "write \"10.1.0.0/16:5432\""),
            ("10.0.0.0/33:5432", "\"10.0.0.0/33\" has no prefix length between 0 and 32", ""),
            ("fd00::1:5432", "IPv6 address \"fd00::1\" stands without", "write \"[fd00::1]:5432\""),
            ("[10.0.0.5]:5432", "IPv4 address \"10.0.0.5\" stands in brackets", "write \"10.0.0.5"),
            ("[::ffff:10.0.0.5]:1", "\"::ffff:10.0.0.5\" is an IPv4 address", "write \"10.0.0.5:1"),
            ("-db:5432", "\"-db\" is no address, network or host name", ""),
            ("a b:5432", "\"a b\" is no address, network or host name", ""),
            (":5432", "\"\" is no IP address", ""),
        ] {
            let (got_what, got_todo) = Destination::parse(text).unwrap_err();
            assert!(got_what.starts_with(what), "{text}: {got_what}");
            assert!(got_todo.starts_with(todo), "{text}: {got_todo}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        for (network, addr, expected) in [
            ("10.1.0.0/16:1", "10.1.255.255", true),
            ("10.1.0.0/16:1", "10.2.0.0", false),
            ("0.0.0.0/0:1", "127.0.0.1", true),
            ("0.0.0.0/0:1", "::1", false),
            ("[::/0]:1", "::1", true),
            ("[fd00::1]:1", "fd00::1", true),
            ("[fd00::1]:1", "fd00::2", false),
            ("localhost:1", "127.0.0.1", false),
        ] {
            let network = Destination::parse(network).unwrap();
            assert_eq!(network.contains(addr.parse().unwrap()), expected, "{network} {addr}");
        }
    }
}
