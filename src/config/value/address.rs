//! Addresses, hosts and networks.

use super::{ValueError, quoted};
use crate::config::endpoint::{
    AddressRole, Endpoint, Host, parse_host, parse_native, parse_stunnel,
};
use crate::config::key_shape::looks_like_key_line;
use crate::config::model::{Dialect, IpRange};

pub(super) fn address(
    text: &str,
    dialect: Dialect,
    role: AddressRole,
) -> Result<Endpoint, ValueError> {
    let read = match dialect {
        Dialect::Native => parse_native(text, role),
        Dialect::Stunnel => parse_stunnel(text, role),
    };
    read.map_err(|e| {
        let message =
            if looks_like_key_line(text) { "this is not an address".into() } else { e.to_string() };
        ValueError::new("bad-address", message, e.help())
    })
}

pub(super) fn host(text: &str) -> Result<Host, ValueError> {
    parse_host(text).map_err(|e| {
        let message =
            if looks_like_key_line(text) { "this is no address".into() } else { e.to_string() };
        ValueError::new("bad-address", message, "write an address of this machine, or its name")
    })
}

/// An address or a network. Bits behind the prefix are a slip: either is longer than was meant.
pub(super) fn range(text: &str) -> Result<IpRange, ValueError> {
    let help = "write an address or a network, such as 10.1.2.3, 10.1.0.0/16 or 2001:db8::/32";
    let bad = |message: String, help: &str| ValueError::new("bad-range", message, help);
    let text = text.trim();
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(IpRange::new(address.to_canonical().into()));
    }
    let network: ipnet::IpNet = text
        .parse()
        .map_err(|_| bad(format!("{} is neither an address nor a network", quoted(text)), help))?;
    if network.addr() != network.network() {
        let meant = format!("write {}, or {} alone", network.trunc(), network.addr());
        return Err(bad(format!("`{network}` has bits behind its prefix"), &meant));
    }
    Ok(IpRange::new(network))
}
