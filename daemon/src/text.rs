//! Text that came from elsewhere, made safe to show.

use std::borrow::Cow;

/// Replaces what could move a terminal's cursor, start an escape sequence or reorder the line by `\u{..}` (`\n`, `\r`
/// and `\t` by their usual names).
///
/// Text without such characters is returned as it is.
pub fn escape_controls(text: &str) -> Cow<'_, str> {
    escape_except(text, &[])
}

/// As [`escape_controls`], but leaves the characters in `kept` alone.
pub(crate) fn escape_except<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let unsafe_here = |c: char| is_unsafe(c) && !kept.contains(&c);
    if !text.chars().any(unsafe_here) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if unsafe_here(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Replaces the same characters in the text of a JSON value, where they can only stand inside strings, by JSON's own
/// escapes.
pub(crate) fn escape_json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            // All of them are below U+10000.
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters of both sets, line and paragraph separators, and the marks that change writing direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_shown_as_escapes() {
        assert_eq!(escape_controls("a\u{1b}[2Jb\r\n\u{202e}c\u{9b}"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c\\u{9b}");
    }

    #[test]
    fn ordinary_text_in_any_script_is_untouched() {
        let text = "plain, naïve, हिन्दी, 日本";
        assert!(matches!(escape_controls(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn escaped_json_reads_back_to_the_same_text() {
        let text = "a\u{202e}b\u{9b}c\u{7f}\u{feff}";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escape_json(&json);
        assert!(escaped.is_ascii(), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn a_kept_character_stays() {
        assert_eq!(escape_except("a\n\u{7}", &['\n']), "a\n\\u{7}");
    }
}
