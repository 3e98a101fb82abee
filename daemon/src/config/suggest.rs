//! Which knob a mistyped key probably meant.

use super::knob::Knob;

/// The longest key that is compared; longer ones get no suggestion.
const KEY_MAX_CHARS: usize = 64;

/// The nearest path of the table: a few letters off, or the same last word in another section.
pub(super) fn nearest(knobs: &[Knob], key: &str) -> Option<&'static str> {
    if key.chars().count() > KEY_MAX_CHARS {
        return None;
    }
    let key = key.to_ascii_lowercase().replace('-', "_");
    let allowed = (key.chars().count() / 4).clamp(1, 3);
    let close = knobs
        .iter()
        .map(|knob| (distance(knob.path, &key), knob.path))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, path)| path);
    close.or_else(|| {
        let last = last_word(&key);
        knobs
            .iter()
            .map(|knob| knob.path)
            .find(|path| distance(last_word(path), last) <= usize::from(last.len() > 4))
    })
}

fn last_word(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, left) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut before = above + 1;
        next.push(before);
        for (right, cells) in b.iter().zip(row.windows(2)) {
            let (diagonal, up) =
                cells.split_first().map_or((0, 0), |(d, rest)| (*d, rest.first().copied().unwrap_or(0)));
            before = (diagonal + usize::from(left != *right)).min(up + 1).min(before + 1);
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kind;

    const KNOBS: &[Knob] = &[
        Knob::new("timers.keep_alive", Kind::Duration, "15s", "d"),
        Knob::new("listen.address", Kind::SocketAddr, "[::]:443", "d"),
    ];

    #[test]
    fn distance_counts_single_letter_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_near_miss_and_a_key_in_the_wrong_section_are_recognised() {
        assert_eq!(nearest(KNOBS, "timers.keepalive"), Some("timers.keep_alive"));
        assert_eq!(nearest(KNOBS, "timers.keep-alive"), Some("timers.keep_alive"));
        assert_eq!(nearest(KNOBS, "server.address"), Some("listen.address"));
        assert_eq!(nearest(KNOBS, "colour"), None);
        assert_eq!(nearest(KNOBS, &"a".repeat(1000)), None);
    }
}
