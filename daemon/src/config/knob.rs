//! The table of what can be configured.

use super::problem::ProblemKind;
use super::setting::Setting;

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number, not negative.
    Integer,
    /// A number that may have a fraction.
    Number,
    /// Any text.
    Text,
    /// One of the listed words.
    Choice(&'static [&'static str]),
    /// A span of time such as `"5s"` or `"250ms"`.
    Duration,
    /// A number of bytes: an integer, or text such as `"64KiB"`.
    Size,
    /// An IP address with a port; port 0 lets the system choose.
    SocketAddr,
    /// A host name or IP address with a port, such as `"broker.example.com:443"`.
    HostPort,
    /// A file or directory; relative to the configuration file's directory when it is set there.
    Path,
    /// Text that is never shown.
    Secret,
    /// A list of values of one kind. In the environment and in flags also separated by commas.
    List(&'static Self),
}

impl Kind {
    /// What a person should write, with an example.
    pub fn expected(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Integer => "a whole number".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Text | Self::Secret => "text in quotes".to_owned(),
            Self::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Self::Duration => "a duration such as \"5s\" or \"250ms\"".to_owned(),
            Self::Size => "a size such as 4096 or \"64KiB\"".to_owned(),
            Self::SocketAddr => "an address with a port such as \"0.0.0.0:443\" or \"[::]:443\"".to_owned(),
            Self::HostPort => "a host with a port such as \"broker.example.com:443\"".to_owned(),
            Self::Path => "a path in quotes".to_owned(),
            Self::List(of) => format!("a list, each entry {}", of.expected()),
        }
    }

    /// The column "unit" of the reference when the knob names none.
    pub(super) fn unit(self) -> String {
        match self {
            Self::Bool => "true / false".to_owned(),
            Self::Integer | Self::Number => "count".to_owned(),
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Choice(words) => words.join(" / "),
            Self::Duration => "duration".to_owned(),
            Self::Size => "bytes".to_owned(),
            Self::SocketAddr => "address:port".to_owned(),
            Self::HostPort => "host:port".to_owned(),
            Self::Path => "path".to_owned(),
            Self::List(of) => format!("list of {}", of.unit()),
        }
    }

    /// The kind of each entry of a list; any other kind itself.
    pub(super) const fn of_each(self) -> Self {
        if let Self::List(of) = self { *of } else { self }
    }

    pub(super) const fn is_secret(self) -> bool {
        match self {
            Self::Secret => true,
            Self::List(of) => of.is_secret(),
            Self::Bool
            | Self::Integer
            | Self::Number
            | Self::Text
            | Self::Choice(_)
            | Self::Duration
            | Self::Size
            | Self::SocketAddr
            | Self::HostPort
            | Self::Path => false,
        }
    }
}

/// What a knob is when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initial {
    /// This value, in the form a flag would give it.
    Value(&'static str),
    /// Nothing.
    Unset,
    /// A mistake: somebody has to set it.
    Required,
}

/// One configurable value: its key, form, default, and what it is for.
///
/// The path has its levels separated by dots. `service[].name` is the key `name` of each `[[service]]` table; one such
/// level is possible.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) initial: Initial,
    pub(super) doc: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) range: Option<(&'static str, &'static str)>,
    pub(super) too_small: Option<&'static str>,
    pub(super) too_large: Option<&'static str>,
}

