//! Reads DER, as little as certificates and revocation lists need. Signatures and the rules of X.509 are webpki's;
//! this finds the fields that webpki does not show.

/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// SET.
pub(crate) const SET: u8 = 0x31;
/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub(crate) const OBJECT_ID: u8 = 0x06;
/// `UTCTime`.
const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`.
const GENERALIZED_TIME: u8 = 0x18;

/// The bytes are not the DER that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed DER at {0}")]
pub(crate) struct DerError(pub(crate) &'static str);

/// One element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    /// Identifier octet.
    pub(crate) tag: u8,
    /// Contents.
    pub(crate) value: &'a [u8],
    /// Identifier, length and contents.
    pub(crate) raw: &'a [u8],
}

/// The elements of some contents, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// The elements of `contents`.
    pub(crate) fn of(contents: &'a [u8]) -> Self {
        Self { rest: contents }
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next one; `what` names it in the error.
    pub(crate) fn next(&mut self, what: &'static str) -> Result<Element<'a>, DerError> {
        let whole = self.rest;
        let malformed = DerError(what);
        let (&[tag, first], body) = whole.split_first_chunk::<2>().ok_or(malformed)?;
        // A tag number above 30 takes further octets; X.509 has none.
        if tag & 0x1f == 0x1f {
            return Err(malformed);
        }
        let (length, body) = match first {
            0..=0x7f => (usize::from(first), body),
            0x81..=0x84 => {
                let octets = usize::from(first & 0x7f);
                let (length, body) = body.split_at_checked(octets).ok_or(malformed)?;
                (length.iter().fold(0_usize, |sum, octet| (sum << 8) | usize::from(*octet)), body)
            }
            _ => return Err(malformed),
        };
        let (value, rest) = body.split_at_checked(length).ok_or(malformed)?;
        let raw = whole.get(..whole.len() - rest.len()).ok_or(malformed)?;
        self.rest = rest;
        Ok(Element { tag, value, raw })
    }

    /// Takes the next one, which must have `tag`.
    pub(crate) fn expect(&mut self, tag: u8, what: &'static str) -> Result<Element<'a>, DerError> {
        let element = self.next(what)?;
        if element.tag == tag { Ok(element) } else { Err(DerError(what)) }
    }

    /// Takes the next one when it has `tag`.
    pub(crate) fn take_if(&mut self, tag: u8, what: &'static str) -> Result<Option<Element<'a>>, DerError> {
        if self.rest.first() == Some(&tag) { self.next(what).map(Some) } else { Ok(None) }
    }
}

/// Seconds since 1970 of a `UTCTime` or `GeneralizedTime`; 0 before.
pub(crate) fn unix_seconds(time: Element<'_>) -> Result<u64, DerError> {
    let malformed = DerError("time");
    let text = std::str::from_utf8(time.value).map_err(|_| malformed)?;
    let digits = text.strip_suffix('Z').ok_or(malformed)?;
    let expected = match time.tag {
        UTC_TIME => 12,
        GENERALIZED_TIME => 14,
        _ => return Err(malformed),
    };
    if digits.len() != expected || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed);
    }
    let (year, fields) = digits.split_at_checked(expected - 10).ok_or(malformed)?;
    let year: i64 = year.parse().map_err(|_| malformed)?;
    let year = match (time.tag, year) {
        (UTC_TIME, 0..50) => year + 2000,
        (UTC_TIME, _) => year + 1900,
        _ => year,
    };
    let field = |at: usize| fields.get(at..at + 2).and_then(|two| two.parse::<i64>().ok()).ok_or(malformed);
    let (month, day, hour, minute, second) = (field(0)?, field(2)?, field(4)?, field(6)?, field(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return Err(malformed);
    }
    let seconds = days_from_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Ok(u64::try_from(seconds).unwrap_or(0))
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, with years counted from March so that the leap day is
/// the last one.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(tag: u8, text: &str) -> Result<u64, DerError> {
        unix_seconds(Element { tag, value: text.as_bytes(), raw: &[] })
    }

    #[test]
    fn both_time_types_are_read() {
        assert_eq!(time(UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Ok(0), "1950");
        assert_eq!(time(GENERALIZED_TIME, "20240229120000Z"), Ok(1_709_208_000));
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Ok(253_402_300_799));
    }

    #[test]
    fn a_time_out_of_shape_is_refused() {
        for text in
            ["", "Z", "7001010000Z", "700101000000", "701301000000Z", "70+101000000Z", "700100000000Z"]
        {
            assert!(time(UTC_TIME, text).is_err(), "{text}");
        }
        assert!(time(INTEGER, "700101000000Z").is_err());
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_at_every_length() {
        let whole = [0x30, 0x82, 0x00, 0x03, 1, 2, 3];
        for length in 0..whole.len() {
            assert!(Elements::of(&whole[..length]).next("x").is_err(), "{length}");
        }
        let element = Elements::of(&whole).next("x").unwrap();
        assert_eq!((element.tag, element.value, element.raw), (SEQUENCE, &[1, 2, 3][..], &whole[..]));
    }

    #[test]
    fn indefinite_and_giant_lengths_are_refused() {
        for bytes in
            [&[0x30, 0x80, 0, 0][..], &[0x30, 0x85, 0, 0, 0, 0, 1, 7], &[0x30, 0x84, 255, 255, 255, 255]]
        {
            assert!(Elements::of(bytes).next("x").is_err());
        }
    }
}
