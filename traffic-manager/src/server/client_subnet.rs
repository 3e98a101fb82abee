//! The client-subnet option of a query (RFC 7871), judged to the last bit: an address with more bytes or bits than its
//! prefix says is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decide::ClientSubnet;

/// The option is malformed: the answer is FORMERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the option's data.
pub(super) fn parse(option: &[u8]) -> Result<ClientSubnet, Malformed> {
    let [f0, f1, source_prefix, scope_prefix, given @ ..] = option else { return Err(Malformed) };
    let bytes = usize::from(*source_prefix).div_ceil(8);
    if *scope_prefix != 0 || given.len() != bytes {
        return Err(Malformed);
    }
    let address: IpAddr = match u16::from_be_bytes([*f0, *f1]) {
        1 => Ipv4Addr::from(padded::<4>(given)?).into(),
        2 => Ipv6Addr::from(padded::<16>(given)?).into(),
        _ => return Err(Malformed),
    };
    // Only the last byte given can hold bits past the prefix.
    let past = u32::from(*source_prefix % 8);
    let last = given.last().copied().unwrap_or(0);
    if past != 0 && last.wrapping_shl(past) != 0 {
        return Err(Malformed);
    }
    Ok(ClientSubnet { address, source_prefix: *source_prefix })
}

fn padded<const N: usize>(given: &[u8]) -> Result<[u8; N], Malformed> {
    let mut whole = [0; N];
    whole.get_mut(..given.len()).ok_or(Malformed)?.copy_from_slice(given);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn c_08_unknown_family_bad_length_and_bits_past_the_prefix_are_malformed() {
        for malformed in [
            "00051800cb0071",
            "00011800cb00",
            "00011800cb007105",
            "00011400cb00ff",
            "000121000000000000",
            "0001",
            "",
        ] {
            assert_eq!(parse(&hex(malformed)), Err(Malformed), "{malformed}");
        }
        assert_eq!(parse(&hex("00011810cb0071")), Err(Malformed), "a query has no scope");
    }

    #[test]
    fn a_sound_subnet_of_either_family_is_read() {
        let v4 = ClientSubnet { address: "203.0.112.0".parse().unwrap(), source_prefix: 20 };
        assert_eq!(parse(&hex("00011400cb0070")), Ok(v4));
        let v6 = ClientSubnet { address: "2001:db8:ff00::".parse().unwrap(), source_prefix: 40 };
        assert_eq!(parse(&hex("0002280020010db8ff")), Ok(v6));
        let hidden = ClientSubnet { address: "0.0.0.0".parse().unwrap(), source_prefix: 0 };
        assert_eq!(parse(&hex("00010000")), Ok(hidden));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            parse(&message).ok();
        }

        #[test]
        fn what_is_accepted_is_what_would_be_sent(address: [u8; 16], prefix in 0_u8..=140, v4: bool) {
            let bytes = usize::from(prefix).div_ceil(8).min(16);
            let option = [&[0, if v4 { 1 } else { 2 }, prefix, 0], &address[..bytes]].concat();
            let Ok(found) = parse(&option) else { return Ok(()) };
            let octets = match found.address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            proptest::prop_assert_eq!(&octets[..bytes], &address[..bytes]);
            proptest::prop_assert!(usize::from(found.source_prefix) <= octets.len() * 8);
        }
    }
}