impl Knob {
    /// A knob with a default, written as a flag would give it: `5s`, `64KiB`, `true`, `[]`.
    pub const fn new(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Self {
        Self::with(path, kind, Initial::Value(default), doc)
    }

    /// A knob that may stay unset.
    pub const fn optional(path: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self::with(path, kind, Initial::Unset, doc)
    }

    /// A knob that somebody has to set; inside a table array, in each of its tables.
    pub const fn required(path: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self::with(path, kind, Initial::Required, doc)
    }

    const fn with(path: &'static str, kind: Kind, initial: Initial, doc: &'static str) -> Self {
        Self { path, kind, initial, doc, unit: None, range: None, too_small: None, too_large: None }
    }

    /// Bounds for a duration, size or number, both included; for a list, bounds for each entry.
    #[must_use]
    pub const fn range(mut self, min: &'static str, max: &'static str) -> Self {
        self.range = Some((min, max));
        self
    }

    /// The unit to name in the reference when the kind does not say it ("connections", "per second").
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    /// What breaks when the value is too small.
    #[must_use]
    pub const fn too_small(mut self, what_breaks: &'static str) -> Self {
        self.too_small = Some(what_breaks);
        self
    }

    /// What breaks when the value is too large.
    #[must_use]
    pub const fn too_large(mut self, what_breaks: &'static str) -> Self {
        self.too_large = Some(what_breaks);
        self
    }

    /// The key with its levels separated by dots.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// The environment variable that sets it; a key inside a table array has none, the whole array is set by
    /// `env_name` of the array's path.
    pub fn env_name(&self) -> Option<String> {
        (!self.path.contains("[]")).then(|| env_name(self.path))
    }

    /// The default as a typed value; nothing when there is none.
    pub(super) fn default_value(&self) -> Option<Setting> {
        let Initial::Value(text) = self.initial else { return None };
        Setting::from_text(self.kind, text).ok()
    }

    /// Refuses a value outside the bounds.
    pub(super) fn check_range(&self, value: &Setting) -> Result<(), ProblemKind> {
        let Some((min, max)) = self.range else { return Ok(()) };
        let bound = self.kind.of_each();
        let items = if let Kind::List(_) = self.kind { value.items() } else { std::slice::from_ref(value) };
        let (Ok(least), Ok(most)) = (Setting::from_text(bound, min), Setting::from_text(bound, max)) else {
            return Ok(());
        };
        let outside = |item: &&Setting| item.is_less_than(&least) || most.is_less_than(item);
        match items.iter().find(outside) {
            None => Ok(()),
            Some(item) => Err(ProblemKind::OutOfRange {
                found: item.to_string(),
                min: least.to_string(),
                max: most.to_string(),
            }),
        }
    }

    /// Mistakes in a table of knobs: a path twice or malformed, a default or bound of the wrong form or out of
    /// range, no documentation. Each binary asserts in a test that there are none.
    pub fn mistakes(knobs: &[Self]) -> Vec<String> {
        let mut found = Vec::new();
        for (index, knob) in knobs.iter().enumerate() {
            let mut say = |what: &str| found.push(format!("{}: {what}", knob.path));
            if !is_path(knob.path) {
                say("a path has lower-case words separated by dots, and at most one []");
            }
            let clashes = |other: &&Self| {
                other.path == knob.path
                    || other.path.strip_prefix(knob.path).is_some_and(|rest| rest.starts_with('.'))
            };
            if knobs.iter().enumerate().any(|(at, other)| at != index && clashes(&other)) {
                say("declared twice, or both a value and a section");
            }
            if knob.doc.is_empty() {
                say("has no documentation");
            }
            knob.value_mistakes(&mut say);
        }
        found
    }

    fn value_mistakes(&self, say: &mut impl FnMut(&str)) {
        if let Initial::Value(_) = self.initial {
            match self.default_value() {
                None => say("the default is not of the knob's kind"),
                Some(value) if self.check_range(&value).is_err() => say("the default is out of range"),
                Some(_) => {}
            }
        }
        let kind = self.kind.of_each();
        if let Some((min, max)) = self.range {
            match (Setting::from_text(kind, min), Setting::from_text(kind, max)) {
                (Ok(least), Ok(most)) if least.is_less_than(&most) => {}
                _ => say("the bounds are not of the knob's kind, or not in order"),
            }
        }
    }
}

fn is_path(path: &str) -> bool {
    let word = |segment: &str| {
        let name = segment.strip_suffix("[]").unwrap_or(segment);
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    path.split('.').all(word)
        && path.matches("[]").count() <= 1
        && !path.ends_with("[]")
        && !path.contains("__")
}

/// The environment variable for a path: `listen.address` is `RC_LISTEN__ADDRESS`.
pub(super) fn env_name(path: &str) -> String {
    format!("RC_{}", path.replace('.', "__").to_ascii_uppercase())
}
