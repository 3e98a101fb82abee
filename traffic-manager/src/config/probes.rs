//! How endpoints are probed.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use rc_daemon::config::Reader;
use rc_proto::wire::BrokerId;
use rc_transport::Expectation;

use super::zones::NAME_FIX;
use crate::decide::{EndpointStatus, Target};
use crate::monitor::{HttpProbe, ProbeAsk, ProbePlace, ProbePlan, ProbeTarget, Watch};
use crate::name::DnsName;

/// Headers of a probe, and ranges of status codes.
const LIST_MAX: usize = 8;
/// The longest timeout that is taken when none is given.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// What Azure takes: interval, and the least and most of its timeouts.
const STRICT: [(Duration, u64, u64); 2] = [(Duration::from_secs(30), 5, 10), (Duration::from_secs(10), 5, 9)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Broker,
    Http { secure: bool },
    Tcp,
}

/// What is asked of the endpoints of a profile.
pub(super) struct ProbeDraft {
    pub(super) plan: ProbePlan,
    protocol: Protocol,
    port: u16,
    service_name: String,
    path: String,
    headers: Vec<(String, String)>,
    expected: Vec<RangeInclusive<u16>>,
}

/// What is different for one endpoint.
pub(super) struct EndpointProbe {
    address: Option<SocketAddr>,
    broker: Option<BrokerId>,
    headers: Vec<(String, String)>,
}

pub(super) fn profile(reader: &mut Reader<'_>, name: Option<&DnsName>, is_strict: bool) -> ProbeDraft {
    let protocol = match reader.read::<String>("protocol").as_str() {
        "HTTP" => Protocol::Http { secure: false },
        "HTTPS" => Protocol::Http { secure: true },
        "TCP" => Protocol::Tcp,
        _ => Protocol::Broker,
    };
    let service_name: Option<DnsName> = reader.parsed("service_name", NAME_FIX);
    let path: Option<String> = reader.optional("probe_path");
    match (protocol, &path) {
        (Protocol::Http { .. }, None) => {
            reader.reject("probe_path", "HTTP and HTTPS need a path", "write a path such as \"/health\"");
        }
        (Protocol::Http { .. }, Some(path)) if !is_path(path) => {
            reader.reject(
                "probe_path",
                format_args!("{path:?} is no path"),
                "write a path such as \"/health\"",
            );
        }
        (Protocol::Tcp | Protocol::Broker, Some(_)) => {
            reader.reject("probe_path", "only HTTP and HTTPS ask for a path", "remove it");
        }
        (Protocol::Http { .. }, Some(_)) | (Protocol::Tcp | Protocol::Broker, None) => {}
    }
    let expected = expected(reader);
    ProbeDraft {
        plan: plan(reader, is_strict),
        protocol,
        port: reader.read("probe_port"),
        service_name: service_name.as_ref().or(name).map(ToString::to_string).unwrap_or_default(),
        path: path.unwrap_or_default(),
        headers: headers(reader),
        expected,
    }
}

/// What fits into the first line of a request.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

fn plan(reader: &mut Reader<'_>, is_strict: bool) -> ProbePlan {
    let interval: Duration = reader.read("interval");
    let timeout: Option<Duration> = reader.optional("timeout");
    let plan = ProbePlan {
        interval,
        timeout: timeout.unwrap_or_else(|| TIMEOUT_DEFAULT.min(interval * 9 / 10)),
        tolerated_failures: reader.read("tolerated_failures"),
        flap_limit: reader.read("flap_limit"),
    };
    if is_strict {
        check_strict(reader, &plan);
    } else if plan.timeout > plan.interval {
        let what = format_args!(
            "a probe may take {} ms and the next comes after {} ms",
            plan.timeout.as_millis(),
            plan.interval.as_millis()
        );
        reader.reject("timeout", what, "use a timeout of at most the interval");
    }
    plan
}

fn check_strict(reader: &mut Reader<'_>, plan: &ProbePlan) {
    let Some((_, least, most)) = STRICT.iter().find(|(interval, _, _)| *interval == plan.interval) else {
        let what = format_args!("Azure does not probe every {} ms", plan.interval.as_millis());
        reader.reject("interval", what, "use \"30s\" or \"10s\", or set azure.strict = false");
        return;
    };
    if plan.timeout.subsec_nanos() != 0 || !(*least..=*most).contains(&plan.timeout.as_secs()) {
        let what = format_args!("Azure does not wait {} ms at this interval", plan.timeout.as_millis());
        let fix = format_args!("use {least} to {most} whole seconds, or set azure.strict = false");
        reader.reject("timeout", what, fix);
    }
}

