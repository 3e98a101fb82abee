//! The last field of every frozen struct: tagged values that a later version may add.

use super::codec::{Decode, Encode};

/// Bit of a tag that says "refuse the message when you do not know this tag".
const CRITICAL_BIT: u16 = 0x8000;

/// Tagged extension values, in the order they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Ext(pub Vec<(u16, Vec<u8>)>);

impl Ext {
    /// No extensions.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The value of `tag`, if the sender set it.
    pub fn value(&self, tag: u16) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| *found == tag).map(|(_, value)| value.as_slice())
    }

    /// The first tag that is critical and not in `known`: the message must be refused.
    pub fn unknown_critical(&self, known: &[u16]) -> Option<u16> {
        self.0.iter().map(|(tag, _)| *tag).find(|tag| tag & CRITICAL_BIT != 0 && !known.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_critical_tags_refuse_a_message() {
        let ext = Ext(vec![(1, vec![9]), (0x8002, vec![])]);
        assert_eq!(ext.unknown_critical(&[]), Some(0x8002));
        assert_eq!(ext.unknown_critical(&[0x8002]), None);
        assert_eq!(ext.value(1), Some(&[9][..]));
        assert_eq!(Ext::none().unknown_critical(&[]), None);
    }
}
