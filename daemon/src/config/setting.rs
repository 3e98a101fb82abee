//! Typed values, and how they are read from TOML, from text, and into the binary's own types.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use super::knob::Kind;
use super::problem::ProblemKind;

/// A value of the kind its knob declares.
///
/// Displayed as TOML; a secret shows as `"***"`.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// For [`Kind::Bool`].
    Bool(bool),
    /// For [`Kind::Integer`].
    Integer(u64),
    /// For [`Kind::Number`].
    Number(f64),
    /// For [`Kind::Text`], [`Kind::Choice`] and [`Kind::HostPort`].
    Text(String),
    /// For [`Kind::Duration`].
    Duration(Duration),
    /// For [`Kind::Size`], in bytes.
    Size(u64),
    /// For [`Kind::SocketAddr`].
    SocketAddr(SocketAddr),
    /// For [`Kind::Path`].
    Path(PathBuf),
    /// For [`Kind::Secret`].
    Secret(Secret),
    /// For [`Kind::List`].
    List(Vec<Self>),
}

/// Text that prints as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting {
    /// Reads a TOML value as `kind`.
    pub(super) fn from_toml(kind: Kind, value: &Value) -> Result<Self, ProblemKind> {
        let wrong = || wrong_type(kind, value.type_str(), &value.to_string());
        match (kind, value) {
            (Kind::Bool, Value::Boolean(value)) => Ok(Self::Bool(*value)),
            (Kind::Integer, Value::Integer(number)) => {
                u64::try_from(*number).map(Self::Integer).map_err(|_| wrong())
            }
            (Kind::Size, Value::Integer(number)) => {
                u64::try_from(*number).map(Self::Size).map_err(|_| wrong())
            }
            (Kind::Number, Value::Float(number)) if number.is_finite() => Ok(Self::Number(*number)),
            (Kind::Number, Value::Integer(number)) => {
                i32::try_from(*number).map(|small| Self::Number(small.into())).map_err(|_| wrong())
            }
            (Kind::List(of), Value::Array(items)) => {
                items.iter().map(|item| Self::from_toml(*of, item)).collect::<Result<_, _>>().map(Self::List)
            }
            (_, Value::String(text)) => Self::from_quoted(kind, text).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    /// Reads the text of a flag, a variable or a default as `kind`.
    pub(super) fn from_text(kind: Kind, text: &str) -> Result<Self, ProblemKind> {
        let trimmed = text.trim();
        match kind {
            // An IPv6 address in brackets begins like a TOML list and is none.
            Kind::List(of) if !trimmed.starts_with('[') || bare_value(trimmed).is_none() => {
                let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| Self::from_text(*of, item)).collect::<Result<_, _>>().map(Self::List)
            }
            Kind::Bool | Kind::Integer | Kind::Number | Kind::List(_) => {
                let value = bare_value(trimmed).ok_or_else(|| wrong_type(kind, "text", trimmed))?;
                Self::from_toml(kind, &value)
            }
            Kind::Text
            | Kind::Choice(_)
            | Kind::Duration
            | Kind::Size
            | Kind::SocketAddr
            | Kind::HostPort
            | Kind::Path
            | Kind::Secret => {
                let plain = match bare_value(trimmed) {
                    Some(Value::String(unquoted)) => unquoted,
                    _ => text.to_owned(),
                };
                Self::from_quoted(kind, &plain).ok_or_else(|| wrong_type(kind, "text", trimmed))
            }
        }
    }

    /// Reads the content of a TOML string as `kind`.
    fn from_quoted(kind: Kind, text: &str) -> Option<Self> {
        match kind {
            Kind::Text => Some(Self::Text(text.to_owned())),
            Kind::Choice(words) => words.contains(&text).then(|| Self::Text(text.to_owned())),
            Kind::Duration => humantime::parse_duration(text).ok().map(Self::Duration),
            Kind::Size => parse_size(text).map(Self::Size),
            Kind::SocketAddr => text.parse().ok().map(Self::SocketAddr),
            Kind::HostPort => is_host_port(text).then(|| Self::Text(text.to_owned())),
            Kind::Path => (!text.is_empty()).then(|| Self::Path(PathBuf::from(text))),
            Kind::Secret => Some(Self::Secret(Secret(text.to_owned()))),
            Kind::Bool | Kind::Integer | Kind::Number | Kind::List(_) => None,
        }
    }

    /// Makes relative paths relative to `base`.
    pub(super) fn resolved(self, base: &Path) -> Self {
        if let Self::Path(path) = self {
            Self::Path(base.join(path))
        } else if let Self::List(items) = self {
            Self::List(items.into_iter().map(|item| item.resolved(base)).collect())
        } else {
            self
        }
    }

    /// The entries of a list; nothing for other kinds.
    pub(super) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// Order within one kind that has an order; false for all others.
    pub(super) fn is_less_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) | (Self::Size(a), Self::Size(b)) => a < b,
            (Self::Number(a), Self::Number(b)) => a < b,
            (Self::Duration(a), Self::Duration(b)) => a < b,
            _ => false,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number:?}"),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Duration(span) => write!(f, "\"{}\"", humantime::format_duration(*span)),
            Self::Size(bytes) => f.write_str(&format_size(*bytes)),
            Self::SocketAddr(address) => write!(f, "\"{address}\""),
            Self::Path(path) => f.write_str(&quoted(&path.to_string_lossy())),
            Self::Secret(_) => f.write_str("\"***\""),
            Self::List(items) => {
                let shown: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", shown.join(", "))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn wrong_type(kind: Kind, form: &str, found: &str) -> ProblemKind {
    let found = if kind.is_secret() { "***".to_owned() } else { found.chars().take(80).collect() };
    ProblemKind::WrongType { expected: kind.expected(), form: form.to_owned(), found }
}

