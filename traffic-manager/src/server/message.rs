//! Reads a query from its bytes, in place: no copy, no allocation, whatever they are.

/// Bytes of a message's header.
pub(super) const HEADER_BYTES: usize = 12;
/// Longest name on the wire, the root label included (RFC 1035 section 3.1).
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Header bits of a response.
pub(super) const QR: u16 = 0x8000;
/// Authoritative answer.
pub(super) const AA: u16 = 0x0400;
/// Truncated.
pub(super) const TC: u16 = 0x0200;
/// Recursion desired.
pub(super) const RD: u16 = 0x0100;
/// Checking disabled; copied (RFC 4035 section 3.2.2).
pub(super) const CD: u16 = 0x0010;
/// Where the operation code stands.
pub(super) const OPCODE_MASK: u16 = 0x7800;

/// Reads forward through bytes; every read says whether they were there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Cursor<'m> {
    pub(super) const fn new(message: &'m [u8]) -> Self {
        Self { message, at: 0 }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let (bytes, _) = self.bytes(2)?.split_first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// A name without compression, as it stands on the wire.
    fn plain_name(&mut self) -> Option<&'m [u8]> {
        let from = self.at;
        loop {
            let length = usize::from(self.u8()?);
            if length > 63 || self.at - from + length > NAME_BYTES_MAX {
                return None;
            }
            if length == 0 {
                return self.message.get(from..self.at);
            }
            self.bytes(length)?;
        }
    }

    /// Steps over a name that may end in a pointer; says whether it is the root.
    fn skip_name(&mut self) -> Option<bool> {
        let from = self.at;
        loop {
            let length = self.u8()?;
            match length {
                0 => return Some(self.at - from == 1),
                1..=63 => {
                    self.bytes(usize::from(length))?;
                }
                0xc0..=0xff => {
                    self.u8()?;
                    return Some(false);
                }
                64..=0xbf => return None,
            }
            if self.at - from > NAME_BYTES_MAX {
                return None;
            }
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question<'q> {
    /// The whole question as it came: it goes back byte for byte, letter case included.
    pub(super) bytes: &'q [u8],
    /// Its name, uncompressed.
    pub(super) name: &'q [u8],
    /// The record type.
    pub(super) kind: u16,
    /// The class.
    pub(super) class: u16,
}

/// The OPT record of a query (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edns<'q> {
    /// Bytes of a UDP answer that the client takes.
    pub(super) payload: u16,
    /// Version of EDNS.
    pub(super) version: u8,
    /// Whether DNSSEC records are wanted.
    pub(super) dnssec_ok: bool,
    /// The options, not read yet.
    pub(super) options: &'q [u8],
}

/// A query as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Query<'q> {
    pub(super) id: u16,
    pub(super) flags: u16,
    /// How many questions the header announces.
    pub(super) question_count: u16,
    /// The first question.
    pub(super) question: Option<Question<'q>>,
    pub(super) edns: Option<Edns<'q>>,
    /// Something in it is not as a message has to be.
    pub(super) is_malformed: bool,
}

impl<'q> Query<'q> {
    /// Reads a message. `None` for what must not be answered: less than a header, or itself a response, which would
    /// make two servers answer each other for ever.
    pub(super) fn read(message: &'q [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(message);
        let (id, flags) = (cursor.u16()?, cursor.u16()?);
        let question_count = cursor.u16()?;
        let records = [cursor.u16()?, cursor.u16()?, cursor.u16()?];
        if flags & QR != 0 {
            return None;
        }
        let mut query = Self { id, flags, question_count, question: None, edns: None, is_malformed: false };
        query.is_malformed = query.read_sections(&mut cursor, records).is_none();
        Some(query)
    }

    /// The operation that is asked for.
    pub(super) const fn opcode(&self) -> u16 {
        (self.flags & OPCODE_MASK) >> 11
    }

    /// `None` when something does not read.
    fn read_sections(&mut self, cursor: &mut Cursor<'q>, records: [u16; 3]) -> Option<()> {
        for number in 0..self.question_count {
            let from = cursor.at;
            let name = cursor.plain_name()?;
            let (kind, class) = (cursor.u16()?, cursor.u16()?);
            let bytes = cursor.message.get(from..cursor.at)?;
            if number == 0 {
                self.question = Some(Question { bytes, name, kind, class });
            }
        }
        let [answers, authority, additional] = records;
        for _ in 0..u32::from(answers) + u32::from(authority) {
            read_record(cursor)?;
        }
        for _ in 0..additional {
            let record = read_record(cursor)?;
            if record.kind == kind::OPT {
                // One at most, at the root (RFC 6891 section 6.1.1).
                if !record.is_at_root || self.edns.is_some() {
                    return None;
                }
                self.edns = Some(record.edns());
            }
        }
        Some(())
    }
}

