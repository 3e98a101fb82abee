//! The escape that ends a shell from this side, as in ssh: `~.` at the start of a line. `~~` sends one `~`, `~?` asks
//! for help.

/// What typed bytes mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Bytes for the Target.
    Send(Vec<u8>),
    /// The user asked what the escapes are.
    Help,
    /// The user ended the shell; nothing behind it counts.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Tilde,
    InLine,
}

/// Watches what is typed.
///
/// ```text
/// LineStart --~--> Tilde --.--> End
///     |              |--?--> Help, LineStart
///     |              |--~--> sends ~, InLine
///     |              '--x--> sends ~x, InLine
///     '----x----> InLine --newline--> LineStart
/// ```
#[derive(Debug)]
pub(super) struct EscapeWatch {
    state: State,
}

impl EscapeWatch {
    /// A terminal begins at the start of a line.
    pub(super) fn new() -> Self {
        Self { state: State::LineStart }
    }

    /// What `bytes` mean, in order.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut found = Vec::new();
        let mut send = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match (self.state, byte) {
                (State::LineStart, b'~') => {
                    self.state = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => {
                    flush(&mut send, &mut found);
                    found.push(Typed::End);
                    return found;
                }
                (State::Tilde, b'?') => {
                    flush(&mut send, &mut found);
                    found.push(Typed::Help);
                    self.state = State::LineStart;
                    continue;
                }
                (State::Tilde, b'~') => {}
                (State::Tilde, _) => send.push(b'~'),
                (State::LineStart | State::InLine, _) => {}
            }
            send.push(byte);
            self.state = if matches!(byte, b'\r' | b'\n') { State::LineStart } else { State::InLine };
        }
        flush(&mut send, &mut found);
        found
    }
}

fn flush(send: &mut Vec<u8>, found: &mut Vec<Typed>) {
    if !send.is_empty() {
        found.push(Typed::Send(std::mem::take(send)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(parts: &[&str]) -> Vec<Typed> {
        let mut watch = EscapeWatch::new();
        parts.iter().flat_map(|part| watch.typed(part.as_bytes())).collect()
    }

    fn sent(text: &str) -> Typed {
        Typed::Send(text.as_bytes().to_vec())
    }

    #[test]
    fn tilde_dot_ends_at_the_start_of_a_line_only() {
        assert_eq!(typed(&["~."]), [Typed::End]);
        assert_eq!(typed(&["ls\r~.x"]), [sent("ls\r"), Typed::End]);
        assert_eq!(typed(&["ls~."]), [sent("ls~.")]);
    }

    #[test]
    fn the_escape_may_be_typed_in_pieces() {
        assert_eq!(typed(&["a\r", "~", "."]), [sent("a\r"), Typed::End]);
    }

    #[test]
    fn a_doubled_tilde_sends_one() {
        assert_eq!(typed(&["~~."]), [sent("~.")]);
    }

    #[test]
    fn a_tilde_before_anything_else_is_sent_with_it() {
        assert_eq!(typed(&["~/bin\r"]), [sent("~/bin\r")]);
        assert_eq!(typed(&["~\r~."]), [sent("~\r"), Typed::End]);
    }

    #[test]
    fn help_is_not_sent() {
        assert_eq!(typed(&["~?ls"]), [Typed::Help, sent("ls")]);
    }
}