/// The text as one TOML value, if it is one.
fn bare_value(text: &str) -> Option<Value> {
    use serde::Deserialize;
    Value::deserialize(toml::de::ValueDeserializer::parse(text).ok()?).ok()
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
    ("", 1),
];

fn parse_size(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor)?;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn format_size(bytes: u64) -> String {
    let binary =
        SIZE_UNITS.iter().take(3).rev().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    binary.map_or_else(|| bytes.to_string(), |(unit, factor)| format!("\"{}{unit}\"", bytes / factor))
}

fn is_host_port(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = !host.is_empty() && host.len() <= 253 && !host.contains([':', '[', ']', '/', '@']);
    plain && !host.contains(char::is_whitespace) && u16::from_str(port).is_ok()
}

/// A type that a [`Reader`](super::Reader) can hand out.
pub trait FromSetting: Sized {
    /// The value; nothing when the knob's kind does not fit this type, or the number is too large for it.
    fn from_setting(setting: &Setting) -> Option<Self>;

    /// What stands in for a value whose problem is already on the list; never used by a running process.
    fn placeholder() -> Self;
}

macro_rules! from_setting {
    ($type:ty, $placeholder:expr, $($pattern:pat => $value:expr),+) => {
        impl FromSetting for $type {
            fn from_setting(setting: &Setting) -> Option<Self> {
                match setting {
                    $($pattern => $value,)+
                    _ => None,
                }
            }

            fn placeholder() -> Self {
                $placeholder
            }
        }
    };
}

from_setting!(bool, false, Setting::Bool(value) => Some(*value));
from_setting!(u64, 0, Setting::Integer(n) | Setting::Size(n) => Some(*n));
from_setting!(u32, 0, Setting::Integer(n) | Setting::Size(n) => Self::try_from(*n).ok());
from_setting!(u16, 0, Setting::Integer(n) => Self::try_from(*n).ok());
from_setting!(u8, 0, Setting::Integer(n) => Self::try_from(*n).ok());
from_setting!(usize, 0, Setting::Integer(n) | Setting::Size(n) => Self::try_from(*n).ok());
from_setting!(f64, 0.0, Setting::Number(n) => Some(*n));
from_setting!(String, Self::new(), Setting::Text(text) => Some(text.clone()));
from_setting!(Duration, Self::ZERO, Setting::Duration(span) => Some(*span));
from_setting!(SocketAddr, Self::new(IpAddr::from([0, 0, 0, 0]), 0), Setting::SocketAddr(address) => Some(*address));
from_setting!(PathBuf, Self::new(), Setting::Path(path) => Some(path.clone()));
from_setting!(Secret, Self::default(), Setting::Secret(secret) => Some(secret.clone()));

impl<T: FromSetting> FromSetting for Vec<T> {
    fn from_setting(setting: &Setting) -> Option<Self> {
        if let Setting::List(items) = setting { items.iter().map(T::from_setting).collect() } else { None }
    }

    fn placeholder() -> Self {
        Self::new()
    }
}