struct RawRecord<'q> {
    is_at_root: bool,
    kind: u16,
    class: u16,
    extended: [u8; 4],
    data: &'q [u8],
}

impl<'q> RawRecord<'q> {
    const fn edns(&self) -> Edns<'q> {
        let [_, version, flags, _] = self.extended;
        Edns { payload: self.class, version, dnssec_ok: flags & 0x80 != 0, options: self.data }
    }
}

fn read_record<'q>(cursor: &mut Cursor<'q>) -> Option<RawRecord<'q>> {
    let is_at_root = cursor.skip_name()?;
    let (kind, class) = (cursor.u16()?, cursor.u16()?);
    let (extended, _) = cursor.bytes(4)?.split_first_chunk()?;
    let length = cursor.u16()?;
    let data = cursor.bytes(usize::from(length))?;
    Some(RawRecord { is_at_root, kind, class, extended: *extended, data })
}

/// Record types by their numbers.
pub(super) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

/// The Internet class.
pub(super) const CLASS_IN: u16 = 1;

/// Response codes by their numbers.
pub(super) mod code {
    pub(crate) const NO_ERROR: u16 = 0;
    pub(crate) const FORM_ERR: u16 = 1;
    pub(crate) const NX_DOMAIN: u16 = 3;
    pub(crate) const NOT_IMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const BAD_VERS: u16 = 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        let text = text.replace(' ', "");
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// `t. A` with EDNS: 4096 bytes, DO, one option.
    fn sound() -> Vec<u8> {
        hex("1234 0110 0001 0000 0000 0001 0174 00 0001 0001 00 0029 1000 00 00 8000 0005 0064 0001 ff")
    }

    #[test]
    fn a_query_is_read_with_its_question_and_edns() {
        let message = sound();
        let query = Query::read(&message).unwrap();
        assert_eq!((query.id, query.opcode(), query.is_malformed), (0x1234, 0, false));
        let question = query.question.unwrap();
        assert_eq!((question.name, question.kind, question.class), ([1, b't', 0].as_slice(), 1, 1));
        assert_eq!(question.bytes.len(), 7);
        let edns = query.edns.unwrap();
        assert_eq!((edns.payload, edns.version, edns.dnssec_ok, edns.options.len()), (4096, 0, true, 5));
    }

    #[test]
    fn d_12_responses_and_less_than_a_header_are_no_queries() {
        let mut message = sound();
        for length in 0..HEADER_BYTES {
            assert_eq!(Query::read(&message[..length]), None);
        }
        message[2] |= 0x80;
        assert_eq!(Query::read(&message), None);
    }

    #[test]
    fn every_cut_message_is_malformed() {
        let message = sound();
        for length in HEADER_BYTES..message.len() {
            assert!(Query::read(&message[..length]).unwrap().is_malformed, "{length}");
        }
    }

    #[test]
    fn a_pointer_in_the_question_a_long_label_and_a_second_opt_are_malformed() {
        let pointer = hex("1234 0000 0001 0000 0000 0000 c00c 0001 0001");
        let label = hex("1234 0000 0001 0000 0000 0000 40 00 0001 0001");
        let two = [sound(), hex("00 0029 1000 00 00 0000 0000")].concat();
        let mut two_announced = two;
        two_announced[11] = 2;
        let elsewhere =
            hex("1234 0000 0001 0000 0000 0001 0174 00 0001 0001 0174 00 0029 1000 00 00 0000 0000");
        for message in [pointer, label, two_announced, elsewhere] {
            assert!(Query::read(&message).unwrap().is_malformed, "{message:02x?}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_bytes() {
        let name = |last: usize| {
            let mut name = vec![63; 1];
            name.extend([b'a'; 63]);
            let mut all = name.repeat(3);
            all.push(u8::try_from(last).unwrap());
            all.extend(vec![b'b'; last]);
            all.push(0);
            [hex("1234 0000 0001 0000 0000 0000"), all, hex("0001 0001")].concat()
        };
        assert!(!Query::read(&name(61)).unwrap().is_malformed);
        assert!(Query::read(&name(62)).unwrap().is_malformed);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            Query::read(&message);
        }
    }
}
