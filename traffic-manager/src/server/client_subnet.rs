//! The client-subnet option of a query (RFC 7871), judged on its raw bytes: the DNS library lets set bits past the
//! prefix and surplus bytes pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_server::proto::rr::{Name, RecordType};
use hickory_server::proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

use crate::decide::ClientSubnet;

/// Option code.
const CLIENT_SUBNET: u16 = 8;
/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;

/// The option is malformed: the answer is FORMERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// The client subnet in a whole query; `None` when there is none.
pub(super) fn of_query(message: &[u8]) -> Result<Option<ClientSubnet>, Malformed> {
    let Some(options) = opt_options(message)? else { return Ok(None) };
    let mut rest = options.as_slice();
    while let [c0, c1, l0, l1, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (Some(option), Some(next)) = (behind.get(..length), behind.get(length..)) else {
            return Err(Malformed);
        };
        if u16::from_be_bytes([*c0, *c1]) == CLIENT_SUBNET {
            return parse(option).map(Some);
        }
        rest = next;
    }
    if rest.is_empty() { Ok(None) } else { Err(Malformed) }
}

/// The options of the message's OPT record.
fn opt_options(message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let Some((header, _)) = message.split_first_chunk::<HEADER_BYTES>() else { return Err(Malformed) };
    let [_, _, _, _, q0, q1, n0, n1, t0, t1, r0, r1] = *header;
    let count = |high, low| u32::from(u16::from_be_bytes([high, low]));
    let mut decoder = BinDecoder::new(message);
    decoder.read_slice(HEADER_BYTES)?;
    for _ in 0..count(q0, q1) {
        Name::read(&mut decoder)?;
        decoder.read_slice(4)?;
    }
    for _ in 0..count(n0, n1) + count(t0, t1) + count(r0, r1) {
        Name::read(&mut decoder)?;
        let kind = decoder.read_u16()?.unverified();
        decoder.read_slice(6)?;
        let length = usize::from(decoder.read_u16()?.unverified());
        let data = decoder.read_slice(length)?.unverified();
        if kind == u16::from(RecordType::OPT) {
            return Ok(Some(data.to_vec()));
        }
    }
    Ok(None)
}

fn parse(option: &[u8]) -> Result<ClientSubnet, Malformed> {
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
            of_query(&message).ok();
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

    #[test]
    fn the_option_is_found_behind_other_options_and_records() {
        let mut message = hex("123401000001000000000001 01700000010001".replace(' ', "").as_str());
        message.extend(hex("00002904d0000000000010"));
        message.extend(hex("00640001ff 00080007 00011800cb0071".replace(' ', "").as_str()));
        let found = of_query(&message).unwrap().unwrap();
        assert_eq!((found.address.to_string(), found.source_prefix), ("203.0.113.0".to_owned(), 24));
        for length in 0..message.len() {
            assert_eq!(of_query(&message[..length]), Err(Malformed), "{length}");
        }
    }
}