fn expected(reader: &mut Reader<'_>) -> Vec<RangeInclusive<u16>> {
    let texts: Vec<String> = reader.read("expected_status");
    if texts.len() > LIST_MAX {
        let what = format_args!("there are {} ranges", texts.len());
        reader.reject("expected_status", what, format_args!("use at most {LIST_MAX}"));
    }
    let mut ranges = Vec::with_capacity(texts.len());
    for text in texts {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if (100..=999).contains(&first) && first <= last && last <= 999 => {
                ranges.push(first..=last);
            }
            _ => {
                let what = format_args!("{text:?} is no range of status codes");
                reader.reject("expected_status", what, "write 200 or 200-299, each from 100 to 999");
            }
        }
    }
    if ranges.is_empty() { vec![200..=200] } else { ranges }
}

fn headers(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    const KEY: &str = "probe_headers";
    let texts: Vec<String> = reader.read(KEY);
    if texts.len() > LIST_MAX {
        let what = format_args!("there are {} headers", texts.len());
        reader.reject(KEY, what, format_args!("use at most {LIST_MAX}"));
    }
    let mut headers: Vec<(String, String)> = Vec::with_capacity(texts.len());
    for text in texts {
        let (name, value) = text.split_once(':').unwrap_or((&text, "\n"));
        let (name, value) = (name.trim(), value.strip_prefix(' ').unwrap_or(value).trim_end_matches(' '));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty()
            || !name.bytes().all(is_name)
            || value.bytes().any(|byte| byte < 0x20 || byte == 0x7f)
        {
            reader.reject(KEY, format_args!("{text:?} is no header"), "write \"Name: value\"");
        } else if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            reader.reject(KEY, format_args!("{name} is there twice"), "remove one");
        } else if name.eq_ignore_ascii_case("host") && value.contains('*') {
            reader.reject(KEY, format_args!("{value:?} is no host"), "write the whole name, without *");
        } else {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    headers
}

pub(super) fn endpoint(reader: &mut Reader<'_>) -> EndpointProbe {
    EndpointProbe {
        address: reader.optional("probe_address"),
        broker: reader.parsed("broker", "write <region>/<id>"),
        headers: headers(reader),
    }
}

/// Whether a probe needs our own credentials.
pub(super) const fn needs_credentials(target: &ProbeTarget) -> bool {
    matches!(target.ask, ProbeAsk::Broker(_))
}

impl ProbeDraft {
    /// Whom a probe of an endpoint asks what; nobody for a nested profile, whose own endpoints are probed.
    pub(super) fn target(&self, target: &Target, own: EndpointProbe) -> Option<ProbeTarget> {
        let (place, host) = match target {
            Target::Address(address) => {
                (ProbePlace::Address(SocketAddr::new(*address, self.port)), address.to_string())
            }
            Target::Name(name) => {
                (ProbePlace::Name { name: name.to_string(), port: self.port }, name.to_string())
            }
            Target::Nested { .. } => return None,
        };
        let ask = match self.protocol {
            Protocol::Broker => ProbeAsk::Broker(match own.broker {
                Some(broker) => Expectation::Broker(broker),
                None => Expectation::ServiceName(self.service_name.clone()),
            }),
            Protocol::Tcp => ProbeAsk::Tcp,
            Protocol::Http { secure } => ProbeAsk::Http(HttpProbe {
                secure,
                host,
                path: self.path.clone(),
                headers: merged(&self.headers, own.headers),
                expected: self.expected.clone(),
            }),
        };
        let place = own.address.map_or(place, ProbePlace::Address);
        Some(ProbeTarget { place, ask, timeout: self.plan.timeout })
    }

    /// Whether and how an endpoint is probed.
    pub(super) const fn watch(&self, status: Option<EndpointStatus>) -> Watch {
        match status {
            Some(status) => Watch::Fixed(status),
            None => Watch::Probed(self.plan),
        }
    }
}

/// The endpoint's own headers, and those of the profile that it does not have.
fn merged(of_profile: &[(String, String)], own: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut all = own;
    for (name, value) in of_profile {
        if !all.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            all.push((name.clone(), value.clone()));
        }
    }
    all
}
